"""Attacks that need no gradient: square, and the control by random noise."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Linear, NoisyLinear
from hypothesis import given, settings
from hypothesis import strategies as st
from test_oracle import IDS, SIGN, best_gain, built, images
from torch import Tensor

from bench import Data, Detector, Rng, Score, ThreatModel, evaluate
from bench.core.norms import NORMS
from bench.core.score import GOALS

Run = Callable[..., tuple[int, str, str]]
SQUARE = ("linf", "l2")
BLIND = [("square", norm) for norm in SQUARE] + [("noise", norm) for norm in NORMS]


def budget(norm: str) -> str:
    return {"l1": "6", "l0": "5", "l2": "0.5"}.get(norm, "8/255")


def attacked(method: str, detector: Detector, x: Tensor, threat: ThreatModel, **given: Any) -> Tensor:
    x_adv: Tensor = built(method, given)(Score(detector), x, SIGN[: len(x)], threat, Rng(0, IDS[: len(x)]))
    return x_adv


def gain(detector: Detector, x_adv: Tensor, x: Tensor) -> Tensor:
    return SIGN[: len(x)] * (detector.score(x_adv.double()) - detector.score(x.double()))


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.85), ("l2", 0.5)])
@pytest.mark.parametrize("interior", [True, False], ids=["inside the range", "range active"])
def test_a_linear_score_is_raised_most_of_the_way(linear: Linear, norm: str, share: float, interior: bool) -> None:
    """Its weights are white noise, where windows help least: 1000 queries for 192 values."""
    x, threat = images(interior), ThreatModel(norm, budget(norm))
    x_adv = attacked("square", linear, x, threat)
    assert threat.violation(x_adv, x) is None
    assert (gain(linear, x_adv, x) >= share * best_gain(linear.weight, x, SIGN, threat)).all()


def test_the_expectation_of_a_randomized_score_is_raised() -> None:
    """Every query is a comparison under one noise: with fresh noise on either side few of them would be right."""
    x, threat = images(interior=True), ThreatModel("linf", "8/255")
    x_adv = attacked("square", NoisyLinear(), x, threat, queries=300, draws=4)
    assert (gain(Linear(), x_adv, x) >= 0.6 * best_gain(NoisyLinear().weight, x, SIGN, threat)).all()


class Lottery(Linear):
    """Nothing but noise, the same for every image that shares the source's state."""

    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        assert rng is not None
        return rng.normal(x[:, 0, 0, 0])


def test_luck_alone_changes_nothing() -> None:
    """Under the same noise all candidates are equal, so none may replace the image."""
    x = images(interior=True)
    assert torch.equal(attacked("square", Lottery(), x, ThreatModel("linf", "8/255"), queries=30), x)


@pytest.mark.parametrize("norm", SQUARE)
def test_a_rounded_score_without_gradient_is_moved(norm: str) -> None:
    class Rounded(Linear):
        differentiable = False

        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            return (super().score(x) * 10).round()

    x, threat = images(interior=True), ThreatModel(norm, budget(norm))
    detector = Rounded()
    assert (gain(detector, attacked("square", detector, x, threat, queries=200), x) > 0).all()


@given(
    norm=st.sampled_from(SQUARE),
    eps=st.floats(1e-3, 1),
    seed=st.integers(0, 2**31),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    p_init=st.floats(0.001, 1),
)
@settings(deadline=None, max_examples=60)
def test_no_search_leaves_the_budget(norm: str, eps: float, seed: int, height: int, width: int, p_init: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(2, 3, height, width, generator=generator) - 0.2).clamp(0, 1)
    weight = torch.randn(3, height, width, generator=generator)

    class Any2d(Linear):
        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            return (x * weight).flatten(1).sum(1)

    threat = ThreatModel(norm, Fraction(eps))
    attack = built("square", {"queries": 12, "p_init": p_init})
    x_adv = attack(Score(Any2d()), x, SIGN[:2], threat, Rng(seed, ["a", "b"]))
    assert threat.violation(x_adv, x) is None
    assert (SIGN[:2] * ((x_adv - x) * weight).flatten(1).sum(1) >= 0).all()


@pytest.mark.parametrize(("method", "norm"), BLIND)
@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_an_image_fares_alike_in_any_batch(method: str, norm: str, kind: type[Detector]) -> None:
    x, threat = images(interior=False), ThreatModel(norm, budget(norm))
    short = {"queries": 25, "restarts": 2} if method == "square" else {}
    attack = built(method, short)
    together = attack(Score(kind()), x, SIGN, threat, Rng(3, IDS))
    some = [4, 1]
    apart = attack(Score(kind()), x[some], SIGN[some], threat, Rng(3, [IDS[i] for i in some]))
    assert torch.equal(together[some], apart)
    again = attack(Score(kind()), x, SIGN, threat, Rng(3, IDS))
    assert torch.equal(together, again)
    assert not torch.equal(together, attack(Score(kind()), x, SIGN, threat, Rng(4, IDS)))


def test_more_restarts_never_hurt_and_cost_what_they_say(linear: Linear) -> None:
    x, threat = images(interior=True), ThreatModel("linf", "8/255")
    reached = []
    for restarts in (1, 3):
        score = Score(linear)
        attack = built("square", {"queries": 20, "restarts": restarts})
        reached.append(SIGN * linear.score(attack(score, x, SIGN, threat, Rng(0, IDS))))
        assert score.forwards == len(x) * (1 + restarts * (20 + 1)) and score.backwards == 0
    assert (reached[1] >= reached[0]).all()


@pytest.mark.parametrize("norm", SQUARE)
def test_a_start_is_never_lost(linear: Linear, norm: str) -> None:
    """From an optimum nothing improves; from outside of the ball it is brought in."""
    x, threat = images(interior=True), ThreatModel(norm, budget(norm))
    optimum = built("pgd")(Score(linear), x, SIGN, threat, Rng(0, IDS))
    attack = built("square", {"queries": 3})
    x_adv = attack(Score(linear), x, SIGN, threat, Rng(0, IDS), starts=optimum)
    assert (SIGN * linear.score(x_adv) >= SIGN * linear.score(optimum) - 1e-5).all()
    far = (x + 2 * (optimum - x)).clamp(-1, 2)
    assert threat.violation(attack(Score(linear), x, SIGN, threat, Rng(0, IDS), starts=far), x) is None


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_images_across_the_threshold_leave_the_batch(kind: type[Detector]) -> None:
    x, threat = images(interior=True), ThreatModel("linf", "32/255")
    clean = Linear().score(x)
    level = float(clean.median())
    passes, images_ = {}, {}
    for goal in GOALS:
        score = Score(kind(), threshold=level, goal=goal)
        attack = built("square", {"queries": 60, "draws": 4})
        images_[goal] = attack(score, x, SIGN, threat, Rng(0, IDS))
        passes[goal] = score.forwards
    assert passes["threshold"] < 0.7 * passes["rank"]
    # of a randomized score all draws of one query were across
    crossed = SIGN * (Linear().score(images_["threshold"]) - level) > 0
    assert crossed.sum() >= len(x) - 1
    assert (SIGN * Linear().score(images_["rank"]) >= SIGN * Linear().score(images_["threshold"]) - 0.1).all()


def test_the_control_is_far_from_the_optimum_and_spends_the_budget(linear: Linear) -> None:
    for norm in NORMS:
        x, threat = images(interior=True), ThreatModel(norm, budget(norm))
        one = attacked("noise", linear, x, threat, tries=1)
        assert torch.allclose(threat.distance(one, x), torch.tensor(threat.radius, dtype=torch.float64), rtol=1e-3)
        ten = gain(linear, attacked("noise", linear, x, threat), x)
        assert (ten >= gain(linear, one, x)).all()
        assert (ten < best_gain(linear.weight, x, SIGN, threat)).all()
        assert ten.mean() < 0.6 * best_gain(linear.weight, x, SIGN, threat).mean()


@pytest.mark.parametrize("method", ["square", "noise"])
@pytest.mark.parametrize("batch_size", [2, 7])
def test_a_detector_without_gradient_is_attacked(data: Data, method: str, batch_size: int) -> None:
    class NoGradient(Linear):
        differentiable = False

        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            return torch.from_numpy(np.asarray(super().score(x).detach()))

    short = {"queries": 10} if method == "square" else {}
    rows = evaluate(NoGradient(), data, method, attack_params=short, batch_size=batch_size)
    sign = 1 - 2 * rows.label
    assert (sign * rows.worst >= sign * rows.clean).all()
    assert (rows.distance > 0).sum() > len(rows) // 2


@pytest.mark.parametrize(
    ("attack", "given", "says"),
    [
        ("square", "queries=0", "queries must be at least 1, got 0"),
        ("square", "restarts=0", "restarts must be at least 1, got 0"),
        ("square", "draws=0", "draws must be at least 1, got 0"),
        ("square", "p_init=0", "p_init must be above 0 and at most 1, got 0"),
        ("square", "p_init=1.5", "p_init must be above 0 and at most 1, got 1.5"),
        ("noise", "tries=0", "tries must be at least 1, got 0"),
        ("noise", "draws=0", "draws must be at least 1, got 0"),
        ("square-l0", "queries=1", "attack square has no norm l0; it has linf, l2"),
    ],
)
def test_bad_parameters_are_one_line(run_cli: Run, tmp_path: Path, attack: str, given: str, says: str) -> None:
    code, _, err = run_cli(
        "run", "--detector", "autoencoder", "--attack", attack, "--attack-param", given, "--results", tmp_path / "none"
    )
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
