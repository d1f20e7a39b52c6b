"""Certified and attacked AUROC of a detector over the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ...cells.bracket import Bracket, brackets, smoothing_key
from ...cells.result import Result, with_settings
from ...cells.spec import SMOOTHING
from ...stats.intervals import Estimate
from . import _plotly as plotly
from ._figure import Figure
from ._plotly import Spec
from ._style import auroc_axis, colour, legend, size, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Band(NamedTuple):
    """Of one certified detector over the radius, 0 being clean: where its true worst case lies."""

    low: list[tuple[float, Estimate]]
    """What is certified, as far as it is known."""
    high: list[tuple[float, Estimate]]
    """What an attack reached."""
    both: list[tuple[float, Estimate, Estimate]]
    """Radius, low and high, where both are known."""

    @classmethod
    def of(cls, points: Sequence[Bracket]) -> Band:
        """By radius."""
        clean = points[0].certified("clean_auroc")
        ends = [(0.0, clean, clean), *((float(b.radius), b.certified(), b.attacked()) for b in points)]
        return cls(
            [(radius, low) for radius, low, _ in ends if low is not None],
            [(radius, high) for radius, _, high in ends if high is not None],
            [(radius, low, high) for radius, low, high in ends if low is not None and high is not None],
        )


@dataclass(frozen=True)
class Brackets(Figure):
    """Certified (solid) and attacked AUROC (dashed) over the radius, of a smoothed detector one colour per noise;
    radius 0 is clean. The true worst case is in the band between both.

    A line is of one certificate setting and of the categories that it has at every radius.
    """

    group = "Certified and attacked"
    needs = "certificates"
    place = 7

    what: str
    """Data and detector."""
    norm: str
    bands: Mapping[str, Band]
    """By noise."""
    shows = 1

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Brackets]:
        """One per certified detector, norm and data set."""
        found: dict[tuple[str, str], dict[str, list[Bracket]]] = {}
        for bracket in brackets(results):
            if bracket.certified() is not None:
                what = (_what(bracket), bracket.norm)
                found.setdefault(what, {}).setdefault(_noise(bracket), []).append(bracket)
        return [
            cls(*what, {noise: Band.of(points) for noise, points in lines.items()}) for what, lines in found.items()
        ]

    @property
    def heading(self) -> str:
        return self.what

    @property
    def name(self) -> str:
        return f"certified {self.what}" + f" {self.norm}" * (self.norm != "l2")

    @property
    def inches(self) -> tuple[float, float]:
        return size(2 * len(self.bands))

    def draw(self, axes: Axes) -> None:
        for i, (name, band) in enumerate(self.bands.items()):
            for label, dashes, known in ((f"{name}, certified", "-", band.low), (f"{name}, attacked", "--", band.high)):
                if len(known) > 1:
                    inside = colour(i) if dashes == "-" else "white"
                    x, values = zip(*known, strict=True)
                    with_intervals(axes, x, values, label, i, linestyle=dashes, markerfacecolor=inside)
            if len(band.both) > 1:
                x, low, high = zip(*band.both, strict=True)
                axes.fill_between(x, [v.value for v in low], [v.value for v in high], color=colour(i), alpha=0.12)
        auroc_axis(axes, "AUROC")
        axes.set(title=self.what, xlabel=f"radius ({self.norm}, pixels in [0, 1])")
        axes.set_xlim(0, None)
        legend(axes, 2 * len(self.bands))

    def spec(self) -> Spec:
        traces: list[Spec] = []
        for i, (name, band) in enumerate(self.bands.items()):
            traces += _filled(band, i) if len(band.both) > 1 else []
            for label, dash, known in (
                (f"{name}, certified", "solid", band.low), (f"{name}, attacked", "dash", band.high),
            ):  # fmt: skip
                if len(known) > 1:
                    x, values = zip(*known, strict=True)
                    traces.append(plotly.line(label, i, x, values, line={"color": colour(i), "dash": dash}))
        return plotly.chart(
            f"Certified (solid) and attacked AUROC (dashed) over the {self.norm} radius; the true worst case is in the "
            "band.",
            traces,
            plotly.axis(f"radius ({self.norm}, pixels in [0, 1])", rangemode="tozero"),
            plotly.auroc_axis("AUROC"),
            shapes=[plotly.CHANCE],
        )


def _what(bracket: Bracket) -> str:
    first = next(iter(bracket.certificates.values()))
    changed = first.spec.detector_parameters.items()
    others = {k: v for k, v in changed if not k.endswith(".sigma") and k != smoothing_key(first, "n")}
    title = f"{bracket.data}, {bracket.scope}: {with_settings(first.spec.detector, others)}"
    return title + f"\n{bracket.how}" * bool(bracket.how)


def _noise(bracket: Bracket) -> str:
    first = next(iter(bracket.certificates.values()))
    if first.spec.attack != SMOOTHING:
        return first.spec.attack
    return f"sigma {first.record.detector.parameters[smoothing_key(first, 'sigma')]:g}"


def _filled(band: Band, i: int) -> list[Spec]:
    """The band in which the truth lies, as two lines without a width and what is between them."""
    x, low, high = zip(*band.both, strict=True)
    edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "x": x, "showlegend": False}
    fill = {"fill": "tonexty", "fillcolor": _faint(colour(i))}
    return [
        {**edge, "y": plotly.rounded(v.value for v in low)},
        {**edge, "y": plotly.rounded(v.value for v in high), **fill},
    ]


def _faint(hexadecimal: str) -> str:
    red, green, blue = (int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"
