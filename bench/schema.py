"""What the files of a finished cell must hold: types, columns and counts; nothing of it is believed before."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError
from .run import COLUMNS
from .score import Goal
from .threat import Norm, Targets, ThreatModel

if TYPE_CHECKING:
    from .cells import Table

IMAGE = r"images/[0-9a-f]{8,64}\.npz"
"""Where a stored image lies, below the folder of its cell."""
ARRAYS = {"clean", "attacked"}
MAPS = {"map_clean", "map_attacked"}
IMAGE_BYTES = 256 * 2**20
"""Of one stored image, packed or not."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
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


def read_image(folder: Path, entry: Mapping[str, Any], size: int) -> dict[str, npt.NDArray[Any]] | str:
    """The arrays of a stored image of a cell, or what is wrong with it.

    `clean` and `attacked`, float32 (3, size, size), and perhaps `map_clean` and `map_attacked`, (h, w); all finite.
    """
    path = folder / entry["file"]
    if not re.fullmatch(IMAGE, entry["file"]):
        return "is not read: images lie in images/ of their cell"
    try:
        if path.stat().st_size > IMAGE_BYTES:
            return f"is larger than {IMAGE_BYTES // 2**20} MiB"
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            return "was changed after the run: its sha256 is not the one in run.json"
        arrays = _arrays(path)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return "is not a whole npz file"
    if set(arrays) not in (ARRAYS, ARRAYS | MAPS):
        return f"holds the arrays {', '.join(sorted(arrays))}; expected {', '.join(sorted(ARRAYS))}, perhaps both maps"
    for name, array in arrays.items():
        if name in ARRAYS and (array.dtype != np.float32 or array.shape != (3, size, size)):
            return f"has {name} as {array.dtype} {array.shape}; expected float32 (3, {size}, {size})"
        if name in MAPS and (array.ndim != 2 or not array.size or array.shape != arrays["map_clean"].shape):
            return f"has {name} as {array.shape}; expected two maps (h, w) of one size"
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            return f"has values in {name} that are not finite"
    return arrays


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > IMAGE_BYTES:
            raise ValueError(path)
    with np.load(path, allow_pickle=False) as arrays:
        found = dict(arrays)
    if not all(isinstance(array, np.ndarray) for array in found.values()):
        raise ValueError(path)
    return found
