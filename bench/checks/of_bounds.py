"""Whether bounds that a detector proves may be believed: attacks and corners of the ball must not leave them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.check import Outcome
from ..core.data import Data
from ..core.threat import ThreatModel
from ..engine.bounder import Bounder, Deterministic
from ..engine.worker import Prepared
from ..stats.metrics import conservative, points
from .ball import images_of_the_ball
from .of_detector import run_check

IMAGES = 4  # of each class
SMALLER = 0.5  # of the radius: a ball within the ball


@dataclass(frozen=True)
class Bounded:
    """A finished cell, and those of its images whose bounds are the narrowest."""

    spec: RunSpec
    data: Data
    rows: Sequence[Row]
    bounder: Bounder

    @cached_property
    def some(self) -> list[int]:
        return narrowest(self.rows, IMAGES)

    @cached_property
    def x(self) -> Tensor:
        return self.bounder.images(self.some)

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.bounder.bounds(self.x, self.spec.threat, self.some)


def narrowest(rows: Sequence[Row], count: int) -> list[int]:
    """The images of each class whose bounds are the narrowest on the adversary's side: one that is wrong shows there
    first."""
    chosen = []
    for label in (0, 1):
        own = [i for i, row in enumerate(rows) if row.label == label]
        chosen += sorted(own, key=lambda i: abs(rows[i].worst - rows[i].clean))[:count]
    return chosen


def checks_of_bounds(
    spec: RunSpec, data: Data, prepared: Prepared, settings: Deterministic, rows: Sequence[Row]
) -> Outcome:
    """Every check of a finished certificate by bounds; one that raises has failed, and says where."""
    started = time.monotonic()
    bounder = Bounder(spec, data, prepared._replace(clean=None), settings)
    bounded = Bounded(spec, data, rows, bounder)
    checks = [run_check(name, check, bounded) for name, check in CHECKS.items()]
    return Outcome(checks, round(time.monotonic() - started, 3), bounder.score.passes)


def rows_are_ordered(rows: Sequence[Row]) -> tuple[bool, str]:
    """Every bound on its side of the score, and no certified AUROC above the clean one."""
    labels = np.array([row.label for row in rows], dtype=bool)
    clean = np.array([row.clean for row in rows])
    worst = np.array([row.worst for row in rows])
    wrong = [row.id for row in rows if not row.more["low"] <= row.clean <= row.more["high"]]
    if wrong:
        return False, f"{len(wrong)} scores are outside their own bounds, {wrong[0]} first"
    infinite = int(np.isinf(worst).sum())
    if not labels.any():
        return True, f"every score is inside its own bounds; {infinite} of {len(worst)} bounds are infinite"
    bound = points(conservative(worst, labels), labels)["auroc"]
    before = points(clean, labels)["auroc"]
    sentence = f"certified AUROC {bound:.4f}, clean {before:.4f}; {infinite} of {len(worst)} bounds are infinite"
    return bound <= before + 1e-12, sentence


def bounds_are_ordered(bounded: Bounded) -> tuple[bool, str]:
    """Of the rows; and a smaller ball has no wider bounds."""
    passed, sentence = rows_are_ordered(bounded.rows)
    smaller = ThreatModel(bounded.spec.norm, f"{SMALLER * bounded.spec.threat.radius:.12f}")
    low, high = bounded.bounder.bounds(bounded.x, smaller, bounded.some)
    wider = (low < bounded.bounds[0]) | (high > bounded.bounds[1])
    if wider.any():
        name = bounded.rows[bounded.some[int(wider.int().argmax())]].id
        return False, f"the bounds of {name} are wider in a ball of half the radius"
    return passed, sentence


def images_stay_inside(bounded: Bounded) -> tuple[bool, str]:
    """No image of the ball that anybody finds has a score outside of the bounds, whichever way it is moved."""
    threat, (low, high) = bounded.spec.threat, bounded.bounds
    furthest, count = -math.inf, 0
    clean = bounded.bounder.clean(bounded.x, bounded.some)
    bounder, ids = bounded.bounder, [bounded.data.test.ids[i] for i in bounded.some]
    found = images_of_the_ball(
        bounder.score, bounded.x, ids, threat, bounder.prepared.differentiable, bounded.spec.seed
    )
    for name, moved in found:
        if wrong := threat.violation(moved, bounded.x):
            return False, f"{name} left the ball: an image {wrong}"
        scores = bounded.bounder.clean(moved, bounded.some)
        for i, index in enumerate(bounded.some):
            score, lower, upper = scores[i].item(), low[i].item(), high[i].item()
            if not lower <= score <= upper:
                row = bounded.rows[index].id
                return False, f"the certificate is broken: {name} at {threat} gives {row} the score {score:.9g}, " + (
                    f"outside of its bounds {lower:.9g} and {upper:.9g}"
                )
            room = upper - clean[i].item() if score > clean[i].item() else clean[i].item() - lower
            furthest = max(furthest, abs(score - clean[i].item()) / room if room > 0 else 0.0)
        count += len(moved)
    return True, f"{count} images within {threat} of {len(bounded.some)} stay inside, {furthest:.0%} of the way at most"


CHECKS = {"bounds": bounds_are_ordered, "inside the ball": images_stay_inside}
