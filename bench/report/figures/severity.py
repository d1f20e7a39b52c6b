"""How a detector fares as light and lens get worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from ...analysis.boards import Board, boards
from ...analysis.table import value_of
from ...cells.result import Result
from . import _plotly as plotly
from ._figure import Lines
from ._plotly import Spec
from ._style import auroc_axis, colour, legend, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = {"auroc": "AUROC", "false_alarms": "false alarms", "misses": "misses"}


@dataclass(frozen=True)
class Severity(Lines):
    """AUROC, false alarms or misses over the severity of shifts, a line per detector: mean over kinds and categories.

    At severity 0 nothing is shifted.
    """

    group = "Over severity of shifts"
    needs = "cells of bench shift with two severities"
    place = 6
    about = "shifts"

    board: str
    """Its title."""
    metric: Literal["auroc", "false_alarms", "misses"]
    lines: Mapping[str, Mapping[int, float]]

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Severity]:
        """Three per board of shifts that has several severities."""
        found = []
        for board in boards([r for r in results if r.of_shifts and not r.of_box]):
            for metric in SHOWN:
                lines = _lines(board, metric)
                if any(len(line) > 2 for line in lines.values()):
                    found.append(cls(board.title, metric, lines))  # type: ignore[arg-type]
        return found

    @property
    def heading(self) -> str:
        return f"{self.board}\n{SHOWN[self.metric]}"

    @property
    def name(self) -> str:
        return f"severity {self.metric} {self.board}"

    def draw(self, axes: Axes) -> None:
        for i, (name, line) in enumerate(self.lines.items()):
            axes.plot(list(line), list(line.values()), label=name, color=colour(i), marker=marker(i), clip_on=False)
        if self.metric == "auroc":
            auroc_axis(axes)
        else:
            axes.set(ylim=(0, 1), ylabel=SHOWN[self.metric])
        axes.set_xticks(sorted({severity for line in self.lines.values() for severity in line}))
        axes.set(title=self.heading, xlabel="severity")
        legend(axes, len(self.lines))

    def spec(self) -> Spec:
        traces = [
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": list(line),
                "y": plotly.rounded(line.values()), "line": {"color": colour(i)},
                "marker": {"symbol": plotly.symbol(i), "size": 8},
            }
            for i, (name, line) in enumerate(self.lines.items())
        ]  # fmt: skip
        scores = self.metric == "auroc"
        return plotly.chart(
            "The mean over kinds of shift at this severity; at 0 nothing is shifted.",
            traces,
            plotly.axis("severity", dtick=1),
            plotly.auroc_axis("AUROC") if scores else plotly.axis(SHOWN[self.metric], range=[0, 1]),
            shapes=[plotly.CHANCE] if scores else [],
        )


def _lines(board: Board, metric: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for name, cells in zip(board.marked_names, (own for _, own in board.entries), strict=True):
        parts: dict[int, list[str]] = {}
        for part in cells[0].parts:
            parts.setdefault(int(part.rpartition("_")[2]), []).append(f"{part}_{metric}")
        line = {0: _mean(cells, [f"clean_{metric}"])}
        line |= {severity: _mean(cells, names) for severity, names in sorted(parts.items())}
        found[name] = line
    return found


def _mean(cells: Sequence[Result], metrics: Sequence[str]) -> float:
    values = [value.estimate.value for metric in metrics if (value := value_of(cells, metric)).estimate is not None]
    return fmean(values) if values else float("nan")
