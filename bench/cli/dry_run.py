"""`--dry-run`: every cell of a run, how far it is, and what is left in passes and time, by records of earlier runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..analysis.costs import Costs, fit_of
from ..cells.record import finished_below
from ..cells.state import State
from ..harness.process import Failure
from .common import complain, console
from .look import Listed


@dataclass
class Expected:
    """What cells will take, as far as records tell."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Without fits."""
    unknown: int = 0
    """Cells of which no record tells."""
    fits: dict[Any, float] = field(default_factory=dict)
    memory: float = 0.0
    """MiB, of the largest process."""

    def add(self, cell: Listed, costs: Costs) -> list[str]:
        """The line of this cell."""
        word, state = _word(cell.state), cell.state
        left = costs.left(cell.spec, 0 if state.finished else state.total - state.rows)
        self.counts[word] += 1
        if not state.finished:
            self.fits[fit_of(cell.spec)] = costs.fit(cell.spec)
            self.memory = max(self.memory, costs.memory(cell.spec))
        self.seconds += left.seconds or 0
        self.unknown += left.seconds is None
        passes = "?" if left.passes is None else f"{left.passes:,.0f}"
        return [cell.label, word + _more(state), passes, "?" if left.seconds is None else f"{left.seconds / 60:.1f}"]

    def sentences(self, at_once: int, results: Path) -> Iterator[str]:
        said = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        yield f"{_cells(sum(self.counts.values()))}: {said}; nothing was run"
        minutes = (self.seconds + sum(self.fits.values())) / 60
        if minutes:
            shared = f", {minutes / at_once:.1f} with {at_once} at once" if at_once > 1 else ""
            each = f"; up to {self.memory:,.0f} MiB in each process" if self.memory else ""
            yield f"about {minutes:.1f} minutes of work{shared}{each}, by the records in {results}"
        if self.unknown:
            yield (
                f"of {_cells(self.unknown)} no record here tells the time: run one category, or all with a small "
                "limit, first"
            )


def show(cells: Sequence[Listed | Failure], failures: Sequence[Failure], results: Path, at_once: int) -> int:
    """A table of the cells and one line of what is left; 2 where something could not be looked at."""
    from rich.table import Table

    costs = Costs()
    for _, record in finished_below(results):
        costs.add(record)
    table = Table(box=None, header_style="bold")
    for title, justify in (("cell", "left"), ("state", "left"), ("passes left", "right"), ("minutes left", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    expected, failed = Expected(), list(failures)
    for cell in cells:
        if isinstance(cell, Failure):
            failed.append(cell)
        else:
            table.add_row(*expected.add(cell, costs))
    screen = console()
    screen.print(table)
    for sentence in expected.sentences(at_once, results):
        screen.print(sentence)
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
