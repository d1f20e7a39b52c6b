"""The figures of the page: what the others draw for files, as Plotly takes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...stats.metrics import Estimate
from ._style import colour, shape

Spec = dict[str, Any]
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "x")
CHANCE = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5, "line": {"dash": "dot", "width": 1}}


class Figure(NamedTuple):
    """group: its kind, in words. spec: {data, layout, caption}; `data` and `layout` are Plotly's."""

    group: str
    title: str
    spec: Spec


def _figure(group: str, title: str, caption: str, data: list[Spec], x: Spec, y: Spec, **layout: Any) -> Figure:
    title = title.replace("\n", ", ")
    return Figure(group, title, {"data": data, "layout": {"xaxis": x, "yaxis": y, **layout}, "caption": caption})


def _axis(title: str, **more: Any) -> Spec:
    return {"title": {"text": title}, **more}


def _auroc(title: str = "AUROC") -> Spec:
    return _axis(title, range=[-0.02, 1.03])


def _line(name: str, i: int, x: Sequence[float], values: Sequence[Estimate], **more: Any) -> Spec:
    """With 95 % intervals."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": _rounded(v.value for v in values),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": _rounded(v.high - v.value for v in values),
            "arrayminus": _rounded(v.value - v.low for v in values),
            "thickness": 1,
        },
        "line": {"color": colour(i)},
        "marker": {"symbol": _symbol(i), "size": 8},
        **more,
    }


def _symbol(i: int) -> str:
    """As the files have it."""
    return SYMBOLS[shape(i)]


def _rounded(values: Iterator[float]) -> list[float | None]:
    """For JSON, which knows no nan."""
    return [round(float(v), 4) if math.isfinite(v) else None for v in values]
