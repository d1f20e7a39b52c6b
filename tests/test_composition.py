"""Names like outer+inner: what may be composed, whose parameter is whose, and that every part is fitted once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Linear, NoisyLinear, make_tree, small_data
from torch import Tensor
from torch.utils.data import DataLoader

from bench import Detector, Purifier, Rng, UserError, evaluate, fit_or_load
from bench.analysis.boards import boards
from bench.analysis.table import table
from bench.cells.reader import find_cells
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec, split
from bench.report.figures.purification import Purification
from bench.report.leaderboard import markdown
from bench.report.write import write_report
from bench.system.cache import cache_folder

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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diffpure+adp+autoencoder", "diffpure cannot go before adp, both are purifiers; choose one"),
        ("adp+adp+autoencoder", "adp cannot go before adp"),
        ("smoothed+smoothed+autoencoder", "smoothed cannot go before smoothed"),
        ("diffpure", "diffpure goes before a detector: diffpure+patchcore"),
        (
            "autoencoder+patchcore",
            "autoencoder is a whole detector; before `+` goes one of adp, denoised, diffpure, smoothed",
        ),
        ("difpure+patchcore", "no detector named 'difpure'. Did you mean 'diffpure'?"),
        ("diffpure+pachcore", "no detector named 'pachcore'. Did you mean 'patchcore'?"),
        ("diffpure+", "expected outer+inner"),
    ],
)
def test_what_cannot_be_composed(name: str, message: str, run_cli: Run, tmp_path: Path) -> None:
    code, _, err = run_cli("run", "--detector", name, "--results", tmp_path / "results")
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("patchcore", ("patchcore", None)),
        ("smoothed+diffpure+patchcore", ("smoothed", "diffpure+patchcore")),
        ("my/own.py:Blur+my/other.py:PCA", ("my/own.py:Blur", "my/other.py:PCA")),
        ("diffpure+c++/own.py:PCA", ("diffpure", "c++/own.py:PCA")),
        ("c++/own.py:Blur+patchcore", ("c++/own.py:Blur", "patchcore")),
        ("/x.python/c++/own.py:PCA", ("/x.python/c++/own.py:PCA", None)),
        ("smoothed+/abs/mine.py:Mine", ("smoothed", "/abs/mine.py:Mine")),
        ("mine+/folder/mine.py:Mine", ("mine+/folder/mine.py:Mine", None)),
    ],
)
def test_where_a_name_is_split(name: str, parts: tuple[str, str | None]) -> None:
    assert split(name) == parts
    if parts[1] is not None and "+" not in parts[1].replace("c++", ""):
        assert split(parts[1]) == (parts[1], None)


def test_a_smoothed_purified_detector_is_one() -> None:
    candidate = DetectorSpec("smoothed+diffpure+autoencoder")
    assert candidate.label == "smoothed+diffpure+autoencoder"
    assert candidate.build().randomized


def test_a_parameter_belongs_to_its_part() -> None:
    candidate = DetectorSpec("diffpure+autoencoder", {"diffpure.steps": 3, "steps": 7, "t": "40"})
    assert candidate.values == {"diffpure": {"steps": 3, "t": 40}, "autoencoder": {"steps": 7}}
    assert candidate.changed == {"diffpure.steps": 3, "diffpure.t": 40, "autoencoder.steps": 7}
    with pytest.raises(UserError, match="parameter of diffpure.autoencoder named 'autoencoder.t'"):
        _ = DetectorSpec("diffpure+autoencoder", {"autoencoder.t": 3}).values


def test_every_part_is_fitted_once_and_shared() -> None:
    data = small_data(size=16)

    def fits() -> set[str]:
        return {p.parent.name for p in cache_folder().rglob("fit.json")}

    alone = fit_or_load("autoencoder", data, steps=3)
    first = fits()
    purified = fit_or_load("diffpure+autoencoder", data, **TINY)
    second = fits()
    assert first < second and len(second) == 2
    fit_or_load("diffpure+autoencoder", data, **TINY, t=30, solver="sde")  # these only change the score
    fit_or_load("smoothed+diffpure+autoencoder", data, **TINY)
    assert fits() == second
    assert purified.origin is not None and purified.origin.fit is not None
    assert set(purified.origin.fit["parts"]) == {"diffpure", "autoencoder"}
    assert purified.origin.parameters["autoencoder.steps"] == 3 and purified.origin.parameters["diffpure.t"] == 100
    for name, value in alone.state_dict().items():
        assert torch.equal(value, purified.state_dict()[f"inner.{name}"])


PURIFIER = '''
import bench

class Blur(bench.Purifier):
    """Averages each pixel with its neighbours."""

    level = "side"

    def __init__(self, inner: bench.Detector, *, side: int = 3):
        super().__init__(inner)
        self.side = side

    def purify(self, x, rng=None):
        import torch
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return torch.nn.functional.avg_pool2d(x + 0.01 * noise, self.side, 1, self.side // 2)
'''


def test_a_purifier_from_a_file_keeps_the_contract(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PURIFIER)
    code, out, _ = run_cli("check-detector", f"{tmp_path / 'own.py'}:Blur+autoencoder", "--param", "Blur.side=3")
    assert code == 0 and "FAIL" not in out and "all 1 parameters can be recorded" in out


class Half(Purifier):
    """Halves every image, and counts its draws."""

    level = "factor"

    def __init__(self, inner: Detector, *, factor: float = 0.5):
        super().__init__(inner)
        self.factor = factor

    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.factor * x


def test_a_purified_score_is_the_inner_score_of_the_purified_image(linear: Linear) -> None:
    x = torch.rand(3, 3, 8, 8)
    assert torch.allclose(Half(linear).score(x), linear.score(0.5 * x))
    noisy = NoisyLinear()
    purified = Half(noisy)
    purified.runs = 2
    source, again = Rng(0, ["a", "b", "c"]), Rng(0, ["a", "b", "c"])
    expected = (noisy.score(0.5 * x, again) + noisy.score(0.5 * x, again)) / 2
    assert torch.allclose(purified.score(x, source), expected)


def test_a_wrapper_that_the_caller_built_is_recorded_with_its_inner_detector() -> None:
    frame = evaluate(Half(Linear(seed=3), factor=0.25), small_data(), attack_params={"steps": 1}, draws=1)
    record = frame.attrs["run"]
    assert record["spec"]["detector"] == "Half+Linear"
    assert record["detector"]["parameters"] == {"Half.factor": 0.25, "Linear.seed": 3}
    assert record["detector"]["purification"] == {"parameter": "Half.factor", "value": 0.25, "inner": "Linear"}


def test_fitting_the_outer_part_leaves_the_inner_one_in_eval_mode(linear: Linear) -> None:
    assert not Half(linear.eval()).train().inner.training


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


def test_checks_are_stored_with_every_run_and_shown(tmp_path: Path) -> None:
    results = tmp_path / "results"
    evaluate("autoencoder", small_data(size=16), "pgd-linf", params={"steps": 3}, results=results)
    record = json.loads(next(results.rglob("run.json")).read_text())
    assert {c["name"] for c in record["checks"]} >= {"gradient", "rows", "randomness", "state"}
    found, notes, _ = find_cells(results)
    assert all(c["sentence"] in markdown(found, notes) for c in record["checks"])


CUT = '''
import torch
from bench import Detector

class Cut(Detector):
    """Half of its gradient is missing."""

    def fit(self, normal):
        pass

    def score(self, x):
        return (x - x.detach().roll(1, 3) ** 2).square().flatten(1).sum(1)
'''


WHOLE = '''
from bench import Detector

class Brightness(Detector):
    """The mean of an image: every check passes."""

    def fit(self, normal):
        pass

    def score(self, x):
        return x.flatten(1).mean(1)
'''


def test_a_detector_that_fails_a_check_is_not_ranked(run_cli: Run, tmp_path: Path) -> None:
    make_tree(tmp_path / "images/widget")
    (tmp_path / "cut.py").write_text(CUT)
    (tmp_path / "whole.py").write_text(WHOLE)
    options = [
        "--dataset",
        "folder",
        "--data-root",
        tmp_path / "images",
        "--image-size",
        16,
        "--results",
        tmp_path / "r",
    ]
    code, out, _ = run_cli(
        "run", "--detector", f"{tmp_path / 'cut.py'}:Cut,{tmp_path / 'whole.py'}:Brightness", *options
    )
    assert code == 0 and "(1) not ranked: gradient check failed" in out and "Cut (1)" in out
    found, notes, _ = find_cells(tmp_path / "r")
    (board,) = boards(found)
    assert [name.split()[0] for name, _ in board.entries] == ["Brightness", "Cut"]
    assert [line.rank for line in table(board)] == [1, None]
    assert "not ranked: Cut: gradient check failed: the gradient is not that of the score" in markdown(found, notes)


def test_random_weights_are_never_ranked(tmp_path: Path) -> None:
    toy = {**target("patchcore").toy_parameters, "neighbours": 1}
    evaluate("patchcore", small_data(size=32), params=toy, results=tmp_path, attack_params={"steps": 1})
    found, notes, _ = find_cells(tmp_path)
    assert found[0].unranked == ["random weights"]
    assert "random weights" in markdown(found, notes)


BLIND = '''
import torch
from bench import Detector

class Blind(Detector):
    """Rounds, and says so."""

    differentiable = False

    def fit(self, normal):
        raise AssertionError("must not be fitted for an attack that cannot work")

    def score(self, x):
        return (x * 255).round().flatten(1).sum(1)
'''


def test_a_gradient_attack_on_a_detector_without_gradient_is_refused(run_cli: Run, tmp_path: Path) -> None:
    make_tree(tmp_path / "images/widget")
    (tmp_path / "blind.py").write_text(BLIND)
    code, _, err = run_cli(
        "run", "--detector", f"{tmp_path / 'blind.py'}:Blind", "--dataset", "folder", "--image-size", 16,
        "--data-root", tmp_path / "images", "--results", tmp_path / "results",
    )  # fmt: skip
    assert code == 2 and len(err.splitlines()) == 1
    assert "Blind is not differentiable and pgd follows the gradient; attacks that fit:" in err


def test_too_few_training_images(run_cli: Run, tmp_path: Path) -> None:
    make_tree(tmp_path / "images/widget")
    (tmp_path / "blind.py").write_text(BLIND.replace("differentiable = False", "minimum_images = 50"))
    code, _, err = run_cli(
        "run", "--detector", f"{tmp_path / 'blind.py'}:Blind", "--dataset", "folder", "--image-size", 16,
        "--data-root", tmp_path / "images", "--results", tmp_path / "results",
    )  # fmt: skip
    assert code == 2 and len(err.splitlines()) == 1
    assert "Blind learns from at least 50 normal images; folder/widget has 12, of which" in err


def test_one_failing_detector_does_not_stop_the_others(run_cli: Run, tmp_path: Path) -> None:
    make_tree(tmp_path / "images/widget")
    (tmp_path / "blind.py").write_text(BLIND)
    code, out, err = run_cli(
        "run", "--detector", f"{tmp_path / 'blind.py'}:Blind,autoencoder", "--dataset", "folder", "--image-size", 16,
        "--data-root", tmp_path / "images", "--results", tmp_path / "results", "--param", "steps=3",
    )  # fmt: skip
    assert code == 2 and "Blind on widget" in err
    assert "autoencoder" in out and len(find_cells(tmp_path / "results")[0]) == 1


def test_all_is_every_whole_detector(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted here: each cell is only counted, and one detector cannot be built."""
    asked = []

    def evaluate_none(candidate: DetectorSpec, *_: Any, **__: Any) -> pd.DataFrame:
        asked.append(candidate.label)
        candidate.build()
        rows = pd.DataFrame()
        rows.attrs["folder"] = str(tmp_path)
        return rows

    from bench.harness import evaluate as api

    monkeypatch.setattr(api, "evaluate", evaluate_none)
    options = ["--category", "brick", "--device", "cpu", "--results", tmp_path / "r"]
    backbone = ["--param", "backbone=mobilenetv2_100", "--param", "weights=random"]
    code, _, err = run_cli("run", "--detector", "all,diffpure+autoencoder", *backbone, *options)
    rows = registry.listing("detectors")
    assert set(asked) == {r.name for r in rows if not r.wraps and "GPU" not in r.needs} | {"diffpure+autoencoder"}
    left, *errors = "".join(err.split("\n")).split("bench: ")
    assert all(r.name in left.replace(" ", "") for r in rows if "GPU" in r.needs)
    # reverse distillation mirrors its backbone, which it can do with ResNets only
    assert code == 2 and any(e.startswith("anomalib:reverse_distillation on brick") for e in errors)
