"""Robust AUROC per category and detector of a board."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ...analysis.boards import Board, boards
from ...cells.result import Result
from ._plotly import Figure, _axis, _figure, _rounded
from ._style import Plot, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
BRIGHT = 0.18  # luminance above which black is read better than white (WCAG 2.1)


def _ranked_by_auroc(results: Sequence[Result]) -> Iterator[Board]:
    return (board for board in boards(results) if board.ranked_by == "robust_auroc")


class Heat(NamedTuple):
    """Robust AUROC of a board; nan where a detector lacks a category."""

    detectors: list[str]
    """In the board's order."""
    categories: list[str]
    values: npt.NDArray[np.float64]
    """(detectors, categories)"""


def heat(results: Sequence[Result]) -> dict[str, Heat]:
    """Board -> robust AUROC per category and detector, of boards that rank by AUROC and have two categories or more."""
    found = {}
    for board in _ranked_by_auroc(results):
        categories = board.categories
        if len(categories) < 2:
            continue
        values = np.full((len(board.entries), len(categories)), np.nan)
        for row, (_, cells) in zip(values, board.entries, strict=True):
            for r in cells:
                row[categories.index(r.category)] = r.metrics["robust_auroc"].value
        names = [f"{name} (not ranked)" if name in board.unranked else name for name, _ in board.entries]
        found[board.title] = Heat(names, categories, values)
    return found


@styled
def draw_heat(found: Heat, title: str, axes: Axes) -> Axes:
    """A square per category and detector, with its robust AUROC; grey where there is none."""
    figure = axes.get_figure()
    assert figure is not None
    shown = axes.imshow(np.ma.masked_invalid(found.values), vmin=0, vmax=1, aspect="auto")
    shown.set_cmap(shown.get_cmap().with_extremes(bad="0.92"))
    for (row, column), value in np.ndenumerate(found.values):
        if not math.isnan(value):
            ink = "black" if _luminance(shown.to_rgba(np.array([value]))[0]) > BRIGHT else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize="small")
    axes.set_xticks(range(len(found.categories)), found.categories, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(found.detectors)), found.detectors)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(shown, ax=axes, label="robust AUROC", fraction=0.04, pad=0.02).outline.set_visible(False)
    return axes


def _luminance(rgba: npt.NDArray[np.float64]) -> float:
    """Of an sRGB colour, from 0 for black to 1 for white."""
    return float(np.array([0.2126, 0.7152, 0.0722]) @ rgba[:3] ** 2.2)


def heat_plots(results: Sequence[Result]) -> list[Plot]:
    """One per board."""
    found = []
    for title, board in heat(results).items():
        rows, columns = board.values.shape
        inches = (0.07 * max(map(len, board.detectors)) + max(0.5 * columns, 3.2) + 1.2, 0.3 * rows + 1.8)
        found.append(Plot(title, f"heat {title}", rows, inches, partial(draw_heat, board, title)))
    return found


def _heat(results: Sequence[Result]) -> Iterator[Figure]:
    for title, found in heat(results).items():
        values = [_rounded(iter(row)) for row in np.asarray(found.values).tolist()]
        trace = {
            "type": "heatmap", "x": list(found.categories), "y": list(found.detectors), "z": values, "zmin": 0,
            "zmax": 1,
            "colorscale": "Cividis", "text": [[f"{v:.2f}" if v is not None else "" for v in row] for row in values],
            "texttemplate": "%{text}", "hovertemplate": "%{y}, %{x}: %{z:.4f}<extra></extra>",
            "colorbar": {"title": {"text": "AUROC"}},
        }  # fmt: skip
        caption = "Robust AUROC by detector and category."
        yield _figure(
            "By category", title, caption, [trace], _axis("category"), _axis("detector", autorange="reversed")
        )
