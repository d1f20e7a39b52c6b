"""What the files of a finished cell must hold: types, columns and counts; nothing of it is believed before."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from ..core.norms import NORMS
from ..core.score import Goal
from ..core.threat import Targets, ThreatModel
from ..errors import UserError, unknown
from .images import IMAGE
from .rows import COLUMNS, Table

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
RANKED_BOUNDS = ("low", "high", "low_0", "high_0", "certified_radius")


def _no_path(name: str) -> str:
    if not name or ".py" in name or not set(name).isdisjoint("/\\"):
        raise ValueError("it must be a name, not a path")  # whose code would be run
    return name


def _of_the_table(norm: str) -> str:
    if norm not in NORMS:
        raise ValueError(str(unknown("norm", norm, NORMS)))
    return norm


Name = Annotated[str, AfterValidator(_no_path)]
NormName = Annotated[str, AfterValidator(_of_the_table), WithJsonSchema({"enum": list(NORMS)})]


class _Whole(BaseModel):
    model_config = ConfigDict(strict=True)


class Spec(_Whole):
    model_config = ConfigDict(extra="forbid")

    detector: Name
    detector_parameters: dict[str, Any]
    attack: Name
    attack_parameters: dict[str, Any]
    norm: NormName
    eps: str
    targets: Targets
    dataset: Name
    category: Name
    image_size: Annotated[int, Field(ge=1, le=10**5)]
    seed: int
    limit: int | None
    draws: int | None
    goal: Goal


class PurificationRecord(_Whole):
    parameter: str
    value: float
    inner: str


class FitRecord(_Whole):
    seconds: Amount


class DetectorRecord(_Whole):
    code: str
    parameters: dict[str, Any]
    randomized: bool
    differentiable: bool
    unranked: str | None
    purification: PurificationRecord | None
    fit: FitRecord | None
    weights: Count = 0


class AttackRecord(_Whole):
    code: str
    parameters: dict[str, Any]
    parts: list[str]


class DataRecord(_Whole):
    train: Sha256
    test: Sha256
    train_images: Count
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


class StartedRecord(_Whole):
    """run.json of a cell that is not finished, as far as a report says something of it."""

    kind: Literal["attack", "certificate"]
    status: Literal["running"]
    spec: Spec
    data: DataRecord
    rows: Count


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
    seconds: Amount
    peak_memory: Amount | None
    finished: str
    samples_sha256: Sha256
    metrics: dict[str, float] | None = None
    smaller_ball: str | None = None
    images: list[ImageRecord] = []


def wrong_record(record: Any) -> str | None:
    """The first thing in run.json that is not as a cell has it, finished or not; None if it is whole."""
    try:
        (StartedRecord if record.get("status") == "running" else FinishedRecord).model_validate(record)
        ThreatModel(record["spec"]["norm"], record["spec"]["eps"], record["spec"]["targets"])
    except ValidationError as error:
        first = error.errors()[0]
        return f"run.json, {'.'.join(map(str, first['loc']))}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    except UserError as error:
        return f"run.json: {error}"
    return None


def wrong_rows(table: Table, record: dict[str, Any]) -> str | None:
    """The first thing in samples.csv that does not fit its run.json, which is whole; None if all does."""
    count = len(table.ids)
    if count != record["rows"]:
        return f"samples.csv holds {count} rows, run.json counts {record['rows']}"
    anomalous = int(table.anomalous.sum())
    for found, name in ((count - anomalous, "normal"), (anomalous, "anomalous")):
        if found != record["data"][name] or not found:
            return f"samples.csv holds {found} {name} images, run.json counts {record['data'][name]}"
    if len(set(table.ids)) < count:
        return f"samples.csv holds the image {Counter(table.ids).most_common(1)[0][0]} twice"
    missing = [name for name in _further_columns(record) if name not in table.columns]
    if missing:
        return f"samples.csv has no column {', '.join(missing)}"
    finite, infinite = _promised(record)
    for name in (*finite, *infinite):
        values = table.columns[name]
        wrong = np.isnan(values) if name in infinite else ~np.isfinite(values)
        if wrong.any():
            first = int(wrong.argmax())
            expected = "a number" if name in infinite else "finite"
            return f"{table.ids[first]} has the value {values[first]} in column {name}; it must be {expected}"
    return None


def _promised(record: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that are finite in every row, and those that may be infinite but are never nan: bounds."""
    if record["kind"] == "attack":
        return (*COLUMNS[2:], *_further_columns(record)), ()
    bounds = [name for name in _further_columns(record) if name != "certified_radius"]  # nan without a threshold
    return ("clean", "distance"), ("worst", *bounds)


def _further_columns(record: dict[str, Any]) -> tuple[str, ...]:
    """Those beside `run.COLUMNS` that such a cell must have."""
    if record["kind"] == "certificate":
        return RANKED_BOUNDS if record["spec"]["goal"] == "rank" else ("draws",)
    return (*record["attack"]["parts"], *["worst_draw"] * record["detector"]["randomized"])
