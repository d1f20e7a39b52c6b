"""The threat model: parsing, projection, verification."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bench import Rng, ThreatModel, UserError
from bench.threat import NORMS, eps_text, parse_eps

NORM = pytest.mark.parametrize("norm", NORMS)


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [("2/255", Fraction(2, 255), "2/255"), ("0.2", Fraction(1, 5), "0.2"), ("51/255", Fraction(1, 5), "0.2"),
     ("1e-3", Fraction(1, 1000), "0.001"), (0.5, Fraction(1, 2), "0.5"), ("1/3", Fraction(1, 3), "85/255"),
     ("1/7", Fraction(1, 7), "1/7"), (" 8 / 255", Fraction(8, 255), "8/255")],
)  # fmt: skip
def test_eps_is_exact_however_it_was_typed(text: str | float, value: Fraction, shown: str) -> None:
    assert parse_eps(text) == value
    assert eps_text(value) == shown
    assert parse_eps(shown) == value


@given(st.fractions(min_value=Fraction(1, 10**6), max_value=1, max_denominator=10**6))
def test_every_budget_survives_being_written(eps: Fraction) -> None:
    assert parse_eps(eps_text(eps)) == eps


@pytest.mark.parametrize("text", ["-1/255", "0", "nan", "inf", "two", "", "1/0", "0/255"])
def test_impossible_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a number of pixel units"):
        ThreatModel("linf", text)


def test_the_wrong_unit_is_recognised() -> None:
    with pytest.raises(UserError, match="did you mean 2/255"):
        ThreatModel("linf", "2")
    assert ThreatModel("l2", "2").radius == 2  # in l2 that is a small budget


images = st.integers(0, 2**31).map(
    lambda seed: torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).mul(1.2).sub(0.1).clamp(0, 1)
)


@NORM
@given(x0=images, seed=st.integers(0, 2**31), scale=st.floats(1e-3, 10), eps=st.floats(1e-3, 1))
@settings(deadline=None, max_examples=60)
def test_projection_lands_in_the_ball_and_moves_nothing_that_is_there(
    norm: str, x0: torch.Tensor, seed: int, scale: float, eps: float
) -> None:
    threat = ThreatModel(norm, Fraction(eps))
    far = x0 + scale * torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    inside = threat.project(far, x0)
    assert threat.violation(inside, x0) is None
    assert torch.allclose(threat.project(inside, x0), inside, atol=1e-6)


@NORM
def test_random_starts_are_allowed_and_differ(norm: str) -> None:
    threat = ThreatModel(norm, "4/255")
    x0 = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    starts = [threat.random_start(x0, Rng(seed, "abcd")) for seed in (0, 1)]
    assert all(threat.violation(start, x0) is None for start in starts)
    assert not torch.equal(*starts)


def test_the_l2_projection_is_the_nearest_allowed_image() -> None:
    """Against a general constrained optimiser, with the pixel range active."""
    generator = torch.Generator().manual_seed(3)
    x0 = torch.rand(1, 3, 2, 2, generator=generator, dtype=torch.float64).round(decimals=1)
    far = x0 + torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    threat = ThreatModel("l2", "0.7")
    ours = threat.project(far, x0)
    target, centre = far.flatten().numpy(), x0.flatten().numpy()
    best = minimize(
        lambda z: ((z - target) ** 2).sum(),
        centre,
        bounds=[(0, 1)] * 12,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda z: 0.49 - ((z - centre) ** 2).sum()},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert best.success
    assert ((ours.flatten().numpy() - target) ** 2).sum() == pytest.approx(best.fun, rel=1e-6)


@NORM
def test_violations_are_named(norm: str) -> None:
    threat = ThreatModel(norm, "2/255")
    x0 = torch.full((2, 3, 4, 4), 0.5)
    assert "budget" in str(threat.violation(x0 + 0.02, x0))
    assert "finite" in str(threat.violation(x0 * float("nan"), x0))
    assert "shape" in str(threat.violation(x0[:1], x0))
    assert "pixel range" in str(threat.violation(torch.full_like(x0, 1.001), torch.ones_like(x0)))
    assert threat.violation(x0, x0) is None


def test_which_images_the_adversary_controls() -> None:
    labels = torch.tensor([0, 1, 1])
    assert ThreatModel("linf", "2/255", "normal").controls(labels).tolist() == [True, False, False]
    assert ThreatModel("linf", "2/255", "anomalous").controls(labels).tolist() == [False, True, True]
    assert ThreatModel("linf", "2/255").controls(labels).all()
