"""`bench report`: tables, LEADERBOARD.md, CSV, a page and plots from results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .common import RESULTS, Request, console, names, option, place

BOARDS_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class ReportRequest(Request):
    """What to write, from which cells, and where."""

    results: Path
    out: Path | None
    """None is the results folder."""
    formats: tuple[str, ...]
    filters: tuple[str, ...]
    sort: str

    def carry_out(self) -> int:
        """1 if a cell cannot be read, or an attack went below what a certificate excludes."""
        from ..analysis.boards import boards
        from ..cells.bracket import broken_brackets
        from ..cells.filters import Filters
        from ..report.terminal import rich_table, submitted_table
        from ..report.write import write_report
        from ..system.memory import keep_freed_memory

        keep_freed_memory()
        filters = Filters(self.filters) if self.filters else None
        (results, notes, damaged, submitted), written = write_report(
            self.results, self.out, self.formats, filters, self.sort
        )
        screen = console()
        shown = boards(results, self.sort)
        for board in shown[:BOARDS_SHOWN]:
            screen.print(rich_table(board))
        if len(shown) > BOARDS_SHOWN:
            screen.print(f"and {len(shown) - BOARDS_SHOWN} more tables, in the files", style="dim")
        if submitted:
            screen.print(submitted_table(submitted))
        for note in (*damaged, *notes):
            screen.print(note, style="yellow", highlight=False)
        violations = broken_brackets(results)
        for violation in violations:
            screen.print(f"impossible: {violation}", style="red", highlight=False)
        for path in written:
            screen.print(f"written: {path}", style="dim", highlight=False)
        return 1 if violations or damaged else 0


@click.command()
@RESULTS
@option(
    "--out", type=click.Path(), callback=place, metavar="DIR", help="where the files go  [default: the results folder]"
)
@option(
    "--format",
    "formats",
    default="md,html,csv",
    show_default=True,
    callback=names,
    metavar="F[,F2..]",
    help="of md, html, csv, json, parquet",
)
@option(
    "--filter",
    "filters",
    multiple=True,
    metavar="K=V[,K2=V2..]",
    help="only cells that fit, e.g. detector=advrad,eps=2/255; the same key again is an alternative (repeatable)",
)
@option(
    "--sort",
    default="",
    metavar="COLUMN",
    help="a metric (clean_auroc), a cost (seconds) or detector, best first; -COLUMN the other way round",
)
def command(**options: Any) -> ReportRequest:
    """Write tables, plots and a page from results.

    The folder gets LEADERBOARD.md, leaderboard.csv, plots, and report/index.html, which works from the disk.
    """
    return ReportRequest(**options)
