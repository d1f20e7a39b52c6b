"""`bench check-run`: are the sentences that a stored cell carries still true?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..cells.measures import Kind
from ..cells.record import read_finished, read_rows
from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..checks.of_attack import checks_of_cell
from ..checks.of_box import checks_of_box
from ..checks.of_certificate import checks_of_certificate
from ..checks.of_detector import OF_A_CERTIFICATE, checks_of_run, probe_of
from ..checks.of_map import checks_of_maps
from ..checks.of_shift import checks_of_shift
from ..core.attack import Attack
from ..core.check import Check
from ..core.data import Data
from ..core.rng import Rng
from ..core.score import Score
from ..engine.bounder import Bounder
from ..engine.box import Box, Searcher
from ..engine.certificates import Settings, worker_of
from ..engine.certifier import Certifier
from ..engine.localiser import Localiser, MapScale
from ..engine.shifter import Shift, Shifter
from ..engine.warm_starts import WarmStarts
from ..engine.worker import SAME, Worker
from ..errors import UserError
from ..harness.subject import batch_size_for
from ..stats.metrics import points
from ..system.cache import cache_folder
from .rebuild import Overrides, Rebuilt

ROWS = "stored rows"
SAME_MAP = 1e-3  # of the spread of what maps are judged by: a pixel may fall into the next bin
SMALLEST_SPREAD = 1e-2


class Rechecked(NamedTuple):
    """One check, now and as it is stored; `stored` is None where the cell does not have it."""

    now: Check
    stored: Check | None
    needed: bool = False
    """A submission that does not have it lacks something."""

    @property
    def status(self) -> str:
        """`pass`, `FAIL`, or `changed` where the verdict is not the stored one."""
        if self.stored is not None and self.stored.passed != self.now.passed:
            return "changed"
        if self.needed and self.stored is None and self.now.name != ROWS:
            return "FAIL"
        return "pass" if self.now.passed else "FAIL"

    def __str__(self) -> str:
        line = f"{self.status:7} {self.now.name}: {self.now.sentence}"
        if self.stored is None:
            return line if self.now.name == ROWS else f"{line} (not stored)"
        if self.status == "changed":
            return f"{line} (now {_verdict(self.now)}, stored {_verdict(self.stored)}: {self.stored.sentence})"
        return line if self.stored.sentence == self.now.sentence else f"{line} (stored: {self.stored.sentence})"


def _verdict(check: Check) -> str:
    return "pass" if check.passed else "FAIL"


def check_run(folder: Path, given: Overrides, submitted: bool = False) -> Iterator[Rechecked]:
    """Rebuild the cell's detector and attack, then every check of it, one at a time. submitted: none may be missing.

    Raises UserError for a cell that is not finished, was written by another version, or cannot be rebuilt as it was.
    """
    record = read_finished(folder)
    rows, rebuilt = read_rows(folder, record), Rebuilt(record, given)
    if changed := rebuilt.changed():
        raise UserError(
            f"{folder}: {' and '.join(changed)} changed since; its sentences can be checked with what it was run with, "
            "or the cell run again with --force"
        )
    stored = {check.name: Check(check.name, check.passed, check.sentence) for check in record.checks}
    for check in checks_again(rebuilt, rows):
        yield Rechecked(check, stored.get(check.name), submitted)


def checks_again(rebuilt: Rebuilt, rows: Sequence[Row], data: Data | None = None) -> Iterator[Check]:
    """Every check of a cell, made again; first that the rows are those of the detector, as ROWS.

    data: that of the rows, where they are not all.
    """
    return OF_KIND[rebuilt.record.kind](rebuilt, rows, data or rebuilt.data)


def _of_certificate(rebuilt: Rebuilt, rows: Sequence[Row], data: Data) -> Iterator[Check]:
    spec, prepared = rebuilt.record.spec, rebuilt.prepared()
    settings, batch_size = rebuilt.method, rebuilt.record.batch_size
    assert isinstance(settings, Settings)
    yield bounds_are_made_again(worker_of(spec, data, prepared, settings, batch_size, keep=False), rows)
    after = checks_of_certificate(spec, data, prepared, settings, rows, batch_size)
    yield from checks_of_run(probe_of(prepared.detector, rebuilt.data), OF_A_CERTIFICATE)
    yield from after.checks


def _of_maps(rebuilt: Rebuilt, rows: Sequence[Row], data: Data) -> Iterator[Check]:
    spec, attack, prepared, scale = rebuilt.record.spec, rebuilt.method, rebuilt.prepared(), rebuilt.record.map_scale
    assert isinstance(attack, Attack) and scale is not None
    worker = Localiser(spec, data, prepared, attack, scale=MapScale.of(scale))
    yield maps_are_judged_again(worker, rows)
    yield from checks_of_run(probe_of(prepared.detector, rebuilt.data))
    yield from checks_of_maps(spec, data, worker, attack, rows).checks


def _of_attack(rebuilt: Rebuilt, rows: Sequence[Row], data: Data) -> Iterator[Check]:
    spec, attack, prepared = rebuilt.record.spec, rebuilt.method, rebuilt.prepared()
    assert isinstance(attack, Attack)
    yield rows_are_rescored(Worker(spec, data, prepared, attack), rows)
    yield from checks_of_run(probe_of(prepared.detector, rebuilt.data))
    before = rebuilt.record.smaller_ball
    warm_starts = WarmStarts(smaller_folder=cache_folder() / "attacked" / before if before else None)
    gone = warm_starts.smaller_folder is not None and not warm_starts.smaller_folder.is_dir()
    for check in checks_of_cell(spec, data, prepared, attack, rows, warm_starts).checks:
        if gone and check.name == "repeat":
            check = Check("repeat", True, "not checked: the images of the smaller ball, where it began, are not here")
        yield check


def bounds_are_made_again(certifier: Certifier | Bounder, rows: Sequence[Row]) -> Check:
    """The rows of the first image of each class; those of smoothing from the same noise drawn once more."""
    some = [next(i for i, row in enumerate(rows) if row.label == label) for label in sorted({r.label for r in rows})]
    off = 0.0
    for row, stored in zip(certifier.batch(some), [rows[i] for i in some], strict=True):
        for new, old in zip((row.clean, row.worst), (stored.clean, stored.worst), strict=True):
            off = max(off, 0.0 if new == old else abs(new - old))
    spread = float(np.ptp([row.clean for row in rows]))
    again = "" if isinstance(certifier, Bounder) else f"{certifier.settings.samples} draws at "
    said = f"{again}{len(some)} images, made again: scores and bounds are {off:.1e} off at most"
    return Check(ROWS, off <= SAME * spread, said)


def _of_shift(rebuilt: Rebuilt, rows: Sequence[Row], data: Data) -> Iterator[Check]:
    method, prepared, spec = rebuilt.method, rebuilt.prepared(), rebuilt.record.spec
    worker: Shifter | Searcher
    if isinstance(method, Box):
        worker = Searcher(spec, data, prepared, method)
        after = checks_of_box(worker, rows)
    else:
        assert isinstance(method, Shift)
        worker = Shifter(spec, data, prepared, method)
        after = checks_of_shift(worker, rows)
    yield rows_are_rescored(worker, rows)
    yield from checks_of_run(probe_of(prepared.detector, rebuilt.data), OF_A_CERTIFICATE)
    yield from after.checks


OF_KIND: dict[Kind, Callable[[Rebuilt, Sequence[Row], Data], Iterator[Check]]] = {
    "attack": _of_attack,
    "certificate": _of_certificate,
    "localisation": _of_maps,
    "shift": _of_shift,
}


def maps_are_judged_again(worker: Localiser, rows: Sequence[Row]) -> Check:
    """The scale of the maps, and the clean map of every image."""
    own = worker.maps.scale(worker.data, worker.spec.seed)
    off = max(abs(a - b) for a, b in zip(own[:3], worker.scale[:3], strict=True)) / max(map(abs, worker.scale[:3]))
    furthest = 0.0
    for label in (0, 1):
        some = [i for i, row in enumerate(rows) if row.label == label]
        spread = max(float(np.ptp([rows[i].clean for i in some])), SMALLEST_SPREAD)
        again = (worker.noted(i, worker.data.test.image(i).to(worker.prepared.device)) for i in some)
        furthest = max(furthest, *(abs(value - rows[i].clean) / spread for i, value in zip(some, again, strict=True)))
    said = f"{len(rows)} maps, judged again, differ by {furthest:.1e} of the spread at most; their scale by {off:.1e}"
    return Check(ROWS, furthest <= SAME_MAP and off <= SAME_MAP, said)


def clean_scores(score: Score, data: Data, spec: RunSpec) -> list[float]:
    """Of all test images, under the noise of the run."""
    found: list[float] = []
    draws, size = spec.score_draws if score.randomized else 1, batch_size_for(spec.image_size)
    for start in range(0, len(data.test), size):
        some = range(start, min(start + size, len(data.test)))
        x = data.test.images(some).to(score.detector.device)
        found += score.mean(x, Rng.evaluation(spec.seed, [data.test.ids[i] for i in some]), draws).tolist()
    return found


def rows_are_rescored(worker: Worker | Shifter | Searcher, rows: Sequence[Row]) -> Check:
    """All clean scores once more, and the AUROC that follows from samples.csv."""
    found = clean_scores(worker.score, worker.data, worker.spec)
    labels = np.array([row.label for row in rows]) == 1
    clean, worst = np.array([row.clean for row in rows]), np.array([row.worst for row in rows])
    off = float(np.abs(np.array(found) - clean).max())
    said = f"{len(rows)} clean scores, scored again, differ by {off:.1e} at most"
    if labels.any():
        again, noted, robust = (points(scores, labels)["auroc"] for scores in (np.array(found), clean, worst))
        said += f"; clean AUROC {again:.4f} ({noted:.4f} from the rows), worst {robust:.4f}"
    return Check(ROWS, off <= SAME * float(np.ptp(clean)), said)
