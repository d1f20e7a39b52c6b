"""How far a cell is, by what lies in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..system import locks
from .record import read_record, unchanged_samples
from .schema import FinishedRecord, Record


class State(NamedTuple):
    """How far a cell is."""

    rows: int
    total: int
    finished: bool = False
    stale: bool = False
    """What it was made from has changed since: a run would refuse it."""
    works: bool = False
    """A process works on it now."""


def state_in(folder: Path, total: int) -> tuple[State, Record | None]:
    """Of a cell of `total` rows, and its record; None where there is none.

    Raises UserError where it is damaged.
    """
    works = locks.is_held(folder)  # from before its fit on
    if not (folder / "run.json").exists():
        return State(0, total, works=works), None
    record = read_record(folder)
    if isinstance(record, FinishedRecord):
        unchanged_samples(folder, record)
    return State(record.rows, total, isinstance(record, FinishedRecord), works=works), record
