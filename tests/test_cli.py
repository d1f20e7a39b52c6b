"""The command line, end to end, and every error in one line with exit code 2."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import MEAN as PLUGIN
from conftest import make_tree
from PIL import Image

from bench.checks import of_detector as checks

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plug-in on the same images would otherwise be found fitted by another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return f"{path}:Mean"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def run_options(tree: Path, results: Path) -> tuple[object, ...]:
    return ("--dataset", "folder", "--data-root", tree, "--image-size", 16, "--results", results)


def cells(results: Path) -> list[Path]:
    return sorted(p.parent.relative_to(results) for p in results.rglob("run.json"))


def test_a_grid_runs_and_is_reported(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    options = run_options(tree, results)
    grid = ("run", "--detector", plugin, "--attack", "pgd-linf,pgd-l2", "--eps", "1/255,2/255", *options)
    code, out, err = run_cli(*grid)
    assert code == 0, err
    assert [str(c) for c in cells(results)] == [
        "folder/widget/" + next(iter(p.name for p in (results / "folder/widget").iterdir())) + f"/pgd-{n}-{e}_255"
        for n in ("l2", "linf")
        for e in (1, 2)
    ]
    assert "Mean" in out and "pgd, linf 2/255" in out

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

    assert run_cli("run", "--detector", plugin, "--eps", "20/255", *run_options(tree, results))[0] == 0
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
    command = ("run", "--detector", plugin, *run_options(tree, results))
    assert run_cli(*command)[0] == 0
    before = next(results.rglob("samples.csv")).read_bytes()
    path = Path(plugin.partition(":")[0])
    path.write_text(PLUGIN.replace(".sum(1)", ".mean(1)"))
    code, _, err = run_cli(*command)
    assert code == 2 and "before the code of detector Mean changed; --force" in one_line(err)
    assert next(results.rglob("samples.csv")).read_bytes() == before
    code, _, err = run_cli(*command, "--force")
    assert code == 0 and "changed since it was last fitted" in " ".join(err.split())
    assert next(results.rglob("samples.csv")).read_bytes() != before


def test_what_lies_beside_a_new_result_does_not_make_the_run_fail(
    run_cli: Run, tree: Path, plugin: str, results: Path
) -> None:
    command = ("run", "--detector", plugin, *run_options(tree, results))
    assert run_cli(*command, "--eps", "1/255")[0] == 0
    (cell,) = (p.parent for p in results.rglob("run.json"))
    twin = Path(shutil.copytree(cell, cell.with_name("twin")))
    (twin / "samples.csv").write_text((cell / "samples.csv").read_text().replace("5", "6"))
    record = read(twin / "run.json")
    digest = hashlib.sha256((twin / "samples.csv").read_bytes()).hexdigest()
    (twin / "run.json").write_text(json.dumps(record | {"samples_sha256": digest}))
    code, _, err = run_cli(*command, "--eps", "2/255")
    assert code == 0 and "with different rows" in err
    assert run_cli("report", "--results", results)[0] == 2


def test_a_parameter_reaches_the_detectors_that_have_it(
    run_cli: Run, tree: Path, plugin: str, results: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.replace("power", "exponent").replace("Mean", "Other"))
    command = ("run", "--detector", f"{plugin},{other}:Other", *run_options(tree, results))
    assert run_cli(*command, "--param", "power=3", "--param", "Other.exponent=4")[0] == 0
    found = {r["spec"]["detector"]: r["detector"]["parameters"] for r in map(read, results.rglob("run.json"))}
    assert found == {"Mean": {"power": 3}, "Other": {"exponent": 4}}
    for wrong, says in (
        ("powr=3", "Did you mean 'power'"),
        ("Neither.power=3", "no detector 'Neither'"),
        ("power=big", "Mean.power=big"),
    ):
        code, _, err = run_cli(*command, "--param", wrong)
        assert code == 2 and says in one_line(err)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_one_failing_detector_does_not_stop_the_others(
    run_cli: Run, tree: Path, plugin: str, results: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        PLUGIN.replace("return (x - self.mean)", "raise RuntimeError('boom')\n        return (x - self.mean)").replace(
            "Mean", "Bad"
        )
    )
    code, out, err = run_cli("run", "--detector", f"{bad}:Bad,{plugin}", *run_options(tree, results))
    assert code == 2
    assert "Bad failed in score: RuntimeError: boom (bad.py:" in err and "Traceback" not in err
    assert "Mean" in out and len([r for r in results.rglob("run.json") if read(r)["status"] == "finished"]) == 1


def test_one_reason_is_said_once(run_cli: Run, tree: Path, results: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(PLUGIN.replace("self.mean = ", "raise RuntimeError('boom'); self.mean = "))
    command = ("run", "--detector", f"{bad}:Mean", "--eps", "1/255,2/255,4/255", *run_options(tree, results))
    code, _, err = run_cli(*command)
    assert code == 2 and "pgd linf 1/255 (and 2 more): detector Mean failed in fit: RuntimeError: boom" in one_line(err)


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


# Bad input: one line, exit code 2, no traceback


def one_line(err: str) -> str:
    """The error, which must be the only line that starts with `bench:` and hold no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("bench:")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--detector", "advrat"), "Did you mean 'advrad'"),
        (("--attack", "pdg-linf"), "Did you mean 'pgd-linf'"),
        (("--attack", "pgd-l3"), "no attack named 'pgd-l3'"),
        (("--dataset", "foldr"), "Did you mean 'folder'"),
        (("--category", "wigdet"), "Did you mean 'widget'"),
        (("--eps", "-2/255"), "must be above 0"),
        (("--eps", "0"), "must be above 0"),
        (("--eps", "small"), "is not a number"),
        (("--eps", "nan"), "is not a number"),
        (("--eps", "2"), "did you mean 2/255?"),
        (("--eps", "1/255,,2/255"), "has an empty name"),
        (("--attack", "pgd-l2", "--eps", "1000"), "longer than any change"),
        (("--attack", "pgd-l1", "--eps", "1000"), "longer than any change"),
        (("--attack", "pgd-l0", "--eps", "1000"), "eps counts pixels"),
        (("--attack", "pgd-l0"), "expected a whole number of pixels"),
        (("--targets", "none"), "expected one of both, normal, anomalous"),
        (("--data-root", "nowhere"), "does not exist"),
        (("--attack-param", "steps=0"), "steps must be at least 1"),
        (("--attack-param", "stps=3"), "Did you mean 'steps'"),
        (("--attack-param", "steps"), "name=value"),
        (("--limit", "1"), "at least 2"),
        (("--batch-size", "0"), "--batch-size must be at least 1"),
        (("--draws", "0"), "--draws must be at least 1"),
        (("--image-size", "4"), "--image-size must be at least 8"),
        (("--device", "quantum"), "--device quantum cannot be used"),
        (("--image-size", "big"), "invalid int value"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    run_cli: Run, tree: Path, plugin: str, results: Path, change: tuple[str, ...], says: str
) -> None:
    code, _, err = run_cli("run", "--detector", plugin, *run_options(tree, results), *change)
    assert code == 2
    assert says in one_line(err)
    assert not results.exists()


def test_results_that_are_a_file(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    results.write_text("")
    for command in (("run", "--detector", plugin, *run_options(tree, results)), ("report", "--results", results)):
        code, _, err = run_cli(*command)
        assert code == 2 and "is a file" in one_line(err)


def test_a_data_root_that_is_a_file(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    file = tree / "test/good/000.png"
    code, _, err = run_cli("run", "--detector", plugin, *run_options(file, results))
    assert code == 2 and "is a file; a folder is needed" in one_line(err)


def test_a_broken_image_stops_the_run_and_is_named(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    (tree / "test/dent/002.png").write_bytes(b"broken")
    code, _, err = run_cli("run", "--detector", plugin, *run_options(tree, results))
    assert code == 2 and "test/dent/002.png" in one_line(err)


@pytest.mark.parametrize(
    ("body", "says"),
    [("x.mean((1, 2, 3)) * float('nan')", "the score nan; scores must be finite"),
     ("x.mean((1, 2, 3)) * 0 + 3", "a constant score ranks nothing"), ("1 / 0", "ZeroDivisionError")],
)  # fmt: skip
def test_a_bad_score_is_one_line(run_cli: Run, tree: Path, results: Path, tmp_path: Path, body: str, says: str) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(PLUGIN.replace("(x - self.mean).abs().pow(self.power).flatten(1).sum(1)", body))
    code, _, err = run_cli("run", "--detector", f"{bad}:Mean", *run_options(tree, results))
    assert code == 2 and says in one_line(err)


def test_nothing_to_report(run_cli: Run, results: Path) -> None:
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "does not exist; `bench run` makes it" in one_line(err)
    results.mkdir()
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "no finished results" in one_line(err)


def test_results_of_another_schema(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    assert run_cli("run", "--detector", plugin, *run_options(tree, results))[0] == 0
    record = next(results.rglob("run.json"))
    record.write_text(json.dumps({**read(record), "schema": 1}))
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "was written by another version (schema 1, this one reads 3)" in one_line(err)
    record.write_text("{")
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "is not JSON" in one_line(err)


def test_a_tampered_checkpoint(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    command = ("run", "--detector", plugin, *run_options(tree, results))
    assert run_cli(*command)[0] == 0
    from bench.system.cache import cache_folder

    for model in (cache_folder() / "fitted/folder-widget-16px").rglob("model.safetensors"):
        model.write_bytes(b"\x80\x04" + model.read_bytes())
    before = next(results.rglob("samples.csv")).read_bytes()
    code, _, err = run_cli(*command, "--force")
    assert code == 2 and "was changed after it was written" in one_line(err)
    assert next(results.rglob("samples.csv")).read_bytes() == before


# What needs a process of its own


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


WAITING = (
    PLUGIN.replace("        return", "        wait()\n        return")
    + """
import time
from pathlib import Path

def wait():
    rows = [len(p.read_text().splitlines()) - 1 for p in Path({results!r}).rglob("samples.csv")]
    while max(rows, default=0) >= 3 and not Path({goes_on!r}).exists():
        time.sleep(0.02)
"""
)


def interrupted(tmp_path: Path, tree: Path, results: Path, how: signal.Signals) -> tuple[int, str]:
    """A run of a detector that stops answering once there are three rows, and gets a signal then; later it goes on."""
    path, goes_on = tmp_path / "waiting.py", tmp_path / "goes_on"
    path.write_text(WAITING.format(results=str(results), goes_on=str(goes_on)))
    command = ("run", "--detector", f"{path}:Mean", "--batch-size", 1, *run_options(tree, results))
    # a shell that starts the tests in the background has them, and what they start, ignore this signal
    running = process(*command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 120
    while not any(read_rows(p) >= 3 for p in results.rglob("samples.csv")):
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(how)
    _, err = running.communicate(timeout=60)
    goes_on.touch()
    return running.returncode, err


def read_rows(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_keeps_its_rows_and_goes_on_to_the_same_bytes(
    run_cli: Run, tmp_path: Path, tree: Path, results: Path, how: signal.Signals
) -> None:
    code, err = interrupted(tmp_path, tree, results, how)
    if how == signal.SIGINT:
        assert code == 2 and "the rows so far are kept" in one_line(err)
    (samples,) = results.rglob("samples.csv")
    kept = samples.read_text().splitlines()[:4]
    command = ("run", "--detector", f"{tmp_path / 'waiting.py'}:Mean", "--batch-size", 1)
    code, _, err = run_cli(*command, *run_options(tree, results))
    assert code == 0 and "going on after" in err
    assert samples.read_text().splitlines()[:4] == kept
    assert run_cli(*command, *run_options(tree, tmp_path / "whole"))[0] == 0
    (whole,) = (tmp_path / "whole").rglob("samples.csv")
    assert samples.read_bytes() == whole.read_bytes()


def test_a_full_disk_is_one_line_and_costs_no_result(run_cli: Run, tmp_path: Path, plugin: str, results: Path) -> None:
    """A limit on the size of files stands for the full disk: writes fail in the middle, with the system's error."""
    tree = make_tree(tmp_path / "many" / "widget", good=60, bad=60)
    command = ("run", "--detector", plugin, *run_options(tree, results))
    assert run_cli(*command)[0] == 0
    (samples,) = results.rglob("samples.csv")
    before = samples.read_bytes()

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    running = process(*command, "--force", preexec_fn=small_files, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    _, err = running.communicate(timeout=120)
    assert running.returncode == 2, err
    assert "cannot write" in one_line(err) and "File too large" in one_line(err)
    assert samples.read_bytes() == before
    assert run_cli("report", "--results", results)[0] == 0


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, bench.cli\ntry: bench.cli.main(['run', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'numpy', 'rich', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "--attack-param" in done.stdout
