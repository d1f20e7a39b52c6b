"""Robust AUROC over the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from ...cells.result import Result
from ...core.threat import eps_text
from ...stats.intervals import Estimate
from ...stats.measured import mean
from . import _plotly as plotly
from ._figure import Figure
from ._plotly import Spec
from ._style import LEGEND_INSIDE, auroc_axis, colour, legend, size, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Side(NamedTuple):
    """The same attack with one class alone moved, as a thin line."""

    metric: str
    words: str
    dashes: str
    """Matplotlib's."""
    dash: str
    """Plotly's."""


SIDES = (
    Side("normal_only_auroc", "only normal images attacked", "--", "dash"),
    Side("anomalous_only_auroc", "only anomalous ones attacked", ":", "dot"),
)


class Point(NamedTuple):
    eps: Fraction
    auroc: Estimate
    sides: tuple[Estimate, ...] = ()
    """In the order of SIDES; empty where the threat model does not attack both classes."""


class Swept(NamedTuple):
    """What the lines of one figure have in common."""

    data: str
    """Data set and size."""
    attack: str
    norm: str
    targets: str

    @property
    def how(self) -> str:
        """The attack, and whose images it moves if not both classes'."""
        return self.attack + f", {self.targets} images attacked" * (self.targets != "both")

    @property
    def sides(self) -> tuple[Side, ...]:
        """That the points have."""
        return SIDES if self.targets == "both" else ()


ByEps = dict[Fraction, dict[str, Result]]
"""Budget -> category -> the cell, of one detector."""


@dataclass(frozen=True)
class Robustness(Figure):
    """Robust AUROC over the budget, a line per detector.

    A point is the mean over the categories that the detector has at every budget, so that a curve never changes because
    its categories do. Thin lines, where there are few enough to be told apart: only one class attacked.
    """

    group = "Robust AUROC over the budget"
    needs = "attacks with --goal rank"
    place = 1

    swept: Swept
    lines: Mapping[str, list[Point]]
    """Detector -> its points by eps, eps 0 being clean."""

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Robustness]:
        """One per data set, attack and norm."""
        groups: dict[Swept, dict[str, ByEps]] = {}
        for r in results:
            if not r.stops_at_threshold and not r.certificate:
                by_eps = groups.setdefault(_swept(r), {}).setdefault(r.detector, {})
                by_eps.setdefault(r.eps, {})[r.category] = r
        found: dict[Swept, dict[str, list[Point]]] = {}
        for swept, detectors in groups.items():
            for name, by_eps in sorted(detectors.items()):
                if points := _points(swept, by_eps):
                    unranked = any(r.unranked for cells in by_eps.values() for r in cells.values())
                    found.setdefault(swept, {})[f"{name} (not ranked)" if unranked else name] = points
        return [cls(swept, lines) for swept, lines in found.items()]

    @property
    def heading(self) -> str:
        return f"{self.swept.data}: {self.swept.how}"

    @property
    def title(self) -> str:
        return f"{self.heading}, {self.swept.norm}"

    @property
    def name(self) -> str:
        data, attack, norm, targets = self.swept
        return "-".join(["robustness", data, attack, norm] + [targets] * (targets != "both"))

    @property
    def shows(self) -> int:
        return len(self.lines)

    @property
    def inches(self) -> tuple[float, float]:
        return size(len(self.lines) + len(self._thin))

    @property
    def _thin(self) -> tuple[Side, ...]:
        """The thin lines that a file has."""
        return self.swept.sides if len(self.lines) <= LEGEND_INSIDE else ()

    @property
    def _ticks(self) -> list[Fraction]:
        return sorted({p.eps for points in self.lines.values() for p in points})

    def draw(self, axes: Axes) -> None:
        for i, (name, points) in enumerate(self.lines.items()):
            with_intervals(axes, _eps(points), [p.auroc for p in points], name, i)
        for at, side in enumerate(self._thin):
            for i, points in enumerate(self.lines.values()):
                values = [p.sides[at].value for p in points]
                axes.plot(_eps(points), values, color=colour(i), linestyle=side.dashes, linewidth=0.8, zorder=1)
            axes.plot([], [], color="0.4", linestyle=side.dashes, linewidth=0.8, label=side.words)
        axes.set_xticks([float(t) for t in self._ticks], [eps_text(t) if t else "0\n(clean)" for t in self._ticks])
        auroc_axis(axes, "robust AUROC")
        axes.set(title=self.heading, xlabel=f"budget eps ({self.swept.norm}, pixels in [0, 1])")
        legend(axes, len(self.lines) + len(self._thin))

    def spec(self) -> Spec:
        traces = []
        for i, (name, points) in enumerate(self.lines.items()):
            traces.append(plotly.line(name, i, _eps(points), [p.auroc for p in points]))
            traces += [_one_sided(name, i, points, at) for at in range(len(self.swept.sides))]
        return plotly.chart(
            "Robust AUROC over the budget with 95 % intervals; 0 is clean. Below 0.5 the adversary has turned the "
            "order round. Dashed: only normal images are moved; dotted: only anomalous ones (the legend shows them).",
            traces,
            plotly.axis(
                f"eps ({self.swept.norm}, pixels in [0, 1])",
                tickvals=[float(t) for t in self._ticks],
                ticktext=[eps_text(t) if t else "0 (clean)" for t in self._ticks],
            ),
            plotly.auroc_axis("robust AUROC"),
            shapes=[plotly.CHANCE],
        )


def _swept(r: Result) -> Swept:
    seed = f", seed {r.spec.seed}" if r.spec.seed else ""
    return Swept(f"{r.spec.bed}, {r.spec.image_size} px{seed}", r.attack, r.spec.norm, r.spec.targets)


def _points(swept: Swept, by_eps: ByEps) -> list[Point]:
    """Of one detector; none where no category was run at every budget."""
    shared = sorted(set.intersection(*(set(cells) for cells in by_eps.values())))
    if not shared:
        return []
    first = by_eps[min(by_eps)]
    clean = mean([first[c].metrics["clean_auroc"] for c in shared]).estimate()
    points = [Point(Fraction(0), clean, (clean,) * len(swept.sides))]
    for eps, cells in sorted(by_eps.items()):
        auroc, *sides = (
            mean([cells[c].metrics[metric] for c in shared]).estimate()
            for metric in ("robust_auroc", *(side.metric for side in swept.sides))
        )
        points.append(Point(eps, auroc, tuple(sides)))
    return points


def _eps(points: Sequence[Point]) -> list[float]:
    return [float(p.eps) for p in points]


def _one_sided(name: str, i: int, points: Sequence[Point], at: int) -> Spec:
    """Thin, and not shown before somebody asks for it in the legend."""
    what = SIDES[at].metric.removesuffix("_auroc").replace("_", " ")
    return {
        "type": "scatter", "mode": "lines", "name": f"{name}, {what}", "x": _eps(points),
        "y": plotly.rounded(p.sides[at].value for p in points),
        "line": {"color": colour(i), "dash": SIDES[at].dash, "width": 1}, "visible": "legendonly",
    }  # fmt: skip


def of_detector(results: Sequence[Result]) -> list[Spec]:
    """Of the page of one detector: a figure per norm, a line per data set and attack."""
    by_norm: dict[str, list[Spec]] = {}
    for figure in Robustness.of(results):
        traces = by_norm.setdefault(figure.swept.norm, [])
        for points in figure.lines.values():
            traces.append(plotly.line(figure.heading, len(traces), _eps(points), [p.auroc for p in points]))
    return [
        plotly.chart(
            f"Robust AUROC over the {norm} budget with 95 % intervals, mean over categories; 0 is clean.",
            traces,
            plotly.axis(f"eps ({norm}, pixels in [0, 1])"),
            plotly.auroc_axis("robust AUROC"),
        )
        for norm, traces in sorted(by_norm.items())
    ]
