"""The threat model: parsing, projection, verification."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from bench import Rng, ThreatModel, UserError
from bench.cells.spec import RunSpec
from bench.core.norms import NORMS
from bench.core.threat import eps_text, parse_eps
from bench.harness.certify import parse_radius

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
def test_every_eps_survives_being_written(eps: Fraction) -> None:
    assert parse_eps(eps_text(eps)) == eps


@pytest.mark.parametrize("text", ["-1/255", "0", "nan", "inf", "two", "", "1/0", "0/255"])
def test_an_impossible_eps_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a number of pixel units"):
        ThreatModel("linf", text)


NO_NUMBERS = [
    "1/255 2/255", "2/255/2", "2 2/255", "2/2 55", "1_0/255", "0_1", "\uff12/255", "\u0662/255", "0x1", "0x1p-3",
    "1e400", "1e-400", "1e9999999", "1/1e9999999", "1e-9999999", "infinity", "Infinity", "NaN", "1e5_0", "1,5", "1e",
    ".", "/255", "2/", "2//255", "--2/255", "2/255\n", "1\u00a0/255", "True", "9" * 5000, f"1/{'9' * 5000}",
    f"0.{'0' * 990}1",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_NUMBERS, ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("norm", ["", *NORMS])
def test_what_is_no_number_is_no_eps(text: str, norm: str) -> None:
    """Two numbers run together are not one; a number that no float holds is refused, and at once."""
    with pytest.raises(UserError, match="is not a number") as refused:
        parse_eps(text, norm)
    assert len(str(refused.value)) < 250 and "expected" in str(refused.value)


def test_several_eps_are_asked_for_with_commas() -> None:
    with pytest.raises(UserError, match=r"--eps 1/255 2/255 is not a number \(separate several with commas\)"):
        ThreatModel("linf", "1/255 2/255")


@pytest.mark.parametrize(
    ("value", "exact"),
    [(0.1, Fraction(1, 10)), (1e-5, Fraction(1, 10**5)), (1, Fraction(1)), (Fraction(1, 3), Fraction(1, 3)),
     (np.float64(0.3), Fraction(3, 10)), (0.1 + 0.2, Fraction("0.30000000000000004")), (np.int64(1), Fraction(1))],
)  # fmt: skip
def test_numbers_from_python_are_what_they_print(value: float | Fraction, exact: Fraction) -> None:
    assert ThreatModel("linf", value).eps == exact


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, Fraction(10**400), Fraction(1, 10**400), True])
def test_a_number_that_is_no_length_is_refused_from_python_too(value: float | Fraction) -> None:
    with pytest.raises(UserError, match="is not a number"):
        ThreatModel("l1", value)


@given(st.floats(min_value=0, exclude_min=True, max_value=1e300))
def test_every_float_is_read_back_from_its_exact_fraction(value: float) -> None:
    """What a record holds of an eps that was computed."""
    assert parse_eps(eps_text(Fraction(value)), "l1") == Fraction(value)


def test_the_wrong_unit_is_recognised() -> None:
    with pytest.raises(UserError, match="did you mean 2/255"):
        ThreatModel("linf", "2")
    assert ThreatModel("l2", "2").radius == 2  # in l2 that is a small budget
    with pytest.raises(UserError, match="a whole number of pixels, for example 10"):
        ThreatModel("l0", "2/255")


images = st.integers(0, 2**31).map(
    lambda seed: torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).mul(1.2).sub(0.1).clamp(0, 1)
)


@NORM
@given(x0=images, seed=st.integers(0, 2**31), scale=st.floats(1e-3, 10), eps=st.floats(1e-3, 1))
@settings(deadline=None, max_examples=60)
def test_projection_lands_in_the_ball_and_moves_nothing_that_is_there(
    norm: str, x0: torch.Tensor, seed: int, scale: float, eps: float
) -> None:
    threat = ThreatModel(norm, {"l1": Fraction(20 * eps), "l0": Fraction(math.ceil(16 * eps))}.get(norm, Fraction(eps)))
    far = x0 + scale * torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    inside = threat.project(far, x0)
    assert threat.violation(inside, x0) is None
    assert torch.allclose(threat.project(inside, x0), inside, atol=1e-6)


@NORM
def test_random_starts_are_allowed_and_differ(norm: str) -> None:
    threat = ThreatModel(norm, "3" if norm == "l0" else "4/255")
    x0 = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    starts = [threat.random_start(x0, Rng(seed, "abcd")) for seed in (0, 1)]
    assert all(threat.violation(start, x0) is None for start in starts)
    assert not torch.equal(*starts)


@pytest.mark.parametrize(("norm", "eps"), [("l1", 5000), ("l2", 0.5), ("l2", 40), ("linf", 0.1), ("l0", 3000)])
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_a_projection_is_inside_at_any_size(norm: str, eps: float, scale: float) -> None:
    """Single precision rounds every one of 200 000 values: together they must not leave the ball."""
    x0 = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    threat = ThreatModel(norm, eps)
    x = threat.project(x0 + scale * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)), x0)
    assert threat.violation(x, x0) is None
    assert torch.allclose(threat.project(x, x0), x, rtol=0, atol=1e-7)
    if scale == 1:  # far outside: the whole budget is spent
        assert torch.allclose(threat.distance(x, x0), torch.tensor(eps, dtype=torch.float64), rtol=1e-5)


def test_a_few_large_changes_beside_many_small_ones_stay_in_the_ball() -> None:
    """As a score that is a maximum makes them: a sum in single precision forgets the small ones."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.3 + 0.4 * torch.rand(8, 3, 64, 64, generator=generator)
    small = torch.linspace(0.5e-3, 1.5e-3, len(x0)).view(-1, 1, 1, 1)
    shift = small * torch.randn(x0.shape, generator=generator).sign()
    shift[:, :, :3, :3] = 0.2
    threat = ThreatModel("l2", 0.5)
    assert (threat.distance(threat.project(x0 + shift, x0), x0) <= 0.5 + 1e-7).all()


@pytest.mark.parametrize("eps", [0.2, 0.7, 2.5])
@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("seed", [3, 4])
def test_a_projection_is_the_nearest_allowed_image(norm: str, eps: float, seed: int) -> None:
    """Against a general constrained optimiser, with the pixel range active.

    In l1 it solves for the upward and the downward part of each change, which makes the problem smooth.
    """
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(1, 3, 2, 2, generator=generator, dtype=torch.float64).round(decimals=1)
    far = x0 + torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    threat = ThreatModel(norm, eps)
    ours = threat.project(far, x0)
    target, centre = far.flatten().numpy(), x0.flatten().numpy()

    def left(parts: np.ndarray) -> float:
        up, down = np.split(parts, 2)
        return float(eps**2 - ((up - down) ** 2).sum() if norm == "l2" else eps - parts.sum())

    best = minimize(
        lambda parts: ((centre + parts[:12] - parts[12:] - target) ** 2).sum(),
        np.full(24, 1e-3),
        bounds=[(0, 1 - c) for c in centre] + [(0, c) for c in centre],
        method="SLSQP",
        constraints={"type": "ineq", "fun": left},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert best.success
    assert ((ours.flatten().numpy() - target) ** 2).sum() == pytest.approx(best.fun, rel=1e-6)


def test_the_l0_projection_is_the_nearest_allowed_image() -> None:
    """Against all choices of pixels."""
    generator = torch.Generator().manual_seed(3)
    x0 = torch.rand(1, 3, 2, 3, generator=generator).round(decimals=1)
    far = x0 + torch.randn(x0.shape, generator=generator)
    for count in range(1, 7):
        ours = ThreatModel("l0", count).project(far, x0)
        distances = []
        for pixels in itertools.combinations(range(6), count):
            mask = torch.zeros(6, dtype=torch.bool)
            mask[list(pixels)] = True
            distances.append((torch.where(mask.view(2, 3), far.clamp(0, 1), x0) - far).norm().item())
        assert (ours - far).norm().item() == pytest.approx(min(distances))


@NORM
def test_the_steepest_step_has_length_one_and_nothing_beats_it(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(4, 3, 5, 5, generator=generator)
    threat = ThreatModel(norm, 5) if norm != "linf" else ThreatModel(norm, 1)
    step = threat.steepest(gradient)
    if norm == "l0":
        assert torch.equal(step.sign(), gradient.sign())
        return
    assert torch.allclose(threat.distance(step, torch.zeros_like(step)), torch.ones(4, dtype=torch.float64))
    grown = (step * gradient).flatten(1).sum(1)
    for _ in range(50):
        other = torch.randn(gradient.shape, generator=generator)
        other /= threat.distance(other, torch.zeros_like(other)).view(-1, 1, 1, 1).float()
        assert (grown >= (other * gradient).flatten(1).sum(1)).all()
    assert torch.equal(threat.steepest(torch.zeros_like(gradient)), torch.zeros_like(gradient))


def test_a_long_l1_step_uses_the_best_values_that_can_still_move() -> None:
    gradient = torch.tensor([4.0, -3.0, 2.0]).view(1, 3, 1, 1)
    x = torch.tensor([0.6, 0.5, 0.5]).view(1, 3, 1, 1)
    step = 0.8 * ThreatModel("l1", 1).steepest(gradient, x, 0.8)
    assert step.flatten().tolist() == pytest.approx([0.4, -0.4, 0.0])
    assert ThreatModel("l1", 1).steepest(gradient).flatten().tolist() == [1, 0, 0]


@NORM
def test_violations_are_named(norm: str) -> None:
    threat = ThreatModel(norm, "2" if norm == "l0" else "2/255")
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


@pytest.mark.parametrize("text", ["0.1 0.2", "1_0", "\uff11", "nan", "inf", "-0.1", "0", "1e400"])
@pytest.mark.parametrize(("option", "said"), [("--sigma", "must be a number above 0"), ("--alpha", "between 0 and 1")])
def test_sigma_and_alpha_are_read_as_strictly(
    option: str, said: str, text: str, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = run_cli("certify", "--detector", "autoencoder", f"{option}={text}")
    assert code == 2 and option in err and text in err and said in err and err.count("\n") == 1


def test_a_radius_is_read_as_strictly_and_named() -> None:
    assert parse_radius("51/255") == Fraction(1, 5)
    with pytest.raises(UserError, match="--radius 0.1 0.2 is not a number"):
        parse_radius("0.1 0.2")


@pytest.mark.parametrize(("norm", "eps"), [("linf", "1/255 2/255"), ("l2", "1e9999999"), ("l0", "1/2"), ("l3", "1")])
def test_a_foreign_record_is_read_as_strictly(norm: str, eps: str) -> None:
    spec = {
        "detector": "mean", "detector_parameters": {}, "attack": "pgd", "attack_parameters": {}, "norm": norm,
        "eps": eps, "targets": "both", "dataset": "small", "category": "one", "image_size": 8, "seed": 0, "limit": None,
        "draws": None, "goal": "rank",
    }  # fmt: skip
    RunSpec.model_validate(spec | {"norm": "linf", "eps": "2/255"})
    with pytest.raises(ValidationError, match=r"is not a number|number of pixels|no norm named 'l3'"):
        RunSpec.model_validate(spec)
