"""What `run` and `certify` share: detectors times categories, prepared before any work, and what is said at the end.

Whatever is not ours is imported in processes of its own (harness/process.py): it may end them, and not the run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import click

from ..core.exact import read_number
from ..errors import UserError
from .common import (
    DEVICE,
    RESULTS,
    assignments,
    known,
    named,
    names,
    option,
    place,
    share_out,
    together,
    whole,
)
from .jobs import Chosen, Job, Plan
from .work import WorkRequest

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.progress import Progress, Tell
    from ..core.threat import ThreatModel
    from ..harness.process import Failure
    from ..plugins.fitting import DetectorSpec
    from .progress import Bars

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class GridRequest(WorkRequest):
    """Detectors, images, and where the cells go."""

    detectors: tuple[str, ...]
    """As typed; `all` stands for every one."""
    params: Mapping[str, str]
    dataset: str
    categories: tuple[str, ...]
    """Or ("all",)."""
    image_size: int | None
    """In pixels; None is the data set's own."""
    targets: str
    goal: str
    seed: int
    limit: int | None
    threshold_folds: int | None

    budget: ClassVar = "--eps"
    """The option that sets the size of the balls."""
    outer: ClassVar = ""
    """Goes in front of the detectors that `all` stands for."""

    @property
    def only_reads(self) -> bool:
        """Of a finished cell nothing is made again, and nothing is looked for."""
        return not self.force

    def jobs(self, bars: Bars) -> tuple[list[Job], list[Failure]]:
        """Every detector on every category, the detectors of a category one after another."""
        planned = tuple(self.planned())
        detectors = list(detectors_of(self, self.typed(), bars))
        categories = categories_of(self, planned)
        able = [chosen for chosen in detectors if not chosen.failure]
        jobs = [Job(self, chosen, category, planned) for category in categories for chosen in able]
        return jobs, [chosen.failure for chosen in detectors if chosen.failure]

    def typed(self) -> list[str]:
        """The detectors; `all` stays as it is."""
        return list(self.detectors)

    def bed(self, category: str) -> Data:
        """The images of a category."""
        from ..plugins.lookup import load_data

        return load_data(self.dataset, category=category, root=self.data_root, image_size=self.image_size)

    def images(self, category: str) -> tuple[object, ...]:
        """What the bed is of."""
        return self.dataset, self.data_root, self.image_size, category

    @abstractmethod
    def planned(self) -> Sequence[Any]:
        """What is to be done with every detector on every category, the smaller balls first. Raises UserError."""

    @abstractmethod
    def threats(self, planned: Sequence[Any]) -> list[ThreatModel]:
        """Of `planned`."""

    @abstractmethod
    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]:
        """What a name stands for, with its parameters."""

    @abstractmethod
    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Any]) -> Iterator[Plan]:
        """Of one detector on one category."""


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    seconds = read_number(text)
    if seconds is None or seconds <= 0:
        raise UserError(f"--cell-timeout {text} must be a number of seconds above 0")
    return float(seconds)


def _share(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    share = read_number(text)
    if share is None or share < 0:
        raise UserError(f"--gpus-per-worker {text} must be a number from 0 on, such as 0.5")
    return float(share)


# fmt: off
_images = (
    option("--dataset", default="textures", show_default=True, metavar="NAME", shell_complete=known("datasets"),
           help="a name (`bench list datasets`) or path/to/mine.py"),
    option("--category", "categories", default=ALL, show_default=True, callback=names, metavar="C[,C2..]"),
    option("--data-root", type=click.Path(), callback=place, metavar="DIR",
           help="folder of the images; nothing is downloaded"),
    option("--image-size", callback=whole(), metavar="N", help="side in pixels  [default: the data set's]"),
)
_targets = option("--targets", type=click.Choice(("both", "normal", "anomalous")), default="both", show_default=True,
                  help="test images the adversary controls")
_rest = (
    option("--param", "params", multiple=True, callback=assignments, metavar="K=V",
           help="of the detectors that have it; DETECTOR.K=V, or OUTER.K=V, for one (repeatable)"),
    option("--seed", default="0", show_default=True, callback=whole(), metavar="S"),
    option("--limit", callback=whole(), metavar="N",
           help="at most N test images, every class and kind of defect in proportion"),
    option("--threshold-folds", callback=whole(2), metavar="K",
           help="fit K detectors, each with other normal images held out, and set the threshold on all of those  "
           "[default: on those held out of the one that is tested]"),
    option("--batch-size", callback=whole(1), metavar="N",
           help="changes speed and memory, not results  [default: 32 up to 128 px, fewer above]"),
    DEVICE,
    RESULTS,
    click.option("--force", is_flag=True, help="redo finished cells"),
    option("--workers", callback=whole(1), metavar="N",
           help="detectors and categories that run side by side, each in its process  [default: one a core; on a GPU "
           "one]"),
    click.option("--executor", type=click.Choice(("local", "ray")), default="local", show_default=True,
                 help="processes of this machine, or tasks of a Ray cluster (docs/suites.md)"),
    option("--address", metavar="ADDRESS",
           help="of a running Ray cluster, or auto  [default: one of this machine, for this run]"),
    option("--gpus-per-worker", callback=_share, metavar="F",
           help="that each Ray task takes, also 0.25  [default: 1 with --device cuda, else 0]"),
    click.option("--dry-run", is_flag=True,
                 help="only list the cells, how far they are, and what is left by the records of earlier runs"),
    option("--cell-timeout", callback=_seconds, metavar="SECONDS",
           help="a cell that takes longer, its fit included, is stopped and fails  [default: none]"),
    click.option("--in-process", is_flag=True,
                 help="no process per detector: for a debugger; a detector that ends its process ends the run"),
)
# fmt: on
images_and_place = together(*_images, _targets, *_rest)
grid_options = together(*_images, *_rest)
"""Where nobody attacks."""


class _Known(NamedTuple):
    """What must be known of a detector before its cells."""

    accepted: frozenset[str]
    """Names of its parameters; those that it cannot say are nobody's."""
    owners: tuple[str, ...] = ()
    """Names of its parts."""
    failure: str = ""


def detectors_of(request: GridRequest, typed: Sequence[str], bars: Bars) -> Iterator[Chosen]:
    """The detectors with their parameters; a parameter goes to every detector that has it, and to one at least.

    Others than ours are built, elsewhere, and what cannot be has failed; of ours see `refuse_what_cannot_be_built`.
    """
    from ..harness.process import Failure
    from ..plugins.fitting import is_foreign

    chosen = _every(typed, request.device, bars, request.outer) if ALL in typed else list(typed)
    foreign = {name: is_foreign(name) for name in chosen}
    known = {name: _known(name) for name in chosen if not foreign[name]}  # an unknown name is said first
    known |= {name: _tried(request, name) for name in chosen if foreign[name]}
    given = _shares(request, {name: known[name] for name in chosen})
    for name in chosen:
        if why := known[name].failure:
            yield Chosen(name, {}, Failure(name, why, name))
        else:
            yield Chosen(name, given[name], to_be_built=not foreign[name] and name in typed)


def _shares(request: GridRequest, known: Mapping[str, _Known]) -> Mapping[str, Mapping[str, str]]:
    """Detector -> its parameters. One that could not be imported may be the one that has a parameter."""
    accepted = {name: one.accepted for name, one in known.items()}
    given = request.params
    if any(one.failure for one in known.values()):
        given = {key: value for key, value in given.items() if any(key in keys for keys in accepted.values())}
    return share_out("--param", given, accepted, [owner for one in known.values() for owner in one.owners])


def _known(name: str) -> _Known:
    from ..plugins.fitting import DetectorSpec

    spec = DetectorSpec(name)
    return _Known(frozenset(spec.accepted), tuple(part.plugin.name for part in spec.parts))


def _tried(request: GridRequest, name: str) -> _Known:
    """Of a detector that is not ours: imported and built elsewhere."""
    try:
        known: _Known = elsewhere(request, "detector", _built, request, name)
    except UserError as error:
        return _Known(frozenset(), failure=str(error))
    return known


def _built(request: GridRequest, name: str) -> _Known:
    """What is known once it was built with those parameters that it has."""
    from ..core.progress import Progress, to_log

    known = _known(name)
    given = {key: value for key, value in request.params.items() if key in known.accepted}
    try:
        request.specs(name, given, Progress(), to_log)[0].build()
    except UserError as error:
        return known._replace(failure=str(error))
    return known


def elsewhere(request: WorkRequest, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, in a process of its own unless one is not wanted.

    Raises UserError if it does, or if `what` is broken.
    """
    if request.in_process:
        return function(*arguments)
    from ..harness.process import ask

    with named(what):
        return ask(function, *arguments, patience=request.cell_timeout)


def _every(typed: Sequence[str], device: str, bars: Bars, outer: str) -> list[str]:
    """What `all` stands for on this device, and what was named beside it."""
    from ..plugins import registry
    from ..system.provenance import choose_device

    gpu = choose_device(device).type != "cpu"
    every = [row for row in registry.listing("detectors") if not row.wraps and "file" not in row.needs]
    fit = [outer + row.name for row in every if gpu or "GPU" not in row.needs]
    chosen = list(dict.fromkeys([*fit, *(name for name in typed if name != ALL)]))
    if left := [row.name for row in every if outer + row.name not in chosen]:
        bars.tell(f"left out on a CPU: {', '.join(left)} (name them to run them nevertheless)")
    return chosen


def categories_of(request: GridRequest, planned: Sequence[Any]) -> list[str]:
    """Those that were asked for, on which each of the threat models means something."""
    from ..plugins import registry

    threats = request.threats(planned)
    if registry.is_foreign("datasets", request.dataset):
        found: list[str] = elsewhere(request, request.dataset, _categories, request, threats)
        return found
    return _categories(request, threats)


def _categories(request: GridRequest, threats: Iterable[ThreatModel]) -> list[str]:
    return [bed.category for bed in beds_of(request, threats)]


def beds_of(request: GridRequest, threats: Iterable[ThreatModel] = ()) -> list[Data]:
    """The categories that were asked for. Raises UserError where one of the threat models means nothing there."""
    from ..plugins.lookup import categories

    every = categories(request.dataset, request.data_root)
    wanted = every if request.categories == (ALL,) else request.categories
    beds = [request.bed(name) for name in wanted]
    threats = list(threats)
    for bed in beds:
        bed.limited(request.limit)
        for threat in threats:
            threat.refuse_longer(bed.image_size, request.budget)
    return beds
