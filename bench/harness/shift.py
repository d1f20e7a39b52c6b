"""Shifts: what a lamp, a lens or a camera does to the scores of a detector; one row per image, no attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..cells.rows import Row
from ..cells.schema import Record
from ..cells.spec import SHIFT
from ..checks.of_box import checks_of_box
from ..checks.of_detector import OF_A_CERTIFICATE
from ..checks.of_shift import checks_of_shift
from ..core import parameters
from ..core.attack import Method
from ..core.check import Outcome
from ..core.data import Data
from ..core.detector import Detector
from ..core.norms import SEMANTIC
from ..core.progress import Monitor
from ..core.threat import ThreatModel, parse_eps
from ..engine import box, shifter
from ..engine.box import Box, Searcher
from ..engine.shifter import Shift, Shifter
from ..engine.worker import Prepared, Work
from ..errors import UserError
from ..plugins.fitting import DetectorSpec
from ..plugins.lookup import default_size
from ..system.files import at_home
from .asked import Asked
from .cell import Cell
from .evaluated import Evaluated
from .subject import DetectorUnderTest

Share = str | float | Fraction
ANY_IMAGE = ThreatModel("linf", 1)
"""No shift leaves it: there is no budget."""


def shift(
    detector: str | Detector | DetectorSpec,
    data: Data,
    kinds: Sequence[str] = ("published",),
    severities: Sequence[int] = (3,),
    *,
    worst: Share | None = None,
    search: Mapping[str, Any] | None = None,
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

    worst: instead of kinds and severities a share of a box of exposure, gamma, hue, rotation and translation, 1 for the
    whole box: every image meets the worst that is found in it. Columns beside id, label, clean and worst: distance (the
    share that the image needs), grid (what a grid alone has found), and the six numbers that the image is made of.
    search: parameters of the search, `points`, `rounds`, `steps` and `draws` (see `bench.engine.box.Box`).
    """
    return planned(
        detector,
        data,
        kinds,
        severities,
        worst=worst,
        search=search,
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
    worst: Share | None = None,
    search: Mapping[str, Any] | None = None,
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
    if search and worst is None:
        raise UserError("search is of the worst of the box: give worst as well, a share of the box")
    method = Shift(tuple(kinds), tuple(severities)) if worst is None else parameters.build(Box, search or {}, "worst")
    threat = ANY_IMAGE if worst is None else ThreatModel(SEMANTIC, parse_eps(worst, SEMANTIC, "--worst"))
    code = shifter.own_code() if worst is None else box.own_code()
    tested = DetectorSpec(detector, params or {}, seed, device) if isinstance(detector, str) else detector
    subject = DetectorUnderTest(tested, seed)
    spec = subject.spec(SHIFT, method, threat, full, limit, "rank", draws, threshold_folds)
    folder = None if results is None else spec.folder(at_home(results), default_size(data.name))
    cell = ShiftCell(spec, folder, subject.code, code, subject.as_object)

    def prepare() -> Prepared:
        return subject.prepared(data, OF_A_CERTIFICATE, threshold_folds, afresh=False)

    return Asked(cell, data, prepare, method)


@dataclass(frozen=True)
class ShiftCell(Cell):
    """A cell whose rows are scores under conditions."""

    kind = "shift"

    def _worker(self, data: Data, prepared: Prepared, attack: Method, batch_size: int, monitor: Monitor) -> Work:
        if isinstance(attack, Box):
            return Searcher(self.spec, data, prepared, attack)
        assert isinstance(attack, Shift)
        return Shifter(self.spec, data, prepared, attack)

    def _checks(self, data: Data, worker: Work, attack: Method, rows: list[Row], record: Record) -> Outcome:
        if isinstance(worker, Searcher):
            return checks_of_box(worker, rows)
        assert isinstance(worker, Shifter)
        return checks_of_shift(worker, rows)
