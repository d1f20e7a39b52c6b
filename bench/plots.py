"""Figures from results: robust AUROC over the budget and over the level of a purifier, and accuracy over the radius."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .board_plots import Heat, Tradeoff, draw_heat, draw_tradeoff, heat, heat_plots, tradeoff, tradeoff_plots
from .bracket import Bracket, brackets, smoothing_key
from .cell_plots import (
    Distribution,
    Reached,
    distribution_plots,
    distributions,
    draw_distributions,
    draw_progress,
    progress,
    progress_plots,
)
from .cells import short, with_settings
from .compare import Ranks, cliques
from .figures import (
    COLOURS,
    LEGEND_INSIDE,
    Plot,
    auroc_axis,
    colour,
    legend,
    marker,
    new,
    save,
    size,
    stem,
    style,
    styled,
    with_intervals,
)
from .metrics import Estimate, mean
from .threat import eps_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .cells import Result

__all__ = [
    "COLOURS", "LEGEND_INSIDE", "Band", "Distribution", "Heat", "Level", "Plot", "Point", "Reached", "Swept",
    "Tradeoff", "band", "bracket_lines", "curves", "distributions", "draw_brackets", "draw_curves",
    "draw_distributions", "draw_heat", "draw_levels", "draw_progress", "draw_radii", "draw_ranks", "draw_tradeoff",
    "heat", "progress", "purification", "radii", "still_right", "tradeoff", "write_plots", "write_ranks",
]  # fmt: skip

MOST_FILES = 6
"""That `write_plots` makes: each takes half a second, and the page draws all of them."""


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


@styled
def draw_levels(levels: Sequence[Level], title: str, parameter: str, axes: Axes) -> Axes:
    """Clean and robust AUROC over the purification level, with 95 % intervals."""
    for i, name in enumerate(("clean", "robust")):
        values: list[Estimate] = [getattr(level, name) for level in levels]
        with_intervals(axes, [level.value for level in levels], values, f"{name} AUROC", i)
    auroc_axis(axes)
    axes.set(title=title, xlabel=f"purification level {parameter} (0: none)")
    legend(axes, 2)
    return axes


def purification_plots(results: Sequence[Result]) -> list[Plot]:
    """One per purifier, inner detector, data set and attack."""
    return [
        Plot(_one_line(title), f"purification {title}", 1, size(2), partial(draw_levels, levels, title, parameter))
        for (title, parameter), levels in purification(results).items()
    ]


def _one_line(title: str) -> str:
    return title.replace("\n", ", ")


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


@styled
def draw_radii(lines: dict[str, npt.NDArray[np.float64]], title: str, norm: str, axes: Axes) -> Axes:
    """Share of images still right at the threshold over the size of the perturbation, one line per detector."""
    ends = [float(found[np.isfinite(found)].max(initial=0)) for found in lines.values()]
    for i, (name, found) in enumerate(lines.items()):
        x, share = still_right(found)
        x, share = np.append(x, max(*ends, x[-1])), np.append(share, share[-1])
        dashes = ("-", "--", ":")[i // len(COLOURS) % 3]
        axes.step(x, share, where="post", label=name, color=colour(i), linestyle=dashes)
    axes.set(title=title, xlabel=f"size of the perturbation ({norm}, pixels in [0, 1])")
    axes.set(ylabel="share of images still right", ylim=(0, 1.02), xlim=(0, None))
    legend(axes, len(lines))
    return axes


def radius_plots(results: Sequence[Result]) -> list[Plot]:
    """One per data set, minimum-norm attack and norm."""
    return [
        Plot(title, f"radii {title}", len(lines), size(len(lines)), partial(draw_radii, lines, title, norm))
        for (title, norm), lines in radii(results).items()
    ]


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


@styled
def draw_ranks(ranks: Ranks, title: str, axes: Axes) -> Axes:
    """The critical-difference diagram: mean ranks on a line, bars over those that cannot be told apart."""
    ordered = sorted(ranks.ranks, key=lambda name: ranks.ranks[name])
    groups = cliques(ranks)
    below = 0.4 * (len(groups) + 1)
    for i, name in enumerate(ordered):
        place = ranks.ranks[name]
        axes.plot([place, place], [0, -below - i], color="0.7", linewidth=0.8, zorder=1)
        axes.plot([place], [0], marker=marker(0), color=colour(0), clip_on=False)
        axes.annotate(f" {name} ({place:.2f})", (place, -below - i), va="center", fontsize="small")
    for i, group in enumerate(groups):
        ends = [ranks.ranks[name] for name in group]
        axes.plot([min(ends), max(ends)], [-0.4 * (i + 1)] * 2, color=colour(1), linewidth=3, solid_capstyle="butt")
    if ranks.critical is not None:
        axes.plot([1, 1 + ranks.critical], [1, 1], color="0.2", linewidth=1.5)
        axes.annotate(f"critical difference {ranks.critical:.2f}", (1, 1.15), fontsize="small")
    axes.set(xlim=(0.9, len(ordered) + 0.8), ylim=(-below - len(ordered), 2.2), yticks=[])
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.set_title(f"{title}: mean rank over {ranks.blocks} data sets (1 is best), p = {ranks.p:.2g}")
    axes.spines[:].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    axes.xaxis.tick_top()
    return axes


def write_ranks(ranks: Ranks, title: str, folder: Path) -> Path:
    """The critical-difference diagram as a PNG."""
    figure = new((8, 0.4 * len(ranks.ranks) + 1.8))
    with style():
        draw_ranks(ranks, title, figure.add_subplot())
    return save(figure, folder, f"ranks {title} {' '.join(ranks.ranks)}")


KINDS: Mapping[str, Callable[[Sequence[Result]], list[Plot]]] = {
    "robustness": curve_plots,
    "tradeoff": tradeoff_plots,
    "heat": heat_plots,
    "progress": progress_plots,
    "purification": purification_plots,
    "radii": radius_plots,
    "brackets": bracket_plots,
    "distributions": distribution_plots,
}
"""By the names of `bench.plot`."""
OF_CELLS = ("distributions",)
"""Kinds with a figure per cell: too many for a report."""


class Written(NamedTuple):
    paths: list[Path]
    notes: list[str]
    """A sentence for each kind of which some were left out."""


def write_plots(results: Sequence[Result], folder: Path) -> Written:
    """Every figure that these results have something for, but not those of cells, as PNG; no more than MOST_FILES.

    Where there are more, the kinds take turns, each with the figure of the most detectors that is left; what comes
    last is left out.
    """
    plots = {kind: make(results) for kind, make in KINDS.items() if kind not in OF_CELLS}
    kept = {kind: {id(plot) for plot in chosen} for kind, chosen in _bounded(plots).items()}
    stems = Counter(stem(plot.name).casefold() for found in plots.values() for plot in found)
    paths, notes = list[Path](), list[str]()
    for kind, found in plots.items():
        paths += [
            plot.write(folder, hashed=stems[stem(plot.name).casefold()] > 1) for plot in found if id(plot) in kept[kind]
        ]
        if left := len(found) - len(kept[kind]):
            notes.append(
                f"{left} of {len(found)} {kind} plots are left out, those of the fewest detectors; "
                "the page has all, and `bench report --filter` makes those of a part of the results"
            )
    return Written(paths, notes)


def _bounded(plots: Mapping[str, Sequence[Plot]]) -> dict[str, list[Plot]]:
    """At most MOST_FILES of them."""
    ordered = {kind: sorted(found, key=lambda plot: -plot.detectors) for kind, found in plots.items()}
    turns = itertools.chain.from_iterable(itertools.zip_longest(*ordered.values()))
    first = {id(plot) for plot in itertools.islice((plot for plot in turns if plot), MOST_FILES)}
    return {kind: [plot for plot in found if id(plot) in first] for kind, found in ordered.items()}
