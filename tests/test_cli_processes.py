"""What needs a process of its own: signals, a full disk, a pipe that closes."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest
from command_line import Run, on_tree, one_line, process
from conftest import MEAN as PLUGIN
from conftest import make_tree

pytestmark = pytest.mark.usefixtures("own_cache")


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
    command = ("run", "--detector", f"{path}:Mean", "--batch-size", 1, *on_tree(tree, results))
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
        assert code == 130 and "the rows so far are kept" in one_line(err)
    (samples,) = results.rglob("samples.csv")
    kept = samples.read_text().splitlines()[:4]
    command = ("run", "--detector", f"{tmp_path / 'waiting.py'}:Mean", "--batch-size", 1)
    code, _, err = run_cli(*command, *on_tree(tree, results))
    assert code == 0 and "going on after" in err
    assert samples.read_text().splitlines()[:4] == kept
    assert run_cli(*command, *on_tree(tree, tmp_path / "whole"))[0] == 0
    (whole,) = (tmp_path / "whole").rglob("samples.csv")
    assert samples.read_bytes() == whole.read_bytes()


def test_a_full_disk_is_one_line_and_costs_no_result(run_cli: Run, tmp_path: Path, plugin: str, results: Path) -> None:
    """A limit on the size of files stands for the full disk: writes fail in the middle, with the system's error."""
    tree = make_tree(tmp_path / "many" / "widget", good=60, bad=60)
    command = ("run", "--detector", plugin, *on_tree(tree, results))
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


def test_a_pipe_that_closes_is_no_error_to_be_explained() -> None:
    running = process("list", "detectors", "--json")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()  # as `head` does
    assert running.wait(60) == 2
    assert running.stderr.read() == ""
