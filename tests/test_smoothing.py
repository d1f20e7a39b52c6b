"""Bounds by Gaussian noise: against their definitions, closed forms, and how often they fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from bench.stats import smoothing

PHI, QUANTILE = stats.norm.cdf, stats.norm.ppf


@pytest.mark.parametrize(
    ("n", "shift", "confidence"),
    [(2000, 1.44, 0.99999), (1000, 1 / 0.6, 0.999), (1000, 0.8, 0.999), (100, 0.8, 0.999), (10, 0.1, 0.9)],
)
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_ranks_are_the_first_that_the_binomial_allows(n: int, shift: float, confidence: float, p: float) -> None:
    up, down = PHI(QUANTILE(p) + shift), PHI(QUANTILE(p) - shift)
    ranks = range(1, n + 1)
    high = next((q for q in ranks if stats.binom.cdf(q - 1, n, up) >= confidence), None)
    low = next((q for q in reversed(ranks) if 1 - stats.binom.cdf(q - 1, n, down) >= confidence), None)
    assert smoothing.upper_rank(n, 1 - confidence, shift, p) == high
    mirrored = smoothing.upper_rank(n, 1 - confidence, shift, 1 - p)
    assert (None if mirrored is None else n + 1 - mirrored) == low


@settings(deadline=None)
@given(alpha=st.floats(1e-9, 0.3), shift=st.floats(0, 3), p=st.floats(0.1, 0.9))
def test_the_fewest_draws_are_enough_and_one_less_is_not(alpha: float, shift: float, p: float) -> None:
    n = int(smoothing.fewest_draws(alpha, shift, p))
    scores = np.arange(n, dtype=float)
    assert all(map(math.isfinite, smoothing.quantile_bounds(scores, alpha, shift, p)))
    assert n == 1 or not all(map(math.isfinite, smoothing.quantile_bounds(scores[1:], alpha * 0.999, shift, p)))
    reach = smoothing.largest_shift(alpha, n, p)
    assert reach >= shift - 1e-6
    assert smoothing.fewest_draws(alpha, reach + 1e-3, p) > n


def test_a_shift_beyond_all_draws_takes_infinitely_many() -> None:
    assert smoothing.fewest_draws(0.001, 80.0) == smoothing.fewest_verdict_draws(0.001, 1e-12) == math.inf


@settings(deadline=None)
@given(seed=st.integers(0, 999), shift=st.floats(0, 1.5), further=st.floats(0, 1), alpha=st.floats(1e-4, 0.1))
def test_bounds_hold_the_centre_and_grow_with_the_radius(seed: int, shift: float, further: float, alpha: float) -> None:
    scores = np.random.default_rng(seed).exponential(size=200)
    low, high = smoothing.quantile_bounds(scores, alpha, shift)
    wider = smoothing.quantile_bounds(scores, alpha, shift + further)
    assert wider[0] <= low <= np.median(scores) <= high <= wider[1]
    clipped = np.clip(scores, 0, 2)
    low, high = smoothing.mean_bounds(clipped, alpha, shift, (0, 2))
    wider = smoothing.mean_bounds(clipped, alpha, shift + further, (0, 2))
    assert 0 <= wider[0] <= low <= clipped.mean() <= high <= wider[1] <= 2


def fails_at_most(failed: int, trials: int, alpha: float) -> bool:
    """Not surely more often than alpha; and often enough to show that the count counts something."""
    return bool(stats.binomtest(failed, trials, alpha, alternative="greater").pvalue > 1e-3) and failed > 0


TRIALS = 2000


@pytest.mark.parametrize("p", [0.5, 0.25])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_quantile_bounds_fail_no_more_often_than_alpha(shift: float, p: float) -> None:
    rng, alpha = np.random.default_rng(1), 0.1
    truth = stats.expon.ppf([PHI(QUANTILE(p) - shift), PHI(QUANTILE(p) + shift)])
    found = np.array([smoothing.quantile_bounds(rng.exponential(size=150), alpha, shift, p) for _ in range(TRIALS)])
    assert fails_at_most(int((found[:, 0] > truth[0]).sum()), TRIALS, alpha)
    assert fails_at_most(int((found[:, 1] < truth[1]).sum()), TRIALS, alpha)


def test_mean_bounds_fail_no_more_often_than_alpha_and_are_tight_for_a_step() -> None:
    """The mean of a step along a direction falls to exactly Phi(Phi^-1(mean) - shift) when moved against it.

    The band is made for all values at once, so that bounds of a step, which has one, fail less often than alpha.
    """
    rng, alpha, shift, mean = np.random.default_rng(2), 0.1, 0.5, 0.8
    truth = PHI(QUANTILE(mean) - shift), PHI(QUANTILE(mean) + shift)
    draws = (rng.random((TRIALS, 150)) < mean).astype(float)
    found = np.array([smoothing.mean_bounds(row, alpha, shift, (0, 1)) for row in draws])
    assert (found[:, 0] > truth[0]).mean() <= alpha and (found[:, 1] < truth[1]).mean() <= alpha
    many = (rng.random(100_000) < mean).astype(float)
    assert smoothing.mean_bounds(many, 0.001, shift, (0, 1)) == pytest.approx(truth, abs=0.02)


def test_radii_fail_no_more_often_than_alpha() -> None:
    rng, alpha, chance, n = np.random.default_rng(3), 0.1, 0.2, 150
    truth = -QUANTILE(chance)
    found = [smoothing.quantile_radius(int(wrong), n, alpha) for wrong in rng.binomial(n, chance, TRIALS)]
    assert fails_at_most(sum(radius > truth for radius in found), TRIALS, alpha)
    assert smoothing.quantile_radius(n, n, alpha) == smoothing.quantile_radius(n // 2, n, alpha) == 0


def test_a_sequential_verdict_is_wrong_no_more_often_than_alpha_however_often_one_looks() -> None:
    rng, alpha, p, n = np.random.default_rng(4), 0.1, 0.3, 400
    wrong = (rng.random((TRIALS, n)) < p).cumsum(1)  # at the edge: showing that it is below p would be an error
    evidence = smoothing.log_evidence(wrong, np.arange(1, n + 1), p)
    assert fails_at_most(int((evidence >= math.log(1 / alpha)).any(1).sum()), TRIALS, alpha)
    below = (rng.random((100, n)) < 0.1).cumsum(1)
    assert all(any(smoothing.decided(int(k), i + 1, alpha, p) for i, k in enumerate(row)) for row in below)
    above = (rng.random((100, n)) < 0.6).cumsum(1)
    given_up = [any(smoothing.decided(int(k), i + 1, alpha, p) is False for i, k in enumerate(row)) for row in above]
    assert all(given_up)


@pytest.mark.parametrize(("wrong", "n", "p"), [(0, 1, 0.5), (3, 40, 0.2), (30, 40, 0.2), (0, 40, 1e-6)])
def test_the_evidence_is_the_likelihood_of_all_chances_below_p(wrong: int, n: int, p: float) -> None:
    def relative(q: float) -> float:
        return (q / p) ** wrong * ((1 - q) / (1 - p)) ** (n - wrong)

    expected = integrate.quad(relative, 0, p)[0] / p
    assert smoothing.log_evidence(wrong, n, p) == pytest.approx(math.log(expected), rel=1e-6, abs=1e-6)


def test_the_evidence_of_many_draws_is_finite() -> None:
    found = smoothing.log_evidence([0, 5_000, 10_000], [10_000] * 3, 0.001)
    assert np.isfinite(found).all() and found[0] > 0 > found[1] > found[2]


@pytest.mark.parametrize("label", [0, 1])
def test_a_linear_score_is_certified_to_within_a_fifth_of_what_is_true(label: int) -> None:
    """Its smoothed score is itself, and a move of r changes it by r |w|, so every radius is known."""
    rng, sigma, weight, margin = np.random.default_rng(5), 0.25, 3.0, 0.9
    scores = (margin if label else -margin) + sigma * weight * rng.standard_normal(10_000)
    true = margin / weight
    radius = sigma * smoothing.quantile_radius(int(((scores > 0) != label).sum()), len(scores), 0.001)
    assert 0.8 * true <= radius <= true
    low, high = smoothing.quantile_bounds(scores, 0.001, 0.2 / sigma)
    moved = scores.mean() + np.array([-1, 1]) * 0.2 * weight
    assert low <= moved[0] and moved[1] <= high
    assert high - low <= 1.2 * 2 * 0.2 * weight


@pytest.mark.parametrize("label", [0, 1])
def test_the_radius_of_a_mean_is_where_its_bound_meets_the_threshold(label: int) -> None:
    scores = np.clip(np.random.default_rng(6).normal(0.7 if label else 0.3, 0.1, 2000), 0, 1)
    radius = smoothing.mean_radius(scores, 0.001, 0.5, label, (0, 1))
    bounds = smoothing.mean_bounds(scores, 0.001, radius, (0, 1))
    assert bounds[0 if label else 1] == pytest.approx(0.5, abs=1e-6)
    assert smoothing.mean_radius(scores, 0.001, 0.5, 1 - label, (0, 1)) == 0
    assert smoothing.mean_radius(scores, 0.001, -0.1 if label else 1.0, label, (0, 1)) == math.inf
