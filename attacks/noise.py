"""Random perturbations of the same size: the control that every attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench import Rng, Score, ThreatModel

from ._ascent import EOT_DRAWS, per_image, positive


@dataclass(frozen=True)
class Noise:
    """The best of a few random images of the ball, by the true score.

    tries: random images. Every other one spends the whole budget: in linf each value moves by eps up or down, in l2
    the image by eps in a random direction, in l1 and l0 random values and pixels go to the edge of the range. The
    others are random starts of the threat model: uniform in the linf cube, shorter moves in the other norms.
    draws: noise draws over which a score is averaged, the same for all tries; a detector that is not
    randomized needs, and gets, one.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")
    needs_gradient: ClassVar[bool] = False

    tries: int = 10
    draws: int = EOT_DRAWS

    def __post_init__(self) -> None:
        positive(tries=self.tries, draws=self.draws)

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Images of the ball around x (B, 3, H, W) with a high sign * score; sign (B,) is +1 or -1."""
        draws = self.draws if score.randomized else 1
        best, best_value = x, torch.full_like(sign, -torch.inf)
        for i in range(self.tries):
            source = rng.child("try", i)
            trial = threat.random_start(x, source) if i % 2 else _whole_budget(x, threat, source)
            value = sign * score.mean(trial, rng.child("noise"), draws)
            better = value > best_value
            best = torch.where(per_image(better), trial, best)
            best_value = torch.where(better, value, best_value)
        return best


def _whole_budget(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """The steepest step of full length along a random gradient."""
    length = threat.radius
    return threat.project(x + length * threat.steepest(rng.normal(x), x, length), x)
