"""Jobs of a grid: a detector on a category, with all that is to be done there, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.progress import Monitor, Progress, Tell
    from ..harness.asked import Asked
    from ..harness.process import Failure
    from ..harness.protocol import Cell, Reports
    from ..plugins.fitting import DetectorSpec


class Chosen(NamedTuple):
    """A detector of a run."""

    name: str
    """As typed."""
    given: Mapping[str, str]
    """Its parameters."""
    failure: Failure | None = None
    """It has no cells, and why."""
    to_be_built: bool = False
    """Nobody has looked whether it can be, and if not, nothing is begun."""


Plan = tuple[str, "Callable[[], Asked]"]
"""The name of a cell, and what it is; UserError where it cannot be made."""


class Request(Protocol):
    """What somebody has asked for, as far as a job needs it. It can be pickled."""

    @property
    def batch_size(self) -> int | None: ...
    @property
    def force(self) -> bool: ...
    @property
    def only_reads(self) -> bool:
        """Of a finished cell nothing is made again, and nothing is looked for."""
        ...

    def bed(self, category: str) -> Data: ...

    def images(self, category: str) -> Hashable:
        """Requests that say the same of a category have the same bed."""
        ...

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]: ...

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Any]) -> Iterator[Plan]: ...


class Job(NamedTuple):
    """All that is asked of one detector on one category."""

    request: Request
    chosen: Chosen
    category: str
    planned: Sequence[Any]

    def plans(self, progress: Progress, tell: Tell, bed: Data | None = None) -> Iterator[Plan]:
        """bed: that of the request, if it is there."""
        bed = bed or self.request.bed(self.category)
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


def refuse_what_cannot_be_built(jobs: Iterable[Job]) -> None:
    """A UserError of a parameter that is out of range, before any work; of `all`, one is reported with its cells."""
    from ..core.progress import Progress, to_log

    built = set[tuple[str, str]]()
    for job in jobs:
        key = (job.chosen.name, repr(sorted(job.chosen.given.items())))
        if job.chosen.to_be_built and key not in built:
            job.request.specs(job.chosen.name, job.chosen.given, Progress(), to_log)[0].build()
            built.add(key)
