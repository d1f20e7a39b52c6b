"""The published leaderboard: every cell is what its run wrote, and no certificate lies above an attack."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run

import bench
from bench.analysis.bracket_table import lines
from bench.cells.reader import Results

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


@pytest.fixture(scope="module")
def published() -> Results:
    return bench.read_results(PUBLISHED)


def test_every_published_cell_is_verified(run_cli: Run, published: Results) -> None:
    code, out, err = run_cli("verify", PUBLISHED, "--no-scores")
    assert code == 0 and "FAIL" not in out, err
    assert out.count("pass    metrics") == len(published.results)


def test_nothing_lies_there_that_is_not_published(published: Results) -> None:
    assert not published.damaged and not published.notes
    cells = (path for path in PUBLISHED.rglob("*") if path.is_file() and "submissions" not in path.parts)
    assert {path.name for path in cells} == {"run.json", "samples.csv"}


def test_no_published_row_is_of_a_part_of_the_images(published: Results) -> None:
    images = {(r.spec.dataset, r.category, len(r.table.ids)) for r in published.results}
    assert len(images) == len({key[:2] for key in images}), "a category has as many images in every cell"
    assert all(r.spec.limit is None for r in published.results)


def test_no_published_bracket_is_broken(published: Results) -> None:
    assert not [line for line in lines(published.results) if line.violations]
