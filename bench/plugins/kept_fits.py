"""Fitted detectors on the disk: one folder each, below the user's cache folder."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
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
SUMMARY = {"model_sha256": str, "seconds": float, "images": int}
"""What a run says of a fit, and of which type it is."""
LATER = {"threads": int}
"""The same, of what fits did not record at first."""


def folder_of(detector: str, data: Data, identity: Mapping[str, Any]) -> Path:
    """Where a fit is kept; `identity` is everything, as JSON, that it depends on."""
    place = files.safe_name(f"{data.name}-{data.category}-{data.image_size}px")
    # a family's member has a colon in its name
    name = f"{files.safe_name(detector.replace(':', '-'))}-{files.digest(json.dumps(identity, sort_keys=True), 16)}"
    return cache_folder() / "fitted" / place / name


def others(folder: Path) -> list[dict[str, Any]]:
    """The records of further fits of the same detector on the same category."""
    pattern = f"{glob.escape(folder.name.rpartition('-')[0])}-*/fit.json"
    found = []
    for path in folder.parent.glob(pattern):
        with contextlib.suppress(UserError):  # a damaged one is none
            found += [files.read_json(path)] if path.parent != folder else []
    return [record for record in found if isinstance(record, dict)]


def is_whole(folder: Path) -> bool:
    """Whether what `save` has written there is there, and as it was written."""
    return (folder / "fit.json").exists() and _damage(folder) is None


def remove_damaged(folder: Path) -> str | None:
    """Make room for another fit; a sentence if there is one that is not as it was written."""
    if not (folder / "fit.json").exists():
        return None
    damage = _damage(folder)
    with files.says_why(folder):
        shutil.rmtree(folder)
    return f"the fit kept in {folder} is damaged ({damage}); fitting again"


def _damage(folder: Path) -> str | None:
    """What is wrong with a kept fit; None if nothing is."""
    try:
        record = files.read_json(folder / "fit.json")
        if not isinstance(record, dict) or not SUMMARY.items() <= {k: type(v) for k, v in record.items()}.items():
            return "fit.json is not the record of a fit"
        if record.get("schema") != SCHEMA:
            return f"another version wrote it, schema {str(record.get('schema'))[:20]}"
        if file_sha256(folder / "model.safetensors") != record["model_sha256"]:
            return "model.safetensors was changed after it was written: its sha256 differs"
    except UserError as error:
        return str(error)
    return None


def summary(folder: Path) -> dict[str, Any]:
    """What the record of a run says of a fit."""
    record = files.read_json(folder / "fit.json")
    return {name: record[name] for name in SUMMARY} | {
        name: record[name] for name, kind in LATER.items() if type(record.get(name)) is kind
    }


def find(hashes: Collection[str]) -> dict[str, Path]:
    """The weights in the cache that have these sha256, each as it was written."""
    found: dict[str, Path] = {}
    for path in (cache_folder() / "fitted").glob("*/*/fit.json"):
        with contextlib.suppress(UserError, KeyError, TypeError):  # a damaged one is none
            digest = files.read_json(path)["model_sha256"]
            if digest in hashes and digest not in found and is_whole(path.parent):
                found[digest] = path.parent / "model.safetensors"
    return found


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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    model = folder / "model.safetensors"
    with files.writing(model) as partial:
        try:
            save_file(state_of(detector), partial)
        except SafetensorError as error:
            if (said := re.search(r"\(os error (\d+)\)", str(error))) is None:
                raise
            raise OSError(int(said[1]), os.strerror(int(said[1]))) from error
    files.write_json(folder / "fit.json", {**record, "model_sha256": file_sha256(model)})


def load(detector: Detector, folder: Path) -> None:
    """What `save` wrote, into a detector of the same class; whoever did not write it asks `is_whole` before."""
    take_from(detector, folder / "model.safetensors", f"; delete {folder} to fit again")


def take_from(detector: Detector, model: Path, remedy: str = "") -> None:
    """What a file of tensors holds, whoever made it: no code is in such a file."""
    from safetensors.torch import load_file

    try:
        take(detector, load_file(model))
    except Exception as error:
        raise UserError(f"checkpoint {model} cannot be loaded ({where_it_failed(error)}){remedy}") from None
