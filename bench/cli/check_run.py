"""`bench check-run`: may a stored cell be believed? One line per check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from .common import assignments, option, place
from .stored import StoredRequest, each_cell, where_things_lie


@dataclass(frozen=True, kw_only=True)
class CheckRunRequest(StoredRequest):
    """Cells whose checks are made again."""

    attack_params: Mapping[str, str]

    def carry_out(self) -> int:
        """1 if a check fails or its verdict is not the stored one."""
        from ..audit.check_run import check_run
        from ..cells.submission import cells_in

        overrides = self.overrides(self.attack_params)
        return each_cell(
            cells_in(self.path), lambda cell: check_run(cell.folder, overrides, submitted=bool(cell.source))
        )


@click.command()
@click.argument("path", type=click.Path(), callback=place)
@where_things_lie
@option(
    "--attack-param",
    "attack_params",
    multiple=True,
    callback=assignments,
    metavar="K=FILE",
    help="the same, of the attack (repeatable)",
)
def command(**options: Any) -> CheckRunRequest:
    """May a stored cell be believed? One line per check.

    PATH is a cell's folder (with run.json), a folder of cells, or a submission.

    Rebuilds the detector of a stored cell from its record, scores the images again, attacks a few of them, and
    compares every check with the sentence that is stored. Exit code 0 if all checks pass as they did, 1 if one fails
    or its verdict is not the stored one, 2 on bad input. A check that a submission does not have has failed.
    """
    return CheckRunRequest(**options)
