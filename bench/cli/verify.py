"""`bench verify`: do the files of a cell still say what was computed? One line per test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from .common import place
from .stored import StoredRequest, each_cell, where_things_lie


@dataclass(frozen=True, kw_only=True)
class VerifyRequest(StoredRequest):
    """Cells, our own or of a submission, whose numbers are computed again."""

    no_scores: bool

    def carry_out(self) -> int:
        """1 if something differs."""
        from ..audit.verify import verify
        from ..cells.submission import cells_in

        overrides, found = self.overrides({}), cells_in(self.path)
        submitted = {cell.folder for cell in found if cell.source}
        return each_cell(
            [(cell.name, cell.folder) for cell in found],
            lambda folder: verify(folder, overrides, not self.no_scores, folder in submitted),
        )


@click.command()
@click.argument("path", type=click.Path(), default="results", callback=place)
@click.option("--no-scores", is_flag=True, help="fit nothing and score nothing")
@where_things_lie
def command(**options: Any) -> VerifyRequest:
    """Do the files of a cell still say what was computed?

    PATH is a cell's folder, a folder of cells, or a submission; by default `results`.

    Computes every published metric of a cell from its rows, looks at hashes, budgets and columns, and scores its
    stored images again: one line per test. Exit code 0 if nothing differs, 1 if something does, 2 on bad input.
    """
    return VerifyRequest(**options)
