"""The critical-difference diagram: mean ranks, and who cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...analysis.compare import Ranks, cliques
from ._figure import Drawing
from ._style import colour, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RanksDiagram(Drawing):
    """Mean ranks on a line, bars over those that cannot be told apart.

    Of the detectors that somebody compares; so it is not a figure that any results have by themselves.
    """

    ranks: Ranks
    metric: str

    @property
    def heading(self) -> str:
        count, p = self.ranks.blocks, self.ranks.p
        return f"{self.metric}: mean rank over {count} data sets (1 is best), p = {p:.2g}"

    @property
    def name(self) -> str:
        return f"ranks {self.metric} {' '.join(self.ranks.ranks)}"

    @property
    def inches(self) -> tuple[float, float]:
        return (8, 0.4 * len(self.ranks.ranks) + 1.8)

    def draw(self, axes: Axes) -> None:
        places = sorted(self.ranks.ranks.items(), key=lambda item: item[1])
        groups = cliques(self.ranks)
        below = 0.4 * (len(groups) + 1)
        for i, (name, place) in enumerate(places):
            axes.plot([place, place], [0, -below - i], color="0.7", linewidth=0.8, zorder=1)
            axes.plot([place], [0], marker=marker(0), color=colour(0), clip_on=False)
            axes.annotate(f" {name} ({place:.2f})", (place, -below - i), va="center", fontsize="small")
        for i, group in enumerate(groups):
            ends = [self.ranks.ranks[name] for name in group]
            axes.plot([min(ends), max(ends)], [-0.4 * (i + 1)] * 2, color=colour(1), linewidth=3, solid_capstyle="butt")
        if (critical := self.ranks.critical) is not None:
            axes.plot([1, 1 + critical], [1, 1], color="0.2", linewidth=1.5)
            axes.annotate(f"critical difference {critical:.2f}", (1, 1.15), fontsize="small")
        axes.set(xlim=(0.9, len(places) + 0.8), ylim=(-below - len(places), 2.2), yticks=[], title=self.heading)
        axes.set_xticks(range(1, len(places) + 1))
        axes.spines[:].set_visible(False)
        axes.spines["top"].set(visible=True, position=("data", 0))
        axes.xaxis.tick_top()


def write_ranks(ranks: Ranks, metric: str, *, out: Path | None = None) -> Path | None:
    """The diagram as a PNG, where somebody has said where: `out`, or None."""
    return None if out is None else RanksDiagram(ranks, metric).write(out)
