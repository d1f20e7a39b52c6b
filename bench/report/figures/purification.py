"""Clean and robust AUROC over the level of a purifier."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ...cells.result import Result, short
from ...cells.schema import PurificationRecord
from ...stats.intervals import Estimate
from ...stats.measured import mean
from . import _plotly as plotly
from ._figure import Figure
from ._plotly import Spec
from ._style import auroc_axis, legend, size, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ByCategory = dict[str, Result]


class Level(NamedTuple):
    value: float
    clean: Estimate
    robust: Estimate


class Bed(NamedTuple):
    """On what, and by which attack."""

    data: str
    image_size: int
    attack: str
    norm: str
    eps: str
    targets: str
    seed: int


class Purified(NamedTuple):
    """What the levels of one figure have in common."""

    bed: Bed
    detector: str
    parameter: str
    """The level's: `part.name`."""
    inner: str
    """The detector without the purifier."""
    settings: str
    """Parameters that are not the defaults, but for the level, as JSON."""

    @property
    def inner_settings(self) -> str:
        """Those of the inner detector, as it has them when it stands alone."""
        outer = self.parameter.rpartition(".")[0] + "."
        own = {k: v for k, v in json.loads(self.settings).items() if not k.startswith(outer)}
        return _text(own if "+" in self.inner else {k.rpartition(".")[2]: v for k, v in own.items()})


@dataclass(frozen=True)
class Purification(Figure):
    """Clean and robust AUROC over the level of a purifier, with 95 % intervals; level 0 is no purifier.

    Of cells that differ in nothing else; a level is the mean over the categories that all of them have.
    """

    group = "Purification"
    needs = "a purifier at two levels"
    place = 5

    purified: Purified
    categories: Sequence[str]
    levels: Sequence[Level]
    shows = 1

    @classmethod
    def of(cls, results: Sequence[Result]) -> list[Purification]:
        """One per purifier, inner detector, data set and attack; none of a purifier that was run at one level only."""
        groups: dict[Purified, dict[float, ByCategory]] = {}
        plain: dict[tuple[Bed, str, str], ByCategory] = {}
        for r in results:
            if r.stops_at_threshold or r.certificate:
                continue
            level = r.record.detector.purification
            if level is None:
                key = (_bed(r), r.spec.detector, _text(r.spec.detector_parameters))
                plain.setdefault(key, {})[r.category] = r
            else:
                by_level = groups.setdefault(_purified(r, level), {})
                by_level.setdefault(float(level.value), {})[r.category] = r
        found = []
        for purified, by_level in groups.items():
            bare = plain.get((purified.bed, purified.inner, purified.inner_settings), {})
            shared = sorted(set.intersection(*map(set, by_level.values())))
            if set(shared) <= set(bare):
                by_level = {0.0: bare, **by_level}
            if len(by_level) > 1 and shared:
                found.append(cls(purified, shared, _levels(by_level, shared)))
        return found

    @property
    def heading(self) -> str:
        bed, detector, *_ = self.purified
        count = len(self.categories)
        what = f"mean of {count} categories" if count > 1 else self.categories[0]
        title = f"{detector}: {bed.data} {what}, {bed.image_size} px\n{bed.attack}, {bed.norm} {bed.eps}"
        title += f", {bed.targets} images attacked" * (bed.targets != "both") + f", seed {bed.seed}" * bool(bed.seed)
        settings = json.loads(self.purified.settings)
        return title + "\n" * bool(settings) + ", ".join(f"{k}={short(v)}" for k, v in settings.items())

    @property
    def name(self) -> str:
        return f"purification {self.heading}"

    @property
    def inches(self) -> tuple[float, float]:
        return size(2)

    @property
    def _lines(self) -> dict[str, list[Estimate]]:
        return {
            "clean AUROC": [level.clean for level in self.levels],
            "robust AUROC": [level.robust for level in self.levels],
        }

    def draw(self, axes: Axes) -> None:
        for i, (name, values) in enumerate(self._lines.items()):
            with_intervals(axes, [level.value for level in self.levels], values, name, i)
        auroc_axis(axes)
        axes.set(title=self.heading, xlabel=f"purification level {self.purified.parameter} (0: none)")
        legend(axes, 2)

    def spec(self) -> Spec:
        x = [level.value for level in self.levels]
        return plotly.chart(
            "Clean and robust AUROC over the level of the purifier with 95 % intervals; level 0 is the detector alone.",
            [plotly.line(name, i, x, values) for i, (name, values) in enumerate(self._lines.items())],
            plotly.axis(self.purified.parameter),
            plotly.auroc_axis(),
            shapes=[plotly.CHANCE],
        )


def _bed(r: Result) -> Bed:
    s = r.spec
    return Bed(s.bed, s.image_size, r.attack, s.norm, s.eps, s.targets, s.seed)


def _purified(r: Result, level: PurificationRecord) -> Purified:
    others = {k: v for k, v in r.spec.detector_parameters.items() if k != level.parameter}
    return Purified(_bed(r), r.spec.detector, level.parameter, level.inner, _text(others))


def _text(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _levels(by_level: Mapping[float, ByCategory], categories: Sequence[str]) -> list[Level]:
    """Ascending, each the mean over these categories."""
    return [
        Level(
            value,
            mean([cells[c].metrics["clean_auroc"] for c in categories]).estimate(),
            mean([cells[c].metrics["robust_auroc"] for c in categories]).estimate(),
        )
        for value, cells in sorted(by_level.items())
    ]
