"""run.json as types, for writing as for reading; and what samples.csv beside it must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from ..core.check import Check
from ..core.data import Data
from ..core.norms import SEMANTIC
from ..core.semantic import NAMES, share_of
from ..core.threat import TOLERANCE
from .base import Amount, Count, Json, Parameters, Part, Sha256
from .images import ImageRecord
from .pixels import SUFFIX, from_texts
from .rows import COLUMNS, Table
from .spec import RunSpec

SCHEMA: Literal[3] = 3
"""Of run.json and samples.csv; results of another schema are refused, never guessed at."""
MAP_COLUMNS = tuple(f"{which}{SUFFIX}" for which in ("clean", "worst", "transfer"))
"""Texts of a cell whose maps were attacked."""
RANKED_BOUNDS = ("low", "high", "low_0", "high_0", "certified_radius")


class PurificationRecord(Part):
    """How strongly a purifier cleans, by the parameter that says so."""

    parameter: str
    """`part.name`"""
    value: int | float
    inner: str
    """The detector that it is around."""


class FitRecord(Part):
    """What was fitted, by the hash of its weights; of a composition `parts` has one for each part that was."""

    model_sha256: Sha256 | None = None
    """Of the kept weights."""
    seconds: Amount
    """What the fit took, even where a kept one was loaded."""
    images: Count | None = None
    """Normal images that it learned from."""
    threads: Count | None = None
    """Of torch, that the fit could use; small networks use one. Another number adds in another order: other weights."""
    parts: dict[str, FitRecord] = Field(default_factory=dict)

    @property
    def hashes(self) -> dict[str, str]:
        """Part -> the hash of what it was fitted to; "" where it is the only one that was."""
        if not self.parts:
            return {} if self.model_sha256 is None else {"": self.model_sha256}
        return {inner or name: digest for name, part in self.parts.items() for inner, digest in part.hashes.items()}

    @classmethod
    def of(cls, fit: Mapping[str, Any] | None) -> FitRecord | None:
        """Of `Origin.fit`; None where nothing was fitted."""
        return None if fit is None else cls.model_validate(fit)


class ScoringRecord(Part):
    """What a score costs, on the device and with the threads of the run; of a randomized detector, one draw."""

    ms_1: Amount
    """Milliseconds of one image alone, warm."""
    ms_32: Amount | None
    """Milliseconds an image in a batch of 32; null where one image alone took 2 seconds, or memory was too little."""
    memory: Amount | None
    """MiB at the peak of these calls above what was held before; null where the system does not say."""
    disk: Count
    """Bytes of all that it holds."""


class DetectorRecord(Part):
    """The detector with everything that its scores depend on."""

    code: str
    """sha256 of the code of all its parts."""
    parameters: Parameters
    """All of them, defaults included."""
    randomized: bool
    """Its scores are means over noise draws."""
    differentiable: bool
    unranked: str | None
    """Why a leaderboard must not rank it, or empty."""
    purification: PurificationRecord | None
    """Of a purifier."""
    fit: FitRecord | None
    """Null where nothing was fitted, or not by the benchmark."""
    state: Sha256 | None = None
    """Of an object that the caller had built: sha256 of its state dict. Null of one by name, or where that was not yet
    recorded."""
    weights: Count | None = None
    """How many numbers it holds; null in cells that were finished before that was recorded."""


class AttackRecord(Part):
    """The attack, or the certificate."""

    code: str
    """sha256."""
    parameters: Parameters
    """All of them, defaults included."""
    parts: list[str]
    """The attacks that it is made of: a column each."""
    sources: dict[str, Json] = Field(default_factory=dict)
    """Of transfer attacks, the detectors that they attacked instead."""


class DataRecord(Part):
    """The images."""

    train: Sha256
    """Fingerprint of the normal images to learn from: ids, contents and size."""
    test: Sha256
    """The same of the test images, with their labels."""
    train_images: Count
    normal: Count
    """Test images."""
    anomalous: Count
    """Test images."""

    @classmethod
    def of(cls, data: Data) -> DataRecord:
        anomalous = sum(data.test.labels)
        return cls(
            train=data.train.fingerprint,
            test=data.test.fingerprint,
            train_images=len(data.train),
            normal=len(data.test) - anomalous,
            anomalous=anomalous,
        )


class CheckRecord(Part):
    """What was checked, and what it said."""

    name: str
    passed: bool
    sentence: str

    @classmethod
    def of(cls, check: Check) -> CheckRecord:
        return cls(name=check.name, passed=check.passed, sentence=check.sentence)


class ThresholdRecord(Part):
    """Above `value` an image is called anomalous; nan where no image was held out."""

    value: float
    held_out: Count
    """Normal training images that it was set on."""
    false_alarms: float
    """The share of new normal images above it that was asked for."""
    folds: Count | None = None
    """Fits that scored these images, each those that were held out of it; null: one, the tested detector's own."""


class MapScaleRecord(Part):
    """The scale of the anomaly maps: z = (map - mean) / deviation, of the pixels of held-out normal images."""

    mean: float
    deviation: float
    alarm: float
    """z that a share of 0.1 % of those pixels exceed."""
    held_out: Count
    """Normal images that these pixels are of."""


class GitRecord(Part):
    """The checkout that the benchmark ran from; null where there was none."""

    commit: str | None
    dirty: bool | None
    """It had changes."""


class Record(Part):
    """run.json of a cell: what its rows come from, and what they have cost so far."""

    version: Literal[3] = Field(alias="schema")
    """Of this format; another one is refused, never guessed at."""
    kind: Literal["attack", "certificate", "localisation", "shift"]
    """Whether scores after the attack were found, or are bounded; whether anomaly maps were attacked; or whether nobody
    attacked, and light and lens were others."""
    status: Literal["running", "finished"]
    spec: RunSpec
    detector: DetectorRecord
    attack: AttackRecord
    data: DataRecord
    checks: list[CheckRecord]
    """Of the detector, and after the last row of the attack."""
    threshold: ThresholdRecord
    versions: dict[str, str | None]
    """Package -> version; null where it is absent."""
    git: GitRecord
    device: str
    batch_size: Annotated[int, Field(ge=1, le=10**9)]
    """Changes speed and memory, not results."""
    started: str = ""
    """Date and time in UTC."""
    warnings: list[str]
    rows: Count
    """Of samples.csv."""
    forwards: Count
    """Images scored by the attack and its evaluation."""
    backwards: Count
    """Images through which a gradient flowed."""
    seconds: Amount
    """Of the attack and its evaluation."""
    peak_memory: Annotated[int | float, Field(ge=0, le=10**9)] | None
    """MiB; null where the system does not say."""
    scoring: ScoringRecord | None = None
    """What a score of the detector costs; null in cells that were finished before that was recorded."""
    smaller_ball: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    """Folder in the cache that holds the images of the smaller ball where the attack began."""
    checks_seconds: Amount | None = None
    """Of the checks after the last row."""
    checks_passes: dict[str, Count] | None = None
    """What they scored, beside `forwards` and `backwards`."""
    map_scale: MapScaleRecord | None = None
    """Of a cell whose anomaly maps were attacked."""
    images: list[ImageRecord] = Field(default_factory=list)
    """What --save-images kept."""

    def __repr__(self) -> str:
        spec = self.spec
        what = f"{spec.detector}, {spec.attack} {spec.norm} {spec.eps} on {spec.dataset}/{spec.category}"
        return f"{type(self).__name__}({self.kind}, {self.status}: {what}, {self.rows} rows)"

    def __str__(self) -> str:
        return repr(self)

    @property
    def failed(self) -> list[CheckRecord]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]


class FinishedRecord(Record):
    """run.json of a finished cell."""

    status: Literal["finished"]
    finished: str
    """Date and time in UTC."""
    samples_sha256: Sha256
    """Of samples.csv: other rows are not read."""
    metrics: dict[str, float] | None = None
    """Name -> point value, see results.md; null in cells that were finished before metrics were recorded."""

    @classmethod
    def of(cls, record: Record, finished: str, samples_sha256: str) -> FinishedRecord:
        """Still without metrics. What would not be read again is not written either."""
        more: dict[str, Any] = {"status": "finished", "finished": finished, "samples_sha256": samples_sha256}
        return cls.model_validate(record.as_json() | more)


def wrong_rows(table: Table, record: Record) -> str | None:
    """The first thing in samples.csv that does not fit its run.json; None if all does."""
    count = len(table.ids)
    if count != record.rows:
        return f"samples.csv holds {count} rows, run.json counts {record.rows}"
    anomalous = int(table.anomalous.sum())
    counted = (("normal", count - anomalous, record.data.normal), ("anomalous", anomalous, record.data.anomalous))
    for name, found, stored in counted:
        if found != stored or (name == "normal" and not found):
            return f"samples.csv holds {found} {name} images, run.json counts {stored}"
    if len(set(table.ids)) < count:
        return f"samples.csv holds the image {Counter(table.ids).most_common(1)[0][0]} twice"
    missing = [name for name in _further_columns(record) if name not in table.columns]
    if missing:
        return f"samples.csv has no column {', '.join(missing)}"
    return _wrong_number(table, record) or _wrong_pixels(table, record) or _wrong_share(table, record)


def radii_of(record: Record) -> tuple[float, float]:
    """How far a normal and an anomalous image may be moved."""
    threat = record.spec.threat
    normal, anomalous = threat.controls(torch.tensor([0, 1])).tolist()
    return threat.radius * normal, threat.radius * anomalous


def beyond_budget(table: Table, record: Record) -> str | None:
    """Of an attack, the first image that is further away than the threat model allows; None if none is."""
    if record.kind == "certificate":
        return None
    distance = table.columns["distance"]
    for anomalous, radius in enumerate(radii_of(record)):
        allowed = (distance >= 0) & (distance <= radius + TOLERANCE * (radius > 0))
        far = (table.anomalous == bool(anomalous)) & ~allowed
        if far.any():
            first = int(far.argmax())
            ball = f"{record.spec.norm} {record.spec.eps}"
            return f"{table.ids[first]} is {distance[first]:.6g} away, and may be {radius:.6g} ({ball})"
    return None


def _wrong_number(table: Table, record: Record) -> str | None:
    finite, infinite = _promised(record)
    for name in (*finite, *infinite):
        values = table.columns[name]
        wrong = np.isnan(values) if name in infinite else ~np.isfinite(values)
        if wrong.any():
            first = int(wrong.argmax())
            expected = "a number" if name in infinite else "finite"
            return f"{table.ids[first]} has the value {values[first]} in column {name}; it must be {expected}"
    return None


def _wrong_pixels(table: Table, record: Record) -> str | None:
    """Every map has as many pixels as the image, and those of a region are in its mask."""
    if (record.kind == "localisation") != (record.map_scale is not None):
        return f"a cell of kind {record.kind} {'lacks' if record.map_scale is None else 'has'} a map_scale in run.json"
    wanted = MAP_COLUMNS if record.kind == "localisation" else ()
    if missing := set(wanted) - set(table.pixels):
        return f"samples.csv has no column {', '.join(sorted(missing))}"
    if strange := set(table.pixels) - set(wanted):
        return f"samples.csv has the column {min(strange)}, which such a cell has not"
    for name in wanted:
        try:
            background, mask, covered, regions = from_texts(table.pixels[name])
        except ValueError as error:
            return f"column {name} is damaged: {error}"
        pixels, marked = background.sum(1) + mask.sum(1), mask.sum(1) > 0
        right = (
            (pixels == record.spec.image_size**2)
            & (marked == table.anomalous)
            & ((mask > 0) == (covered > 0)).all(1)
            & (abs(covered.sum(1) - regions) < 1e-3)
        )
        if not right.all():
            first = table.ids[int((~right).argmax())]
            return f"{first} has pixels in column {name} that are not those of an image of {record.spec.image_size}"
    return None


def _wrong_share(table: Table, record: Record) -> str | None:
    """Of the box of light and pose: the distance is the share of it that the numbers of a row need."""
    if record.spec.norm != SEMANTIC:
        return None
    share = share_of(torch.tensor(np.stack([table.columns[name] for name in NAMES], 1))).numpy()
    off = abs(share - table.columns["distance"]) > TOLERANCE
    if not off.any():
        return None
    first = int(off.argmax())
    said = f"{share[first]:.6g} of the box, and the distance says {table.columns['distance'][first]:.6g}"
    return f"{table.ids[first]} needs {said}"


def _promised(record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that are finite in every row, and those that may be infinite but are never nan: bounds."""
    if record.kind != "certificate":
        return (*COLUMNS[2:], *_further_columns(record)), ()
    bounds = [name for name in _further_columns(record) if name != "certified_radius"]  # nan without a threshold
    return ("clean", "distance"), ("worst", *bounds)


def _further_columns(record: Record) -> tuple[str, ...]:
    """Those beside `rows.COLUMNS` that such a cell must have."""
    if record.kind == "certificate":
        return RANKED_BOUNDS if record.spec.goal == "rank" else ("draws",)
    if record.kind == "localisation":
        return ("transfer",)
    box = NAMES if record.spec.norm == SEMANTIC else ()
    return (*record.attack.parts, *box, *["worst_draw"] * (record.detector.randomized and record.kind == "attack"))
