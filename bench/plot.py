"""Figures in a notebook: `bench.plot.robustness("results")`.

Each function takes a results folder, what `bench.read_results` returns, or a list of its results, and returns the
matplotlib Axes: those that it is given, or new ones. Where the results make several such figures, `title` is that of
one, or a part of it that no other has; without it the first is drawn. `titles(kind, results)` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cells.reader import Results, read_results
from .cells.result import Result
from .errors import UserError, unknown
from .report.figures import KINDS
from .report.figures import _style as figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Source = str | Path | Results | Sequence[Result]

__all__ = [
    "brackets", "distributions", "heat", "progress", "purification", "radii", "robustness", "titles", "tradeoff",
]  # fmt: skip


def robustness(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """Robust AUROC over the budget, a line per detector."""
    return _drawn("robustness", results, title, axes)


def tradeoff(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """Robust over clean AUROC, a point per detector of a data set and threat model."""
    return _drawn("tradeoff", results, title, axes)


def heat(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """Robust AUROC per category and detector of a board."""
    return _drawn("heat", results, title, axes)


def distributions(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """The scores of one cell, before and after the attack."""
    return _drawn("distributions", results, title, axes)


def progress(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """AUROC over the passes that the attack has had, a line per detector of a board."""
    return _drawn("progress", results, title, axes)


def purification(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """Clean and robust AUROC over the level of a purifier."""
    return _drawn("purification", results, title, axes)


def brackets(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """Certified and attacked AUROC of a smoothed detector over the radius."""
    return _drawn("brackets", results, title, axes)


def radii(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
    """Share of images still right over the size of the perturbation, as a minimum-norm attack found it."""
    return _drawn("radii", results, title, axes)


def titles(kind: str, results: Source) -> list[str]:
    """Of all figures of a kind, such as `heat`, that these results make."""
    return [plot.title for plot in _plots(kind, results)]


TITLES_SHOWN = 5  # in an error

NEEDS = {
    "robustness": "attacks with --goal rank",
    "tradeoff": "two detectors under one threat model with --goal rank",
    "heat": "two categories under one attack with --goal rank",
    "progress": "pgd or apgd alone on a detector that draws no noise",
    "purification": "a purifier at two levels",
    "brackets": "certificates",
    "radii": "a minimum-norm attack, fab or ddn",
}


def _plots(kind: str, results: Source) -> list[figures.Plot]:
    if kind not in KINDS:
        raise unknown("kind of plot", kind, KINDS)
    if isinstance(results, (str, Path)):
        results = read_results(results)
    return KINDS[kind](results.results if isinstance(results, Results) else results)


def _drawn(kind: str, results: Source, title: str | None, axes: Axes | None) -> Axes:
    plot = _chosen(kind, _plots(kind, results), title)
    if axes is not None:
        return plot.draw(axes)
    import matplotlib.pyplot as plt

    with figures.style():
        figure, axes = plt.subplots(figsize=plot.inches)
        plot.draw(axes)
        figure.draw_without_rendering()  # ticks take their style when they are first drawn
    return axes


def _chosen(kind: str, found: Sequence[figures.Plot], title: str | None) -> figures.Plot:
    if not found:
        raise UserError(f"nothing for a plot of {kind} in these results: it needs {NEEDS.get(kind, 'a finished cell')}")
    if title is None:
        return found[0]
    fitting = [plot for plot in found if plot.title == title] or [plot for plot in found if title in plot.title]
    if len(fitting) != 1:
        what = "is part of several titles" if fitting else "is part of no title"
        shown = "; ".join(plot.title for plot in (fitting or found)[:TITLES_SHOWN])
        raise UserError(f"{title!r} {what}: {shown}; bench.plot.titles({kind!r}, results) lists all of them")
    return fitting[0]
