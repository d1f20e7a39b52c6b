"""Checks of attacks that are weaker, or stronger, than they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import Linear, NoisyLinear
from planted import (
    PGD,
    Planted,
    black_box,  # noqa: F401  a fixture
    cell,
    failed,
)
from torch import Tensor

from bench import Attacked, Detector, Rng, Score, ThreatModel


class Wasteful(Planted):
    """Finds the best point, and returns another."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        best: Tensor = super().__call__(score, x, sign, threat, rng)
        score(best, rng)
        return x + 0.7 * (best - x)


class Backwards(Planted):
    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        return super().__call__(score, x, -sign, threat, rng)


class Seeding(Planted):
    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        torch.manual_seed(7)
        return super().__call__(score, x, sign, threat, rng)


class Unrepeatable(Planted):
    """Goes a part of the way that the global generator decides."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        return x + torch.rand(()) * (super().__call__(score, x, sign, threat, rng) - x)


class Lucky(Planted):
    """Succeeds at one start in two."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        reach = torch.where(rng.child("luck").uniform(x[:, :1, :1, :1]) < 0.5, 1.0, 0.5)
        source = rng.child("other")
        found = super().__call__(Score(score.detector), x, sign, threat, source)
        return x + reach * (found - x)


@dataclass(frozen=True)
class Overshoots(Planted):
    """One step is good, many lead away."""

    steps: int = 20

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        found = super().__call__(Score(score.detector), x, sign, threat, rng)
        return found if self.steps == 1 else x + 0.5 * (found - x)


class Outdone(Planted):
    """Its part that transfers is ahead of its own."""

    parts = ("own", "transfer")

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        found = super().__call__(score, x, sign, threat, rng)
        return Attacked({"own": x + 0.5 * (found - x), "transfer": found})


class VeryNoisy(NoisyLinear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return (x * (self.weight.to(x) + 4 * noise)).flatten(1).sum(1)


GUESSED = "estimated gradient"  # on so few pixels it misses little: what is far from the best is behind

WEAK = [
    (Linear, PGD(steps=1, step_size=1e-5, random_start=False), {"steps", "noise", "black box", GUESSED, "unbounded"}),
    (Linear, PGD(schedule="constant", step_size=8 / 255 / 40, random_start=False), {"steps", "convergence"}),
    (Linear, Wasteful(), {"best iterate"}),
    (Linear, Backwards(), {"signs", "moved", "noise", "black box", GUESSED, "unbounded"}),
    (Linear, Seeding(), {"generators"}),
    (Linear, Unrepeatable(), {"generators", "repeat"}),
    (Linear, Lucky(), {"restarts"}),
    (Linear, Overshoots(), {"one step"}),
    (Linear, Outdone(), {"transfer"}),
]


@pytest.mark.parametrize(("kind", "attack", "names"), WEAK, ids=lambda v: getattr(v, "__name__", type(v).__name__))
def test_an_attack_that_must_not_be_believed_is_caught(kind: type[Detector], attack: Any, names: set[str]) -> None:
    assert set(failed(cell(kind(), attack))) == names


def test_too_few_draws_are_caught() -> None:
    assert set(failed(cell(VeryNoisy(), PGD(steps=3, draws=1), draws=128))) == {"draws", GUESSED}
