"""`bench submit`: pack finished cells into one file, for others' leaderboards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .common import Request, option, place, say


@dataclass(frozen=True, kw_only=True)
class SubmitRequest(Request):
    """Cells, and the file they are packed into."""

    path: Path
    out: Path
    without_weights: bool

    def carry_out(self) -> int:
        """0, or UserError and no file."""
        from ..audit.submit import submit

        for line in submit(self.path, self.out, not self.without_weights):
            say(line)
        return 0


@click.command()
@click.argument("path", type=click.Path(), callback=place)
@option("--out", type=click.Path(), default="submission.zip", show_default=True, callback=place, metavar="FILE.zip")
@click.option("--without-weights", is_flag=True, help="leave out what the detectors have learned: harder to reproduce")
def command(**options: Any) -> SubmitRequest:
    """Pack finished cells into one file, to be published.

    PATH is a cell's folder (with run.json), or a folder of cells.

    Verifies one cell, or all finished ones below a folder, as `bench verify --no-scores` does, and packs them into
    one file, with what their detectors have learned, so that others can run them again. Exit code 2, and no file, if
    one is not what its record says.
    """
    return SubmitRequest(**options)
