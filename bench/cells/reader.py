"""Finished cells of a results folder, by column: read once, no model loaded."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from ..errors import UserError
from ..system.files import at_home
from .bracket import compare_bounds
from .filters import Filters
from .limits import Allowance, refuse_unreadable
from .record import folders_of_cells, read_record, unchanged_samples
from .reproduction import Reproduction, reproduction_of
from .result import Result
from .rows import Table
from .schema import FinishedRecord, Record, ScoringRecord, beyond_budget, wrong_rows
from .submission import CellLocation, cells_of_submission, submissions_below
from .text_table import TextTable, html, rich_table

if TYPE_CHECKING:
    from rich.console import Group


REPR_SHOWN = 3  # cells


class Results(NamedTuple):
    """What lies below a results folder."""

    results: list[Result]
    """Our own, and those of submissions that were reproduced here."""
    notes: list[str]
    """A sentence for each cell that is not finished."""
    damaged: list[str]
    """A sentence for each cell that cannot be read: changed, cut short, or written by another version."""
    submitted: Sequence[Result] = ()
    """Of submissions that nobody has reproduced here: shown apart, and never ranked or compared."""

    def __repr__(self) -> str:
        count = len(self.results)
        apart = f", {len(self.submitted)} submitted" * bool(self.submitted)
        counts = f"{len(self.notes)} unfinished, {len(self.damaged)} left out{apart}"
        first = [f"Results({_counted(self.results)}, {counts})"]
        shown = [f"  {result!r}" for result in self.results[:REPR_SHOWN]]
        return "\n".join([*first, *shown, *[f"  and {count - REPR_SHOWN} more"] * (count > REPR_SHOWN)])

    def _repr_html_(self) -> str:
        return html(overview(self))

    def __rich__(self) -> Group:
        return rich_table(overview(self))


def read_results(root: str | Path, filters: Filters | str | Sequence[str] | None = None) -> Results:
    """Finished cells below `root`, at least one.

    filters: as of `load_results`.
    Raises UserError for a folder that cannot be read, holds no cell that can be, or none that the filters keep, and
    for two cells that say to be the same and differ.
    """
    root = at_home(root)
    chosen = filters if isinstance(filters, Filters) else Filters(filters) if filters else None
    if not root.exists():
        raise UserError(f"no results in {root}: the folder does not exist; `bench run` makes it")
    if not root.is_dir():
        raise UserError(f"--results {root} is a file; a folder is expected")
    found = find_cells(root, chosen)
    if found.results or found.submitted:
        return found
    if chosen is not None:
        whole = find_cells(root)
        if every := [*whole.results, *whole.submitted]:
            raise chosen.kept_nothing(every)
    why = [*found.damaged, *found.notes]
    raise UserError(f"no finished results in {root}" + (f"; {why[0]}" if why else "; `bench run` makes some"))


def find_cells(root: Path, filters: Filters | None = None) -> Results:
    """As `read_results`, but none is no error.

    Filters choose among cells that were all read: an attack that a certificate contradicts, and the certificate, lose
    their rank whether or not the other one is shown, and a cell that is there twice is an error in every report.
    A cell of a submission that cannot be read, whatever is wrong with it, costs itself and nothing else.
    """
    found = Results([], [], [])
    ids = dict[tuple[str, ...], tuple[str, ...]]()  # cells of a category share them
    everything = [
        replace(r, table=r.table._replace(ids=ids.setdefault(r.table.ids, r.table.ids)))
        for group in _places(root, found)
        for r in _readable(group, filters, found)
    ]
    counted = refuse_twins([r for r in everything if r.standing != "submitted"], found)
    compare_bounds(counted)
    apart = _unlike([r for r in everything if r.standing == "submitted"], counted, found)
    kept = [[r for r in some if filters is None or filters.keep(r.record)] for some in (counted, apart)]
    return found._replace(results=kept[0], submitted=kept[1])


def _readable(group: _Group, filters: Filters | None, found: Results) -> Iterator[Result]:
    """The cells of a group that can be read, and are finished; of others a sentence."""
    allowance = Allowance()
    for place in group.places:
        try:
            result = _read(place, group.reproduction)
            if isinstance(result, str):
                if filters is None or filters.keep(read_record(place.folder)):
                    found.notes.append(result)
                continue
            if place.source:
                allowance.take(result)
                refuse_unreadable(result)
        except Exception as error:  # of a file that somebody made
            if not place.source and not isinstance(error, UserError):
                raise
            found.damaged.append(f"left out: {_why(error, place)}")
            continue
        yield result


def _read(place: CellLocation, reproduction: Reproduction | None) -> Result | str:
    """A cell; a sentence of one that is not finished."""
    folder, record = place.folder, read_record(place.folder)
    if not isinstance(record, FinishedRecord):
        return _unfinished(place, record)
    if place.source and record.kind not in ("attack", "certificate"):
        raise UserError(f"{folder}: cells of kind {record.kind} are not part of submissions")
    table = Table.from_csv(unchanged_samples(folder, record), folder / "samples.csv")
    if wrong := wrong_rows(table, record) or beyond_budget(table, record):
        raise UserError(f"{folder}: {wrong}")
    if not place.source:
        return Result(folder, record, table)
    rerun = reproduction.cells.get(place.inside) if reproduction else None
    if reproduction is None or rerun is None or rerun.verdict != "reproduced":
        return Result(folder, record, table, place.source, place.inside, "submitted")
    if reproduction.other_versions:  # what is shown is what it was reproduced with
        record.versions = reproduction.versions
        record.detector.code, record.attack.code = rerun.detector_code, rerun.attack_code
    return Result(folder, record, table, place.source, place.inside, "reproduced")


def _why(error: Exception, place: CellLocation) -> str:
    """What is wrong with a cell, in one line that names it."""
    text = str(error) if isinstance(error, UserError) else f"it cannot be read ({type(error).__name__})"
    if str(place.folder) in text:
        return text.replace(str(place.folder), place.name)
    return f"{place.name}: {text}"


def _unfinished(place: CellLocation, record: Record) -> str:
    total = record.data.normal + record.data.anomalous
    return f"unfinished: {place.name} ({record.rows} of {total} images); the same `bench run` goes on with it"


class _Group(NamedTuple):
    """Our own cells, or those of one submission."""

    places: list[CellLocation]
    reproduction: Reproduction | None = None


def _places(root: Path, found: Results) -> list[_Group]:
    """Of the cells below a folder, our own first, and of the submissions that lie there."""
    groups = [_Group([CellLocation(folder) for folder in folders_of_cells(root)])]
    for path in submissions_below(root):
        try:
            places = cells_of_submission(path, path.relative_to(root).as_posix())
            reproduction, why = reproduction_of(path, places[0].sha256)
        except UserError as error:
            found.damaged.append(f"left out: {error}")
            continue
        found.notes.extend([f"not counted as reproduced: {why}"] * bool(why))
        groups.append(_Group(places, reproduction))
    return groups


def _unlike(submitted: Sequence[Result], counted: Sequence[Result], found: Results) -> list[Result]:
    """Each cell once: without those that count already, or that say something else of a cell that does."""
    known = {_identity(r): r for r in counted}
    kept: dict[tuple[str, str], Result] = {}
    for r in submitted:
        if (twin := known.get(_identity(r))) is None:
            kept.setdefault((_identity(r), r.record.samples_sha256), r)
        elif twin.record.samples_sha256 != r.record.samples_sha256:
            found.damaged.append(f"left out: {r.name}: the same cell as {twin.name} with different rows")
    return list(kept.values())


def _identity(r: Result) -> str:
    return json.dumps(r.spec.as_json(), sort_keys=True)


def refuse_twins(results: Sequence[Result], said: Results) -> list[Result]:
    """The results without repeated cells: of those with equal spec and rows one, our own if there is one.

    Where rows differ, a submission's cell is left out beside one of our own, which `said.damaged` says; of two that
    were both reproduced the second one, which is a note. Raises UserError for two of our own, naming both.
    """
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(_identity(r), []).append(r)
    found = []
    for cells in groups.values():
        first = next((r for r in cells if not r.source), cells[0])
        for other in cells:
            if other.record.samples_sha256 == first.record.samples_sha256:
                continue
            if not other.source:
                raise UserError(differ(first.name, other.name))
            both = f"left out: {other.name}: the same cell as {first.name} with different rows"
            if first.source:
                said.notes.append(f"{both}, both reproduced")
            else:
                said.damaged.append(both)
        found.append(first)
    return found


def differ(one: str, other: str) -> str:
    """What is wrong with two cells of one spec."""
    return f"{one} and {other} are the same cell (equal parameters) with different rows: remove the one that is wrong"


def load_results(path: str | Path = "results", filters: Filters | str | Sequence[str] | None = None) -> pd.DataFrame:
    """Every finished cell below a folder as one tidy row: spec, metrics with `_low` and `_high`, cost, provenance.

    filters: such as "detector=advrad,eps=2/255", or a list of such texts; several values of one key are alternatives.
    Warns of each cell that cannot be read, and of submissions that nobody has reproduced, which are not among them
    (`bench.read_results(path).submitted` has them).
    """
    found = read_results(path, filters)
    apart = [f"{len(found.submitted)} submitted cells are left out: nobody has reproduced them here"]
    for sentence in [*found.damaged, *apart * bool(found.submitted)]:
        warnings.warn(sentence, stacklevel=2)
    return tidy(found.results)


def tidy(results: Sequence[Result]) -> pd.DataFrame:
    """A row per cell."""
    return pd.DataFrame([_tidy(result) for result in results])


def _tidy(result: Result) -> dict[str, Any]:
    spec, record = result.spec, result.record
    row: dict[str, Any] = {
        "dataset": spec.dataset,
        "category": spec.category,
        "image_size": spec.image_size,
        "detector": spec.detector,
        "detector_parameters": record.detector.parameters,
        "kind": record.kind,
        "attack": spec.attack,
        "attack_parameters": record.attack.parameters,
        "norm": spec.norm,
        "eps": float(result.eps),
        "eps_text": spec.eps,
        "targets": spec.targets,
        "goal": spec.goal,
        "seed": spec.seed,
        "dataset_version": spec.dataset_version,
        "protocol": spec.protocol,
        "source": result.source,
        "standing": result.standing,
        "normal": record.data.normal,
        "anomalous": record.data.anomalous,
    }
    for name in result.metrics:
        value = result.metrics.estimate(name)
        row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return row | {
        "threshold": record.threshold.value,
        "forwards": record.forwards,
        "backwards": record.backwards,
        "seconds": record.seconds,
        "fit_seconds": None if record.detector.fit is None else record.detector.fit.seconds,
        "checks_seconds": record.checks_seconds,
        "peak_memory_mib": record.peak_memory,
        "weights": record.detector.weights,
        **_scoring(record.scoring),
        "checks_failed": "; ".join(check.sentence for check in record.failed),
        "unranked": "; ".join(result.unranked),
        "device": record.device,
        "versions": record.versions,
        "commit": record.git.commit,
        "dirty": record.git.dirty,
        "warnings": "; ".join(result.warnings),
        "folder": str(result.folder),
    }


def _scoring(cost: ScoringRecord | None) -> dict[str, Any]:
    return {
        "ms_1": None if cost is None else cost.ms_1,
        "ms_32": None if cost is None else cost.ms_32,
        "score_memory_mib": None if cost is None else cost.memory,
        "disk_mib": None if cost is None else cost.disk / 2**20,
    }


CELLS_SHOWN, SENTENCES_SHOWN = 12, 6  # of a folder: what fits a screen; metrics of thousands take seconds


def overview(found: Results) -> TextTable:
    """Of a folder: a row per cell, the first CELLS_SHOWN; and the first sentences about what is not among them."""
    rows = [_shown(r) for r in found.results[:CELLS_SHOWN]]
    left = len(found.results) - len(rows)
    apart = [f"{len(found.submitted)} submitted cells, not reproduced: in .submitted"] * bool(found.submitted)
    below = [f"and {left} more"] * bool(left) + [*apart, *found.damaged, *found.notes]
    if (hidden := len(below) - SENTENCES_SHOWN) > 1:
        below = [*below[:SENTENCES_SHOWN], f"and {hidden} more sentences, in .damaged and .notes"]
    return TextTable(_counted(found.results), pd.DataFrame(rows), below)


def _shown(r: Result) -> dict[str, str]:
    score = r.score_name
    clean, worst = (r.metrics.get(f"{when}_{score}") for when in ("clean", r.claim))
    return {
        "data": f"{r.spec.bed} {r.category}",
        "detector": f"{r.detector} (not ranked)" if r.unranked else r.detector,
        "attack": r.attack,
        "eps": f"{r.spec.norm} {r.spec.eps}",
        "metric": "AUROC" if score == "auroc" else score.replace("_auroc", " AUROC").replace("_", " "),
        "clean": "" if clean is None else f"{clean.value:.3f}",
        "worst": "" if worst is None else f"{worst.value:.3f}",
    }


def _counted(results: Sequence[Result]) -> str:
    return f"{len(results)} finished cell" + "s" * (len(results) != 1)
