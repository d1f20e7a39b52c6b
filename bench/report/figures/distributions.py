"""The scores of a cell, before and after the attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ...analysis.boards import boards
from ...cells.result import Result
from ._plotly import Spec, _axis, _rounded
from ._style import Plot, colour, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_BINS, MOST_BINS = 8, 40
IMAGES_PER_BIN = 3  # on average, between these
Floats = npt.NDArray[np.float64]


class Distribution(NamedTuple):
    """Histograms of a cell on one axis: shares of the images of a class, per bin."""

    edges: Floats
    """(bins + 1,)"""
    normal_before: Floats
    """(bins,), as the others; `before` are clean scores, `after` the attack's, or the bounds of a certificate."""
    anomalous_before: Floats
    normal_after: Floats
    anomalous_after: Floats
    threshold: float
    """nan where nobody has set one."""


def distributions(result: Result) -> Distribution:
    """Over the finite range of all scores; what is infinite, as bounds may be, is in the outermost bins."""
    columns, anomalous = result.table.columns, result.table.anomalous
    clean, worst = columns["clean"], columns["worst"]
    finite = np.concatenate([clean, worst])
    finite = finite[np.isfinite(finite)]
    bins = min(max(len(clean) // IMAGES_PER_BIN, FEWEST_BINS), MOST_BINS)
    edges = np.histogram_bin_edges(finite, bins)

    def shares(scores: Floats) -> Floats:
        counts = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0]
        return counts / max(len(scores), 1)

    return Distribution(
        edges,
        shares(clean[~anomalous]),
        shares(clean[anomalous]),
        shares(worst[~anomalous]),
        shares(worst[anomalous]),
        float(result.record["threshold"]["value"]),
    )


@styled
def draw_distributions(found: Distribution, title: str, axes: Axes, after: str = "after the attack") -> Axes:
    """Before above after, normal solid and anomalous dashed, on one axis of scores; the threshold is dotted."""
    highest = max(max(values) for values in found[1:5])
    above = 1.35 * highest
    panels = (("before", above, found[1:3]), (after, 0.0, found[3:5]))
    for text, base, values in panels:
        for i, (shares, label) in enumerate(zip(values, ("normal", "anomalous"), strict=True)):
            axes.stairs(
                base + shares, found.edges, baseline=base, color=colour(i), linestyle=("-", "--")[i], linewidth=1.3,
                label=label if base else None,
            )  # fmt: skip
            axes.stairs(base + shares, found.edges, baseline=base, fill=True, color=colour(i), alpha=0.15)
        axes.annotate(
            text, (0, base + highest), (3, 6), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="bottom", fontsize="small",
        )  # fmt: skip
    if np.isfinite(found.threshold):
        axes.axvline(found.threshold, color="0.2", linewidth=1, linestyle=":", label="threshold")
    axes.set_yticks([0, highest, above, above + highest], ["0", f"{highest:.0%}"] * 2)
    axes.set(title=title, xlabel="score", ylabel="share of the images of a class", ylim=(0, 2.65 * highest))
    axes.legend(ncols=3, loc="upper right", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)
    return axes


def distribution_plots(results: Sequence[Result]) -> list[Plot]:
    """One per cell: for notebooks, as a report would have thousands."""
    found = []
    for board in boards(results):
        for name, cells in board.entries:
            for r in cells:
                title = f"{board.title}; {r.category}: {name}"
                after = "certified bounds" if r.certificate else "after the attack"
                found.append(Plot(title, f"scores {title}", 1, (6.4, 4.2), partial(_draw, r, title, after)))
    return found


def _draw(result: Result, title: str, after: str, axes: Axes) -> Axes:
    return draw_distributions(distributions(result), title.replace("; ", "\n"), axes, after)


def distribution(r: Result) -> Spec:
    """Scores of normal and anomalous images before and after, as shares of their class."""
    found = distributions(r)
    edges = np.asarray(found.edges, dtype=float)
    middles = [float(f"{m:.4g}") for m in (edges[:-1] + edges[1:]) / 2]
    what = "as certified" if r.certificate else "after"
    sides = (
        ("normal, before", found.normal_before, 0, "dot"),
        ("anomalous, before", found.anomalous_before, 1, "dot"),
        (f"normal, {what}", found.normal_after, 0, "solid"),
        (f"anomalous, {what}", found.anomalous_after, 1, "solid"),
    )
    traces: list[Spec] = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": middles, "y": _rounded(iter(values)),
            "line": {"color": colour(i), "shape": "hvh", "dash": dash},
        }
        for name, values, i, dash in sides
    ]  # fmt: skip
    shapes = []
    if math.isfinite(found.threshold):
        x = float(f"{found.threshold:.5g}")
        line = {"dash": "dash", "width": 1}
        shapes.append({"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line})
    caption = "Scores before (dotted) and after (solid), as shares of their class; the dashed line is the threshold."
    layout = {"xaxis": _axis("score"), "yaxis": _axis("share of the class", rangemode="tozero"), "shapes": shapes}
    return {"data": traces, "layout": layout, "caption": caption}
