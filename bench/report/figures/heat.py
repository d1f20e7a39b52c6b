"""Robust AUROC per category and detector of a board."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...analysis.boards import Board, boards
from ...cells.result import Result
from . import _plotly as plotly
from ._figure import Figure
from ._plotly import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BRIGHT = 0.18  # luminance above which black is read better than white (WCAG 2.1)


@dataclass(frozen=True)
class Heat(Figure):
    """Robust AUROC per category and detector of a board: a square each, grey where there is none."""

    group = "By category"
    needs = "two categories under one attack with --goal rank"
    place = 3

    board: str
    """Its title."""
    names: list[str]
    """Of the detectors, in the board's order."""
    categories: list[str]
    values: npt.NDArray[np.float64]
    """(names, categories); nan where a detector lacks a category."""

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Heat]:
        """One per board that ranks by AUROC and has two categories or more."""
        return [
            cls(board.title, board.marked_names, board.categories, _values(board))
            for board in boards(results)
            if board.ranked_by == "robust_auroc" and len(board.categories) > 1
        ]

    @property
    def heading(self) -> str:
        return self.board

    @property
    def name(self) -> str:
        return f"heat {self.board}"

    @property
    def shows(self) -> int:
        return len(self.names)

    @property
    def inches(self) -> tuple[float, float]:
        rows, columns = self.values.shape
        return (0.07 * max(map(len, self.names)) + max(0.5 * columns, 3.2) + 1.2, 0.3 * rows + 1.8)

    def draw(self, axes: Axes) -> None:
        figure = axes.get_figure()
        assert figure is not None
        shown = axes.imshow(np.ma.masked_invalid(self.values), vmin=0, vmax=1, aspect="auto")
        shown.set_cmap(shown.get_cmap().with_extremes(bad="0.92"))
        for (row, column), value in np.ndenumerate(self.values):
            if not math.isnan(value):
                ink = "black" if _luminance(shown.to_rgba(np.array([value]))[0]) > BRIGHT else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize="small")
        axes.set_xticks(range(len(self.categories)), self.categories, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(self.names)), self.names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(self.board)
        figure.colorbar(shown, ax=axes, label="robust AUROC", fraction=0.04, pad=0.02).outline.set_visible(False)

    def spec(self) -> Spec:
        values = [plotly.rounded(row) for row in self.values]
        trace = {
            "type": "heatmap", "x": self.categories, "y": self.names, "z": values, "zmin": 0, "zmax": 1,
            "colorscale": "Cividis", "text": [[f"{v:.2f}" if v is not None else "" for v in row] for row in values],
            "texttemplate": "%{text}", "hovertemplate": "%{y}, %{x}: %{z:.4f}<extra></extra>",
            "colorbar": {"title": {"text": "AUROC"}},
        }  # fmt: skip
        return plotly.chart(
            "Robust AUROC by detector and category.",
            [trace],
            plotly.axis("category"),
            plotly.axis("detector", autorange="reversed"),
        )


def _values(board: Board) -> npt.NDArray[np.float64]:
    found = np.full((len(board.entries), len(board.categories)), np.nan)
    for row, (_, cells) in zip(found, board.entries, strict=True):
        for r in cells:
            row[board.categories.index(r.category)] = r.metrics["robust_auroc"].value
    return found


def _luminance(rgba: npt.NDArray[np.float64]) -> float:
    """Of an sRGB colour, from 0 for black to 1 for white."""
    return float(np.array([0.2126, 0.7152, 0.0722]) @ rgba[:3] ** 2.2)
