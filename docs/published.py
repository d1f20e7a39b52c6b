"""The tables that README.md and results/README.md show of the published leaderboard, cut from `results/published`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import bench
from bench.analysis.overview import Overview, overviews
from bench.analysis.table import Value
from bench.cells.result import Result

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
BEGIN, END = "<!-- begin: docs/generate.py cuts {} from results/published -->\n", "<!-- end: {} -->\n"
BUDGET = "2/255"
CLEAN, ROBUST, CERTIFIED = "clean AUROC", f"robust AUROC linf {BUDGET}", f"certified AUROC linf {BUDGET}"
ONE_SIDED = ("normal only", "anomalous only")
SHIFTED = tuple(f"{kind}_3_false_alarms" for kind in ("brightness", "contrast", "defocus_blur", "gaussian_noise"))
CALM, WORST = "clean_false_alarms", "worst_shift_false_alarms"
UNNAMED = "folder"
"""The data set of photographs in folders: a category's name says whose they are."""


@functools.cache
def published() -> Sequence[Result]:
    """Every finished cell of seed 0."""
    found = bench.read_results(PUBLISHED)
    assert not found.damaged, found.damaged
    return [result for result in found.results if result.spec.seed == 0]


def with_tables(text: str) -> str:
    """A page with each of its tables cut anew; one that says nothing of the leaderboard stays as it is."""
    for name in re.findall(r"<!-- end: (.*?) -->", text):
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = text.split(begin)
        text = before + begin + TABLES[name]() + end + rest.split(end)[1]
    return text


def _boards() -> Mapping[str, Overview]:
    """Data set -> its board."""
    return {overview.dataset: overview for overview in overviews(published())}


def _real() -> str:
    return _overview(_boards()[UNNAMED])


def _bottle() -> str:
    """The complete official category."""
    (board,) = overviews([r for r in published() if r.category == "mvtec_bottle"])
    return _overview(board)


def _shifted() -> str:
    """False alarms and AUROC of one category under another lamp or lens."""
    cells = [r for r in published() if r.of_shifts and r.category == "mvtec_bottle"]
    kinds = [metric.removesuffix("_3_false_alarms").replace("_", " ") for metric in SHIFTED]
    head = ["detector", "false alarms", *kinds, "any of these", "AUROC", "worst"]
    rows = sorted(((r.metrics["worst_shift_auroc"].value, named(r.detector), r) for r in cells), reverse=True)
    return _table(head, [[name, *(_share(r, m) for m in (CALM, *SHIFTED, WORST)), *_aurocs(r)] for _, name, r in rows])


def _share(cell: Result, metric: str) -> str:
    return f"{cell.metrics[metric].value:.0%}".replace("%", " %")


def _aurocs(cell: Result) -> list[str]:
    return [f"{cell.metrics[metric].value:.3f}" for metric in ("clean_auroc", "worst_shift_auroc")]


def _textures() -> str:
    return _overview(_boards()["textures"])


def _overview(board: Overview) -> str:
    """Who ranks where: clean, attacked, certified."""
    titles = [title for title in (CLEAN, ROBUST, CERTIFIED, *ONE_SIDED) if title in board.columns]
    rows = [
        [line.place, named(line.detector), *(_number(line.values[title], title == ROBUST) for title in titles)]
        for line in board.lines
        if ROBUST in line.values and line.values[ROBUST].estimate is not None
    ]
    return _table(["", "detector", *titles], rows)


def _number(value: Value, bold: bool) -> str:
    text = f"**{value.text}**" if bold else value.text
    return " ".join(filter(None, (text, value.interval, f"({value.scope})" * bool(value.scope))))


def _by_category() -> str:
    """Robust AUROC of every detector on every category, and in brackets the clean one."""
    cells = {(r.detector, r.category): r for r in published() if r.spec.attack == "standard" and r.spec.eps == BUDGET}
    categories = list(dict.fromkeys(category for board in _boards().values() for category in board.categories))
    detectors = dict.fromkeys(line.detector for board in _boards().values() for line in board.lines)
    rows = [
        [named(name), *(_pair(cells.get((name, category))) for category in categories)]
        for name in detectors
        if any(one == name for one, _ in cells)
    ]
    return _table(["detector", *categories], rows)


def _pair(cell: Result | None) -> str:
    if cell is None:
        return ""
    mark = "" if not cell.unranked else " †"
    return f"**{cell.metrics['robust_auroc'].value:.3f}** ({cell.metrics['clean_auroc'].value:.3f}){mark}"


def named(detector: str) -> str:
    """A label of the boards, with the backbone's name where they have the hash of its file."""
    return re.sub(r"weights=sha256:[0-9a-f]+", lambda _: _backbones()[detector], detector)


@functools.cache
def _backbones() -> Mapping[str, str]:
    return {r.detector: str(_found(r.record.detector.parameters)) for r in published()}


def _found(parameters: Mapping[str, object]) -> object:
    return next((value for name, value in parameters.items() if name.split(".")[-1] == "backbone"), "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES = {
    "the real categories": _real,
    "bottle": _bottle,
    "the textures": _textures,
    "all categories": _by_category,
    "shifts of bottle": _shifted,
}
"""Name of a table -> what makes it."""
