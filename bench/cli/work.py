"""What runs cells, wherever they run: the options that say where, and what is said at the end."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..system import server
from .common import Request, complain, console
from .jobs import refuse_what_cannot_be_built

if TYPE_CHECKING:
    from ..cells.journal import Keeper
    from ..core.progress import Tell
    from ..harness.process import Failure
    from .jobs import Job
    from .progress import Bars
    from .running import Seen


@dataclass(frozen=True, kw_only=True)
class WorkRequest(Request):
    """Cells to be run."""

    data_root: Path | None
    batch_size: int | None
    device: str
    results: Path
    force: bool
    cell_timeout: float | None
    """In seconds."""
    in_process: bool
    workers: int | None
    """None is for `Workers` to choose."""
    dry_run: bool
    executor: str
    address: str | None
    """Of a Ray cluster."""
    gpus_per_worker: float | None

    def carry_out(self) -> int:
        """Everything that can be wrong is looked at before any work; then the cells."""
        refuse_what_contradicts(self)
        self.look()
        if not self.in_process:
            server.start()  # it imports torch while this process does
        from .look import look_at
        from .progress import Bars
        from .running import Place, Seen, run_all

        refuse_what_cannot_be_used(self)
        place = Place(
            self.device,
            self.workers,
            self.in_process,
            self.cell_timeout,
            self.executor,
            self.address,
            self.gpus_per_worker,
        )
        with Bars() as bars:
            jobs, failures = self.jobs(bars)
            seen = [Seen(*each) for each in zip(jobs, look_at(jobs, self.in_process, self.cell_timeout), strict=True)]
            left = [job.job for job in seen if not job.is_done]
            refuse_what_cannot_be_built(left)
            workers = place.workers_for(len(left))
            if not self.dry_run:
                keeper = self._keeper(seen, failures, workers.at_once, bars.tell)
                idle = not left and not failures
                with contextlib.nullcontext() if idle else keeper.at_work():
                    ends = run_all(seen, bars, place, workers, keeper)
        if self.dry_run:
            from .dry_run import show

            return show(seen, failures, self.results, workers.at_once, self.in_process)
        return said_at_the_end([*failures, *ends], self.results)

    def _keeper(self, jobs: Sequence[Seen], failures: Sequence[Failure], at_once: int, tell: Tell) -> Keeper:
        """Of the journal of this run."""
        from ..cells.journal import FailedCell, Keeper, PlannedCell, below, journal_of

        cells = [
            PlannedCell(label=c.label, folder=below(self.results, c.folder), images=c.state.total, spec=c.spec)
            for job in jobs
            for c in job.known
        ]
        without = [FailedCell(label=failure.cell, why=failure.why, folders=[]) for failure in failures]
        return Keeper(self.results, journal_of(self.title, at_once, cells, without), tell)

    def look(self) -> None:
        """At what can be wrong before torch is needed."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What `bench status` calls it."""

    @abstractmethod
    def jobs(self, bars: Bars) -> tuple[list[Job], list[Failure]]:
        """All there are, and what has none. Raises UserError."""


def refuse_what_contradicts(request: WorkRequest) -> None:
    """Processes that are wanted and not wanted; options of a cluster without one."""
    if request.in_process and (request.workers or 1) > 1:
        raise UserError(f"--workers {request.workers} are processes, and --in-process wants none: give one of the two")
    if request.executor == "ray" and request.in_process:
        raise UserError(
            "--in-process wants no other process, and --executor ray runs nothing here: give one of the two"
        )
    if request.executor != "ray":
        for option, value in (("--address", request.address), ("--gpus-per-worker", request.gpus_per_worker)):
            if value is not None:
                raise UserError(f"{option} {value} is for --executor ray")


def refuse_what_cannot_be_used(request: WorkRequest) -> None:
    """A device, or a results folder; from here on, freed memory is kept."""
    from ..system.memory import keep_freed_memory
    from ..system.provenance import choose_device

    keep_freed_memory()
    choose_device(request.device)
    there = next(path for path in (request.results, *request.results.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"--results {request.results}: {there} is a file; a folder is expected")


def said_at_the_end(cells: Sequence[Path | Failure], results: Path) -> int:
    """The table of the finished cells, each reason for a failure once, and the exit code.

    cells: the folders of those that are finished, and those that are not.
    """
    _show([folder for folder in cells if isinstance(folder, Path)], results)
    failures = [failure for failure in cells if not isinstance(failure, Path)]
    cells_of: dict[tuple[str, str], list[str]] = {}
    for cell, why, whose in failures:
        cells_of.setdefault((why, whose), []).append(cell)
    for (why, _), which in cells_of.items():
        more = f" (and {len(which) - 1} more)" if len(which) > 1 else ""
        complain(f"{which[0]}{more}: {why}")
    return 2 if failures else 0


def _show(folders: Sequence[Path], results: Path) -> None:
    """These cells as one table: what lies beside them is for `bench report`."""
    from ..cells.reader import find_cells
    from ..report.terminal import run_table

    found = [find_cells(folder) for folder in folders]
    for sentence in (sentence for one in found for sentence in one.damaged):
        complain(sentence)
    cells = [result for one in found for result in one.results]
    if not cells:
        return
    screen = console()
    screen.print(run_table(cells))
    count = f"{len(cells)} finished cell" + "s" * (len(cells) > 1)
    screen.print(f"{count} in {results}; `bench report` writes the leaderboard", style="dim")
