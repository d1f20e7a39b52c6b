"""The scores of a cell, before and after the attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ...analysis.boards import boards
from ...cells.result import Result
from . import _plotly as plotly
from ._figure import Figure
from ._plotly import Spec
from ._style import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_BINS, MOST_BINS = 8, 40
IMAGES_PER_BIN = 3  # on average, between these
Floats = npt.NDArray[np.float64]


class Histograms(NamedTuple):
    """Of a cell, on one axis: shares of the images of a class, per bin."""

    edges: Floats
    """(bins + 1,)"""
    normal_before: Floats
    """(bins,), as the others; `before` are clean scores, `after` the attack's, or the bounds of a certificate."""
    anomalous_before: Floats
    normal_after: Floats
    anomalous_after: Floats

    @classmethod
    def of(cls, r: Result) -> Histograms:
        """Over the finite range of all scores; what is infinite, as bounds may be, is in the outermost bins."""
        columns, anomalous = r.table.columns, r.table.anomalous
        clean, worst = columns["clean"], columns["worst"]
        finite = np.concatenate([clean, worst])
        finite = finite[np.isfinite(finite)]
        edges = np.histogram_bin_edges(finite, min(max(len(clean) // IMAGES_PER_BIN, FEWEST_BINS), MOST_BINS))

        def shares(scores: Floats) -> Floats:
            counts = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0]
            return counts / max(len(scores), 1)

        return cls(
            edges, shares(clean[~anomalous]), shares(clean[anomalous]), shares(worst[~anomalous]),
            shares(worst[anomalous]),
        )  # fmt: skip


@dataclass(frozen=True)
class Distributions(Figure):
    """The scores of one cell before and after the attack, normal and anomalous, on one axis; the threshold is a line
    across."""

    group = "Scores before and after"
    needs = "a finished cell"
    place = 8
    of_cells = True

    cell: Result
    where: str = ""
    """Its board, its category and its detector."""
    shows = 1

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Distributions]:
        """One per cell."""
        return [
            cls(r, f"{board.title}; {r.category}: {name}")
            for board in boards(results)
            for name, cells in board.entries
            for r in cells
        ]

    @cached_property
    def histograms(self) -> Histograms:
        return Histograms.of(self.cell)

    @property
    def threshold(self) -> float:
        """nan where nobody has set one."""
        return float(self.cell.record.threshold.value)

    @property
    def heading(self) -> str:
        return self.where.replace("; ", "\n")

    @property
    def title(self) -> str:
        return self.where

    @property
    def name(self) -> str:
        return f"scores {self.where}"

    @property
    def inches(self) -> tuple[float, float]:
        return (6.4, 4.2)

    def draw(self, axes: Axes) -> None:
        """Before above after, normal solid and anomalous dashed."""
        edges, *shares = self.histograms
        highest = max(max(values) for values in shares)
        above = 1.35 * highest
        after = "certified bounds" if self.cell.certificate else "after the attack"
        for text, base, classes in (("before", above, shares[:2]), (after, 0.0, shares[2:])):
            for i, (values, label) in enumerate(zip(classes, ("normal", "anomalous"), strict=True)):
                axes.stairs(
                    base + values, edges, baseline=base, color=colour(i), linestyle=("-", "--")[i], linewidth=1.3,
                    label=label if base else None,
                )  # fmt: skip
                axes.stairs(base + values, edges, baseline=base, fill=True, color=colour(i), alpha=0.15)
            axes.annotate(
                text, (0, base + highest), (3, 6), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="bottom", fontsize="small",
            )  # fmt: skip
        if np.isfinite(self.threshold):
            axes.axvline(self.threshold, color="0.2", linewidth=1, linestyle=":", label="threshold")
        axes.set_yticks([0, highest, above, above + highest], ["0", f"{highest:.0%}"] * 2)
        axes.set(title=self.heading, xlabel="score", ylabel="share of the images of a class", ylim=(0, 2.65 * highest))
        axes.legend(ncols=3, loc="upper right", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)

    def spec(self) -> Spec:
        edges, *shares = self.histograms
        middles = [float(f"{m:.4g}") for m in (edges[:-1] + edges[1:]) / 2]
        what = "as certified" if self.cell.certificate else "after"
        sides = (
            ("normal, before", 0, "dot"), ("anomalous, before", 1, "dot"), (f"normal, {what}", 0, "solid"),
            (f"anomalous, {what}", 1, "solid"),
        )  # fmt: skip
        traces = [
            {
                "type": "scatter", "mode": "lines", "name": name, "x": middles, "y": plotly.rounded(values),
                "line": {"color": colour(i), "shape": "hvh", "dash": dash},
            }
            for (name, i, dash), values in zip(sides, shares, strict=True)
        ]  # fmt: skip
        return plotly.chart(
            "Scores before (dotted) and after (solid), as shares of their class; the dashed line is the threshold.",
            traces,
            plotly.axis("score"),
            plotly.axis("share of the class", rangemode="tozero"),
            shapes=_upright(self.threshold),
        )


def _upright(threshold: float) -> list[Spec]:
    """A line across the panel; none at nan."""
    if not np.isfinite(threshold):
        return []
    x = float(f"{threshold:.5g}")
    line = {"dash": "dash", "width": 1}
    return [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line}]
