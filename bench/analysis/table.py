"""A board as a table of numbers: what stands in each row and column, before anybody makes text of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from ..cells.metrics import METRICS
from ..cells.result import Result
from ..cells.schema import ScoringRecord
from ..stats.intervals import Estimate
from .boards import Board, estimate_of
from .compare import not_worse

UNKNOWN = "–"  # noqa: RUF001
"""For a number that there is none of, a rank too."""


class Value(NamedTuple):
    """One number of a table."""

    estimate: Estimate | None = None
    """Value, low and high; None where a cell lacks the metric: this side was not attacked."""
    with_interval: bool = False
    """Whether readers are shown its interval."""
    best: bool = False
    """It may be the best of its column, among those that are ranked."""
    mark: str = ""
    """The letter of a footnote."""
    scope: str = ""
    """`3 of 15 categories`, where the mean is over fewer than others have."""

    @property
    def text(self) -> str:
        return UNKNOWN if self.estimate is None else f"{self.estimate.value:.3f}"

    @property
    def interval(self) -> str:
        """`[0.811, 0.890]`; empty where it is not shown."""
        if self.estimate is None or not self.with_interval:
            return ""
        return f"[{self.estimate.low:.3f}, {self.estimate.high:.3f}]"

    @property
    def below(self) -> str:
        """What stands below the number: its interval and its scope."""
        return ", ".join(filter(None, (self.interval, self.scope)))

    @property
    def whole(self) -> str:
        """Number and interval on one line."""
        return f"{self.text} {self.interval}".rstrip()

    @property
    def stacked(self) -> str:
        """The number above its interval."""
        return f"{self.text}\n{self.interval}".rstrip()


class Cost(NamedTuple):
    """Of the attacks on all categories of a detector, and of the detector."""

    images: int
    forwards: int
    backwards: int
    fit_seconds: float
    seconds: float
    memory: float | None
    """MiB at the peak; None where no cell knows it, as that of a CPU without a counter."""
    weights: int | None
    """Numbers that the detector holds; None where a cell does not say."""
    milliseconds: tuple[float, float] | None = None
    """Of a score, an image alone and in a batch of 32: the median over categories; None where a cell does not say."""
    disk: float | None = None
    """MiB of all that the detector holds; None where a cell does not say."""

    @classmethod
    def of(cls, results: Sequence[Result]) -> Cost:
        weights = [r.record.detector.weights for r in results]
        known = [cost for r in results if (cost := r.record.scoring) is not None]
        return cls(
            images=sum(len(r.table.ids) for r in results),
            forwards=sum(r.record.forwards for r in results),
            backwards=sum(r.record.backwards for r in results),
            fit_seconds=sum(r.record.detector.fit.seconds for r in results if r.record.detector.fit),
            seconds=sum(r.record.seconds for r in results),
            memory=max((r.record.peak_memory for r in results if r.record.peak_memory), default=None),
            weights=None if None in weights else max(count for count in weights if count is not None),
            milliseconds=_milliseconds(known) if len(known) == len(results) else None,
            disk=max(cost.disk for cost in known) / 2**20 if len(known) == len(results) else None,
        )

    @property
    def passes(self) -> float:
        """Forward and backward, per image."""
        return (self.forwards + self.backwards) / self.images

    @property
    def texts(self) -> dict[str, str]:
        """As tables show it, by title."""
        return {title: text(self) for title, text in COSTS_SHOWN.items()}


def _milliseconds(costs: Sequence[ScoringRecord]) -> tuple[float, float]:
    together = [cost.ms_32 for cost in costs if cost.ms_32 is not None]
    return median(cost.ms_1 for cost in costs), median(together) if len(together) == len(costs) else math.nan


def _shown_milliseconds(cost: Cost) -> str:
    if cost.milliseconds is None:
        return UNKNOWN
    return ", ".join(UNKNOWN if math.isnan(ms) else f"{ms:.3g}" for ms in cost.milliseconds)


COSTS_SHOWN: Mapping[str, Callable[[Cost], str]] = {
    "passes per image": lambda cost: f"{cost.forwards / cost.images:.0f} + {cost.backwards / cost.images:.0f}",
    "fit seconds": lambda cost: f"{cost.fit_seconds:.0f}",
    "attack seconds": lambda cost: f"{cost.seconds:.0f}",
    "peak GiB": lambda cost: UNKNOWN if cost.memory is None else f"{cost.memory / 1024:.2f}",
    "ms a score (1, 32)": _shown_milliseconds,
    "MiB on disk": lambda cost: UNKNOWN if cost.disk is None else f"{cost.disk:.3g}",
    "M weights": lambda cost: UNKNOWN if cost.weights is None else f"{cost.weights / 1e6:.2f}",
}
"""Title of a column -> its text."""


NO_COSTS = dict.fromkeys(COSTS_SHOWN, UNKNOWN)
"""Of a detector without cells."""


class Line(NamedTuple):
    """One detector."""

    rank: int | None
    detector: str
    values: Mapping[str, Value]
    """By the title of the column."""
    costs: Mapping[str, str]
    """The same, as text."""

    @property
    def place(self) -> str:
        """The rank as text."""
        return UNKNOWN if self.rank is None else str(self.rank)


def columns_of(board: Board) -> dict[str, str]:
    """Title -> metric: what any of its cells has, but for what says nothing there."""
    there, kind = {name for r in board.cells for name in r.metrics}, board.cells[0].record.kind
    shown = [m for m in METRICS.values() if m.name in there and m.on_board(kind, board.stops_at_threshold)]
    return {metric.title: metric.name for metric in shown}


def table(board: Board, columns: Mapping[str, str] | None = None) -> list[Line]:
    """A row per detector; means over categories. Bold, as `best`, are some columns of a board of several detectors.

    columns: title -> metric; None is `columns_of`.
    """
    columns = columns_of(board) if columns is None else columns
    ranked = {name: cells for name, cells in board.entries if name in board.ranks}
    best = {
        title: not_worse(ranked, metric) if METRICS[metric].headline and len(board.entries) > 1 else set()
        for title, metric in columns.items()
    }
    everything, lines = len(board.categories), []
    for name, cells in board.entries:
        values = {
            title: value_of(cells, metric)._replace(best=name in best[title]) for title, metric in columns.items()
        }
        shown = name if len(cells) == everything else f"{name} [{len(cells)} of {everything}]"
        lines.append(Line(board.ranks.get(name), shown, values, Cost.of(cells).texts))
    return lines


def value_of(results: Sequence[Result], metric: str) -> Value:
    """The mean over these cells; none where one of them lacks the metric."""
    if any(metric not in r.metrics for r in results):
        return Value()
    return Value(estimate_of(results, metric), metric in METRICS and METRICS[metric].interval)


class Parts(NamedTuple):
    """An attack that is made of several, part by part."""

    parts: Sequence[str]
    lines: Mapping[str, Sequence[Value]]
    """Detector -> robust AUROC of each part, and of the worst of all; the mean over categories."""


def by_category(board: Board) -> dict[str, dict[str, list[Value]]]:
    """Detector -> category -> what the board ranks by: clean, as far as the cell knows it, and after the attack (or as
    certified); nothing in a category that the detector lacks."""
    metrics = (f"clean_{board.score_name}", board.ranked_by)
    found = {}
    for name, results in board.entries:
        cells = {r.category: [value_of([r], m) for m in metrics if m in r.metrics] for r in results}
        found[name] = {category: cells.get(category, []) for category in board.categories}
    return found


def by_part(board: Board) -> Parts | None:
    """None of an attack that is one, and of shifts, see `by_kind`."""
    parts = list(dict.fromkeys(part for r in board.cells for part in r.parts))
    if not parts or board.of_shifts:
        return None
    metrics = [*(f"{part}_auroc" for part in parts), "robust_auroc"]
    return Parts(parts, {name: [value_of(cells, metric) for metric in metrics] for name, cells in board.entries})


class Kinds(NamedTuple):
    """Kinds of shift, each as the mean over its severities and the categories."""

    kinds: Sequence[str]
    lines: Mapping[str, Sequence[float]]
    """Detector -> a number for every kind; nan where a cell lacks it."""


def by_kind(board: Board, metric: str) -> Kinds | None:
    """`auroc`, `false_alarms` or `misses` of a board of kinds of shift; None of any other."""
    if not board.of_shifts or board.of_box:
        return None
    parts = list(dict.fromkeys(part for r in board.cells for part in r.parts))
    kinds = list(dict.fromkeys(part.rpartition("_")[0] for part in parts))
    lines = {}
    for name, cells in board.entries:
        of = {kind: [f"{p}_{metric}" for p in parts if p.rpartition("_")[0] == kind] for kind in kinds}
        lines[name] = [fmean(_point(cells, one) for one in names) for names in of.values()]
    return Kinds(kinds, lines)


def _point(results: Sequence[Result], metric: str) -> float:
    found = value_of(results, metric).estimate
    return math.nan if found is None else found.value
