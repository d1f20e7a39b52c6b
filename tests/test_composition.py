"""Names like outer+inner: what may be composed, whose parameter is whose, and what a wrapper is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Half, Linear, NoisyLinear, small_data

from bench import Rng, UserError, evaluate
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec, split

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
