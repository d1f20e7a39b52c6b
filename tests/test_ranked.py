"""What a run refuses, what it shows and does not rank, and that one detector does not stop the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import make_tree, small_data

from bench import evaluate
from bench.analysis.boards import boards
from bench.analysis.table import table
from bench.cells.reader import find_cells
from bench.harness.asked import Asked
from bench.harness.evaluated import Evaluated
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec
from bench.report.leaderboard import markdown

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def target(name: str) -> Any:
    return registry.load("detectors", name).target


def test_checks_are_stored_with_every_run_and_shown(tmp_path: Path) -> None:
    results = tmp_path / "results"
    evaluate("autoencoder", small_data(size=16), "pgd-linf", params={"steps": 3}, results=results)
    record = json.loads(next(results.rglob("run.json")).read_text())
    assert {c["name"] for c in record["checks"]} >= {"gradient", "rows", "randomness", "state"}
    found, notes, *_ = find_cells(results)
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
    found, notes, *_ = find_cells(tmp_path / "r")
    (board,) = boards(found)
    assert [name.split()[0] for name, _ in board.entries] == ["Brightness", "Cut"]
    assert [line.rank for line in table(board)] == [1, None]
    assert "not ranked: Cut: gradient check failed: the gradient is not that of the score" in markdown(found, notes)


def test_random_weights_are_never_ranked(tmp_path: Path) -> None:
    toy = {**target("patchcore").toy_parameters, "neighbours": 1}
    evaluate("patchcore", small_data(size=32), params=toy, results=tmp_path, attack_params={"steps": 1})
    found, notes, *_ = find_cells(tmp_path)
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
    from bench.harness import evaluate as api

    asked, planned = [], api.planned

    def counted(candidate: DetectorSpec, *given: Any, **more: Any) -> Asked:
        class Counted(Asked):
            def run(self, *_: Any) -> Evaluated:
                asked.append(candidate.label)
                candidate.build()
                return cast(Evaluated, SimpleNamespace(attrs={"folder": str(tmp_path)}))

        return Counted(*planned(candidate, *given, **more))

    monkeypatch.setattr(api, "planned", counted)
    options = ["--in-process", "--category", "brick", "--device", "cpu", "--results", tmp_path / "r"]
    backbone = ["--param", "backbone=mobilenetv2_100", "--param", "weights=random"]
    code, _, err = run_cli("run", "--detector", "all,diffpure+autoencoder", *backbone, *options)
    rows = registry.listing("detectors")
    assert set(asked) == {r.name for r in rows if not r.wraps and "GPU" not in r.needs and "file" not in r.needs} | {
        "diffpure+autoencoder"
    }
    left, *errors = "".join(err.split("\n")).split("bench: ")
    assert all(r.name in left.replace(" ", "") for r in rows if "GPU" in r.needs)
    # reverse distillation mirrors its backbone, which it can do with ResNets only
    assert code == 2 and any(e.startswith("anomalib:reverse_distillation on brick") for e in errors)
