"""One process at a time: what is waited for, what is left behind, and what a killed owner leaves to the next one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MEAN, Linear, make_tree, small_data

from bench import UserError, evaluate
from bench.core.progress import Monitor
from bench.system import locks

PATIENCE_SECONDS = 120

SLOW = (
    MEAN
    + """
import os, time
from pathlib import Path

HERE = Path(__file__).parent

class Slow(Mean):
    '''Writes down which run has fitted it, and which scored after the first rows; the first waits if it is told to.'''

    def held(self, what):
        with (HERE / f"{what} by").open("a") as file:
            file.write(os.environ["RUN"] + "\\n")
        first = (HERE / f"{what} by").read_text().split()[0] == os.environ["RUN"]
        while first and (HERE / f"hold {what}").exists():
            time.sleep(0.02)

    def fit(self, normal):
        self.held("fit")
        super().fit(normal)

    def score(self, x):
        if any(len(p.read_text().splitlines()) > 4 for p in HERE.rglob("samples.csv")):
            self.held("score")
        return super().score(x)
"""
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, `slow.py` and a cache of its own."""
    make_tree(tmp_path / "images" / "widget")
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


class Started:
    """`bench run` or `bench certify` of the slow detector, in a process of its own."""

    def __init__(self, place: Path, *more: str, command: str = "run"):
        self.name = str(len(list(place.glob("log *"))))
        self.log = place / f"log {self.name}"
        words = [command, "--detector", "slow.py:Slow", "--dataset", "folder", "--data-root", "images"]
        words += ["--image-size", "16", "--batch-size", "2", "--results", "results", *more]
        with self.log.open("w") as log:
            command_line, named = [sys.executable, "-m", "bench.cli", *words], {**os.environ, "RUN": self.name}
            self.process = subprocess.Popen(command_line, cwd=place, stderr=log, env=named)

    @property
    def said(self) -> str:
        return " ".join(self.log.read_text().split())

    def ends(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


def until(what: Callable[[], bool], *running: Started) -> None:
    """Until it is true; none of `running` may end before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        for one in running:
            assert one.process.poll() is None, one.said
        assert time.monotonic() < deadline
        time.sleep(0.05)


def waiting(one: Started) -> bool:
    return "waiting for another process" in one.said


@pytest.fixture
def hold(place: Path) -> Iterator[Any]:
    """Makes the first process wait in `fit` or `score` until it is let go."""

    def files(what: str, go: bool = False) -> None:
        (place / f"hold {what}").unlink() if go else (place / f"hold {what}").touch()

    yield files
    for what in ("fit", "score"):  # no process is left behind by a test that failed
        (place / f"hold {what}").unlink(missing_ok=True)


def who(place: Path, what: str) -> set[str]:
    return set((place / f"{what} by").read_text().split())


def rows_of(place: Path) -> list[str]:
    (samples,) = place.glob("results/**/samples.csv")
    return [line.partition(",")[0] for line in samples.read_text().splitlines()]


def nothing_is_left(place: Path) -> None:
    assert not [p for p in place.rglob(".*") if ".lock" in p.name]


def test_the_second_of_two_runs_waits_says_so_once_and_reads_the_finished_cell(place: Path, hold: Any) -> None:
    hold("score")
    first = Started(place)
    until(lambda: (place / "score by").exists(), first)
    second = Started(place)
    until(lambda: waiting(second), first, second)
    hold("score", go=True)
    assert (first.ends(), second.ends()) == (0, 0), first.said + second.said
    assert second.said.count("waiting for another process that works on results/folder/widget/Slow") == 1
    assert "already there" in second.said
    assert who(place, "score") == who(place, "fit") == {first.name}
    rows = rows_of(place)
    assert len(rows) == 13 and len(set(rows)) == 13
    nothing_is_left(place)


def test_the_second_goes_on_where_a_killed_first_one_stopped(place: Path, hold: Any) -> None:
    hold("score")
    first = Started(place)
    until(lambda: (place / "score by").exists(), first)
    second = Started(place)
    until(lambda: waiting(second), first, second)
    first.process.send_signal(signal.SIGKILL)
    assert second.ends() == 0, second.said
    assert "going on after 4 of 12 images" in second.said
    rows = rows_of(place)
    assert len(rows) == 13 and len(set(rows)) == 13
    nothing_is_left(place)


def test_force_waits_for_a_run_and_then_starts_over(place: Path, hold: Any) -> None:
    hold("score")
    first = Started(place)
    until(lambda: (place / "score by").exists(), first)
    second = Started(place, "--force")
    until(lambda: waiting(second), first, second)
    hold("score", go=True)
    assert (first.ends(), second.ends()) == (0, 0), first.said + second.said
    assert who(place, "score") == {first.name, second.name}
    assert len(rows_of(place)) == 13
    nothing_is_left(place)


def test_overlapping_grids_share_the_work(place: Path) -> None:
    both = [Started(place, "--eps", eps) for eps in ("1/255,2/255", "2/255,1/255,4/255")]
    assert [one.ends() for one in both] == [0, 0], [one.said for one in both]
    found = sorted(place.glob("results/**/samples.csv"))
    assert len(found) == 3 and all(len(p.read_text().splitlines()) == 13 for p in found)
    for path in place.glob("results/**/run.json"):
        assert json.loads(path.read_text())["status"] == "finished"
    nothing_is_left(place)


def test_a_detector_is_fitted_by_one_process(place: Path, hold: Any) -> None:
    hold("fit")
    first = Started(place)
    until(lambda: (place / "fit by").exists(), first)
    second = Started(place, "--eps", "4/255")  # another cell
    until(lambda: waiting(second), first, second)
    assert "waiting for another process that fits Slow on folder/widget" in second.said
    hold("fit", go=True)
    assert (first.ends(), second.ends()) == (0, 0), first.said + second.said
    assert who(place, "fit") == {first.name}
    nothing_is_left(place)


def test_a_fit_is_made_again_after_its_process_was_killed(place: Path, hold: Any) -> None:
    hold("fit")
    first = Started(place)
    until(lambda: (place / "fit by").exists(), first)
    second = Started(place, "--eps", "4/255")
    until(lambda: waiting(second), first, second)
    first.process.send_signal(signal.SIGKILL)
    assert second.ends() == 0, second.said
    assert who(place, "fit") == {first.name, second.name}


def test_two_certificates_draw_once(place: Path, hold: Any) -> None:
    """Two radii are two cells, and rest on the same draws."""
    draws = ("--sigma", "0.25", "--samples", "40", "--alpha", "0.2")
    hold("score")
    first = Started(place, *draws, "--radius", "0.05", command="certify")
    until(lambda: (place / "score by").exists(), first)
    second = Started(place, *draws, "--radius", "0.1", command="certify")
    until(lambda: waiting(second), first, second)
    assert "waiting for another process that draws noisy scores of smoothed+Slow on folder/widget" in second.said
    hold("score", go=True)
    assert (first.ends(), second.ends()) == (0, 0), first.said + second.said
    assert len(list(place.glob("results/**/samples.csv"))) == 2
    nothing_is_left(place)


def test_a_finished_cell_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lie where nothing can be written."""
    data = small_data()
    evaluate(Linear(), data, results=tmp_path)
    monkeypatch.setattr(locks, "alone", lambda *_: pytest.fail("nothing is written"))
    evaluate(Linear(), data, results=tmp_path)


def test_two_threads_take_turns(tmp_path: Path) -> None:
    inside, most = 0, 0
    told: list[str] = []

    def work() -> None:
        nonlocal inside, most
        with locks.alone(tmp_path / "new" / "cell", "works", told.append):
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and set(told) == {"waiting for another process that works"}
    assert not list(tmp_path.rglob("*.lock"))


def test_two_threads_of_a_notebook_make_one_cell(tmp_path: Path) -> None:
    both = threading.Barrier(2)
    found, told = [], list[str]()

    def work() -> None:
        detector = Linear()
        both.wait()
        found.append(evaluate(detector, small_data(), results=tmp_path, monitor=Monitor(tell=told.append)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (samples,) = tmp_path.rglob("samples.csv")
    assert len(samples.read_text().splitlines()) == 1 + 15
    assert found[0].equals(found[1]) and len(told) <= 1


def test_a_run_that_cannot_begin_leaves_no_folder_behind(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(MEAN.replace("self.mean = torch", "raise ValueError('no')  # "), encoding="utf-8")
    with pytest.raises(UserError, match="failed in fit"):
        evaluate(f"{tmp_path}/bad.py", small_data(), results=tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("refusal", sorted(locks.NO_LOCKS_HERE))
def test_a_file_system_without_locks_is_said_once_and_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_without", set())
    told: list[str] = []
    for name in ("one", "two"):
        evaluate(Linear(), small_data(), results=tmp_path / name, monitor=Monitor(tell=told.append))
    (said,) = told
    assert "without locks: let no other process" in said
    assert len(list(tmp_path.rglob("samples.csv"))) == 2 and not list(tmp_path.rglob("*.lock"))


def test_another_reason_is_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(UserError, match=r"cannot write .*\.lock: Input/output error"):
        evaluate(Linear(), small_data(), results=tmp_path)
