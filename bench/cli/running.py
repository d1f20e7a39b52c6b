"""Jobs are run: one after another, side by side, or on a cluster; what is finished already is not begun."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UserError
from ..harness import process
from ..harness.process import Failure
from .jobs import Job
from .look import Listed, is_done

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ..cells.journal import Keeper
    from ..harness.on_ray import Cluster
    from ..harness.workers import Workers
    from .progress import Bars


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


End = Path | Failure


class Seen(NamedTuple):
    """A job whose cells were looked at."""

    job: Job
    cells: Sequence[Listed | Failure]

    @property
    def is_done(self) -> bool:
        """There is nothing to run."""
        return self.job.request.only_reads and is_done(self.cells)

    @property
    def known(self) -> list[Listed]:
        return [cell for cell in self.cells if isinstance(cell, Listed)]


class _Ends:
    """What comes of every job; a failure is in the journal as soon as it comes."""

    def __init__(self, jobs: Sequence[Seen], keeper: Keeper):
        self._jobs, self._keeper = jobs, keeper
        self._ends: list[list[End]] = [[] for _ in jobs]

    def of(self, number: int, ends: Iterable[End]) -> Iterator[End]:
        """Those of a job, passed on."""
        for end in ends:
            if isinstance(end, Failure):
                self._keeper.failed(end.cell, end.why, self._whose(number, end))
            self._ends[number].append(end)
            yield end

    def take(self, number: int, ends: Iterable[End]) -> None:
        for _ in self.of(number, ends):
            pass

    def all(self) -> list[End]:
        """In the order of the jobs."""
        return [end for ends in self._ends for end in ends]

    def _whose(self, number: int, failure: Failure) -> list[Path]:
        """The folder of the next cell, or those of all where none could be begun."""
        cells, place = self._jobs[number].cells, len(self._ends[number])
        cell = cells[place] if place < len(cells) else None
        if isinstance(cell, Listed) and cell.label == failure.cell:
            return [cell.folder]
        return [cell.folder for cell in self._jobs[number].known]


def run_all(jobs: Sequence[Seen], bars: Bars, place: Place, at_once: Workers, keeper: Keeper) -> list[End]:
    """The cells of all jobs, several of these side by side; what fails is said, and the others go on."""
    ends = _Ends(jobs, keeper)
    left = [number for number, job in enumerate(jobs) if not job.is_done]
    for number in sorted({*range(len(jobs))} - {*left}):
        for cell in jobs[number].known:
            bars.already_there(cell.label)
        ends.take(number, [cell.folder for cell in jobs[number].known])
    if left:
        with bars.all_of(len(left)) as advance:
            _run([(number, jobs[number].job) for number in left], bars, place, at_once, ends, advance)
    return ends.all()


def _run(
    jobs: Sequence[tuple[int, Job]],
    bars: Bars,
    place: Place,
    workers: Workers,
    ends: _Ends,
    advance: Callable[[], None],
) -> None:
    from ..harness.workers import side_by_side

    if place.executor == "ray":
        _on_ray(jobs, bars, place, ends, advance)
        return
    if place.in_process:
        for number, job in jobs:
            ends.take(number, _in_this_process(job, bars))
            advance()
        return
    if workers.at_once > 1:
        bars.tell(f"{workers.at_once} detectors or categories side by side, threads of each: {workers.threads}")

    def run(number: int, job: Job, stop: Connection) -> Iterator[End]:
        there = process.run_cells(job.work, job.chosen.name, bars, place.cell_timeout, workers.threads, stop)
        return ends.of(number, there)

    side_by_side([partial(run, *one) for one in jobs], workers.at_once, advance)


def cluster_of(place: Place) -> Cluster:
    """What each task takes: so many cores as torch has threads."""
    from ..harness.on_ray import Cluster

    gpus = place.gpus_per_worker if place.gpus_per_worker is not None else float(place.device.startswith("cuda"))
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is of nested regions
    return Cluster(place.address, place.workers, max(int(first), 1) if first.isdecimal() else 1, gpus)


def _on_ray(
    jobs: Sequence[tuple[int, Job]], bars: Bars, place: Place, ends: _Ends, advance: Callable[[], None]
) -> None:
    """Paths mean there what they mean here."""
    from ..harness.on_ray import Named, run_on_ray

    def done(place_in_list: int, some: Sequence[End]) -> None:
        ends.take(jobs[place_in_list][0], some)
        advance()

    tasks = [Named(job.work, job.chosen.name) for _, job in jobs]
    run_on_ray(tasks, cluster_of(place), bars, place.cell_timeout, done)


def _in_this_process(job: Job, bars: Bars) -> Iterator[End]:
    for label, run in job.cells(bars.fit(job.chosen.name), bars.tell):
        try:
            with bars.cell(label) as monitor:
                yield run(monitor)
        except UserError as error:
            yield Failure(label, str(error))
