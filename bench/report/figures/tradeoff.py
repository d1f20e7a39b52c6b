"""What robustness costs: robust over clean AUROC, a point per detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...analysis.boards import estimate_of, lacking
from ...analysis.overview import Overview, overviews
from ...cells.result import Result
from ...stats.intervals import Estimate
from . import _plotly as plotly
from ._figure import Figure
from ._labels import placed
from ._plotly import Spec
from ._style import FAINT, arms, colour, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROBUST, CERTIFIED = "robust AUROC ", "certified AUROC "  # the board's titles, before the threat model
LABELS_INSIDE = 8  # points; of more the names are beside the plot, by number, and of longer names below it
LONGEST_LABEL = 24
CHARACTER = (5.0, 10.0)  # width and height in points, small type
DARKER = 0.75  # of a point's colour: a name in it is legible on white


class Point(NamedTuple):
    """One detector: mean over the categories that it has."""

    detector: str
    clean: Estimate
    robust: Estimate
    ranked: bool
    scope: str = ""
    """`3 of 15 categories`, where it lacks some that others have."""
    certified: Estimate | None = None
    """Below that no attack in this ball can go; of as many categories as it was attacked on."""

    @property
    def label(self) -> str:
        """With what a reader must know before comparing."""
        notes = ", ".join(filter(None, (self.scope, "" if self.ranked else "not ranked")))
        return f"{self.detector} ({notes})" if notes else self.detector


@dataclass(frozen=True)
class Tradeoff(Figure):
    """Robust over clean AUROC, both with 95 % intervals, a point per detector of a data set and threat model; hollow
    ones are not ranked.

    Under the attack that counts, as in the table of the data set. On the line, the attack costs nothing. A bar below a
    point is what is certified in the same ball.
    """

    group = "Clean against robust"
    needs = "two detectors under one threat model with --goal rank"
    place = 2

    where: str
    """Data set and threat model."""
    points: Sequence[Point]

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Tradeoff]:
        """One per data set and threat model that two detectors or more have met."""
        return [
            cls(
                cls.place_of(overview.title, title),
                [_point(overview, name, title) for name in overview.detectors if name in column.cells],
            )
            for overview in overviews(results)
            for title, column in overview.columns.items()
            if column.metric == "robust_auroc" and len(column.cells) > 1
        ]

    @staticmethod
    def place_of(board: str, column: str) -> str:
        """`where` of the figure of a board's column."""
        return f"{board}, {column.removeprefix(ROBUST)}"

    @property
    def heading(self) -> str:
        return self.where

    @property
    def name(self) -> str:
        return f"tradeoff {self.where}"

    @property
    def shows(self) -> int:
        return len(self.points)

    @property
    def inches(self) -> tuple[float, float]:
        many = len(self.points) > LABELS_INSIDE
        beside = 0.07 * max(len(p.label) for p in self.points) + 0.5 if many else 0.0
        return (6.8 + beside, max(5.0, 0.22 * len(self.points) + 0.6))

    @property
    def by_number(self) -> bool:
        """Whether the names are beside or below the plot: they would not fit into it."""
        return len(self.points) > LABELS_INSIDE or max(len(p.label) for p in self.points) > LONGEST_LABEL

    @property
    def _left(self) -> float:
        """Where the clean AUROCs begin."""
        return max(min(p.clean.low for p in self.points) - 0.03, 0)

    def draw(self, axes: Axes) -> None:
        left = self._left
        axes.set(title=self.heading, xlabel="clean AUROC", ylabel="robust AUROC", xlim=(left, 1.01), ylim=(0, 1.02))
        axes.plot([left, 1], [left, 1], color=FAINT, linewidth=0.8, linestyle=":")
        axes.text(
            left, left, " no loss", color="0.4", fontsize="small", va="bottom", rotation=45, rotation_mode="anchor",
            transform_rotates_text=True,
        )  # fmt: skip
        for i, p in enumerate(self.points):
            axes.errorbar(
                p.clean.value, p.robust.value, xerr=arms([p.clean]), yerr=arms([p.robust]), fmt=marker(i),
                color=colour(i), markerfacecolor=colour(i) if p.ranked else "white", elinewidth=0.7, capsize=0,
                clip_on=False, zorder=3, label=f"{i + 1}  {p.label}",
            )  # fmt: skip
            if p.certified is not None:
                x, low, high = p.clean.value, p.certified.value, p.robust.value
                axes.plot([x, x], [low, high], color=colour(i), linewidth=2.5, alpha=0.5, solid_capstyle="butt")
                axes.plot(x, low, marker="_", markersize=14, markeredgewidth=2, color=colour(i), clip_on=False)
        _label(axes, self.points, self.by_number)
        if len(self.points) > LABELS_INSIDE:
            axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        elif self.by_number:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13))

    def spec(self) -> Spec:
        return plotly.chart(
            "Clean against robust AUROC, each with its 95 % interval. On the diagonal an attack takes nothing. A bar "
            "is what is certified: below it no attack can go.",
            [trace for i, p in enumerate(self.points) for trace in _traces(p, i)],
            plotly.axis("clean AUROC", range=[self._left, 1.01]),
            plotly.auroc_axis("robust AUROC"),
            shapes=[
                {
                    "type": "line",
                    "x0": self._left,
                    "y0": self._left,
                    "x1": 1,
                    "y1": 1,
                    "line": {"dash": "dot", "width": 1},
                }
            ],
        )


def _point(overview: Overview, name: str, title: str) -> Point:
    cells = overview.columns[title].cells[name]
    clean, robust = (estimate_of(cells, metric) for metric in ("clean_auroc", "robust_auroc"))
    bounded = overview.columns.get(title.replace(ROBUST, CERTIFIED))
    proved = bounded.cells.get(name, ()) if bounded else ()
    same = {r.category for r in proved} == {r.category for r in cells}
    certified = estimate_of(proved, "certified_auroc") if same else None
    return Point(name, clean, robust, name not in overview.unranked, lacking(cells, overview.categories), certified)


def _traces(p: Point, i: int) -> list[Spec]:
    """The point, and a bar at what is certified."""
    if p.certified is None:
        return [_trace(p, i)]
    bar: Spec = {
        "type": "scatter", "mode": "markers", "name": f"{p.detector}, certified",
        "x": [round(p.clean.value, 4)], "y": [round(p.certified.value, 4)],
        "error_y": plotly.error_bars([p.certified]),
        "marker": {"size": 16, "color": colour(i), "symbol": "line-ew-open", "line": {"width": 3}},
    }  # fmt: skip
    return [_trace(p, i), bar]


def _trace(p: Point, i: int) -> Spec:
    return {
        "type": "scatter", "mode": "markers", "name": p.label,
        "x": [round(p.clean.value, 4)], "y": [round(p.robust.value, 4)],
        "error_x": plotly.error_bars([p.clean]), "error_y": plotly.error_bars([p.robust]),
        "marker": {"size": 11, "color": colour(i), "symbol": plotly.symbol(i) + "-open" * (not p.ranked)},
    }  # fmt: skip


def _label(axes: Axes, points: Sequence[Point], by_number: bool) -> None:
    """Every point, by its number or by its name."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    labels = [str(i + 1) if by_number else p.label for i, p in enumerate(points)]
    figure = axes.get_figure()
    assert figure is not None
    in_points = 72 / figure.dpi
    centres = [(p.clean.value, p.robust.value) for p in points]
    ends = [((p.clean.low, p.robust.value), (p.clean.high, p.robust.value)) for p in points]
    ends += [((p.clean.value, p.robust.low), (p.clean.value, p.robust.high)) for p in points]
    at = axes.transData.transform(centres) * in_points
    arms_at = axes.transData.transform(np.reshape(ends, (-1, 2))).reshape(-1, 2, 2) * in_points
    sizes = np.array([[CHARACTER[0] * len(label), CHARACTER[1]] for label in labels])
    box = axes.get_window_extent()
    corners = np.array([[box.x0, box.y0], [box.x1, box.y1]]) * in_points
    where = placed(at, sizes, corners, () if by_number else arms_at)
    for i, (point, label, offset, far) in enumerate(zip(centres, labels, *where, strict=True)):
        ink = tuple(DARKER * part for part in to_rgb(colour(i)))
        line: dict[str, Any] = {"arrowstyle": "-", "color": ink, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2}
        axes.annotate(
            label, point, tuple(offset), textcoords="offset points", ha="center", va="center", fontsize="small",
            color=ink, path_effects=[withStroke(linewidth=2, foreground="white")], arrowprops=line if far else None,
            zorder=4,
        )  # fmt: skip
