"""Metrics against hand-computed values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from bench.core.threshold import threshold_at
from bench.stats.metrics import (
    FROM_CURVES,
    RESAMPLES,
    Bootstrap,
    Metrics,
    _curves,
    _weights,
    accuracy,
    auroc_of,
    mean,
    points,
    ranking,
)


def test_values_computed_by_hand() -> None:
    scores, labels = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 0, 1], bool)
    found = points(scores, labels)
    assert found["auroc"] == 0.75  # of the four pairs, only (2, 3) is the wrong way round
    assert found["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["fpr95"] == 0.5  # both anomalies are flagged from 2 on, which also flags 3
    assert points(np.zeros(4), labels)["auroc"] == 0.5


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40), st.integers(0, 10))
@settings(deadline=None, max_examples=60)
def test_the_bootstrap_computes_what_scikit_learn_computes_with_weights(
    pairs: list[tuple[int, bool]], which: int
) -> None:
    scores, labels = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    if not labels.any() or labels.all():
        return
    weights = next(iter(_weights(labels, "salt")))[:, which : which + 1].astype(np.float64)
    curves = _curves(scores, labels, weights)
    w = weights[:, 0]
    fpr, tpr, _ = roc_curve(labels, scores, sample_weight=w, drop_intermediate=False)
    resampled = auroc_of(scores, labels, "salt").samples
    assert resampled[which] == pytest.approx(roc_auc_score(labels, scores, sample_weight=w))
    assert FROM_CURVES["ap"](curves)[0] == pytest.approx(average_precision_score(labels, scores, sample_weight=w))
    assert FROM_CURVES["fpr95"](curves)[0] == pytest.approx(fpr[(tpr >= 0.95 - 1e-12).argmax()])


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
@settings(deadline=None, max_examples=60)
def test_values_and_resamples_are_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    found = ranking(scores, labels, "salt")
    if not labels.any() or labels.all():
        assert all(np.isnan(one.value) for one in found.values())
        return
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "fpr95": fpr[(tpr >= 0.95 - 1e-12).argmax()],
    }
    assert points(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected, abs=1e-12)
    weights = np.concatenate(list(_weights(labels, "salt")), axis=1)
    curves = _curves(scores, labels, weights.astype(np.float64))
    for name, metric in FROM_CURVES.items():
        assert np.allclose(found[name].samples, metric(curves), atol=1e-5)
    tpr, fpr = (np.insert(counts / counts[-1], 0, 0, axis=0) for counts in curves)
    assert np.allclose(found["auroc"].samples, np.trapezoid(tpr, fpr, axis=0), atol=1e-5)


def test_metrics_are_computed_once_and_only_if_they_are_wanted() -> None:
    made: list[str] = []

    def maker(name: str) -> Bootstrap:
        made.append(name)
        return Bootstrap(1.0, np.ones(3))

    found = Metrics({"a": lambda: maker("a"), "b": lambda: maker("b")})
    assert "a" in found and "c" not in found and list(found) == ["a", "b"] and made == []
    assert found["a"] is found["a"] and found.get("c") is None and made == ["a"]


def test_resamples_keep_the_size_of_both_classes() -> None:
    labels = np.array([0] * 7 + [1] * 5, bool)
    weights = np.concatenate(list(_weights(labels, "")), axis=1)
    assert weights.shape == (12, RESAMPLES)
    assert (weights[~labels].sum(0) == 7).all() and (weights[labels].sum(0) == 5).all()


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Scores N(0,1) and N(1,1) have AUROC Phi(1/sqrt 2) = 0.7602."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    inside = 0
    for _ in range(200):
        estimate = ranking(rng.normal(labels, 1.0), labels)["auroc"].estimate()
        inside += estimate.low <= 0.76025 <= estimate.high
    assert 0.88 <= inside / 200 <= 0.99  # nominal 0.95


def test_intervals_repeat_and_categories_are_resampled_independently() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 30)
    scores = rng.normal(labels, 1.0)
    assert ranking(scores, labels)["auroc"].estimate() == ranking(scores, labels)["auroc"].estimate()
    a, b = ranking(scores, labels, "a")["auroc"], ranking(scores, labels, "b")["auroc"]
    assert abs(np.corrcoef(a.samples, b.samples)[0, 1]) < 0.1
    both, one = mean([a, b]).estimate(), a.estimate()
    assert (both.high - both.low) < 0.8 * (one.high - one.low)  # 1 / sqrt 2, if independent


@given(st.lists(st.floats(-5, 5) | st.sampled_from([np.inf, -np.inf]), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
def test_intervals_are_numpys_percentiles(samples: list[float]) -> None:
    found = Bootstrap(0.0, np.array(samples)).estimate()
    if np.isinf(samples).any():
        expected = np.percentile(samples, [2.5, 97.5], method="nearest")
    else:
        expected = np.percentile(samples, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(expected)
    assert np.isnan(Bootstrap(0.0, np.array([*samples, np.nan])).estimate().low)


def test_a_missing_class_is_nan_not_a_number() -> None:
    for labels in ([1, 1], [0, 0]):
        assert np.isnan([one.value for one in ranking([1.0, 2.0], labels).values()]).all()
        assert np.isnan(list(points([1.0, 2.0], labels).values())).all()


def test_the_threshold_is_the_conformal_quantile() -> None:
    assert threshold_at(np.arange(1, 20)) == 19  # n = 19: the largest, exactly 5 % in expectation
    assert threshold_at(np.arange(1, 100)) == 95
    assert threshold_at([3.0, 1.0]) == 3  # too few for a promise: the largest
    assert np.isnan(threshold_at([]))


def test_counts_are_divided_in_double_precision() -> None:
    scores, labels = np.arange(10.0), np.repeat([0, 1], 5)
    scores[[0, 9]] = scores[[9, 0]]
    assert accuracy(scores, labels, 4.5).value == 0.8
    for found in (accuracy(scores, labels, 4.5), *ranking(scores, labels).values()):
        assert found.samples.dtype == np.float64
    counts = accuracy(scores, labels, 4.5).samples * 10
    np.testing.assert_allclose(counts, counts.round(), rtol=1e-14)
    pairs = 25 * ranking(scores, labels)["auroc"].samples
    np.testing.assert_allclose(pairs, pairs.round(), rtol=1e-14)


def test_accuracy_at_a_threshold() -> None:
    found = accuracy([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1], 1.5).estimate()
    assert found.value == 0.5
    assert 0 <= found.low <= 0.5 <= found.high <= 1
    assert np.isnan(accuracy([0.0], [0], float("nan")).value)
