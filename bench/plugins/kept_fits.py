"""Fitted detectors on the disk: one folder each, below the user's cache folder."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.data import Data
from ..core.detector import Detector, Wrapper
from ..core.score import where_it_failed
from ..errors import UserError
from ..system import files
from ..system.cache import cache_folder
from ..system.files import file_sha256

SCHEMA = 2
"""Of fit.json."""


def folder_of(detector: str, data: Data, identity: Mapping[str, Any]) -> Path:
    """Where a fit is kept; `identity` is everything, as JSON, that it depends on."""
    place = files.safe_name(f"{data.name}-{data.category}-{data.image_size}px")
    # a family's member has a colon in its name
    name = f"{files.safe_name(detector.replace(':', '-'))}-{files.digest(json.dumps(identity, sort_keys=True), 16)}"
    return cache_folder() / "fitted" / place / name


def others(folder: Path) -> list[dict[str, Any]]:
    """The records of further fits of the same detector on the same category."""
    pattern = f"{glob.escape(folder.name.rpartition('-')[0])}-*/fit.json"
    return [files.read_json(path) for path in folder.parent.glob(pattern)]


def is_whole(folder: Path) -> bool:
    """Whether `save` has ended there."""
    return (folder / "fit.json").exists()


def summary(folder: Path) -> dict[str, Any]:
    """What the record of a run says of a fit."""
    record = files.read_json(folder / "fit.json")
    return {name: record[name] for name in ("model_sha256", "seconds", "images")}


def state_of(detector: Detector) -> dict[str, Tensor]:
    """What is kept of a detector, on the CPU: a copy."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in detector.learned().items()}


def take(detector: Detector, state: Mapping[str, Tensor]) -> None:
    """The other way: what `state_of` gave, or what was read."""
    if isinstance(detector, Wrapper):  # its inner detector is loaded already
        inner = {name: value for name, value in detector.state_dict().items() if name.startswith("inner.")}
        state = {**state, **inner}
    detector.load_state_dict(state)


def save(detector: Detector, folder: Path, record: dict[str, Any]) -> None:
    """model.safetensors and, last, fit.json with its hash: a folder with fit.json is whole."""
    from safetensors.torch import save_file

    model = folder / "model.safetensors"
    with files.writing(model) as partial:
        save_file(state_of(detector), partial)
    files.write_json(folder / "fit.json", {**record, "model_sha256": file_sha256(model)})


def load(detector: Detector, folder: Path) -> None:
    from safetensors.torch import load_file

    model = folder / "model.safetensors"
    remedy = f"delete {folder} to fit again"
    record = files.read_json(folder / "fit.json")
    if record.get("schema") != SCHEMA:
        raise UserError(f"{folder} was written by another version (schema {record.get('schema')}); {remedy}")
    if file_sha256(model) != record["model_sha256"]:
        raise UserError(f"checkpoint {model} was changed after it was written (its sha256 differs); {remedy}")
    try:
        take(detector, load_file(model))
    except Exception as error:
        raise UserError(f"checkpoint {model} cannot be loaded ({where_it_failed(error)}); {remedy}") from None
