"""Certificates: bounds that hold what the best attack reaches, and draws that are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certified import PROBES, SMALL, Run, counted_calls, own_cache, rows_of  # noqa: F401  fixtures
from conftest import Killed, Linear, NoisyLinear
from scipy import stats
from torch import Tensor

from bench import Data, Rng, Score, certify, load_results
from bench.engine import certifier
from bench.engine.certifier import Certifier
from bench.plugins import registry
from bench.stats.metrics import conservative
from bench.system import files


@pytest.mark.parametrize("inner", [Linear(), NoisyLinear()], ids=["linear", "noisy"])
def test_bounds_hold_what_the_best_attack_reaches(data: Data, inner: Linear) -> None:
    """Of a linear score with noise of its own, the median moves by exactly r |w| in the worst case."""
    found = certify(inner, data, 0.2, sigma=0.25, samples=2000)
    x = data.test.images(range(len(data.test)))
    exact = Linear().score(x).numpy()
    reach = 0.2 * float(Linear().weight.norm())
    assert (found.low <= exact - reach).all() and (exact + reach <= found.high).all()
    assert (found.low_0 <= exact).all() and (exact <= found.high_0).all()
    assert (found.worst == np.where(found.label == 1, found.low, found.high)).all()
    assert (found.distance == 0.2).all() and found.rounded.isna().all()
    noise = 0.25 * float(Linear().weight.norm())
    if not inner.randomized:  # its own noise widens the bounds
        assert (found.high - found.low).max() < 2 * (reach + 0.3 * noise)
    run = found.attrs["run"]
    assert run["kind"] == "certificate" and all(check["passed"] for check in run["checks"]), run["checks"]
    right = (found.clean > run["threshold"]["value"]) == found.label
    margin = (exact - run["threshold"]["value"]) * np.where(found.label == 1, 1, -1)
    assert (found.certified_radius[right] <= np.maximum(margin[right], 0) / float(Linear().weight.norm()) + 1e-6).all()


def test_certified_auroc_counts_the_pairs_that_are_surely_in_order(data: Data, tmp_path: Path) -> None:
    rows = certify(Linear(), data, 0.1, results=tmp_path, **SMALL)
    low, high = rows.low[rows.label == 1].to_numpy(), rows.high[rows.label == 0].to_numpy()
    low_0, high_0 = rows.low_0[rows.label == 1].to_numpy(), rows.high_0[rows.label == 0].to_numpy()
    table = load_results(tmp_path).iloc[0]
    assert table.certified_auroc == pytest.approx((low[:, None] > high).mean())
    assert table.normal_only_auroc == pytest.approx((low_0[:, None] > high).mean())
    assert table.anomalous_only_auroc == pytest.approx((low[:, None] > high_0).mean())
    tau = table.threshold
    assert table.certified_accuracy == pytest.approx(np.r_[low > tau, high <= tau].mean())
    assert table.certified_normal_right == pytest.approx((high <= tau).mean())
    assert table.certified_auroc < table.clean_auroc and table.kind == "certificate"
    assert "robust_auroc" not in table


def test_ties_and_infinities_count_nothing() -> None:
    from bench.stats.metrics import points

    scores, labels = np.array([1.0, np.inf, 1.0, -np.inf, 2.0]), np.array([0, 0, 1, 1, 1])
    assert points(conservative(scores, labels), labels == 1)["auroc"] == pytest.approx(1 / 6)


def test_one_sided_certificates_bound_the_other_side_where_it_is(data: Data) -> None:
    rows = certify(Linear(), data, 0.1, targets="normal", **SMALL)
    moved = rows.label == 0
    assert (rows.distance[moved] == 0.1).all() and (rows.distance[~moved] == 0).all()
    assert (rows.worst[~moved] == rows.low_0[~moved]).all() and (rows.worst[moved] > rows.high_0[moved]).all()


def test_a_second_radius_draws_nothing_and_more_samples_only_what_is_missing(data: Data, calls: list[int]) -> None:
    certify(Linear(), data, 0.1, batch_size=50, **SMALL)
    images = len(data.test)
    assert sum(calls) == 150 * images + PROBES
    calls.clear()
    certify(Linear(), data, 0.15, batch_size=50, **SMALL)
    assert sum(calls) == PROBES
    calls.clear()
    certify(Linear(), data, 0.15, batch_size=50, samples=200, alpha=0.05)
    assert sum(calls) == 50 * images + PROBES


def test_neither_batches_nor_order_change_a_bound(data: Data) -> None:
    found = certify(Linear(), data, 0.1, batch_size=7, **SMALL)
    os.environ["XDG_CACHE_HOME"] += "-other"
    again = certify(Linear(), data, 0.1, batch_size=64, **SMALL)
    assert np.allclose(found.worst, again.worst, rtol=1e-5) and np.allclose(found.clean, again.clean, rtol=1e-5)
    other = certify(Linear(), data, 0.1, seed=1, **SMALL)
    assert not np.allclose(found.clean, other.clean, rtol=1e-3)


def test_a_smoothed_detector_is_certified_as_it_is(data: Data) -> None:
    smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=0.4, center="0.4")
    rows = certify(smoothed, data, 0.1, **SMALL)
    recorded = rows.attrs["run"]["detector"]["parameters"]
    assert (recorded["Smoothed.sigma"], recorded["Smoothed.center"]) == (0.4, "0.4")
    narrower = certify(smoothed, data, 0.1, sigma=0.2, **SMALL)
    assert (narrower.high - narrower.low < rows.high - rows.low).mean() > 0.9


def test_two_at_once_keep_the_same_draws(data: Data, tmp_path: Path) -> None:
    """Both write draw i where draw i belongs; a late one never adds what is there already."""
    found = certify(Linear(), data, 0.1, **SMALL)
    kept = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.f8")}
    assert len(kept) >= len(data.test)  # and the fresh noise of a check
    for path, content in kept.items():
        files.write_at(path, 0, content[:400])
        files.write_at(path, len(content) + 8, b"12345678")  # beyond the end: would leave a hole
        assert path.read_bytes() == content
    assert certify(Linear(), data, 0.1, **SMALL).equals(found)


def test_other_weights_never_meet_kept_draws(data: Data) -> None:
    first, second = certify(Linear(0), data, 0.1, **SMALL), certify(Linear(1), data, 0.1, **SMALL)
    assert not np.allclose(first.clean, second.clean)


def test_a_kill_in_the_middle_of_an_image_changes_no_byte(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    given: dict[str, Any] = {"batch_size": 20, **SMALL}
    certify(Linear(), data, 0.1, results=tmp_path / "whole", **given)
    expected = rows_of(tmp_path / "whole")
    whole = sum(calls)
    os.environ["XDG_CACHE_HOME"] += "-other"
    calls.clear()
    monkeypatch.setattr(certifier, "KEEP_EVERY", 0.0)
    counted = Certifier._scores

    def dies(self: Certifier, image: Tensor, name: str, first: int, count: int) -> Any:
        if name == data.test.ids[2] and first == 60:
            raise Killed
        return counted(self, image, name, first, count)

    monkeypatch.setattr(Certifier, "_scores", dies)
    with pytest.raises(Killed):
        certify(Linear(), data, 0.1, results=tmp_path / "killed", **given)
    assert json.loads(next((tmp_path / "killed").rglob("run.json")).read_text())["rows"] == 2
    kept = next(p for p in (tmp_path / "cache-other").rglob("*.f8") if p.stat().st_size == 60 * 8)
    kept.write_bytes(kept.read_bytes() + b"\0\0\0")  # a score that was being written
    monkeypatch.setattr(Certifier, "_scores", counted)
    certify(Linear(), data, 0.1, results=tmp_path / "killed", **given)
    assert rows_of(tmp_path / "killed") == expected
    assert sum(calls) == whole + PROBES // 2  # of the run that was killed


@pytest.mark.parametrize("inner", [Linear(), NoisyLinear()], ids=["linear", "noisy"])
def test_a_verdict_takes_fewer_draws_and_is_right(data: Data, inner: Linear) -> None:
    whole = certify(inner, data, 0.1, samples=2000)
    found = certify(inner, data, 0.1, samples=2000, goal="threshold")
    tau = found.attrs["run"]["threshold"]["value"]
    exact = Linear().score(data.test.images(range(len(data.test)))).numpy()
    reach = 0.1 * float(Linear().weight.norm())
    stands = np.where(found.label == 1, exact - reach > tau, exact + reach <= tau)
    certified = (found.worst > tau) == found.label
    assert not (certified & ~stands).any() and certified.sum() >= stands.sum() - 2
    assert found.draws.sum() < 0.5 * 2000 * len(found) and found.draws.max() <= 2000
    by_bound = (whole.worst > tau) == whole.label
    assert (certified == by_bound).mean() >= 0.8
    again = certify(inner, data, 0.1, samples=2000, goal="threshold", batch_size=5)
    assert again.draws.tolist() == found.draws.tolist()


def test_verdicts_have_an_accuracy_and_no_auroc(tmp_path: Path, data: Data, run_cli: Run) -> None:
    rows = certify(Linear(), data, 0.1, goal="threshold", results=tmp_path)
    table = load_results(tmp_path).iloc[0]
    tau = rows.attrs["run"]["threshold"]["value"]
    assert table.certified_accuracy == pytest.approx(((rows.worst > tau) == rows.label).mean())
    assert not {"certified_auroc", "clean_auroc", "clean_accuracy", "normal_only_auroc"} & set(table.index)
    code, out, _ = run_cli("report", "--results", tmp_path)
    assert code == 0 and "certified" in out and "acc." in out and "AUROC" not in out


@pytest.mark.parametrize(
    ("center", "more"), [("0.3", {}), ("mean", {"low": 0.0, "high": 60.0})], ids=["percentile", "mean"]
)
def test_other_centres_hold_as_well(data: Data, center: str, more: dict[str, float]) -> None:
    rows = certify(Linear(), data, 0.1, samples=500, params={"center": center, **more})
    norm = float(Linear().weight.norm())
    exact = Linear().score(data.test.images(range(len(data.test)))).numpy()
    exact = exact + 0.25 * norm * stats.norm.ppf(0.3) if center == "0.3" else exact
    assert (rows.low <= exact - 0.1 * norm).all() and (exact + 0.1 * norm <= rows.high).all()
    assert np.abs(rows.clean - exact).max() < 6 * 0.25 * norm / 500**0.5
    smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=0.25, n=501, center=center, **more)
    score = Score(smoothed)(data.test.images(range(4)), Rng(0, data.test.ids[:4])).numpy()
    assert np.abs(score - exact[:4]).max() < 6 * 0.25 * norm / 500**0.5
