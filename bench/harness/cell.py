"""One cell: a detector, an attack and a budget on one category, written row by row and resumed where it stopped."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from ..cells.measures import Kind
from ..cells.record import SAVED, read_record, read_rows, write_record
from ..cells.result import metrics_of, wrong_way_of
from ..cells.rows import SAMPLES, Row, append_samples, begin_samples, read_samples, resume_samples, to_csv
from ..cells.schema import (
    SCHEMA,
    AttackRecord,
    CheckRecord,
    DataRecord,
    DetectorRecord,
    FinishedRecord,
    FitRecord,
    GitRecord,
    PurificationRecord,
    Record,
    ScoringRecord,
    ThresholdRecord,
)
from ..cells.spec import RunSpec
from ..cells.state import State, state_in
from ..checks.of_attack import checks_of_cell
from ..core.attack import Attack, Method
from ..core.check import Outcome
from ..core.data import Data
from ..core.detector import Detector, Origin, Purifier
from ..core.parameters import identity
from ..core.progress import Monitor
from ..core.rng import Rng
from ..core.score import Passes, Score
from ..engine.localiser import Localiser
from ..engine.saved_images import save, what_is_missing
from ..engine.scoring_cost import scoring_cost
from ..engine.warm_starts import WarmStarts
from ..engine.worker import SAME, Prepared, Work, Worker, refuse_constant
from ..errors import UserError
from ..system import files, locks
from ..system.memory import PeakMemory, free_memory
from ..system.provenance import device_name, git_state, versions
from .aside import discard, set_aside

SINGLE = 1e-6  # of the largest score: single precision
RESCORED = 2  # images of each class, by which an object that comes again is recognised


BELIED = "the detector declares `differentiable = False`, and its score has a gradient: attacks follow it"


class Built(NamedTuple):
    """A detector that the caller has built."""

    detector: Detector
    state: str
    """sha256 of its state dict."""
    fitted_by_name: bool
    """By the harness, under the name that its cells have."""


@dataclass(frozen=True)
class Cell:
    """A cell of the results folder: the spec, and the code and data that its rows come from."""

    kind: ClassVar[Kind] = "attack"

    spec: RunSpec
    folder: Path | None
    """None: nothing is written."""
    detector_code: str
    attack_code: str
    built: Built | None = None
    """None: a detector by name."""
    warm_starts: WarmStarts = field(default_factory=WarmStarts)
    save_images: int | None = None
    """Of each class, as many of the most moved and of the hardest images are written below `folder`."""

    def run(
        self,
        data: Data,
        prepare: Callable[[], Prepared],
        attack: Method,
        batch_size: int,
        force: bool = False,
        monitor: Monitor | None = None,
    ) -> tuple[list[Row], FinishedRecord]:
        """The rows and the run record; a finished cell is read, an unfinished one goes on at its next batch.

        `prepare` gives the fitted detector; it is called only if there is work to do. Another process that works on
        the same cell is waited for.
        """
        monitor = monitor or Monitor()
        self._refuse_another()
        aside = set_aside(self.folder) if force and self.folder else contextlib.nullcontext()
        with self._alone(force, monitor), aside:
            rows, record = self._continue(data)
            if isinstance(record, FinishedRecord):
                self._say_what_is_missing(rows, record, monitor)
                return rows, record
            if rows:
                monitor.tell(f"{self.folder}: going on after {len(rows)} of {len(data.test)} images")
            try:
                prepared = prepare()
                worker = self._worker(data, prepared, attack, batch_size, monitor)
                if record is None:
                    record = self._begin(data, prepared, attack, batch_size)
                self._work(data, worker, rows, record, self._at_once(batch_size), monitor)
                self._try_again(data, worker, attack, rows, record)
                self._save_images(worker, rows, record)
                finished = self._finish(rows, record)
                self.warm_starts.discard()
            except torch.OutOfMemoryError:  # where no smaller batch helps
                raise UserError(
                    f"too little memory for {self.spec.detector} at {self.spec.image_size} pixels, one image at a time"
                ) from None
        return rows, finished

    def state(self, data: Data) -> State:
        """As it lies in the results folder. Raises UserError where it is damaged."""
        total = len(data.test)
        if self.folder is None:
            return State(0, total)
        state, record = state_in(self.folder, total)
        if record is not None:
            try:
                self._same_sources(record, data)
            except UserError:
                return state._replace(finished=False, stale=True)
        return state

    def _alone(self, force: bool, monitor: Monitor) -> contextlib.AbstractContextManager[None]:
        """No other process works on this cell meanwhile. One that is only read needs no lock."""
        if self.folder is None or (not force and self._is_finished()):
            return contextlib.nullcontext()
        return locks.alone(self.folder, f"works on {self.folder}", monitor.tell)

    def _refuse_another(self) -> None:
        """--force replaces this cell, and none that an older version, or a file system that does not tell capital
        letters apart, has put into the same folder."""
        if self.folder is None or not (self.folder / "run.json").exists():
            return
        try:
            there = read_record(self.folder).spec
        except UserError:  # damaged, which --force mends
            return
        here = self.spec
        ours = (here.dataset, here.category, here.detector, here.attack)
        if (there.dataset, there.category, there.detector, there.attack) != ours:
            raise UserError(
                f"{self.folder} holds another cell, of {there.detector} and {there.attack} on "
                f"{there.dataset}/{there.category}: give another --results"
            )

    def _is_finished(self) -> bool:
        assert self.folder is not None
        return (self.folder / "run.json").exists() and isinstance(read_record(self.folder), FinishedRecord)

    def _worker(self, data: Data, prepared: Prepared, attack: Method, batch_size: int, monitor: Monitor) -> Work:
        assert isinstance(attack, Attack)
        return Worker(self.spec, data, prepared, attack, self.warm_starts, monitor.tell)

    def _at_once(self, batch_size: int) -> int:
        """Images whose rows are made together."""
        return batch_size

    def _work(
        self, data: Data, worker: Work, rows: list[Row], record: Record, batch_size: int, monitor: Monitor
    ) -> None:
        total = len(data.test)
        first = worker.beforehand
        before = (record.forwards + first.forwards, record.backwards + first.backwards, record.seconds)
        peak_before = record.peak_memory or 0
        worker.probe()
        worker.score.passes = Passes()
        started = time.monotonic()
        memory = PeakMemory(worker.prepared.device)
        monitor.on_rows(len(rows), total)
        while len(rows) < total:
            try:
                new = worker.batch(range(len(rows), min(len(rows) + batch_size, total)))
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise UserError(
                        f"{worker.prepared.device} has too little memory for one image of {self.spec.image_size} pixels"
                    ) from None
                if batch_size == record.batch_size:
                    monitor.tell(f"out of memory at batches of {batch_size}: smaller ones from here on")
                batch_size //= 2
                free_memory()
                continue
            rows += new
            record.rows = len(rows)
            record.forwards = before[0] + worker.score.forwards
            record.backwards = before[1] + worker.score.backwards
            record.seconds = round(before[2] + time.monotonic() - started, 3)
            peak = memory.mebibytes()
            record.peak_memory = None if peak is None else max(peak, peak_before)
            if self.folder is not None:
                append_samples(self.folder, new, first=len(rows) == len(new))
                write_record(self.folder, record)
            monitor.on_rows(len(rows), total)
        if ignored := self.warm_starts.what_was_ignored():
            record.warnings.append(ignored)
            monitor.tell(ignored)

    def _save_images(self, worker: Work, rows: list[Row], record: Record) -> None:
        """Before the record says finished; what an earlier attempt has left is replaced."""
        if self.folder is None:
            return
        if (self.folder / SAVED).is_dir():
            with files.says_why(self.folder / SAVED):
                shutil.rmtree(self.folder / SAVED)
        if self.save_images is not None:
            assert isinstance(worker, (Worker, Localiser))
            saved = save(self.folder, worker, rows, self.save_images)
            record.images = saved.images
            record.warnings += saved.warnings

    def _say_what_is_missing(self, rows: list[Row], record: FinishedRecord, monitor: Monitor) -> None:
        if self.folder is not None and self.save_images is not None:
            missing = what_is_missing(self.folder, rows, record, self.spec.threat, self.save_images)
            if missing:
                monitor.tell(missing)

    def _try_again(self, data: Data, worker: Work, attack: Method, rows: list[Row], record: Record) -> None:
        """Whether the rows may be believed; a kill meanwhile costs these checks, and no row."""
        found = self._checks(data, worker, attack, rows, record)
        record.checks += map(CheckRecord.of, found.checks)
        record.checks_seconds, record.checks_passes = found.seconds, vars(found.passes).copy()

    def _checks(self, data: Data, worker: Work, attack: Method, rows: list[Row], record: Record) -> Outcome:
        assert isinstance(attack, Attack) and isinstance(worker, Worker)
        before = self.warm_starts.smaller_folder
        record.smaller_ball = before.name if before is not None and before.is_dir() else None
        return checks_of_cell(self.spec, data, worker.prepared, attack, rows, self.warm_starts, worker.witness)

    def _begin(self, data: Data, prepared: Prepared, attack: Method, batch_size: int) -> Record:
        record = Record(
            schema=SCHEMA,
            kind=self.kind,
            status="running",
            spec=self.spec,
            detector=detector_record(prepared, self.detector_code, self.built),
            attack=attack_record(attack, self.attack_code),
            data=DataRecord.of(data),
            checks=list(map(CheckRecord.of, prepared.checks)),
            threshold=ThresholdRecord(**prepared.threshold._asdict()),
            versions=versions(),
            git=GitRecord(**git_state()),
            device=device_name(prepared.device),
            batch_size=batch_size,
            started=_now(),
            warnings=warnings_before(data, prepared),
            rows=0,
            forwards=0,
            backwards=0,
            seconds=0.0,
            peak_memory=None,
            scoring=self._scoring(prepared),
        )
        if self.folder is not None:
            begin_samples(self.folder)
            write_record(self.folder, record)
        return record

    def _scoring(self, prepared: Prepared) -> ScoringRecord:
        """What a score costs, measured once for all cells of the detector."""
        known, size = {} if prepared.scoring is None else prepared.scoring, self.spec.image_size
        if size not in known:
            known[size] = scoring_cost(prepared.detector, self.spec.detector, size)
        return known[size]

    def _continue(self, data: Data) -> tuple[list[Row], Record | None]:
        """Rows and record on the disk; none where there are none. Rows that the record does not count were
        being written when the process died and are dropped."""
        if self.folder is None or not (self.folder / "run.json").exists():
            return [], None
        record = read_record(self.folder)
        self._same_sources(record, data)
        if isinstance(record, FinishedRecord):
            finished = read_rows(self.folder, record)
            self._same_object(record, data, finished)
            return finished, record
        rows = resume_samples(self.folder, record.rows)
        if [row.id for row in rows] != data.test.ids[: record.rows]:
            raise UserError(
                f"{self.folder / SAMPLES} does not hold the {record.rows} rows that run.json counts; "
                "--force starts over"
            )
        self._same_object(record, data, rows)
        return rows, record

    def _same_sources(self, record: Record, data: Data) -> None:
        then, now = record.spec, self.spec
        rules = {"protocol": then.protocol, "dataset_version": then.dataset_version}
        changed = [
            what
            for what, stored, now in (
                (f"the protocol ({then.protocol}, now {now.protocol})", then.protocol, now.protocol),
                (f"the version of {now.dataset}", then.dataset_version, now.dataset_version),
                ("the parameters", then, now.model_copy(update=rules)),
                (f"the code of detector {self.spec.detector}", record.detector.code, self.detector_code),
                (f"the code of attack {self.spec.attack}", record.attack.code, self.attack_code),
                ("the images", record.data, DataRecord.of(data)),
            )
            if stored != now
        ]
        if changed:
            codes = (
                (record.detector.code, self.detector_code, self.spec.detector),
                (record.attack.code, self.attack_code, self.spec.attack),
            )
            # a class is called by its name alone, and another file may have one
            names = [name for stored, now, name in codes if stored != now]
            elsewhere = f", or of another {' or '.join(names)} from another file" if names else ""
            self._refuse_changed(" and ".join(changed), elsewhere)

    def _same_object(self, record: Record, data: Data, rows: list[Row]) -> None:
        """Two objects of one class share a folder, and one that is built as a plug-in's with the plug-in: the rows must
        be of this one."""
        detector, stored, built = self.spec.detector, record.detector, self.built
        if built is None:
            if stored.state is not None and stored.fit is None:  # an object of the caller, who alone knows it
                self._refuse_changed(f"the weights of detector {detector}")
            return
        same = stored.state == built.state if stored.state is not None else built.fitted_by_name
        if not same:
            self._refuse_changed(f"the weights of detector {detector}")
        repeats = not any(check.name == "randomness" for check in record.failed)
        if repeats and not self._scores_are_those(built.detector.eval(), data, rows):
            self._refuse_changed(f"what detector {detector} keeps beside its state dict")

    def _scores_are_those(self, detector: Detector, data: Data, rows: list[Row]) -> bool:
        """Whether it gives a few of the images the clean scores of their rows: an attribute tells no state dict."""
        some = [i for i in data.test.of_each_class(RESCORED) if i < len(rows)]
        if not some:
            return True
        rng = Rng.of_run(self.spec.seed, [rows[i].id for i in some]).for_evaluation()
        draws = self.spec.score_draws if detector.randomized else 1
        now = Score(detector, self.spec.detector).mean(data.test.images(some).to(detector.device), rng, draws)
        then = [row.clean for row in rows]
        off = max(abs(a - then[i]) for a, i in zip(now.tolist(), some, strict=True))
        return off <= max(SAME * (max(then) - min(then)), SINGLE * max(map(abs, then)))

    def _refuse_changed(self, what: str, elsewhere: str = "") -> None:
        raise UserError(
            f"{self.folder} holds results from before {what} changed{elsewhere}; "
            "--force replaces them, --results DIR keeps both"
        )

    def _finish(self, rows: list[Row], record: Record) -> FinishedRecord:
        refuse_constant(self.spec.detector, [row.clean for row in rows], "every test image")
        digest = files.digest(to_csv(rows), 64) if self.folder is None else read_samples(self.folder)[1]
        finished = FinishedRecord.of(record, _now(), digest)
        finished.metrics = metrics_of(self.folder or Path(), finished, rows)
        if wrong_way := wrong_way_of(self.folder or Path(), finished, rows):
            finished.warnings.append(wrong_way)
        if self.folder is not None:
            write_record(self.folder, finished)
            discard(self.folder)
        return finished


def _weights(detector: Detector) -> int:
    """How many numbers it holds: parameters and floating-point buffers, a memory bank among them."""
    buffers = (buffer for buffer in detector.buffers() if buffer.is_floating_point())
    return sum(tensor.numel() for tensor in (*detector.parameters(), *buffers))


def warnings_before(data: Data, prepared: Prepared) -> list[str]:
    """What a reader must know, whatever the rows will be."""
    held_out = prepared.threshold.held_out
    few = f"only {held_out} normal images were held out: the threshold cannot promise 5 % false alarms (19 are needed)"
    believed = prepared.differentiable and not prepared.detector.differentiable
    return [*data.notes, *[BELIED] * believed, *[few] * (held_out < 19)]


def detector_record(prepared: Prepared, code: str, built: Built | None = None) -> DetectorRecord:
    """What a record says of a fitted detector; code: its hash."""
    detector, origin = prepared.detector, prepared.origin
    state: dict[str, Any] = {"state": built.state} if built else {}
    return DetectorRecord(
        **state,
        code=code,
        parameters=origin.parameters,
        randomized=detector.randomized,
        differentiable=prepared.differentiable,
        unranked=detector.unranked,
        purification=_purification(detector, origin),
        fit=FitRecord.of(origin.fit),
        weights=_weights(detector),
    )


def attack_record(attack: Method, code: str) -> AttackRecord:
    """What a record says of an attack, or of a certificate."""
    return AttackRecord(
        code=code,
        parameters=identity(attack.parameters_record),
        parts=list(attack.parts),
        sources=dict(attack.sources),
    )


def _purification(detector: Detector, origin: Origin) -> PurificationRecord | None:
    """Of a purifier that says what its level is: that parameter, its value, and what the purifier is around."""
    value = getattr(detector, detector.level, None) if isinstance(detector, Purifier) else None
    if not isinstance(detector, Purifier) or not isinstance(value, (int, float)):
        return None
    outer, _, inner = origin.name.partition("+")
    return PurificationRecord(parameter=f"{outer}.{detector.level}", value=value, inner=inner)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
