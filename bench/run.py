"""One cell: a detector, an attack and a budget on one category, written row by row and resumed where it stopped."""

from __future__ import annotations

import contextlib
import csv
import datetime
import hashlib
import inspect
import io
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from . import files
from .data import Data
from .detector import Detector, Origin, Purifier
from .errors import UserError
from .fitting import RANDOMIZED_DRAWS, Threshold, folder_of
from .memory import PeakMemory, free_memory
from .provenance import device_name, git_state, versions
from .rng import Rng
from .score import Goal, Passes, Score, where_it_failed
from .threat import ThreatModel, eps_text

if TYPE_CHECKING:
    from .beliefs import Outcome
    from .checks import Check

SCHEMA = 3
"""Of run.json and samples.csv; results of another schema are refused, never guessed at."""


PROBE_IMAGES = 4  # of each class, scored before the work
ASIDE = "previous"  # folder below a cell: the finished result that --force is replacing
SAVED = "images"  # folder below a cell: what --save-images keeps


class Row(NamedTuple):
    """What is known of one test image. Scores are raw; `distance` is in the norm of the threat model.

    rounded: the score of the attacked image after rounding to 8 bits.
    more: what else the attack found, by column: the score that each of its parts reached (`apgd`, `square`, ...); of a
    randomized detector `worst_draw` (of the draws, the worst, on images made for their mean) and `known_noise` (the
    adversary knows the draw); the radius of a minimum-norm attack; `after_1`, `after_2`, `after_5`, ...: the worst
    score that the attack has met in so many passes.
    """

    id: str
    label: int
    clean: float
    worst: float
    distance: float
    rounded: float
    more: dict[str, float] = {}  # noqa: RUF012


class Attacked(NamedTuple):
    """What an attack that has more to say than one image returns."""

    images: Mapping[str, Tensor]
    """Candidates by the name of the part that made them, each (B, 3, H, W) and inside the ball: the one with the
    worst score counts, and every part gets a column of its own."""
    columns: Mapping[str, Tensor] = {}
    """Further numbers (B,) by column."""


class Trace:
    """How far an attack has come after 1, 2, 5, 10, 20, 50, ... of its forward passes and after the last, `budget`.

    An image that leaves early keeps its best. At no more than the clone of (B,) a few times in an attack.
    """

    def __init__(self, budget: int):
        self.budget = budget
        below = (m * 10**k for k in range(len(str(budget))) for m in (1, 2, 5))
        self.passes = (*(k for k in below if k < budget), budget)
        """Ascending."""
        self.best: list[Tensor] = []
        """The best sign * score (B,) met in so many passes: of the first few of `passes`, as far as it is known."""

    def note(self, passes: int, best: Tensor) -> None:
        """`best` (B,) is what was met before this pass, counted from 1."""
        while len(self.best) < len(self.passes) and self.passes[len(self.best)] < passes:
            self.best.append(best.clone())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the rows."""
        return tuple(f"after_{passes}" for passes in self.passes)


class Attack(Protocol):
    """Moves images inside the threat model so that sign * score grows: sign is +1 for normal, -1 for anomalous.

    An attack may also have
    `prepare(context)`, called once before the first batch;
    a keyword `starts` in its call: images (B, 3, H, W) of the ball from which to start as well;
    a keyword `trace` in its call, a `Trace` that it keeps, and `budget`, the forward passes of an image;
    `knows_noise`: whether it also attacks a randomized detector whose draw is known (where it follows the gradient);
    `parts` and `numbers`: the names in `Attacked.images` and `Attacked.columns`, if it returns that.
    """

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor | Attacked: ...


class Context(NamedTuple):
    """What `Attack.prepare` may use."""

    data: Data
    detector: str
    score: Score
    seed: int
    tell: Callable[[str], None] = lambda message: None
    """For a sentence when something takes long."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that defines a number, and nothing that does not (batch size, device)."""

    detector: str
    detector_parameters: dict[str, Any]
    attack: str
    attack_parameters: dict[str, Any]
    threat: ThreatModel
    dataset: str
    category: str
    image_size: int
    default_image_size: int | None
    seed: int
    limit: int | None
    draws: int | None
    """Noise draws whose mean is the score of a randomized detector; None is the default."""
    goal: Goal = "rank"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "detector": self.detector,
            "detector_parameters": self.detector_parameters,
            "attack": self.attack,
            "attack_parameters": self.attack_parameters,
            "norm": self.threat.norm,
            "eps": eps_text(self.threat.eps),
            "targets": self.threat.attacks,
            "dataset": self.dataset,
            "category": self.category,
            "image_size": self.image_size,
            "seed": self.seed,
            "limit": self.limit,
            "draws": self.draws,
            "goal": self.goal,
        }

    def folder(self, results: Path) -> Path:
        """results/dataset/category/detector/attack-norm-eps; eight hex digits follow the detector or the attack
        where something of it is not the default."""
        size = None if self.image_size == self.default_image_size else self.image_size
        detector = _suffix(parameters=self.detector_parameters, image_size=size, seed=self.seed)
        targets = None if self.threat.attacks == "both" else self.threat.attacks
        goal = None if self.goal == "rank" else self.goal
        attack = _suffix(
            parameters=self.attack_parameters, targets=targets, limit=self.limit, draws=self.draws, goal=goal
        )
        eps = eps_text(self.threat.eps).replace("/", "_")
        parts = [
            self.dataset,
            self.category,
            self.detector + detector,
            f"{self.attack}-{self.threat.norm}-{eps}{attack}",
        ]
        return results.joinpath(*(re.sub(r"[^A-Za-z0-9._+-]", "_", part) for part in parts))


def _suffix(**settings: Any) -> str:
    changed = {name: value for name, value in settings.items() if value not in ({}, None, 0)}
    return f"-{files.digest(json.dumps(changed, sort_keys=True), 8)}" if changed else ""


class Ready(NamedTuple):
    """What a run needs once it is clear that it has to run."""

    detector: Detector
    origin: Origin
    threshold: Threshold
    checks: Sequence[Check]
    device: torch.device


class Kept:
    """Attacked images of one cell on the disk: a larger ball of the same sweep starts from them, and some are saved
    when the cell is finished.

    folder: where those of this cell go; None keeps nothing. smaller_folder: those of the next smaller ball.
    until_finished: no larger ball needs them; they are deleted when the cell is finished.
    """

    def __init__(self, folder: Path | None = None, smaller_folder: Path | None = None, until_finished: bool = False):
        self.folder, self.smaller_folder, self.until_finished = folder, smaller_folder, until_finished

    def put(self, ids: Sequence[str], images: Tensor) -> None:
        """One file per image, whole or not at all."""
        if self.folder is not None:
            for name, image in zip(ids, images.cpu().numpy(), strict=True):
                files.write_array(self.folder / f"{files.digest(name)}.npy", image)

    def smaller(self, ids: Sequence[str], x: Tensor) -> Tensor | None:
        """The images of the smaller ball, in place of x where there are any; None if there are none at all."""
        if self.smaller_folder is None:
            return None
        found, images = False, x.clone()
        for i, name in enumerate(ids):
            image = _read(self.smaller_folder, name, x[i])
            if image is not None:
                found, images[i] = True, image
        return images if found else None

    def get(self, name: str, x: Tensor) -> Tensor | None:
        """The image of this cell that was made from x (3, H, W); None if it is not there, or not whole."""
        return None if self.folder is None else _read(self.folder, name, x)

    def discard(self) -> None:
        """The cell is finished."""
        if self.folder is not None and self.until_finished:
            shutil.rmtree(self.folder, ignore_errors=True)


def images_folder(spec: Mapping[str, Any], sources: Sequence[str], kind: str = "attacked", *more: str) -> Path:
    """Where the attacked images of a cell are kept for the next larger ball.

    spec: as it is recorded. sources: hashes of the detector's code, the attack's, the training and the test images.
    """
    return folder_of(kind, [spec, *sources, *more])


def _read(folder: Path, name: str, x: Tensor) -> Tensor | None:
    array = files.read_array(folder / f"{files.digest(name)}.npy")
    return torch.from_numpy(array).to(x) if array is not None and array.shape == tuple(x.shape) else None


@dataclass
class Monitor:
    """Hears of the progress of a cell."""

    on_rows: Callable[[int, int], None] = lambda done, total: None
    tell: Callable[[str], None] = lambda message: None


class Work(Protocol):
    """Makes the rows of a cell."""

    ready: Ready
    score: Score

    def probe(self) -> None:
        """Refuses, before the work, what would be refused after it."""

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these test images."""


@dataclass(frozen=True)
class Cell:
    """A cell of the results folder: the spec, and the code and data that its rows come from."""

    kind: ClassVar[Literal["attack", "certificate"]] = "attack"

    spec: RunSpec
    folder: Path | None
    """None: nothing is written."""
    detector_code: str
    attack_code: str
    kept: Kept = field(default_factory=Kept)
    save_images: int | None = None
    """Of each class, as many of the most moved and of the hardest images are written below `folder`."""

    def run(
        self,
        data: Data,
        prepare: Callable[[], Ready],
        attack: Attack,
        batch_size: int,
        force: bool = False,
        monitor: Monitor | None = None,
    ) -> tuple[list[Row], dict[str, Any]]:
        """The rows and the run record; a finished cell is read, an unfinished one goes on at its next batch.

        `prepare` gives the fitted detector; it is called only if there is work to do.
        """
        monitor = monitor or Monitor()
        with _set_aside(self.folder) if force and self.folder else contextlib.nullcontext():
            rows, record = self._continue(data)
            if record.get("status") == "finished":
                self._say_what_is_missing(rows, record, monitor)
                return rows, record
            if rows:
                monitor.tell(f"{self.folder}: going on after {len(rows)} of {len(data.test)} images")
            try:
                ready = prepare()
                worker = self._worker(data, ready, attack, batch_size, monitor)
                if not record:
                    record = self._begin(data, ready, attack, batch_size)
                self._work(data, worker, rows, record, self._at_once(batch_size), monitor)
                self._try_again(data, ready, attack, rows, record)
                self._save_images(worker, rows, record)
                self._finish(rows, record)
                self.kept.discard()
            except torch.OutOfMemoryError:  # where no smaller batch helps
                raise UserError(
                    f"too little memory for {self.spec.detector} at {self.spec.image_size} pixels, one image at a time"
                ) from None
        return rows, record

    def _worker(self, data: Data, ready: Ready, attack: Attack, batch_size: int, monitor: Monitor) -> Work:
        return Worker(self.spec, data, ready, attack, self.kept, monitor.tell)

    def _at_once(self, batch_size: int) -> int:
        """Images whose rows are made together."""
        return batch_size

    def _work(
        self, data: Data, worker: Work, rows: list[Row], record: dict[str, Any], batch_size: int, monitor: Monitor
    ) -> None:
        total = len(data.test)
        before = (record["forwards"], record["backwards"], record["seconds"])
        peak_before = record["peak_memory"] or 0
        worker.probe()
        worker.score.passes = Passes()
        started = time.monotonic()
        memory = PeakMemory(worker.ready.device)
        monitor.on_rows(len(rows), total)
        while len(rows) < total:
            try:
                new = worker.batch(range(len(rows), min(len(rows) + batch_size, total)))
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise UserError(
                        f"{worker.ready.device} has too little memory for one image of {self.spec.image_size} pixels"
                    ) from None
                if batch_size == record["batch_size"]:
                    monitor.tell(f"out of memory at batches of {batch_size}: smaller ones from here on")
                batch_size //= 2
                free_memory()
                continue
            rows += new
            record["rows"] = len(rows)
            record["forwards"] = before[0] + worker.score.forwards
            record["backwards"] = before[1] + worker.score.backwards
            record["seconds"] = round(before[2] + time.monotonic() - started, 3)
            peak = memory.mebibytes()
            record["peak_memory"] = None if peak is None else max(peak, peak_before)
            if self.folder is not None:
                files.append(self.folder / "samples.csv", to_csv(new, header=len(rows) == len(new)))
                files.write_json(self.folder / "run.json", record)
            monitor.on_rows(len(rows), total)

    def _save_images(self, worker: Work, rows: list[Row], record: dict[str, Any]) -> None:
        """Before the record says finished; what an earlier attempt has left is replaced."""
        if self.folder is None:
            return
        if (self.folder / SAVED).is_dir():
            with files.says_why(self.folder / SAVED):
                shutil.rmtree(self.folder / SAVED)
        if self.save_images is not None:
            from .saved_images import save

            assert isinstance(worker, Worker)
            saved = save(self.folder, worker, rows, self.save_images)
            record["images"] = saved.images
            record["warnings"] += saved.warnings

    def _say_what_is_missing(self, rows: list[Row], record: dict[str, Any], monitor: Monitor) -> None:
        if self.folder is not None and self.save_images is not None:
            from .saved_images import what_is_missing

            missing = what_is_missing(self.folder, rows, record, self.spec.threat, self.save_images)
            if missing:
                monitor.tell(missing)

    def _try_again(self, data: Data, ready: Ready, attack: Attack, rows: list[Row], record: dict[str, Any]) -> None:
        """Whether the rows may be believed; a kill meanwhile costs these checks, and no row."""
        found = self._checks(data, ready, attack, rows, record)
        record["checks"] += [check._asdict() for check in found.checks]
        record["checks_seconds"], record["checks_passes"] = found.seconds, vars(found.passes).copy()

    def _checks(self, data: Data, ready: Ready, attack: Attack, rows: list[Row], record: dict[str, Any]) -> Outcome:
        from .beliefs import checks_of_cell

        before = self.kept.smaller_folder
        record["smaller_ball"] = before.name if before is not None and before.is_dir() else None
        return checks_of_cell(self.spec, data, ready, attack, rows, self.kept)

    def _begin(self, data: Data, ready: Ready, attack: Attack, batch_size: int) -> dict[str, Any]:
        detector = ready.detector
        warnings = []
        if ready.threshold.held_out < 19:
            warnings.append(
                f"only {ready.threshold.held_out} normal images were held out: the threshold cannot "
                "promise 5 % false alarms (19 are needed)"
            )
        record = {
            "schema": SCHEMA,
            "kind": self.kind,
            "status": "running",
            "spec": self.spec.record(),
            "detector": {
                "code": self.detector_code,
                "parameters": ready.origin.parameters,
                "randomized": detector.randomized,
                "differentiable": detector.differentiable,
                "unranked": detector.unranked,
                "purification": _purification(detector, ready.origin),
                "fit": ready.origin.fit,
                "weights": _weights(detector),
            },
            "attack": {
                "code": self.attack_code,
                "parameters": _attack_parameters(attack),
                "parts": list(getattr(attack, "parts", ())),
                "sources": getattr(attack, "sources", {}),
            },
            "data": self._data_record(data),
            "checks": [check._asdict() for check in ready.checks],
            "threshold": ready.threshold._asdict(),
            "versions": versions(),
            "git": git_state(),
            "device": device_name(ready.device),
            "batch_size": batch_size,
            "started": _now(),
            "warnings": warnings,
            "rows": 0,
            "forwards": 0,
            "backwards": 0,
            "seconds": 0.0,
            "peak_memory": None,
        }
        if self.folder is not None:
            files.write_text(self.folder / "samples.csv", "")
            files.write_json(self.folder / "run.json", record)
        return record

    @staticmethod
    def _data_record(data: Data) -> dict[str, Any]:
        anomalous = sum(data.test.labels)
        return {
            "train": data.train.fingerprint,
            "test": data.test.fingerprint,
            "train_images": len(data.train),
            "normal": len(data.test) - anomalous,
            "anomalous": anomalous,
        }

    def _continue(self, data: Data) -> tuple[list[Row], dict[str, Any]]:
        """Rows and record on the disk; empty where there are none. Rows that the record does not count were
        being written when the process died and are dropped."""
        if self.folder is None or not (self.folder / "run.json").exists():
            return [], {}
        record = read_record(self.folder)
        self._same_sources(record, data)
        if record["status"] == "finished":
            return read_rows(self.folder, record), record
        samples = self.folder / "samples.csv"
        try:
            text = samples.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {samples}: {error.strerror}; --force starts over") from None
        lines = text.splitlines(keepends=True)
        try:
            kept = b"".join(lines[: record["rows"] + 1] if record["rows"] else []).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{samples} is damaged: it is no text; --force starts over") from None
        if kept.encode() != text:
            files.write_text(samples, kept)
        rows = from_csv(kept, samples) if kept else []
        if [row.id for row in rows] != data.test.ids[: record["rows"]]:
            raise UserError(
                f"{samples} does not hold the {record['rows']} rows that run.json counts; --force starts over"
            )
        return rows, record

    def _same_sources(self, record: dict[str, Any], data: Data) -> None:
        changed = [
            what
            for what, stored, now in (
                ("the parameters", record["spec"], self.spec.record()),
                (f"the code of detector {self.spec.detector}", record["detector"]["code"], self.detector_code),
                (f"the code of attack {self.spec.attack}", record["attack"]["code"], self.attack_code),
                ("the images", record["data"], self._data_record(data)),
            )
            if stored != now
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds results from before {' and '.join(changed)} changed; "
                "--force replaces them, --results DIR keeps both"
            )

    def _finish(self, rows: list[Row], record: dict[str, Any]) -> None:
        refuse_constant(self.spec.detector, [row.clean for row in rows], "every test image")
        record |= {"status": "finished", "finished": _now()}
        if self.folder is not None:
            samples = (self.folder / "samples.csv").read_bytes()
            record["samples_sha256"] = hashlib.sha256(samples).hexdigest()
            record["metrics"] = metrics_of(self.folder, record, rows)
            files.write_json(self.folder / "run.json", record)
            if (self.folder / ASIDE).is_dir():  # what --force replaced
                shutil.rmtree(self.folder / ASIDE)


class Worker:
    """Scores and attacks batches of one cell."""

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        ready: Ready,
        attack: Attack,
        kept: Kept | None = None,
        tell: Callable[[str], None] = lambda message: None,
    ):
        self.spec, self.data, self.ready, self.attack, self.kept = spec, data, ready, attack, kept or Kept()
        threshold = ready.threshold.value if ready.threshold.held_out else None
        self.score = Score(ready.detector, spec.detector, threshold, spec.goal)
        self.draws = (spec.draws or RANDOMIZED_DRAWS) if ready.detector.randomized else 1
        if spec.goal == "threshold":
            self.score.needed_threshold("--goal threshold")
        wants_gradient = getattr(attack, "knows_noise", getattr(attack, "needs_gradient", True))
        self.gradient = ready.detector.differentiable and wants_gradient
        prepare = getattr(attack, "prepare", None)
        if prepare is not None:
            prepare(Context(data, spec.detector, self.score, spec.seed, tell))
        self.parts: tuple[str, ...] = getattr(attack, "parts", ())
        self.numbers: tuple[str, ...] = getattr(attack, "numbers", ())
        # of a randomized detector an attack meets lucky draws, whose maximum is not what it has reached
        traced = takes(attack, "trace") and not self.score.randomized
        self.budget: int | None = getattr(attack, "budget", None) if traced else None

    def probe(self) -> None:
        """A score that is not finite, or the same for every image, is refused before the work, not after."""
        some = self.data.test.of_each_class(PROBE_IMAGES)
        x = self.data.test.images(some).to(self.ready.device)
        rng = self._rng(some)
        scores = self._finite(self.score.mean(x, rng, 1), some, "clean")
        refuse_constant(self.spec.detector, scores.tolist(), f"{len(some)} different images")

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """Rows of these test images. `worst` is never better for the detector than `clean`, or than what a smaller
        ball of the same sweep has shown: doing less is always allowed."""
        test = self.data.test
        x = test.images(indices).to(self.ready.device)
        labels = torch.tensor([test.labels[i] for i in indices], device=x.device)
        sign = 1.0 - 2.0 * labels.to(x.dtype)
        draws = self.score.each(x, self._rng(indices).child("evaluate"), self.draws)
        clean = self._finite(draws.mean(0), indices, "clean")
        columns = {"clean": clean, "worst": clean.clone(), "rounded": clean.clone()}
        columns["distance"] = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for part in (*self.parts, *(Trace(self.budget).columns if self.budget else ())):
            columns[part] = clean.clone()
        for number in self.numbers:
            columns[number] = torch.full_like(columns["distance"], torch.nan)
        if self.score.randomized:
            columns["worst_draw"] = sign * (sign * draws).amax(0)
            if self.gradient:
                columns["known_noise"] = self.score.with_known_noise().mean(x, self._rng(indices), 1)

        chosen = self.spec.threat.controls(labels).nonzero().flatten()
        if len(chosen):
            mine = [indices[i] for i in chosen.tolist()]
            for name, values in self._attack(mine, x[chosen], sign[chosen], draws[:, chosen]).items():
                columns[name][chosen] = values.to(columns[name])
        more = [name for name in columns if name not in Row._fields]
        table = {name: values.tolist() for name, values in columns.items()}
        return [
            Row(
                test.records[index].id,
                test.records[index].label,
                table["clean"][i],
                table["worst"][i],
                table["distance"][i],
                table["rounded"][i],
                {name: table[name][i] for name in more},
            )
            for i, index in enumerate(indices)
        ]

    def _attack(self, mine: Sequence[int], x: Tensor, sign: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """Columns of images that the adversary controls; `draws` (N, B) are the scores of the clean images."""
        rng, threat = self._rng(mine), self.spec.threat
        clean = draws.mean(0)
        smaller = self.kept.smaller([self.data.test.ids[i] for i in mine], x)
        trace = Trace(self.budget) if self.budget else None
        attacked = self._attacked(self.score, x, sign, rng.child("attack"), smaller, trace)
        images = dict(attacked.images)
        if smaller is not None:
            images["smaller ball"] = smaller
        after = {name: self.score.each(image, rng.child("evaluate"), self.draws) for name, image in images.items()}
        means = {name: self._finite(each.mean(0), mine, "attacked") for name, each in after.items()}
        best = self._best(images, means, sign, rng)
        rows = torch.arange(len(x), device=x.device)
        names = list(images)
        value = torch.stack([means[name] for name in names])[best, rows]
        x_adv = torch.stack([images[name] for name in names])[best, rows]
        if smaller is not None:  # on fresh draws the smaller ball may come out ahead of what was chosen
            behind = sign * means["smaller ball"] > sign * value
            value = torch.where(behind, means["smaller ball"], value)
            x_adv = torch.where(behind[:, None, None, None], smaller, x_adv)
        moved = sign * value > sign * clean
        x_adv = torch.where(moved[:, None, None, None], x_adv, x)
        self.kept.put([self.data.test.ids[i] for i in mine], x_adv)
        rounded = self.score.mean((x_adv * 255).round() / 255, rng.child("evaluate"), self.draws)
        columns = {
            "worst": torch.where(moved, value, clean),
            "distance": threat.distance(x_adv, x),
            "rounded": self._finite(rounded, mine, "rounded"),
        }
        for name in self.parts:
            columns[name] = sign * torch.maximum(sign * means[name], sign * clean)
        if trace is not None:
            for name, met in zip(trace.columns, trace.best, strict=True):
                columns[name] = sign * torch.maximum(met, sign * clean)
        if self.score.randomized:
            each = torch.stack([after[name] for name in names])[best, :, rows].mT  # (N, B)
            columns["worst_draw"] = sign * torch.maximum((sign * each).amax(0), (sign * draws).amax(0))
            if self.gradient:
                columns["known_noise"] = self._with_known_noise(x, sign, rng, x_adv)
        return columns | dict(attacked.columns)

    def _best(self, images: dict[str, Tensor], means: dict[str, Tensor], sign: Tensor, rng: Rng) -> Tensor:
        """(B,): which candidate; of a randomized detector by draws of their own, so that none wins by luck."""
        if self.score.randomized and len(images) > 1:
            means = {name: self.score.mean(image, rng.child("choose"), self.draws) for name, image in images.items()}
        return torch.stack([sign * values for values in means.values()]).argmax(0)

    def _with_known_noise(self, x: Tensor, sign: Tensor, rng: Rng, x_adv: Tensor) -> Tensor:
        """Scores under one draw that the adversary knows; never better for the detector than doing nothing."""
        known = self.score.with_known_noise()
        attacked = self._attacked(known, x, sign, rng.child("attack", "known noise"), x_adv)
        with torch.no_grad():
            found = [sign * known(image, rng) for image in (x, x_adv, *attacked.images.values())]
        return sign * torch.stack(found).amax(0)

    def _attacked(
        self, score: Score, x: Tensor, sign: Tensor, rng: Rng, starts: Tensor | None, trace: Trace | None = None
    ) -> Attacked:
        """The attack's images, after the threat model has verified them."""
        name = self.spec.attack
        kwargs: dict[str, Any] = {"starts": starts} if starts is not None and takes(self.attack, "starts") else {}
        kwargs |= {"trace": trace} if trace is not None else {}
        try:
            found = self.attack(score, x.clone(), sign, self.spec.threat, rng, **kwargs)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UserError(f"attack {name} failed: {where_it_failed(error)}") from error
        attacked = found if isinstance(found, Attacked) else Attacked({name: found})
        for image in attacked.images.values():
            wrong = self.spec.threat.violation(image, x)
            if wrong:
                raise UserError(f"attack {name} broke the rules: an image {wrong}; the run is refused")
        if trace is not None and len(trace.best) < len(trace.passes):
            raise UserError(f"attack {name} takes a trace and does not keep it to its last pass")
        return Attacked({part: image.detach() for part, image in attacked.images.items()}, attacked.columns)

    def _rng(self, indices: Sequence[int]) -> Rng:
        return Rng(self.spec.seed, [self.data.test.records[i].id for i in indices], "test")

    def _finite(self, scores: Tensor, indices: Sequence[int], what: str) -> Tensor:
        for index, value in zip(indices, scores.tolist(), strict=True):
            if not math.isfinite(value):
                raise UserError(
                    f"detector {self.spec.detector} gives the {what} image "
                    f"{self.data.test.records[index].id} the score {value}; scores must be finite"
                )
        return scores


def refuse_constant(detector: str, scores: Sequence[float], images: str) -> None:
    """A UserError if these `images` have one and the same score."""
    if len(set(scores)) == 1:
        raise UserError(
            f"detector {detector} gives {images} the same score {scores[0]:g}: a constant score ranks nothing"
        )


def takes(attack: Attack, keyword: str) -> bool:
    """Whether its call has this keyword: `starts` or `trace`."""
    return keyword in inspect.signature(type(attack).__call__).parameters


COLUMNS = Row._fields[:-1]
"""Of samples.csv, before those that depend on the attack."""


def to_csv(rows: Sequence[Row], header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow([*COLUMNS, *rows[0].more])
    writer.writerows((r.id, r.label, *(repr(float(v)) for v in (*r[2:-1], *r.more.values()))) for r in rows)
    return text.getvalue()


def from_csv(text: str, path: Path) -> list[Row]:
    """Raises UserError for a table that is not whole; see `Table.from_csv`."""
    from .cells import Table

    return Table.from_csv(text, path).rows


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a cell, if this version can read it."""
    path = folder / "run.json"
    record = files.read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise UserError(
            f"{path} was written by another version (schema {found}, this one reads {SCHEMA}); "
            "use that version, or another --results"
        )
    return record


def read_rows(folder: Path, record: dict[str, Any]) -> list[Row]:
    """The rows of a finished cell."""
    return from_csv(unchanged_samples(folder, record), folder / "samples.csv")


def unchanged_samples(folder: Path, record: dict[str, Any]) -> str:
    """samples.csv of a finished cell, after its hash has been compared with the record."""
    text, digest = read_samples(folder)
    if digest != record.get("samples_sha256"):
        raise UserError(
            f"{folder / 'samples.csv'} was changed after it was written (its sha256 is not the one in run.json); "
            "run the cell again with --force"
        )
    return text


def read_samples(folder: Path) -> tuple[str, str]:
    """samples.csv as it is, and its sha256; UserError if it is not there or not UTF-8."""
    path = folder / "samples.csv"
    try:
        content = path.read_bytes()
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not a table in UTF-8") from None


def metrics_of(folder: Path, record: dict[str, Any], rows: Sequence[Row]) -> dict[str, float]:
    """The point value of every metric that a report makes of these rows."""
    from .cells import Result, Table

    return {name: metric.value for name, metric in Result(folder, record, Table.of(rows)).metrics.items()}


@contextlib.contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """A finished cell lies in `previous/` until it is redone, and comes back if that fails.

    After a kill or Ctrl-C it is still there, and the next run of the same cell goes on with the new one.
    """
    names = ("run.json", "samples.csv", SAVED)
    aside = folder / ASIDE
    present = (folder / "run.json").exists()
    if present:
        with files.says_why(aside):
            # an unfinished redo must not push out the finished rows that an earlier --force set aside
            if not (aside / "run.json").exists():
                aside.mkdir(exist_ok=True)
                for name in names:
                    if (folder / name).exists():
                        (folder / name).replace(aside / name)
            else:
                for name in names:
                    _remove(folder / name)
    try:
        yield
    except UserError:
        if (aside / "run.json").exists():
            for name in names:
                _remove(folder / name)
                if (aside / name).exists():
                    (aside / name).replace(folder / name)
            aside.rmdir()
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _weights(detector: Detector) -> int:
    """How many numbers it holds: parameters and floating-point buffers, a memory bank among them."""
    buffers = (buffer for buffer in detector.buffers() if buffer.is_floating_point())
    return sum(tensor.numel() for tensor in (*detector.parameters(), *buffers))


def _attack_parameters(attack: Attack) -> dict[str, Any]:
    from .parameters import accepted, identity

    return {name: identity(getattr(attack, name)) for name in accepted(type(attack))}


def _purification(detector: Detector, origin: Origin) -> dict[str, Any] | None:
    """Of a purifier that says what its level is: that parameter, its value, and what the purifier is around."""
    value = getattr(detector, detector.level, None) if isinstance(detector, Purifier) else None
    if not isinstance(detector, Purifier) or not isinstance(value, (int, float)):
        return None
    outer, _, inner = origin.name.partition("+")
    return {"parameter": f"{outer}.{detector.level}", "value": value, "inner": inner}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
