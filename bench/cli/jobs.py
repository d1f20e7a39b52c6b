"""Jobs of a grid: a detector on a category, with all that is to be done there, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import UserError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ..core.data import Data
    from ..core.progress import Progress, Tell
    from ..harness.cell import Asked
    from ..harness.process import Failure
    from ..harness.protocol import Cell, Reports
    from ..harness.workers import Workers
    from ..plugins.fitting import DetectorSpec
    from .progress import Bars


class Chosen(NamedTuple):
    """A detector of a run."""

    name: str
    """As typed."""
    given: Mapping[str, str]
    """Its parameters."""
    failure: Failure | None = None
    """It has no cells, and why."""


class Request(Protocol):
    """What somebody has asked for, as far as a job needs it. It can be pickled."""

    def bed(self, category: str) -> Data: ...

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]: ...

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Any]) -> Iterator[Cell]: ...

    def planned_cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Any]) -> Iterator[tuple[str, Asked]]: ...


class Job(NamedTuple):
    """All that is asked of one detector on one category."""

    request: Request
    chosen: Chosen
    category: str
    planned: Sequence[Any]

    def cells(self, progress: Progress, tell: Tell) -> Iterator[Cell]:
        bed = self.request.bed(self.category)
        for spec in self.request.specs(self.chosen.name, self.chosen.given, progress, tell):
            yield from self.request.cells(bed, spec, self.planned)

    def planned_cells(self) -> Iterator[tuple[str, Asked]]:
        """The same, of which nothing is begun: a dry run looks at them."""
        from ..core.progress import Progress, to_log

        bed = self.request.bed(self.category)
        for spec in self.request.specs(self.chosen.name, self.chosen.given, Progress(), to_log):
            yield from self.request.planned_cells(bed, spec, self.planned)

    def work(self, reports: Reports, first: int) -> None:
        """In the process of the job."""
        from ..system.memory import keep_freed_memory

        keep_freed_memory()
        reports.run(list(self.cells(reports.fit(self.chosen.name), reports.tell)), first)


class Place(NamedTuple):
    """Where jobs run."""

    device: str
    workers: int | None = None
    """None is for `Workers` to choose."""
    in_process: bool = False
    cell_timeout: float | None = None
    """In seconds."""

    def workers_for(self, jobs: int) -> Workers:
        from ..harness.workers import Workers
        from ..system.provenance import choose_device

        if self.in_process:
            return Workers(1, 1)
        return Workers.for_jobs(jobs, self.workers, choose_device(self.device).type != "cpu")

    def at_once(self, jobs: int) -> int:
        """So many jobs run side by side."""
        return self.workers_for(jobs).at_once


def run_all(jobs: Sequence[Job], bars: Bars, place: Place) -> list[Path | Failure]:
    """The cells of all jobs, several of these side by side; what fails is said, and the others go on."""
    from ..harness.workers import side_by_side

    with bars.all_of(len(jobs)) as advance:
        if place.in_process:
            ends: list[Path | Failure] = []
            for job in jobs:
                ends += _in_this_process(job, bars)
                advance()
            return ends
        workers = place.workers_for(len(jobs))
        if workers.at_once > 1:
            bars.tell(f"{workers.at_once} detectors or categories side by side, threads of each: {workers.threads}")
        run = partial(_in_processes, bars, place, workers.threads)
        return side_by_side([partial(run, job) for job in jobs], workers.at_once, advance)


def _in_processes(bars: Bars, place: Place, threads: int, job: Job, stop: Connection) -> Iterator[Path | Failure]:
    from ..harness import process

    return process.run_cells(job.work, job.chosen.name, bars, place.cell_timeout, threads, stop)


def _in_this_process(job: Job, bars: Bars) -> Iterator[Path | Failure]:
    from ..harness import process

    for label, run in job.cells(bars.fit(job.chosen.name), bars.tell):
        try:
            with bars.cell(label) as monitor:
                yield run(monitor)
        except UserError as error:
            yield process.Failure(label, str(error))
