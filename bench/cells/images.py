"""Stored images of a cell, read with care: somebody else may have made the file."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from .base import Part, Sha256

IMAGE = r"images/[0-9a-f]{8,64}\.npz"
"""Where a stored image lies, below the folder of its cell."""
ARRAYS = {"clean", "attacked"}
MAPS = {"map_clean", "map_attacked"}
MASK = {"mask"}
IMAGE_BYTES = 256 * 2**20
"""Of one stored image, packed or not."""


class ImageRecord(Part):
    """What run.json says of a stored image."""

    id: str
    """Of its row."""
    label: Literal[0, 1]
    """1 is anomalous."""
    why: str
    """Chosen as `most moved`, `hardest`, or both."""
    file: Annotated[str, Field(pattern=f"^{IMAGE}$")]
    """Below the cell's folder."""
    sha256: Sha256


def read_image(folder: Path, image: ImageRecord, size: int) -> dict[str, npt.NDArray[Any]] | str:
    """The arrays of a stored image of a cell, or what is wrong with it.

    `clean` and `attacked`, float32 (3, size, size), and perhaps `map_clean` and `map_attacked`, (h, w), all finite, and
    `mask`, (size, size), 0 but where the anomaly is.
    """
    path = folder / image.file
    if not re.fullmatch(IMAGE, image.file):
        return "is not read: images lie in images/ of their cell"
    try:
        if path.stat().st_size > IMAGE_BYTES:
            return f"is larger than {IMAGE_BYTES // 2**20} MiB"
        if hashlib.sha256(path.read_bytes()).hexdigest() != image.sha256:
            return "was changed after the run: its sha256 is not the one in run.json"
        arrays = _arrays(path)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return "is not a whole npz file"
    if set(arrays) - MASK not in (ARRAYS, ARRAYS | MAPS):
        return f"holds the arrays {', '.join(sorted(arrays))}; expected {', '.join(sorted(ARRAYS))}, perhaps both maps"
    for name, array in arrays.items():
        if name in ARRAYS and (array.dtype != np.float32 or array.shape != (3, size, size)):
            return f"has {name} as {array.dtype} {array.shape}; expected float32 (3, {size}, {size})"
        if name in MAPS and (array.ndim != 2 or not array.size or array.shape != arrays["map_clean"].shape):
            return f"has {name} as {array.shape}; expected two maps (h, w) of one size"
        if name in MASK and array.shape != (size, size):
            return f"has {name} as {array.shape}; expected ({size}, {size})"
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
