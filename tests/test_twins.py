"""The same cell twice: our own and those of submissions."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from stored_cells import Run, first, packed, three_cells, with_rows

from bench import UserError, load_results
from bench.cells.filters import Filters
from bench.cells.reader import find_cells, read_results, tidy

PLACE = "made_up/category_0/detector_00-5e21f9ab/apgd-linf-0.5_255"
"""Of the first cell in a submission, which names the size of images of a data set that is not installed."""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return three_cells(tmp_path / "results")


def with_other_rows(submission: Path, worst: str = "0.5") -> None:
    """The first cell of a submission says something else, hash and all."""
    with zipfile.ZipFile(submission) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    place = min(name for name in content if name.endswith("run.json")).removesuffix("/run.json")
    header, line, *rest = content[f"{place}/samples.csv"].decode().splitlines()
    content[f"{place}/samples.csv"] = "\n".join([header, f"{line.rpartition(',')[0]},{worst}", *rest, ""]).encode()
    record = json.loads(content[f"{place}/run.json"])
    record["samples_sha256"] = hashlib.sha256(content[f"{place}/samples.csv"]).hexdigest()
    content[f"{place}/run.json"] = json.dumps(record).encode()
    with zipfile.ZipFile(submission, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)


def test_a_submission_is_told_from_our_own(results: Path, run_cli: Run) -> None:
    submission = packed(results, run_cli, "theirs.zip")
    assert [r.source for r in read_results(results).results] == ["", "", ""]
    shutil.rmtree(results)
    (results / "team").mkdir(parents=True)
    submission.rename(results / "team" / "theirs.zip")
    counted, _, _, apart = read_results(results)
    assert counted == [] and [r.source for r in apart] == ["team/theirs.zip"] * 3
    assert apart[0].name == f"team/theirs.zip: {PLACE}"
    with pytest.warns(UserWarning, match="3 submitted cells are left out"):
        assert load_results(results).empty
    assert tidy(apart)["source"].tolist() == ["team/theirs.zip"] * 3


def test_our_own_cell_is_kept_beside_a_submission_that_says_something_else(results: Path, run_cli: Run) -> None:
    submission = packed(results, run_cli, "theirs.zip")
    with_other_rows(submission)
    submission.rename(results / "theirs.zip")
    found = find_cells(results)
    assert [r.source for r in found.results] == ["", "", ""]
    assert found.damaged == [f"left out: theirs.zip: {PLACE}: the same cell as {first(results)} with different rows"]


def test_two_submissions_that_differ_are_both_shown_and_neither_counts(results: Path, run_cli: Run) -> None:
    for name in ("a.zip", "b.zip"):
        packed(results, run_cli, name)
    shutil.rmtree(results)
    results.mkdir()
    with_other_rows(results.parent / "b.zip")
    for name in ("a.zip", "b.zip"):
        (results.parent / name).rename(results / name)
    found = find_cells(results)
    assert not found.results and not found.damaged
    assert [r.source for r in found.submitted] == ["a.zip", "a.zip", "a.zip", "b.zip"]


def test_two_cells_of_our_own_that_differ_are_an_error_that_names_both(results: Path) -> None:
    twin = Path(shutil.copytree(first(results), results / "twin"))
    with_rows(twin, (twin / "samples.csv").read_bytes().replace(b"0.001", b"0.0011"))
    for filters in (None, Filters(["attack=square"])):
        with pytest.raises(UserError, match="with different rows") as raised:
            read_results(results, filters)
        assert str(twin) in str(raised.value) and str(first(results)) in str(raised.value)


def test_what_is_damaged_in_a_submission_is_said_by_its_name(results: Path, run_cli: Run) -> None:
    submission = packed(results, run_cli, "theirs.zip")
    with_other_rows(submission, worst="nan")
    submission.rename(results / "theirs.zip")
    (sentence,) = find_cells(results).damaged
    assert sentence.startswith(f"left out: theirs.zip: {PLACE}: test/0000.png has the value nan in column rounded")
