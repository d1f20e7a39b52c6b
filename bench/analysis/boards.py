"""Leaderboards: cells that may be compared, as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ..cells.result import Result
from ..errors import unknown
from ..stats.metrics import Bootstrap, Estimate, better, mean


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
    def claim(self) -> str:
        """`robust` or `certified`: what all its cells hold."""
        return self.cells[0].claim

    @property
    def stops_at_threshold(self) -> bool:
        """Its cells, which share an attack, are about decisions, not scores."""
        return self.cells[0].stops_at_threshold

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
    """Grouped by data set, size, attack, budget and seed; `sort` as in `order`, by default what the board ranks by."""
    groups: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    for r in results:
        s = r.spec
        key = (s["dataset"], s["image_size"], r.attack, s["norm"], float(r.eps), s["targets"], s["seed"])
        groups.setdefault(key, {}).setdefault(r.detector, []).append(r)
    found = []
    for key, entries in sorted(groups.items()):
        dataset, size, attack, norm, _, targets, seed = key
        spec = next(iter(entries.values()))[0].spec
        title = f"{dataset}, {size} px: {attack}, {norm} {spec['eps']}"
        title += f", {targets} images attacked" if targets != "both" else ""
        title += f", seed {seed}" if seed else ""
        board = Board(title, key, tuple((name, tuple(cells)) for name, cells in entries.items()))
        names = order(entries, sort or board.ranked_by, board.ranked_by)
        names.sort(key=lambda name: name in board.unranked and not sort)
        found.append(Board(title, key, tuple((name, tuple(entries[name])) for name in names)))
    return found


COSTS: dict[str, Callable[[Result], float | None]] = {
    "seconds": lambda r: r.record["seconds"],
    "fit_seconds": lambda r: (r.record["detector"]["fit"] or {}).get("seconds"),
    "passes": lambda r: r.record["forwards"] + r.record["backwards"],
    "weights": lambda r: r.record["detector"].get("weights"),
    "peak_memory_mib": lambda r: r.record["peak_memory"],
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


def mean_of(results: Sequence[Result], metric: str) -> Bootstrap:
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


COLUMNS = {
    "clean AUROC": "clean_auroc",
    "robust AUROC": "robust_auroc",
    "normal only": "normal_only_auroc",
    "anomalous only": "anomalous_only_auroc",
    "rounded": "rounded_auroc",
    "clean AP": "clean_ap",
    "robust AP": "robust_ap",
    "clean FPR95": "clean_fpr95",
    "robust FPR95": "robust_fpr95",
    "clean acc.": "clean_accuracy",
    "robust acc.": "robust_accuracy",
}
CERTIFIED = {
    "clean AUROC": "clean_auroc",
    "certified AUROC": "certified_auroc",
    "normal only": "normal_only_auroc",
    "anomalous only": "anomalous_only_auroc",
    "clean acc.": "clean_accuracy",
    "certified acc.": "certified_accuracy",
    "normal right": "certified_normal_right",
    "anomalous right": "certified_anomalous_right",
    "certified radius, normal": "certified_radius_normal",
    "certified radius, anomalous": "certified_radius_anomalous",
}
AT_THRESHOLD = {"normal right": "robust_normal_right", "anomalous right": "robust_anomalous_right"}
AUTOATTACK = {"AutoAttack acc.": "autoattack_accuracy"}
RADII = {"median radius, normal": "median_radius_normal", "median radius, anomalous": "median_radius_anomalous"}
DRAWS = {"worst draw": "worst_draw_auroc", "known noise": "known_noise_auroc"}
COSTS_SHOWN = ("passes per image", "fit seconds", "attack seconds", "peak GiB", "M weights")
NOT_RANKED = "–"  # noqa: RUF001
BOLD = ("clean AUROC", "robust AUROC", "certified AUROC", "robust acc.", "certified acc.")
DECISIONS = ("clean acc.", "robust acc.", "certified acc.", "normal right", "anomalous right")
WITH_INTERVAL = ("clean AUROC", "robust AUROC", "certified AUROC", "normal only", "anomalous only")


def columns_of(board: Board) -> dict[str, str]:
    """Title -> metric."""
    return CERTIFIED if board.claim == "certified" else COLUMNS | further(board)


def further(board: Board) -> dict[str, str]:
    """Columns that only some attacks fill."""
    wanted = AT_THRESHOLD if board.stops_at_threshold else {}
    for columns in (DRAWS, AUTOATTACK, RADII):
        if any(metric in r.metrics for r in board.cells for metric in columns.values()):
            wanted = wanted | columns
    return wanted


def table(board: Board) -> pd.DataFrame:
    """A board as text, one row per detector; means over categories, AUROC with its 95 % interval."""
    everything = len(board.categories)
    lines = []
    for name, results in board.entries:
        line = {
            "rank": str(board.ranks.get(name, NOT_RANKED)),
            "detector": name if len(results) == everything else f"{name} [{len(results)} of {everything}]",
        }
        for title, metric in columns_of(board).items():
            line[title] = shown(results, metric, title in (*WITH_INTERVAL, *RADII))
        lines.append(line | cost(results))
    return pd.DataFrame(lines)


def shown(results: Sequence[Result], metric: str, interval: bool) -> str:
    """The mean over these cells as text; a dash where one of them lacks the metric: this side was not attacked."""
    if any(metric not in r.metrics for r in results):
        return NOT_RANKED
    estimate = estimate_of(results, metric)
    return str(estimate) if interval else f"{estimate.value:.3f}"


def cost(results: Sequence[Result]) -> dict[str, str]:
    """Of the attacks on all categories of a detector: passes, seconds, memory, and how large the detector is."""
    images = sum(len(r.table.ids) for r in results)
    forwards, backwards = (sum(r.record[k] for r in results) for k in ("forwards", "backwards"))
    fits = [(r.record["detector"]["fit"] or {}).get("seconds") for r in results]
    memory = [r.record["peak_memory"] for r in results if r.record["peak_memory"]]
    weights = [r.record["detector"].get("weights") for r in results]
    return {
        "passes per image": f"{forwards / images:.0f} + {backwards / images:.0f}",
        "fit seconds": f"{sum(seconds for seconds in fits if seconds):.0f}",
        "attack seconds": f"{sum(r.record['seconds'] for r in results):.0f}",
        "peak GiB": f"{max(memory) / 1024:.2f}" if memory else NOT_RANKED,
        "M weights": NOT_RANKED if None in weights else f"{max(weights) / 1e6:.2f}",
    }


def by_category(board: Board) -> pd.DataFrame:
    """What the board ranks by, clean and after the attack (or as certified), per category."""
    lines = []
    metrics = (f"clean_{board.ranked_by.rpartition('_')[2]}", board.ranked_by)
    for name, results in board.entries:
        cells = {r.category: r for r in results}
        line = {"detector": name}
        for category in board.categories:
            r = cells.get(category)
            values = [] if r is None else [r.metrics[m].value for m in metrics if m in r.metrics]
            line[category] = " → ".join(f"{v:.3f}" for v in values)
        lines.append(line)
    return pd.DataFrame(lines)


def by_part(board: Board) -> pd.DataFrame:
    """Robust AUROC of every part of an attack that is made of several, mean over categories; empty if none is."""
    parts = list(dict.fromkeys(part for r in board.cells for part in r.parts))
    if not parts:
        return pd.DataFrame()
    lines = [
        {
            "detector": name,
            **{part: shown(results, f"{part}_auroc", False) for part in parts},
            "worst of all": shown(results, "robust_auroc", False),
        }
        for name, results in board.entries
    ]
    return pd.DataFrame(lines)
