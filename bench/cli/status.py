"""`bench status`: how far the commands are that work on a results folder, from any terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .common import RESULTS, Request, console, print_json

if TYPE_CHECKING:
    from rich.console import Group

    from ..analysis.progress import RunProgress

LOOK_EVERY = 2.0  # seconds


@dataclass(frozen=True, kw_only=True)
class StatusRequest(Request):
    """What works on a results folder."""

    results: Path
    once: bool
    as_json: bool

    def carry_out(self) -> int:
        from ..analysis.progress import Watch

        if not self.results.is_dir():
            raise UserError(f"no results in {self.results}: the folder does not exist; `bench run` makes it")
        watch = Watch(self.results)
        runs = watch.runs()
        if self.as_json:
            print_json([_as_json(run) for run in runs])
            return 0
        screen = console()
        if self.once or not sys.stdout.isatty() or not any(run.journal.works for run in runs):
            screen.print(_shown(runs))
            return 0
        from rich.live import Live

        with Live(_shown(runs), console=screen, auto_refresh=False) as live:
            while any(run.journal.works for run in runs):
                time.sleep(LOOK_EVERY)
                runs = watch.runs()
                live.update(_shown(runs), refresh=True)
        return 0


def _shown(runs: list[RunProgress]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ..analysis.progress import WORDS
    from ..core.names import shown

    parts: list[Any] = []
    for run in runs:
        parts.append(Text(shown(_headline(run)), style="bold"))
        table = Table(box=None, header_style="bold")
        table.add_column("detector")
        for word in WORDS:
            table.add_column(word, justify="right")
        for name, counts in _by_detector(run).items():
            table.add_row(shown(name), *(str(counts[word] or "") for word in WORDS))
        parts.append(table)
        for cell in run.cells:
            if cell.word == "running":
                parts.append(Text(shown(f"running: {cell.planned.label}, {cell.state.rows} of {cell.state.total}")))
        for label, why in run.failures:
            parts.append(Text(shown(f"failed: {label}: {why}"), style="red"))
        parts.append(Text(shown(_what_is_left(run)), style="dim"))
    return Group(*parts)


def _by_detector(run: RunProgress) -> dict[str, Any]:
    from collections import Counter

    found: dict[str, Any] = {}
    for cell in run.cells:
        found.setdefault(cell.planned.spec.detector, Counter())[cell.word] += 1
    return found


def _headline(run: RunProgress) -> str:
    journal = run.journal
    if journal.works:
        how = f"works (process {journal.process} on {journal.host}, {journal.at_once} at once)"
    elif journal.ended:
        how = f"ended {journal.ended}"
    else:
        how = "was stopped or killed: the same command goes on with it"
    return f"{journal.title}: begun {journal.started}, {how}"


def _what_is_left(run: RunProgress) -> str:
    done, every = run.counts["done"], len(run.cells)
    said = [f"{done} of {every} cells done"]
    if done + run.counts["failed"] < every:
        if run.unknown < every - done - run.counts["failed"]:
            said.append(f"about {run.seconds / 60:.1f} minutes left")
        if run.unknown:
            said.append(f"of {run.unknown} no record tells the time yet")
    return "; ".join(said)


def _as_json(run: RunProgress) -> dict[str, Any]:
    from ..analysis.progress import WORDS

    return {
        **run.journal.model_dump(exclude={"cells", "failures"}),
        "counts": {word: run.counts[word] for word in WORDS},
        "seconds_left": round(run.seconds, 1),
        "cells_of_unknown_cost": run.unknown,
        "failures": [{"cell": label, "why": why} for label, why in run.failures],
        "cells": [
            {"cell": c.planned.label, "folder": c.planned.folder, "state": c.word, "rows": c.state.rows,
             "images": c.state.total}
            for c in run.cells
        ],
    }  # fmt: skip


@click.command(
    epilog="""\b
examples:
  bench status                 # live, until the run ends
  bench status --json | jq '.[0].counts'
"""
)
@RESULTS
@click.option("--once", is_flag=True, help="print it once, also where a run still works")
@click.option("--json", "as_json", is_flag=True, help="print it once, for programs")
def command(**options: Any) -> StatusRequest:
    """Show how far a run is, and why cells have failed.

    With the time that it will take, by the records of finished cells. It only reads, from any terminal and on any
    machine that sees the results folder: the commands that work there now, else the last one.
    """
    return StatusRequest(**options)
