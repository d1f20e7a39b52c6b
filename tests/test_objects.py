"""Detectors that the caller has built: one results folder never gives the rows of one for those of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Linear, small_data
from torch import Tensor

from bench import Data, Detector, Rng, UserError, certify, evaluate

HELD = "holds results from before .* changed; --force replaces them, --results DIR keeps both"


class Plain(Linear):
    """Its weights are a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.ones(8)

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x * self.factor)


def other_weights(kind: type[Linear]) -> Linear:
    """Fitted to something else, with the same parameters."""
    found = kind()
    found.weight = found.weight.flip(0)
    return found


def certified(detector: Linear, data: Data, **more: Any) -> Any:
    return certify(detector, data, 0.1, samples=40, alpha=0.2, **more)


@pytest.mark.parametrize("run", [evaluate, certified])
def test_another_object_of_the_class_does_not_get_the_rows_of_the_first(run: Any, data: Data, tmp_path: Path) -> None:
    first = run(Linear(), data, results=tmp_path)
    assert run(Linear(), data, results=tmp_path).equals(first)
    with pytest.raises(UserError, match=HELD):
        run(other_weights(Linear), data, results=tmp_path)
    assert run(Linear(), data, results=tmp_path).equals(first)
    assert not run(other_weights(Linear), data, results=tmp_path, force=True).equals(first)


def test_nor_one_that_differs_beside_its_state_dict(data: Data, tmp_path: Path) -> None:
    first, other = Plain(), Plain()
    other.factor = torch.linspace(1, 2, 8)
    rows = evaluate(first, data, results=tmp_path)
    with pytest.raises(UserError, match=HELD):
        evaluate(other, data, results=tmp_path)
    assert evaluate(first, data, results=tmp_path).equals(rows)


NOTEBOOK = """
from conftest import Linear
SIGN = 1.0
def turned(score):
    return SIGN * score
class Mine(Linear):
    def score(self, x, rng=None):
        return turned(super().score(x))
"""


def in_a_notebook(text: str) -> type[Detector]:
    """A class of a module that no file holds."""
    cell: dict[str, Any] = {"__name__": "a_notebook"}
    exec(text, cell)  # as a notebook does
    found: type[Detector] = cell["Mine"]
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("turned(super().score(x))", "turned(super().score(x.flip(3)))"),
        ("SIGN = 1.0", "SIGN = -1.0"),
        ("return SIGN * score", "return SIGN + score"),
    ],
)
def test_a_class_that_was_rewritten_in_a_notebook_is_another_one(
    old: str, new: str, data: Data, tmp_path: Path
) -> None:
    first = evaluate(in_a_notebook(NOTEBOOK)(), data, results=tmp_path)
    moved = "# a comment above it\n" + NOTEBOOK
    assert evaluate(in_a_notebook(moved)(), data, results=tmp_path).equals(first)
    with pytest.raises(UserError, match="before the code of detector Mine changed"):
        evaluate(in_a_notebook(NOTEBOOK.replace(old, new))(), data, results=tmp_path)


def test_a_sweep_of_another_object_does_not_begin_at_the_images_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = small_data()
    other = other_weights(Linear)
    alone = evaluate(other, data, "noise-linf", "8/255", smaller=["4/255"])
    evaluate(Linear(), data, "noise-linf", "4/255", keep_images=True)
    assert evaluate(other, data, "noise-linf", "8/255", smaller=["4/255"]).equals(alone)
