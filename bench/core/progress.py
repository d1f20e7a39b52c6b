"""How work shows that it is alive: a fit its steps, a cell its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Progress:
    """How a long `fit` shows that it is alive, and where it may keep what a killed process would lose."""

    checkpoint: Path | None = None

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        """`step` of `total` are done; `loss` is the latest training loss."""


@dataclass
class Monitor:
    """Hears of the progress of a cell."""

    on_rows: Callable[[int, int], None] = lambda done, total: None
    tell: Callable[[str], None] = lambda message: None
