"""DDN: direction and length of a perturbation apart (Rony et al. 2019, https://arxiv.org/abs/1811.09600)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import Attack, Attacked, Rng, Score, ThreatModel

from ._ascent import EOT_DRAWS, not_negative, per_image, positive
from ._boundary import Nearest, Problem, Side, radii

LAST_STEP = 0.01  # of the length of the first one: the steps shrink along a half cosine


@dataclass(frozen=True)
class DDN(Attack):
    """Gradient steps turn the perturbation; its length shrinks after every crossing and grows otherwise.

    Returns the radius of every image, as fab does, and the image that fab's docstring describes.

    steps: gradients (times `draws`).
    step_size: of the first step, in units of the current length. The paper's is 1 pixel range; here lengths differ by
    orders of magnitude between detectors, and a step as long as the perturbation forgets the gradients before it.
    The first length is eps.
    change: share by which the length shrinks or grows (the paper's gamma).
    temperature: see fab; here it shrinks to 0 over the steps.
    draws: noise draws over which score and gradient of a randomized detector are averaged.
    """

    norms = ("l2",)
    needs_threshold = True
    numbers = ("radius",)

    steps: int = 100
    step_size: float = 0.3
    change: float = 0.05
    temperature: float = 0.1
    draws: int = EOT_DRAWS

    def __post_init__(self) -> None:
        positive(steps=self.steps, draws=self.draws)
        if self.step_size <= 0:
            raise ValueError(f"step_size must be above 0, got {self.step_size}")
        if not 0 < self.change < 1:
            raise ValueError(f"change must be in (0, 1), got {self.change}")
        not_negative(temperature=self.temperature)

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Attacked:
        """Images of the ball around x (B, 3, H, W), and the radii (B,); sign (B,) is +1 or -1.

        Raises UserError where the score has no threshold.
        """
        return radii(x, Side(score, sign, rng, self.draws, "attack ddn"), threat, "ddn", self._search)

    def _search(self, problem: Problem, nearest: Nearest) -> None:
        x, threat = problem.x, problem.threat
        side = problem.side.child("search")
        shift = torch.zeros_like(x)
        length = per_image(torch.full_like(side.sign, threat.radius))
        for i in range(self.steps):
            follow = side.smoothed(self.temperature * (1 - i / self.steps))
            excess, slope = follow.gradient(x + shift)
            crossed = per_image(nearest.meet(x + shift, excess))
            if i:
                length = length * torch.where(crossed, 1 - self.change, 1 + self.change)
            part = LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * i / self.steps)) / 2
            shift = shift + self.step_size * part * length * threat.steepest(slope)
            shift = (x + length * threat.steepest(shift)).clamp(0, 1) - x
        nearest.meet(x + shift, side.excess(x + shift))
