"""pyautoattack: AutoAttack's own parts on the two-logit view [tau - s, s - tau], class 0 normal, class 1 anomalous.

The cascade `AutoAttack(...)` returns unbroken images unmoved and stops at the threshold; its parts, called themselves,
go to the end. DLR and the targeted APGD need a third class.
"""

from __future__ import annotations

from importlib import import_module

from torch import Tensor

from .problem import Problem


def apgd_ce(problem: Problem) -> Tensor:
    """`best_loss`: every image is attacked to the end, and the iterate of the highest loss is returned."""
    attack = import_module("pyautoattack.autopgd_base").APGDAttack(
        problem.at_clean_score(), n_iter=max(problem.passes - 1, 1), norm=problem.norm, eps=problem.eps, loss="ce"
    )
    x_adv: Tensor = attack.perturb(problem.x, problem.labels, best_loss=True)
    return x_adv


def fab(problem: Problem) -> Tensor:
    """FAB-T with the one other class, which has one backward pass per iteration and two forward ones: 2/3 as many
    iterations as passes. Its result is taken to the rim."""
    attack = import_module("pyautoattack.fab_pt").FABAttack_PT(
        problem.within_reach(), norm=problem.norm, n_iter=max(2 * problem.passes // 3, 1), eps=problem.eps
    )
    attack.target_class = 2  # the second of the sorted logits
    return problem.to_the_rim(attack.attack_single_run(problem.x, problem.labels, is_targeted=True))


def square(problem: Problem) -> Tensor:
    """One run with a threshold out of reach: `perturb` would return images below the threshold unmoved.

    As many queries as the others have forward and backward passes together.
    """
    attack = import_module("pyautoattack.square").SquareAttack(
        problem.out_of_reach(), norm=problem.norm, n_queries=2 * problem.passes, eps=problem.eps
    )
    attack.init_hyperparam(problem.x)
    x_adv: Tensor = attack.attack_single_run(problem.x, problem.labels)[1]
    return x_adv
