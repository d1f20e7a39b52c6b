"""Images of a ball, by attacks and by lot: what no sound bound of a score may exclude."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..core.rng import Rng
from ..core.score import Score
from ..core.threat import ThreatModel
from ..plugins.lookup import make_attack

STEPS = 20  # of the attack
STARTS = 3
CORNERS = 24  # of the ball, by lot


def images_of_the_ball(
    score: Score, x: Tensor, ids: Sequence[str], threat: ThreatModel, differentiable: bool, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """How they were found, and images (B, 3, H, W) in the ball around x: attacks in both directions, and corners."""
    name = "apgd" if differentiable else "square"
    more = {"steps": STEPS, "restarts": STARTS} if differentiable else {"queries": STEPS * STARTS}
    up = torch.ones(len(x), device=x.device, dtype=x.dtype)
    for sign in (up, -up):
        found = make_attack(name, more)[2](score, x.clone(), sign, threat, Rng.against_certificate(seed, list(ids)))
        yield name, found if isinstance(found, Tensor) else next(iter(found.images.values()))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(CORNERS):
        yield "a corner of the ball", corner(x, torch.randn(x.shape, generator=generator).to(x), threat)


def corner(x: Tensor, direction: Tensor, threat: ThreatModel) -> Tensor:
    """As far from x (B, 3, H, W) in that direction as the ball and the range of pixels allow."""
    step = threat.geometry.steepest(direction, threat.radius)
    return threat.geometry.project(x + step, x, threat.radius)
