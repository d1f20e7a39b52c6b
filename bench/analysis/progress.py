"""How far the commands are that work, or have worked, on a results folder: from their journals and the cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from ..cells.journal import Kept, PlannedCell, journals
from ..cells.record import finished_below
from ..cells.schema import FinishedRecord
from ..cells.state import State, state_in
from ..errors import UserError
from .costs import Costs, fit_of

Word = Literal["done", "running", "failed", "begun", "to do"]
WORDS: tuple[Word, ...] = ("done", "running", "failed", "begun", "to do")


class CellProgress(NamedTuple):
    """A cell of a command."""

    planned: PlannedCell
    state: State
    why: str = ""
    """It has failed."""

    @property
    def word(self) -> Word:
        if self.state.finished:
            return "done"
        if self.state.works:
            return "running"
        if self.why:
            return "failed"
        return "begun" if self.state.rows else "to do"


class RunProgress(NamedTuple):
    """A command."""

    journal: Kept
    cells: list[CellProgress]
    seconds: float
    """That are left, as far as records tell, shared by those that work side by side."""
    unknown: int
    """Cells of which no record tells the time."""

    @property
    def counts(self) -> Counter[Word]:
        return Counter(cell.word for cell in self.cells)

    @property
    def failures(self) -> Iterator[tuple[str, str]]:
        """What has failed and is not there, and why."""
        failed = {cell.planned.folder for cell in self.cells if cell.word == "failed"}
        for failure in self.journal.failures:
            if not failure.folders or failed.intersection(failure.folders):
                yield failure.label, failure.why


class Watch:
    """Looks at a results folder again and again; what is finished is read once."""

    def __init__(self, results: Path):
        self.results = results
        self._done, self._costs = set[Path](), Costs()
        for folder, record in finished_below(results):
            self._remember(folder, record)

    def _remember(self, folder: Path, record: FinishedRecord) -> None:
        self._done.add(folder)
        self._costs.add(record)

    def runs(self) -> list[RunProgress]:
        """Of the commands that work now, else of the last one. UserError where there was none."""
        every = journals(self.results)
        if not every:
            raise UserError(f"no run was begun in {self.results} that keeps a journal; `bench run` begins one")
        working = [journal for journal in every if journal.works]
        return [self._of(journal) for journal in working or every[-1:]]

    def _of(self, journal: Kept) -> RunProgress:
        why = {folder: failure.why for failure in journal.failures for folder in failure.folders}
        cells = [self._cell(planned, why.get(planned.folder, "")) for planned in journal.cells]
        seconds, unknown, fits = 0.0, 0, dict[object, float]()
        for cell in cells:
            if cell.word in ("done", "failed"):
                continue
            left = self._costs.left(cell.planned.spec, cell.state.total - cell.state.rows)
            fits[fit_of(cell.planned.spec)] = 0.0 if cell.state.rows else self._costs.fit(cell.planned.spec)
            seconds, unknown = seconds + (left.seconds or 0), unknown + (left.seconds is None)
        return RunProgress(journal, cells, (seconds + sum(fits.values())) / max(journal.at_once, 1), unknown)

    def _cell(self, planned: PlannedCell, why: str) -> CellProgress:
        folder = self.results / planned.folder
        if folder in self._done:
            return CellProgress(planned, State(planned.images, planned.images, finished=True))
        try:
            state, record = state_in(folder, planned.images)
        except UserError as error:
            return CellProgress(planned, State(0, planned.images), str(error))
        if isinstance(record, FinishedRecord):
            self._remember(folder, record)
        return CellProgress(planned, state, why)
