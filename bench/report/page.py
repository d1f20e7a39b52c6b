"""report/index.html: the whole leaderboard in one file that needs no network.

Everything that is text is rendered here, by Jinja2; tables are DataTables and figures Plotly, shipped in bench/assets.
The pages of detectors and cells lie compressed in the file, and are unpacked when it is opened.
"""

from __future__ import annotations

import base64
import functools
import gzip
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..analysis import bracket_table
from ..analysis.boards import Board, boards
from ..analysis.overview import overviews
from ..analysis.remarks import differing, over_seeds, thresholds, wrong_ways
from ..analysis.submitted import SHOWN, TITLES, claims
from ..analysis.table import COSTS_SHOWN, Line, columns_of, table
from ..cells.bracket import broken_brackets
from ..cells.reader import Results
from ..cells.result import Result
from ..checks.explanations import EXPLAINED
from ..system import files
from .cards import Card, cards
from .commands import balls_of, checking, command_of
from .figures import Figure, figures_of
from .figures.distributions import Distributions
from .figures.robustness import of_detector
from .figures.tradeoff import Tradeoff
from .gallery import gallery
from .page_table import COLUMNS, FILTERED, HIDDEN, choices, rows
from .wording import BETWEEN, BOX, FOOTNOTES, IMPOSSIBLE, SEEDS, SUBMITTED

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = (
    "dataTables.min.js", "dataTables.dataTables.min.js", "dataTables.responsive.min.js",
    "responsive.dataTables.min.js", "plotly-cartesian.min.js", "page.js",
)  # fmt: skip
STYLES = ("dataTables.dataTables.min.css", "responsive.dataTables.min.css", "page.css")


def write_page(found: Results, folder: Path, sort: str = "") -> list[Path]:
    """`folder`/index.html."""
    path = folder / "index.html"
    files.write_text(path, page(found, sort))
    return [path]


def page(found: Results, sort: str = "") -> str:
    """The file's text."""
    contents = Contents(found.results, sort)
    return _template("page.html.j2").render(
        columns=COLUMNS,
        hidden=[column.title in HIDDEN for column in COLUMNS],
        filters=[(title, choices(contents.rows, title)) for title in FILTERED],
        data=_packed(contents.data),
        plots=contents.figures_by_group,
        scripts=[_asset(name) for name in SCRIPTS],
        styles=[_asset(name) for name in STYLES],
        explained=EXPLAINED,
        footnotes=FOOTNOTES,
        between=BETWEEN,
        impossible=IMPOSSIBLE,
        brackets=bracket_table.lines(found.results),
        bracket_titles=bracket_table.TITLES,
        violations=broken_brackets(found.results),
        overviews=overviews(found.results, sort),
        front=contents.front,
        others=contents.others,
        costs=COSTS_SHOWN,
        differing=[*differing(found.results), *wrong_ways(found.results)],
        seeds=over_seeds(found.results),
        seeds_say=SEEDS,
        thresholds=thresholds(found.results),
        notes=[*found.damaged, *found.notes],
        submitted=claims(found.submitted)[:SHOWN],
        more_submitted=max(len(found.submitted) - SHOWN, 0),
        claimed=TITLES,
        apart=SUBMITTED,
        count=len(found.results),
        detectors=len(contents.detectors),
    )


@dataclass(frozen=True, eq=False)
class Contents:
    """What lies compressed in the page. Cells and detectors are numbered, as links name them."""

    results: Sequence[Result]
    sort: str

    @cached_property
    def detectors(self) -> dict[str, list[Result]]:
        """Name -> its cells."""
        found: dict[str, list[Result]] = {}
        for r in self.results:
            found.setdefault(r.detector, []).append(r)
        return found

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of the detectors."""
        return {name: i for i, name in enumerate(self.detectors)}

    @cached_property
    def cells(self) -> dict[Path, int]:
        """The numbers of the cells, by folder."""
        return {r.folder: i for i, r in enumerate(self.results)}

    @cached_property
    def rows(self) -> list[list[Any]]:
        """Of scores of both classes; of all else see `others`."""
        scores = [r for r in self.results if r.of_both_classes]
        return [row for board in boards(scores, self.sort) for row in rows(board, self.cells, self.numbers)]

    @property
    def others(self) -> list[Other]:
        """Boards that are not about AUROC: of maps, of shifts, of normal images alone."""
        found = boards([r for r in self.results if not r.of_both_classes], self.sort)
        return [Other.of(board, self.numbers) for board in found]

    @cached_property
    def figures(self) -> list[Figure]:
        return list(itertools.chain(*figures_of(self.results).values()))

    @property
    def figures_by_group(self) -> dict[str, list[tuple[int, str]]]:
        """Kind of figure, in words -> (number, title)."""
        found: dict[str, list[tuple[int, str]]] = {}
        for i, figure in enumerate(self.figures):
            found.setdefault(figure.group, []).append((i, figure.title))
        return found

    @property
    def front(self) -> dict[str, int]:
        """Title of a board -> the number of the figure before it: clean against robust, certified beside."""
        numbers = {figure.where: i for i, figure in enumerate(self.figures) if isinstance(figure, Tradeoff)}
        found = overviews(self.results, self.sort)
        mains = {board.title: Tradeoff.place_of(board.title, board.main) for board in found}
        return {title: numbers[where] for title, where in mains.items() if where in numbers}

    @property
    def data(self) -> dict[str, Any]:
        """What page.js reads."""
        balls = balls_of(self.results)
        known = cards(overviews(self.results, self.sort))
        curves = [of_detector([r for r in cells if r.of_both_classes]) for cells in self.detectors.values()]
        return {
            "rows": self.rows,
            "kinds": [column.kind for column in COLUMNS],
            "cells": [_cell(r, self.numbers[r.detector], balls) for r in self.results],
            "detectors": [
                _detector(name, cells, self.cells, len(own), balls, known.get(name, ()))
                for (name, cells), own in zip(self.detectors.items(), curves, strict=True)
            ],
            "figures": {
                "cell": [[Distributions(r).spec()] if r.of_scores else [] for r in self.results],
                "detector": curves,
            },
            "plots": [figure.spec() for figure in self.figures],
        }


class Other(NamedTuple):
    """A board as a table that is read, not filtered."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]
    links: Sequence[int]
    """The number of each line's detector."""
    notes: Sequence[str]

    @classmethod
    def of(cls, board: Board, numbers: Mapping[str, int]) -> Other:
        columns = columns_of(board)
        count = len(board.categories)
        scope = f"mean of {count} categories" if count > 1 else board.categories[0]
        notes = [why.replace("*", "") for metric, why in FOOTNOTES.items() if metric in columns.values()]
        notes += [BOX.replace("*", "")] * board.of_box
        notes += [f"not ranked: {name}: {'; '.join(why)}" for name, why in board.unranked.items()]
        links = [numbers[name] for name, _ in board.entries]
        return cls(f"{board.title}: {scope}", list(columns), table(board, columns), links, notes)


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
    name: str,
    results: Sequence[Result],
    number: dict[Path, int],
    figures: int,
    balls: Mapping[str, Result],
    known: Sequence[Card],
) -> str:
    return _template("detector.html.j2").render(
        name=name,
        first=results[0],
        known=known,
        figures=figures,
        cells=[(number[r.folder], r, str(r.metrics.estimate(r.ranked_by))) for r in results],
        commands=list(dict.fromkeys(command_of(r, "all", balls) for r in results)),
    )


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
