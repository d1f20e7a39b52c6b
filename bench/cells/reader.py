"""Finished cells of a results folder, by column: read once, no model loaded."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from ..errors import UserError
from ..system.files import at_home
from .bracket import compare_bounds
from .filters import Filters
from .record import folders_of_cells, read_record, unchanged_samples
from .result import Result
from .rows import Table
from .schema import FinishedRecord, Record, beyond_budget, wrong_rows
from .submission import CellLocation, cells_of_submission, submissions_below
from .text_table import TextTable, html, rich_table

if TYPE_CHECKING:
    from rich.console import Group


REPR_SHOWN = 3  # cells


class Results(NamedTuple):
    """What lies below a results folder."""

    results: list[Result]
    notes: list[str]
    """A sentence for each cell that is not finished."""
    damaged: list[str]
    """A sentence for each cell that cannot be read: changed, cut short, or written by another version."""

    def __repr__(self) -> str:
        count = len(self.results)
        first = [f"Results({_counted(self.results)}, {len(self.notes)} unfinished, {len(self.damaged)} left out)"]
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
    if found.results:
        return found
    if chosen is not None and (every := find_cells(root).results):
        raise chosen.kept_nothing(every)
    why = [*found.damaged, *found.notes]
    raise UserError(f"no finished results in {root}" + (f"; {why[0]}" if why else "; `bench run` makes some"))


def find_cells(root: Path, filters: Filters | None = None) -> Results:
    """As `read_results`, but none is no error.

    Filters choose among cells that were all read: an attack that a certificate contradicts, and the certificate, lose
    their rank whether or not the other one is shown, and a cell that is there twice is an error in every report.
    """
    found, known = Results([], [], []), dict[tuple[str, ...], tuple[str, ...]]()
    for place in _places(root, found.damaged):
        folder = place.folder
        try:
            record = read_record(folder)
            if not isinstance(record, FinishedRecord):
                if filters is None or filters.keep(record):
                    found.notes.append(_unfinished(place, record))
                continue
            table = Table.from_csv(unchanged_samples(folder, record), folder / "samples.csv")
            if wrong := wrong_rows(table, record) or beyond_budget(table, record):
                raise UserError(f"{folder}: {wrong}")
        except UserError as error:
            found.damaged.append(f"left out: {str(error).replace(str(folder), place.name)}")
            continue
        ids = known.setdefault(table.ids, table.ids)  # cells of a category share them
        found.results.append(Result(folder, record, table._replace(ids=ids), place.source, place.inside))
    results = refuse_twins(found.results, found.damaged)
    compare_bounds(results)
    found.results[:] = [r for r in results if filters is None or filters.keep(r.record)]
    return found


def _unfinished(place: CellLocation, record: Record) -> str:
    total = record.data.normal + record.data.anomalous
    return f"unfinished: {place.name} ({record.rows} of {total} images); the same `bench run` goes on with it"


def _places(root: Path, damaged: list[str]) -> list[CellLocation]:
    """Of the cells below a folder, our own first, and of the submissions that lie there."""
    found = [CellLocation(folder) for folder in folders_of_cells(root)]
    submissions = submissions_below(root)
    if submissions:
        for path in submissions:
            try:
                found += cells_of_submission(path, path.relative_to(root).as_posix())
            except UserError as error:
                damaged.append(f"left out: {error}")
    return found


def refuse_twins(results: Sequence[Result], damaged: list[str]) -> list[Result]:
    """The results without repeated cells: of those with equal spec and rows one, our own if there is one.

    Where rows differ, a submission's cell is left out, and `damaged` says so: beside one of our own, or, since nobody
    knows which is right, with the other one. Raises UserError for two of our own, naming both.
    """
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(json.dumps(r.spec.as_json(), sort_keys=True), []).append(r)
    found = []
    for cells in groups.values():
        first = next((r for r in cells if not r.source), cells[0])
        others = [r for r in cells if r.record.samples_sha256 != first.record.samples_sha256]
        for other in others:
            if not other.source:
                raise UserError(differ(first.name, other.name))
            damaged.append(f"left out: {other.name}: the same cell as {first.name} with different rows")
        if first.source and others:
            damaged.append(f"left out: {first.name}: the same cell as {others[0].name} with different rows")
        else:
            found.append(first)
    return found


def differ(one: str, other: str) -> str:
    """What is wrong with two cells of one spec."""
    return f"{one} and {other} are the same cell (equal parameters) with different rows: remove the one that is wrong"


def load_results(path: str | Path = "results", filters: Filters | str | Sequence[str] | None = None) -> pd.DataFrame:
    """Every finished cell below a folder as one tidy row: spec, metrics with `_low` and `_high`, cost, provenance.

    filters: such as "detector=advrad,eps=2/255", or a list of such texts; several values of one key are alternatives.
    Warns of each cell that cannot be read.
    """
    found = read_results(path, filters)
    for sentence in found.damaged:
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
        "checks_failed": "; ".join(check.sentence for check in record.failed),
        "unranked": "; ".join(result.unranked),
        "device": record.device,
        "versions": record.versions,
        "commit": record.git.commit,
        "dirty": record.git.dirty,
        "warnings": "; ".join(result.warnings),
        "folder": str(result.folder),
    }


CELLS_SHOWN, SENTENCES_SHOWN = 12, 6  # of a folder: what fits a screen; metrics of thousands take seconds


def overview(found: Results) -> TextTable:
    """Of a folder: a row per cell, the first CELLS_SHOWN; and the first sentences about what is not among them."""
    rows = [_shown(r) for r in found.results[:CELLS_SHOWN]]
    left = len(found.results) - len(rows)
    below = [f"and {left} more"] * bool(left) + [*found.damaged, *found.notes]
    if (hidden := len(below) - SENTENCES_SHOWN) > 1:
        below = [*below[:SENTENCES_SHOWN], f"and {hidden} more sentences, in .damaged and .notes"]
    return TextTable(_counted(found.results), pd.DataFrame(rows), below)


def _shown(r: Result) -> dict[str, str]:
    score = r.ranked_by.rpartition("_")[2]
    clean, worst = (r.metrics.get(f"{when}_{score}") for when in ("clean", r.claim))
    return {
        "data": f"{r.spec.bed} {r.category}",
        "detector": f"{r.detector} (not ranked)" if r.unranked else r.detector,
        "attack": r.attack,
        "eps": f"{r.spec.norm} {r.spec.eps}",
        "metric": "AUROC" if score == "auroc" else score,
        "clean": "" if clean is None else f"{clean.value:.3f}",
        "worst": "" if worst is None else f"{worst.value:.3f}",
    }


def _counted(results: Sequence[Result]) -> str:
    return f"{len(results)} finished cell" + "s" * (len(results) != 1)
