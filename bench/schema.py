"""What the files of a finished cell must hold: types, columns and counts; nothing of it is believed before."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError
from .run import COLUMNS, Row, from_csv
from .score import Goal
from .threat import Norm, Targets, ThreatModel

IMAGE = r"images/[0-9a-f]{8,64}\.npz"
"""Where a stored image lies, below the folder of its cell."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
RANKED_BOUNDS = ("low", "high", "low_0", "high_0", "certified_radius")


def _no_path(name: str) -> str:
    if not name or ".py" in name or not set(name).isdisjoint("/\\"):
        raise ValueError("it must be a name, not a path")  # whose code would be run
    return name


Name = Annotated[str, AfterValidator(_no_path)]


class _Whole(BaseModel):
    model_config = ConfigDict(strict=True)


class Spec(_Whole):
    model_config = ConfigDict(extra="forbid")

    detector: Name
    detector_parameters: dict[str, Any]
    attack: Name
    attack_parameters: dict[str, Any]
    norm: Norm
    eps: str
    targets: Targets
    dataset: Name
    category: Name
    image_size: Count
    seed: int
    limit: int | None
    draws: int | None
    goal: Goal


class DetectorRecord(_Whole):
    code: str
    parameters: dict[str, Any]
    randomized: bool
    differentiable: bool
    unranked: str | None
    purification: dict[str, Any] | None
    fit: dict[str, Any] | None


class AttackRecord(_Whole):
    code: str
    parameters: dict[str, Any]
    parts: list[str]


class DataRecord(_Whole):
    train: Sha256
    test: Sha256
    normal: Count
    anomalous: Count


class CheckRecord(_Whole):
    name: str
    passed: bool
    sentence: str


class ThresholdRecord(_Whole):
    value: float
    held_out: Count
    false_alarms: float


class GitRecord(_Whole):
    commit: str | None
    dirty: bool | None


class ImageRecord(_Whole):
    id: str
    label: Literal[0, 1]
    why: str
    file: Annotated[str, Field(pattern=f"^{IMAGE}$")]
    sha256: Sha256


class FinishedRecord(_Whole):
    """run.json of a finished cell; what is not named here is for people, and nothing reads it."""

    kind: Literal["attack", "certificate"]
    status: Literal["finished"]
    spec: Spec
    detector: DetectorRecord
    attack: AttackRecord
    data: DataRecord
    checks: list[CheckRecord]
    threshold: ThresholdRecord
    versions: dict[str, str | None]
    git: GitRecord
    device: str
    batch_size: int
    warnings: list[str]
    rows: Count
    forwards: Count
    backwards: Count
    seconds: float
    peak_memory: float | None
    samples_sha256: Sha256
    metrics: dict[str, float] | None = None
    images: list[ImageRecord] = []


def wrong_record(record: Any) -> str | None:
    """The first thing in run.json that is not as a finished cell has it; None if it is whole."""
    try:
        FinishedRecord.model_validate(record)
        ThreatModel(record["spec"]["norm"], record["spec"]["eps"], record["spec"]["targets"])
    except ValidationError as error:
        first = error.errors()[0]
        return f"run.json, {'.'.join(map(str, first['loc']))}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    except UserError as error:
        return f"run.json: {error}"
    return None


def read_samples(folder: Path) -> tuple[list[Row], str]:
    """The rows of samples.csv as they are, and its sha256; UserError if it is not there or not such a table."""
    path = folder / "samples.csv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        text = content.decode("utf-8")
        rows = from_csv(text, path)
        names = next(csv.reader(text.splitlines()), [])
    except (csv.Error, UnicodeDecodeError):
        raise UserError(f"{path} is damaged: it is not a table in UTF-8") from None
    if len(set(names)) < len(names):
        raise UserError(f"{path} is damaged: two columns have the same name")
    return rows, hashlib.sha256(content).hexdigest()


def wrong_rows(rows: Sequence[Row], record: dict[str, Any]) -> str | None:
    """The first thing in samples.csv that does not fit its run.json, which is whole; None if all does."""
    if len(rows) != record["rows"]:
        return f"samples.csv holds {len(rows)} rows, run.json counts {record['rows']}"
    labels = Counter(row.label for row in rows)
    if other := set(labels) - {0, 1}:
        return f"samples.csv has the label {min(other)}; labels are 0 and 1"
    for label, name in ((0, "normal"), (1, "anomalous")):
        if labels[label] != record["data"][name] or not labels[label]:
            return f"samples.csv holds {labels[label]} {name} images, run.json counts {record['data'][name]}"
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        return f"samples.csv holds the image {twice[0]} twice"
    missing = [name for name in _further_columns(record) if name not in rows[0].more]
    if missing:
        return f"samples.csv has no column {', '.join(missing)}"
    of_attack = COLUMNS[2:] if record["kind"] == "attack" else ("clean", "distance")
    for row in rows:
        for name in of_attack:
            if not math.isfinite(getattr(row, name)):
                return f"{row.id} has the value {getattr(row, name)} in column {name}; it must be finite"
    return None


def _further_columns(record: dict[str, Any]) -> tuple[str, ...]:
    """Those beside `run.COLUMNS` that such a cell must have."""
    if record["kind"] == "certificate":
        return RANKED_BOUNDS if record["spec"]["goal"] == "rank" else ("draws",)
    return (*record["attack"]["parts"], *["worst_draw"] * record["detector"]["randomized"])
