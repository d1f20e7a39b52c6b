"""`bench compare` prints, and writes only what it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run, one_line
from made_up import many

from bench.cells.reader import Results


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in, where three detectors have eight data sets in common."""
    found = Results(many("abc", 8, {"a": 3.0, "b": 1.0, "c": 0.2}), [], [])
    monkeypatch.setattr("bench.cells.reader.read_results", lambda *_: found)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_written_unless_it_is_asked_for(run_cli: Run, eight: Path) -> None:
    code, out, err = run_cli("compare", "a", "b", "c")
    assert code == 0 and "critical difference" in out and "written" not in out, err
    assert not list(eight.iterdir())


@pytest.mark.parametrize("words", [("a", "b", "c", "--plot", "ranks.png"), ("--plot", "ranks.png", "a", "b", "c")])
def test_the_plot_goes_where_it_is_asked_to_go(run_cli: Run, eight: Path, words: tuple[str, ...]) -> None:
    code, out, err = run_cli("compare", *words)
    assert code == 0 and "written: ranks.png" in out, err
    assert [path.name for path in eight.iterdir()] == ["ranks.png"]
    assert (eight / "ranks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("a", "b", "--plot", "ranks.png"), "three detectors or more"),
        (("a", "b", "c", "--plot", "ranks.pdf"), "ends in .png"),
    ],
)
def test_a_plot_that_cannot_be(run_cli: Run, eight: Path, words: tuple[str, ...], says: str) -> None:
    code, out, err = run_cli("compare", *words)
    assert code == 2 and says in one_line(err) and not out
    assert not list(eight.iterdir())


def test_too_few_data_sets_for_a_plot(run_cli: Run, eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Results(many("abc", 2, {"a": 3.0, "b": 1.0, "c": 0.2}), [], [])
    monkeypatch.setattr("bench.cells.reader.read_results", lambda *_: found)
    code, _, err = run_cli("compare", "a", "b", "c", "--plot", "ranks.png")
    assert code == 2 and "ranks.png is not written" in one_line(err)
    assert not list(eight.iterdir())
