"""adversarial-robustness-toolbox: a regressor with our loss, and Square with our criterion and loss.

AutoPGD and AutoAttack of this library take classifiers only. PGD is the numpy form: the torch form asks a regressor
for its number of classes.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .problem import Problem, View


def pgd(problem: Problem) -> Tensor:
    """On sign * score itself, the sign given as the target. Starts at the image: random starts are for classifiers
    there. Returns the last iterate."""
    attack = import_module("art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_numpy")
    x_adv = attack.ProjectedGradientDescentNumpy(
        _regressor(problem, problem.scalar()),
        norm=_norm(problem),
        eps=problem.eps,
        eps_step=problem.step,
        max_iter=problem.passes,
        batch_size=len(problem.x),
        verbose=False,
    ).generate(problem.x.cpu().numpy(), problem.sign.float().cpu().numpy())
    return torch.from_numpy(x_adv)


def square(problem: Problem) -> Tensor:
    """Nothing is ever adversarial enough, so it never stops and never asks for a prediction that counts: those are
    answered without a pass. The loss of the images at hand, asked for again in every iteration, is remembered where
    the detector is not randomized."""
    known: dict[bytes, float] = {}
    remember = problem.draws == 1

    def loss(x: Any, sign: Any) -> Any:
        keys = [image.tobytes() for image in x]
        new = [i for i, key in enumerate(keys) if not remember or key not in known]
        if new:
            with torch.no_grad():
                values = problem.scores(torch.from_numpy(x[new]).to(problem.x)).tolist()
            known.update(zip([keys[i] for i in new], values, strict=True))
        result = -sign * np.array([known[key] for key in keys])
        for key in list(known)[: -4 * len(problem.x)]:  # older ones are not asked for again
            del known[key]
        return result

    attack = import_module("art.attacks.evasion").SquareAttack(
        _regressor(problem, View(lambda x: x[:, 0, 0, :1])),
        norm=_norm(problem),
        adv_criterion=lambda predicted, sign: np.zeros(len(sign), dtype=bool),
        loss=loss,
        max_iter=2 * problem.passes if remember else problem.passes,  # an iteration asks for one loss, or two
        eps=problem.eps,
        batch_size=len(problem.x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(problem.x.cpu().numpy(), problem.sign.cpu().numpy()))


def _norm(problem: Problem) -> float:
    return np.inf if problem.threat.norm == "linf" else 2


def _regressor(problem: Problem, model: nn.Module) -> Any:
    return import_module("art.estimators.regression.pytorch").PyTorchRegressor(
        model.to(problem.x.device),
        loss=lambda predicted, sign: (sign * predicted).sum(),
        input_shape=tuple(problem.x.shape[1:]),
        clip_values=(0.0, 1.0),
        device_type="gpu" if problem.x.is_cuda else "cpu",
    )
