"""Comparisons: paired by image, and over data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Linear, respec, small_data
from made_up import many, random_scores, scored
from scipy import stats

from bench import Data, ThreatModel, UserError, evaluate
from bench.analysis.compare import (
    FEWEST_BLOCKS,
    LEVEL,
    Ranks,
    chosen,
    cliques,
    compare,
    not_worse,
    over_data_sets,
    paired,
)
from bench.cells.reader import load_results, read_results
from bench.stats.resampling import weights_of

Run = Callable[..., tuple[int, str, str]]


def test_a_detector_is_as_good_as_itself() -> None:
    found = paired([scored(random_scores(0), "a")], [scored(random_scores(0), "b")], "robust_auroc")
    assert list(found.difference) == [0, 0, 0]
    assert found.p == 1 and found.errors == 0


def test_pairing_tells_apart_what_the_intervals_do_not() -> None:
    a, b = random_scores(0), random_scores(0)
    b[-30:] -= 0.25  # the same luck, a little worse
    found = paired([scored(a, "a")], [scored(b, "b")], "robust_auroc")
    assert found.a.low < found.b.high  # the intervals overlap
    assert found.difference.low > 0 and found.p < 0.01 and found.errors > 2
    assert found.difference.value == pytest.approx(found.a.value - found.b.value)
    other = paired([scored(b, "b")], [scored(a, "a")], "robust_auroc")
    assert other.p == found.p and other.difference.value == -found.difference.value


def radii(share: float, seed: int = 0) -> np.ndarray:
    """Of 60 images; that share of each class cannot be moved over the threshold."""
    found = np.random.default_rng(seed).uniform(0.1, 1, 60)
    return np.where(np.tile(np.arange(30) < 30 * share, 2), np.inf, found)


def test_infinite_medians_that_are_equal_do_not_differ() -> None:
    for share in (0.5, 0.9, 1.0):  # some, most and all resamples have an infinite median
        a, b = (scored(random_scores(0), name, radius=radii(share)) for name in "ab")
        found = paired([a], [b], "median_radius_normal")
        assert list(found.difference) == [0, 0, 0] and found.p == 1 and found.errors == 0


def test_an_infinite_median_is_more_than_any_other() -> None:
    a, b = (scored(random_scores(0), name, radius=radii(share)) for name, share in (("a", 1.0), ("b", 0.1)))
    for found, sign in ((paired([a], [b], "median_radius_normal"), 1), (paired([b], [a], "median_radius_normal"), -1)):
        assert list(found.difference) == [sign * np.inf] * 3 and found.p < 0.01


def test_what_is_undefined_has_no_p() -> None:
    a, b = scored(random_scores(0), "a"), scored(random_scores(0), "b")
    b.record.threshold.value = np.nan
    found = paired([a], [b], "robust_accuracy")
    assert np.isnan([found.p, found.errors, *found.difference]).all()
    assert not_worse({"b": [b], "a": [a]}, "robust_accuracy") == {"a"}


def test_medians_are_paired_by_image() -> None:
    """The images of one are those of the other, each a little harder: in every resample its median is less."""
    first = radii(0)
    a, b = (scored(random_scores(0), name, radius=r) for name, r in (("a", first), ("b", first - 0.05)))
    alone = b.metrics["median_radius_normal"].estimate()
    found = paired([a], [b], "median_radius_normal")
    assert found.difference == pytest.approx((0.05, 0.05, 0.05), abs=1e-6) and alone.high - alone.low > 0.05
    other = radii(0, seed=1)
    unlike = paired([a], [scored(random_scores(0), "c", radius=other)], "median_radius_normal")
    weights = np.concatenate(list(weights_of(30, "d/one")), axis=1).T.astype(int)
    apart = [np.median(np.repeat(first[:30], w)) - np.median(np.repeat(other[:30], w)) for w in weights]
    assert unlike.difference[1:] == pytest.approx(np.percentile(apart, [2.5, 97.5]))


def test_equal_detectors_are_seldom_told_apart() -> None:
    cells = [(scored(random_scores(2 * i), "a"), scored(random_scores(2 * i + 1), "b")) for i in range(150)]
    below = sum(paired([a], [b], "robust_auroc").p < 0.05 for a, b in cells)
    assert below > 0 and stats.binomtest(below, len(cells), 0.05, alternative="greater").pvalue > 1e-3


def test_other_images_are_refused() -> None:
    with pytest.raises(UserError, match="hold different images"):
        paired([scored(random_scores(0), "a")], [scored(random_scores(1, n=40), "b")], "robust_auroc")
    with pytest.raises(UserError, match="no category in common"):
        paired([scored(random_scores(0), "a", "one")], [scored(random_scores(0), "b", "two")], "robust_auroc")
    with pytest.raises(UserError, match="robust_auroc"):
        paired([scored(random_scores(0), "a")], [scored(random_scores(0), "b")], "robust_auroch")


def test_other_images_under_the_same_ids_are_refused() -> None:
    a, b = scored(random_scores(0), "a"), scored(random_scores(0), "b")
    b.record.data.test = "5" * 64
    with pytest.raises(UserError, match="a-one-2/255 and b-one-2/255 hold different images"):
        paired([a], [b], "robust_auroc")
    assert not_worse({"a": [a], "b": [b]}, "robust_auroc") == {"a"}
    b.record.data.test = a.record.data.test
    assert paired([a], [b], "robust_auroc").p == 1


def test_boards_without_the_metric_are_left_out() -> None:
    cells = [scored(random_scores(i), name, eps=eps) for i, (name, eps) in enumerate(
        (n, e) for n in "ab" for e in ("1/255", "2/255"))]  # fmt: skip
    for r in cells:
        r.record.kind = "certificate" if r.spec.eps == "1/255" else "attack"
        respec(r, attack=r.record.kind)
    for r in cells:
        r.table.columns["low_0"] = r.table.columns["high_0"] = r.table.columns["clean"]
    assert len(compare("a", "b", cells)) == 2
    assert len(compare("a", "b", cells, "robust_auroc")) == len(compare("a", "b", cells, "certified_auroc")) == 1
    with pytest.raises(UserError, match="fame"):
        compare("a", "b", cells, "fame")


def test_less_is_better_of_a_false_positive_rate() -> None:
    cells = many("abc", 6, {"a": 4, "b": 1, "c": 0})
    found = over_data_sets(list("abc"), cells, "robust_fpr95")
    assert found is not None and list(found.ranks) == sorted(found.ranks, key=found.ranks.__getitem__) == list("abc")
    own = {name: [r for r in cells if r.detector == name] for name in "abc"}
    assert not_worse(own, "robust_fpr95") == not_worse(own, "robust_auroc") == {"a"}


def test_ranks_over_data_sets_are_those_of_the_literature() -> None:
    cells = many("abcd", 14, {"a": 3, "b": 1.5, "c": 1.5, "d": 0})
    found = over_data_sets(list("abcd"), cells)
    assert found is not None and found.blocks == 14
    assert found.critical == pytest.approx(1.25, abs=0.01)  # Demsar 2006, section 3.2.4: 4 classifiers, 14 data sets
    values = np.array([[r.metrics["robust_auroc"].value for r in cells if r.detector == n] for n in "abcd"])
    assert found.p == pytest.approx(stats.friedmanchisquare(*values).pvalue)
    assert sum(found.ranks.values()) == pytest.approx(10) and min(found.ranks, key=found.ranks.__getitem__) == "a"
    assert ("b", "c") in cliques(found) or ("c", "b") in cliques(found)
    two = over_data_sets(["a", "d"], cells)
    assert two is not None and two.critical is None and two.p == pytest.approx(stats.wilcoxon(*values[[0, 3]]).pvalue)


@pytest.mark.parametrize("metric", ["robust_auroc", "robust_fpr95"])
def test_the_fewest_data_sets_are_those_that_can_tell_two_detectors_apart(metric: str) -> None:
    cells = many("ab", FEWEST_BLOCKS, {"a": 4, "b": 0})
    found = over_data_sets(["a", "b"], cells, metric)
    assert found is not None and found.p <= LEVEL and found.ranks == {"a": 1, "b": 2}
    assert stats.wilcoxon(np.arange(1, FEWEST_BLOCKS)).pvalue > LEVEL  # of one data set less, all in favour of one
    assert over_data_sets(["a", "b"], [r for r in cells if r.category != "c0"]) is None


def test_budgets_and_seeds_of_a_category_are_one_data_set() -> None:
    """They share images and clean scores: more of them are no further evidence."""
    budgets = [f"{i}/255" for i in range(1, 8)]
    one = [scored(random_scores(ord(n)), n, eps=eps) for n in "ab" for eps in budgets]
    for i, r in enumerate(one):
        respec(r, seed=i % 2)
    assert over_data_sets(["a", "b"], one) is None
    single, twice = many("ab", 7, {"a": 1, "b": 0}), many("ab", 7, {"a": 1, "b": 0})
    for r in twice:
        respec(r, eps="1/255")
    found = over_data_sets(["a", "b"], single)
    assert found is not None and found.blocks == 7 and over_data_sets(["a", "b"], [*single, *twice]) == found


def test_a_data_set_counts_by_the_mean_of_the_boards_that_all_have() -> None:
    first, second = many("ab", 8, {"a": 1, "b": 0.5}), many("ab", 8, {"a": 0, "b": 1})
    for r in second:
        respec(r, eps="4/255")
    third = [scored(random_scores(5, 3), "a", f"c{i}", "8/255") for i in range(8)]  # b was never run with it
    found = over_data_sets(["a", "b"], [*first, *second, *third])
    both = {n: {f"c{i}": list[float]() for i in range(8)} for n in "ab"}
    for r in (*first, *second):
        both[r.detector][r.category].append(r.metrics["robust_auroc"].value)
    values = [[np.mean(two) for two in both[n].values()] for n in "ab"]
    assert found is not None and found.p == pytest.approx(stats.wilcoxon(*values).pvalue)
    ranks = 1 + np.mean(np.array(values)[::-1] > np.array(values), axis=1)
    assert list(found.ranks.values()) == pytest.approx(ranks)


def test_undefined_metrics_are_no_data_set_and_infinite_ones_are() -> None:
    cells = [scored(random_scores(i), n, f"c{i}", radius=radii(1.0 if i < 3 else 0.1, i + 9 * (n == "b")))
             for n in "ab" for i in range(9)]  # fmt: skip
    cells[0].record.threshold.value = np.nan
    found = over_data_sets(["a", "b"], cells, "median_radius_normal")
    assert found is not None and found.blocks == 9 and 0 < found.p < 1
    found = over_data_sets(["a", "b"], cells, "robust_accuracy")
    assert found is not None and found.blocks == 8


def test_cliques_are_as_large_as_they_can_be() -> None:
    found = cliques(Ranks(10, {"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.0}, 0.01, 1.0))
    assert found == [("a", "b"), ("b", "c")]


def test_names_are_found_as_people_write_them(tmp_path: Path) -> None:
    cells = [scored(random_scores(0), name) for name in ("advrad", "patchcore")]
    assert list(chosen(["advrad"], cells)) == ["advrad"]
    with pytest.raises(UserError, match="patchcore"):
        chosen(["patchcor"], cells)
    cells = [scored(random_scores(0), name) for name in ("advrad", "patchcore")]
    twice = [*cells, scored(random_scores(0), "advrad", eps="1/255")]
    respec(twice[-1], detector_parameters={"k": 9})
    respec(twice[0], detector_parameters={"k": 7})
    with pytest.raises(UserError, match="may be any of"):
        chosen(["advrad"], twice)
    assert len(chosen(["advrad (k=9)"], twice)["advrad (k=9)"]) == 1


def test_the_command(tmp_path: Path, run_cli: Run) -> None:
    for category in ("c1", "c2", "c3", "c4", "c5"):
        bed = small_data()
        data = Data(bed.name, category, bed.image_size, bed.train, bed.test)
        evaluate(Linear(), data, "noise-linf", ThreatModel("linf", "8/255"), results=tmp_path)
        evaluate(Linear(), data, "pgd-linf", ThreatModel("linf", "8/255"), results=tmp_path)
    table = load_results(tmp_path)
    noise, pgd = (Path(table[table.attack == a].folder.iloc[0]) for a in ("noise", "pgd"))
    code, out, err = run_cli("compare", noise, pgd, "--results", tmp_path)
    assert code == 0 and f"fewer than {FEWEST_BLOCKS} in common" in out, err
    found = compare(str(noise), str(pgd), read_results(tmp_path)[0])[0]
    first = table[table.category == "c1"].set_index("attack").robust_auroc
    assert found.difference.value == pytest.approx(first["noise"] - first["pgd"])
    for arguments, message in (
        (["Linear"], "two different detectors are needed"),
        (["Linear", "Linear"], "two different detectors are needed"),
        (["Linear", "Other"], "no detector in these results named 'Other'"),
        ([noise, pgd, "--metric", "fame"], "named 'fame'"),
    ):
        code, _, err = run_cli("compare", *arguments, "--results", tmp_path)
        assert code == 2 and message in err and err.count("\n") == 1, err
