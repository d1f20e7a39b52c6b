"""What Gaussian noise guarantees: bounds of a smoothed score over an l2 ball, from noisy scores alone.

A detector's score f becomes the p-quantile (the median, say) of f(x + sigma * noise). Moving x by less than r changes
the distribution of noisy images so little that quantiles of it, a little further up and down, bound that of the moved
image (Chiang et al. 2020, https://arxiv.org/abs/2007.03730, lemma 1). Nothing is assumed about f, which may draw noise
of its own. The mean of a bounded score has a bound of the same kind (Kumar et al. 2020,
https://arxiv.org/abs/2009.08061).

`shift` is r / sigma throughout, and `alpha` the chance with which one bound of one image may fail. Upper bounds are the
lower ones of -f: what is written once here serves both.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Floats = npt.NDArray[np.float64]

SURELY_NOT = 0.05
"""Chance with which a sequential test may give an image up that could be certified: it costs no guarantee."""


def upper_rank(n: int, alpha: float, shift: float, p: float = 0.5) -> int | None:
    """The rank q, from 1: the q-th smallest of n scores is above the p-quantile of every image within the radius.

    None if even the largest is not surely so; `fewest_draws` says what n it takes. The number of scores below the
    quantile at Phi(Phi^-1(p) + shift) is binomial.
    """
    rank = int(stats.binom.isf(alpha, n, special.ndtr(special.ndtri(p) + shift))) + 1
    return rank if rank <= n else None


def quantile_bounds(scores: npt.ArrayLike, alpha: float, shift: float, p: float = 0.5) -> tuple[float, float]:
    """(low, high) of the smoothed score over the ball, each wrong with a chance of at most alpha; may be infinite."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    up, down = upper_rank(n, alpha, shift, p), upper_rank(n, alpha, shift, 1 - p)
    return (-math.inf if down is None else float(ordered[n - down])), (
        math.inf if up is None else float(ordered[up - 1])
    )


def fewest_draws(alpha: float, shift: float, p: float = 0.5) -> float:
    """The smallest n for which both bounds are finite: the largest of n scores must be above that quantile.

    inf where no computer could draw as many.
    """
    chance = special.log_ndtr(special.ndtri(max(p, 1 - p)) + shift)
    return math.ceil(math.log(alpha) / chance) if chance and math.log(alpha) / chance < 1e300 else math.inf


def fewest_verdict_draws(alpha: float, p: float) -> float:
    """The smallest n after which the sequential test can say that the chance of a wrong draw is below p."""
    n = 1
    while decided(0, n, alpha, p) is not True:
        n *= 2
        if n > 1e9:
            return math.inf
    return bisect.bisect_left(range(n), True, lo=n // 2, key=lambda k: decided(0, max(k, 1), alpha, p) is True)


def largest_shift(alpha: float, n: int, p: float = 0.5) -> float:
    """The largest radius / sigma at which n draws give two finite bounds; not above 0 if there is none."""
    return float(special.ndtri_exp(math.log(alpha) / n) - special.ndtri(max(p, 1 - p)))


def mean_bounds(scores: npt.ArrayLike, alpha: float, shift: float, limits: tuple[float, float]) -> tuple[float, float]:
    """(low, high) of the mean over noise, for scores that never leave `limits`.

    The share of noisy scores at or above each value is known within a band (Dvoretzky, Kiefer & Wolfowitz, with
    Massart's constant); the noise bound holds for every value, and the mean is the integral over them.
    """
    low, high = limits
    values = np.asarray(scores, dtype=np.float64)
    return _mean_low(values, alpha, shift, low, high), -_mean_low(-values, alpha, shift, -high, -low)


def _mean_low(scores: Floats, alpha: float, shift: float, low: float, high: float) -> float:
    ordered = np.sort(np.clip(scores, low, high))
    n = len(ordered)
    band = math.sqrt(math.log(1 / alpha) / (2 * n))
    at_least = np.clip(1 - np.arange(n) / n - band, 0, 1)  # share at or above the i-th smallest
    return low + float(np.diff(ordered, prepend=low) @ special.ndtr(special.ndtri(at_least) - shift))


def quantile_radius(wrong: int, n: int, alpha: float, p_wrong: float = 0.5) -> float:
    """How far an image may be moved, in sigma, until its decision could be wrong; 0 if it could be already.

    wrong: of n noisy scores, those on the wrong side of the threshold. The decision is wrong once their chance
    reaches `p_wrong`: 1 - p for a normal image, whose p-quantile must stay below, p for an anomalous one.
    """
    if wrong >= n:
        return 0.0
    at_most = float(stats.beta.isf(alpha, wrong + 1, n - wrong))  # Clopper and Pearson
    return max(float(special.ndtri(p_wrong) - special.ndtri(at_most)), 0.0)


def mean_radius(
    scores: npt.ArrayLike, alpha: float, threshold: float, label: int, limits: tuple[float, float]
) -> float:
    """As `quantile_radius`, for the mean: the shift at which the bound meets the threshold."""
    from scipy.optimize import brentq

    if limits[0] > threshold if label else limits[1] <= threshold:
        return math.inf  # no score is on the other side

    def room(shift: float) -> float:
        low, high = mean_bounds(scores, alpha, shift, limits)
        return low - threshold if label else threshold - high

    if room(0.0) <= 0:
        return 0.0
    end = 1.0
    while room(end) > 0:
        end *= 2
    return float(brentq(room, 0.0, end))


def log_evidence(wrong: npt.ArrayLike, n: npt.ArrayLike, p: float) -> Floats:
    """Logarithm of the evidence, after n draws of which `wrong` were wrong, that their chance is below p.

    A bet that wins nothing on average while the chance is p or more, however often it is looked at: it exceeds
    1 / alpha at any time with a chance of at most alpha (Ville). It is the likelihood of all chances below p, evenly
    weighted, over that of p (Robbins 1970; Howard et al. 2021, https://arxiv.org/abs/1810.08240).
    """
    k, n = np.asarray(wrong, dtype=np.float64), np.asarray(n, dtype=np.float64)
    below = special.betaln(k + 1, n - k + 1) + _log_betainc(k + 1, n - k + 1, p) - math.log(p)
    return np.asarray(below - k * math.log(p) - (n - k) * math.log1p(-p))


def _log_betainc(a: Floats, b: Floats, p: float) -> Floats:
    """log I_p(a, b), also where I underflows."""
    value = special.betainc(a, b, p)
    with np.errstate(divide="ignore"):
        plain = np.log(value)
    # leading term of the series in p, for I far below the smallest float
    series = a * math.log(p) + b * math.log1p(-p) - np.log(a) - special.betaln(a, b)
    return np.asarray(np.where(value > 1e-290, plain, series))


def decided(wrong: int, n: int, alpha: float, p: float) -> bool | None:
    """Whether the chance of a wrong draw is below p: True, with a chance of error of at most alpha over all looks;
    False once that is surely not to be shown; None while it is open."""
    if log_evidence(wrong, n, p) >= math.log(1 / alpha):
        return True
    if log_evidence(n - wrong, n, 1 - p) >= math.log(1 / SURELY_NOT):
        return False
    return None
