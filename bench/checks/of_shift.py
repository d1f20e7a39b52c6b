"""Whether the rows of shifts may be believed: images that are shifted and scored once more, alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ..cells.rows import Row
from ..core.check import Outcome
from ..core.score import Passes
from ..engine.shifter import Shifter
from ..engine.worker import SAME
from .of_detector import run_check

IMAGES = 2  # of each class


def checks_of_shift(worker: Shifter, rows: Sequence[Row]) -> Outcome:
    """Every check of a finished cell."""
    started, spent = time.monotonic(), worker.score.passes
    worker.score.passes = Passes()
    checks = [run_check("shift repeat", lambda given: shifts_repeat(*given), (worker, rows))]
    passes, worker.score.passes = worker.score.passes, spent
    return Outcome(checks, round(time.monotonic() - started, 3), passes)


def shifts_repeat(worker: Shifter, rows: Sequence[Row]) -> tuple[bool, str]:
    """Images are shifted by draws of their own, and scored as the clean ones are: alone they come to the same."""
    some = worker.data.test.of_each_class(IMAGES)
    spread, furthest = max(float(np.ptp([row.clean for row in rows])), 1e-12), 0.0
    for i in some:
        (again,) = worker.batch([i])
        pairs = [(again.clean, rows[i].clean), *((again.more[name], value) for name, value in rows[i].more.items())]
        furthest = max(furthest, *(abs(now - then) for now, then in pairs))
    said = f"{len(some)} images, shifted and scored again one by one, differ by {furthest / spread:.1e} of the spread"
    return furthest <= SAME * spread, said
