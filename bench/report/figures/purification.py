"""Clean and robust AUROC over the level of a purifier."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ...cells.result import Result, short
from ...stats.metrics import Estimate, mean
from ._plotly import CHANCE, Figure, _auroc, _axis, _figure, _line
from ._style import Plot, _one_line, auroc_axis, legend, size, styled, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def _purification(results: Sequence[Result]) -> Iterator[Figure]:
    for (title, parameter), levels in purification(results).items():
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
