"""Metrics against hand-computed values, scikit-learn and their own definitions."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

import bench
from bench.core.threshold import threshold_at
from bench.stats.measured import Measured, Metrics, Share, mean
from bench.stats.metrics import accuracy, auroc_of, average_precision_of, fpr95_of, median, points
from bench.stats.noise import Noise, auroc_noise

OF_SCORES: tuple[Callable[..., Share], ...] = (auroc_of, average_precision_of, fpr95_of)
Pairs = list[tuple[int, bool]]
pairs = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)


def arrays(found: Pairs) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p[0] for p in found], float), np.array([p[1] for p in found])


def test_values_computed_by_hand() -> None:
    scores, labels = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 0, 1], bool)
    found = points(scores, labels)
    assert found["auroc"] == 0.75  # of the four pairs, only (2, 3) is the wrong way round
    assert found["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["fpr95"] == 0.5  # both anomalies are flagged from 2 on, which also flags 3
    assert points(np.zeros(4), labels)["auroc"] == 0.5


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_values_are_scikit_learns(found: Pairs) -> None:
    scores, labels = arrays(found)
    ours = {name: of(scores, labels).value for name, of in zip(("auroc", "ap", "fpr95"), OF_SCORES, strict=True)}
    if not labels.any() or labels.all():
        assert np.isnan(list(ours.values())).all()
        return
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "fpr95": fpr[(tpr >= 0.95 - 1e-12).argmax()],
    }
    assert points(scores, labels) == pytest.approx(expected, abs=1e-12) and points(scores, labels) == ours


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_placements_are_the_means_of_all_pairs(found: Pairs) -> None:
    scores, labels = arrays(found)
    if not labels.any() or labels.all():
        return
    won = np.sign(scores[labels][:, None] - scores[~labels]) / 2 + 0.5
    normal, anomalous = auroc_of(scores, labels).classes()
    assert normal.each == pytest.approx(won.mean(0)) and anomalous.each == pytest.approx(won.mean(1))
    if min(won.shape) > 1:  # DeLong's variance
        expected = won.mean(0).var(ddof=1) / won.shape[1] + won.mean(1).var(ddof=1) / won.shape[0]
        assert auroc_of(scores, labels).spread.variance == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_an_image_moves_the_average_precision_as_its_weight_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([False, True], [9, 7])
    scores = rng.normal(labels).round(seed % 2)  # with ties and without
    ours = average_precision_of(scores, labels)
    for label, one in enumerate(ours.classes()):
        index = np.flatnonzero(labels == label)
        for place, image in enumerate(index):
            weights, step = np.ones(len(labels)), 1e-6
            weights[index] *= 1 - step
            weights[image] += step * len(index)
            moved = (average_precision_score(labels, scores, sample_weight=weights) - ours.value) / step
            assert one.each[place] - one.each.mean() == pytest.approx(moved, abs=1e-4)


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_intervals_hold_the_value_and_swapped_classes_mirror_them(found: Pairs) -> None:
    scores, labels = arrays(found)
    if not labels.any() or labels.all():
        return
    for one in (*(of(scores, labels) for of in OF_SCORES), accuracy(scores, labels, 3.0)):
        value, low, high = one.estimate()
        assert 0 <= low <= value <= high <= 1 and low < high
    mirrored = auroc_of(scores, ~labels).estimate()
    assert auroc_of(scores, labels).estimate() == pytest.approx(
        (1 - mirrored.value, 1 - mirrored.high, 1 - mirrored.low), abs=1e-13
    )


def test_a_perfect_detector_is_not_surely_perfect() -> None:
    """Of few images less is known than of many."""
    lows = [auroc_of(np.arange(2.0 * n), np.arange(2 * n) >= n).estimate().low for n in (5, 16, 100)]
    assert lows == sorted(lows) and lows[0] > 0.5 and lows[-1] < 1


def test_metrics_are_computed_once_and_only_if_they_are_wanted() -> None:
    made: list[str] = []

    def maker(name: str) -> Measured:
        made.append(name)
        return median([1.0])

    found = Metrics({"a": lambda: maker("a"), "b": lambda: maker("b")})
    assert "a" in found and "c" not in found and list(found) == ["a", "b"] and made == []
    assert found["a"] is found["a"] and found.get("c") is None and made == ["a"]


def test_categories_are_independent() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 30)
    one, other = (auroc_of(rng.normal(labels, 1.0), labels) for _ in range(2))
    both, alone = mean([one, other]).estimate(), one.estimate()
    assert both.value == pytest.approx((one.value + other.value) / 2)
    assert both.high - both.low == pytest.approx((alone.high - alone.low) / np.sqrt(2), rel=0.2)
    assert mean([one]) is one


def test_a_missing_class_is_nan_not_a_number() -> None:
    for labels in ([1, 1], [0, 0]):
        assert np.isnan([of([1.0, 2.0], labels).estimate() for of in OF_SCORES]).all()
        assert np.isnan(list(points([1.0, 2.0], labels).values())).all()


def test_the_threshold_is_the_conformal_quantile() -> None:
    assert threshold_at(np.arange(1, 20)) == 19  # n = 19: the largest, exactly 5 % in expectation
    assert threshold_at(np.arange(1, 100)) == 95
    assert threshold_at([3.0, 1.0]) == 3  # too few for a promise: the largest
    assert np.isnan(threshold_at([]))


def test_accuracy_at_a_threshold() -> None:
    found = accuracy([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1], 1.5).estimate()
    assert found.value == 0.5 and 0 < found.low < 0.5 < found.high < 1
    assert np.isnan(accuracy([0.0], [0], float("nan")).estimate()).all()
    scores, labels = np.arange(10.0), np.repeat([0, 1], 5)
    scores[[0, 9]] = scores[[9, 0]]
    assert accuracy(scores, labels, 4.5).value == 0.8  # to the last digit


def test_infinite_scores_rank_like_others() -> None:
    labels = np.array([0, 0, 1, 1], bool)
    assert auroc_of([-np.inf, 1.0, 1.0, np.inf], labels).value == 7 / 8
    for of in OF_SCORES:
        assert of([-np.inf, 1.0, 2.0, np.inf], labels).value == of([-9.0, 1.0, 2.0, 9.0], labels).value


def test_memory_grows_with_the_images_and_not_with_their_pairs() -> None:
    labels = np.arange(100_000) % 2 == 1
    scores = np.random.default_rng(0).normal(labels)
    for of in OF_SCORES:
        tracemalloc.start()
        of(scores, labels).estimate()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200 * len(labels)  # bytes; the pairs alone are 25,000 an image


def test_auroc_is_public() -> None:
    labels, scores = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    found = bench.auroc(labels, scores)
    assert found.value == 0.75 and found == auroc_of(scores, labels).estimate()
    assert bench.auroc(np.array(labels, bool), scores) == found


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 1], [1.0], "two equally long lists"),
        ([[0, 1]], [[1.0, 2.0]], "two equally long lists"),
        ([0, 2], [1.0, 2.0], "labels other than 0"),
        ([1, 1], [1.0, 2.0], "both classes"),
        ([0, 1], [1.0, float("nan")], "1 scores are nan"),
    ],
)
def test_what_has_no_auroc_is_refused(labels: list[int], scores: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        bench.auroc(labels, scores)


def test_the_noise_of_an_auroc_is_what_other_draws_make_of_it() -> None:
    """Against the spread over many draws of everything anew, and the same for certain where nothing is noisy."""
    rng = np.random.default_rng(0)
    anomalous = np.arange(120) >= 60
    means, errors = rng.normal(anomalous * 1.0, 1), rng.uniform(0.2, 0.8, 120)
    drawn = [means + errors * rng.standard_normal(120) for _ in range(2000)]
    spread = np.std([roc_auc_score(anomalous, scores) for scores in drawn])
    found = [auroc_noise(scores, errors, anomalous).value for scores in drawn[:20]]
    assert np.mean(found) == pytest.approx(spread, rel=0.15)
    assert auroc_noise(means, 0 * errors, anomalous).value < 1e-12
    assert np.isnan(auroc_noise(means, errors, np.zeros(120, bool)).value)
    assert mean([Noise(0.03), Noise(0.04)]).value == pytest.approx(0.025)
