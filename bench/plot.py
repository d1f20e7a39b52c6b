"""Figures in a notebook: `bench.plot.robustness("results")`.

There is a function for each kind of figure, called as its file in `bench/report/figures`; `dir(bench.plot)` lists them,
and `help(bench.plot.heat)` says what one shows. Each takes a results folder, what `bench.read_results` returns, or a
list of its results, and returns the matplotlib Axes: those that it is given, or new ones. Where the results make
several such figures, `title` is that of one, or a part of it that no other has; without it the first is drawn.
`titles(kind, results)` lists them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .cells.reader import Results, read_results
from .cells.result import Result
from .errors import UserError, unknown
from .report.figures import Figure, kinds, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Source = str | Path | Results | Sequence[Result]

TITLES_SHOWN = 5  # in an error


class Plot(Protocol):
    """Draws a figure of one kind, into `axes` or into new ones."""

    def __call__(self, results: Source, title: str | None = None, axes: Axes | None = None) -> Axes: ...


def titles(kind: str, results: Source) -> list[str]:
    """Of all figures of a kind, such as `heat`, that these results make."""
    return [figure.title for figure in _figures(kind, results)]


def __getattr__(name: str) -> Plot:
    """The function of a kind."""
    if name not in kinds():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _function(name)


def __dir__() -> list[str]:
    return sorted([*kinds(), "titles"])


@functools.cache
def _function(kind: str) -> Plot:
    def plot(results: Source, title: str | None = None, axes: Axes | None = None) -> Axes:
        return _drawn(_chosen(kind, _figures(kind, results), title), axes)

    plot.__name__ = plot.__qualname__ = kind
    plot.__doc__ = kinds()[kind].__doc__
    return plot


def _figures(kind: str, results: Source) -> Sequence[Figure]:
    if kind not in kinds():
        raise unknown("kind of plot", kind, kinds())
    if isinstance(results, (str, Path)):
        results = read_results(results)
    return kinds()[kind].made_of(results.results if isinstance(results, Results) else results)


def _chosen(kind: str, found: Sequence[Figure], title: str | None) -> Figure:
    if not found:
        raise UserError(f"nothing for a plot of {kind} in these results: it needs {kinds()[kind].needs}")
    if title is None:
        return found[0]
    fitting = [figure for figure in found if figure.title == title] or [f for f in found if title in f.title]
    if len(fitting) != 1:
        what = "is part of several titles" if fitting else "is part of no title"
        shown = "; ".join(figure.title for figure in (fitting or found)[:TITLES_SHOWN])
        raise UserError(f"{title!r} {what}: {shown}; bench.plot.titles({kind!r}, results) lists all of them")
    return fitting[0]


def _drawn(figure: Figure, axes: Axes | None) -> Axes:
    with style():
        if axes is None:
            import matplotlib.pyplot as plt

            window, axes = plt.subplots(figsize=figure.inches)
            figure.draw(axes)
            window.draw_without_rendering()  # ticks take their style when they are first drawn
        else:
            figure.draw(axes)
    return axes
