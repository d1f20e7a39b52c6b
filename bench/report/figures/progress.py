"""How far an attack has come after so many passes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...analysis.boards import boards
from ...cells.result import Result
from ...stats.metrics import points
from . import _plotly as plotly
from ._figure import Lines
from ._plotly import Spec
from ._style import auroc_axis, colour, legend, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Reached(NamedTuple):
    """How far an attack has come."""

    passes: int
    """Forward passes of an image."""
    auroc: float


@dataclass(frozen=True)
class AttackProgress(Lines):
    """AUROC over the passes that the attack has had, a line per detector of a board: the mean over its categories.

    Of the attacks that keep a trace (`Trace`): pgd and apgd and their kin, on detectors that draw no noise. An image
    that leaves early keeps its best, images that the threat model leaves alone their clean score. In a sweep the
    attack starts from what a smaller ball has reached.
    """

    group = "Progress of the attack"
    needs = "pgd or apgd alone on a detector that draws no noise"
    place = 4
    called = "progress"

    board: str
    """Its title."""
    lines: Mapping[str, list[Reached]]

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[AttackProgress]:
        """One per board that ranks by AUROC."""
        found = []
        for board in boards(results):
            if board.ranked_by != "robust_auroc":
                continue
            entries = zip(board.marked_names, board.entries, strict=True)
            lines = {name: reached for name, (_, cells) in entries if (reached := _reached(cells))}
            found += [cls(board.title, lines)] * bool(lines)
        return found

    @property
    def heading(self) -> str:
        return self.board

    def draw(self, axes: Axes) -> None:
        for i, (name, reached) in enumerate(self.lines.items()):
            axes.plot(*zip(*reached, strict=True), label=name, color=colour(i), marker=marker(i), clip_on=False)
        auroc_axis(axes)
        ticks = sorted({p.passes for points in self.lines.values() for p in points})
        last = [b for a, b in itertools.pairwise(ticks) if b < 1.3 * a]  # labels that would touch
        axes.set_xscale("log")
        axes.set_xticks([t for t in ticks if t not in last], [str(t) for t in ticks if t not in last])
        axes.minorticks_off()
        axes.set(title=self.board, xlabel="forward passes of the attack, per image")
        legend(axes, len(self.lines))

    def spec(self) -> Spec:
        traces = [
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": [p.passes for p in reached],
                "y": plotly.rounded(p.auroc for p in reached), "line": {"color": colour(i)},
                "marker": {"symbol": plotly.symbol(i), "size": 8},
            }
            for i, (name, reached) in enumerate(self.lines.items())
        ]  # fmt: skip
        return plotly.chart(
            "AUROC after so many passes of the attack. A curve that still falls at its end says: give it more.",
            traces,
            plotly.axis("forward passes per image", type="log"),
            plotly.auroc_axis("robust AUROC"),
            shapes=[plotly.CHANCE],
        )


def _reached(cells: Sequence[Result]) -> list[Reached]:
    """After every number of passes that all the cells have noted."""
    shared = set.intersection(*(_passes(r) for r in cells))
    return [Reached(k, float(np.mean([_auroc_after(r, k) for r in cells]))) for k in sorted(shared)]


def _auroc_after(result: Result, passes: int) -> float:
    return points(result.table.columns[f"after_{passes}"], result.table.anomalous)["auroc"]


def _passes(result: Result) -> set[int]:
    columns = (re.fullmatch(r"after_(\d+)", name) for name in result.table.columns)
    return {int(match[1]) for match in columns if match}
