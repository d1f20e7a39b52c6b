"""A cell that is asked for and not begun: what `evaluate`, `certify` and every job run, and a dry run shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..core.attack import Method
from ..core.data import Data
from ..core.progress import Monitor
from ..engine.worker import Prepared
from .cell import Cell
from .evaluated import Evaluated
from .subject import batch_size_for


class Asked(NamedTuple):
    """The cell, and what it needs to be run."""

    cell: Cell
    data: Data
    """The test images that are attacked."""
    prepare: Callable[[], Prepared]
    method: Method
    """The attack, or the certificate."""

    def run(self, batch_size: int | None, force: bool, monitor: Monitor | None) -> Evaluated:
        """Its rows; a finished cell is read. batch_size: None is the one for these images."""
        at_once = batch_size_for(self.data.image_size, batch_size)
        rows, record = self.cell.run(self.data, self.prepare, self.method, at_once, force, monitor)
        return Evaluated.of(rows, record, self.cell.folder)
