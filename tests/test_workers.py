"""Detectors and categories side by side: the same rows, in the same order, and an end for all of them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from command_line import Run, on_tree, one_line, process, rows_of
from conftest import MEAN, make_tree

from bench.harness.workers import Workers, side_by_side

pytestmark = pytest.mark.usefixtures("own_cache")


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    chosen = {(jobs, wanted): Workers.for_jobs(jobs, wanted, False) for jobs in (1, 3, 20) for wanted in (None, 2, 16)}
    assert chosen == {
        (1, None): (1, 8), (3, None): (3, 2), (20, None): (8, 1),
        (1, 2): (1, 8), (3, 2): (2, 4), (20, 2): (2, 4),
        (1, 16): (1, 8), (3, 16): (3, 2), (20, 16): (16, 1),
    }  # fmt: skip
    assert Workers.for_jobs(20, None, on_gpu=True) == (1, 8)
    assert Workers.for_jobs(20, 3, on_gpu=True) == (3, 2)
    assert Workers.for_jobs(0, None, False) == (1, 8)


def test_ends_come_in_the_order_of_the_jobs() -> None:
    both = threading.Barrier(2, timeout=30)

    def job(number: int) -> Iterator[int]:
        both.wait()  # two at once, or never
        time.sleep(0.05 * (4 - number))
        yield from (number, 10 * number)

    done: list[None] = []
    jobs = [lambda stop, number=number: job(number) for number in range(4)]
    assert side_by_side(jobs, 2, lambda: done.append(None)) == [0, 0, 1, 10, 2, 20, 3, 30]
    assert len(done) == 4


def test_an_error_of_one_ends_the_others() -> None:
    def waits(stop: Connection) -> Iterator[int]:
        if stop.poll(30):
            raise KeyboardInterrupt
        yield 1
        pytest.fail("nobody has said that it is over")

    def breaks(stop: Connection) -> Iterator[int]:
        yield 1 // 0

    with pytest.raises(ZeroDivisionError):
        side_by_side([waits, breaks, waits], 2)


def test_rows_are_the_same_one_by_one_and_side_by_side(
    run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nut", "bolt"):
        make_tree(tmp_path / "tree" / name, good=6, bad=4)
    plugin = tmp_path / "mine.py"
    plugin.write_text(MEAN)
    found = {}
    for workers in (1, 2):
        results = tmp_path / str(workers)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache {workers}"))  # each fits anew
        command = ("run", "--detector", f"autoencoder,{plugin}:Mean", "--param", "steps=3", "--workers", workers)
        code, out, err = run_cli(*command, *on_tree(tmp_path / "tree", results))
        assert code == 0, err
        assert ("side by side" in err) == (workers == 2)
        found[workers] = rows_of(results)
        assert "4 finished cells" in out
    assert len(found[1]) == 4 and found[1] == found[2]


def test_what_fails_is_said_in_order_and_the_others_go_on(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(MEAN + "\nclass Ends(Mean):\n    def score(self, x):\n        import os; os._exit(3)\n")
    command = ("run", "--detector", f"{plugin}:Ends,{plugin}:Mean", "--workers", 2)
    code, out, err = run_cli(*command, *on_tree(tree, tmp_path / "results"))
    assert code == 2 and "exit status 3" in one_line(err) and "1 finished cell" in out


WAITING = (
    MEAN.replace("        return", "        wait()\n        return")
    + """
import os
import time
from pathlib import Path

def wait():
    folder = Path({folder!r})
    (folder / str(os.getpid())).touch()
    while not (folder / "goes_on").exists():
        time.sleep(0.02)
"""
)


def test_ctrl_c_ends_all_of_them(tmp_path: Path, tree: Path) -> None:
    folder, plugin = tmp_path / "pids", tmp_path / "waiting.py"
    folder.mkdir()
    plugin.write_text(WAITING.format(folder=str(folder)) + "\nclass Other(Mean):\n    pass\n")
    command = ("run", "--detector", f"{plugin}:Mean,{plugin}:Other", "--workers", 2)
    running = process(
        *command, *on_tree(tree, tmp_path / "r"), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    deadline = time.monotonic() + 120
    while len(working := [int(p.name) for p in folder.iterdir()]) < 2:
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in err
    while any(Path(f"/proc/{pid}").exists() for pid in working) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in working)


def test_processes_are_not_wanted_and_wanted(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    command = ("run", "--detector", "pls", "--workers", 2, "--in-process")
    code, _, err = run_cli(*command, *on_tree(tree, tmp_path / "r"))
    assert code == 2 and "--workers 2" in one_line(err)
    assert run_cli("run", "--detector", "pls", "--workers", 0)[0] == 2
