"""A norm is one class: the threat model, the records and the attacks that know no norm by name follow the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import Linear
from torch import Tensor

from bench import Data, Rng, ThreatModel, UserError, evaluate, load_results
from bench.core.norms import NORMS, Norm
from bench.plugins import registry
from bench.plugins.lookup import make_attack

RED_COUNTS = torch.tensor([0.5, 1.0, 1.0]).view(1, 3, 1, 1)


class Coloured(Norm):
    """The largest change of a value, where one of the first colour counts half."""

    name = "coloured"
    expected = "the change of a green value, for example 0.1"

    def objection(self, eps: Fraction) -> str | None:
        return None if eps <= 1 else f"is wider than the range; expected {self.expected}"

    def distance(self, shift: Tensor) -> Tensor:
        return (shift * RED_COUNTS).abs().flatten(1).amax(1)

    def longest(self, shape: Sequence[int]) -> float:
        return 1.0

    def project(self, x: Tensor, x0: Tensor, eps: float) -> Tensor:
        return x.clamp(x0 - eps / RED_COUNTS, x0 + eps / RED_COUNTS).clamp(0, 1).to(x)

    def random_start(self, x0: Tensor, eps: float, rng: Rng) -> Tensor:
        return self.project(x0 + eps * (2 * rng.uniform(x0) - 1) / RED_COUNTS, x0, eps)

    def steepest(self, gradient: Tensor, eps: float, x: Tensor | None = None, length: float = 1.0) -> Tensor:
        return gradient.sign() / RED_COUNTS


@pytest.fixture
def coloured(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(NORMS, "coloured", Coloured())
    return "coloured"


def test_a_norm_of_ones_own_is_run_end_to_end(coloured: str, data: Data, tmp_path: Path) -> None:
    """Attacked to the optimum that a linear score has in it; recorded, read back and validated."""
    detector = Linear()
    frame = evaluate(detector, data, "pgd-coloured", ThreatModel(coloured, "2/255"), results=tmp_path)
    x = data.test.images(range(len(data.test)))
    sign = torch.tensor([1.0 - 2 * label for label in data.test.labels])
    w = sign.view(-1, 1, 1, 1) * detector.weight
    best = (x + 2 / 255 * w.sign() / RED_COUNTS).clamp(0, 1)
    expected = (w * (best - x)).flatten(1).sum(1)
    gained = sign.numpy() * (frame["worst"] - frame["clean"])
    assert gained.tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert frame["distance"].max() == pytest.approx(2 / 255, abs=1e-6)
    assert load_results(tmp_path)["norm"].unique().tolist() == ["coloured"]


def test_the_checks_and_the_control_meet_it_too(coloured: str, data: Data) -> None:
    frame = evaluate(Linear(), data, "pgd-coloured", ThreatModel(coloured, "8/255"))
    checks = {check["name"]: check for check in frame.attrs["run"]["checks"]}
    assert all(checks[name]["passed"] for name in ("budget", "noise", "steps", "unbounded", "black box"))
    assert "the best of 16 random perturbations" in checks["noise"]["sentence"]
    assert "no norm coloured" in checks["black box"]["sentence"]


def test_the_command_line_knows_it(coloured: str, run_cli: Callable[..., tuple[int, str, str]], tree: Path) -> None:
    place = ("--dataset", "folder", "--data-root", tree.parent, "--category", "widget", "--image-size", "16")
    code, _, err = run_cli("run", "--detector", "rae", *place, "--attack", "pgd-coloured", "--eps", "2")
    assert code == 2 and "--eps 2 is wider than the range; expected the change of a green value" in err


@pytest.mark.parametrize("name", ["pgd", "noise", "worst"])
def test_an_attack_that_knows_no_norm_by_name_has_them_all(name: str, coloured: str) -> None:
    assert list(registry.load("attacks", name).target.norms) == list(NORMS)


def test_an_attack_of_one_geometry_says_which(coloured: str) -> None:
    with pytest.raises(UserError, match="attack square has no norm coloured; it has linf, l2"):
        make_attack("square-coloured")


@pytest.mark.parametrize("norm", NORMS.values(), ids=lambda norm: norm.name)
def test_nothing_is_further_away_than_the_longest_change(norm: Norm) -> None:
    black = torch.zeros(1, 3, 4, 5)
    assert float(norm.distance((1 - black).double())) == pytest.approx(norm.longest((3, 4, 5)))
    assert "for example" in norm.expected and norm.objection(Fraction(1)) is None
