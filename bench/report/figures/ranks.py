"""The critical-difference diagram: mean ranks, and who cannot be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...analysis.compare import Ranks, cliques
from ._style import colour, marker, new, save, style, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def draw_ranks(ranks: Ranks, title: str, axes: Axes) -> Axes:
    """The critical-difference diagram: mean ranks on a line, bars over those that cannot be told apart."""
    ordered = sorted(ranks.ranks, key=lambda name: ranks.ranks[name])
    groups = cliques(ranks)
    below = 0.4 * (len(groups) + 1)
    for i, name in enumerate(ordered):
        place = ranks.ranks[name]
        axes.plot([place, place], [0, -below - i], color="0.7", linewidth=0.8, zorder=1)
        axes.plot([place], [0], marker=marker(0), color=colour(0), clip_on=False)
        axes.annotate(f" {name} ({place:.2f})", (place, -below - i), va="center", fontsize="small")
    for i, group in enumerate(groups):
        ends = [ranks.ranks[name] for name in group]
        axes.plot([min(ends), max(ends)], [-0.4 * (i + 1)] * 2, color=colour(1), linewidth=3, solid_capstyle="butt")
    if ranks.critical is not None:
        axes.plot([1, 1 + ranks.critical], [1, 1], color="0.2", linewidth=1.5)
        axes.annotate(f"critical difference {ranks.critical:.2f}", (1, 1.15), fontsize="small")
    axes.set(xlim=(0.9, len(ordered) + 0.8), ylim=(-below - len(ordered), 2.2), yticks=[])
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.set_title(f"{title}: mean rank over {ranks.blocks} data sets (1 is best), p = {ranks.p:.2g}")
    axes.spines[:].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    axes.xaxis.tick_top()
    return axes


def write_ranks(ranks: Ranks, title: str, folder: Path) -> Path:
    """The critical-difference diagram as a PNG."""
    figure = new((8, 0.4 * len(ranks.ranks) + 1.8))
    with style():
        draw_ranks(ranks, title, figure.add_subplot())
    return save(figure, folder, f"ranks {title} {' '.join(ranks.ranks)}")
