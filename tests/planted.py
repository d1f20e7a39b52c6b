"""What the tests of checks share: a cell of a planted detector and attack, and what of it has failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import small_data
from torch import Tensor

from bench import Attack, Data, Detector, Rng, Score, ThreatModel, evaluate
from bench.cells.rows import Row
from bench.harness import evaluate as evaluation
from bench.plugins import registry

Run = Callable[..., tuple[int, str, str]]


PGD = registry.load("attacks", "pgd").target


BALL = ThreatModel("linf", "8/255")


@dataclass(frozen=True)
class Blocks(Attack):
    """A black box: random square blocks at the rim of the ball, kept where they help."""

    norms = ("linf", "l2")
    needs_gradient = False
    queries: int = 300

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        def value(images: Tensor) -> Tensor:
            with torch.no_grad():
                return sign * score(images, rng.child("look"))

        best = threat.project(x + threat.radius * threat.steepest(rng.normal(x)), x)
        best_value = value(best)
        side = 3
        for _ in range(self.queries):
            corner = (rng.uniform(x[:, 0, 0, :2]) * (x.shape[-1] - side + 1)).long()
            shift = best - x
            for i, (row, column) in enumerate(corner.tolist()):
                flip = rng.rows([i]).uniform(x[:1, :, :1, :1])[0] < 0.5
                level = threat.radius if threat.norm == "linf" else 1.0
                shift[i, :, row : row + side, column : column + side] = torch.where(flip, level, -level)
            shown = threat.project(x + shift, x)
            found = value(shown)
            best = torch.where((found > best_value)[:, None, None, None], shown, best)
            best_value = torch.maximum(found, best_value)
        return best


@pytest.fixture(autouse=True)
def black_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are under test here, and not the attack that they compare with."""
    load, names = registry.load, registry.names
    monkeypatch.setattr(
        registry, "load", lambda kind, name: registry.Plugin(name, Blocks, "") if name == "square" else load(kind, name)
    )
    monkeypatch.setattr(registry, "names", lambda kind: sorted({*names(kind), *(["square"] * (kind == "attacks"))}))


def cell(
    detector: Detector, attack: Any = None, threat: ThreatModel = BALL, data: Data | None = None, **settings: Any
) -> dict[str, Any]:
    """The record of a run in memory."""
    patch = pytest.MonkeyPatch()
    with patch.context() as p:
        p.setattr(evaluation, "make_attack", lambda *_: ("planted", None, attack or PGD(), "code"))
        record: dict[str, Any] = evaluate(detector, data or small_data(), "pgd", threat, **settings).attrs["run"]
    return record


def failed(record: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["sentence"] for check in record["checks"] if not check["passed"]}


@dataclass(frozen=True)
class Planted(Attack):
    """PGD, with something wrong."""

    norms = ("linf", "l2")

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        return PGD()(score, x, sign, threat, rng)


Change = Callable[[list[Row]], list[Row]]
