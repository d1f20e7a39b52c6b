"""PGD: projected steepest ascent on the score itself (Madry et al. 2018, https://arxiv.org/abs/1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bench import Rng, Score, ThreatModel

EOT_DRAWS = 8  # where the parameter `draws` is not given


@dataclass(frozen=True)
class PGD:
    """Steepest ascent on sign * score, projected into the ball after every step.

    steps: gradient evaluations per restart (times `draws`).
    restarts: independent runs, each from a fresh random point of the ball; the best result counts.
    schedule: `linear` steps shrink to 0, which reaches more on scores that are a maximum (an autoencoder on real
    bottles at 2/255: AUROC 0.340 against 0.367); `constant` ones are the field's habit.
    step_size: length of the first step in the threat model's norm and pixel units; 0 means 10 eps / steps where they
    shrink, and 2.5 eps / steps where they do not. In l0 it multiplies a step that moves one pixel across the range
    (Croce & Hein 2019, https://arxiv.org/abs/1909.05040).
    draws: noise draws over which score and gradient are averaged (expectation over transformation, Athalye et
    al. 2018, https://arxiv.org/abs/1802.00420), 0 means 8; a detector that is not randomized needs, and gets, one.
    random_start: False starts at the image itself.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")
    needs_gradient: ClassVar[bool] = True

    steps: int = 20
    restarts: int = 1
    schedule: Literal["linear", "constant"] = "linear"
    step_size: float = 0.0
    draws: int = 0
    random_start: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("step_size", "draws"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Images of the ball around x (B, 3, H, W) with a high sign * score; sign (B,) is +1 or -1.

        Per restart the best iterate is kept. For a randomized detector the values met on the way are noisy and
        the largest of them is a lucky one, so the candidates (the best and the last iterate of each restart) meet
        again under fresh draws, the same for all of them.
        """
        draws = (self.draws or EOT_DRAWS) if score.randomized else 1
        candidates: list[Tensor] = []
        values: list[Tensor] = []
        for restart in range(self.restarts):
            source = rng.child("restart", restart)
            for x_adv, value in self._ascend(score, x, sign, threat, source, draws):
                candidates.append(x_adv)
                values.append(value)
        if score.randomized:
            with torch.no_grad():
                values = [sign * score.mean(c, rng.child("choose"), draws) for c in candidates]
        best = torch.stack(values).argmax(0)  # (B,): which candidate
        return torch.stack(candidates)[best, torch.arange(len(x), device=x.device)]

    def _ascend(
        self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng, draws: int
    ) -> list[tuple[Tensor, Tensor]]:
        """[(best iterate, its value), (last iterate, its value)] of one restart."""
        shrinks = self.schedule == "linear"
        first = self.step_size or (10 if shrinks else 2.5) * threat.radius / self.steps
        x_adv = threat.random_start(x, rng.child("start")) if self.random_start else x.clone()
        noise = rng.child("noise")
        best, best_value = x_adv, torch.full_like(sign, -torch.inf)
        for i in range(self.steps):
            step = first * (1 - i / self.steps) if shrinks else first
            value, gradient = _value_and_gradient(score, x_adv, sign, noise, draws)
            best, best_value = _keep_better(best, best_value, x_adv, value)
            x_adv = threat.project(x_adv + step * threat.steepest(gradient, x_adv, step), x)
        if score.randomized:
            return [(best, best_value), (x_adv, best_value)]
        with torch.no_grad():
            value = sign * score(x_adv, noise)
        return [_keep_better(best, best_value, x_adv, value)]


def _keep_better(best: Tensor, best_value: Tensor, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    better = value > best_value
    return torch.where(better[:, None, None, None], x, best), torch.where(better, value, best_value)


def _value_and_gradient(score: Score, x: Tensor, sign: Tensor, rng: Rng, draws: int) -> tuple[Tensor, Tensor]:
    """Mean of sign * score over draws (B,), and its gradient (B, 3, H, W); one draw in memory at a time."""
    total_value, total_gradient = torch.zeros_like(sign), torch.zeros_like(x)
    for _ in range(draws):
        point = x.detach().requires_grad_(True)
        value = sign * score(point, rng)
        (gradient,) = torch.autograd.grad(value.sum(), point)
        total_value += value.detach() / draws
        total_gradient += gradient.nan_to_num(0, 0, 0) / draws  # one bad pixel must not end an attack
    return total_value, total_gradient
