"""Detectors whose best attack is known, and attacks made as the harness makes them: shared by the tests of attacks."""

from __future__ import annotations

from typing import Any

import torch
from conftest import Linear, small_data
from torch import Tensor

from bench import (
    Attacked,
    Context,
    Detector,
    Hints,
    Rng,
    Score,
    ThreatModel,
    bpda,
)
from bench.plugins.lookup import make_attack

IDS = [f"image {i}" for i in range(5)]
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
SMALL: dict[str, dict[str, Any]] = {
    "transfer": {"source": "autoencoder", "steps": 4},
    "standard": {"steps": 4, "queries": 6, "transfer": False},
    "standard-v3": {"steps": 4, "queries": 6, "transfer": False},
    "worst": {"attacks": "pgd[steps=3],square[queries=5]"},
    "bpda-pgd": {"steps": 4},
    "eot-pgd": {"steps": 4, "draws": 3},
    "square": {"queries": 8},
    "noise": {"tries": 3},
}
EPS = {"linf": "4/255", "l2": "0.5", "l1": "3", "l0": "4"}


class Peaks(Detector):
    """score = the highest of a few linear functions: its gradient is that of one of them."""

    def __init__(self, functions: int = 6):
        super().__init__()
        self.functions = functions
        weight = torch.randn(functions, 3 * 8 * 8, generator=torch.Generator().manual_seed(2))
        self.register_buffer("weight", weight)
        self.weight: Tensor

    def fit(self, normal: object) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        # not a matrix product: its rounding depends on the batch, and attacks on a maximum are chaotic
        local = ((x.flatten(1) - 0.5)[:, None] * self.weight.to(x)).sum(2)
        return local.amax(1), local


class Rounding(Linear):
    """Linear behind a block whose own gradient is zero everywhere, and declared."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(bpda(lambda image: (image * 64).round() / 64, x))

    def attack_hints(self) -> Hints:
        return Hints(bpda=True)


class Blocked(Rounding):
    differentiable = False


def images() -> Tensor:
    return (1.4 * torch.rand(len(IDS), 3, 8, 8, generator=torch.Generator().manual_seed(5)) - 0.2).clamp(0, 1)


def attacked(name: str, norm: str, detector: Detector, x: Tensor, rows: list[int], **given: Any) -> dict[str, Tensor]:
    """The candidates for these rows, of an attack that was prepared as the harness does."""
    settings_ = {**SMALL.get(name, {"steps": 4}), **given}
    attack = make_attack(name, settings_)[2]
    score = Score(detector, threshold=0.5)
    if name == "transfer":
        attack._scores[:] = [Score(Peaks())]  # type: ignore[attr-defined]
    else:
        attack.prepare(Context(small_data(), "mine", score, 0))
    rng = Rng(0, [IDS[i] for i in rows], "attack")
    found = attack(score, x[rows], SIGN[rows], ThreatModel(norm, EPS[norm]), rng)
    return dict(found.images) if isinstance(found, Attacked) else {name: found}
