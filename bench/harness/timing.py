"""What cells will take of which no record tells: passes by what the attack says of itself, seconds by a few timed ones.

A fit that is not kept is not made for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch

from ..cells.spec import RunSpec
from ..core.attack import Attack, Method
from ..core.data import Data
from ..core.detector import Wrapper
from ..core.rng import Rng
from ..core.score import Passes, Score
from ..engine.certifier import Certificate, with_draws
from ..engine.shifter import Shift
from ..plugins.fitting import DetectorSpec, NotKept
from .afresh import FreshTwin
from .subject import batch_size_for

TIMED = 3  # calls, after one that is not
SCORED = 3  # times a row: clean, attacked, rounded
COMPARED = 8  # draws of a randomized detector, by which checks compare
OF_CHECKS = 300  # passes that do not depend on the attack, nor much on the number of images
IMAGES_PER_PROBE, PROBE = 32, 4  # of the checks after an attack
CERTIFIED, FRESH, FOLLOWED = 4, 500, 50  # of those of a certificate: images, fresh draws, draws of its attack


class Spent(NamedTuple):
    """Passes of a cell, about."""

    row: Passes
    """Of an image."""
    checks: Passes


class Pace(NamedTuple):
    """Seconds of a fitted detector, of one image."""

    forward: float
    backward: float
    noisy: float
    """Of one noisy image of a smoothed detector; of others as `forward`."""
    afresh: float
    """Of a process that has it loaded again."""
    randomized: bool

    def seconds(self, passes: Passes, certified: bool = False) -> float:
        """certified: passes are of single noisy images."""
        return passes.forwards * (self.noisy if certified else self.forward) + passes.backwards * self.backward


def spent(method: Method, spec: RunSpec, images: int, randomized: bool) -> Spent | None:
    """By what the attack says of itself; None of one that says nothing."""
    draws = spec.score_draws if randomized else 1
    if isinstance(method, Certificate):
        fresh = CERTIFIED * (2 * min(method.samples, FRESH) + FOLLOWED)
        return Spent(Passes(method.samples, 0), Passes(fresh, CERTIFIED * FOLLOWED))
    if isinstance(method, Shift):
        return Spent(Passes(draws * (1 + len(method.conditions)), 0), Passes(0, 0))
    assert isinstance(method, Attack)
    attack = _attack(method, randomized)
    if attack is None:
        return None
    row = Passes(attack.forwards + SCORED * draws, attack.backwards)
    probe = 2 * min(max(images // IMAGES_PER_PROBE, 1), PROBE)
    again = probe + max(probe // 2, 2)  # once more, and with more steps
    fixed = OF_CHECKS * (COMPARED if randomized else 1)
    return Spent(row, Passes(again * row.forwards + fixed, again * row.backwards))


def _attack(method: Attack, randomized: bool) -> Passes | None:
    """Of an image."""
    noisy = int(getattr(method, "draws", 1)) if randomized else 1
    if method.budget is not None:  # and once more under known noise
        steps = method.budget * (noisy + randomized)
        return Passes(steps, steps)
    queries = getattr(method, "queries", getattr(method, "tries", None))
    if isinstance(queries, int) and not method.needs_gradient and not method.surveyed:
        return Passes(queries * noisy, 0)
    return None


def pace_of(spec: DetectorSpec, data: Data, batch_size: int | None) -> Pace | None:
    """Timed on test images, as the cells have them; None where no fit is kept."""
    kept = replace(spec, only_kept=True, _fitted={}, _thresholds={}, _kept=[])
    try:
        detector = kept.fitted(data)
    except NotKept:
        return None
    some = range(min(batch_size_for(data.image_size, batch_size), len(data.test)))
    x = data.test.images(some).to(detector.device)
    score, names = Score(detector, spec.label), [data.test.ids[i] for i in some]

    def forward(score: Score = score) -> None:
        with torch.no_grad():
            score(x, Rng(0, names)).sum().item()  # waits for a GPU

    def both() -> None:
        point = x.clone().requires_grad_()
        torch.autograd.grad(score(point, Rng(0, names)).sum(), point)[0].sum().item()

    alone = _seconds(forward) / len(x)
    twice = _seconds(both) / len(x) if detector.differentiable else alone
    noisy = alone
    if isinstance(detector, Wrapper) and spec.plugin.name == "smoothed":
        single = Score(with_draws(detector, 1), spec.label)
        noisy = _seconds(lambda: forward(single)) / len(x)
    started = time.perf_counter()
    FreshTwin(detector, kept)(x[:1], names[:1], 1)
    afresh = time.perf_counter() - started
    return Pace(alone, max(twice - alone, 0.0), noisy, afresh, detector.randomized)


def _seconds(call: Callable[[], None]) -> float:
    found = []
    for _ in range(TIMED + 1):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return median(found[1:])
