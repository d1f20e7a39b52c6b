"""`bench verify --rerun`: a cell, run again. What it claims is compared with what comes of it here.

Nothing of a submission is executed: detectors and attacks are those that are installed or given here, weights are
tensors. Whoever runs it chooses the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..cells.record import read_finished, read_rows
from ..cells.result import Result
from ..cells.rows import Row, Table
from ..cells.schema import DetectorRecord, FitRecord
from ..cells.submission import weights_of_submission
from ..core.attack import Attack
from ..core.data import Data, TestSet
from ..core.score import Score
from ..engine.certificates import Settings
from ..engine.worker import SAME, Prepared
from ..harness.cell import attack_record, detector_record, warnings_before
from ..harness.subject import batch_size_for
from ..plugins.origin import weights_of
from ..system.files import file_sha256
from ..system.provenance import versions
from .attacked_again import (
    Again,
    attacked_again,
    bounds_are_those,
    certified_again,
    choose,
    columns_are_those,
    cost_is_that,
    metric_is_no_better,
    rows_are_no_better,
)
from .check_run import ROWS, checks_again, clean_scores
from .rebuild import Overrides, Rebuilt
from .verify import Verified, scores_are_those, stored_images, verify

CLAIMED = ("parameters", "randomized", "differentiable", "unranked", "purification", "weights")
"""What a record says of a detector, and the detector that is built here as well."""
LATER = {("code", "pass"), ("data", "pass")}
"""What the rerun says itself, of more."""


class Rerun(NamedTuple):
    """How a cell is run again."""

    seed: int
    """Chooses the images."""
    images: int = 16
    """How many are attacked again, of both classes together."""
    refit: bool = False
    """Fit, although the weights are carried."""
    other_versions: bool = False
    """Accept other packages and code than the record names: it is reproduced with those that are here."""


class Place(NamedTuple):
    """A cell, and the folder of the weights that came with it."""

    folder: Path
    weights: Path | None = None


class Reran(NamedTuple):
    """What came of it."""

    tests: list[Verified]
    images: list[str]
    differences: dict[str, float]
    detector_code: str = ""
    attack_code: str = ""

    @property
    def reproduced(self) -> bool:
        return bool(self.images) and all(test.status != "FAIL" for test in self.tests)


def rerun_cells(places: Sequence[Place], given: Overrides, how: Rerun) -> list[Reran]:
    """Each of some cells; they share a process."""
    return [rerun(place, given, how) for place in places]


def rerun(place: Place, given: Overrides, how: Rerun) -> Reran:
    """Every test of a cell; after one that fails none follows which would say nothing.

    Raises UserError where the images, the detector or the attack are not here.
    """
    files = list(verify(place.folder, given, scores=False, submitted=True))
    before = [test for test in files if test.status in ("pass", "FAIL") and (test.name, test.status) not in LATER]
    if any(test.status == "FAIL" for test in before):
        return Reran(before, [], {})
    if (kind := read_finished(place.folder).kind) not in ("attack", "certificate"):
        return Reran(
            [*before, Verified("FAIL", kind, "cells of this kind are not run again: it stays submitted")], [], {}
        )
    found = _Rerun(place, given, how)
    tests = [*before, *found.tests()]
    ids = [row.id for row in found.again.now] if found.again else []
    return Reran(tests, ids, found.differences, found.rebuilt.detector_code, found.rebuilt.attack_code)


@dataclass
class _Rerun:
    place: Place
    given: Overrides
    how: Rerun
    differences: dict[str, float] = field(default_factory=dict)
    again: Again | None = None

    def __post_init__(self) -> None:
        record = read_finished(self.place.folder)
        self.rows = read_rows(self.place.folder, record)
        # whoever made the record does not say how much memory is taken here
        self.record = record.model_copy(update={"batch_size": batch_size_for(record.spec.image_size)})
        self.spec = record.spec
        self.rebuilt = Rebuilt(self.record, self.given, {} if self.how.refit else self.carried)
        self.result = Result(self.place.folder, record, Table.of(self.rows))

    @cached_property
    def carried(self) -> dict[str, Path]:
        """Part -> the file of its weights; empty unless there is one for every part that was fitted."""
        fit = self.record.detector.fit
        if fit is None or self.place.weights is None:
            return {}
        files = weights_of_submission(self.place.weights, fit.hashes.values())
        whole = set(files) == set(fit.hashes.values())
        return {part: files[digest] for part, digest in fit.hashes.items()} if whole else {}

    @cached_property
    def prepared(self) -> Prepared:
        return self.rebuilt.prepared()

    @cached_property
    def same_weights(self) -> bool:
        """Whether what scores here is what scored then, number by number."""
        then, now = self.record.detector, FitRecord.of(self.prepared.origin.fit)
        if then.fit is None:
            return then.state is None or then.state == weights_of(self.prepared.detector)
        return now is not None and now.hashes == then.fit.hashes

    @cached_property
    def spread(self) -> float:
        return float(np.ptp([row.clean for row in self.rows]))

    def tests(self) -> Iterator[Verified]:
        """One at a time; whatever follows a failure here would compare other things."""
        for part in (self._origin, self._built, self._scored, self._attacked, self._checked):
            failed = False
            for test in part():
                yield test
                failed |= test.status == "FAIL"
            if failed:
                return

    def _origin(self) -> Iterator[Verified]:
        yield versions_are_here(self.record.versions, self.how.other_versions)
        yield self._code()
        where = f"{self.spec.dataset}/{self.spec.category}"
        data = self.rebuilt.data
        if not self.rebuilt.same_images:
            yield Verified("FAIL", "data", f"the images of {where} here are not those of the run")
        elif [(row.id, row.label) for row in self.rows] != list(zip(data.test.ids, data.test.labels, strict=True)):
            yield Verified("FAIL", "data", f"the ids and labels of the rows are not all those of {where}")
        else:
            yield Verified("pass", "data", f"a row for each of the {len(self.rows)} images of {where}")

    def _code(self) -> Verified:
        record, rebuilt = self.record, self.rebuilt
        pairs = (
            (f"detector {self.spec.detector}", record.detector.code, rebuilt.detector_code),
            (f"attack {self.spec.attack}", record.attack.code, rebuilt.attack_code),
        )
        changed = [what for what, then, now in pairs if then != now]
        if not changed:
            return Verified("pass", "code", "detector and attack are those of the run")
        said = f"the code of {' and of '.join(changed)} here is not that of the run"
        if self.how.other_versions:
            return Verified("note", "code", said)
        return Verified("FAIL", "code", f"{said}: give that of the run, or --other-versions")

    def _built(self) -> Iterator[Verified]:
        """The detector and the attack are what the record says of them."""
        yield self._weights()
        record, spec, built = self.record, self.spec, self.rebuilt
        if built.detector.changed != spec.detector_parameters:
            yield Verified("FAIL", "detector", f"its parameters are {built.detector.changed}, not those of the run")
            return
        found = detector_record(self.prepared, built.detector_code)
        yield _claims(record.detector, found)
        method = attack_record(built.method, built.attack_code)
        wrong = [name for name in ("parameters", "parts") if getattr(method, name) != getattr(record.attack, name)]
        if wrong:
            then, now = getattr(record.attack, wrong[0]), getattr(method, wrong[0])
            yield Verified("FAIL", "method", f"{wrong[0]} of {spec.attack} are {now}, by the record {then}")
        else:
            yield Verified("pass", "method", f"{spec.attack} has the parameters and parts that the record names")
        if lost := [said for said in warnings_before(built.data, self.prepared) if said not in record.warnings]:
            yield Verified("FAIL", "warnings", f"the record does not say: {lost[0]}")

    def _weights(self) -> Verified:
        fit = self.record.detector.fit
        if fit is not None and not self.how.refit:
            for path in self.carried.values():
                if file_sha256(path) != path.stem:
                    return Verified(
                        "FAIL", "weights", f"{path.name} is not what its name says, and what run.json names"
                    )
        if self.same_weights:
            how = "taken from the submission" if self.rebuilt.weights else "the same after a fit here"
            return Verified("pass", "weights", how if fit is not None else "nothing was fitted")
        why = "asked for" if self.how.refit else "none are carried"
        return Verified("note", "weights", f"fitted here ({why}), and not those of the run: only metrics are compared")

    def _scored(self) -> Iterator[Verified]:
        """The threshold, and the clean scores of all images."""
        then, now = self.record.threshold, self.prepared.threshold
        if (then.held_out, then.false_alarms) != (now.held_out, now.false_alarms):
            said = f"{now.held_out} images are held out, for {now.false_alarms:g} false alarms"
            yield Verified("FAIL", "threshold", f"{said}; by the record {then.held_out}, {then.false_alarms:g}")
            return
        both_nan = then.value != then.value and now.value != now.value
        off = 0.0 if both_nan else abs(then.value - now.value)
        if self.same_weights:
            passed = off <= SAME * self.spread
            said = f"{now.value:.6g} follows from {now.held_out} held-out images, {then.value:.6g} by the record"
            yield Verified("pass" if passed else "FAIL", "threshold", said)
            self.differences["threshold"] = off
        if self.record.kind == "attack":
            yield from self._clean()

    def _clean(self) -> Iterator[Verified]:
        again = self._scores_again()
        if not self.same_weights:
            if not self.result.normal_only:
                test, found = metric_is_no_better(again, "clean", "clean", None)
                yield test
                self.differences |= found
            if not np.isnan(self.record.threshold.value):
                yield metric_is_no_better(again, "threshold", "clean", self._thresholds)[0]
            return
        then, now = again.column("clean")
        off = abs(then - now)
        at = int(off.argmax())
        self.differences["clean, largest"] = float(off[at])
        said = f"{len(off)} scores, computed again, are {off[at]:.1e} off at most ({self.rows[at].id})"
        yield Verified("pass" if off[at] <= SAME * self.spread else "FAIL", "clean", said)

    def _scores_again(self) -> Again:
        """The clean scores of all images."""
        found = clean_scores(Score(self.prepared.detector, self.spec.detector), self.rebuilt.data, self.spec)
        now = [row._replace(clean=value) for row, value in zip(self.rows, found, strict=True)]
        return Again(self.rows, now, np.zeros(len(now)), 0.0, 0.0)

    @property
    def _thresholds(self) -> tuple[float, float]:
        return self.record.threshold.value, self.prepared.threshold.value

    def _attacked(self) -> Iterator[Verified]:
        """A few images, attacked or certified once more."""
        some = choose(self.rows, self.spec, self.how.images, self.how.seed, both=not self.same_weights)
        if not some:
            yield Verified("FAIL", "attack", "no image was chosen, so nothing can be compared: more --images")
            return
        again = self.again = self._again(some)
        stops = self.result.stops_at_threshold
        decides_at = self.record.threshold.value if stops or self.result.normal_only else None
        if not self.same_weights:
            both = None if decides_at is None else self._thresholds
            test, found = metric_is_no_better(again, "attack", "worst", both)
        elif self.record.kind == "certificate":
            test, found = bounds_are_those(again)
        else:
            test, found = rows_are_no_better(again, self.rows, self.spread, decides_at, stops)
        self.differences |= found
        yield test
        if self.same_weights and self.record.kind == "attack":
            yield columns_are_those(again, self.spread, self.record.smaller_ball is not None, stops)
        if not stops:
            yield cost_is_that(again, self.record.forwards, self.record.backwards, len(self.rows))
        if self.same_weights and self.record.images:
            yield from self._images()

    def _again(self, some: Sequence[int]) -> Again:
        spec, data, prepared, method = self.spec, self.rebuilt.data, self.prepared, self.rebuilt.method
        if isinstance(method, Settings):
            return certified_again(spec, data, prepared, method, self.rows, some)
        assert isinstance(method, Attack)
        return attacked_again(spec, data, prepared, method, self.rows, some)

    def _images(self) -> Iterator[Verified]:
        """Those that the cell has stored."""
        stored = stored_images(self.place.folder, self.rebuilt, self.rows)
        if isinstance(stored, Verified):
            yield stored
            return
        yield scores_are_those(stored, self.rebuilt, self.rows)

    def _checked(self) -> Iterator[Verified]:
        """Every check, made again: none is missing, and none passed only then."""
        stored: dict[str, bool] = {}
        for check in self.record.checks:  # one that is there twice has passed if both have
            stored[check.name] = stored.get(check.name, True) and check.passed
        made = [check for check in checks_again(self.rebuilt, *self._checked_rows) if check.name != ROWS]
        missing = [check.name for check in made if check.name not in stored]
        if missing:
            yield Verified("FAIL", "checks", f"the record does not have: {', '.join(missing)}")
            return
        if turned := [check for check in made if stored[check.name] and not check.passed]:
            yield Verified("FAIL", "checks", f"{turned[0].name} passed by the record, and here: {turned[0].sentence}")
            return
        failed = [check.name for check in made if not check.passed]
        more = f"; {', '.join(failed)} failed then and now" if failed else ""
        yield Verified("pass", "checks", f"{len(made)} checks, made again, say what the record says{more}")

    @property
    def _checked_rows(self) -> tuple[Sequence[Row], Data]:
        """What checks are made of: the rows, or with other weights those that were made here, and their images."""
        data = self.rebuilt.data
        if self.same_weights or self.again is None:
            return self.rows, data
        known = {row.id for row in self.again.now}
        some = TestSet([record for record in data.test.records if record.id in known], data.image_size)
        return self.again.now, replace(data, test=some)


def _claims(then: DetectorRecord, now: DetectorRecord) -> Verified:
    """What a record says of the detector beside its name."""
    for name in CLAIMED:
        claimed, found = getattr(then, name), getattr(now, name)
        if name == "weights" and claimed is None:
            continue
        if (claimed or None) != (found or None):
            return Verified("FAIL", "detector", f"{name} is {_short(found)}, by the record {_short(claimed)}")
    return Verified("pass", "detector", "what the record says of it is what is built here")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def versions_are_here(then: dict[str, str | None], other_versions: bool) -> Verified:
    """The packages that a record names, which nobody could test elsewhere."""
    here = versions()
    changed = [
        f"{name} {here.get(name) or 'absent'} here, {then.get(name) or 'absent'} in the run"
        for name in dict.fromkeys((*here, *then))
        if here.get(name) != then.get(name)
    ]
    if not changed:
        return Verified("pass", "versions", "those of the run")
    said = "; ".join(changed)
    if other_versions:
        return Verified("note", "versions", said)
    return Verified("FAIL", "versions", f"{said}: install those of the run, or --other-versions")
