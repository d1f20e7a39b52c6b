"""What robustness costs: robust over clean AUROC, a point per detector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...analysis.boards import estimate_of, lacking
from ...analysis.overview import Overview, overviews
from ...cells.result import Result
from ...stats.metrics import Estimate
from ._plotly import Figure, Spec, _auroc, _figure, _rounded, _symbol
from ._style import FAINT, Plot, arms, colour, marker, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS_INSIDE = 8  # points; of more the names are beside the plot, by number, and of longer names below it
LONGEST_LABEL = 24
CHARACTER = (5.0, 10.0)  # width and height in points, small type
OFFSETS = (7, 13, 21, 31, 43)  # from a point to its label, in points
DIRECTIONS = 12
POINT = 4.0  # half the width of a marker with some air, in points
DARKER = 0.75  # of a point's colour: a name in it is legible on white


class Tradeoff(NamedTuple):
    """One detector: mean over the categories that it has."""

    detector: str
    clean: Estimate
    robust: Estimate
    ranked: bool
    scope: str = ""
    """`3 of 15 categories`, where it lacks some that others have."""

    @property
    def label(self) -> str:
        """With what a reader must know before comparing."""
        notes = ", ".join(filter(None, (self.scope, "" if self.ranked else "not ranked")))
        return f"{self.detector} ({notes})" if notes else self.detector


def tradeoff(results: Sequence[Result]) -> dict[str, list[Tradeoff]]:
    """Data set and threat model -> clean and robust AUROC of all detectors that met it, two or more: under the attack
    that counts, as in the table of the data set."""
    found = {}
    for overview in overviews(results):
        for title, (metric, cells) in overview.columns.items():
            if metric == "robust_auroc" and len(cells) > 1:
                points = [_tradeoff(overview, name, cells[name]) for name in overview.detectors if name in cells]
                found[f"{overview.title}, {title.removeprefix('robust AUROC ')}"] = points
    return found


def _tradeoff(overview: Overview, name: str, cells: Sequence[Result]) -> Tradeoff:
    clean, robust = (estimate_of(cells, metric) for metric in ("clean_auroc", "robust_auroc"))
    return Tradeoff(name, clean, robust, name not in overview.unranked, lacking(cells, overview.categories))


@styled
def draw_tradeoff(points: Sequence[Tradeoff], title: str, axes: Axes) -> Axes:
    """Robust over clean AUROC, both with 95 % intervals, a point per detector; hollow ones are not ranked.

    On the line, the attack costs nothing.
    """
    left = max(min(p.clean.low for p in points) - 0.03, 0)
    axes.set(title=title, xlabel="clean AUROC", ylabel="robust AUROC", xlim=(left, 1.01), ylim=(0, 1.02))
    axes.plot([left, 1], [left, 1], color=FAINT, linewidth=0.8, linestyle=":")
    axes.text(
        left, left, " no loss", color="0.4", fontsize="small", va="bottom", rotation=45, rotation_mode="anchor",
        transform_rotates_text=True,
    )  # fmt: skip
    for i, p in enumerate(points):
        axes.errorbar(
            p.clean.value, p.robust.value, xerr=arms([p.clean]), yerr=arms([p.robust]), fmt=marker(i), color=colour(i),
            markerfacecolor=colour(i) if p.ranked else "white", elinewidth=0.7, capsize=0, clip_on=False, zorder=3,
            label=f"{i + 1}  {p.label}",
        )  # fmt: skip
    numbered = by_number(points)
    labels = [str(i + 1) if numbered else p.label for i, p in enumerate(points)]
    _label(axes, points, labels)
    if len(points) > LABELS_INSIDE:
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    elif numbered:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13))
    return axes


def by_number(points: Sequence[Tradeoff]) -> bool:
    """Whether the names are beside or below the plot: they would not fit into it."""
    return len(points) > LABELS_INSIDE or max(len(p.label) for p in points) > LONGEST_LABEL


def _label(axes: Axes, points: Sequence[Tradeoff], labels: Sequence[str]) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

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
    where = placed(at, sizes, corners, () if by_number(points) else arms_at)
    for i, (point, label, offset, far) in enumerate(zip(centres, labels, *where, strict=True)):
        ink = tuple(DARKER * part for part in to_rgb(colour(i)))
        line: dict[str, Any] = {"arrowstyle": "-", "color": ink, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2}
        axes.annotate(
            label, point, tuple(offset), textcoords="offset points", ha="center", va="center", fontsize="small",
            color=ink, path_effects=[withStroke(linewidth=2, foreground="white")], arrowprops=line if far else None,
            zorder=4,
        )  # fmt: skip


def placed(at: Any, sizes: Any, corners: Any, lines: Any = ()) -> tuple[npt.NDArray[np.float64], list[bool]]:
    """Where the labels of points go: the offset of the centre of each (n, 2), and whether it is far from its point.

    at (n, 2), sizes (n, 2) of the labels, corners (2, 2) of the panel and the ends of lines (m, 2, 2) along the axes,
    low end first, have one unit. One after another, each at the nearest place that is free, or else least covered.
    """
    offsets, far = np.zeros((len(at), 2)), [False] * len(at)
    taken = [(point - POINT, point + POINT) for point in at] + [(low - 1, high + 1) for low, high in lines]
    for i, size in enumerate(sizes):
        best = math.inf
        for ring, distance in enumerate(OFFSETS):
            for turn in range(DIRECTIONS):
                angle = 2 * math.pi * turn / DIRECTIONS
                way = np.array([math.cos(angle), math.sin(angle)])
                offset = way * (distance + size / 2 * np.abs(way))
                low, high = at[i] + offset - size / 2, at[i] + offset + size / 2
                outside = np.maximum(corners[0] - low, 0).sum() + np.maximum(high - corners[1], 0).sum()
                covered = sum(_shared(low, high, *other) for other in taken)
                cost = covered + 100 * outside + ring
                if cost < best:
                    best, offsets[i], far[i], box = cost, offset, ring > 0, (low, high)
        taken.append(box)
    return offsets, far


def _shared(low: Any, high: Any, other_low: Any, other_high: Any) -> float:
    """The area that two boxes share."""
    return float(np.prod(np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0)))


def tradeoff_plots(results: Sequence[Result]) -> list[Plot]:
    """One per data set and threat model."""
    found = []
    for title, points in tradeoff(results).items():
        beside = 0.07 * max(len(p.label) for p in points) + 0.5 if len(points) > LABELS_INSIDE else 0.0
        inches = (6.8 + beside, max(5.0, 0.22 * len(points) + 0.6))
        draw = partial(draw_tradeoff, points, title)
        found.append(Plot(title, f"tradeoff {title}", len(points), inches, draw))
    return found


def _plotly_tradeoff(results: Sequence[Result]) -> Iterator[Figure]:
    for title, points in tradeoff(results).items():
        traces = []
        for i, p in enumerate(points):
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": p.label,
                    "x": [round(p.clean.value, 4)], "y": [round(p.robust.value, 4)],
                    "error_x": _error(p.clean), "error_y": _error(p.robust),
                    "marker": {"size": 11, "color": colour(i),
                               "symbol": _symbol(i) + "-open" * (not p.ranked)},
                }
            )  # fmt: skip
        yield _figure(
            "Clean against robust",
            title,
            "Clean against robust AUROC, each with its 95 % interval. On the diagonal an attack takes nothing.",
            traces,
            _auroc("clean AUROC"),
            _auroc("robust AUROC"),
            shapes=[{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"dash": "dot", "width": 1}}],
        )


def _error(value: Estimate) -> Spec:
    above, below = _rounded(iter([value.high - value.value, value.value - value.low]))
    return {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below], "thickness": 1}
