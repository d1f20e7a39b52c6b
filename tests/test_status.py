"""`bench status`: what a run has done, does and cannot do, as somebody else sees it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, on_tree, one_line, process, rows_of
from conftest import MEAN, make_tree

from bench.analysis.progress import Watch
from bench.cells.journal import FOLDER, KEPT

pytestmark = pytest.mark.usefixtures("own_cache")

WAITS = (
    MEAN
    + """
import time
from pathlib import Path

class Waits(Mean):
    '''From the fourth row on, until it is told to go on.'''
    def score(self, x):
        rows = [len(p.read_text().splitlines()) - 1
                for p in Path({results!r}).rglob("samples.csv")
                if "Waits" in str(p)]
        while max(rows, default=0) >= 3 and not Path({goes_on!r}).exists():
            time.sleep(0.02)
        return super().score(x)

class Breaks(Mean):
    def score(self, x):
        raise ValueError("no such [bold]lamp[/]")
"""
)


@pytest.fixture
def waits(tmp_path: Path, results: Path) -> Path:
    path = tmp_path / "waits.py"
    path.write_text(WAITS.format(results=str(results), goes_on=str(tmp_path / "goes_on")))
    return path


def status(run_cli: Run, results: Path) -> dict[str, Any]:
    code, out, _ = run_cli("status", "--json", "--results", results)
    assert code == 0
    (run,) = json.loads(out)
    return dict(run)


@pytest.mark.parametrize("how", [None, signal.SIGKILL])
def test_another_terminal_sees_what_works_and_what_has_failed(
    run_cli: Run, tmp_path: Path, tree: Path, results: Path, waits: Path, how: signal.Signals | None
) -> None:
    detectors = ",".join(f"{waits}:{name}" for name in ("Mean", "Breaks", "Waits"))
    command = ("run", "--detector", detectors, "--eps", "1/255,2/255", "--batch-size", 1, "--workers", 1)
    running = process(*command, *on_tree(tree, results))
    try:
        deadline = time.monotonic() + 120
        while max((len(rows.splitlines()) for p, rows in rows_of(results).items() if "Waits" in str(p)), default=0) < 4:
            assert running.poll() is None and time.monotonic() < deadline, running.communicate()[1]
            time.sleep(0.05)
        seen = status(run_cli, results)
        assert seen["works"] and seen["process"] == running.pid
        assert seen["counts"] == {"done": 2, "running": 1, "failed": 2, "begun": 0, "to do": 1}
        assert [failure["cell"].split()[0] for failure in seen["failures"]] == ["Breaks", "Breaks"]
        assert all("no such [bold]lamp[/]" in failure["why"] for failure in seen["failures"])
        (now,) = [cell for cell in seen["cells"] if cell["state"] == "running"]
        assert now["rows"] >= 2 and now["images"] == 12 and now["cell"].startswith("Waits on widget")
        if how is not None:
            running.send_signal(how)
    finally:
        (tmp_path / "goes_on").touch()
        running.communicate(timeout=120)
    seen = status(run_cli, results)
    code, out, _ = run_cli("status", "--results", results)
    assert code == 0 and not seen["works"] and "[bold]lamp[/]" in " ".join(out.split())
    if how is None:
        assert seen["ended"] and seen["counts"]["done"] == 4 and "4 of 6 cells done" in out
    else:
        assert not seen["ended"] and "was stopped or killed" in out and seen["counts"]["done"] == 2
        assert run_cli(*command, *on_tree(tree, results))[0] == 2
        assert status(run_cli, results)["counts"]["done"] == 4
    assert not list((results / FOLDER).glob(".*lock"))


def test_what_was_mended_is_no_failure_any_more(run_cli: Run, tmp_path: Path, tree: Path, results: Path) -> None:
    path = tmp_path / "mended.py"
    path.write_text(MEAN + "\n    def score(self, x):\n        raise ValueError('not yet')\n")
    command = ("run", "--detector", f"{path}:Mean", *on_tree(tree, results))
    assert run_cli(*command)[0] == 2 and status(run_cli, results)["counts"]["failed"] == 1
    path.write_text(MEAN)
    assert run_cli(*command)[0] == 0
    seen = status(run_cli, results)
    assert seen["counts"]["done"] == 1 and not seen["failures"] and seen["seconds_left"] == 0


def test_a_detector_without_cells_is_a_failure_of_its_run(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    path = tmp_path / "gone.py"
    path.write_text(MEAN + "\nimport nothing_of_that_name\n")
    code, _, err = run_cli("run", "--detector", f"{path}:Mean", *on_tree(tree, tmp_path / "r"))
    assert code == 2 and "nothing_of_that_name" in one_line(err)
    seen = status(run_cli, tmp_path / "r")
    assert not seen["cells"] and "nothing_of_that_name" in seen["failures"][0]["why"]


def test_what_is_left_is_known_from_finished_cells(run_cli: Run, plugin: str, tmp_path: Path, results: Path) -> None:
    """Two categories of one detector: the second costs what the first has cost."""
    for name in ("nut", "bolt"):
        make_tree(tmp_path / "two" / name)
    command = ("run", "--detector", plugin, *on_tree(tmp_path / "two", results))
    assert run_cli(*command)[0] == 0
    (bolt,) = (results / "folder/bolt").rglob("run.json")
    (nut,) = (results / "folder/nut").rglob("run.json")
    nut.rename(tmp_path / "aside")
    record = json.loads(bolt.read_text())
    (seen,) = Watch(results).runs()
    assert seen.counts["done"] == 1 and seen.counts["to do"] == 1 and not seen.unknown
    cost, fit = record["seconds"] + record["checks_seconds"], record["detector"]["fit"]["seconds"]
    assert seen.seconds * seen.journal.at_once == pytest.approx(cost + fit)


def test_a_run_that_has_nothing_to_do_calls_no_model_and_writes_nothing(
    run_cli: Run, tmp_path: Path, tree: Path, results: Path
) -> None:
    path, called = tmp_path / "called.py", tmp_path / "called"
    note = f"        open({str(called)!r}, 'w').close()\n        "
    path.write_text(
        MEAN.replace("        self.mean = ", note + "self.mean = ").replace("        return", note + "return")
    )
    command = ("run", "--detector", f"{path}:Mean", *on_tree(tree, results))
    assert run_cli(*command)[0] == 0 and called.exists()
    called.unlink()
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    code, out, err = run_cli(*command)
    assert code == 0 and "already there" in err and "1 finished cell" in out and not called.exists()
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == before


def test_the_newest_journals_are_kept_and_what_is_none_is_left_out(
    run_cli: Run, plugin: str, tree: Path, results: Path
) -> None:
    folder = results / FOLDER
    folder.mkdir(parents=True)
    for number in range(KEPT + 3):
        (folder / f"1999-{number:02}.json").write_text('{"schema_version": 1' + "}" * (number % 2))
    code, _, err = run_cli("status", "--results", results)
    assert code == 2 and "no run was begun" in one_line(err)
    assert run_cli("run", "--detector", plugin, *on_tree(tree, results))[0] == 0
    assert len(list(folder.iterdir())) == KEPT and status(run_cli, results)["counts"]["done"] == 1
    assert len(rows_of(results)) == 1


def test_a_journal_that_cannot_be_written_costs_no_result(run_cli: Run, plugin: str, tree: Path, results: Path) -> None:
    results.mkdir()
    (results / FOLDER).write_text("a file")
    code, out, err = run_cli("run", "--detector", plugin, *on_tree(tree, results))
    assert code == 0 and "1 finished cell" in out and err.count("`bench status` will not see this run") == 1


def test_no_folder_is_one_line(run_cli: Run, tmp_path: Path) -> None:
    code, _, err = run_cli("status", "--results", tmp_path / "none")
    assert code == 2 and "does not exist" in one_line(err)
