"""Jobs of a grid: a detector on a category, with all that is to be done there, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import UserError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ..core.data import Data
    from ..core.progress import Monitor, Progress, Tell
    from ..harness.asked import Asked
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


Plan = tuple[str, "Callable[[], Asked]"]
"""The name of a cell, and what it is; UserError where it cannot be made."""


class Request(Protocol):
    """What somebody has asked for, as far as a job needs it. It can be pickled."""

    @property
    def batch_size(self) -> int | None: ...
    @property
    def force(self) -> bool: ...

    def bed(self, category: str) -> Data: ...

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]: ...

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Any]) -> Iterator[Plan]: ...


class Job(NamedTuple):
    """All that is asked of one detector on one category."""

    request: Request
    chosen: Chosen
    category: str
    planned: Sequence[Any]

    def plans(self, progress: Progress, tell: Tell) -> Iterator[Plan]:
        bed = self.request.bed(self.category)
        for spec in self.request.specs(self.chosen.name, self.chosen.given, progress, tell):
            yield from self.request.cells(bed, spec, self.planned)

    def cells(self, progress: Progress, tell: Tell) -> Iterator[Cell]:
        for label, plan in self.plans(progress, tell):
            yield label, partial(self._run, plan)

    def _run(self, plan: Callable[[], Asked], monitor: Monitor) -> Path:
        """The cell's folder."""
        return Path(plan().run(self.request.batch_size, self.request.force, monitor).attrs["folder"])

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
    executor: str = "local"
    address: str | None = None
    gpus_per_worker: float | None = None

    def workers_for(self, jobs: int) -> Workers:
        from ..harness.workers import Workers
        from ..system.provenance import choose_device

        if self.in_process:
            return Workers(1, 1)
        return Workers.for_jobs(jobs, self.workers, choose_device(self.device).type != "cpu")


def run_all(jobs: Sequence[Job], bars: Bars, place: Place) -> list[Path | Failure]:
    """The cells of all jobs, several of these side by side; what fails is said, and the others go on."""
    from ..harness.workers import side_by_side

    with bars.all_of(len(jobs)) as advance:
        if place.executor == "ray":
            return _on_ray(jobs, bars, place, advance)
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


def _on_ray(jobs: Sequence[Job], bars: Bars, place: Place, advance: Callable[[], None]) -> list[Path | Failure]:
    """Paths mean there what they mean here."""
    from ..harness.on_ray import Cluster, Named, run_on_ray

    gpus = place.gpus_per_worker if place.gpus_per_worker is not None else float(place.device.startswith("cuda"))
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is of nested regions
    threads = max(int(first), 1) if first.isdecimal() else 1
    cluster = Cluster(place.address, place.workers, threads, gpus)
    work = [Named(job.work, job.chosen.name) for job in jobs]
    return run_on_ray(work, cluster, bars, place.cell_timeout, advance)


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
