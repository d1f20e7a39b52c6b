"""torchattacks: its attacks know cross-entropy and margins only, so the score comes as two logits.

A model of one column, where cross-entropy is a constant, is no comparison: nothing but the random start remains.
"""

from __future__ import annotations

from importlib import import_module

from torch import Tensor

from .problem import Problem


def pgd(problem: Problem) -> Tensor:
    """Returns the last iterate."""
    lib, linf = import_module("torchattacks"), problem.threat.norm == "linf"
    attack = (lib.PGD if linf else lib.PGDL2)(
        problem.at_clean_score(), eps=problem.eps, alpha=problem.step, steps=problem.passes
    )
    x_adv: Tensor = attack(problem.x, problem.labels)
    return x_adv


def apgd(problem: Problem) -> Tensor:
    """`best_loss`: every image is attacked to the end, and the iterate of the highest loss is returned."""
    attack = import_module("torchattacks").APGD(
        problem.at_clean_score(), norm=problem.norm, eps=problem.eps, steps=max(problem.passes - 1, 1)
    )
    x_adv: Tensor = attack.perturb(problem.x, problem.labels, best_loss=True)[1]
    return x_adv


def square(problem: Problem) -> Tensor:
    """One run with a threshold out of reach: `perturb` would return images below the threshold unmoved.

    As many queries as the others have forward and backward passes together.
    """
    attack = import_module("torchattacks").Square(
        problem.out_of_reach(), norm=problem.norm, eps=problem.eps, n_queries=2 * problem.passes
    )
    attack.init_hyperparam(problem.x)
    x_adv: Tensor = attack.attack_single_run(problem.x, problem.labels)[1]
    return x_adv


def autoattack(problem: Problem) -> Tensor:
    """As shipped, at one threshold between the classes. Its targeted part needs a third class: it raises IndexError
    as soon as one image stays below the threshold. The lengths of its parts are fixed."""
    attack = import_module("torchattacks").AutoAttack(
        problem.between_classes(), norm=problem.norm, eps=problem.eps, n_classes=2, seed=0
    )
    x_adv: Tensor = attack(problem.x, problem.labels)
    return x_adv
