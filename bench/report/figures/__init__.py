"""Figures from results. A file is a kind: to add one, add a file with a class of `_figure.Figure`."""

from __future__ import annotations

import functools
import importlib
import itertools
import pkgutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...cells.result import Result
from ._figure import Figure
from ._style import stem, style

__all__ = ["Figure", "Written", "figures_of", "kinds", "style", "write_figures"]

MOST_FILES = 6
"""That `write_figures` makes: each takes half a second, and the page draws all of them."""


@functools.cache
def kinds() -> Mapping[str, type[Figure]]:
    """The kinds by their files' names, in the order in which a reader meets them."""
    names = [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in sorted(names)]
    found = {module.__name__.rpartition(".")[2]: kind for module in modules if (kind := _kind_in(vars(module)))}
    return dict(sorted(found.items(), key=lambda item: item[1].place))


def _kind_in(module: Mapping[str, object]) -> type[Figure] | None:
    """The figure that a file defines; None of one that holds another drawing."""
    for found in module.values():
        if isinstance(found, type) and issubclass(found, Figure) and found.__module__ == module["__name__"]:
            return found
    return None


class Written(NamedTuple):
    paths: list[Path]
    notes: list[str]
    """A sentence for each kind of which some were left out."""


def write_figures(results: Sequence[Result], folder: Path) -> Written:
    """Every figure that these results have something for, but not those of cells, as PNG; no more than MOST_FILES.

    Where there are more, the kinds take turns, each with the figure of the most detectors that is left; what comes
    last is left out.
    """
    found = figures_of(results)
    kept = _bounded(found)
    stems = Counter(stem(figure.name).casefold() for own in found.values() for figure in own)
    paths, notes = list[Path](), list[str]()
    for kind, own in found.items():
        written = [figure for figure in own if id(figure) in kept]
        paths += [figure.write_below(folder, hashed=stems[stem(figure.name).casefold()] > 1) for figure in written]
        if left := len(own) - len(written):
            notes.append(
                f"{left} of {len(own)} {kind} plots are left out, those of the fewest detectors; "
                "the page has all, and `bench report --filter` makes those of a part of the results"
            )
    return Written(paths, notes)


def figures_of(results: Sequence[Result]) -> dict[str, Sequence[Figure]]:
    """Kind -> every figure that these results have something for, but not those of cells."""
    return {name: kind.made_of(results) for name, kind in kinds().items() if not kind.of_cells}


def _bounded(found: Mapping[str, Sequence[Figure]]) -> set[int]:
    """The ids of at most MOST_FILES of them."""
    ordered = [sorted(own, key=lambda figure: -figure.shows) for own in found.values()]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*ordered))
    return {id(figure) for figure in itertools.islice(filter(None, turns), MOST_FILES)}
