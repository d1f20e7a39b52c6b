"""Random perturbations of the same size: the control that every attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench import Attack, Rng, Score, ThreatModel
from bench.core.norms import NORMS

from ._ascent import EOT_DRAWS, per_image, positive


@dataclass(frozen=True)
class Noise(Attack):
    """The best of a few random images of the ball, by the true score.

    tries: random images. Every other one is as far as eps allows: in linf each value moves by eps up or down, in l2
    the image by eps in a random direction, in l1 and l0 random values and pixels go to the edge of the range. The
    others are random starts of the threat model: uniform in the linf cube, shorter moves in the other norms.
    draws: noise draws over which a score is averaged, the same for all tries; a detector that is not
    randomized needs, and gets, one.
    """

    norms = NORMS
    needs_gradient = False

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
            trial = threat.random_start(x, source) if i % 2 else _full_length(x, threat, source)
            value = sign * score.mean(trial, rng.child("noise"), draws)
            better = value > best_value
            best = torch.where(per_image(better), trial, best)
            best_value = torch.where(better, value, best_value)
        return best


def _full_length(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """The steepest step of length eps along a random gradient."""
    length = threat.radius
    return threat.project(x + length * threat.steepest(rng.normal(x), x, length), x)
