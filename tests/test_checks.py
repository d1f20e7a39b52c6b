"""Checks that say whether a cell may be believed: what is clean must pass, and obfuscation must be found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import Linear, NoisyLinear
from planted import (
    PGD,
    black_box,  # noqa: F401  a fixture
    cell,
    failed,
)
from torch import Tensor

from bench import Detector, Rng, ThreatModel
from bench.checks import of_attack as beliefs
from bench.checks import of_detector as checks
from bench.checks.probe import toy_data
from bench.plugins.fitting import DetectorSpec


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
@pytest.mark.parametrize(("norm", "eps"), [("linf", "8/255"), ("l2", "0.2")])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_cell_passes_every_check(kind: type[Detector], norm: str, eps: str, seed: int) -> None:
    record = cell(kind(), threat=ThreatModel(norm, eps), seed=seed)
    assert failed(record) == {}
    assert [c["name"] for c in record["checks"]] == [*checks.OF_A_RUN, *checks.OF_AN_OBJECT, *beliefs.CHECKS]


@pytest.mark.parametrize("targets", ["normal", "anomalous"])
def test_a_clean_cell_that_moves_one_class_passes(targets: str) -> None:
    assert failed(cell(Linear(), threat=ThreatModel("linf", "8/255", targets))) == {}


def test_a_clean_cell_that_stops_at_the_threshold_passes() -> None:
    assert failed(cell(Linear(), goal="threshold")) == {}


def test_a_fitted_detector_passes_every_check() -> None:
    data = toy_data(32)
    detector = DetectorSpec("autoencoder", {"width": 8, "latent": 8, "steps": 60}, device="cpu").fitted(data)
    assert failed(cell(detector, PGD(steps=40), ThreatModel("linf", "2/255"), data)) == {}


class ZeroGradient(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x).detach() + 0 * x.flatten(1).sum(1)


class RoundedScore(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        score = super().score(x) / 8
        return score.round() + 0 * score


class HalfDetached(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(torch.cat([x[..., :4].detach(), x[..., 4:]], -1))


class HiddenNoise(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + torch.randn(len(x))


class SeedsInside(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        torch.manual_seed(0)
        return super().score(x)


class SeedsAndDraws(NoisyLinear):
    """Its noise looks fresh, and is the same at every call."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        if rng is None:
            torch.manual_seed(0)
        return super().score(x, rng)


class ChangesState(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.seen += len(x)
        return super().score(x)


class CrossGradient(Linear):
    """Scores and the gradient of their sum are right; that of a single score is its neighbour's as well."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        score, light = super().score(x), x.flatten(1).sum(1)
        return score + 1e-3 * (light.roll(1) - light.roll(1).detach() - light + light.detach())


class Saturated(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.sigmoid(20 * (super().score(x) - 30))


class Shattered(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + 0.02 * (torch.sin(3e4 * x) * self.weight.to(x)).flatten(1).sum(1)


class Masked(Linear):
    """Pixels climb a staircase of tanh: level, so without a gradient, but for 9 % of the way."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        steps = 64 * x
        within = steps - steps.detach().floor()
        return super().score((steps.detach().floor() + 0.5 + 0.5 * torch.tanh(200 * (within - 0.5))) / 64)


class Bounded(Linear):
    """Half of the image decides, by a level that is flat in float32 but for one spot; the rest has a gradient, and adds
    little."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        level = x[..., :4].flatten(1).mean(1)
        return 100 * torch.sigmoid(2000 * (level - 0.47)) + torch.tanh(super().score(x * (torch.arange(8) >= 4)) / 50)


ALONE = [
    (HalfDetached, PGD(), {"gradient", "followed"}),
    (SeedsInside, PGD(), {"seeding", "generators"}),
    (SeedsAndDraws, PGD(), {"randomness", "seeding", "clean"}),  # one draw is not the mean
    (ChangesState, PGD(), {"state"}),
    (CrossGradient, PGD(), {"mixing"}),
    (Bounded, PGD(random_start=False), {"unbounded"}),
]


AMONG = [  # what hides the gradient, or is noise, fails wherever it meets an attack
    (ZeroGradient, {"gradient", "shattered", "moved", "noise", "black box", "unbounded"}),
    (RoundedScore, {"gradient", "shattered", "saturation", "ties", "moved"}),
    (HiddenNoise, {"rows", "randomness", "generators", "repeat"}),
    (Saturated, {"gradient", "shattered", "saturation", "ties", "moved"}),
    (Shattered, {"shattered", "black box"}),
    (Masked, {"black box", "noise"}),
]


@pytest.mark.parametrize(("kind", "attack", "names"), ALONE, ids=lambda v: getattr(v, "__name__", ""))
def test_an_obfuscation_is_caught_by_its_check_and_by_no_other(
    kind: type[Detector], attack: Any, names: set[str]
) -> None:
    assert set(failed(cell(kind(), attack))) == names


@pytest.mark.parametrize(("kind", "names"), AMONG, ids=lambda v: getattr(v, "__name__", ""))
def test_an_obfuscation_is_caught(kind: type[Detector], names: set[str]) -> None:
    assert names <= set(failed(cell(kind())))
