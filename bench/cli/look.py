"""The cells of jobs, and how far each of them is, before any of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..cells.spec import RunSpec
from ..cells.state import State
from ..core.progress import Progress, to_log
from ..errors import UserError
from ..harness import process
from ..harness.process import Failure
from .jobs import Job


class Listed(NamedTuple):
    """A cell of a job."""

    label: str
    spec: RunSpec
    folder: Path
    state: State


def listed(job: Job) -> Iterator[Listed | Failure]:
    """The cells of a job in their order; one that cannot be looked at, or the job, fails."""
    at = f"{job.chosen.name} on {job.category}"
    try:
        for at, plan in job.plans(Progress(), to_log):
            try:
                cell, data, *_ = plan()
                assert cell.folder is not None
                yield Listed(at, cell.spec, cell.folder, cell.state(data))
            except UserError as error:
                yield Failure(at, str(error))
    except UserError as error:
        yield Failure(at, str(error))


def look_at(jobs: Sequence[Job], in_process: bool, patience: float | None) -> list[list[Listed | Failure]]:
    """The cells of every job, found out in a process of its own: what a plug-in breaks there costs its own job.

    patience: seconds for each job. in_process: no process is wanted.
    """
    if in_process:
        return [list(listed(job)) for job in jobs]
    found: list[list[Listed | Failure]] = []
    while len(found) < len(jobs):
        try:
            found.extend(process.each(_listed, jobs[len(found) :], patience=patience))
        except UserError as error:
            job = jobs[len(found)]
            found.append([Failure(f"{job.chosen.name} on {job.category}", str(error))])
    return found


def is_done(cells: Iterable[Listed | Failure]) -> bool:
    """Every one of them is there, and would only be read."""
    return all(isinstance(cell, Listed) and cell.state.finished and not cell.state.works for cell in cells)


def _listed(jobs: Sequence[Job]) -> Iterator[list[Listed | Failure]]:
    for job in jobs:
        yield list(listed(job))
