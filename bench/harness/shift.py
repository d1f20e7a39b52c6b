"""Shifts: what a lamp, a lens or a camera does to the scores of a detector; one row per image, nobody attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cells.rows import Row
from ..cells.schema import Record
from ..cells.spec import SHIFT
from ..checks.of_detector import OF_A_CERTIFICATE
from ..checks.of_shift import checks_of_shift
from ..core.attack import Method
from ..core.check import Outcome
from ..core.data import Data
from ..core.detector import Detector
from ..core.progress import Monitor
from ..core.threat import ThreatModel
from ..engine.shifter import Shift, Shifter, own_code
from ..engine.worker import Prepared, Work
from ..plugins.fitting import DetectorSpec
from ..plugins.lookup import default_size
from ..system.files import at_home
from .asked import Asked
from .cell import Cell
from .evaluated import Evaluated
from .subject import DetectorUnderTest

ANY_IMAGE = ThreatModel("linf", 1)
"""No shift leaves it: there is no budget."""


def shift(
    detector: str | Detector | DetectorSpec,
    data: Data,
    kinds: Sequence[str] = ("published",),
    severities: Sequence[int] = (3,),
    *,
    params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    draws: int | None = None,
    threshold_folds: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    force: bool = False,
    monitor: Monitor | None = None,
) -> Evaluated:
    """Score test images under shifts that nobody means ill: one row per test image.

    kinds: of `brightness`, `contrast`, `defocus_blur`, `gaussian_noise` (together `published`) and `exposure`, `gamma`,
    `white-balance`, `vignette`, `defocus`, `motion-blur`, `sensor-noise`, `jpeg`, `translation`, `rotation` (together
    `line`). severities: of 1 to 5, of each kind. Columns: id, label, clean, worst (the worst score of the image over
    all conditions, and without one), and a column for each condition, such as `gamma_3`. `.metrics` has AUROC, false
    alarms and misses at the stored threshold, each as the mean over the conditions, and by condition. The rest as in
    `evaluate`. Raises UserError for a kind or a severity that there is not.
    """
    return planned(
        detector,
        data,
        kinds,
        severities,
        params=params,
        results=results,
        seed=seed,
        limit=limit,
        draws=draws,
        threshold_folds=threshold_folds,
        device=device,
    ).run(batch_size, force, monitor)


def planned(
    detector: str | Detector | DetectorSpec,
    data: Data,
    kinds: Sequence[str],
    severities: Sequence[int],
    *,
    params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    draws: int | None = None,
    threshold_folds: int | None = None,
    device: str = "auto",
) -> Asked:
    """What `shift` would do, with the same arguments; UserError where it cannot be done."""
    full, data = data, data.limited(limit)
    method = Shift(tuple(kinds), tuple(severities))
    tested = DetectorSpec(detector, params or {}, seed, device) if isinstance(detector, str) else detector
    subject = DetectorUnderTest(tested, seed)
    spec = subject.spec(SHIFT, method, ANY_IMAGE, full, limit, "rank", draws, threshold_folds)
    folder = None if results is None else spec.folder(at_home(results), default_size(data.name))
    cell = ShiftCell(spec, folder, subject.code, own_code(), subject.as_object)

    def prepare() -> Prepared:
        return subject.prepared(data, OF_A_CERTIFICATE, threshold_folds, afresh=False)

    return Asked(cell, data, prepare, method)


@dataclass(frozen=True)
class ShiftCell(Cell):
    """A cell whose rows are scores under conditions."""

    kind = "shift"

    def _worker(self, data: Data, prepared: Prepared, attack: Method, batch_size: int, monitor: Monitor) -> Work:
        assert isinstance(attack, Shift)
        return Shifter(self.spec, data, prepared, attack)

    def _checks(self, data: Data, worker: Work, attack: Method, rows: list[Row], record: Record) -> Outcome:
        assert isinstance(worker, Shifter)
        return checks_of_shift(worker, rows)
