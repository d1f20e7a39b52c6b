"""FAB: the smallest perturbation that crosses the threshold (Croce & Hein 2020, https://arxiv.org/abs/1907.02044)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bench import Attack, Attacked, Rng, Score, ThreatModel

from ._ascent import EOT_DRAWS, not_negative, per_image, positive
from ._boundary import Nearest, Problem, Side, radii

OVERSHOOT = 1.05  # of a step to the linearised boundary: the paper's eta


class _Plane(NamedTuple):
    """What the way to a plane takes in a norm."""

    pace: Callable[[Tensor], Tensor]
    """|slope| -> how far each value moves per unit of one number t, on the shortest way."""
    direction: Callable[[Rng, Tensor], Tensor]
    """A random one, shaped as the images."""


PLANES = {
    "linf": _Plane(torch.ones_like, lambda rng, like: 2 * rng.uniform(like) - 1),
    "l2": _Plane(lambda size: size, lambda rng, like: rng.normal(like)),
}


@dataclass(frozen=True)
class FAB(Attack):
    """Steps to the boundary of the linearised score, drawn towards the original image, and back from every crossing.

    Returns, per image, the radius: how far it must move in the norm, on pixels in [0, 1], to be judged wrongly; 0
    where it is from the start, inf where no crossing was found. eps bounds the image that is returned, not the
    radius: the image at the radius if that is within eps, else the one inside the ball with the worst score.

    steps: of each restart; one gradient (times `draws`) and one more forward pass each.
    restarts: the first starts at the image, the others at random within half the radius found so far, or half of eps.
    bias: largest weight of the step from the original image (the paper's alpha_max).
    back: what is left of a perturbation after a crossing (the paper's beta).
    temperature: for scores that are a maximum of local scores. The gradient is that of a logsumexp, at this share of
    the distance between their largest value and their mean, which shrinks to 0 over the steps; 0 is the true gradient.
    draws: noise draws over which score and gradient of a randomized detector are averaged.
    """

    norms = tuple(PLANES)
    needs_threshold = True
    numbers = ("radius",)

    steps: int = 50
    restarts: int = 2
    bias: float = 0.1
    back: float = 0.9
    temperature: float = 0.1
    draws: int = EOT_DRAWS

    def __post_init__(self) -> None:
        positive(steps=self.steps, restarts=self.restarts, draws=self.draws)
        for name, value in (("bias", self.bias), ("back", self.back)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        not_negative(temperature=self.temperature)

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Attacked:
        """Images of the ball around x (B, 3, H, W), and the radii (B,); sign (B,) is +1 or -1.

        Raises UserError where the score has no threshold.
        """
        return radii(x, Side(score, sign, rng, self.draws, "attack fab"), threat, "fab", self._search)

    def _search(self, problem: Problem, nearest: Nearest) -> None:
        x0, threat = problem.x, problem.threat
        for restart in range(self.restarts):
            side = problem.side.child("restart", restart)
            x = self._random(problem, nearest, restart) if restart else x0.clone()
            for i in range(self.steps):
                excess, slope = side.smoothed(self.temperature * (1 - i / self.steps)).gradient(x)
                here = nearest_on_plane(x, slope, -excess, threat.norm)
                # the same plane, seen from the original
                rise = (slope.double() * (x0 - x).double()).flatten(1).sum(1)
                home = nearest_on_plane(x0, slope, -excess - rise, threat.norm)
                a, b = (threat.distance(d, torch.zeros_like(d)) for d in (here, home))
                weight = (a / (a + b).clamp_min(1e-12)).clamp_max(self.bias)
                weight = per_image(weight.to(x))
                x = ((1 - weight) * (x + OVERSHOOT * here) + weight * (x0 + OVERSHOOT * home)).clamp(0, 1)
                crossed = nearest.meet(x, side.excess(x))
                x = torch.where(per_image(crossed), x0 + self.back * (x - x0), x)

    def _random(self, problem: Problem, nearest: Nearest, restart: int) -> Tensor:
        """Half as far as the radius so far, or as eps, in a random direction."""
        x, threat = problem.x, problem.threat
        rng = problem.rng.child("start", restart)
        shift = PLANES[threat.norm].direction(rng, x)
        length = nearest.distance.clamp_max(threat.radius) / 2 / threat.distance(shift, torch.zeros_like(shift))
        return (x + per_image(length.to(x)) * shift).clamp(0, 1)


def nearest_on_plane(x: Tensor, slope: Tensor, rise: Tensor, norm: str) -> Tensor:
    """The shortest move d (B, ...) in the norm with <slope, d> = rise (B,) and x + d in [0, 1].

    Where the range [0, 1] does not reach the plane, d goes as near to it as it can. Exact: every value moves the way
    that helps, by what one number t allows (linf: t; l2: t * |slope|) and at most to the edge of the range; what is
    gained is concave and piecewise linear in t, so its knots are sorted. In double precision, since sums over pixels
    cancel.
    """
    flat, w, rise = x.flatten(1).double(), slope.flatten(1).double(), rise.double()
    w = torch.where(rise[:, None] < 0, -w, w)
    size = w.abs()
    room = torch.where(w > 0, 1 - flat, flat).clamp_min(0)
    room = torch.where(size > 0, room, 0)
    pace = PLANES[norm].pace(size)  # how far a value moves per unit of t
    knots, order = torch.where(size > 0, room / pace.clamp_min(1e-300), 0).sort(1)
    rate = (size * pace).gather(1, order)  # gained per unit of t, until the knot
    running = rate.flip(1).cumsum(1).flip(1)  # of all that have not met the edge before this knot
    full = (rate * knots).cumsum(1) - rate * knots  # gained by those that have
    reached = full + running * knots >= rise.abs()[:, None]
    first = torch.where(reached.any(1), reached.to(torch.uint8).argmax(1), reached.shape[1] - 1)[:, None]
    t = (rise.abs()[:, None] - full.gather(1, first)) / running.gather(1, first).clamp_min(1e-300)
    t = torch.where(reached.any(1, keepdim=True), t, torch.inf)
    return (w.sign() * torch.minimum(room, (t * pace).nan_to_num(0, torch.inf))).view_as(x).to(x)
