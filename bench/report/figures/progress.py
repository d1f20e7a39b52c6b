"""How far an attack has come after so many passes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...analysis.boards import boards
from ...cells.result import Result
from ...stats.metrics import points
from ._plotly import CHANCE, Figure, _auroc, _axis, _figure, _rounded, _symbol
from ._style import Plot, auroc_axis, colour, legend, marker, size, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Reached(NamedTuple):
    """How far an attack has come."""

    passes: int
    """Forward passes of an image."""
    auroc: float


def progress(results: Sequence[Result]) -> dict[str, dict[str, list[Reached]]]:
    """Board -> detector -> AUROC after so many passes, mean over its categories; of boards that rank by AUROC.

    Of the attacks that keep a trace (`Trace`): pgd and apgd and their kin, on detectors that draw no noise. An image
    that leaves early keeps its best, images that the threat model leaves alone their clean score. In a sweep the
    attack starts from what a smaller ball has reached.
    """
    found: dict[str, dict[str, list[Reached]]] = {}
    for board in boards(results):
        if board.ranked_by != "robust_auroc":
            continue
        for name, cells in board.entries:
            shared = set.intersection(*(_passes(r) for r in cells))
            reached = [Reached(k, float(np.mean([_auroc_after(r, k) for r in cells]))) for k in sorted(shared)]
            if reached:
                shown = f"{name} (not ranked)" if name in board.unranked else name
                found.setdefault(board.title, {})[shown] = reached
    return found


def _auroc_after(result: Result, passes: int) -> float:
    return points(result.table.columns[f"after_{passes}"], result.table.anomalous)["auroc"]


def _passes(result: Result) -> set[int]:
    columns = (re.fullmatch(r"after_(\d+)", name) for name in result.table.columns)
    return {int(match[1]) for match in columns if match}


@styled
def draw_progress(lines: dict[str, list[Reached]], title: str, axes: Axes) -> Axes:
    """AUROC over the passes that the attack has had, one line per detector."""
    for i, (name, reached) in enumerate(lines.items()):
        axes.plot(*zip(*reached, strict=True), label=name, color=colour(i), marker=marker(i), clip_on=False)
    auroc_axis(axes)
    ticks = sorted({p.passes for points in lines.values() for p in points})
    last = [b for a, b in itertools.pairwise(ticks) if b < 1.3 * a]  # labels that would touch
    axes.set_xscale("log")
    axes.set_xticks([t for t in ticks if t not in last], [str(t) for t in ticks if t not in last])
    axes.minorticks_off()
    axes.set(title=title, xlabel="forward passes of the attack, per image")
    legend(axes, len(lines))
    return axes


def progress_plots(results: Sequence[Result]) -> list[Plot]:
    """One per board."""
    return [
        Plot(title, f"progress {title}", len(lines), size(len(lines)), partial(draw_progress, lines, title))
        for title, lines in progress(results).items()
    ]


def _progress(results: Sequence[Result]) -> Iterator[Figure]:
    for title, lines in progress(results).items():
        traces = [
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": [k for k, _ in points],
                "y": _rounded(v for _, v in points), "line": {"color": colour(i)},
                "marker": {"symbol": _symbol(i), "size": 8},
            }
            for i, (name, points) in enumerate(lines.items())
        ]  # fmt: skip
        yield _figure(
            "Progress of the attack",
            title,
            "AUROC after so many passes of the attack. A curve that still falls at its end says: give it more.",
            traces,
            _axis("forward passes per image", type="log"),
            _auroc("robust AUROC"),
            shapes=[CHANCE],
        )
