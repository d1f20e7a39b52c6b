"""`--dry-run`: every cell of a run, how far it is, and what is left in passes and time, by records of earlier runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.costs import Costs, Left, detector_key, fit_of
from ..cells.record import finished_below
from ..cells.spec import SMOOTHING
from ..cells.state import State
from ..harness.process import Failure
from .common import complain, console
from .look import Listed, paces

if TYPE_CHECKING:
    from ..harness.timing import Pace
    from .running import Seen


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
    timed: int = 0
    """Cells of which no record tells, and a few timed passes do."""

    def add(self, cell: Listed, costs: Costs, pace: Pace | None) -> list[str]:
        """The line of this cell."""
        word, state = _word(cell.state), cell.state
        left = costs.left(cell.spec, _rows_left(cell))
        if left.seconds is None and pace is not None and (found := _timed(cell, pace)) is not None:
            left, self.timed = found, self.timed + 1
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
        if self.timed:
            yield f"{_cells(self.timed)} by a few timed passes of detectors whose fits are kept"
        if self.unknown:
            yield (
                f"of {_cells(self.unknown)} no record here tells the time, and no fit is kept that could be timed: run "
                "one category, or all with a small limit, first"
            )


def show(jobs: Sequence[Seen], failures: Sequence[Failure], results: Path, at_once: int, in_process: bool) -> int:
    """A table of the cells and one line of what is left; 2 where something could not be looked at."""
    from rich.table import Table

    costs = Costs()
    for _, record in finished_below(results):
        costs.add(record)
    pace = _paces(jobs, costs, in_process)
    table = Table(box=None, header_style="bold")
    for title, justify in (("cell", "left"), ("state", "left"), ("passes left", "right"), ("minutes left", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    expected, failed = Expected(), list(failures)
    for cell in (cell for job in jobs for cell in job.cells):
        if isinstance(cell, Failure):
            failed.append(cell)
        else:
            table.add_row(*expected.add(cell, costs, pace.get(fit_of(cell.spec))))
    screen = console()
    screen.print(table)
    for sentence in expected.sentences(at_once, results):
        screen.print(sentence)
    for failure in failed:
        complain(f"{failure.cell}: {failure.why}")
    return 2 if failed else 0


def _rows_left(cell: Listed) -> int:
    return 0 if cell.state.finished else cell.state.total - cell.state.rows


def _paces(jobs: Sequence[Seen], costs: Costs, in_process: bool) -> dict[Any, Pace]:
    """By the fit, of cells of which no record tells."""
    unknown = [
        job for job in jobs if any(costs.left(cell.spec, _rows_left(cell)).seconds is None for cell in job.known)
    ]
    found: dict[Any, Pace] = {}
    for job, of_job in zip(unknown, paces([job.job for job in unknown], in_process, None), strict=True):
        for cell in job.known:
            spec = cell.spec
            if pace := of_job.get(detector_key(spec.detector, spec.detector_parameters, spec.image_size)):
                found[fit_of(spec)] = pace
    return found


def _timed(cell: Listed, pace: Pace) -> Left | None:
    """Its checks and their process included."""
    spent, rows = cell.spent[pace.randomized], _rows_left(cell)
    if spent is None:
        return None
    certified = cell.spec.attack == SMOOTHING
    seconds = rows * pace.seconds(spent.row, certified) + pace.seconds(spent.checks, certified)
    return Left(rows * (spent.row.forwards + spent.row.backwards), seconds + pace.afresh)


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
