"""One table per data set: every detector, every threat model, the attack that counts, and what is certified."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd

from ..cells.metrics import METRICS
from ..cells.result import Result
from ..core.threat import eps_text
from . import reported
from .boards import ANOTHER_MEAN, lacking, mean_of, order
from .compare import not_worse
from .counting import Cells, Counting, Threat
from .published import below_published
from .remarks import differing, footnotes
from .table import NO_COSTS, Cost, Line, Value, value_of

OF_THE_FIRST = ("normal_only_auroc", "anomalous_only_auroc", "clean_accuracy", "robust_accuracy")
"""Metrics that are shown of the first threat model alone."""
OF_CERTIFICATES = ("certified_auroc", "certified_accuracy")


class Column(NamedTuple):
    """What a column is the mean of."""

    metric: str
    cells: Cells
    """Of every detector that has it."""


class Overview(NamedTuple):
    """One data set, at one size, seed and choice of images."""

    title: str
    columns: Mapping[str, Column]
    """By title."""
    main: str
    """The column that decides the order; one-sided columns, accuracy and costs are of its attack."""
    detectors: Sequence[str]
    """In order."""
    unranked: Mapping[str, Sequence[str]]
    """Detector -> why it has no rank."""
    footnotes: Mapping[str, str]
    """By letter."""
    marks: Mapping[tuple[str, str], str]
    """(title, detector) -> its footnote."""
    warnings: Sequence[str]
    threats: tuple[Threat, ...]
    categories: tuple[str, ...]
    """Of all its columns, as the threat models."""
    dataset: str

    @property
    def reported(self) -> pd.DataFrame:
        """Published figures on the same data: clean, and at the threat models of the columns."""
        return _reported(self.dataset, self.categories, self.threats)

    @property
    def lines(self) -> Iterator[Line]:
        """The table."""
        metric, cells = self.columns[self.main]
        ranked = [name for name in self.detectors if name not in self.unranked]
        ranked.sort(key=lambda name: -mean_of(cells[name], metric).value)
        best = {
            title: not_worse({name: own for name, own in column.cells.items() if name in ranked}, column.metric)
            for title, column in self.columns.items()
            if len(self.detectors) > 1
        }
        for name in self.detectors:
            values = {title: self._value(title, name, best.get(title, set())) for title in self.columns}
            rank = ranked.index(name) + 1 if name in ranked else None
            yield Line(rank, name, values, Cost.of(cells[name]).texts if name in cells else NO_COSTS)

    def _value(self, title: str, name: str, best: set[str]) -> Value:
        metric, cells = self.columns[title]
        own = cells.get(name, ())
        found = value_of(own, metric) if own else Value()
        if found.estimate is None:
            return found
        mark, scope = self.marks.get((title, name), ""), lacking(own, self.categories)
        return Value(found.estimate, with_interval=True, best=name in best, mark=mark, scope=scope)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of single rows, without the footnotes: every reason once."""
        names: dict[str, list[str]] = {}
        for name, why in self.unranked.items():
            names.setdefault("; ".join(why), []).append(name)
        return [*(f"not ranked: {', '.join(own)}: {why}" for why, own in names.items()), *self.warnings]


def overviews(results: Sequence[Result], sort: str = "") -> list[Overview]:
    """Of attacks on both classes that go as far as they can, and of certificates of scores; decisions at the threshold
    and one-sided threat models have boards of their own."""
    groups: dict[tuple[Any, ...], dict[int, list[Result]]] = {}
    for r in results:
        if r.of_both_classes and not r.stops_at_threshold and r.spec.targets == "both":
            s = r.spec
            groups.setdefault((s.bed, s.image_size, s.seed), {}).setdefault(s.limit or 0, []).append(r)
    return [
        _overview((*key, limit), cells, sort)
        for key, by_limit in sorted(groups.items())
        for limit, cells in sorted(_with_small_categories(by_limit).items())
    ]


def _with_small_categories(by_limit: Mapping[int, list[Result]]) -> dict[int, list[Result]]:
    """A category that has fewer images than the limit is recorded without one, and belongs to both."""
    whole, found = by_limit.get(0, []), dict[int, list[Result]]()
    taken: set[int] = set()
    for limit, cells in by_limit.items():
        there = {r.category for r in cells}
        small = [r for r in whole if limit and r.category not in there and len(r.table.ids) <= limit]
        taken |= {id(r) for r in small}
        found[limit] = cells + small
    if all(id(r) in taken for r in whole):
        found.pop(0, None)
    return found


def _columns(counting: Counting) -> dict[str, Column]:
    """By title; one-sided columns and accuracy are of the first attack."""
    found = {_title("clean_auroc"): Column("clean_auroc", counting.clean)}
    found |= {_title("robust_auroc", threat): Column("robust_auroc", cells) for threat, cells in counting.worst.items()}
    for cells in list(counting.worst.values())[:1]:
        found |= {_title(metric): Column(metric, cells) for metric in OF_THE_FIRST}
    for threat, cells in counting.certified.items():
        found |= {_title(metric, threat): Column(metric, cells) for metric in OF_CERTIFICATES}
    return found


def _main(counting: Counting) -> str:
    """The title of the column that decides the order."""
    for threat in counting.worst:
        return _title("robust_auroc", threat)
    return _title("certified_auroc", min(counting.certified))


def _overview(key: tuple[Any, ...], results: Sequence[Result], sort: str) -> Overview:
    bed, size, seed, limit = key
    categories = tuple(sorted({r.category for r in results}))
    scope = f"mean of {len(categories)} categories" if len(categories) > 1 else categories[0]
    counting = Counting.of(results)
    columns, main = _columns(counting), _main(counting)
    reasons = {name: _why_unranked(name, main, columns, counting.groups, categories) for name in counting.clean}
    unranked = {name: why for name, why in reasons.items() if why}
    letters, marks = footnotes(counting.worst, [r for r in results if not r.certificate])
    return Overview(
        f"{bed}, {size} px" + f", {limit} images" * bool(limit) + f", seed {seed}" * bool(seed) + f": {scope}",
        columns,
        main,
        _ordered(columns[main], list(counting.clean), unranked, sort),
        unranked,
        letters,
        {(_title("robust_auroc", threat), name): letter for (threat, name), letter in marks.items()},
        [*differing(results), *below_published(results)],
        counting.threats,
        categories,
        results[0].spec.dataset,
    )


def _ordered(main: Column, names: Sequence[str], unranked: Collection[str], sort: str) -> list[str]:
    """Who has no rank after those that have, unless `sort` says otherwise; last, by name, who lacks the column."""
    found = order(main.cells, sort or main.metric, main.metric)
    if not sort:
        found.sort(key=lambda name: name in unranked)
    return found + sorted(name for name in names if name not in main.cells)


def _title(metric: str, threat: Threat | None = None) -> str:
    return METRICS[metric].title + (f" {threat[0]} {eps_text(threat[1])}" if threat else "")


def _why_unranked(
    name: str, main: str, columns: Mapping[str, Column], groups: Sequence[Cells], categories: Sequence[str]
) -> list[str]:
    if name not in columns[main].cells:
        return [f"no {main}"]
    if part := lacking(columns[main].cells[name], categories):
        return [f"{part}, {ANOTHER_MEAN}"]
    used = [r for cells in groups for r in cells.get(name, ())]
    return list(dict.fromkeys(why for r in used for why in r.unranked))


@lru_cache(maxsize=64)
def _reported(dataset: str, categories: tuple[str, ...], threats: tuple[Threat, ...]) -> pd.DataFrame:
    figures = reported.reported()
    parts = []
    for norm, eps in threats:
        for category in [*categories, reported.WHOLE]:
            parts.append(reported.beside(dataset, category, norm, eps, figures))
    found = pd.concat(parts).drop_duplicates()
    if found.empty:
        return found
    found["value"] = found["value"].map("{:.3f}".format)
    found["budget"] = (found["norm"] + " " + found["eps"]).str.strip()
    shown = found[["detector", "category", "metric", "budget", "value", "attack", "source", "where", "note"]]
    return shown.sort_values(["metric", "budget", "detector", "category"]).reset_index(drop=True)
