"""NumPy files, written whole or not at all. Apart from other files, so that whoever writes text waits for no NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import writing


def write_array(path: Path, array: NDArray[Any]) -> None:
    """A NumPy file."""
    with writing(path) as partial, partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """A compressed NumPy archive; the same arrays give the same bytes."""
    with writing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_array(path: Path) -> NDArray[Any] | None:
    """What `write_array` wrote; None if it is not there or not whole."""
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found
