"""A suite that is killed at random moments, and one that several processes run at once, ends with the same rows."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import Run, process, rows_of, suite_on_two

from bench.cells.journal import FOLDER, KEPT

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.slow]

KILLS = 50
SUITE = """
seeds = [0, 1]

[[data]]
name = "folder"
root = {root!r}
image-size = 16

[[detectors]]
name = {plugin!r}

[[detectors]]
name = "autoencoder"
params = {{ steps = 40 }}

[[attacks]]
name = "pgd-linf"
eps = ["1/255", "4/255"]
params = {{ steps = 4 }}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return suite_on_two(tmp_path, SUITE)


def whole(
    run_cli: Run, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: object
) -> dict[Path, bytes]:
    """The rows of a run that nobody disturbs, with a cache of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "undisturbed cache"))
        code, out, err = run_cli("run", "--suite", suite, "--results", tmp_path / "whole", *more)
    assert code == 0 and "16 finished cells" in out, err
    return rows_of(tmp_path / "whole")


def test_kills_at_random_moments_cost_no_row(
    run_cli: Run, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ("--batch-size", 1)  # another size changes the last bits
    expected, results = whole(run_cli, suite, tmp_path, monkeypatch, *one), tmp_path / "results"
    command: tuple[object, ...] = ("run", "--suite", suite, "--results", results, *one)
    chance, kills, longest = random.Random(0), 0, 12.0
    while kills < KILLS:
        running = process(*command)
        try:
            running.communicate(timeout=chance.uniform(1.0, longest))
        except subprocess.TimeoutExpired:
            os.kill(running.pid, signal.SIGKILL)
            running.communicate()
            kills += 1
            continue
        assert running.returncode == 0  # it was done before: begin anew, with kills inside of --force as well
        assert rows_of(results) == expected
        command = (*command[:7], "--force")
        longest = 8.0
    code, out, err = run_cli("run", "--suite", suite, "--results", results, *one)
    assert code == 0 and "16 finished cells" in out, err
    assert rows_of(results) == expected
    files = [path.relative_to(results) for path in results.rglob("*") if path.is_file()]
    journals = [path for path in files if path.parts[0] == FOLDER]
    assert len(journals) <= KEPT and all(path.suffix == ".json" for path in journals)  # and no lock
    left = [path for path in files if path.name not in ("run.json", "samples.csv") and path not in journals]
    assert not left, left


def test_five_processes_at_once_do_every_cell_once(
    run_cli: Run, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, results = whole(run_cli, suite, tmp_path, monkeypatch), tmp_path / "results"
    running = [process("run", "--suite", suite, "--results", results) for _ in range(5)]
    said = [one.communicate(timeout=600) for one in running]
    assert [one.returncode for one in running] == [0] * 5, said
    assert all("16 finished cells" in out for out, _ in said)
    assert rows_of(results) == expected
    done = sum(err.count(": done in ") for _, err in said)
    assert done == 16, done
