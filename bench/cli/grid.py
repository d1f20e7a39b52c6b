"""What `run` and `certify` share: detectors times categories, prepared before any work, and what is said at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ..errors import UserError
from .common import (
    DEVICE,
    RESULTS,
    Request,
    assignments,
    complain,
    console,
    known,
    names,
    option,
    place,
    share_out,
    together,
    whole,
)

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec
    from .progress import Bars

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class GridRequest(Request):
    """Detectors, images, and where the cells go."""

    detectors: tuple[str, ...]
    """As typed; `all` stands for every one."""
    params: Mapping[str, str]
    dataset: str
    categories: tuple[str, ...]
    """Or ("all",)."""
    data_root: Path | None
    image_size: int | None
    """In pixels; None is the data set's own."""
    targets: str
    goal: str
    seed: int
    limit: int | None
    batch_size: int | None
    device: str
    results: Path
    force: bool


images_and_place = together(
    option("--dataset", default="textures", show_default=True, metavar="NAME", shell_complete=known("datasets"),
           help="a name (`bench list datasets`) or path/to/mine.py"),
    option("--category", "categories", default=ALL, show_default=True, callback=names, metavar="C[,C2..]"),
    option("--data-root", type=click.Path(), callback=place, metavar="DIR",
           help="folder of the images; nothing is downloaded"),
    option("--image-size", callback=whole(), metavar="N", help="side in pixels  [default: the data set's]"),
    option("--targets", type=click.Choice(("both", "normal", "anomalous")), default="both", show_default=True,
           help="test images the adversary controls"),
    option("--param", "params", multiple=True, callback=assignments, metavar="K=V",
           help="of the detectors that have it; DETECTOR.K=V, or OUTER.K=V, for one (repeatable)"),
    option("--seed", default="0", show_default=True, callback=whole(), metavar="S"),
    option("--limit", callback=whole(), metavar="N", help="at most N test images, both classes in proportion"),
    option("--batch-size", callback=whole(1), metavar="N",
           help="changes speed and memory, not results  [default: 32 up to 128 px, fewer above]"),
    DEVICE,
    RESULTS,
    click.option("--force", is_flag=True, help="redo finished cells"),
)  # fmt: skip


class Failure(NamedTuple):
    """A cell that has no result, and why."""

    cell: str
    why: str


def refuse_what_cannot_be_used(request: GridRequest) -> None:
    """A device, or a results folder; from here on, freed memory is kept."""
    from ..system.memory import keep_freed_memory
    from ..system.provenance import choose_device

    keep_freed_memory()
    choose_device(request.device)
    there = next(path for path in (request.results, *request.results.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"--results {request.results}: {there} is a file; a folder is expected")


def detectors_of(request: GridRequest, typed: Sequence[str], bars: Bars, outer: str = "") -> list[DetectorSpec]:
    """The detectors with their parameters; a parameter goes to every detector that has it, and to one at least.

    outer: goes in front of those that `all` stands for.
    """
    from ..plugins.fitting import DetectorSpec
    from .progress import FitBar

    chosen = _every(typed, request.device, bars, outer) if ALL in typed else list(typed)
    given: dict[str, dict[str, str]] = {name: {} for name in chosen}
    specs = {
        name: DetectorSpec(name, given[name], request.seed, request.device, FitBar(bars, name), bars.tell)
        for name in chosen
    }
    accepted = {name: spec.accepted for name, spec in specs.items()}  # an unknown name is said first
    owners = [part.plugin.name for spec in specs.values() for part in spec.parts]
    for name, share in share_out("--param", request.params, accepted, owners).items():
        given[name].update(share)
    for name, spec in specs.items():
        try:
            spec.build()  # a parameter out of range is said now
        except UserError:
            if name in typed:
                raise
            # of `all`, one that cannot be built is reported with its cells
    return list(specs.values())


def _every(typed: Sequence[str], device: str, bars: Bars, outer: str) -> list[str]:
    """What `all` stands for on this device, and what was named beside it."""
    from ..plugins import registry
    from ..system.provenance import choose_device

    gpu = choose_device(device).type != "cpu"
    every = [row for row in registry.listing("detectors") if not row.wraps]
    fit = [outer + row.name for row in every if gpu or "GPU" not in row.needs]
    chosen = list(dict.fromkeys([*fit, *(name for name in typed if name != ALL)]))
    if left := [row.name for row in every if outer + row.name not in chosen]:
        bars.tell(f"left out on a CPU: {', '.join(left)} (name them to run them nevertheless)")
    return chosen


def beds_of(request: GridRequest, threats: Iterable[ThreatModel] = (), option: str = "--eps") -> list[Data]:
    """The categories that were asked for, on which each of the threat models means something."""
    from ..plugins.lookup import categories, load_data

    every = categories(request.dataset, request.data_root)
    wanted = every if request.categories == (ALL,) else request.categories
    beds = [
        load_data(request.dataset, category=name, root=request.data_root, image_size=request.image_size)
        for name in wanted
    ]
    threats = list(threats)
    for bed in beds:
        bed.limited(request.limit)
        for threat in threats:
            threat.refuse_longer(bed.image_size, option)
    return beds


def said_at_the_end(cells: Sequence[Path | Failure], results: Path) -> int:
    """The table of the finished cells, each reason for a failure once, and the exit code.

    cells: the folders of those that are finished, and those that are not.
    """
    _show([folder for folder in cells if isinstance(folder, Path)], results)
    failures = [failure for failure in cells if isinstance(failure, Failure)]
    cells_of: dict[str, list[str]] = {}
    for cell, why in failures:
        cells_of.setdefault(why, []).append(cell)
    for why, which in cells_of.items():
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
