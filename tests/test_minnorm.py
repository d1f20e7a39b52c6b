"""Minimum-norm attacks and the goal `threshold`: known radii, and images that cannot be moved."""

from __future__ import annotations

import sys

import pytest
import torch
from conftest import Linear, NoisyLinear
from hypothesis import given, settings
from hypothesis import strategies as st
from test_oracle import IDS, SIGN, best_gain, images
from torch import Tensor

from bench import Attacked, Data, Detector, Rng, Score, ThreatModel, UserError, evaluate
from bench.plugins.lookup import make_attack
from bench.stats.metrics import accuracy

nearest_on_plane = sys.modules[type(make_attack("fab")[2]).__module__].nearest_on_plane
MINIMUM_NORM = [("fab", "linf"), ("fab", "l2"), ("ddn", "l2")]
each_attack = pytest.mark.parametrize(("method", "norm"), MINIMUM_NORM)


def attacked(method: str, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, **given: object) -> Attacked:
    attack = make_attack(method, {name: str(value) for name, value in given.items()})[2]
    found = attack(score, x, sign, threat, Rng(0, IDS[: len(x)]))
    assert isinstance(found, Attacked)
    (image,) = found.images.values()
    assert threat.violation(image, x) is None
    return found


def column(frame: object, name: str) -> Tensor:
    return torch.tensor(frame[name].to_numpy(), dtype=torch.float64)  # type: ignore[index]


class Places(Detector):
    """The largest mean over the four quarters of an image: a score that is a maximum, with a known best attack."""

    evidence = True

    def fit(self, normal: object) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.quarters(x).amax(1)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        return self.score(x), self.quarters(x) if self.evidence else None

    @staticmethod
    def quarters(x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).mean(1).flatten(1)  # (B, 4)


@each_attack
@pytest.mark.parametrize("interior", [True, False], ids=["inside the range", "range active"])
def test_the_radius_of_a_linear_score_is_the_closed_form(
    linear: Linear, method: str, norm: str, interior: bool
) -> None:
    x = images(interior)
    for true in (0.02, 0.1) if norm == "linf" else (0.2, 2.0):
        gain = best_gain(linear.weight, x, SIGN, ThreatModel(norm, true))
        for i, eps in ((0, true * 0.5), (0, true * 1.5), (1, true * 0.5), (1, true * 1.5)):
            one, sign = x[i : i + 1], SIGN[i : i + 1]
            tau = float(linear.score(one.double()) + sign * gain[i])
            score = Score(linear, threshold=tau)
            threat = ThreatModel(norm, eps)
            found = attacked(method, score, one, sign, threat, steps=25 if method == "fab" else 100)
            radius = found.columns["radius"].item()
            assert radius == pytest.approx(true, rel=0.01)
            (image,) = found.images.values()
            right = sign * (linear.score(image) - tau) < 0
            assert bool(right) == (eps < true)
            if eps > true:
                assert threat.distance(image, one).item() == pytest.approx(radius)
            else:  # as far as the ball allows
                reached = sign * (linear.score(image.double()) - linear.score(one.double()))
                assert reached >= 0.95 * best_gain(linear.weight, one, sign, threat)


@each_attack
@pytest.mark.parametrize("evidence", [True, False], ids=["logsumexp", "one place"])
def test_the_radius_of_a_maximum_is_known_on_both_sides(method: str, norm: str, evidence: bool) -> None:
    x = images(interior=True)
    detector, tau, count = Places(), 0.5, 3 * 16
    detector.evidence = evidence
    quarters = detector.quarters(x.double())
    sign = torch.where(quarters.amax(1) > tau, -1.0, 1.0)
    over = (quarters - tau).clamp_min(0)  # an anomalous image lowers all of these, a normal one raises its highest
    down = over.amax(1) if norm == "linf" else (over.square().sum(1) * count).sqrt()
    up = (tau - quarters.amax(1)) * (1 if norm == "linf" else count**0.5)
    expected = torch.where(sign < 0, down, up)
    assert (sign < 0).any() and (sign > 0).any() and ((over > 0).sum(1) > 1).any()
    found = attacked(method, Score(detector, threshold=tau), x, sign, ThreatModel(norm, "0.5"))
    assert (found.columns["radius"] > expected * 0.999).all()
    assert torch.allclose(found.columns["radius"], expected, rtol=0.02)


@each_attack
def test_images_that_are_wrong_already_have_the_radius_0(linear: Linear, method: str, norm: str) -> None:
    x = images(interior=True)
    scores = linear.score(x)
    wrong_normal, equal = int(scores.argmax()), int(scores.argsort()[3])
    tau = scores[equal].item()
    sign = torch.where(scores > tau, -1.0, 1.0)
    sign[wrong_normal] = 1.0
    for label, missed in ((0, False), (1, True)):  # a score equal to the threshold is that of a normal image
        sign[equal] = 1 - 2 * label
        score = Score(linear, threshold=tau)
        found = attacked(method, score, x, sign, ThreatModel(norm, "0.5"))
        zero = found.columns["radius"] == 0
        assert zero.tolist() == [i == wrong_normal or (i == equal and missed) for i in range(len(x))]
        assert torch.equal(next(iter(found.images.values()))[zero], x[zero])
        labels = (sign < 0).long().numpy()
        assert accuracy(scores.numpy(), labels, tau).value == pytest.approx(1 - zero.double().mean().item())


@each_attack
def test_a_threshold_out_of_reach_has_no_radius(linear: Linear, method: str, norm: str) -> None:
    x, sign = images(interior=True), torch.ones(len(IDS))
    threat = ThreatModel(norm, "8/255")
    found = attacked(method, Score(linear, threshold=1e4), x, sign, threat)
    assert found.columns["radius"].isinf().all()
    (image,) = found.images.values()
    gain = linear.score(image.double()) - linear.score(x.double())
    assert (gain > 0.9 * best_gain(linear.weight, x, sign, threat)).all()  # the ball is used nevertheless


@each_attack
def test_a_score_without_gradient_has_no_radius(linear: Linear, method: str, norm: str) -> None:
    class Rounded(Linear):
        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            return super().score(x) * 0 + super().score(x).round().detach()

    x, sign = images(interior=True), torch.ones(len(IDS))
    score = Score(Rounded(), threshold=float(linear.score(x).max()) + 1)
    found = attacked(method, score, x, sign, ThreatModel(norm, "0.5"))
    assert found.columns["radius"].isinf().all()


@each_attack
def test_a_randomized_score_is_judged_by_its_mean(method: str, norm: str) -> None:
    x, detector = images(interior=True), NoisyLinear()
    true = 0.1 if norm == "linf" else 2.0
    gain = best_gain(detector.weight, x, SIGN, ThreatModel(norm, true))
    for i in (0, 1):
        one, sign = x[i : i + 1], SIGN[i : i + 1]
        clean = Linear.score(detector, one).item()
        score = Score(detector, threshold=clean + (sign * gain[i]).item())
        found = attacked(method, score, one, sign, ThreatModel(norm, "0.9"), draws=32, steps=20)
        assert found.columns["radius"].item() == pytest.approx(true, rel=0.25)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_ball_and_threshold_keep_the_contract(data: st.DataObject) -> None:
    method, norm = data.draw(st.sampled_from(MINIMUM_NORM))
    threat = ThreatModel(norm, data.draw(st.sampled_from(["1/255", "8/255", "0.3", "0.9"])))
    x = images(data.draw(st.booleans()))
    linear = Linear(data.draw(st.integers(0, 3)))
    tau = linear.score(x).median().item() + data.draw(st.floats(-30, 30))
    given = {"steps": data.draw(st.integers(1, 12))}
    found = attacked(method, Score(linear, threshold=tau), x, SIGN, threat, **given)
    (image,) = found.images.values()
    radius = found.columns["radius"]
    after = SIGN * (linear.score(image) - tau)
    inside = radius <= threat.radius
    assert (after[inside] >= 0).all() and (after[~inside] <= 1e-4).all()
    assert torch.allclose(threat.distance(image, x)[inside], radius[inside], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["linf", "l2"]), st.floats(0.001, 8), st.booleans())
def test_the_move_to_a_plane_is_the_shortest(seed: int, norm: str, length: float, interior: bool) -> None:
    length = min(length, 1.0) if norm == "linf" else length
    slope = torch.randn(len(IDS), 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    slope[:, :, 0] = 0
    x = images(interior).double()
    ones = torch.ones(len(x)).double()
    gain = torch.cat(
        [best_gain(slope[i], x[i : i + 1], ones[i : i + 1], ThreatModel(norm, length)) for i in range(len(x))]
    )
    for rise in (gain, -gain):
        w = slope if rise is gain else -slope
        move = nearest_on_plane(x, w, rise, norm)
        assert ((x + move) >= -1e-12).all() and ((x + move) <= 1 + 1e-12).all()
        assert torch.allclose((w * move).flatten(1).sum(1), rise, rtol=1e-6)
        assert (ThreatModel(norm, length).distance(move, torch.zeros_like(move)) <= length * (1 + 1e-6)).all()


def test_a_plane_out_of_reach_is_approached_to_the_corner() -> None:
    x = images(interior=False)
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for norm in ("linf", "l2"):
        move = nearest_on_plane(x, slope, torch.full((len(x),), 1e6), norm)
        assert torch.allclose(x + move, (slope > 0).float())
    assert not nearest_on_plane(x, torch.zeros_like(x), torch.ones(len(x)), "l2").any()


@each_attack
@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_radii_do_not_depend_on_the_batch(data: Data, method: str, norm: str, kind: type[Detector]) -> None:
    options = {"threat": ThreatModel(norm, "8/255"), "attack_params": {"steps": 8, "draws": 2}}
    one, seven = (evaluate(kind(), data, method, batch_size=n, **options) for n in (1, 7))  # type: ignore[arg-type]
    for name in ("radius", "worst", "distance"):
        assert torch.allclose(column(one, name), column(seven, name), rtol=1e-3, atol=1e-5), name
    assert (column(one, "radius") > 0).any()


@pytest.mark.parametrize("method", ["fab", "ddn", "autoattack"])
def test_without_a_threshold_there_is_nothing_to_cross(linear: Linear, method: str) -> None:
    attack, x = make_attack(method)[2], images(interior=True)
    with pytest.raises(
        UserError, match=f"attack {method} needs a threshold, and .*: no normal training images were held"
    ):
        attack(Score(linear), x, SIGN, ThreatModel("l2", "0.2"), Rng(0, IDS))


def test_a_constant_score_is_refused(data: Data) -> None:
    class Constant(Linear):
        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            return 0 * super().score(x) + 3

    for method in ("fab", "ddn"):
        with pytest.raises(UserError, match="a constant score ranks nothing"):
            evaluate(Constant(), data, method, ThreatModel("l2", "0.2"))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_pgd_stops_at_the_threshold(data: Data, kind: type[Detector], norm: str) -> None:
    threat = ThreatModel(norm, "0.05" if norm == "linf" else "1.0")
    full, stopped = (evaluate(kind(), data, "pgd", threat, goal=goal) for goal in ("rank", "threshold"))
    runs = full.attrs["run"], stopped.attrs["run"]
    assert runs[1]["backwards"] < runs[0]["backwards"] / 2 and runs[1]["forwards"] < runs[0]["forwards"]
    tau = runs[0]["threshold"]["value"]
    labels = full.label.to_numpy()
    worst = [accuracy(frame.worst, labels, tau).value for frame in (full, stopped)]
    assert worst[0] < accuracy(full.clean, labels, tau).value  # something was to be broken
    assert worst[1] == pytest.approx(worst[0], abs=0.1 if kind is NoisyLinear else 1e-9)
    one = evaluate(kind(), data, "pgd", threat, goal="threshold", batch_size=1)
    assert torch.allclose(column(one, "worst"), column(stopped, "worst"), rtol=1e-4)


def test_pgd_starts_also_where_it_is_told(linear: Linear) -> None:
    threat, x = ThreatModel("linf", "8/255"), images(interior=True)
    best = threat.project(x + SIGN[:, None, None, None] * linear.weight.sign(), x)
    attack = make_attack("pgd", {"steps": "1", "step_size": "0.0001"})[2]
    gains = [
        SIGN * (linear.score(attack(Score(linear), x, SIGN, threat, Rng(0, IDS), **starts)) - linear.score(x))  # type: ignore
        for starts in ({}, {"starts": best})
    ]
    optimum = best_gain(linear.weight, x, SIGN, threat).float()
    assert (gains[0] < 0.5 * optimum).all() and torch.allclose(gains[1], optimum, rtol=1e-4)
