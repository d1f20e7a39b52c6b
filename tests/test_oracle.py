"""Attacks against known optima: on a linear score the best perturbation has a closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import Linear, NoisyLinear
from torch import Tensor

from bench import Rng, Score, ThreatModel
from bench.plugins import registry
from bench.plugins.lookup import make_attack

IDS = [f"image {i}" for i in range(6)]
BUDGETS = {"linf": ("2/255", "0.5"), "l2": ("2/255", "0.5"), "l1": ("0.5", "12"), "l0": ("1", "10")}
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
GRADIENT_ATTACKS = [
    (name, norm)
    for name in registry.names("attacks")
    for norm in registry.load("attacks", name).target.norms
    if registry.load("attacks", name).target.needs_gradient
    and name not in ("bpda-pgd", "worst")  # of a detector with a block, of a list
    and not getattr(registry.load("attacks", name).target, "needs_threshold", False)
]


def built(method: str, given: dict[str, Any] | None = None) -> Any:
    """An attack by name; what it returns is left open."""
    return make_attack(method, given)[2]


def images(interior: bool) -> Tensor:
    """Away from 0 and 1, or with many pixels at the edge of the range."""
    x = torch.rand(len(IDS), 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return 0.3 + 0.4 * x if interior else (1.6 * x - 0.3).clamp(0, 1)


def best_gain(weight: Tensor, x: Tensor, sign: Tensor, threat: ThreatModel) -> Tensor:
    """The most by which sign * <w, x> can grow: (B,).

    linf: every value moves by eps, or to the edge of the range. l2 (KKT): x moves along sign * w, values that meet
    the edge stay there, and the common step is as long as the budget allows; it is found by bisection. l1: the
    values with the largest weights move to the edge, one after the other. l0: the pixels that can gain most do.
    """
    x, direction = x.double(), sign[:, None, None, None].double() * weight.double()
    if threat.norm == "linf":
        moved = (x + threat.radius * direction.sign()).clamp(0, 1)
        return ((moved - x) * direction).flatten(1).sum(1)
    room = torch.where(direction > 0, 1 - x, x)
    if threat.norm == "l1":
        weight, order = direction.abs().flatten(1).sort(1, descending=True)
        room = room.flatten(1).gather(1, order)
        before = room.cumsum(1) - room
        return (torch.minimum(room, (threat.radius - before).clamp_min(0)) * weight).sum(1)
    if threat.norm == "l0":
        pixels = (room * direction.abs()).sum(1).flatten(1)
        return pixels.sort(1, descending=True).values[:, : int(threat.eps)].sum(1)
    low, high = torch.zeros(len(x)).double(), torch.full((len(x),), 1e3).double()
    for _ in range(200):
        step = (low + high) / 2
        moved = (x + step[:, None, None, None] * direction).clamp(0, 1)
        inside = (moved - x).flatten(1).norm(dim=1) <= threat.radius
        low, high = torch.where(inside, step, low), torch.where(inside, high, step)
    moved = (x + low[:, None, None, None] * direction).clamp(0, 1)
    return ((moved - x) * direction).flatten(1).sum(1)


@pytest.mark.parametrize(("method", "norm"), GRADIENT_ATTACKS)
@pytest.mark.parametrize("interior", [True, False], ids=["inside the range", "range active"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_linear_score_is_attacked_to_its_optimum(
    linear: Linear, method: str, norm: str, interior: bool, large: bool
) -> None:
    threat = ThreatModel(norm, BUDGETS[norm][large])
    x = images(interior)
    attack = built(method)
    x_adv = attack(Score(linear), x, SIGN, threat, Rng(0, IDS))
    gain = SIGN * (linear.score(x_adv.double()) - linear.score(x.double()))
    assert threat.violation(x_adv, x) is None
    share = 0.98 if norm == "l1" else 0.99  # every projection takes a little of each value that is not at the edge
    assert (gain >= share * best_gain(linear.weight, x, SIGN, threat)).all()


@pytest.mark.parametrize(("method", "norm"), GRADIENT_ATTACKS)
def test_a_randomized_score_is_attacked_in_expectation(method: str, norm: str) -> None:
    """NoisyLinear's mean score is Linear's: averaging draws must find most of the optimum of the mean."""
    noisy, threat = NoisyLinear(), ThreatModel(norm, {"l1": "2", "l0": "5"}.get(norm, "8/255"))
    x = images(interior=True)
    attack = built(method, {"steps": 40, "draws": 16})
    x_adv = attack(Score(noisy), x, SIGN, threat, Rng(0, IDS))
    gain = SIGN * (Linear().score(x_adv.double()) - Linear().score(x.double()))
    assert (gain >= 0.9 * best_gain(noisy.weight, x, SIGN, threat)).all()


@pytest.mark.parametrize(("method", "norm"), GRADIENT_ATTACKS)
def test_noise_that_is_odd_cancels_in_two_draws(method: str, norm: str) -> None:
    """NoisyLinear's gradient is w plus noise: under a draw and its opposite it is w, and the optimum is reached."""
    noisy, threat = NoisyLinear(), ThreatModel(norm, {"l1": "2", "l0": "5"}.get(norm, "8/255"))
    x = images(interior=True)
    x_adv = built(method, {"draws": 2})(Score(noisy), x, SIGN, threat, Rng(0, IDS))
    gain = SIGN * (Linear().score(x_adv.double()) - Linear().score(x.double()))
    share = 0.98 if norm == "l1" else 0.99
    assert (gain >= share * best_gain(noisy.weight, x, SIGN, threat)).all()


def test_restarts_and_steps_never_hurt(linear: Linear) -> None:
    """The best iterate counts, so a longer attack with the same start cannot end lower."""
    threat = ThreatModel("linf", "4/255")
    x = images(interior=True)

    def reached(**given: object) -> Tensor:
        x_adv = built("pgd", {"step_size": 0.002, "schedule": "constant", **given})(
            Score(linear), x, SIGN, threat, Rng(0, IDS)
        )
        return SIGN * linear.score(x_adv)

    few, many = reached(steps=2), reached(steps=4)
    assert (many >= few).all()
    assert (reached(steps=2, restarts=3) >= few).all()
