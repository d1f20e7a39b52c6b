"""Whether the rows of a box of light and pose may be believed: images made again of the numbers that rows keep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..cells.rows import Row
from ..core.check import Outcome
from ..core.score import Passes
from ..core.semantic import MOST, transformed
from ..engine.box import Searcher, made_of
from ..engine.worker import SAME
from .of_detector import run_check

IMAGES = 4  # of each class
POINTS = 32  # of the box, by lot
GAINED = 0.1  # of what the search gains in the mean: what the best of those may add
LOT = 16  # images that are scored together


class Searched(NamedTuple):
    """A finished cell."""

    worker: Searcher
    rows: Sequence[Row]


def checks_of_box(worker: Searcher, rows: Sequence[Row]) -> Outcome:
    """Every check of a finished cell."""
    started, spent = time.monotonic(), worker.score.passes
    worker.score.passes = Passes()
    checks = [run_check(name, check, Searched(worker, rows)) for name, check in CHECKS.items()]
    passes, worker.score.passes = worker.score.passes, spent
    return Outcome(checks, round(time.monotonic() - started, 3), passes)


def numbers_make_the_images(searched: Searched) -> tuple[bool, str]:
    """Of every row: the clean image under its numbers has its score."""
    worker, rows = searched
    spread, furthest, where = max(float(np.ptp([row.clean for row in rows])), 1e-12), 0.0, ""
    for first in range(0, len(rows), LOT):
        some = range(first, min(first + LOT, len(rows)))
        images = transformed(worker.images(some), torch.cat([made_of(rows[i]) for i in some]))
        for i, score in zip(some, worker.scores(images, some, "transformed").tolist(), strict=True):
            if (off := abs(score - rows[i].worst)) > furthest:
                furthest, where = off, f" ({rows[i].id})"
    said = (
        f"{len(rows)} images, made again of their rows, have scores {furthest / spread:.1e} of the spread off at most"
    )
    return furthest <= SAME * spread, said + where


def chance_is_no_better(searched: Searched) -> tuple[bool, str]:
    """The best of a few random points of the box is no worse for the detector than what was found."""
    worker, rows = searched
    some = worker.data.test.of_each_class(IMAGES)
    sign = torch.tensor([1.0 - 2 * rows[i].label for i in some], dtype=torch.float64)
    found = sign * torch.tensor([rows[i].worst for i in some], dtype=torch.float64)
    gain = float((found - sign * torch.tensor([rows[i].clean for i in some], dtype=torch.float64)).mean())
    x, rng = worker.images(some), worker.rng(some).for_check()
    best = torch.full_like(found, -torch.inf)
    for k in range(POINTS):
        numbers = (2 * rng.child("point", k).uniform(torch.empty(len(some), len(MOST))).double() - 1) * MOST
        scores = worker.scores(transformed(x, worker.share * numbers), some, "transformed").double().cpu()
        best = torch.maximum(best, sign * scores)
    added = float((best - found).clamp_min(0).mean())
    ahead = int((best > found).sum())
    said = (
        f"the best of {POINTS} random points is ahead at {ahead} of {len(some)} images and adds {added:.2g} in the mean"
    )
    return added <= GAINED * max(gain, 0.0), f"{said} (the search gains {gain:.2g})"


CHECKS = {"box rows": numbers_make_the_images, "box chance": chance_is_no_better}
