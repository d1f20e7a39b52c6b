"""Leaderboards: cells that may be compared, as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..cells.metrics import better
from ..cells.result import Result
from ..errors import unknown
from ..stats.intervals import Estimate
from ..stats.measured import Measured, mean


@dataclass(frozen=True)
class Board:
    """One leaderboard: cells that may be compared, because only the detector (and the category) differs."""

    title: str
    key: tuple[Any, ...]
    entries: tuple[tuple[str, tuple[Result, ...]], ...]
    """Detector and its cells, one per category; in the order that was asked for, by default as they rank."""

    @property
    def categories(self) -> list[str]:
        return sorted({r.category for r in self.cells})

    @property
    def cells(self) -> list[Result]:
        """Of all its detectors."""
        return [r for _, results in self.entries for r in results]

    @property
    def marked_names(self) -> list[str]:
        """Of its detectors, with a word to those that have no rank."""
        return [f"{name} (not ranked)" if name in self.unranked else name for name, _ in self.entries]

    @property
    def claim(self) -> str:
        """`robust` or `certified`: what all its cells hold."""
        return self.cells[0].claim

    @property
    def stops_at_threshold(self) -> bool:
        """Its cells, which share an attack, are about decisions, not scores."""
        return self.cells[0].stops_at_threshold

    @property
    def score_name(self) -> str:
        """See `Result.score_name`."""
        return self.cells[0].score_name

    @property
    def normal_only(self) -> bool:
        """Its cells have no anomalous image: they count false alarms."""
        return self.cells[0].normal_only

    @property
    def of_shifts(self) -> bool:
        """Its cells are about shifts."""
        return self.cells[0].of_shifts

    @property
    def of_box(self) -> bool:
        """Its cells are about the worst of a box of light and pose."""
        return self.cells[0].of_box

    @property
    def of_maps(self) -> bool:
        """Its cells are about anomaly maps."""
        return self.cells[0].of_maps

    @property
    def ranked_by(self) -> str:
        """The metric whose mean decides the order."""
        return self.cells[0].ranked_by

    @cached_property
    def unranked(self) -> dict[str, list[str]]:
        """Detector -> why it is not ranked: checks, or a mean over fewer categories than others have."""
        categories, reasons = self.categories, {}
        for name, results in self.entries:
            part = lacking(results, categories)
            own = [f"{part}, {ANOTHER_MEAN}"] * bool(part)
            reasons[name] = own + list(dict.fromkeys(why for r in results for why in r.unranked))
        return {name: why for name, why in reasons.items() if why}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Of those that are ranked, from 1."""
        ranked = {name: cells for name, cells in self.entries if name not in self.unranked}
        return {name: rank for rank, name in enumerate(order(ranked, self.ranked_by), 1)}


def boards(results: Sequence[Result], sort: str = "") -> list[Board]:
    """Grouped by data set, size, attack, budget and seed, categories without an anomalous image apart.

    sort: as in `order`, by default what the board ranks by."""
    groups: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    for r in results:
        s = r.spec
        key = (s.bed, s.image_size, r.attack, s.norm, float(r.eps), s.targets, s.seed, r.normal_only)
        groups.setdefault(key, {}).setdefault(r.detector, []).append(r)
    found = []
    for key, entries in sorted(groups.items()):
        bed, size, attack, norm, _, targets, seed, normal_only = key
        spec = next(iter(entries.values()))[0].spec
        first = next(iter(entries.values()))[0]
        title = f"{bed}, {size} px: {attack}" + f", {norm} {spec.eps}" * (not first.of_shifts)
        title += f", {targets} images attacked" if targets != "both" else ""
        title += f", seed {seed}" if seed else ""
        title += ", normal images alone" if normal_only else ""
        board = Board(title, key, tuple((name, tuple(cells)) for name, cells in entries.items()))
        names = order(entries, sort or board.ranked_by, board.ranked_by)
        names.sort(key=lambda name: name in board.unranked and not sort)
        found.append(Board(title, key, tuple((name, tuple(entries[name])) for name in names)))
    return found


COSTS: dict[str, Callable[[Result], float | None]] = {
    "seconds": lambda r: r.record.seconds,
    "fit_seconds": lambda r: fit.seconds if (fit := r.record.detector.fit) else None,
    "passes": lambda r: r.record.forwards + r.record.backwards,
    "weights": lambda r: r.record.detector.weights,
    "ms_1": lambda r: cost.ms_1 if (cost := r.record.scoring) else None,
    "ms_32": lambda r: cost.ms_32 if (cost := r.record.scoring) else None,
    "peak_memory_mib": lambda r: r.record.peak_memory,
}


def refuse_unknown_column(sort: str, results: Sequence[Result]) -> None:
    """UserError if none of the cells has what `order` is to go by."""
    known = {name for r in results for name in r.metrics} | set(COSTS) | {"detector"}
    if sort and sort.removeprefix("-") not in known:
        raise unknown("column for --sort", sort.removeprefix("-"), known)


def order(entries: Mapping[str, Sequence[Result]], sort: str, otherwise: str = "detector") -> list[str]:
    """Detectors by `detector`, a cost or the mean of a metric, the best first; `-` before it turns that round.

    Who lacks it comes last. otherwise: what to go by where none of them has it.
    """
    by = sort.removeprefix("-")
    if by != "detector" and by not in COSTS and not any(by in r.metrics for own in entries.values() for r in own):
        by = sort = otherwise
    if by == "detector":
        return sorted(entries, key=lambda name: entries[name][0].detector, reverse=sort != by)
    values: dict[str, float] = {}
    for name, cells in entries.items():
        if by in COSTS:
            costs = [value for r in cells if (value := COSTS[by](r)) is not None]
            values[name] = sum(costs) / len(costs) if costs else math.nan
        else:
            whole = all(by in r.metrics for r in cells)
            values[name] = -better(by) * mean_of(cells, by).value if whole else math.nan
    sign = 1 if sort == by else -1
    return sorted(entries, key=lambda name: (math.isnan(values[name]), sign * values[name]))


def mean_of(results: Sequence[Result], metric: str) -> Measured:
    """Over the categories."""
    return mean([r.metrics[metric] for r in results])


def estimate_of(results: Sequence[Result], metric: str) -> Estimate:
    """The mean over the categories with its interval; of one cell, as the cell has it."""
    if len(results) == 1:
        return results[0].metrics.estimate(metric)
    return mean_of(results, metric).estimate()


def lacking(results: Sequence[Result], categories: Sequence[str]) -> str:
    """`3 of 15 categories`, of a detector that lacks some; else empty."""
    return f"{len(results)} of {len(categories)} categories" if len(results) < len(categories) else ""


ANOTHER_MEAN = "whose mean is another one"
"""Why a detector that lacks categories has no rank."""
