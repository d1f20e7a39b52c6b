"""Share of images still right over the size of the perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...cells.result import Result
from . import _plotly as plotly
from ._figure import Lines
from ._plotly import Spec
from ._style import COLOURS, colour, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Radii(Lines):
    """Share of images still right at the threshold over the size of the perturbation, as a minimum-norm attack found
    it, a line per detector.

    Of the categories that all detectors of the figure have. The budget bounds the image that such an attack returns,
    not the radius; of several budgets the largest is shown.
    """

    group = "Radii"
    needs = "a minimum-norm attack, fab or ddn"
    place = 6
    called = "radii"

    attack: str
    """With the data."""
    norm: str
    lines: Mapping[str, Floats]
    """Detector -> the radii of its images, sorted."""

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Radii]:
        """One per data set, minimum-norm attack and norm."""
        groups: dict[tuple[str, str], dict[str, dict[str, Result]]] = {}
        for r in sorted(results, key=lambda r: r.eps):
            if r.radii is not None:
                name = f"{r.detector} (not ranked)" if r.unranked else r.detector
                detectors = groups.setdefault((_attack(r), r.spec.norm), {})
                detectors.setdefault(name, {})[r.category] = r
        found = [cls(attack, norm, _lines(detectors)) for (attack, norm), detectors in groups.items()]
        return [figure for figure in found if figure.lines]

    @property
    def heading(self) -> str:
        return self.attack

    def draw(self, axes: Axes) -> None:
        end = max(float(found[np.isfinite(found)].max(initial=0)) for found in self.lines.values())
        for i, (name, found) in enumerate(self.lines.items()):
            x, share = still_right(found)
            x, share = np.append(x, end), np.append(share, share[-1])
            dashes = ("-", "--", ":")[i // len(COLOURS) % 3]
            axes.step(x, share, where="post", label=name, color=colour(i), linestyle=dashes)
        axes.set(title=self.attack, xlabel=f"size of the perturbation ({self.norm}, pixels in [0, 1])")
        axes.set(ylabel="share of images still right", ylim=(0, 1.02), xlim=(0, None))
        legend(axes, len(self.lines))

    def spec(self) -> Spec:
        return plotly.chart(
            "Share of images still judged rightly at the threshold, over the size of the perturbation.",
            [_trace(name, i, *still_right(found)) for i, (name, found) in enumerate(self.lines.items())],
            plotly.axis(f"size of the perturbation ({self.norm}, pixels in [0, 1])", rangemode="tozero"),
            plotly.axis("share of images still right", range=[-0.02, 1.03]),
        )


def _attack(r: Result) -> str:
    s = r.spec
    title = f"{s.bed}, {s.image_size} px: {r.attack}, {s.norm}"
    title += f", {s.targets} images attacked" * (s.targets != "both")
    return title + f", seed {s.seed}" * bool(s.seed)


def _lines(detectors: Mapping[str, Mapping[str, Result]]) -> dict[str, Floats]:
    """Of the categories that all have; without a detector whose images nobody attacked."""
    shared = sorted(set.intersection(*map(set, detectors.values())))
    found: dict[str, Floats] = {}
    for name, cells in sorted(detectors.items()):
        parts = [part for category in shared for part in cells[category].radii or ()]
        if sum(map(len, parts)):
            found[name] = np.sort(np.concatenate(parts))
    return found


def _trace(name: str, i: int, x: Floats, share: Floats) -> Spec:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": np.round(x, 5).tolist(),
        "y": np.round(share, 4).tolist(), "line": {"color": colour(i), "shape": "hv"},
    }  # fmt: skip


def still_right(found: Floats) -> tuple[Floats, Floats]:
    """Sorted radii -> (x, share): of the images, how many are still judged rightly after a perturbation of size x.

    A step down at every finite radius; an image whose radius is inf is right at every x.
    """
    finite = found[np.isfinite(found)]
    x = np.concatenate([[0.0], finite])
    return x, 1 - np.searchsorted(found, x, side="right") / len(found)
