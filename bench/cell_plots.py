"""Figures of cells: the scores before and after the attack, and how far the attack came with its passes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from .boards import boards
from .figures import Plot, auroc_axis, colour, legend, marker, size, styled
from .metrics import points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .cells import Result

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
