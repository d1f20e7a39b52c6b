"""Folders whose test images are all normal: false alarms are measured, and nothing that needs an anomalous image is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import on_tree, read
from conftest import MEAN, Linear, make_tree, shared, small_data
from made_up import moved, unpacked
from stored_cells import change_rows, failed, verifier

import bench
from bench import Data, TestSet, UserError, evaluate, load_data, shift
from bench.analysis.boards import boards
from bench.analysis.compare import over_data_sets
from bench.analysis.overview import overviews
from bench.cells.result import Result

Run = Callable[..., tuple[int, str, str]]
SENTENCE = "all 6 test images are normal: false alarms are measured"


def without_defects(root: Path) -> Path:
    """Of a category, nothing but the normal images."""
    for name in ("test/dent", "ground_truth"):
        shutil.rmtree(root / name)
    return root


def normal_images(data: Data) -> Data:
    records = [record for record in data.test.records if not record.label]
    return Data(data.name, data.category, data.image_size, data.train, TestSet(records, data.image_size))


@pytest.fixture
def ran(tmp_path: Path, run_cli: Run) -> Path:
    """Mean, attacked on six normal images."""
    without_defects(make_tree(tmp_path / "images/widget", train=24))
    (tmp_path / "mine.py").write_text(MEAN)
    code, out, err = run_cli(*attack(tmp_path))
    assert code == 0 and SENTENCE in " ".join(out.split()) and "False alarms" in out, (out, err)
    return tmp_path


def attack(folder: Path, *more: object, category: str = "widget", eps: str = "4/255") -> tuple[object, ...]:
    given = on_tree(folder / f"images/{category}", folder / "results")
    steps = ("--attack", "pgd-linf", "--attack-param", "steps=3")
    return ("run", "--detector", f"{folder}/mine.py:Mean", *steps, "--eps", eps, *given, *more)


def cell_in(folder: Path) -> Path:
    (found,) = (folder / "results").rglob("pgd-linf-4_255*")
    return found


def test_what_is_measured_and_what_is_absent(ran: Path) -> None:
    record = read(cell_in(ran) / "run.json")
    rows = bench.load_results(ran / "results")
    (r,) = bench.read_results(ran / "results").results
    threshold = record["threshold"]["value"]
    table = r.table.columns
    for when, column in (("clean", "clean"), ("robust", "worst")):
        assert record["metrics"][f"{when}_false_alarms"] == np.mean(table[column] > threshold)
    assert not [name for name in record["metrics"] if "auroc" in name or "_ap" in name or "fpr95" in name]
    assert not [name for name in record["metrics"] if "anomalous" in name or "accuracy" in name]
    assert sum(SENTENCE in warning for warning in record["warnings"]) == 1
    assert not [check for check in record["checks"] if not check["passed"]] and "nan" not in json.dumps(record)
    assert rows["robust_false_alarms"].tolist() == [record["metrics"]["robust_false_alarms"]]


def test_report_page_and_plots(ran: Path, run_cli: Run) -> None:
    make_tree(ran / "images/gadget", train=24)  # with defects: on a board of its own
    assert run_cli(*attack(ran, category="gadget"))[0] == 0
    code, out, err = run_cli("report", "--results", ran / "results")
    assert code == 0 and "false alarms" in out, (out, err)
    board = (ran / "results/LEADERBOARD.md").read_text(encoding="utf-8")
    assert board.count("### ") == 2 and "normal images alone" in board and SENTENCE in board
    page = (ran / "results/report/index.html").read_text(encoding="utf-8")
    assert "normal images alone" in page and "AUROC, AP and FPR95 need anomalous images" in page
    assert len(unpacked(page)["rows"]) == 1 and len(unpacked(page)["cells"]) == 2
    found = bench.read_results(ran / "results")
    assert "false alarms" in repr(found) and "6 images, robust false alarms" in repr(found.results[1])
    assert len(overviews(found.results)) == 1 and overviews(found.results)[0].categories == ("gadget",)


def test_verify_and_check_run(ran: Path, run_cli: Run) -> None:
    verify = verifier(run_cli, ran)
    code, found = verify(cell_in(ran))
    assert code == 0 and not failed(found) and found["metrics"] == "pass 3 metrics follow from the rows"
    options = ("--data-root", ran / "images/widget", "--detector", f"{ran}/mine.py:Mean")
    code, out, err = run_cli("check-run", cell_in(ran), *options)
    assert code == 0 and "6 clean scores, scored again" in out and "AUROC" not in out and "FAIL" not in out, (out, err)
    change_rows(cell_in(ran), lambda rows: [row.update(worst="-9") for row in rows])
    assert "budget" in failed(verify(cell_in(ran))[1])


def test_a_submission_is_reproduced(ran: Path, run_cli: Run) -> None:
    zipped = ran / "theirs.zip"
    code, out, err = run_cli("submit", ran / "results", "--out", zipped)
    assert code == 0, (out, err)
    options = ("--data-root", ran / "images/widget", "--detector", f"{ran}/mine.py:Mean", "--rerun", "--seed", "1")
    code, out, err = run_cli("verify", zipped, *options)
    assert code == 0 and "accuracy falls by 0.000" in out and "FAIL" not in out, (out, err)
    code, out, err = run_cli("verify", zipped, *options, "--refit")
    assert code == 0 and "FAIL" not in out, (out, err)


def test_both_classes_as_targets_are_the_normal_ones() -> None:
    data = normal_images(small_data(12, 11))
    both, normal = (
        evaluate(Linear(), data, "pgd-linf", bench.ThreatModel("linf", "4/255", targets))
        for targets in ("both", "normal")
    )
    assert both.equals(normal) and both.metrics == normal.metrics
    with pytest.raises(UserError, match="--targets anomalous needs anomalous test images, and .* has none"):
        evaluate(Linear(), data, "pgd-linf", bench.ThreatModel("linf", "4/255", "anomalous"))
    with pytest.raises(UserError, match="--goal map needs anomalous test images"):
        evaluate(Linear(), data, "pgd-linf", goal="map")


@pytest.mark.parametrize(
    ("attack", "settings"),
    [("standard-linf", {"transfer": False, "steps": 10, "queries": 50}), ("fab-linf", {}), ("ddn-l2", {})],
)
@pytest.mark.parametrize("goal", ["rank", "threshold"])
def test_attacks_of_every_kind_count_false_alarms(attack: str, settings: dict[str, Any], goal: str) -> None:
    data = normal_images(small_data(12, 11))
    found = evaluate(Linear(), data, attack, eps="8/255", attack_params=settings, goal=goal, in_process=True)
    threshold = found.attrs["run"]["threshold"]["value"]
    assert found.metrics["robust_false_alarms"] == (found["worst"] > threshold).mean()
    checks = {check["name"]: check for check in found.attrs["run"]["checks"]}
    assert "nan" not in str(checks)


def test_shifts_and_certificates(tmp_path: Path, run_cli: Run) -> None:
    data = normal_images(small_data(12, 11))
    found = shift(Linear(), data, ["exposure", "gamma"], [1, 4])
    assert {"clean_false_alarms", "shifted_false_alarms", "gamma_4_false_alarms"} <= set(found.metrics)
    assert not [name for name in found.metrics if "auroc" in name or "misses" in name]
    without_defects(make_tree(tmp_path / "images/widget", train=24))
    (tmp_path / "mine.py").write_text(MEAN)
    given = on_tree(tmp_path / "images/widget", tmp_path / "results")
    smooth = ("--sigma", "0.1", "--radius", "0.05", "--samples", "60", "--alpha", "0.1", "--goal")
    for goal in ("rank", "threshold"):
        code, out, err = run_cli("certify", "--detector", f"{tmp_path}/mine.py:Mean", *smooth, goal, *given)
        assert code == 0, (out, err)
    code, out, err = run_cli("report", "--results", tmp_path / "results")
    assert code == 0 and "certified" in out, (out, err)
    for r in bench.read_results(tmp_path / "results").results:
        assert 0 <= r.metrics["certified_false_alarms"].value <= 1 and not r.record.failed
        options = ("--data-root", tmp_path / "images/widget", "--detector", f"{tmp_path}/mine.py:Mean")
        code, out, err = run_cli("check-run", r.folder, *options)
        assert code == 0 and "nan" not in out, (out, err)


def alone(name: str, category: str = "one", **changes: Any) -> Result:
    """A made-up cell of 30 normal images."""
    found = moved(name, category, **changes)
    columns = {key: values[:30] for key, values in found.table.columns.items()}
    table = found.table._replace(ids=found.table.ids[:30], anomalous=np.zeros(30, bool), columns=columns)
    return Result(found.folder, found.record, table)


def test_fewer_false_alarms_rank_first() -> None:
    few, many = alone("few"), alone("many")
    many.table.columns["worst"] += 5
    (board,) = boards([many, few])
    assert [name for name, _ in board.entries] == ["few", "many"] and board.ranks == {"few": 1, "many": 2}
    apart = boards([few, moved("few", "two")])
    assert [board.normal_only for board in apart] == [False, True]


def test_over_data_sets_fewer_false_alarms_are_better() -> None:
    cells = [alone(name, f"c{i}") for name in ("few", "many") for i in range(6)]
    for r in cells[6:]:
        r.table.columns["worst"] += 5
    ranks = over_data_sets(["few", "many"], cells)
    assert ranks is not None and ranks.ranks == {"few": 1.0, "many": 2.0}


def test_what_may_be_a_mistake_is_refused(tmp_path: Path) -> None:
    for name, gone in (("a", "test/dent"), ("b", "test/good")):
        tree = make_tree(tmp_path / name)
        for file in (tree / gone).iterdir():
            file.unlink()
    with pytest.raises(UserError, match="dent holds no image; put its images there, or remove the folder if all"):
        load_data("folder", root=tmp_path / "a", image_size=16)
    with pytest.raises(UserError, match="no normal test image, so false alarms cannot be seen"):
        load_data("folder", root=tmp_path / "b", image_size=16)
    shutil.rmtree(tmp_path / "b/test/good")  # a folder of normal images under another name would count as defects
    with pytest.raises(UserError, match="no folder of normal images"):
        load_data("folder", root=tmp_path / "b", image_size=16)
    whole = without_defects(make_tree(tmp_path / "mvtec/bottle"))
    with pytest.raises(UserError, match="mvtec/bottle has no anomalous test image, and as published it has some"):
        load_data("mvtec", category="bottle", root=whole.parent, image_size=16)


@pytest.mark.parametrize("limit", [2, 4, 6, 9])
@pytest.mark.parametrize("protocol", [1, 2])
def test_a_limit_leaves_so_many(limit: int, protocol: Any) -> None:
    data = normal_images(small_data(6, 2))
    assert len(data.limited(limit, protocol).test) == min(limit, 6)


def test_real_normal_images(tmp_path: Path) -> None:
    root = shared("data", "mvtec_toothbrush")
    shutil.copytree(root / "train", tmp_path / "brush/train")
    shutil.copytree(root / "test/good", tmp_path / "brush/test/good")
    data = load_data("folder", root=tmp_path / "brush", image_size=32)
    found = evaluate("nearest-patch", data, "pgd-linf", eps="8/255", attack_params={"steps": 5}, in_process=True)
    metrics, run = found.metrics, found.attrs["run"]
    assert metrics["clean_false_alarms"] <= metrics["robust_false_alarms"] and not run["data"]["anomalous"]
