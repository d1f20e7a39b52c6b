"""`--dry-run`: every cell of a run, how far it is, and what is left in passes and time, by records of earlier runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import complain, console

if TYPE_CHECKING:
    from ..cells.state import State
    from ..harness.process import Failure
    from .look import Listed


def show(cells: Sequence[Listed | Failure], failures: Sequence[Failure], results: Path, at_once: int) -> int:
    """A table of the cells and one line of what is left; 2 where something could not be looked at."""
    from rich.table import Table

    from ..analysis.costs import Costs, fit_of
    from ..cells.reader import find_cells
    from .look import Listed

    costs = Costs.of(result.record for result in find_cells(results).results) if results.is_dir() else Costs()
    table = Table(box=None, header_style="bold")
    for title, justify in (("cell", "left"), ("state", "left"), ("passes left", "right"), ("minutes left", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    failed, counts, seconds, unknown = list(failures), Counter[str](), 0.0, 0
    fits: dict[Any, float] = {}
    memory = 0.0
    for cell in cells:
        if not isinstance(cell, Listed):
            failed.append(cell)
            continue
        word, left = (
            _word(cell.state),
            costs.left(cell.spec, 0 if cell.state.finished else cell.state.total - cell.state.rows),
        )
        counts[word] += 1
        if not cell.state.finished:
            fits[fit_of(cell.spec)] = costs.fit(cell.spec)
            memory = max(memory, costs.memory(cell.spec))
        seconds += left.seconds or 0
        unknown += left.seconds is None
        passes = "?" if left.passes is None else f"{left.passes:,.0f}"
        minutes = "?" if left.seconds is None else f"{left.seconds / 60:.1f}"
        table.add_row(cell.label, word + _more(cell.state), passes, minutes)
    screen = console()
    screen.print(table)
    seconds += sum(fits.values())
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    screen.print(f"{_cells(sum(counts.values()))}: {said}; nothing was run")
    if seconds:
        shared = f", {seconds / at_once / 60:.1f} with {at_once} at once" if at_once > 1 else ""
        each = f"; up to {memory:,.0f} MiB in each process" if memory else ""
        screen.print(f"about {seconds / 60:.1f} minutes of work{shared}{each}, by the records in {results}")
    if unknown:
        screen.print(
            f"of {_cells(unknown)} no record here tells the time: run one category, or all with a small limit, first"
        )
    for failure in failed:
        complain(f"{failure.cell}: {failure.why}")
    return 2 if failed else 0


def _cells(count: int) -> str:
    return f"{count} cell" + "s" * (count != 1)


def _word(state: State) -> str:
    if state.stale:
        return "changed"
    if state.works:
        return "running"
    if state.finished:
        return "finished"
    return "begun" if state.rows else "to do"


def _more(state: State) -> str:
    if state.stale:
        return ", needs --force"
    return f", {state.rows} of {state.total}" if state.works or (state.rows and not state.finished) else ""
