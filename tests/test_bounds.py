"""Bounds that a detector proves of its own score: what they come to, and that wrong ones are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Run, one_line
from conftest import Linear, asked_for, detector, small_data
from torch import Tensor

from bench import Detector, ThreatModel, UserError, certify, evaluate, load_results
from bench.cells.reader import read_results
from bench.checks.ball import corner, images_of_the_ball
from bench.checks.of_detector import bounds_hold, probe_of
from bench.cli.certify import CertifyRequest
from bench.core.score import Score
from bench.report.commands import command_of

DATA = small_data()
ROUNDING = 1e-4
Wrong = Callable[[Tensor, Tensor, float], Any]


class Bounded(Linear):
    """Its worst case has a closed form, as long as no pixel meets 0 or 1."""

    bounded = ("linf", "l2")

    def bounds(self, x: Tensor, threat: ThreatModel) -> Any:
        return self.around(self.score(x.double()), self.reach(threat))

    def reach(self, threat: ThreatModel) -> float:
        norm = self.weight.abs().sum() if threat.norm == "linf" else self.weight.norm()
        return threat.radius * float(norm) + ROUNDING

    def around(self, score: Tensor, reach: float) -> Any:
        return score - reach, score + reach


def checks_of(found: Any) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in found.attrs["run"]["checks"]}


@pytest.mark.parametrize(("norm", "radius"), [("linf", "2/255"), ("l2", "0.1")])
def test_the_rows_are_the_worst_case(norm: str, radius: str) -> None:
    found, linear = certify(Bounded(), DATA, radius, norm=norm), Bounded()
    reach = linear.reach(ThreatModel(norm, radius))
    sign = np.where(found.label == 1, -1, 1)
    assert found.worst.to_numpy() == pytest.approx(found.clean + sign * reach, abs=1e-5)
    assert (found.low_0 == found.clean).all() and (found.high_0 == found.clean).all()
    run = found.attrs["run"]
    assert (run["kind"], run["spec"]["attack"]) == ("certificate", "deterministic")
    assert checks_of(found)["bounds"] and checks_of(found)["inside the ball"]
    threshold = run["threshold"]["value"]
    right = (found.clean > threshold) == (found.label == 1)
    length = linear.reach(ThreatModel(norm, 1)) - ROUNDING
    exact = np.where(right, (abs(found.clean - threshold) - ROUNDING).clip(lower=0) / length, 0)
    largest = 0.125 * ThreatModel(norm, radius).geometry.longest((3, 8, 8))
    assert found.certified_radius.to_numpy() == pytest.approx(exact, abs=largest / 2**11)


def test_certified_is_at_most_attacked_and_the_bracket_says_so(tmp_path: Path) -> None:
    certify(Bounded(), DATA, "8/255", norm="linf", results=tmp_path)
    attacked = evaluate(Bounded(), DATA, "pgd-linf", "8/255", results=tmp_path)
    results = load_results(tmp_path)
    bound = results[results.kind == "certificate"].certified_auroc.item()
    assert bound <= attacked.metrics["robust_auroc"] <= attacked.metrics["clean_auroc"]


def test_a_further_radius_finds_the_certified_radii_again() -> None:
    """They do not depend on it."""
    first, second = (certify(Bounded(), DATA, radius, norm="linf") for radius in ("1/255", "8/255"))
    assert first.certified_radius.tolist() == second.certified_radius.tolist()


def nan(low: Tensor, high: Tensor, reach: float) -> Any:
    return low, high + float("nan")


def turned(low: Tensor, high: Tensor, reach: float) -> Any:
    return high, low


def of_another_shape(low: Tensor, high: Tensor, reach: float) -> Any:
    return low[:, None], high[:, None]


def alone(low: Tensor, high: Tensor, reach: float) -> Any:
    return high


def beside_the_score(low: Tensor, high: Tensor, reach: float) -> Any:
    return low + 2 * reach, high + 2 * reach


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (nan, "expected finite numbers"),
        (turned, "the lower one first"),
        (of_another_shape, "two tensors of the shape"),
        (alone, "two tensors of the shape"),
        (beside_the_score, "outside its own bounds"),
    ],
)
def test_what_cannot_be_bounds_is_one_line(change: Wrong, says: str) -> None:
    class Changed(Bounded):
        def around(self, score: Tensor, reach: float) -> Any:
            low, high = super().around(score, reach)
            return change(low, high, reach)

    with pytest.raises(UserError, match=says):
        certify(Changed(), DATA, "2/255", norm="linf")
    assert not bounds_hold(probe_of(Changed(), DATA))[0]


class Forgets(Bounded):
    """What happens to an image before it is compared: here, that it is doubled."""

    def score(self, x: Tensor, rng: object = None) -> Tensor:
        return super().score(2 * x)


class HalfOfTheWay(Bounded):
    def around(self, score: Tensor, reach: float) -> Any:
        return score - reach / 2, score + reach


class NoRounding(Bounded):
    """Exact, and not for the score as it is computed."""

    def bounds(self, x: Tensor, threat: ThreatModel) -> Any:
        exact, move = self.score(x.double()), threat.radius * self.weight.double().sign()
        low, high = ((x.double() + sign * move).clamp(0, 1) for sign in (-1, 1))
        least, most = Linear.score(self, low), Linear.score(self, high)
        return torch.minimum(least, exact) + 1e-7, torch.maximum(most, exact) - 1e-7


@pytest.mark.parametrize("kind", [Forgets, HalfOfTheWay, NoRounding])
def test_unsound_bounds_are_found(kind: type[Detector]) -> None:
    assert bounds_hold(probe_of(Bounded(), DATA))[0]
    passed, sentence = bounds_hold(probe_of(kind(), DATA))
    assert not passed and "outside of the bounds" in sentence
    failed = [name for name, passed in checks_of(certify(kind(), DATA, "2/255", norm="linf")).items() if not passed]
    assert failed == ["inside the ball"]


def test_noise_and_bounds_do_not_go_together() -> None:
    class Noisy(Bounded):
        randomized = True

    assert not bounds_hold(probe_of(Noisy(), DATA))[0]
    with pytest.raises(UserError, match="no certificate in linf"):
        certify(Noisy(), DATA, "2/255", norm="linf")


def fitted(size: int = 24, **given: Any) -> tuple[Any, Tensor]:
    """A nearest-patch detector of noisy squares, and a few more of them with a stripe."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Tensor:
        x = 0.1 * torch.rand(count, 3, size, size, generator=generator) + 0.2
        x[:, :, size // 4 : size // 2, size // 4 : size // 2] += 0.5
        return x

    torch.manual_seed(0)
    found = detector("nearest-patch", **{"entries": 32, "patches": 200, **given})
    found.fit([images(16)])
    x = images(6)
    x[3:, :, :, size // 3 : size // 3 + 2] = 0.95
    return found.eval().requires_grad_(False), x


SETTINGS: list[dict[str, Any]] = [
    {"place": "registered"},
    {"place": "free", "top": 5},
    {"place": "registered", "side": 16, "patch": 4, "stride": 1},
    {"place": "free", "side": 9, "patch": 2, "shift": 0},
]


@pytest.mark.parametrize("given", SETTINGS)
@pytest.mark.parametrize(("norm", "radius"), [("linf", "1/255"), ("linf", "16/255"), ("l2", "0.05"), ("l2", "1")])
def test_no_image_of_the_ball_leaves_the_bounds_of_nearest_patch(given: dict[str, Any], norm: str, radius: str) -> None:
    found, x = fitted(**given)
    threat, score = ThreatModel(norm, radius), Score(found)
    low, high = found.bounds(x, threat)
    room = (high - low).amin()
    reached = torch.zeros(len(x))
    for _, moved in images_of_the_ball(score, x, [str(i) for i in range(len(x))], threat, True):
        scores = score(moved)
        assert bool(((low <= scores) & (scores <= high)).all())
        reached = torch.maximum(reached, (scores - score(x)).abs() / room)
    assert float(reached.max()) > 0.2  # the attack moves them: the test can fail


def test_the_place_matters_where_it_does() -> None:
    registered, x = fitted()
    assert len(registered.bank) > 1
    torch.manual_seed(0)
    found = detector("nearest-patch", patches=200)
    found.fit([torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(1))])
    assert len(found.bank) == 1
    assert registered.score(x[3:]).min() > registered.score(x[:3]).max()


def test_the_nearest_entry_is_the_nearest() -> None:
    """Against every entry, in double precision."""
    for given in SETTINGS:
        found, x = fitted(**given)
        patches = found._unfolded(found._reduced(x)).double()
        every = torch.cdist(patches.transpose(0, 1), found.bank.double()).amin(2).T / patches.shape[-1] ** 0.5
        z = found.score_with_evidence(x)[1]
        assert z == pytest.approx((every - found.mean) / found.deviation, abs=2e-3)


@pytest.mark.parametrize("forgotten", ["_gain", "_slip", "deviation"])
def test_planted_mistakes_of_nearest_patch_are_found(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gain of averaging in l2, the entries that were not compared, and a statistic of the attacked image."""
    found, x = fitted(place="registered", side=12, patch=2, top=1)
    kind = type(found)
    if forgotten == "_gain":
        monkeypatch.setattr(kind, "_gain", lambda self, size: 0.1)
    elif forgotten == "_slip":
        before = kind.bounds

        def cut(self: Any, x: Tensor, threat: ThreatModel) -> Any:
            whole, self.bank = self.bank, self.bank[:, :2]
            self._index()
            try:
                return before(self, x, threat)
            finally:
                self.bank = whole
                self._index()

        monkeypatch.setattr(kind, "bounds", cut)
    else:
        plain = kind.score_with_evidence

        def by_itself(self: Any, x: Tensor, rng: object = None) -> Any:
            return plain(self, x)[0] / x.flatten(1).std(1), None

        monkeypatch.setattr(kind, "score_with_evidence", by_itself)
    score = Score(found)
    outside = 0
    for threat in (ThreatModel("linf", "8/255"), ThreatModel("l2", "1")):
        low, high = found.bounds(x, threat)
        for _, moved in images_of_the_ball(score, x, [str(i) for i in range(len(x))], threat, True):
            scores = score(moved).double()
            outside += int(((scores < low) | (scores > high)).sum())
    assert outside


def test_coarser_products_of_the_search_widen_the_bounds() -> None:
    found, x = fitted()
    threat, before = ThreatModel("linf", "1/255"), torch.get_float32_matmul_precision()
    low, high = found.bounds(x, threat)
    torch.set_float32_matmul_precision("high")
    try:
        lower, higher = found.bounds(x, threat)
    finally:
        torch.set_float32_matmul_precision(before)
    assert bool((lower <= low).all()) and bool((higher > high).all())


def test_a_corner_is_in_the_ball() -> None:
    x = DATA.test.images(range(4))
    for threat in (ThreatModel("linf", "8/255"), ThreatModel("l2", "0.5")):
        moved = corner(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), threat)
        assert threat.violation(moved, x) is None
        assert threat.distance(moved, x).numpy() == pytest.approx(threat.radius, rel=0.05)


@pytest.mark.usefixtures("own_cache")
def test_the_command(run_cli: Run, tmp_path: Path) -> None:
    options = ("--category", "brick", "--limit", 8, "--image-size", 32, "--results", tmp_path / "r")
    small = ("--param", "patches=500", "--param", "entries=32")
    command = ("certify", "--detector", "nearest-patch", *small, "--norm", "linf", *options)
    code, out, err = run_cli(*command, "--radius", "1/255,4/255")
    assert code == 0 and "deterministic" in out and "linf 4/255" in out and "sigma" not in err, err
    attack = ("run", "--detector", "nearest-patch", *small, "--attack", "pgd-linf", "--eps", "4/255", *options)
    assert run_cli(*attack)[0] == 0
    code, _, err = run_cli("report", "--results", tmp_path / "r")
    assert code == 0, err
    page = (tmp_path / "r" / "LEADERBOARD.md").read_text()
    assert "| linf 4/255 |" in page and "| holds |" in page and "deterministic" in page
    cells = list((tmp_path / "r").rglob("run.json"))
    (certificate,) = (path.parent for path in cells if "deterministic" in str(path) and "4_255" in str(path))
    result = next(r for r in read_results(tmp_path / "r").results if r.folder == certificate)
    asked = asked_for(command_of(result), CertifyRequest)
    assert (asked.detectors, asked.norm, asked.radii) == (("nearest-patch",), "linf", ("4/255",))
    assert asked.params == {"patches": "500", "entries": "32"} and asked.sigmas is None
    assert run_cli("verify", certificate)[0] == 0
    assert run_cli("check-run", certificate)[0] == 0
    assert run_cli("submit", certificate.parents[3], "--out", tmp_path / "s.zip")[0] == 0
    code, out, err = run_cli("verify", tmp_path / "s.zip", "--rerun")
    assert code == 0 and "FAIL" not in out, out + err


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--detector", "autoencoder", "--norm", "linf"), "it bounds its score in no norm"),
        (("--detector", "nearest-patch", "--norm", "l1"), "it bounds its score in linf, l2"),
        (("--detector", "all", "--norm", "linf"), "name those that bound their score in linf"),
        (("--detector", "nearest-patch", "--norm", "linf", "--radius", "2"), "2/255"),
        (("--detector", "nearest-patch", "--norm", "linf", "--goal", "threshold"), "--goal threshold is for smoothing"),
        (("--detector", "smoothed+nearest-patch", "--norm", "linf"), "--norm l2 --sigma 0.25"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], says: str, run_cli: Run, tmp_path: Path) -> None:
    code, _, err = run_cli("certify", *words, "--category", "brick", "--limit", 6, "--results", tmp_path)
    assert code == 2 and says in one_line(err)


@pytest.mark.slow
def test_no_violation_in_a_hundred_thousand_images() -> None:
    """Of random balls in both norms, from a thousandth of a grey level to half of the range."""
    random, count = np.random.default_rng(0), 0
    detectors = [fitted(**given) for given in SETTINGS]
    while count < 10**5:
        found, x = detectors[random.integers(len(detectors))]
        norm = str(random.choice(["linf", "l2"]))
        eps = 10 ** random.uniform(-5.4, -0.3)
        threat = ThreatModel(norm, f"{eps if norm == 'linf' else eps * 3 * x.shape[-1]:.9f}")
        low, high = found.bounds(x, threat)
        score = Score(found)
        for name, moved in images_of_the_ball(score, x, [str(i) for i in range(len(x))], threat, True, count):
            with torch.no_grad():
                scores = score(moved).double()
            assert bool(((low <= scores) & (scores <= high)).all()), f"{name} at {threat}"
            count += len(moved)
