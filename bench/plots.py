"""Figures from results: robust AUROC over the budget and over the level of a purifier, and accuracy over the radius."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import files
from .bracket import Bracket, brackets, smoothing_key
from .cells import short
from .compare import Ranks, cliques
from .metrics import Estimate, mean
from .threat import eps_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .cells import Result

# Okabe & Ito: told apart by readers with any colour vision, and in grey by the markers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LONGEST_NAME = 150
LEGEND_INSIDE = 6  # more lines than this would lie under their names


class Point(NamedTuple):
    eps: Fraction
    auroc: Estimate


def curves(results: Sequence[Result]) -> dict[tuple[str, str, str, str], dict[str, list[Point]]]:
    """(data set and size, attack, norm, targets) -> detector -> robust AUROC at each eps, eps 0 being clean.

    A point is the mean over the categories that the detector has at every budget, so that a curve never
    changes because its categories do.
    """
    groups: dict[tuple[str, str, str, str], dict[str, dict[Fraction, dict[str, Result]]]] = {}
    for r in results:
        if r.stops_at_threshold or r.certificate:
            continue
        seed = f", seed {r.spec['seed']}" if r.spec["seed"] else ""
        key = (f"{r.spec['dataset']}, {r.spec['image_size']} px{seed}", r.attack, r.spec["norm"], r.spec["targets"])
        name = f"{r.detector} (not ranked)" if r.unranked else r.detector
        by_eps = groups.setdefault(key, {}).setdefault(name, {})
        by_eps.setdefault(r.eps, {})[r.category] = r
    found: dict[tuple[str, str, str, str], dict[str, list[Point]]] = {}
    for key, detectors in groups.items():
        for name, by_eps in sorted(detectors.items()):
            shared = sorted(set.intersection(*(set(cells) for cells in by_eps.values())))
            if not shared:
                continue
            first = by_eps[min(by_eps)]
            points = [Point(Fraction(0), mean([first[c].metrics["clean_auroc"] for c in shared]).estimate())]
            points += [
                Point(eps, mean([cells[c].metrics["robust_auroc"] for c in shared]).estimate())
                for eps, cells in sorted(by_eps.items())
            ]
            found.setdefault(key, {})[name] = points
    return found


def draw_curves(lines: dict[str, list[Point]], title: str, norm: str, axes: Axes) -> Axes:
    """Robust AUROC over eps with 95 % intervals, one line per detector."""
    for i, (name, points) in enumerate(lines.items()):
        values = [p.auroc for p in points]
        axes.errorbar(
            [float(p.eps) for p in points],
            [v.value for v in values],
            yerr=[[v.value - v.low for v in values], [v.high - v.value for v in values]],
            label=name,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            capsize=3,
            clip_on=False,
        )
    ticks = sorted({p.eps for points in lines.values() for p in points})
    axes.set_xticks([float(t) for t in ticks], [eps_text(t) if t else "0\n(clean)" for t in ticks])
    axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel=f"budget eps ({norm}, pixels in [0, 1])", ylabel="robust AUROC", ylim=(0, 1.02))
    _legend(axes, len(lines))
    return axes


def _legend(axes: Axes, lines: int) -> None:
    """Inside where there is room for so many lines, else beside the plot; and no frame."""
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    axes.legend(frameon=False, fontsize="small", **(beside if lines > LEGEND_INSIDE else {"loc": "best"}))
    axes.spines[["top", "right"]].set_visible(False)


def _size(lines: int) -> tuple[float, float]:
    """Of a figure, in inches: wider and taller where the legend is beside it."""
    return (11, max(4.2, 0.22 * lines + 0.6)) if lines > LEGEND_INSIDE else (6.4, 4.2)


def write_curves(results: Sequence[Result], folder: Path) -> list[Path]:
    """A PNG per data set, attack and norm."""
    written = []
    for (data, attack, norm, targets), lines in curves(results).items():
        figure = _figure(_size(len(lines)))
        side = "" if targets == "both" else f", {targets} images attacked"
        draw_curves(lines, f"{data}: {attack}{side}", norm, figure.add_subplot())
        name = "-".join(["robustness", data, attack, norm] + [targets] * (targets != "both"))
        written.append(_save(figure, folder, name))
    return written


class Level(NamedTuple):
    value: float
    clean: Estimate
    robust: Estimate


def purification(results: Sequence[Result]) -> dict[tuple[str, str], list[Level]]:
    """(title, parameter) -> clean and robust AUROC at each level of a purifier, level 0 being no purifier.

    Of cells that differ in nothing else; a level is the mean over the categories that all of them have. A purifier that
    was run at one level only is left out.
    """
    groups: dict[tuple[Any, ...], dict[float, dict[str, Result]]] = {}
    plain: dict[tuple[Any, ...], dict[str, Result]] = {}
    for r in results:
        if r.stops_at_threshold or r.certificate:
            continue
        s, level = r.spec, r.record["detector"]["purification"]
        where = (s["dataset"], s["image_size"], r.attack, s["norm"], s["eps"], s["targets"], s["seed"])
        if level is None:
            plain.setdefault((*where, s["detector"], _settings(s["detector_parameters"])), {})[s["category"]] = r
            continue
        others = {k: v for k, v in s["detector_parameters"].items() if k != level["parameter"]}
        key = (*where, s["detector"], level["parameter"], level["inner"], _settings(others))
        groups.setdefault(key, {}).setdefault(float(level["value"]), {})[s["category"]] = r
    found: dict[tuple[str, str], list[Level]] = {}
    for key, by_level in groups.items():
        *where_, detector, parameter, inner, text = key
        rest: dict[str, Any] = json.loads(text)
        own = {k: v for k, v in rest.items() if not k.startswith(parameter.rpartition(".")[0] + ".")}
        own = own if "+" in inner else {k.rpartition(".")[2]: v for k, v in own.items()}
        shared = sorted(set.intersection(*(set(cells) for cells in by_level.values())))
        bare = plain.get((*where_, inner, _settings(own)), {})
        if set(shared) <= set(bare):
            by_level = {0.0: bare, **by_level}
        if len(by_level) < 2 or not shared:
            continue
        dataset, size, attack, norm, eps, targets, seed = where_
        what = f"mean of {len(shared)} categories" if len(shared) > 1 else shared[0]
        title = f"{detector}: {dataset} {what}, {size} px\n{attack}, {norm} {eps}"
        title += f", {targets} images attacked" * (targets != "both") + f", seed {seed}" * bool(seed)
        title += "\n" * bool(rest) + ", ".join(f"{k}={short(v)}" for k, v in rest.items())
        found[title, parameter] = [
            Level(
                value,
                *(
                    mean([cells[c].metrics[metric] for c in shared]).estimate()
                    for metric in ("clean_auroc", "robust_auroc")
                ),
            )
            for value, cells in sorted(by_level.items())
        ]
    return found


def _settings(parameters: dict[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def draw_levels(levels: Sequence[Level], title: str, parameter: str, axes: Axes) -> Axes:
    """Clean and robust AUROC over the purification level, with 95 % intervals."""
    for i, name in enumerate(("clean", "robust")):
        values: list[Estimate] = [getattr(level, name) for level in levels]
        axes.errorbar(
            [level.value for level in levels],
            [v.value for v in values],
            yerr=[[v.value - v.low for v in values], [v.high - v.value for v in values]],
            label=f"{name} AUROC",
            color=COLOURS[i],
            marker=MARKERS[i],
            capsize=3,
            clip_on=False,
        )
    axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel=f"purification level {parameter} (0: none)", ylabel="AUROC", ylim=(0, 1.02))
    axes.set_title(title, fontsize="small")
    axes.legend(frameon=False, fontsize="small", loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def write_purification(results: Sequence[Result], folder: Path) -> list[Path]:
    """A PNG per purifier, inner detector, data set and attack."""
    written = []
    for (title, parameter), levels in purification(results).items():
        figure = _figure()
        draw_levels(levels, title, parameter, figure.add_subplot())
        written.append(_save(figure, folder, f"purification {title}"))
    return written


def radii(results: Sequence[Result]) -> dict[tuple[str, str], dict[str, npt.NDArray[np.float64]]]:
    """(title, norm) -> detector -> the radii of its images, sorted, where a minimum-norm attack found them.

    Of the categories that all detectors of the figure have. The budget bounds the image that such an attack returns,
    not the radius; of several budgets the largest is shown.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, Result]]] = {}
    for r in sorted(results, key=lambda r: r.eps):
        if r.radii is None:
            continue
        s = r.spec
        title = f"{s['dataset']}, {s['image_size']} px: {r.attack}, {s['norm']}"
        title += f", {s['targets']} images attacked" * (s["targets"] != "both")
        title += f", seed {s['seed']}" * bool(s["seed"])
        name = f"{r.detector} (not ranked)" if r.unranked else r.detector
        groups.setdefault((title, s["norm"]), {}).setdefault(name, {})[s["category"]] = r
    found: dict[tuple[str, str], dict[str, npt.NDArray[np.float64]]] = {}
    for key, detectors in groups.items():
        for name, cells in sorted(detectors.items()):
            shared = set.intersection(*(set(others) for others in detectors.values()))
            parts = [part for category in sorted(shared) for part in cells[category].radii or ()]
            if sum(map(len, parts)):
                found.setdefault(key, {})[name] = np.sort(np.concatenate(parts))
    return found


def still_right(found: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sorted radii -> (x, share): of the images, how many are still judged rightly after a perturbation of size x.

    A step down at every finite radius; an image whose radius is inf is right at every x.
    """
    finite = found[np.isfinite(found)]
    x = np.concatenate([[0.0], finite])
    return x, 1 - np.searchsorted(found, x, side="right") / len(found)


def draw_radii(lines: dict[str, npt.NDArray[np.float64]], title: str, norm: str, axes: Axes) -> Axes:
    """Share of images still right at the threshold over the size of the perturbation, one line per detector."""
    ends = [float(found[np.isfinite(found)].max(initial=0)) for found in lines.values()]
    for i, (name, found) in enumerate(lines.items()):
        x, share = still_right(found)
        x, share = np.append(x, max(*ends, x[-1])), np.append(share, share[-1])
        style = ("-", "--", ":")[i // len(COLOURS) % 3]
        axes.step(x, share, where="post", label=name, color=COLOURS[i % len(COLOURS)], linestyle=style)
    axes.set_title(title, fontsize="small")
    axes.set(xlabel=f"size of the perturbation ({norm}, pixels in [0, 1])", ylabel="share of images still right")
    axes.set(ylim=(0, 1.02), xlim=(0, None))
    _legend(axes, len(lines))
    return axes


def write_radii(results: Sequence[Result], folder: Path) -> list[Path]:
    """A PNG per data set, minimum-norm attack and norm."""
    written = []
    for (title, norm), lines in radii(results).items():
        figure = _figure(_size(len(lines)))
        draw_radii(lines, title, norm, figure.add_subplot())
        written.append(_save(figure, folder, f"radii {title}"))
    return written


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
        shown = ", ".join(f"{k}={short(v)}" for k, v in others.items())
        title = f"{bracket.data}, {bracket.scope}: {name}"
        title += f" ({shown})" * bool(shown) + f"\n{bracket.how}" * bool(bracket.how)
        found.setdefault(title, {}).setdefault(f"sigma {sigma:g}", []).append(bracket)
    return found


def draw_brackets(lines: dict[str, list[Bracket]], title: str, axes: Axes) -> Axes:
    """Certified (solid) and attacked AUROC (dashed) over the l2 radius, one colour per noise; radius 0 is clean.

    The true worst case is in the band between both.
    """
    for i, (name, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        clean = points[0].certified("clean_auroc")
        low = [(0.0, clean), *((float(b.radius), b.certified()) for b in points)]
        high = [(0.0, clean), *((float(b.radius), b.attacked()) for b in points)]
        for label, style, values in ((f"{name}, certified", "-", low), (f"{name}, attacked", "--", high)):
            known = [(radius, value) for radius, value in values if value is not None]
            if len(known) < 2:
                continue
            axes.errorbar(
                [radius for radius, _ in known],
                [v.value for _, v in known],
                yerr=[[v.value - v.low for _, v in known], [v.high - v.value for _, v in known]],
                label=label,
                color=colour,
                linestyle=style,
                marker=MARKERS[i % len(MARKERS)],
                markerfacecolor=colour if style == "-" else "white",
                capsize=3,
                clip_on=False,
            )
        both = [(x, a, b) for (x, a), (_, b) in zip(low, high, strict=True) if a is not None and b is not None]
        if len(both) > 1:
            x = [radius for radius, _, _ in both]
            axes.fill_between(x, [a.value for _, a, _ in both], [b.value for *_, b in both], color=colour, alpha=0.12)
    axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize="small")
    axes.set(xlabel="radius (l2, pixels in [0, 1])", ylabel="AUROC of the smoothed detector", ylim=(0, 1.02))
    axes.set_xlim(0, None)
    _legend(axes, 2 * len(lines))
    return axes


def write_brackets(results: Sequence[Result], folder: Path) -> list[Path]:
    """A PNG per smoothed detector and data set."""
    written = []
    for title, lines in bracket_lines(results).items():
        figure = _figure(_size(2 * len(lines)))
        draw_brackets(lines, title, figure.add_subplot())
        written.append(_save(figure, folder, f"certified {title}"))
    return written


def draw_ranks(ranks: Ranks, title: str, axes: Axes) -> Axes:
    """The critical-difference diagram: mean ranks on a line, bars over those that cannot be told apart."""
    ordered = sorted(ranks.ranks, key=lambda name: ranks.ranks[name])
    groups = cliques(ranks)
    below = 0.4 * (len(groups) + 1)
    for i, name in enumerate(ordered):
        place = ranks.ranks[name]
        axes.plot([place, place], [0, -below - i], color="0.7", linewidth=0.8, zorder=1)
        axes.plot([place], [0], marker="o", color=COLOURS[0], clip_on=False)
        axes.annotate(f" {name} ({place:.2f})", (place, -below - i), va="center", fontsize="small")
    for i, group in enumerate(groups):
        ends = [ranks.ranks[name] for name in group]
        axes.plot([min(ends), max(ends)], [-0.4 * (i + 1)] * 2, color=COLOURS[1], linewidth=3, solid_capstyle="butt")
    if ranks.critical is not None:
        axes.plot([1, 1 + ranks.critical], [1, 1], color="0.2", linewidth=1.5)
        axes.annotate(f"critical difference {ranks.critical:.2f}", (1, 1.15), fontsize="small")
    axes.set(xlim=(0.9, len(ordered) + 0.8), ylim=(-below - len(ordered), 2.2), yticks=[])
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.set_title(f"{title}: mean rank over {ranks.blocks} data sets (1 is best), p = {ranks.p:.2g}", fontsize="small")
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.spines["top"].set_position(("data", 0))
    axes.xaxis.tick_top()
    return axes


def write_ranks(ranks: Ranks, title: str, folder: Path) -> Path:
    """The critical-difference diagram as a PNG."""
    figure = _figure((8, 0.4 * len(ranks.ranks) + 1.8))
    draw_ranks(ranks, title, figure.add_subplot())
    return _save(figure, folder, f"ranks {title} {' '.join(ranks.ranks)}")


def write_all(results: Sequence[Result], folder: Path) -> list[Path]:
    """Every figure that these results have something for."""
    kinds = (write_curves, write_purification, write_radii, write_brackets)
    return [path for kind in kinds for path in kind(results, folder)]


def _figure(inches: tuple[float, float] = (6.4, 4.2)) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, folder: Path, name: str) -> Path:
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    if len(stem) > LONGEST_NAME:  # every setting is in it, and file systems have limits
        stem = f"{stem[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    path = folder / f"{stem}.png"
    with files.writing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
    return path
