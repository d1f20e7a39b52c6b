"""A score that ranks worse than chance is said wherever its numbers are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Run, on_tree, read
from conftest import MEAN, made_record

from bench.cells.result import Result
from bench.cells.rows import Row, Table

SAYS = "higher must mean more anomalous; is the sign of the score turned round?"


def result(clean: np.ndarray, unranked: str = "") -> Result:
    """30 normal images, then 30 anomalous ones, with these scores."""
    rows = [Row(str(i), int(i >= 30), s, s, 0.0, s, {}) for i, s in enumerate(clean.tolist())]
    return Result(Path(), made_record(detector={"unranked": unranked}), Table.of(rows))


LABELS = np.arange(60) >= 30
APART = np.arange(60) / 60 + LABELS  # every anomalous image above every normal one
MIXED = np.concatenate([np.arange(0.0, 60, 2), np.arange(1.0, 61, 2)])  # of no order: about one half
BEHIND = np.concatenate([np.arange(30), np.arange(30) - 8.0])  # about a quarter


@pytest.mark.parametrize(
    ("clean", "said"),
    [
        (APART, ""),
        (-APART, f"clean AUROC 0.00: {SAYS}"),
        (BEHIND, SAYS),
        (MIXED, ""),
        (-MIXED, ""),
    ],
)
def test_worse_than_chance_is_said(clean: np.ndarray, said: str) -> None:
    found = result(clean)
    assert said in found.wrong_way and bool(said) is bool(found.wrong_way)
    assert found.warnings == [found.wrong_way] * bool(said)


def test_nothing_is_said_of_random_weights() -> None:
    assert result(-APART).wrong_way and not result(-APART, "random weights").wrong_way


@pytest.mark.usefixtures("own_cache")
def test_a_run_whose_score_is_turned_round_says_so(run_cli: Run, tree: Path, tmp_path: Path, results: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(MEAN.replace("return (x", "return -(x"), encoding="utf-8")
    command = ("run", "--detector", f"{plugin}:Mean", "--attack", "noise-linf", *on_tree(tree, results))
    for _ in range(2):  # once more, as a cell that is already there
        code, out, err = run_cli(*command)
        assert code == 0, err
        assert f"Mean on widget: clean AUROC 0.00: {SAYS}" in " ".join(out.split())
    (path,) = results.rglob("run.json")
    assert read(path)["warnings"][-1] == f"clean AUROC 0.00: {SAYS}"
    assert run_cli("report", "--results", results)[0] == 0
    for name in ("LEADERBOARD.md", "leaderboard.csv", "report/index.html"):
        assert SAYS in (results / name).read_text(encoding="utf-8"), name
