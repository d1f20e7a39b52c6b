"""Attacks and data sets from files, and parameters that reach those that have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run, on_tree, one_line, read
from conftest import MEAN as PLUGIN

pytestmark = pytest.mark.usefixtures("own_cache")


ATTACK = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Noise:
    norms: ClassVar = ("linf", "l2")
    draws: int = 3

    def __call__(self, score, x, sign, threat, rng):
        best, value = x, sign * score(x, rng.child("score"))
        for i in range(self.draws):
            trial = threat.random_start(x, rng.child(i))
            found = sign * score(trial, rng.child("score"))
            best = best.where((value >= found)[:, None, None, None], trial)
            value = value.maximum(found)
        return best
"""

DATASET = """
import numpy as np
from bench import Data, Record, TestSet, TrainSet
from bench import ArraySource

IMAGE_SIZE = 16

def categories(root):
    return ("dots",)

def load(category, root, image_size):
    rng = np.random.RandomState(0)
    def record(name, label):
        pixels = rng.randint(0, 100 + 60 * label, (16, 16)).astype(np.uint8)
        return Record(name, ArraySource(pixels), label)
    train = [record(f"t{i}", 0) for i in range(30)]
    test = [record(f"{label}-{i}", label) for label in (0, 1) for i in range(6)]
    return Data("dots", category, image_size, TrainSet(train, image_size), TestSet(test, image_size))
"""


def test_attacks_and_data_sets_are_plugins_too(run_cli: Run, plugin: str, results: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.py").write_text(ATTACK)
    (tmp_path / "dots.py").write_text(DATASET)
    code, out, err = run_cli(
        "run", "--detector", plugin, "--attack", f"{tmp_path / 'noise.py'}:Noise-l2", "--eps", "0.5",
        "--dataset", tmp_path / "dots.py", "--attack-param", "draws=5", "--results", results,
    )  # fmt: skip
    assert code == 0, err
    (record,) = map(read, results.rglob("run.json"))
    assert record["spec"]["attack"] == "Noise" and record["attack"]["parameters"] == {"draws": 5}
    assert record["spec"]["dataset"] == "dots" and record["rows"] == 12
    assert "Noise (draws=5), l2 0.5" in out


def test_a_parameter_reaches_the_detectors_that_have_it(
    run_cli: Run, tree: Path, plugin: str, results: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.replace("power", "exponent").replace("Mean", "Other"))
    command = ("run", "--detector", f"{plugin},{other}:Other", *on_tree(tree, results))
    assert run_cli(*command, "--param", "power=3", "--param", "Other.exponent=4")[0] == 0
    found = {r["spec"]["detector"]: r["detector"]["parameters"] for r in map(read, results.rglob("run.json"))}
    assert found == {"Mean": {"power": 3}, "Other": {"exponent": 4}}
    for wrong, says in (
        ("powr=3", "Did you mean 'power'"),
        ("Neither.power=3", "no 'Neither' in this run, but Mean, Other"),
        ("power=big", "Mean.power=big"),
    ):
        code, _, err = run_cli(*command, "--param", wrong)
        assert code == 2 and says in one_line(err)


def test_a_parameter_reaches_the_attacks_that_have_it(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    command = ("run", "--detector", plugin, "--attack", "pgd-linf,square-linf,noise-linf", *on_tree(tree, results))
    given = ("--attack-param", "square.queries=7", "--attack-param", "steps=2", "--attack-param", "pgd.steps=3")
    code, _, err = run_cli(*command, *given)
    assert code == 0, err
    found = {r["spec"]["attack"]: r["spec"]["attack_parameters"] for r in map(read, results.rglob("run.json"))}
    assert found == {"pgd": {"steps": 3}, "square": {"queries": 7}, "noise": {}}
    for wrong, says in (
        ("qeries=7", "Did you mean 'queries'"),
        ("square.steps=7", "no parameter of pgd-linf, square-linf, noise-linf named 'square.steps'"),
        ("ddn.steps=7", "no 'ddn' in this run, but noise, pgd, square"),
        ("square.queries=many", "square.queries=many"),
    ):
        code, _, err = run_cli(*command, "--attack-param", wrong)
        assert code == 2 and says in one_line(err)
