"""report/index.html: the whole leaderboard in one file that needs no network.

Everything that is text is rendered here, by Jinja2; tables are DataTables and figures Plotly, shipped in bench/assets.
The pages of detectors and cells lie compressed in the file, and are unpacked when it is opened.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..analysis.boards import COSTS_SHOWN, Board, boards, estimate_of
from ..analysis.overview import differing, overviews
from ..cells.bracket import brackets, broken_brackets
from ..cells.reader import Results
from ..cells.result import Result
from ..checks.explanations import EXPLAINED
from ..system import files
from .commands import balls_of, checking, command_of
from .figures import figures
from .figures._plotly import Figure
from .figures.distributions import distribution
from .figures.robustness import of_detector
from .gallery import gallery
from .wording import FOOTNOTES

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = (
    "dataTables.min.js", "dataTables.dataTables.min.js", "dataTables.responsive.min.js",
    "responsive.dataTables.min.js", "plotly-cartesian.min.js", "page.js",
)  # fmt: skip
STYLES = ("dataTables.dataTables.min.css", "responsive.dataTables.min.css", "page.css")


class Column(NamedTuple):
    """Of the table. kind: text, link, estimate (value, low, high), number or checks."""

    title: str
    kind: str
    help: str
    priority: int
    """On a narrow screen the highest numbers go below the row first."""


COLUMNS = (
    Column("detector", "link", "Its name, with the parameters that are not the defaults.", 1),
    Column("category", "text", "Of the data set; mean: over all categories that the detector was run on.", 4),
    Column("threat model", "text", "Norm and budget, pixels in [0, 1]; whose images are moved, if not both.", 3),
    Column("attack", "text", "Or certificate, with the parameters that are not the defaults.", 6),
    Column(
        "clean AUROC", "estimate", "The chance that an anomalous image scores above a normal one; 95 % interval.", 2
    ),
    Column("worst AUROC", "estimate", "After the attack (an upper bound), or as certified (a lower bound).", 1),
    Column("normal only", "estimate", "AUROC when only normal images are moved: false alarms.", 9),
    Column("anomalous only", "estimate", "AUROC when only anomalous images are moved: missed defects.", 9),
    Column("clean acc.", "estimate", "Accuracy at the threshold that 5 % of held-out normal images exceed.", 10),
    Column("worst acc.", "estimate", "The same accuracy after the attack, or as certified.", 8),
    Column("passes", "number", "Forward and backward passes of the attack per image.", 11),
    Column("seconds", "number", "Of the attack, on the machine that the cell names.", 12),
    Column("M weights", "number", "Millions of numbers that the detector holds.", 12),
    Column("checks", "checks", "How many of the checks failed; a cell that fails one is not ranked.", 5),
    Column("data set", "text", "Name and size of the images.", 13),
    Column("method", "text", "The detector without its parameters and without what is around it.", 14),
    Column("defence", "text", "What is around the detector: a purifier, a denoiser, smoothing; none.", 14),
    Column("level", "text", "Whether the line is a detector's mean over its categories, one category, or both.", 14),
)
FILTERED = ("data set", "category", "threat model", "attack", "method", "defence")
HIDDEN = ("data set", "method", "defence", "level")


MEANS, CATEGORIES = "means", "categories"


def write_page(found: Results, folder: Path, sort: str = "") -> list[Path]:
    """`folder`/index.html."""
    path = folder / "index.html"
    files.write_text(path, page(found, sort))
    return [path]


def page(found: Results, sort: str = "") -> str:
    """The file's text."""
    results = found.results
    own = boards(results, sort)
    number = {r.folder: i for i, r in enumerate(results)}
    balls = balls_of(results)
    own_cells: dict[str, list[Result]] = {}
    for r in results:
        own_cells.setdefault(r.detector, []).append(r)
    names = {name: i for i, name in enumerate(own_cells)}
    curves = {name: of_detector(cells) for name, cells in own_cells.items()}
    plots = figures(results)
    rows = [row for board in own for row in _rows(board, number, names)]
    data = {
        "rows": rows,
        "kinds": [column.kind for column in COLUMNS],
        "cells": [_cell(r, names[r.detector], balls) for r in results],
        "detectors": [_detector(name, own_cells[name], number, len(curves[name]), balls) for name in names],
        "figures": {"cell": [[distribution(r)] for r in results], "detector": [curves[name] for name in names]},
        "plots": [figure.spec for figure in plots],
    }
    return _template("page.html.j2").render(
        columns=COLUMNS,
        hidden=[column.title in HIDDEN for column in COLUMNS],
        filters=[(title, _choices(rows, title)) for title in FILTERED],
        data=_packed(data),
        plots=_grouped(plots),
        scripts=[_asset(name) for name in SCRIPTS],
        styles=[_asset(name) for name in STYLES],
        explained=EXPLAINED,
        footnotes=FOOTNOTES,
        brackets=[bracket.line for bracket in brackets(results)],
        violations=broken_brackets(results),
        overviews=overviews(results, sort),
        costs=COSTS_SHOWN,
        differing=differing(results),
        notes=[*found.damaged, *found.notes],
        count=len(results),
        detectors=len(names),
    )


def _rows(board: Board, number: Mapping[Path, int], names: Mapping[str, int]) -> Iterable[list[Any]]:
    """Of the table: each detector's mean over its categories, if there are several on the board, and each cell."""
    for name, results in board.entries:
        several = len(board.categories) > 1
        if several:
            part = f" of {len(board.categories)}" if len(results) < len(board.categories) else ""
            scope = f"mean of {len(results)}{part}"
            yield [*_row(name, f"detector/{names[name]}", scope, results, name in board.unranked), MEANS]
        for r in results:
            level = CATEGORIES if several else f"{MEANS}, {CATEGORIES}"
            yield [*_row(name, f"cell/{number[r.folder]}", r.category, [r]), level]


def _row(name: str, link: str, category: str, results: Sequence[Result], unranked: bool = False) -> list[Any]:
    r = results[0]
    images = sum(len(one.table.ids) for one in results)
    failed = sum(not check["passed"] for one in results for check in one.checks)
    weights = [w for one in results if (w := one.record["detector"].get("weights")) is not None]
    side = f", {r.spec['targets']} images" * (r.spec["targets"] != "both")
    outer, _, inner = r.spec["detector"].rpartition("+")
    return [
        [name, link],
        category,
        f"{r.spec['norm']} {r.spec['eps']}{side}",
        r.attack,
        *(
            _estimate(results, metric)
            for metric in (
                "clean_auroc", f"{r.claim}_auroc", "normal_only_auroc", "anomalous_only_auroc", "clean_accuracy",
                f"{r.claim}_accuracy",
            )
        ),
        round(sum(one.record["forwards"] + one.record["backwards"] for one in results) / images, 1),
        round(sum(one.record["seconds"] for one in results), 1),
        round(max(weights) / 1e6, 3) if weights else None,
        [failed, sum(len(one.checks) for one in results), int(unranked or any(one.unranked for one in results))],
        f"{r.spec['dataset']}, {r.spec['image_size']} px" + f", seed {r.spec['seed']}" * bool(r.spec["seed"]),
        inner,
        outer or "none",
    ]  # fmt: skip


def _estimate(results: Sequence[Result], metric: str) -> list[float | None] | None:
    if any(metric not in r.metrics for r in results):
        return None
    estimate = estimate_of(results, metric)
    return None if math.isnan(estimate.value) else [round(value, 4) for value in estimate]


def _choices(rows: Sequence[list[Any]], title: str) -> list[str]:
    """What a filter offers."""
    at = [column.title for column in COLUMNS].index(title)
    return sorted({row[at] for row in rows if not row[at].startswith("mean of ")})


class Entry(NamedTuple):
    """A line of a cell's metrics."""

    name: str
    value: str


def _cell(r: Result, detector: int, balls: Mapping[str, Result]) -> str:
    metrics = [Entry(name, str(r.metrics.estimate(name))) for name in r.metrics]
    shots, notes = gallery(r)
    return _template("cell.html.j2").render(
        r=r,
        detector=detector,
        metrics=metrics,
        commands=[command_of(r, balls=balls), *checking(r)],
        explained=EXPLAINED,
        shots=shots,
        notes=notes,
    )


def _detector(
    name: str, results: Sequence[Result], number: dict[Path, int], figures: int, balls: Mapping[str, Result]
) -> str:
    return _template("detector.html.j2").render(
        name=name,
        first=results[0],
        figures=figures,
        cells=[(number[r.folder], r, str(r.metrics.estimate(r.ranked_by))) for r in results],
        commands=list(dict.fromkeys(command_of(r, "all", balls) for r in results)),
    )


def _grouped(plots: Sequence[Figure]) -> dict[str, list[tuple[int, str]]]:
    """Kind of figure -> (number, title)."""
    found: dict[str, list[tuple[int, str]]] = {}
    for i, figure in enumerate(plots):
        found.setdefault(figure.group, []).append((i, figure.title))
    return found


def _packed(data: Any) -> str:
    """JSON without infinities or nan, gzip, base64; the same data gives the same text."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value)} is not for JSON")


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


@functools.cache
def _template(name: str) -> Any:
    return _environment().get_template(name)
