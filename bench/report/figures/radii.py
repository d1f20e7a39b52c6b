"""Share of images still right over the size of the perturbation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...cells.result import Result
from ._plotly import Figure, _axis, _figure
from ._style import COLOURS, Plot, colour, legend, size, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def _radii(results: Sequence[Result]) -> Iterator[Figure]:
    for (title, norm), lines in radii(results).items():
        traces = []
        for i, (name, found) in enumerate(lines.items()):
            x, share = still_right(found)
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
