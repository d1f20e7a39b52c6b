"""What `score` may return: float64 and a named pred_score are taken; of anything else a line says what to do."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Linear, small_data
from torch import Tensor

from bench import Rng, UserError, evaluate
from bench.plugins import registry

InferenceBatch = namedtuple("InferenceBatch", "pred_score pred_label anomaly_map")


class Double(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x.double())


class Batch(Linear):
    """As anomalib's models answer."""

    form: Any = staticmethod(lambda s: InferenceBatch(s, s > 1, s))

    def score(self, x: Tensor, rng: Rng | None = None) -> Any:
        return self.form(super().score(x))


class Column(Batch):
    form = staticmethod(lambda s: SimpleNamespace(pred_score=s[:, None]))


class Mapped(Batch):
    form = staticmethod(lambda s: {"pred_score": s, "anomaly_map": s})


class Pair(Batch):
    form = staticmethod(lambda s: (s, s))


class Other(Batch):
    form = staticmethod(lambda s: {"score": s})


class NoGradient(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.from_numpy(super().score(x).detach().numpy())


@pytest.mark.parametrize("attack", ["pgd-linf", "apgd-linf", "square-linf"])
@pytest.mark.parametrize("kind", [Double, Batch, Column, Mapped])
def test_scores_that_are_plain_are_taken(kind: type[Linear], attack: str) -> None:
    given: dict[str, Any] = {"queries": 20} if attack == "square-linf" else {"steps": 5}
    rows, expected = (evaluate(k(), small_data(), attack, attack_params=given) for k in (kind, Linear))
    for column in ("clean", "worst"):
        assert rows[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-5)
    failed = {c["name"] for c in rows.attrs["run"]["checks"] if not c["passed"]}
    assert failed <= {c["name"] for c in expected.attrs["run"]["checks"] if not c["passed"]}


def test_a_wrapper_takes_them_from_what_it_is_around() -> None:
    smoothed = registry.load("detectors", "smoothed").target
    x, source = torch.rand(2, 3, 8, 8), ["a", "b"]
    for kind in (Batch, Mapped):
        found = smoothed(kind(), n=3).score(x, Rng(0, source))
        assert torch.equal(found, smoothed(Linear(), n=3).score(x, Rng(0, source)))
        assert torch.equal(kind()(x), Linear()(x))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Pair, r"got tuple of 2; return the scores alone, or name them pred_score \(a map goes to anomaly_map"),
        (Other, "got dict of 1; return the scores alone"),
        (NoGradient, "has no gradient .* say `differentiable = False` in the class and attack with square-linf"),
    ],
)
def test_of_the_rest_a_line_says_what_to_do(kind: type[Linear], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        evaluate(kind(), small_data(), "pgd-linf")
    assert "\n" not in str(caught.value)


def test_what_is_said_of_a_missing_gradient_helps() -> None:
    class Blind(NoGradient):
        differentiable = False

    rows = evaluate(Blind(), small_data(), "square-linf", attack_params={"queries": 20})
    assert (rows.worst != rows.clean).any()
