"""Random images of the ball's rim: the control that every attack must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Problem


def noise(problem: Problem) -> Tensor:
    """A random sign of eps for every value in linf, a random direction of length eps in l2."""
    step = problem.threat.steepest(torch.randn_like(problem.x))
    return problem.threat.project(problem.x + problem.eps * step, problem.x)
