"""How much of a metric is the noise of a randomized detector: what other draws would make of it, on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from .measured import Measured

REPEATS = 200
SEED = 20261126


@dataclass(frozen=True, eq=False)
class Noise(Measured):
    """A standard error; it has none itself."""

    value: float

    def ends(self, z: float) -> tuple[float, float]:
        return self.value, self.value

    def averaged(self, others: Sequence[Measured]) -> Measured:
        """Of the mean over categories, whose draws are independent."""
        return Noise(math.sqrt(sum(one.value**2 for one in others)) / len(others))


def auroc_noise(scores: npt.ArrayLike, errors: npt.ArrayLike, anomalous: npt.NDArray[np.bool_]) -> Noise:
    """Standard deviation of the AUROC when each score (N,) gets normal noise of its own standard error (N,)."""
    values, error = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    rng = np.random.default_rng(SEED)
    count = int(anomalous.sum())
    pairs = count * (len(values) - count)
    if not pairs:
        return Noise(math.nan)
    sums = [
        rankdata(values + error * rng.standard_normal(len(values)))[anomalous].sum() / pairs for _ in range(REPEATS)
    ]
    return Noise(float(np.std(sums, ddof=1)))
