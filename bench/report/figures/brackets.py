"""Certified and attacked AUROC of a smoothed detector over the radius."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ...cells.bracket import Bracket, brackets, smoothing_key
from ...cells.result import Result, with_settings
from ...stats.metrics import Estimate
from ._plotly import CHANCE, Figure, Spec, _auroc, _axis, _figure, _line, _rounded
from ._style import Plot, _one_line, auroc_axis, colour, legend, size, styled, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bracket_lines(results: Sequence[Result]) -> dict[str, dict[str, list[Bracket]]]:
    """Title (data and detector) -> noise -> its brackets by radius: what is certified and what an attack reached.

    A line is of one certificate setting and of the categories that it has at every radius.
    """
    found: dict[str, dict[str, list[Bracket]]] = {}
    for bracket in brackets(results):
        if bracket.certified() is None:
            continue
        first = next(iter(bracket.certificates.values()))
        settings = first.record["detector"]["parameters"]
        sigma, name = settings[smoothing_key(first, "sigma")], first.spec["detector"]
        changed = first.spec["detector_parameters"].items()
        others = {k: v for k, v in changed if not k.endswith(".sigma") and k != smoothing_key(first, "n")}
        title = f"{bracket.data}, {bracket.scope}: {with_settings(name, others)}"
        title += f"\n{bracket.how}" * bool(bracket.how)
        found.setdefault(title, {}).setdefault(f"sigma {sigma:g}", []).append(bracket)
    return found


class Band(NamedTuple):
    """Of one smoothed detector over the radius, 0 being clean: where its true worst case lies."""

    low: list[tuple[float, Estimate]]
    """What is certified, as far as it is known."""
    high: list[tuple[float, Estimate]]
    """What an attack reached."""
    both: list[tuple[float, Estimate, Estimate]]
    """Radius, low and high, where both are known."""


def band(points: Sequence[Bracket]) -> Band:
    """Of brackets by radius."""
    clean = points[0].certified("clean_auroc")
    ends = [(0.0, clean, clean), *((float(b.radius), b.certified(), b.attacked()) for b in points)]
    return Band(
        [(radius, low) for radius, low, _ in ends if low is not None],
        [(radius, high) for radius, _, high in ends if high is not None],
        [(radius, low, high) for radius, low, high in ends if low is not None and high is not None],
    )


@styled
def draw_brackets(lines: dict[str, list[Bracket]], title: str, axes: Axes) -> Axes:
    """Certified (solid) and attacked AUROC (dashed) over the l2 radius, one colour per noise; radius 0 is clean.

    The true worst case is in the band between both.
    """
    for i, (name, points) in enumerate(lines.items()):
        low, high, both = band(points)
        for label, dashes, known in ((f"{name}, certified", "-", low), (f"{name}, attacked", "--", high)):
            if len(known) < 2:
                continue
            inside = colour(i) if dashes == "-" else "white"
            x = [radius for radius, _ in known]
            with_intervals(axes, x, [v for _, v in known], label, i, linestyle=dashes, markerfacecolor=inside)
        if len(both) > 1:
            x = [radius for radius, _, _ in both]
            axes.fill_between(
                x, [a.value for _, a, _ in both], [b.value for *_, b in both], color=colour(i), alpha=0.12
            )
    auroc_axis(axes, "AUROC of the smoothed detector")
    axes.set(title=title, xlabel="radius (l2, pixels in [0, 1])")
    axes.set_xlim(0, None)
    legend(axes, 2 * len(lines))
    return axes


def bracket_plots(results: Sequence[Result]) -> list[Plot]:
    """One per smoothed detector and data set."""
    return [
        Plot(_one_line(title), f"certified {title}", 1, size(2 * len(lines)), partial(draw_brackets, lines, title))
        for title, lines in bracket_lines(results).items()
    ]


def _brackets(results: Sequence[Result]) -> Iterator[Figure]:
    for title, lines in bracket_lines(results).items():
        traces: list[Spec] = []
        for i, (name, points) in enumerate(lines.items()):
            low, high, both = band(points)
            if len(both) > 1:  # the band in which the truth lies
                edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
                x = [radius for radius, _, _ in both]
                traces.append({**edge, "x": x, "y": _rounded(a.value for _, a, _ in both), "showlegend": False})
                fill = {"fill": "tonexty", "fillcolor": _faint(colour(i)), "showlegend": False}
                traces.append({**edge, "x": x, "y": _rounded(b.value for *_, b in both), **fill})
            for label, dash, known in ((f"{name}, certified", "solid", low), (f"{name}, attacked", "dash", high)):
                if len(known) > 1:
                    line = _line(label, i, [radius for radius, _ in known], [value for _, value in known])
                    traces.append(line | {"line": {"color": colour(i), "dash": dash}})
        yield _figure(
            "Certified and attacked",
            title,
            "Certified (solid) and attacked AUROC (dashed) over the l2 radius; the true worst case is in the band.",
            traces,
            _axis("radius (l2, pixels in [0, 1])", rangemode="tozero"),
            _auroc("AUROC of the smoothed detector"),
            shapes=[CHANCE],
        )


def _faint(hexadecimal: str) -> str:
    red, green, blue = (int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"
