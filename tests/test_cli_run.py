"""`bench run` and `bench report`, end to end."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import Run, on_tree, one_line, read
from conftest import MEAN as PLUGIN
from PIL import Image

from bench.checks import of_detector as checks

pytestmark = pytest.mark.usefixtures("own_cache")


def cells(results: Path) -> list[Path]:
    return sorted(p.parent.relative_to(results) for p in results.rglob("run.json"))


def test_a_grid_runs_and_is_reported(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    options = on_tree(tree, results)
    grid = ("run", "--detector", plugin, "--attack", "pgd-linf,pgd-l2", "--eps", "1/255,2/255", *options)
    code, out, err = run_cli(*grid)
    assert code == 0, err
    assert [str(c) for c in cells(results)] == [
        "folder/widget/" + next(iter(p.name for p in (results / "folder/widget").iterdir())) + f"/pgd-{n}-{e}_255"
        for n in ("l2", "linf")
        for e in (1, 2)
    ]
    assert out.count("detector") == 1 and out.count("Mean") == 4  # one table, a row for each budget

    code, _, err = run_cli(*grid)
    assert code == 0 and err.count("already there") == 4

    code, out, _ = run_cli("report", "--results", results)
    assert code == 0
    board = (results / "LEADERBOARD.md").read_text()
    assert board.count("| Mean (") == 0 and board.count("| Mean |") == 5  # four budgets and the overview
    table = pd.read_csv(results / "leaderboard.csv")
    assert len(table) == 4 and (table.robust_auroc <= table.clean_auroc).all()
    assert (table.robust_auroc_low <= table.robust_auroc).all()
    for norm in ("linf", "l2"):
        with Image.open(results / f"robustness-folder-16-px-pgd-{norm}.png") as plot:
            assert plot.size == (960, 630)


def test_the_numbers_of_the_report_are_those_of_the_rows(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    from sklearn.metrics import roc_auc_score

    assert run_cli("run", "--detector", plugin, "--eps", "20/255", *on_tree(tree, results))[0] == 0
    assert run_cli("report", "--results", results)[0] == 0
    (samples,) = results.rglob("samples.csv")
    rows, row = pd.read_csv(samples), pd.read_csv(results / "leaderboard.csv").iloc[0]
    assert row.clean_auroc == roc_auc_score(rows.label, rows.clean)
    assert row.robust_auroc == roc_auc_score(rows.label, rows.worst)
    assert row.normal_only_auroc == roc_auc_score(rows.label, rows.worst.where(rows.label == 0, rows.clean))
    assert row.anomalous_only_auroc == roc_auc_score(rows.label, rows.worst.where(rows.label == 1, rows.clean))
    shown = re.search(r"\| Mean \| (\S+)<br><sub>\[", (results / "LEADERBOARD.md").read_text())
    assert shown is not None and float(shown.group(1)) == round(row.clean_auroc, 3)


def test_a_changed_plugin_is_noticed_said_and_refitted(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    command = ("run", "--detector", plugin, *on_tree(tree, results))
    assert run_cli(*command)[0] == 0
    before = next(results.rglob("samples.csv")).read_bytes()
    path = Path(plugin.partition(":")[0])
    path.write_text(PLUGIN.replace(".sum(1)", ".mean(1)"))
    code, _, err = run_cli(*command)
    assert code == 2 and "before the code of detector Mean changed" in one_line(err) and "--force" in err
    assert next(results.rglob("samples.csv")).read_bytes() == before
    code, _, err = run_cli(*command, "--force")
    assert code == 0 and "changed since it was last fitted" in " ".join(err.split())
    assert next(results.rglob("samples.csv")).read_bytes() != before


def test_a_run_shows_its_own_cells_and_reads_no_others(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    command = ("run", "--detector", plugin, *on_tree(tree, results))
    assert run_cli(*command, "--eps", "1/255")[0] == 0
    (cell,) = (p.parent for p in results.rglob("run.json"))
    twin = Path(shutil.copytree(cell, cell.with_name("twin")))
    (twin / "samples.csv").write_text((cell / "samples.csv").read_text().replace("5", "6"))
    record = read(twin / "run.json")
    digest = hashlib.sha256((twin / "samples.csv").read_bytes()).hexdigest()
    (twin / "run.json").write_text(json.dumps(record | {"samples_sha256": digest}))
    code, out, err = run_cli(*command, "--eps", "2/255")
    assert code == 0 and "2/255" in out and "1/255" not in out and "different rows" not in err
    assert "1 finished cell in" in out
    assert run_cli("report", "--results", results)[0] == 2


def test_one_failing_detector_does_not_stop_the_others(
    run_cli: Run, tree: Path, plugin: str, results: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        PLUGIN.replace("return (x - self.mean)", "raise RuntimeError('boom')\n        return (x - self.mean)").replace(
            "Mean", "Bad"
        )
    )
    code, out, err = run_cli("run", "--detector", f"{bad}:Bad,{plugin}", *on_tree(tree, results))
    assert code == 2
    assert "Bad failed in score: RuntimeError: boom (bad.py:" in err and "Traceback" not in err
    assert "Mean" in out and len([r for r in results.rglob("run.json") if read(r)["status"] == "finished"]) == 1


def test_one_reason_is_said_once(run_cli: Run, tree: Path, results: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(PLUGIN.replace("self.mean = ", "raise RuntimeError('boom'); self.mean = "))
    command = ("run", "--detector", f"{bad}:Mean", "--eps", "1/255,2/255,4/255", *on_tree(tree, results))
    code, _, err = run_cli(*command)
    assert code == 2 and "pgd linf 1/255 (and 2 more): detector Mean failed in fit: RuntimeError: boom" in one_line(err)


def test_listing(run_cli: Run) -> None:
    code, out, _ = run_cli("list", "detectors", "--json")
    rows = json.loads(out)
    assert code == 0 and {"advrad", "autoencoder", "patchcore"} <= {r["name"] for r in rows}
    found = {r["name"]: r for r in rows}
    assert found["diffpure"]["wraps"] and not found["patchcore"]["wraps"]
    assert found["patchcore"]["needs"] == "weights" and found["patchcore"]["differentiable"]
    assert "diffpure+..." in run_cli("list", "detectors")[1]
    for kind, name in (("attacks", "pgd"), ("datasets", "textures")):
        code, out, _ = run_cli("list", kind)
        assert code == 0 and name in out


def test_check_detector_exit_codes(run_cli: Run, plugin: str, tmp_path: Path) -> None:
    code, out, _ = run_cli("check-detector", plugin, "--image-size", 32)
    assert code == 0 and "FAIL" not in out and len(out.splitlines()) == 1 + len(checks.CHECKS)
    bad = tmp_path / "bad.py"
    bad.write_text(PLUGIN.replace("return (x", "return -(x"))
    code, out, _ = run_cli("check-detector", f"{bad}:Mean", "--image-size", 32)
    assert code == 1 and "FAIL  direction" in out and "pass  gradient" in out
    bad.write_text(PLUGIN.replace("self.mean = ", "1 / 0; self.mean = "))
    code, out, _ = run_cli("check-detector", f"{bad}:Mean")
    assert code == 1 and "FAIL  fit: detector Mean failed in fit: ZeroDivisionError" in out
    assert run_cli("check-detector", "nothing")[0] == 2
