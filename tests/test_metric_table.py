"""METRICS: a metric is one entry, and everything that shows metrics has it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Linear, made_record, small_data

import bench
from bench import evaluate
from bench.analysis.boards import boards
from bench.analysis.reported import published_metrics
from bench.analysis.table import table
from bench.audit.rebuild import Overrides
from bench.audit.verify import verify
from bench.cells.measures import Measure, Scored
from bench.cells.metrics import METRICS, PART, Metric, better, by_column
from bench.cells.reader import read_results
from bench.cells.result import Result
from bench.cells.rows import Table
from bench.report.leaderboard import markdown
from bench.stats.measured import Measured
from bench.stats.metrics import accuracy


def moved(cell: Scored, column: str) -> Measured:
    """Share of images whose score the attack moved."""
    scores = cell.needed(column) != cell.needed("clean")
    return accuracy(np.where(cell.anomalous, scores, ~scores), cell.anomalous, 0.5)


TOY = Metric(
    "robust_moved", "share moved", Measure(moved, better=-1), "worst", "share of images that were moved", kind="attack"
)


def status(folder: Path) -> str:
    """What `bench verify` says of the metrics."""
    return next(str(line) for line in verify(folder, Overrides(), scores=False) if line.name == "metrics")


def test_a_metric_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(Linear(), small_data(), results=tmp_path / "before")
    monkeypatch.setitem(METRICS, TOY.name, TOY)
    evaluate(Linear(), small_data(), results=tmp_path / "after")
    before, after = (next(tmp_path.rglob(f"{name}/**/run.json")).parent for name in ("before", "after"))
    assert json.loads((after / "run.json").read_text(encoding="utf-8"))["metrics"][TOY.name] == 1
    assert status(after).startswith("pass ")
    assert status(before).startswith("note ") and status(before).endswith(f"finished: {TOY.name}")
    assert bench.load_results(tmp_path / "before")[f"{TOY.name}_high"].tolist() == [1]
    found = read_results(tmp_path / "before").results
    (board,) = boards(found)
    assert table(board)[0].values[TOY.title].text == "1.000" and TOY.title in markdown(found, [])
    assert better(TOY.name) == -1 and TOY.name in published_metrics()
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "docs"))
    generate = importlib.import_module("generate")
    (text,) = (text for path, text in generate.documents().items() if path.name == "results.md")
    assert f"| `{TOY.name}` | 0 to 1, less is better | {TOY.meaning} |" in text


def test_entries_agree_with_their_names() -> None:
    assert all(name == metric.name for name, metric in METRICS.items())
    for kind in ("attack", "certificate", "localisation", "shift"):
        titles = [metric.title for metric in METRICS.values() if metric._is_of(kind)]
        assert len(set(titles)) == len(titles)  # on one board
    assert {name for name in METRICS if better(name) < 0} == {
        name for name in METRICS if name.endswith(("fpr95", "noise", "background_fpr", "false_alarms", "misses"))
    }
    assert better("apgd_auroc") == better("") == 1  # of the parts of an attack
    assert [metric.name for metric in by_column()][:4] == ["clean_auroc", "clean_ap", "clean_fpr95", "clean_accuracy"]


def test_parts_have_a_metric_each() -> None:
    scores = np.arange(60.0)
    table_ = Table(
        tuple(map(str, range(60))), scores >= 30, dict.fromkeys(("clean", "worst", "rounded", "apgd"), scores)
    )
    found = Result(Path("cell"), made_record(attack={"parts": ["apgd"]}), table_).metrics
    assert found["apgd_auroc"].value == 1 and not any(PART in name for name in found)


@pytest.mark.parametrize(
    ("spec", "kind", "has", "lacks"),
    [
        ({}, "attack", "robust_auroc robust_normal_right normal_only_auroc", "certified_auroc median_radius_normal"),
        ({"targets": "normal"}, "attack", "robust_auroc normal_only_accuracy", "anomalous_only_auroc"),
        ({"goal": "threshold"}, "attack", "clean_auroc robust_accuracy normal_only_accuracy", "robust_auroc robust_ap"),
        ({}, "certificate", "clean_ap certified_fpr95 anomalous_only_auroc", "robust_auroc rounded_auroc"),
        ({"goal": "threshold"}, "certificate", "certified_accuracy", "clean_auroc clean_accuracy normal_only_accuracy"),
    ],
)
def test_a_cell_has_what_its_rows_can_say(spec: dict[str, str], kind: str, has: str, lacks: str) -> None:
    scores = np.arange(60.0)
    columns = dict.fromkeys(("clean", "worst", "rounded", "low_0", "high_0"), scores)
    cell = Table(tuple(map(str, range(60))), scores >= 30, columns)
    found = set(Result(Path("cell"), made_record(kind=kind, spec=spec), cell).metrics)
    assert set(has.split()) <= found and not set(lacks.split()) & found
