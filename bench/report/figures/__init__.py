"""Figures from results, a file per kind."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...cells.result import Result
from ._plotly import Figure
from ._style import Plot, stem
from .brackets import _brackets, bracket_plots
from .distributions import distribution_plots
from .heat import _heat, heat_plots
from .progress import _progress, progress_plots
from .purification import _purification, purification_plots
from .radii import _radii, radius_plots
from .robustness import _curves, curve_plots
from .tradeoff import _plotly_tradeoff, tradeoff_plots

MOST_FILES = 6
"""That `write_plots` makes: each takes half a second, and the page draws all of them."""


KINDS: Mapping[str, Callable[[Sequence[Result]], list[Plot]]] = {
    "robustness": curve_plots,
    "tradeoff": tradeoff_plots,
    "heat": heat_plots,
    "progress": progress_plots,
    "purification": purification_plots,
    "radii": radius_plots,
    "brackets": bracket_plots,
    "distributions": distribution_plots,
}
"""By the names of `bench.plot`."""
OF_CELLS = ("distributions",)
"""Kinds with a figure per cell: too many for a report."""


class Written(NamedTuple):
    paths: list[Path]
    notes: list[str]
    """A sentence for each kind of which some were left out."""


def write_plots(results: Sequence[Result], folder: Path) -> Written:
    """Every figure that these results have something for, but not those of cells, as PNG; no more than MOST_FILES.

    Where there are more, the kinds take turns, each with the figure of the most detectors that is left; what comes
    last is left out.
    """
    plots = {kind: make(results) for kind, make in KINDS.items() if kind not in OF_CELLS}
    kept = {kind: {id(plot) for plot in chosen} for kind, chosen in _bounded(plots).items()}
    stems = Counter(stem(plot.name).casefold() for found in plots.values() for plot in found)
    paths, notes = list[Path](), list[str]()
    for kind, found in plots.items():
        paths += [
            plot.write(folder, hashed=stems[stem(plot.name).casefold()] > 1) for plot in found if id(plot) in kept[kind]
        ]
        if left := len(found) - len(kept[kind]):
            notes.append(
                f"{left} of {len(found)} {kind} plots are left out, those of the fewest detectors; "
                "the page has all, and `bench report --filter` makes those of a part of the results"
            )
    return Written(paths, notes)


def _bounded(plots: Mapping[str, Sequence[Plot]]) -> dict[str, list[Plot]]:
    """At most MOST_FILES of them."""
    ordered = {kind: sorted(found, key=lambda plot: -plot.detectors) for kind, found in plots.items()}
    turns = itertools.chain.from_iterable(itertools.zip_longest(*ordered.values()))
    first = {id(plot) for plot in itertools.islice((plot for plot in turns if plot), MOST_FILES)}
    return {kind: [plot for plot in found if id(plot) in first] for kind, found in ordered.items()}


def figures(results: Sequence[Result]) -> list[Figure]:
    """Every figure that these results have something for."""
    return [
        *_curves(results), *_plotly_tradeoff(results), *_heat(results), *_brackets(results), *_purification(results),
        *_progress(results), *_radii(results),
    ]  # fmt: skip
