"""Figures from results: robust AUROC over the budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import files
from .metrics import Estimate, mean
from .threat import eps_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .report import Result

# Okabe & Ito: told apart by readers with any colour vision, and in grey by the markers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


class Point(NamedTuple):
    eps: Fraction
    auroc: Estimate


def curves(results: Sequence[Result]) -> dict[tuple[str, str, str, str], dict[str, list[Point]]]:
    """(data set and size, attack, norm, targets) -> detector -> robust AUROC at each eps, eps 0 being clean.

    A point is the mean over the categories that the detector has at every budget, so that a curve never
    changes because its categories do.
    """
    groups: dict[tuple[str, str, str, str], dict[str, dict[Fraction, dict[str, Result]]]] = {}
    for r in results:
        seed = f", seed {r.spec['seed']}" if r.spec["seed"] else ""
        key = (f"{r.spec['dataset']}, {r.spec['image_size']} px{seed}", r.attack, r.spec["norm"], r.spec["targets"])
        by_eps = groups.setdefault(key, {}).setdefault(r.detector, {})
        by_eps.setdefault(Fraction(r.spec["eps"]), {})[r.spec["category"]] = r
    found: dict[tuple[str, str, str, str], dict[str, list[Point]]] = {}
    for key, detectors in groups.items():
        for name, by_eps in sorted(detectors.items()):
            shared = sorted(set.intersection(*(set(cells) for cells in by_eps.values())))
            if not shared:
                continue
            first = by_eps[min(by_eps)]
            points = [Point(Fraction(0), mean([first[c].metrics["clean_auroc"] for c in shared]).estimate())]
            points += [
                Point(eps, mean([cells[c].metrics["robust_auroc"] for c in shared]).estimate())
                for eps, cells in sorted(by_eps.items())
            ]
            found.setdefault(key, {})[name] = points
    return found


def draw_curves(lines: dict[str, list[Point]], title: str, norm: str, axes: Axes) -> Axes:
    """Robust AUROC over eps with 95 % intervals, one line per detector."""
    for i, (name, points) in enumerate(lines.items()):
        values = [p.auroc for p in points]
        axes.errorbar(
            [float(p.eps) for p in points],
            [v.value for v in values],
            yerr=[[v.value - v.low for v in values], [v.high - v.value for v in values]],
            label=name,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            capsize=3,
            clip_on=False,
        )
    ticks = sorted({p.eps for points in lines.values() for p in points})
    axes.set_xticks([float(t) for t in ticks], [eps_text(t) if t else "0\n(clean)" for t in ticks])
    axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel=f"budget eps ({norm}, pixels in [0, 1])", ylabel="robust AUROC", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize="small", loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def write_curves(results: Sequence[Result], folder: Path) -> list[Path]:
    """A PNG per data set, attack and norm."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for (data, attack, norm, targets), lines in curves(results).items():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        side = "" if targets == "both" else f", {targets} images attacked"
        draw_curves(lines, f"{data}: {attack}{side}", norm, figure.add_subplot())
        stem = "-".join([data, attack, norm] + [targets] * (targets != "both"))
        path = folder / f"robustness-{re.sub(r'[^A-Za-z0-9.]+', '-', stem).strip('-')}.png"
        with files.writing(path) as partial:
            figure.savefig(partial, format="png", dpi=150)
        written.append(path)
    return written
