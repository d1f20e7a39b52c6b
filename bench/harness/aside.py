"""What --force replaces: a finished result is kept in `previous/` until the new one is finished, whatever happens.

At every moment one of the two folders holds it whole. A folder appears and goes by one rename; files are linked into
it, or copied where the file system has no links, and are removed where they were only after that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..cells.record import ASIDE, SAVED, read_record
from ..cells.rows import SAMPLES
from ..cells.schema import FinishedRecord
from ..errors import UserError
from ..system import files

PARTS = ("run.json", SAMPLES, SAVED)
"""Of a cell's folder, in the order in which they go: without run.json the rest is no cell."""
MAKING, GOING = f".{ASIDE}.new", f".{ASIDE}.old"
"""What a kill may leave of making `previous/`, and of removing it."""


@contextlib.contextmanager
def set_aside(folder: Path) -> Iterator[None]:
    """A cell lies in `previous/` until it is redone, and comes back if that fails.

    After a kill or Ctrl-C it is still there, and the next run of the same cell goes on with the new one.
    """
    with files.says_why(folder / ASIDE):
        _clean(folder)
        # an unfinished redo must not push out what an earlier --force has set aside
        if (folder / "run.json").exists() and (_is_finished(folder) or not (folder / ASIDE).is_dir()):
            _link(folder, folder / MAKING)
            discard(folder)
            (folder / MAKING).rename(folder / ASIDE)
        if (folder / ASIDE).is_dir():
            _remove_parts(folder)
    try:
        yield
    except Exception:
        with files.says_why(folder / ASIDE):
            if (folder / ASIDE).is_dir():
                _remove_parts(folder)
                _link(folder / ASIDE, folder)
                discard(folder)
        raise


def discard(folder: Path) -> None:
    """The cell is finished: what it replaces is no longer needed."""
    if (folder / ASIDE).is_dir():
        (folder / ASIDE).rename(folder / GOING)
        _clean(folder)


def _is_finished(folder: Path) -> bool:
    try:
        return isinstance(read_record(folder), FinishedRecord)
    except UserError:  # damaged, or of another version
        return False


def _link(source: Path, target: Path) -> None:
    """All parts, run.json last."""
    target.mkdir(exist_ok=True)
    for name in reversed(PARTS):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, copy_function=_linked)
        elif (source / name).exists():
            _linked(source / name, target / name)


def _linked(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _remove_parts(folder: Path) -> None:
    for name in PARTS:
        _remove(folder / name)


def _clean(folder: Path) -> None:
    for name in (MAKING, GOING):
        _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
