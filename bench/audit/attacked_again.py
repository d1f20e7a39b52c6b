"""A few rows of a cell, made once more: chosen by whoever looks, attacked as the cell was, and set beside the rows.

What a submission claims is that the attack went no further. So a row is compared one way: `eased` is how much further
the same attack goes here. Two runs of one attack differ in their last digits, and what follows from them, so some of
that is allowed; docs/submissions.md says what follows for what can be claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..checks.reattack import fall_of
from ..core.attack import Attack
from ..core.data import Data
from ..core.rng import rerun_lot
from ..engine.certificates import Settings, worker_of
from ..engine.worker import SAME, Prepared, Worker
from ..harness.subject import batch_size_for
from ..stats.measured import Measured
from ..stats.metrics import accuracy, auroc_of
from ..stats.paired import difference
from .verify import Verified

EASED = 0.1
"""Of the gain of the attack, in the mean: as much further it may go here; the check `repeat` allows as much."""
EASED_ALONE = 0.25  # the same at a single image
ALONE = 0.1  # of the images, and more than one: on how many it may be more than that
FALL = 0.02  # of AUROC, or of accuracy where the attack aims at the threshold: by so much it may be lower here
ERRORS = 3  # standard errors of the mean over noise draws, on top of all that
CHEAPER = 2  # times: by how much the passes that a record counts may be fewer
NUMBERS = ("radius", "broken")
"""Columns that are no scores."""
COLUMN = 0.25  # of the gain, in the mean: what the parts of an attack may be off, either way

Floats = npt.NDArray[np.float64]


class Again(NamedTuple):
    """Rows of a cell, and the same made here; n images."""

    then: list[Row]
    now: list[Row]
    error: Floats
    """(n,): standard error of the score after the attack over its noise draws; 0 where there is one."""
    forwards: float
    backwards: float
    """Passes per image."""

    @property
    def sign(self) -> Floats:
        """(n,): 1 where the adversary wants the score up."""
        return np.array([1.0 - 2 * row.label for row in self.now])

    def column(self, name: str) -> tuple[Floats, Floats]:
        """(n,) each: then and now."""
        found = [[getattr(row, name, row.more.get(name)) for row in rows] for rows in (self.then, self.now)]
        return np.array(found[0], dtype=np.float64), np.array(found[1], dtype=np.float64)

    @property
    def eased(self) -> Floats:
        """(n,): how much further the attack went here, in the adversary's direction."""
        then, now = self.column("worst")
        return self.sign * (now - then)

    @property
    def gain(self) -> Floats:
        """(n,): what it gained here."""
        return np.maximum(self.sign * (self.column("worst")[1] - self.column("clean")[1]), 0)


def choose(rows: Sequence[Row], spec: RunSpec, count: int, seed: int, both: bool = False) -> list[int]:
    """Which images are attacked again: of each class that the adversary moves an equal number, spread over the ranks of
    `worst`, and within them by a lot that depends on the seed, which no submitter knows. both: of the other one too."""
    moved = [True] * len(rows) if both else spec.threat.controls(torch.tensor([row.label for row in rows])).tolist()
    classes = [[i for i, row in enumerate(rows) if row.label == label and moved[i]] for label in (0, 1)]
    classes = sorted((own for own in classes if own), key=len)
    chosen: list[int] = []
    for left, own in zip(range(len(classes), 0, -1), classes, strict=True):
        share = min((count - len(chosen)) // left, len(own))
        ranked = sorted(own, key=lambda i: (rows[i].worst, rows[i].id))
        strata = [ranked[k * len(ranked) // share : (k + 1) * len(ranked) // share] for k in range(share)]
        chosen += [min(stratum, key=lambda i: rerun_lot(seed, rows[i].id)) for stratum in strata]
    return sorted(chosen)


def attacked_again(
    spec: RunSpec, data: Data, prepared: Prepared, attack: Attack, rows: Sequence[Row], some: Sequence[int]
) -> Again:
    """These rows by the same attack, from the same random starts."""
    worker = Worker(spec, data, prepared, attack)
    now = [row for part in _batches(some, spec.image_size) for row in worker.batch(part)]
    passes = (worker.score.forwards / max(len(some), 1), worker.score.backwards / max(len(some), 1))
    error = np.array([row.more.get("worst_se", 0.0) for row in now])
    return Again([rows[i] for i in some], now, error, *passes)


def certified_again(
    spec: RunSpec, data: Data, prepared: Prepared, settings: Settings, rows: Sequence[Row], some: Sequence[int]
) -> Again:
    """These rows once more; those of smoothing from the same noise."""
    certifier = worker_of(spec, data, prepared, settings, batch_size_for(spec.image_size), keep=False)
    now = certifier.batch(some)
    return Again([rows[i] for i in some], now, np.zeros(len(some)), certifier.score.forwards / max(len(some), 1), 0.0)


def _batches(some: Sequence[int], image_size: int) -> Iterator[Sequence[int]]:
    size = batch_size_for(image_size)
    return (some[start : start + size] for start in range(0, len(some), size))


def rows_are_no_better(
    again: Again, rows: Sequence[Row], spread: float, decides_at: float | None, stops: bool
) -> tuple[Verified, dict[str, float]]:
    """The attack goes no further here than the rows say, with the weights of the run; and by how much it does.

    decides_at: the threshold, where the metric is of decisions. stops: the attack stops there, and only decisions are
    compared.
    """
    eased, gain, unit = again.eased, again.gain, float(np.median(again.gain))
    floor = SAME * spread
    noise = ERRORS * 2**0.5 * again.error
    mean = float(eased.mean())
    allowed = max(EASED * float(gain.mean()), floor) + float(np.sqrt((noise**2).sum())) / len(eased)
    alone = int((eased > np.maximum(EASED_ALONE * np.maximum(gain, unit), floor) + noise).sum())
    fall = _fall(again, rows, decides_at)
    allowed_fall = FALL + _noise_of_fall(again, rows, decides_at)
    if decides_at is not None:  # one decision, of few images
        allowed_fall = max(allowed_fall, 1 / len(eased))
    said = (
        f"{len(eased)} images attacked again: the attack goes {mean:.3g} further than the rows say in the mean (it "
        f"gains {float(gain.mean()):.3g}, {allowed:.2g} is allowed), at {alone} of them by far, and the "
        f"{'AUROC' if decides_at is None else 'accuracy'} falls by {max(fall, 0):.3f}"
    )
    further = mean > allowed or alone > max(1, ALONE * len(eased))
    passed = fall <= allowed_fall and (stops or not further)
    found = {"eased, mean": mean, "eased, largest": float(eased.max()), "gain, mean": float(gain.mean()), "fall": fall}
    return Verified("pass" if passed else "FAIL", "attack", said), found


def _fall(again: Again, rows: Sequence[Row], decides_at: float | None, shift: float = 0.0) -> float:
    """By how much the metric falls if all rows moved as these did; shift: of the scores here, in standard errors."""
    then, now = again.column("worst")
    now = now + shift * again.sign * again.error
    moves = zip([row.label for row in again.now], then.tolist(), now.tolist(), strict=True)
    return fall_of(moves, rows, decides_at)


def _noise_of_fall(again: Again, rows: Sequence[Row], decides_at: float | None) -> float:
    if not again.error.any():
        return 0.0
    spread = abs(_fall(again, rows, decides_at, 1.0) - _fall(again, rows, decides_at, -1.0)) / 2
    return ERRORS * spread / len(again.now) ** 0.5


def columns_are_those(again: Again, spread: float, one_sided: bool, stops: bool) -> Verified:
    """What else the rows say of the attack: each part of it, each stage, radii.

    one_sided: it began at images that are not here, and may have gone further. stops: it aims at the threshold, and of
    what it passes on the way nothing is claimed.
    """
    unit, noise = float(again.gain.mean()), float(ERRORS * again.error.mean())
    names = [name for name in ("rounded", *again.now[0].more) if name in NUMBERS or not stops]
    if lacking := [name for name in names if name not in (*Row._fields, *again.then[0].more)]:
        return Verified("FAIL", "parts", f"column {lacking[0]} is not in the rows")
    for name in names:
        off = _off(again, name, one_sided)
        allowed = COLUMN * _size(again, name) if name in NUMBERS else max(COLUMN * unit, SAME * spread) + noise
        if not off <= allowed:
            said = f"column {name} is {off:.3g} off in the mean, {allowed:.2g} is allowed"
            return Verified("FAIL", "parts", said)
    return Verified("pass", "parts", f"{len(names)} further columns are those of this attack")


def _off(again: Again, name: str, one_sided: bool) -> float:
    """The mean difference; of images that neither knows, none; infinite where one of both does not."""
    then, now = again.column(name)
    if (np.isnan(then) != np.isnan(now)).any():
        return float("inf")
    known = ~np.isnan(now) & (then != now)
    if not known.any():
        return 0.0
    difference = (again.sign * (now - then))[known]
    sides = np.maximum(difference, 0) if one_sided and name not in NUMBERS else abs(difference)
    return float(sides.sum()) / len(now)


def _size(again: Again, name: str) -> float:
    values = again.column(name)[1]
    finite = values[np.isfinite(values)]
    return max(float(abs(finite).mean()), 1e-6) if len(finite) else 1e-6


def bounds_are_those(again: Again) -> tuple[Verified, dict[str, float]]:
    """Of a certificate: the same draws give the same bounds."""
    furthest, where = 0.0, ""
    spread = float(np.ptp(again.column("clean")[1]))  # as it is here: no row says how close is close enough
    for then, now in zip(again.then, again.now, strict=True):
        for name in ("clean", "worst", "distance", *now.more):
            a, b = (float(getattr(row, name, row.more.get(name, float("nan")))) for row in (then, now))
            off = 0.0 if a == b or (a != a and b != b) else abs(a - b)
            off = float("inf") if off != off else off
            if off > furthest:
                furthest, where = off, f" ({now.id}, {name})"
    said = f"{len(again.now)} images certified again: bounds are {furthest:.1e} off at most{where}"
    return Verified("pass" if furthest <= SAME * spread else "FAIL", "bounds", said), {"bounds, largest": furthest}


def metric_is_no_better(
    again: Again, name: str, column: str, thresholds: tuple[float, float] | None
) -> tuple[Verified, dict[str, float]]:
    """With other weights, where no score can be compared with another: the metric of the same images, then and now.

    It differs where it was better then by more than FALL, and beyond the 95 % interval of the paired difference.
    thresholds: then and now, where it is accuracy, else AUROC.
    """
    labels = np.array([row.label for row in again.now]) == 1
    if thresholds is None and (labels.all() or not labels.any()):
        return Verified("FAIL", name, "one class alone was chosen, and no AUROC can be had of it: more --images"), {}
    found: list[Measured] = []
    for at, scores in enumerate(again.column(column)):
        found += [auroc_of(scores, labels) if thresholds is None else accuracy(scores, labels, thresholds[at])]
    then, now = found
    apart = difference(then, now).estimate
    what = "AUROC" if thresholds is None else "accuracy"
    said = (
        f"with other weights, {what} of {len(labels)} images is {now.value:.3f} here and {then.value:.3f} by the rows "
        f"(difference {apart.value:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}])"
    )
    worse = apart.value > FALL and apart.low > 0
    return Verified("FAIL" if worse else "pass", name, said), {f"{name}, {what}": apart.value}


def cost_is_that(again: Again, forwards: int, backwards: int, rows: int) -> Verified:
    """Passes per image, which a leaderboard shows: a cheaper attack is a weaker one."""
    then, now = (forwards + backwards) / max(rows, 1), again.forwards + again.backwards
    said = f"{then:.0f} passes per image by the record, {now:.0f} here"
    return Verified("FAIL" if then * CHEAPER < now else "pass", "cost", said)
