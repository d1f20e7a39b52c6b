"""What runs cells, wherever they run: the options that say where, and what is said at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..system import server
from .common import Request, complain, console
from .dry_run import show
from .jobs import Job, Place, run_all

if TYPE_CHECKING:
    from ..harness.process import Failure
    from .progress import Bars


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
        from .progress import Bars

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
            ends = [] if self.dry_run else run_all(jobs, bars, place)
        if self.dry_run:
            return show(jobs, failures, self.results, place.workers_for(len(jobs)).at_once)
        return said_at_the_end([*failures, *ends], self.results)

    def look(self) -> None:
        """At what can be wrong before torch is needed."""

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
