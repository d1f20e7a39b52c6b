"""What metrics are made of: a cell's scores by column, and the functions that make one number of a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..core.threat import Targets
from ..stats.measured import Floats, Measured, Share, together
from ..stats.metrics import accuracy, auroc_of, average_precision_of, conservative, fpr95_of, median
from ..stats.noise import auroc_noise
from ..stats.pixels import Pixels
from .pixels import SUFFIX, from_texts
from .rows import Table

Kind = Literal["attack", "certificate", "localisation", "shift"]
CONDITIONS = "conditions"
"""Of a cell of shifts: all its parts, each a column."""
SHARE = "0 to 1"
"""The unit of most metrics."""


@dataclass(frozen=True)
class Scored:
    """A finished cell as metrics see it; N images."""

    kind: Kind
    table: Table
    threshold: float
    targets: Targets
    stops_at_threshold: bool
    """The attack wanted the decision wrong, no more: what it reached is no worst case, and ranks nothing."""
    parts: Sequence[str]
    salt: str
    """Of the resamples of a median: the data set and its category."""
    box: bool = False
    """Of shifts: each image meets the worst of a box, and there are no conditions."""

    @property
    def anomalous(self) -> npt.NDArray[np.bool_]:
        """(N,)"""
        return self.table.anomalous

    @property
    def normal_only(self) -> bool:
        """No image of it is anomalous: there are false alarms to count, and nothing to rank."""
        return self.table.normal_only

    def scores(self, column: str) -> Floats | None:
        """(N,): a column of the rows or one that follows from them; None where the cell has none.

        `normal_only` and `anomalous_only` keep the clean score of the other class; of a certificate, its bound at
        radius 0. Of maps (`normal_only_pixels`) it is what each image is judged by. `unbroken` is above 0.5 where an
        anomalous image, and below where a normal one, was not broken.
        """
        if column.endswith(SUFFIX):
            return self._judged(column.removesuffix(SUFFIX))
        known = self.table.columns.get(column)
        if column == "clean":  # of a verdict as many draws as it took: too few for a score
            return None if self.kind == "certificate" and self.stops_at_threshold else known
        if column == CONDITIONS:
            return self.table.columns["worst"] if self.kind == "shift" and not self.box else None
        if column in ("normal_only", "anomalous_only"):
            return self._one_sided(column)
        if column == "unbroken":
            return self._unbroken()
        return known

    def pixels(self, column: str) -> Pixels:
        """Of maps: where their pixels lie."""
        if column not in self._pixels:
            self._pixels[column] = self._pixels_of(column.removesuffix(SUFFIX))
        return self._pixels[column]

    @cached_property
    def _pixels(self) -> dict[str, Pixels]:
        return {}

    def _pixels_of(self, which: str) -> Pixels:
        values = self._judged(which)
        assert values is not None, which
        moved = self._moved(which)
        texts = self.table.pixels
        if moved is None:
            own = texts[which + SUFFIX]
        else:
            pairs = zip(texts["worst" + SUFFIX], texts["clean" + SUFFIX], moved, strict=True)
            own = tuple(worst if there else clean for worst, clean, there in pairs)
        return Pixels(*from_texts(own), self.anomalous, values, self.salt)

    def _moved(self, which: str) -> npt.NDArray[np.bool_] | None:
        """(N,): the images that `normal_only` and `anomalous_only` move."""
        return {"normal_only": ~self.anomalous, "anomalous_only": self.anomalous}.get(which)

    def _judged(self, which: str) -> Floats | None:
        """(N,): what the map of each image is judged by; None where there are no such maps."""
        moved, values = self._moved(which), self.table.columns
        if moved is None:
            return values.get(which) if which + SUFFIX in self.table.pixels else None
        if self.targets not in ("both", which.removesuffix("_only")) or "worst" + SUFFIX not in self.table.pixels:
            return None
        return np.where(moved, values["worst"], values["clean"])

    def order(self, column: str) -> Floats:
        """(N,): what ranks the images. Bounds that tie count against the detector."""
        scores = self.needed(column)
        bounds = self.kind == "certificate" and column != "clean"
        return conservative(scores, self.anomalous) if bounds else scores

    def needed(self, column: str) -> Floats:
        """Of a column that the cell has."""
        found = self.scores(column)
        assert found is not None, column
        return found

    def _one_sided(self, column: str) -> Floats | None:
        if self.targets not in ("both", column.removesuffix("_only")):
            return None
        values = self.table.columns
        still = values["clean"]
        if self.kind == "certificate":
            if self.stops_at_threshold:  # no row says what an image has that nobody moves
                return None
            still = np.where(self.anomalous, values["low_0"], values["high_0"])
        moved = self.anomalous if column == "anomalous_only" else ~self.anomalous
        return np.where(moved, values["worst"], still)

    def _unbroken(self) -> Floats | None:
        values = self.table.columns
        broken = values.get("broken")
        if broken is None or np.isnan(broken).all():
            return None
        wrong = (values["clean"] > self.threshold) != self.anomalous
        return np.asarray(np.where(np.isnan(broken), wrong, broken) != self.anomalous, dtype=np.float64)


Of = Callable[[Scored, str], Measured]


@dataclass(frozen=True)
class Measure:
    """What is made of one column of scores, whichever it is."""

    of: Of
    ranks: bool = False
    """It compares the images with each other, so an attack that stops at the threshold has none."""
    better: Literal[1, -1] = 1
    """1 where more is better, -1 where less is."""
    unit: str = SHARE
    has: Callable[[Scored, Floats], bool] = lambda cell, scores: True
    """Whether these scores are enough for it."""
    classes: tuple[int, ...] = (0, 1)
    """Labels of which it needs an image."""

    def of_cell(self, cell: Scored, scores: Floats) -> bool:
        """Whether the cell has it of a column with these scores."""
        return all(_class(label, cell).any() for label in self.classes) and self.has(cell, scores)


def _ranked(metric: Callable[[npt.ArrayLike, npt.ArrayLike], Measured], cell: Scored, column: str) -> Measured:
    return metric(cell.order(column), cell.anomalous)


def _accuracy(cell: Scored, column: str) -> Measured:
    return accuracy(cell.needed(column), cell.anomalous, cell.threshold)


def _class(label: int, cell: Scored) -> npt.NDArray[np.bool_]:
    """(N,): the images of one class."""
    return cell.anomalous if label else ~cell.anomalous


def _right(label: int, cell: Scored, column: str) -> Measured:
    one = _class(label, cell)
    return accuracy(cell.needed(column)[one], cell.anomalous[one], cell.threshold)


def _median(label: int, cell: Scored, column: str) -> Measured:
    """Of those that have a number."""
    values = cell.needed(column)
    return median(values[_class(label, cell) & ~np.isnan(values)], cell.salt)


def _every(label: int, cell: Scored, scores: Floats) -> bool:
    return not np.isnan(scores[_class(label, cell)]).any()


def _whole(cell: Scored, scores: Floats) -> bool:
    return not np.isnan(scores).any()


def _noise(cell: Scored, column: str) -> Measured:
    """Of a column of standard errors: what they make of the AUROC of the scores."""
    return auroc_noise(cell.needed(column.removesuffix("_se")), cell.needed(column), cell.anomalous)


AUROC = Measure(partial(_ranked, auroc_of), ranks=True, has=_whole)
AP = Measure(partial(_ranked, average_precision_of), ranks=True)
AUROC_NOISE = Measure(_noise, ranks=True, better=-1, has=_whole)
FPR95 = Measure(partial(_ranked, fpr95_of), ranks=True, better=-1)
ACCURACY = Measure(_accuracy)
NORMAL_RIGHT, ANOMALOUS_RIGHT = (Measure(partial(_right, label), classes=(label,)) for label in (0, 1))
RADIUS_NORMAL, RADIUS_ANOMALOUS = (
    Measure(partial(_median, label), unit="the norm, pixels in [0, 1]", classes=(label,)) for label in (0, 1)
)
BOUND_NORMAL, BOUND_ANOMALOUS = (
    Measure(partial(_median, label), unit="l2, pixels in [0, 1]", has=partial(_every, label), classes=(label,))
    for label in (0, 1)
)


def _map(name: str, cell: Scored, column: str) -> Measured:
    return cell.pixels(column).measure(name)


def _wrong(label: int, cell: Scored, column: str) -> Share:
    """Share of a class on the wrong side of the threshold."""
    one = _class(label, cell)
    return accuracy(cell.needed(column)[one], ~cell.anomalous[one], cell.threshold)


def _over_conditions(of: Callable[[Scored, str], Share], cell: Scored, column: str) -> Measured:
    """The mean."""
    return together([of(cell, part) for part in cell.parts])


def _area(cell: Scored, column: str) -> Share:
    return auroc_of(cell.needed(column), cell.anomalous)


FALSE_ALARMS, MISSES = (Measure(partial(_wrong, label), better=-1, classes=(label,)) for label in (0, 1))
MEAN_AUROC = Measure(partial(_over_conditions, _area), ranks=True)
MEAN_FALSE_ALARMS, MEAN_MISSES = (
    Measure(partial(_over_conditions, partial(_wrong, label)), better=-1, classes=(label,)) for label in (0, 1)
)
PIXEL_AUROC, PIXEL_AP, AUPRO, AUPRO_05, SEG_F1 = (
    Measure(partial(_map, name), ranks=True) for name in ("pixel_auroc", "pixel_ap", "aupro", "aupro_05", "seg_f1")
)
BACKGROUND_FPR = Measure(partial(_map, "background_fpr"), ranks=True, better=-1)
UNBROKEN = Measure(lambda cell, column: accuracy(cell.needed(column), cell.anomalous, 0.5))
