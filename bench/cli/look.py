"""The cells of jobs, and how far each of them is, before any of them runs."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..analysis.costs import detector_key
from ..cells.spec import RunSpec
from ..cells.state import State
from ..core.progress import Progress, to_log
from ..errors import UserError
from ..harness import process
from ..harness.process import Failure
from .jobs import Job

if TYPE_CHECKING:
    from ..core.data import Data
    from ..harness.asked import Asked
    from ..harness.timing import Pace, Spent


class Listed(NamedTuple):
    """A cell of a job."""

    label: str
    spec: RunSpec
    folder: Path
    state: State
    spent: tuple[Spent | None, Spent | None] = (None, None)
    """What the attack says that it spends on a detector that draws no noise, and on one that does."""


class Look:
    """Looks at jobs; those of one category that follow each other share its images."""

    def __init__(self) -> None:
        self._images: object = None
        self._bed: Data | None = None

    def at(self, job: Job) -> Iterator[Listed | Failure]:
        """The cells of a job in their order; one that cannot be looked at, or the job, fails."""
        at = f"{job.chosen.name} on {job.category}"
        try:
            for at, plan in job.plans(Progress(), to_log, self._bed_of(job)):
                try:
                    yield _listed(at, plan())
                except UserError as error:
                    yield Failure(at, str(error))
        except UserError as error:
            yield Failure(at, str(error))

    def _bed_of(self, job: Job) -> Data:
        images = job.request.images(job.category)
        if self._bed is None or images != self._images:
            self._images, self._bed = images, job.request.bed(job.category)
        return self._bed


def _listed(label: str, asked: Asked) -> Listed:
    from ..harness.timing import spent

    cell, data, _, method = asked
    assert cell.folder is not None
    passes = [spent(method, cell.spec, len(data.test), randomized) for randomized in (False, True)]
    return Listed(label, cell.spec, cell.folder, cell.state(data), (passes[0], passes[1]))


def paces(jobs: Sequence[Job], in_process: bool, patience: float | None) -> list[dict[Hashable, Pace]]:
    """Of the detectors of each job whose fits are kept, by `Costs.of_detector`; timed in a process of its own."""
    if in_process:
        return list(_paces(jobs))
    found: list[dict[Hashable, Pace]] = []
    while len(found) < len(jobs):
        try:
            for one in process.each(_paces, jobs[len(found) :], patience=patience):
                found.append(one)
        except UserError:
            found.append({})  # what it takes is not known then
    return found[: len(jobs)]


def _paces(jobs: Sequence[Job]) -> Iterator[dict[Hashable, Pace]]:
    from ..harness.timing import pace_of

    for job in jobs:
        found: dict[Hashable, Pace] = {}
        bed = job.request.bed(job.category)
        for spec in job.request.specs(job.chosen.name, job.chosen.given, Progress(), to_log):
            with contextlib.suppress(UserError):
                if pace := pace_of(spec, bed, job.request.batch_size):
                    found[detector_key(spec.label, spec.changed, bed.image_size)] = pace
        yield found


def look_at(jobs: Sequence[Job], in_process: bool, patience: float | None) -> list[list[Listed | Failure]]:
    """The cells of every job, found out in a process of its own: what a plug-in breaks there costs its own job.

    patience: seconds for each job. in_process: no process is wanted.
    """
    if in_process:
        return list(_seen(jobs))
    found: list[list[Listed | Failure]] = []
    while len(found) < len(jobs):
        try:
            for cells in process.each(_seen, jobs[len(found) :], patience=patience):
                found.append(cells)
        except UserError as error:
            if len(found) < len(jobs):  # its end is nobody's loss
                job = jobs[len(found)]
                found.append([Failure(f"{job.chosen.name} on {job.category}", str(error))])
    return found


def is_done(cells: Iterable[Listed | Failure]) -> bool:
    """Every one of them is there, and would only be read."""
    return all(isinstance(cell, Listed) and cell.state.finished and not cell.state.works for cell in cells)


def _seen(jobs: Sequence[Job]) -> Iterator[list[Listed | Failure]]:
    look = Look()
    for job in jobs:
        yield list(look.at(job))
