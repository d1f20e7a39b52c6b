"""Purifiers and smoothing: what their papers say that they do, and the plot over their levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Half, Linear, small_data
from torch import Tensor
from torch.utils.data import DataLoader

from bench import Detector, Rng, evaluate
from bench.cells.reader import find_cells
from bench.plugins import registry
from bench.report.figures.purification import Purification
from bench.report.write import write_report

Run = Callable[..., tuple[int, str, str]]

TINY: dict[str, Any] = {
    "diffpure.steps": 3,
    "diffpure.batch_size": 4,
    "diffpure.reverse_steps": 2,
    "autoencoder.steps": 3,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def target(name: str) -> Any:
    return registry.load("detectors", name).target


def test_diffpure_with_the_true_noise_returns_the_image() -> None:
    """A network that knows the noise of x_k predicts the clean image exactly; both solvers then end near it."""
    x = 0.25 + 0.5 * torch.rand(2, 3, 8, 8)
    for solver, tolerance in (("ddpm", 1e-4), ("sde", 0.05)):
        purifier = target("diffpure")(Linear(), t=200, solver=solver, reverse_steps=200)

        def oracle(noised: Tensor, step: Tensor, alpha_bar: Tensor = purifier.alpha_bar) -> Tensor:
            signal = alpha_bar[step][:, None, None, None]
            return (noised - signal.sqrt() * (2 * x - 1)) / (1 - signal).sqrt()

        purifier.network.forward = oracle
        off = (purifier.purify(x, Rng(0, ["a", "b"])) - x).abs().max().item()
        assert off < tolerance, solver


@pytest.mark.parametrize(("t", "levels"), [(100, [100, 80, 60, 40, 20]), (3, [3, 2, 1])])
def test_diffpure_visits_evenly_spaced_steps(t: int, levels: list[int]) -> None:
    purifier, visited = target("diffpure")(Linear(), t=t, reverse_steps=5), []

    def network(noised: Tensor, step: Tensor) -> Tensor:
        visited.append(int(step[0]) + 1)
        return torch.zeros_like(noised)

    purifier.network.forward = network
    purifier.purify(torch.rand(1, 3, 8, 8))
    assert visited == levels


def test_checkpointed_gradients_equal_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("diffpure", "adp"):
        torch.manual_seed(0)
        purifier = target(name)(Linear(), steps=2, batch_size=2)
        purifier.fit(DataLoader(small_data(size=8).train, batch_size=8))
        purifier.eval().requires_grad_(False)
        gradients = []
        for checkpointed in (True, False):
            if not checkpointed:
                module = __import__(type(purifier).__module__, fromlist=["checkpoint"])
                monkeypatch.setattr(module, "checkpoint", lambda f, *a, **k: f(*a))
            x = torch.full((2, 3, 8, 8), 0.4, requires_grad=True)
            gradients.append(torch.autograd.grad(purifier.score(x, Rng(0, ["a", "b"])).sum(), x)[0])
        assert torch.allclose(gradients[0], gradients[1], atol=1e-6) and gradients[0].abs().max() > 0


def test_adp_steps_are_the_share_of_the_noise_that_the_paper_says() -> None:
    """For a Gaussian around a known image the score is linear: a step removes `rate` of the noise."""
    centre = torch.full((2, 3, 8, 8), 0.5)
    purifier = target("adp")(Linear(), sigma=0.05, rate=0.2, iterations=4)
    purifier.network.forward = lambda scaled, level: ((scaled + 1) / 2 - centre) / 0.05
    noised = (centre + 0.05 * Rng(0, ["a", "b"]).normal(centre)).clamp(0, 1)
    purified = purifier.purify(centre, Rng(0, ["a", "b"]))
    assert torch.allclose(purified - centre, (noised - centre) * 0.8**4, atol=1e-4)


def test_adp_takes_the_shortest_step_where_the_score_grows_along_itself() -> None:
    """There the formula of the step is negative, and its clip leaves 1e-5."""
    x = torch.full((1, 3, 8, 8), 0.6)
    purifier = target("adp")(Linear(), sigma=0.05)
    purifier.network.forward = lambda scaled, level: -10 * scaled  # the score points away from the middle
    moved, moving = purifier._move(x, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert torch.allclose(moved - x, torch.tensor(1e-5 * 10 * 0.2), atol=1e-6) and not moving.any()


def test_adp_stops_an_image_whose_step_is_short() -> None:
    centre = torch.full((1, 3, 8, 8), 0.5)
    purifier = target("adp")(Linear(), sigma=0.01, rate=0.05, iterations=9)
    purifier.network.forward = lambda scaled, level: ((scaled + 1) / 2 - centre) / 0.01
    noised = (centre + 0.01 * Rng(0, ["a"]).normal(centre)).clamp(0, 1)
    once = (noised - centre) * 0.95  # a step of 0.05 * 0.01 is shorter than the limit: it is the last
    assert torch.allclose(purifier.purify(centre, Rng(0, ["a"])) - centre, once, atol=1e-4)


def test_smoothed_is_the_median_of_noisy_scores(linear: Linear) -> None:
    smoothed = target("smoothed")(linear, sigma=0.3, n=7)
    x, source = torch.rand(2, 3, 8, 8), Rng(0, ["a", "b"])
    expected = torch.stack([linear.score(x + 0.3 * source.normal(x)) for _ in range(7)]).median(0).values
    assert torch.allclose(smoothed.score(x, Rng(0, ["a", "b"])), expected)
    with pytest.raises(ValueError, match="odd"):
        target("smoothed")(linear, n=4)


def test_purification_levels_are_plotted_with_the_plain_detector_as_level_0(tmp_path: Path) -> None:
    data, results = small_data(size=16), tmp_path / "results"
    common: dict[str, Any] = {"attack_params": {"steps": 1}, "results": results, "draws": 1}
    for t in (5, 50):
        evaluate("diffpure+autoencoder", data, "pgd-linf", params={**TINY, "t": t}, **common)
    evaluate("autoencoder", data, "pgd-linf", params={"steps": 3}, **common)
    evaluate("autoencoder", data, "pgd-linf", params={"steps": 2}, **common)
    found = find_cells(results).results
    (figure,) = Purification.of(found)
    assert figure.purified.parameter == "diffpure.t" and [level.value for level in figure.levels] == [0, 5, 50]
    bare = next(r for r in found if r.spec.detector_parameters == {"steps": 3})
    assert figure.levels[0].clean.value == bare.metrics["clean_auroc"].value
    written = write_report(results).written
    assert [p.name for p in written if p.name.startswith("purification-diffpure-autoencoder")]


@pytest.mark.parametrize("level", ["", "kind", "factor"])
def test_a_purifier_is_run_and_reported_whatever_its_level(level: str, tmp_path: Path) -> None:
    class Own(Half):
        def __init__(self, inner: Detector, *, factor: float = 0.5, kind: str = "plain"):
            super().__init__(inner, factor=factor)
            self.kind = kind

    Own.level = level
    for value in (0.5, 0.7):
        purified = Own(Linear(), factor=value)
        evaluate(purified, small_data(), results=tmp_path, attack_params={"steps": 1}, draws=1)
    written = [p.name for p in write_report(tmp_path).written]
    assert any(name.startswith("purification") for name in written) == (level == "factor")
