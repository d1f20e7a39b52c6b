"""The figures of the page: what `bench.plots` draws for files, as Plotly takes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import plots
from .cells import Result
from .figures import colour, shape
from .metrics import Estimate
from .threat import eps_text

Spec = dict[str, Any]
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "x")
CHANCE = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5, "line": {"dash": "dot", "width": 1}}


class Figure(NamedTuple):
    """group: its kind, in words. spec: {data, layout, caption}; `data` and `layout` are Plotly's."""

    group: str
    title: str
    spec: Spec


def figures(results: Sequence[Result]) -> list[Figure]:
    """Every figure that these results have something for."""
    return [
        *_curves(results), *_tradeoff(results), *_heat(results), *_brackets(results), *_purification(results),
        *_progress(results), *_radii(results),
    ]  # fmt: skip


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


def _one_sided(name: str, i: int, x: Sequence[float], values: Sequence[Estimate], dash: str) -> Spec:
    """Thin, and not shown before somebody asks for it in the legend."""
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": _rounded(v.value for v in values),
        "line": {"color": colour(i), "dash": dash, "width": 1}, "visible": "legendonly",
    }  # fmt: skip


def _rounded(values: Iterator[float]) -> list[float | None]:
    """For JSON, which knows no nan."""
    return [round(float(v), 4) if math.isfinite(v) else None for v in values]


def _curves(results: Sequence[Result]) -> Iterator[Figure]:
    for swept, lines in plots.curves(results).items():
        traces = []
        for i, (name, points) in enumerate(lines.items()):
            x = [float(p.eps) for p in points]
            traces.append(_line(name, i, x, [p.auroc for p in points]))
            for side_only, dash in (("normal_only", "dash"), ("anomalous_only", "dot")):
                values = [getattr(p, side_only) for p in points]
                if all(v is not None for v in values):
                    traces.append(_one_sided(f"{name}, {side_only.replace('_', ' ')}", i, x, values, dash))
        ticks = sorted({p.eps for points in lines.values() for p in points})
        yield _figure(
            "Robust AUROC over the budget",
            f"{swept.data}: {swept.how}, {swept.norm}",
            "Robust AUROC over the budget with 95 % intervals; 0 is clean. Below 0.5 the adversary has turned the "
            "order round. Dashed: only normal images are moved; dotted: only anomalous ones (the legend shows them).",
            traces,
            _axis(
                f"eps ({swept.norm}, pixels in [0, 1])",
                tickvals=[float(t) for t in ticks],
                ticktext=[eps_text(t) if t else "0 (clean)" for t in ticks],
            ),
            _auroc("robust AUROC"),
            shapes=[CHANCE],
        )


def _purification(results: Sequence[Result]) -> Iterator[Figure]:
    for (title, parameter), levels in plots.purification(results).items():
        x = [level.value for level in levels]
        yield _figure(
            "Purification",
            title,
            "Clean and robust AUROC over the level of the purifier with 95 % intervals; level 0 is the detector alone.",
            [
                _line("clean AUROC", 0, x, [level.clean for level in levels]),
                _line("robust AUROC", 1, x, [level.robust for level in levels]),
            ],
            _axis(parameter),
            _auroc(),
            shapes=[CHANCE],
        )


def _radii(results: Sequence[Result]) -> Iterator[Figure]:
    for (title, norm), lines in plots.radii(results).items():
        traces = []
        for i, (name, found) in enumerate(lines.items()):
            x, share = plots.still_right(found)
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "name": name, "x": np.round(x, 5).tolist(),
                    "y": np.round(share, 4).tolist(), "line": {"color": colour(i), "shape": "hv"},
                }
            )  # fmt: skip
        yield _figure(
            "Radii",
            title,
            "Share of images still judged rightly at the threshold, over the size of the perturbation.",
            traces,
            _axis(f"size of the perturbation ({norm}, pixels in [0, 1])", rangemode="tozero"),
            _axis("share of images still right", range=[-0.02, 1.03]),
        )


def _brackets(results: Sequence[Result]) -> Iterator[Figure]:
    for title, lines in plots.bracket_lines(results).items():
        traces: list[Spec] = []
        for i, (name, points) in enumerate(lines.items()):
            low, high, both = plots.band(points)
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


def _tradeoff(results: Sequence[Result]) -> Iterator[Figure]:
    for title, points in plots.tradeoff(results).items():
        traces = []
        for i, p in enumerate(points):
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": p.label,
                    "x": [round(p.clean.value, 4)], "y": [round(p.robust.value, 4)],
                    "error_x": _error(p.clean), "error_y": _error(p.robust),
                    "marker": {"size": 11, "color": colour(i),
                               "symbol": _symbol(i) + "-open" * (not p.ranked)},
                }
            )  # fmt: skip
        yield _figure(
            "Clean against robust",
            title,
            "Clean against robust AUROC, each with its 95 % interval. On the diagonal an attack takes nothing.",
            traces,
            _auroc("clean AUROC"),
            _auroc("robust AUROC"),
            shapes=[{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"dash": "dot", "width": 1}}],
        )


def _error(value: Estimate) -> Spec:
    above, below = _rounded(iter([value.high - value.value, value.value - value.low]))
    return {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below], "thickness": 1}


def _heat(results: Sequence[Result]) -> Iterator[Figure]:
    for title, heat in plots.heat(results).items():
        values = [_rounded(iter(row)) for row in np.asarray(heat.values).tolist()]
        trace = {
            "type": "heatmap", "x": list(heat.categories), "y": list(heat.detectors), "z": values, "zmin": 0, "zmax": 1,
            "colorscale": "Cividis", "text": [[f"{v:.2f}" if v is not None else "" for v in row] for row in values],
            "texttemplate": "%{text}", "hovertemplate": "%{y}, %{x}: %{z:.4f}<extra></extra>",
            "colorbar": {"title": {"text": "AUROC"}},
        }  # fmt: skip
        caption = "Robust AUROC by detector and category."
        yield _figure(
            "By category", title, caption, [trace], _axis("category"), _axis("detector", autorange="reversed")
        )


def _progress(results: Sequence[Result]) -> Iterator[Figure]:
    for title, lines in plots.progress(results).items():
        traces = [
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": [k for k, _ in points],
                "y": _rounded(v for _, v in points), "line": {"color": colour(i)},
                "marker": {"symbol": _symbol(i), "size": 8},
            }
            for i, (name, points) in enumerate(lines.items())
        ]  # fmt: skip
        yield _figure(
            "Progress of the attack",
            title,
            "AUROC after so many passes of the attack. A curve that still falls at its end says: give it more.",
            traces,
            _axis("forward passes per image", type="log"),
            _auroc("robust AUROC"),
            shapes=[CHANCE],
        )


def of_detector(results: Sequence[Result]) -> list[Spec]:
    """Robust AUROC over the budget of one detector: a figure per norm, a line per data set and attack."""
    by_norm: dict[str, list[Spec]] = {}
    for swept, lines in plots.curves(results).items():
        traces = by_norm.setdefault(swept.norm, [])
        for points in lines.values():
            x = [float(p.eps) for p in points]
            traces.append(_line(f"{swept.data}: {swept.how}", len(traces), x, [p.auroc for p in points]))
    return [
        {
            "data": traces,
            "layout": {"xaxis": _axis(f"eps ({norm}, pixels in [0, 1])"), "yaxis": _auroc("robust AUROC")},
            "caption": f"Robust AUROC over the {norm} budget with 95 % intervals, mean over categories; 0 is clean.",
        }
        for norm, traces in sorted(by_norm.items())
    ]


def distribution(r: Result) -> Spec:
    """Scores of normal and anomalous images before and after, as shares of their class."""
    found = plots.distributions(r)
    edges = np.asarray(found.edges, dtype=float)
    middles = [float(f"{m:.4g}") for m in (edges[:-1] + edges[1:]) / 2]
    what = "as certified" if r.certificate else "after"
    sides = (
        ("normal, before", found.normal_before, 0, "dot"),
        ("anomalous, before", found.anomalous_before, 1, "dot"),
        (f"normal, {what}", found.normal_after, 0, "solid"),
        (f"anomalous, {what}", found.anomalous_after, 1, "solid"),
    )
    traces: list[Spec] = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": middles, "y": _rounded(iter(values)),
            "line": {"color": colour(i), "shape": "hvh", "dash": dash},
        }
        for name, values, i, dash in sides
    ]  # fmt: skip
    shapes = []
    if math.isfinite(found.threshold):
        x = float(f"{found.threshold:.5g}")
        line = {"dash": "dash", "width": 1}
        shapes.append({"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line})
    caption = "Scores before (dotted) and after (solid), as shares of their class; the dashed line is the threshold."
    layout = {"xaxis": _axis("score"), "yaxis": _axis("share of the class", rangemode="tozero"), "shapes": shapes}
    return {"data": traces, "layout": layout, "caption": caption}
