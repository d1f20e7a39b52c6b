"""What the figures of the page share: Plotly's words for what `_style` draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ...stats.intervals import Estimate
from ._style import colour, shape

Spec = dict[str, Any]
"""JSON."""
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "x")
CHANCE = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5, "line": {"dash": "dot", "width": 1}}


def chart(caption: str, data: list[Spec], x: Spec, y: Spec, **layout: Any) -> Spec:
    """A figure of the page: {data, layout, caption}; `data` and `layout` are Plotly's."""
    return {"data": data, "layout": {"xaxis": x, "yaxis": y, **layout}, "caption": caption}


def axis(title: str, **more: Any) -> Spec:
    return {"title": {"text": title}, **more}


def auroc_axis(title: str = "AUROC") -> Spec:
    return axis(title, range=[-0.02, 1.03])


def line(name: str, i: int, x: Sequence[float], values: Sequence[Estimate], **more: Any) -> Spec:
    """The i-th, with 95 % intervals."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": rounded(v.value for v in values),
        "error_y": error_bars(values),
        "line": {"color": colour(i)},
        "marker": {"symbol": symbol(i), "size": 8},
        **more,
    }


def error_bars(values: Sequence[Estimate]) -> Spec:
    """How far the intervals reach above and below their values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": rounded(v.high - v.value for v in values),
        "arrayminus": rounded(v.value - v.low for v in values),
        "thickness": 1,
    }


def symbol(i: int) -> str:
    """Of the i-th line, as the files have it."""
    return SYMBOLS[shape(i)]


def rounded(values: Iterable[float]) -> list[float | None]:
    """For JSON, which knows no nan."""
    return [round(float(v), 4) if math.isfinite(v) else None for v in values]
