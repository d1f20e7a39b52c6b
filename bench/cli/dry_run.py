"""`--dry-run`: every cell of a run, how far it is, and what is left in passes and time, by records of earlier runs."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError
from .common import complain, console
from .jobs import Job

if TYPE_CHECKING:
    from ..cells.schema import FinishedRecord
    from ..cells.spec import RunSpec
    from ..harness.cell import State
    from ..harness.process import Failure


class Listed(NamedTuple):
    """A cell of a run."""

    label: str
    spec: RunSpec
    state: State


def listed(jobs: Iterable[Job]) -> Iterator[Listed | Failure]:
    """All cells in their order; one that cannot be looked at, or a job, fails."""
    from ..core.progress import Progress, to_log
    from ..harness.process import Failure

    for job in jobs:
        at = f"{job.chosen.name} on {job.category}"
        try:
            for at, plan in job.plans(Progress(), to_log):
                try:
                    cell, data, *_ = plan()
                    yield Listed(at, cell.spec, cell.state(data))
                except UserError as error:
                    yield Failure(at, str(error))
        except UserError as error:
            yield Failure(at, str(error))


class Left(NamedTuple):
    """What a cell will cost; None where no record tells."""

    passes: float | None
    seconds: float | None


@dataclass
class Costs:
    """Of finished cells, by what they depend on: medians over categories."""

    cells: Mapping[Any, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Detector, attack and size -> passes and seconds of an image."""
    passes: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Attack, and whether the detector draws noise -> passes of an image."""
    pace: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Detector and size -> seconds of a pass."""
    fits: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Detector and size -> seconds."""
    randomized: dict[Any, bool] = field(default_factory=dict)
    """Detector -> whether it draws noise."""
    fitted: set[Any] = field(default_factory=set)
    """Detectors on categories."""

    @classmethod
    def of(cls, records: Iterable[FinishedRecord]) -> Costs:
        found = cls()
        for record in records:
            spec, passes = record.spec, (record.forwards + record.backwards) / max(record.rows, 1)
            seconds = (record.seconds + (record.checks_seconds or 0)) / max(record.rows, 1)
            found.cells[_detector(spec), _attack(spec)].append((passes, seconds))
            found.randomized[_detector(spec)] = record.detector.randomized
            found.passes[_attack(spec), record.detector.randomized].append(passes)
            if passes:
                found.pace[_detector(spec)].append(seconds / passes)
            if record.detector.fit is not None:
                found.fits[_detector(spec)].append(record.detector.fit.seconds)
            found.fitted.add(_fit(spec))
        return found

    def left(self, cell: Listed) -> Left:
        """Of the rows that are missing, without a fit."""
        images = 0 if cell.state.finished else cell.state.total - cell.state.rows
        if not images:
            return Left(0, 0)
        detector, attack = _detector(cell.spec), _attack(cell.spec)
        if same := self.cells.get((detector, attack)):
            passes, seconds = (statistics.median(column) for column in zip(*same, strict=True))
            return Left(images * passes, images * seconds)
        counts, pace = self.passes.get((attack, self.randomized.get(detector))), self.pace.get(detector)
        if not counts or not pace:
            return Left(None, None)
        expected = images * statistics.median(counts)
        return Left(expected, expected * statistics.median(pace))

    def fit(self, spec: RunSpec) -> float:
        """Seconds that a fit takes which is not there; 0 of one whose time nobody knows."""
        times = self.fits.get(_detector(spec))
        return statistics.median(times) if times and _fit(spec) not in self.fitted else 0.0


def show(jobs: Sequence[Job], failures: Sequence[Failure], results: Path, at_once: int) -> int:
    """A table of the cells and one line of what is left; 2 where something could not be looked at."""
    from rich.table import Table

    from ..cells.reader import find_cells

    costs = Costs.of(result.record for result in find_cells(results).results) if results.is_dir() else Costs()
    table = Table(box=None, header_style="bold")
    for title, justify in (("cell", "left"), ("state", "left"), ("passes left", "right"), ("minutes left", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    failed, counts, seconds, unknown = list(failures), Counter[str](), 0.0, 0
    fits: dict[Any, float] = {}
    for cell in listed(jobs):
        if not isinstance(cell, Listed):
            failed.append(cell)
            continue
        word, left = _word(cell.state), costs.left(cell)
        counts[word] += 1
        if not cell.state.finished:
            fits[_fit(cell.spec)] = costs.fit(cell.spec)
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
        screen.print(f"about {seconds / 60:.1f} minutes of work{shared}, by the records in {results}")
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


def _detector(spec: RunSpec) -> Any:
    return spec.detector, repr(sorted(spec.detector_parameters.items())), spec.image_size


def _attack(spec: RunSpec) -> Any:
    return spec.attack, repr(sorted(spec.attack_parameters.items())), spec.norm, spec.goal, spec.draws


def _fit(spec: RunSpec) -> Any:
    return (*_detector(spec), spec.dataset, spec.category, spec.seed)
