"""Certificates end to end: rows, resuming, the bracket with attacks, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import Killed, Linear, NoisyLinear, detector, small_data
from scipy import stats
from torch import Tensor

from bench import Data, Rng, Score, ThreatModel, UserError, certify, evaluate, load_results
from bench.cells.bracket import brackets
from bench.cells.reader import read_results
from bench.core.progress import Monitor
from bench.engine import certifier
from bench.engine.certifier import Certificate, Certifier
from bench.plugins import registry
from bench.stats import smoothing as bounds
from bench.stats.metrics import conservative
from bench.system import files

Run = Callable[..., tuple[int, str, str]]
PROBES = 16  # draws of a run and of its checks, at eight images each
SMALL: dict[str, Any] = {"samples": 150, "alpha": 0.05}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the draws of another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the batches of noisy images that were scored for bounds."""
    seen: list[int] = []
    before = Certifier._scores

    def counted(self: Certifier, image: Tensor, name: str, first: int, count: int) -> Any:
        seen.append(count)
        return before(self, image, name, first, count)

    monkeypatch.setattr(Certifier, "_scores", counted)
    monkeypatch.setattr("bench.checks.of_certificate.CHECKS", {})  # they draw as well
    yield seen


def rows_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("samples.csv"))]


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


class Peeking(Linear):
    """Like AdvRAD's own score: it draws noise, and still sees the clean image beside it."""

    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return super().score(x) + 0.01 * super().score(noise)


def test_noise_of_the_score_itself_would_claim_what_an_attack_breaks(data: Data) -> None:
    """The shortcut: draws of the plain randomized score, taken for draws of a smoothing noise of the same size."""
    inner, radius, sigma = Peeking(), 0.2, 0.25
    x = data.test.images([0])
    draws = Score(inner).each(x, Rng(0, ["image"]), 1000).flatten().numpy()
    claimed = bounds.quantile_bounds(draws, 0.001, radius / sigma)[1]
    moved = ThreatModel("l2", radius).project(x + radius * inner.weight / inner.weight.norm(), x)
    reached = float(Score(inner).each(moved, Rng(1, ["image"]), 1000).median())
    assert reached > claimed
    honest = certify(inner, data, radius, sigma=sigma)
    assert honest.high[0] > reached and all(check["passed"] for check in honest.attrs["run"]["checks"])


def test_checks_find_bounds_that_rest_on_too_little_noise(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Certifier._bounded

    def shortcut(self: Certifier, index: int) -> Any:
        self.found = {index: Score(Peeking()).each(self.data.test.images([index]), Rng(0, [str(index)]), 1000)
                      .flatten().double().numpy()}  # fmt: skip
        return before(self, index)

    monkeypatch.setattr(Certifier, "_bounded", shortcut)
    rows = certify(Peeking(), data, 0.2, sigma=0.25)
    failed = {check["name"] for check in rows.attrs["run"]["checks"] if not check["passed"]}
    assert "inside the ball" in failed


def test_the_bracket_of_certificate_and_attack(data: Data, tmp_path: Path, run_cli: Run) -> None:
    smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=0.25)
    for radius in ("0.1", "0.2"):
        certify(smoothed, data, radius, sigma=0.25, samples=400, results=tmp_path)
        evaluate(smoothed, data, "apgd-l2", ThreatModel("l2", radius), attack_params={"steps": 5, "draws": 2},
                 results=tmp_path, draws=4)  # fmt: skip
    found = brackets(read_results(tmp_path)[0])
    assert [float(b.radius) for b in found] == [0.1, 0.2]
    for bracket in found:
        low, high, clean = bracket.certified(), bracket.attacked(), bracket.certified("clean_auroc")
        assert low is not None and high is not None and clean is not None and low.value <= high.value <= clean.value
    code, out, _ = run_cli("report", "--results", tmp_path)
    board = (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert code == 0 and "impossible" not in out and board.count("| holds |") == 2 and "VIOLATED" not in board
    assert "certified AUROC" in board and any(p.name.startswith("certified-") for p in tmp_path.glob("*.png"))

    # an attack that found what cannot be: every normal image above every anomalous one
    cell = next(p for p in tmp_path.rglob("apgd-l2-0.1*"))
    lines = (cell / "samples.csv").read_text().splitlines()
    for i, line in enumerate(lines[1:], 1):
        fields = line.split(",")
        fields[3] = "1e6" if fields[1] == "0" else "-1e6"
        lines[i] = ",".join(fields)
    text = "\n".join(lines) + "\n"
    (cell / "samples.csv").write_text(text)
    record = json.loads((cell / "run.json").read_text())
    record["samples_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (cell / "run.json").write_text(json.dumps(record))
    code, out, _ = run_cli("report", "--results", tmp_path)
    board = (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert code == 1 and "impossible" in out and "**VIOLATED**" in board and "bracket check failed" in board
    table = load_results(tmp_path)
    assert (table[(table.kind == "attack") & (table.eps == 0.1)].unranked != "").all()
    assert (table[(table.kind == "certificate") & (table.eps == 0.1)].unranked != "").all()


def test_a_bracket_is_shown_for_the_categories_that_were_attacked(data: Data, tmp_path: Path) -> None:
    smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=0.25)
    other = Data(data.name, "two", data.image_size, data.train, data.test)
    for bed in (data, other):
        certify(smoothed, bed, 0.1, results=tmp_path, **SMALL)
    evaluate(smoothed, other, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    whole, part = brackets(read_results(tmp_path)[0])
    assert whole.categories == ["one", "two"] and whole.attacked() is None
    assert part.categories == ["two"] and part.attacked() is not None
    assert [bracket.verdict for bracket in (whole, part)] == ["open", "holds"]


def test_a_detector_of_the_same_name_is_no_bracket(data: Data, tmp_path: Path) -> None:
    for seed in (0, 1):
        smoothed = registry.load("detectors", "smoothed").target(Linear(seed), sigma=0.25)
        if seed:
            certify(smoothed, data, 0.1, results=tmp_path, **SMALL)
        else:
            evaluate(smoothed, data, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    (found,) = brackets(read_results(tmp_path)[0])
    assert found.attacked() is None
    few = registry.load("detectors", "smoothed").target(Linear(1), sigma=0.25, n=5)
    evaluate(few, data, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    (found,) = brackets(read_results(tmp_path)[0])
    assert found.attacked() is not None and found.verdict == "open (attacked with n below 15)"


def test_the_plot_has_clean_certified_and_attacked(data: Data, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from bench.report.figures.brackets import Brackets

    for sigma in (0.2, 0.4):
        smoothed = registry.load("detectors", "smoothed").target(Linear(), sigma=sigma)
        for radius in (0.05, 0.1):
            certify(smoothed, data, radius, sigma=sigma, results=tmp_path, **SMALL)
        evaluate(smoothed, data, "noise-l2", ThreatModel("l2", 0.1), results=tmp_path)
    results = read_results(tmp_path)[0]
    (figure,) = Brackets.of(results)
    assert "small" in figure.title and list(figure.bands) == ["sigma 0.2", "sigma 0.4"]
    axes = Figure().add_subplot()
    figure.draw(axes)
    drawn: dict[str, Any] = {str(c.get_label()): cast(Any, c).lines[0].get_xydata() for c in axes.containers}
    assert set(drawn) == {f"sigma {s}, {w}" for s in (0.2, 0.4) for w in ("certified", "attacked")}
    certified = drawn["sigma 0.2, certified"]
    assert certified[:, 0].tolist() == [0, 0.05, 0.1] and (np.diff(certified[:, 1]) <= 0).all()
    assert drawn["sigma 0.2, attacked"][:, 0].tolist() == [0, 0.1]
    assert (drawn["sigma 0.2, attacked"][-1, 1] >= certified[-1, 1]).all()


def test_the_command_runs_resumes_and_is_rechecked(tmp_path: Path, run_cli: Run) -> None:
    arguments = [
        "certify", "--detector", "autoencoder", "--category", "brick", "--limit", 6, "--image-size", 32,
        "--param", "autoencoder.steps=5", "--sigma", "0.12,0.25", "--radius", "0.1,0.05", "--samples", 60,
        "--alpha", "0.05", "--results", tmp_path,
    ]  # fmt: skip
    code, out, err = run_cli(*arguments)
    assert code == 0, err
    assert "certified" in out and len(rows_of(tmp_path)) == 4
    code, _, err = run_cli(*arguments)
    assert code == 0 and err.count("already there") == 4
    code, out, err = run_cli("check-run", next(tmp_path.rglob("certificate-l2-0.1*")))
    assert code == 0 and "pass    stored rows" in out and "inside the ball" in out, out + err
    code, _, err = run_cli(
        "run", "--detector", "smoothed+autoencoder", "--param", "smoothed.sigma=0.25", "--param", "smoothed.n=1",
        "--param", "autoencoder.steps=5", "--category", "brick", "--limit", 6, "--image-size", 32, "--attack",
        "noise-l2", "--eps", "0.1", "--results", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    found = brackets(read_results(tmp_path)[0])
    assert [b.attacked() is not None for b in found] == [False, False, False, True]  # the same detector by both names


@pytest.mark.parametrize("name", ["denoised+autoencoder", "advrad-one-noise"])
def test_parts_that_must_know_the_noise_are_told(name: str, tmp_path: Path, run_cli: Run) -> None:
    steps = f"{name.partition('+')[0]}.steps=4"
    given = ["--param", steps, *(["--param", "autoencoder.steps=4"] if "+" in name else [])]
    code, _, err = run_cli(
        "certify", "--detector", name, *given, "--category", "brick", "--limit", 4, "--image-size", 32, "--sigma", 0.12,
        "--radius", 0.05, "--samples", 40, "--alpha", 0.1, "--results", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    parameters = json.loads(next(tmp_path.rglob("run.json")).read_text())["detector"]["parameters"]
    assert {v for k, v in parameters.items() if k.endswith(".sigma")} == {0.12}


def test_a_denoiser_removes_noise_at_the_step_that_has_it() -> None:
    steps = {sigma: detector("advrad-one-noise", sigma=sigma).k for sigma in (0.12, 0.25, 0.5, 1.0)}
    for (sigma, step), published in zip(steps.items(), (71, 145, 259, 397), strict=True):
        assert abs(step - published) <= 1, sigma
    denoised = registry.load("detectors", "denoised").target
    with pytest.raises(UserError, match="made for noise of sigma=0.5, and the certificate adds 0.25"):
        certify(denoised(Linear(), sigma=0.5), small_data(), sigma=0.25)


def test_half_precision_is_another_detector_with_bounds_of_its_own(data: Data) -> None:
    whole = certify(Linear(), data, 0.1, **SMALL)
    half = certify(Linear(), data, 0.1, params={"precision": "bfloat16"}, **SMALL)
    assert half.attrs["run"]["detector"]["parameters"]["smoothed.precision"] == "bfloat16"
    assert np.abs(half.clean - whole.clean).max() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--radius", "0"], "--radius 0 must be above 0"),
        (["--radius", "-0.1"], "--radius -0.1 must be above 0"),
        (["--radius", "near"], "--radius near is not a number"),
        (["--radius", "1e6", "--sigma", "1e7"], "is longer than any change"),
        (["--sigma", "0"], "--sigma 0 must be a number above 0"),
        (["--sigma", "-1"], "--sigma -1 must be a number above 0"),
        (["--sigma", "much"], "--sigma much must be a number above 0"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--alpha", "0"], "--alpha must be between 0 and 1"),
        (["--alpha", "1"], "--alpha must be between 0 and 1"),
        (["--center", "mean"], "a bounded score: give low and high"),
        (["--center", "middle"], "center must be median, mean, or a number between 0 and 1"),
        (["--goal", "fame"], "'fame' is not one of 'rank', 'threshold'"),
        (["--param", "sigma=0.3"], "sigma is the noise of the certificate: give it as --sigma 0.3"),
        (["--detector", "autoencodr"], "autoencoder"),
        (["--norm", "l1"], "certificates by Gaussian noise are in l2"),
        (["--norm", "linf", "--radius", "2/255"], "radius 0.435 (eps times the root of 3 x 32 x 32)"),
    ],
)
def test_bad_input_is_said_in_one_line(arguments: list[str], message: str, tmp_path: Path, run_cli: Run) -> None:
    default = ["--detector", "autoencoder", "--category", "brick", "--limit", "6", "--image-size", "32"]
    code, _, err = run_cli("certify", *default, "--param", "autoencoder.steps=2", *arguments, "--results", tmp_path)
    said = err.strip().splitlines()[-1]
    assert code == 2 and message in said and said.startswith("bench: "), err


def test_a_radius_out_of_reach_says_how_many_draws_it_takes(data: Data) -> None:
    with pytest.raises(UserError, match="needs at least --samples") as error:
        certify(Linear(), data, 0.5, sigma=0.25, samples=100)
    needed = int(str(error.value).partition("--samples ")[2].split()[0].replace(",", ""))
    assert certify(Linear(), data, 0.5, sigma=0.25, samples=needed).worst.map(math.isfinite).all()
    with pytest.raises(UserError, match="needs at least"):
        certify(Linear(), data, 0.5, sigma=0.25, samples=needed - 1)


def test_draws_that_no_computer_makes_are_refused_as_well(data: Data) -> None:
    with pytest.raises(UserError, match="more than a billion"):
        certify(Linear(), data, 0.2, sigma=0.005)
    with pytest.raises(UserError, match=r"too few for the 0.99-quantile: give --param smoothed.n=301"):
        certify(Linear(), data, 0.1, params={"center": "0.99"})


def test_a_verdict_takes_more_draws_than_a_bound_and_says_so(data: Data) -> None:
    with pytest.raises(UserError, match="for any verdict") as error:
        certify(Linear(), data, 0.1, samples=20, goal="threshold")
    needed = int(str(error.value).partition("--samples ")[2].split()[0])
    edge = stats.norm.cdf(-0.1 / 0.25)
    alpha = 0.001 / len(data.test)
    assert bounds.decided(0, needed, alpha, edge) and not bounds.decided(0, needed - 1, alpha, edge)
    assert needed > bounds.fewest_draws(alpha, 0.1 / 0.25)
    certify(Linear(), data, 0.1, samples=needed, goal="threshold")


def test_scores_clipped_in_single_precision_are_inside_their_bounds(data: Data) -> None:
    given = {"center": "mean", "low": 0.0, "high": 26.1}
    rows = certify(Linear(), data, 0.01, sigma=0.02, samples=200, params=given)
    assert np.isclose(rows.clean, float(np.float32(26.1)), rtol=1e-12).any()
    assert all(check["passed"] for check in rows.attrs["run"]["checks"]), rows.attrs["run"]["checks"]


class SmallMemory(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        if len(x) > 8:
            raise torch.OutOfMemoryError("planted")
        return super().score(x)


def test_too_large_a_batch_is_halved(data: Data) -> None:
    found, plain = (certify(d, data, 0.1, batch_size=16, **SMALL) for d in (SmallMemory(), Linear()))
    assert np.allclose(found.worst, plain.worst, rtol=1e-5)


def test_kept_draws_that_are_not_the_detectors_are_drawn_again(data: Data, tmp_path: Path) -> None:
    found = certify(Linear(), data, 0.1, **SMALL)
    for path in (tmp_path / "cache").rglob("*.f8"):
        path.write_bytes((np.frombuffer(path.read_bytes(), "<f8") + 1).tobytes())
    told: list[str] = []
    again = certify(Linear(), data, 0.1, monitor=Monitor(tell=told.append), **SMALL)
    assert again.equals(found) and any("drawing all of them again" in sentence for sentence in told)


class BreaksInNoise(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return (x.clamp_min(-1e9) - x.clamp_min(0)).flatten(1).sum(1).sqrt() + super().score(x)


def test_a_detector_that_cannot_score_noise_is_named(data: Data) -> None:
    with pytest.raises(
        UserError, match=r"BreaksInNoise gives the image good/0, with noise of sigma 0.25, the score nan"
    ):
        certify(BreaksInNoise(), data, **SMALL)


def test_settings_are_what_the_record_says(data: Data, tmp_path: Path) -> None:
    certify(Linear(), data, 0.1, results=tmp_path, **SMALL)
    record = json.loads(next(tmp_path.rglob("run.json")).read_text())
    assert record["attack"]["parameters"] == {"samples": 150, "alpha": 0.05}
    assert Certificate(**record["attack"]["parameters"]) == Certificate(150, 0.05)
    assert record["forwards"] == 150 * len(data.test) and record["spec"]["norm"] == "l2"
