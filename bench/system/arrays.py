"""NumPy files, written whole or not at all. Apart from other files, so that whoever writes text waits for no NumPy."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import writing

SEAL = hashlib.sha256().digest_size  # bytes after the array, which NumPy does not read


class Unsealed(Exception):
    """Of a file that was changed, cut short, or written as another one."""


def write_sealed(path: Path, array: NDArray[Any], words: str) -> None:
    """A NumPy file, followed by a hash of it and of the words that say what it is."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    with writing(path) as partial:
        partial.write_bytes(buffer.getvalue() + _seal(buffer.getvalue(), words))


def read_sealed(path: Path, words: str) -> NDArray[Any] | None:
    """What `write_sealed` wrote with these words; None if it is not there. Raises Unsealed."""
    try:
        content = path.read_bytes()
        if content[-SEAL:] != _seal(content[:-SEAL], words):
            raise Unsealed
        found: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        raise Unsealed from None
    return found


def _seal(content: bytes, words: str) -> bytes:
    return hashlib.sha256(words.encode() + b"\n" + content).digest()


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """A compressed NumPy archive; the same arrays give the same bytes."""
    with writing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
