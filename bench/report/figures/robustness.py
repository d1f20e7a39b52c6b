"""Robust AUROC over eps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ...cells.result import Result
from ...core.threat import eps_text
from ...stats.metrics import Estimate, mean
from ._plotly import CHANCE, Figure, Spec, _auroc, _axis, _figure, _line, _rounded
from ._style import LEGEND_INSIDE, Plot, auroc_axis, colour, legend, size, styled, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Point(NamedTuple):
    eps: Fraction
    auroc: Estimate
    normal_only: Estimate | None = None
    """The same attack with only that class moved; None where the threat model does not attack both."""
    anomalous_only: Estimate | None = None


class Swept(NamedTuple):
    """What the lines of one figure of curves have in common."""

    data: str
    """Data set and size."""
    attack: str
    norm: str
    targets: str

    @property
    def how(self) -> str:
        """The attack, and whose images it moves if not both classes'."""
        return self.attack + f", {self.targets} images attacked" * (self.targets != "both")


def curves(results: Sequence[Result]) -> dict[Swept, dict[str, list[Point]]]:
    """Data set, attack and norm -> detector -> robust AUROC at each eps, eps 0 being clean.

    A point is the mean over the categories that the detector has at every budget, so that a curve never
    changes because its categories do.
    """
    groups: dict[Swept, dict[str, dict[Fraction, dict[str, Result]]]] = {}
    for r in results:
        if r.stops_at_threshold or r.certificate:
            continue
        seed = f", seed {r.spec['seed']}" if r.spec["seed"] else ""
        data = f"{r.spec['dataset']}, {r.spec['image_size']} px{seed}"
        key = Swept(data, r.attack, r.spec["norm"], r.spec["targets"])
        by_eps = groups.setdefault(key, {}).setdefault(r.detector, {})
        by_eps.setdefault(r.eps, {})[r.category] = r
    found: dict[Swept, dict[str, list[Point]]] = {}
    for key, detectors in groups.items():
        for name, by_eps in sorted(detectors.items()):
            shared = sorted(set.intersection(*(set(cells) for cells in by_eps.values())))
            if not shared:
                continue
            first = by_eps[min(by_eps)]
            clean = mean([first[c].metrics["clean_auroc"] for c in shared]).estimate()
            sides = [clean if key.targets == "both" else None] * 2
            points = [Point(Fraction(0), clean, *sides)]
            points += [_point(eps, [cells[c] for c in shared]) for eps, cells in sorted(by_eps.items())]
            unranked = any(r.unranked for cells in by_eps.values() for r in cells.values())
            found.setdefault(key, {})[f"{name} (not ranked)" if unranked else name] = points
    return found


def _point(eps: Fraction, cells: Sequence[Result]) -> Point:
    sides = ("normal_only_auroc", "anomalous_only_auroc") if cells[0].spec["targets"] == "both" else ()
    return Point(eps, *(mean([r.metrics[metric] for r in cells]).estimate() for metric in ("robust_auroc", *sides)))


SIDES = (("normal_only", "--", "only normal images attacked"), ("anomalous_only", ":", "only anomalous ones attacked"))


@styled
def draw_curves(lines: dict[str, list[Point]], title: str, norm: str, axes: Axes) -> Axes:
    """Robust AUROC over eps with 95 % intervals, one line per detector.

    Thin lines, where there are few enough to be told apart: only one class attacked.
    """
    for i, (name, points) in enumerate(lines.items()):
        with_intervals(axes, [float(p.eps) for p in points], [p.auroc for p in points], name, i)
    entries = len(lines)
    for side, dashes, label in SIDES if len(lines) <= LEGEND_INSIDE else ():
        known = False
        for i, points in enumerate(lines.values()):
            values = [(float(p.eps), value.value) for p in points if (value := getattr(p, side)) is not None]
            if values:
                known = True
                axes.plot(*zip(*values, strict=True), color=colour(i), linestyle=dashes, linewidth=0.8, zorder=1)
        if known:
            axes.plot([], [], color="0.4", linestyle=dashes, linewidth=0.8, label=label)
            entries += 1
    ticks = sorted({p.eps for points in lines.values() for p in points})
    axes.set_xticks([float(t) for t in ticks], [eps_text(t) if t else "0\n(clean)" for t in ticks])
    auroc_axis(axes, "robust AUROC")
    axes.set(title=title, xlabel=f"budget eps ({norm}, pixels in [0, 1])")
    legend(axes, entries)
    return axes


def curve_plots(results: Sequence[Result]) -> list[Plot]:
    """One per data set, attack and norm."""
    found = []
    for swept, lines in curves(results).items():
        data, attack, norm, targets = swept
        name = "-".join(["robustness", data, attack, norm] + [targets] * (targets != "both"))
        draw = partial(draw_curves, lines, f"{data}: {swept.how}", norm)
        inches = size(len(lines) + 2 * (targets == "both" and len(lines) <= LEGEND_INSIDE))
        found.append(Plot(f"{data}: {swept.how}, {norm}", name, len(lines), inches, draw))
    return found


def _one_sided(name: str, i: int, x: Sequence[float], values: Sequence[Estimate], dash: str) -> Spec:
    """Thin, and not shown before somebody asks for it in the legend."""
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": _rounded(v.value for v in values),
        "line": {"color": colour(i), "dash": dash, "width": 1}, "visible": "legendonly",
    }  # fmt: skip


def _curves(results: Sequence[Result]) -> Iterator[Figure]:
    for swept, lines in curves(results).items():
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


def of_detector(results: Sequence[Result]) -> list[Spec]:
    """Robust AUROC over the budget of one detector: a figure per norm, a line per data set and attack."""
    by_norm: dict[str, list[Spec]] = {}
    for swept, lines in curves(results).items():
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
