"""How work shows that it is alive: a fit its steps, a cell its rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..system import files

Tell = Callable[[str], None]
"""Receives a sentence that a person should read."""


def to_log(message: str) -> None:
    """Where sentences go that nobody asked to hear: to the logger `bench`, which shows them on stderr unless it is
    told otherwise."""
    logging.getLogger("bench").warning("%s", message)


class Progress:
    """How a long `fit` shows that it is alive, and where it may keep what a killed process would lose."""

    checkpoint: Path | None = None

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        """`step` of `total` are done; `loss` is the latest training loss."""

    def keep(self, state: bytes) -> None:
        """The whole state as `checkpoint`, or UserError and the one before it; nothing where there is none."""
        if self.checkpoint is not None:
            with files.writing(self.checkpoint) as partial:
                partial.write_bytes(state)


@dataclass
class Monitor:
    """Hears of the progress of a cell."""

    on_rows: Callable[[int, int], None] = lambda done, total: None
    """After every batch, and once before the first: images that are done, of how many."""
    tell: Tell = to_log
    """Receives a sentence when something worth knowing happens."""
