"""Submissions that lie: none is ranked, and whoever runs one again is told what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lies import LIES, eased, foreign_name, of_another_category, other_versions, without_images
from lying import Forged, Honest, make_honest

from bench.cells.reader import find_cells
from bench.cells.reproduction import path_beside
from bench.plugins import registry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return make_honest(tmp_path_factory.mktemp("honest"))


@pytest.fixture(autouse=True)
def here(honest: Honest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A results folder of somebody else, whose cache has nothing; cells are run again in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.audit.reproduce.ask", lambda function, *given, patience: function(*given))
    (tmp_path / "results").mkdir()
    yield tmp_path / "results"


def ranked(results: Path) -> list[str]:
    """The submissions that count, as a report sees them."""
    return [r.source for r in find_cells(results).results]


def rerun(run_cli: Run, honest: Honest, path: Path, *more: object) -> tuple[int, dict[str, str], str]:
    """Exit code; by name of the test the lines that failed; everything that was said."""
    code, out, err = run_cli("verify", path, "--rerun", "--images", 12, "--seed", 3, *honest.options, *more)
    lines = [line.removeprefix("FAIL").strip().partition(": ") for line in out.splitlines() if line.startswith("FAIL")]
    return code, {name: sentence for name, _, sentence in lines}, out + err


@pytest.mark.parametrize("kind", ["attacked", "weak", "certified", "radii"])
def test_what_is_honest_is_ranked_once_it_was_run_again(here: Path, run_cli: Run, honest: Honest, kind: str) -> None:
    path = Path(shutil.copy(honest.zip_of(kind), here / "a.zip"))
    assert ranked(here) == [] and [r.standing for r in find_cells(here).submitted] == ["submitted"]
    code, failed, said = rerun(run_cli, honest, path)
    assert (code, failed) == (0, {}), said
    assert "pass    weights: taken from the submission" in said and "pass    checks: " in said
    (result,) = find_cells(here).results
    assert (result.source, result.standing) == ("a.zip", "reproduced")
    record = json.loads(path_beside(path).read_text(encoding="utf-8"))
    (cell,) = record["cells"].values()
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record["seed"], record["images"], len(cell["images"])) == (3, 12, 12)
    assert bool(result.unranked) == (kind == "weak")  # of which the checks say so, then and now


def test_without_weights_only_metrics_are_compared(here: Path, run_cli: Run, honest: Honest) -> None:
    forged = Forged.of(honest.zip_of("attacked"))
    forged.others = {name: content for name, content in forged.others.items() if "weights" not in name}
    code, failed, said = rerun(run_cli, honest, forged.save(here / "a.zip"))
    assert code == 0, said
    assert "pass    weights: the same after a fit here" in said  # of this detector, whose fit is a mean
    forged.record["detector"]["fit"]["model_sha256"] = "0" * 64
    code, failed, said = rerun(run_cli, honest, forged.save(here / "a.zip"))
    assert code == 0 and "note    weights: fitted here (none are carried)" in said
    assert "with other weights, AUROC of 12 images is " in said
    forged.each(lambda row: row.update(worst=row["clean"], rounded=row["clean"]))
    code, failed, said = rerun(run_cli, honest, forged.save(here / "a.zip"))
    assert code == 1 and "attack" in failed, said


def is_found(here: Path, run_cli: Run, honest: Honest, forged: Forged, word: str, *more: object) -> None:
    """Not ranked before, nor after; and what is wrong is said."""
    path = forged.save(here / "lie.zip")
    found = find_cells(here)
    assert found.results == [] and [r.standing for r in found.submitted] == ["submitted"], found.damaged
    code, failed, said = rerun(run_cli, honest, path, *more)
    assert code == 1 and word in failed, said
    assert ranked(here) == [] and "not reproduced: written to" in said


@pytest.mark.parametrize(("kind", "lie", "word"), LIES, ids=[lie.__name__ for _, lie, _ in LIES])
def test_a_lie_is_not_ranked_and_found(
    here: Path, run_cli: Run, honest: Honest, kind: str, lie: Callable[[Forged], object], word: str
) -> None:
    forged = Forged.of(honest.zip_of(kind))
    lie(forged)
    is_found(here, run_cli, honest, forged, word)


def test_rows_under_the_name_of_another_detector(here: Path, run_cli: Run, honest: Honest) -> None:
    forged = Forged.of(honest.zip_of("attacked"))
    foreign_name(forged)
    forged.record["detector"]["code"] = registry.load("detectors", f"{honest.root}/mine.py:Corners").sha256
    without_images(forged)
    is_found(here, run_cli, honest, forged, "threshold", "--detector", f"{honest.root}/mine.py:Corners")


def test_rows_of_another_category(here: Path, run_cli: Run, honest: Honest) -> None:
    forged = Forged.of(honest.zip_of("attacked"))
    of_another_category(forged, honest)
    is_found(here, run_cli, honest, forged, "threshold", "--data-root", honest.root / "images/gadget")


def test_metrics_that_are_not_those_of_the_rows(here: Path, run_cli: Run, honest: Honest) -> None:
    forged = Forged.of(honest.zip_of("attacked"))
    forged.record["metrics"]["robust_auroc"] = 0.99
    path = forged.save(here / "lie.zip", hide=False)
    code, failed, _ = rerun(run_cli, honest, path)
    assert code == 1 and "metrics" in failed and ranked(here) == []


def test_other_versions_are_accepted_by_who_says_so_and_those_that_ran_here_are_shown(
    here: Path, run_cli: Run, honest: Honest
) -> None:
    forged = Forged.of(honest.zip_of("attacked"))
    other_versions(forged)
    code, _, said = rerun(run_cli, honest, forged.save(here / "a.zip"), "--other-versions")
    assert code == 0, said
    (result,) = find_cells(here).results
    assert result.record.versions["torch"] not in ("1.0", None)


# --- records of a rerun


def reproduced(here: Path, run_cli: Run, honest: Honest) -> Path:
    path = Path(shutil.copy(honest.zip_of("attacked"), here / "a.zip"))
    assert rerun(run_cli, honest, path)[0] == 0 and ranked(here) == ["a.zip"]
    return path


def test_a_record_inside_a_submission_is_refused_with_it(here: Path, run_cli: Run, honest: Honest) -> None:
    path = reproduced(here, run_cli, honest)
    forged = Forged.of(honest.zip_of("attacked"))
    for inside in ("a.zip.reproduced.json", f"{forged.place}/reproduced.json"):
        forged.others[inside] = path_beside(path).read_bytes()
        forged.save(here / "b.zip")
        found = find_cells(here)
        assert [r.source for r in found.results] == ["a.zip"] and found.submitted == []
        assert "b.zip is not a submission: it holds" in found.damaged[0]
        assert rerun(run_cli, honest, here / "b.zip")[0] == 2
        del forged.others[inside]


def test_a_record_is_of_one_content(here: Path, run_cli: Run, honest: Honest) -> None:
    path = reproduced(here, run_cli, honest)
    forged = Forged.of(path)
    eased(forged)
    forged.save(path)
    found = find_cells(here)
    assert found.results == [] and len(found.submitted) == 1
    assert found.notes == [
        "not counted as reproduced: a.zip was changed after it was run again: `bench verify --rerun` once more"
    ]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 2}', "[" * 100_000])
def test_a_damaged_record_ranks_nothing(here: Path, run_cli: Run, honest: Honest, content: str) -> None:
    path = Path(shutil.copy(honest.zip_of("attacked"), here / "a.zip"))
    path_beside(path).write_text(content, encoding="utf-8")
    found = find_cells(here)
    assert found.results == [] and len(found.submitted) == 1 and len(found.notes) == 1


def test_what_cannot_be_run_here_leaves_the_record_as_it_was(here: Path, run_cli: Run, honest: Honest) -> None:
    path = reproduced(here, run_cli, honest)
    before = path_beside(path).read_bytes()
    code, out, err = run_cli("verify", path, "--rerun")
    assert code == 2 and len(err.splitlines()) == 1 and "nothing is written beside" in out
    assert path_beside(path).read_bytes() == before and ranked(here) == ["a.zip"]
