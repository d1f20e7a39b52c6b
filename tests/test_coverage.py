"""Intervals hold the truth as often as they say, and boards of equal detectors call none of them worse."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.stats import intervals
from bench.stats.intervals import Spread
from bench.stats.measured import Share, mean
from bench.stats.metrics import accuracy, auroc_of
from bench.stats.paired import Apart, Field, difference, may_be_best

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import simulated

Z = intervals.normal_quantile()


def seldom(wrong: int, count: int, most: float) -> bool:
    """Whether a rate of `most` explains so many."""
    return bool(stats.binomtest(wrong, count, most, alternative="greater").pvalue > 1e-3)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    found = list(simulated.of_auroc(300, (simulated.binormal, simulated.coarse), (0.7, 0.99), ((16, 16), (20, 60))))
    assert len(found) == 8
    for cell in found:
        assert seldom(round(300 * (1 - cell.coverage)), 300, 0.07), cell
    assert min(cell.delong_coverage for cell in found) < 0.7  # the simulation sees an interval that does not


@pytest.mark.slow
def test_an_interval_of_an_auroc_covers_the_truth_everywhere() -> None:
    for cell in simulated.of_auroc(2000):
        floor = 0.91 if cell.sizes[0] != cell.sizes[1] else 0.93
        assert seldom(round(2000 * (1 - cell.coverage)), 2000, 1 - floor), cell
        if cell.auroc <= 0.95:  # nearer to 1 it is cautious
            assert cell.coverage <= 0.985, cell
        if cell.delong_coverage >= 0.93:
            assert cell.width <= 1.25 * cell.delong_width, cell


def test_the_simulation_draws_what_it_says() -> None:
    rng = np.random.default_rng(0)
    for family in simulated.FAMILIES:
        for auroc in (0.5, 0.95):
            scores = family(auroc)
            drawn = np.concatenate([scores.normal(rng, (60_000,)), scores.anomalous(rng, (60_000,))])
            found = auroc_of(drawn, np.arange(120_000) >= 60_000)
            assert abs(found.value - auroc) < 4 * np.sqrt(found.spread.variance), (family.__name__, auroc)


def test_the_simulation_measures_spread_as_we_do() -> None:
    rng = np.random.default_rng(1)
    normal, anomalous = rng.normal(size=(3, 12)).round(1), rng.normal(1, size=(3, 9)).round(1)
    values, one, other = simulated.placements(normal, anomalous)
    for i in range(3):
        ours = auroc_of(np.concatenate([normal[i], anomalous[i]]), np.arange(21) >= 12)
        assert ours.value == pytest.approx(values[i]) and ours.spread.variance == pytest.approx(one[i] + other[i])
        assert ours.spread.typical == pytest.approx((1 / 12 + 1 / 9) / 2) and ours.spread.most == 1 / 9


@pytest.mark.parametrize("n", [16, 60])
def test_shares_are_covered_whatever_they_are(n: int) -> None:
    """Exactly, over all that a binomial can be."""
    ends = [accuracy(np.arange(n) < k, np.ones(n), 0.5).ends(Z) for k in range(n + 1)]
    for p in np.linspace(0.5, 0.999, 200):
        chance = stats.binom.pmf(np.arange(n + 1), n, p)
        assert sum(c for c, (low, high) in zip(chance, ends, strict=True) if low <= p <= high) >= 0.925


def test_the_score_interval_is_wilsons() -> None:
    low, high = intervals.wilson(0.8, 1 / 50, Z)
    expected = stats.binomtest(40, 50).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_a_median_lies_between_order_statistics_as_often_as_a_binomial_says() -> None:
    for n in (5, 30, 201):
        first, last = intervals.quantile_ranks(n, 0.5, Z)
        missed = stats.binom.cdf(first, n, 0.5) + stats.binom.sf(last, n, 0.5)
        assert (missed <= 0.05 or n == 5) and stats.binom.cdf(first + 1, n, 0.5) > 0.025


@pytest.mark.parametrize("held_out", [20, 200])
def test_false_alarms_of_a_threshold_are_a_beta_variable(held_out: int) -> None:
    rank = int(np.ceil((held_out + 1) * 0.95 - 1e-9))
    low, high = intervals.false_alarms(rank, held_out)
    rng = np.random.default_rng(held_out)
    drawn = 1 - np.sort(rng.uniform(size=(20_000, held_out)))[:, rank - 1]  # of scores whose distribution is known
    assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.004)


def test_p_and_interval_say_the_same_of_no_difference() -> None:
    rng = np.random.default_rng(2)
    for auroc in (0.7, 0.9, 0.98):
        for _ in range(60):
            scores, labels = simulated.together(rng, (auroc, 0.9), 12, 0.6)
            a, b = (auroc_of(one, labels) for one in scores)
            found, other = difference(a, b), difference(b, a)
            assert (found.p < 0.05) == (found.estimate.low > 0 or found.estimate.high < 0)
            assert other.estimate == pytest.approx((-found.estimate[0], -found.estimate[2], -found.estimate[1]))
            assert -1 <= found.estimate.low <= found.estimate.value <= found.estimate.high <= 1


def test_two_perfect_detectors_may_still_differ() -> None:
    labels = np.arange(40) >= 20
    a, b = (auroc_of(np.random.default_rng(seed).normal(size=40) + 99 * labels, labels) for seed in (0, 1))
    value, low, high = difference(a, b).estimate
    assert value == 0 and low == -high and 0.05 < high < 0.3
    assert difference(a, a).estimate == (0, 0, 0)


def test_differences_are_covered() -> None:
    rng, inside = np.random.default_rng(3), 0
    for _ in range(300):
        scores, labels = simulated.together(rng, (0.9, 0.8), 32, 0.7)
        _, low, high = difference(*(auroc_of(one, labels) for one in scores)).estimate
        inside += low <= 0.1 <= high
    assert seldom(300 - inside, 300, 0.06)


def test_a_difference_without_trust_is_tangos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of discordant pairs alone: (difference - x)^2 <= z^2 (unlike - x^2) / n at both ends."""
    monkeypatch.setattr(intervals, "PAIRED_TRUST", 1e-12)
    n, won, lost = 50, 9, 3
    value, unlike = (won - lost) / n, (won + lost) / n
    spread = Spread((unlike - value**2) / n, 1 / n, 1 / n)
    for end in intervals.difference(value, spread, unlike, Z):
        assert (value - end) ** 2 == pytest.approx(Z**2 * (max(unlike, abs(end)) - end**2) / n)
    assert Apart(value, spread, unlike, False).errors == pytest.approx((won - lost) / np.sqrt(won + lost))  # McNemar


@pytest.mark.parametrize("metric", [auroc_of, lambda scores, labels: accuracy(scores, labels, 1.0)])
def test_equal_detectors_all_may_be_the_best(metric: simulated.Metric) -> None:
    (board,) = simulated.of_best(120, (6,), metric, (0.0,), ((1, 24),), (0.85,))
    assert seldom(round(120 * board.wrong), 120, 0.05)


def test_a_worse_detector_is_found() -> None:
    (board,) = simulated.of_best(40, (6,), auroc_of, (0.25,), ((1, 64),), (0.9,))
    assert board.right > 0.95 and seldom(round(40 * board.wrong), 40, 0.05)


@pytest.mark.slow
def test_boards_of_equal_detectors_call_none_worse() -> None:
    for board in simulated.of_best(300, (2, 13)):
        assert seldom(round(300 * board.wrong), 300, 0.05), board
        if board.worse == 0.2 and board.images == 64:
            assert board.right > 0.9, board


def test_many_are_compared_as_two_are() -> None:
    rng = np.random.default_rng(4)
    cells = [simulated.together(rng, (0.9, 0.8, 0.95), 15, 0.5) for _ in range(2)]
    ours = [mean([auroc_of(scores[i], labels) for scores, labels in cells]) for i in range(3)]
    field = Field([[part for part in one.parts if isinstance(part, Share)] for one in ours])
    pairwise = [[difference(b, a).errors for b in ours] for a in ours]
    assert field.errors == pytest.approx(np.array(pairwise)) and field.errors == pytest.approx(-field.errors.T)


def test_less_may_be_better_and_copies_stay_together() -> None:
    labels = np.arange(60) >= 30
    good, bad = (np.random.default_rng(0).normal(size=60) + gap * labels for gap in (3.0, 0.5))
    ours = [auroc_of(scores, labels) for scores in (good, bad, good)]
    assert may_be_best(ours) == [0, 2] and may_be_best(ours, -1) == [1]
    assert may_be_best(ours[:1]) == [0]
