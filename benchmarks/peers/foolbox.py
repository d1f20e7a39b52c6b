"""foolbox: PGD with the loss overridden; minimum-norm attacks on two logits, their result taken to the rim."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from .problem import Problem


def pgd(problem: Problem) -> Tensor:
    """On sign * score itself; returns the last iterate."""
    lib, eagerpy = import_module("foolbox"), import_module("eagerpy")
    linf = problem.threat.norm == "linf"
    base = lib.attacks.LinfProjectedGradientDescentAttack if linf else lib.attacks.L2ProjectedGradientDescentAttack

    class OnScore(base):  # type: ignore[misc, valid-type]
        def get_loss_fn(self, model: Any, labels: Any) -> Any:
            sign = eagerpy.astensor(problem.sign)
            return lambda inputs: (sign * model(inputs)[:, 0]).sum()

    model = lib.PyTorchModel(problem.scalar().eval(), bounds=(0, 1))
    attack = OnScore(abs_stepsize=problem.step, steps=problem.passes, random_start=True)
    x_adv: Tensor = attack.run(model, problem.x, lib.criteria.Misclassification(problem.labels), epsilon=problem.eps)
    return x_adv


def ddn(problem: Problem) -> Tensor:
    """Rony et al. 2019, https://arxiv.org/abs/1811.09600."""
    lib = import_module("foolbox")
    attack = lib.attacks.DDNAttack(init_epsilon=problem.eps, steps=max(problem.passes - 1, 1))
    return _least(problem, attack)


def fmn(problem: Problem) -> Tensor:
    """Pintor et al. 2021, https://arxiv.org/abs/2102.12827. In linf only: the l2 form of foolbox 3.3 projects on a
    ball that every point is inside of."""
    return _least(problem, import_module("foolbox").attacks.LInfFMNAttack(steps=max(problem.passes - 1, 1)))


def _least(problem: Problem, attack: Any) -> Tensor:
    lib = import_module("foolbox")
    model = lib.PyTorchModel(problem.within_reach().eval(), bounds=(0, 1))
    return problem.to_the_rim(attack.run(model, problem.x, lib.criteria.Misclassification(problem.labels)))
