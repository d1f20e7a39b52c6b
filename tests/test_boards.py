"""Boards and the table of a data set: who is ranked, by what, and what is said beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import respec
from made_up import random_scores, scored, write_cells

from bench import UserError
from bench.analysis.boards import boards, order, refuse_unknown_column
from bench.analysis.compare import not_worse
from bench.analysis.overview import overviews
from bench.analysis.table import table
from bench.cells.filters import Filters
from bench.cells.reader import read_results
from bench.cells.schema import CheckRecord
from bench.report.leaderboard import markdown


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two detectors, ten categories, five budgets, two attacks; 12 images each."""
    folder = tmp_path / "results"
    write_cells(folder, 200, 12)
    return folder


def test_sorting_goes_by_the_best_of_a_column(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,attack=apgd"])).results
    entries = dict(boards(found)[0].entries)
    for r in entries["detector_01"]:
        r.record.seconds = 1.0
    assert order(entries, "seconds") == order(entries, "-detector") == ["detector_01", "detector_00"]
    assert order(entries, "-seconds") == order(entries, "detector") == ["detector_00", "detector_01"]
    by = {name: sum(r.metrics["clean_auroc"].value for r in cells) for name, cells in entries.items()}
    assert order(entries, "clean_auroc")[0] == max(by, key=lambda name: by[name])
    fpr = {name: sum(r.metrics["clean_fpr95"].value for r in cells) for name, cells in entries.items()}
    assert order(entries, "clean_fpr95")[0] == min(fpr, key=lambda name: fpr[name])
    assert order(entries, "certified_auroc", "detector") == order(entries, "detector")  # which none of them has
    with pytest.raises(UserError, match="no column for --sort named 'beauty'"):
        refuse_unknown_column("beauty", found)


def test_a_rank_is_a_rank_in_whatever_order(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,attack=apgd"])).results
    (board,) = boards(found)
    (other,) = boards(found, f"-{board.ranked_by}")
    assert [name for name, _ in other.entries] == [name for name, _ in board.entries][::-1]
    assert [line.rank for line in table(board)] == [1, 2] and [line.rank for line in table(other)] == [2, 1]
    (overview,) = overviews(found, f"-{board.ranked_by}")
    assert [line.rank for line in overview.lines] == [2, 1]


def test_a_mean_over_fewer_categories_is_not_ranked(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,attack=apgd"])).results
    some = [r for r in found if r.detector == "detector_00" or r.category == "category_0"]
    (board,), (overview,) = boards(some), overviews(some)
    assert list(board.ranks) == ["detector_00"]
    assert "1 of 10 categories" in board.unranked["detector_01"][0]
    first, last = overview.lines
    assert (first.rank, last.rank, last.place) == (1, None, "–")  # noqa: RUF001
    assert last.values["clean AUROC"].scope == "1 of 10 categories" and not last.values["clean AUROC"].best


def test_what_is_not_ranked_has_no_rank_and_no_bold(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,attack=apgd,category=category_0"])).results
    best = max(found, key=lambda r: r.metrics["robust_auroc"].value)
    best.checks.append(CheckRecord(name="gradient", passed=False, sentence="points elsewhere"))
    (overview,) = overviews(found)
    assert overview.detectors[-1] == best.detector
    text = markdown(found, [])
    lines = [line for line in text.splitlines() if line.startswith(f"| – | {best.detector}")]  # noqa: RUF001
    assert len(lines) == 2 and not any("**" in line for line in lines)
    assert "points elsewhere" in text and "**" in next(line for line in text.splitlines() if line.startswith("| 1 |"))
    assert [line.costs["M weights"] for line in table(boards(found)[0])] == ["0.60", "0.60"]


def test_bold_is_the_best_and_what_is_not_worse() -> None:
    good, close, bad = random_scores(0, 3), random_scores(1, 3), random_scores(2, 0)
    cells = [scored(good, "good"), scored(close, "close"), scored(bad, "bad"), scored(good + 0, "failed")]
    cells[-1].checks.append(CheckRecord(name="gradient", passed=False, sentence="no"))
    (board,) = boards(cells)
    ranked = {name: own for name, own in board.entries if name not in board.unranked}
    assert not_worse(ranked, "robust_auroc") == {"good", "close"}


def test_versions_that_differ_are_said_below_the_table(results: Path) -> None:
    found = read_results(results).results
    assert "different versions" not in markdown(found, [])
    found[0].record.versions = found[0].record.versions | {"torch": "1.0"}
    said = [line for line in markdown(found, []).splitlines() if "different versions of torch" in line]
    assert len(said) == 2 and all("1.0 (1 cells)" in line for line in said)  # of the overview and of one board


def test_the_standard_evaluation_is_known_on_however_many_images(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,category=category_0"])).results
    for r in found:
        respec(r, limit=12)
        if r.spec.attack == "square":
            respec(r, attack="standard")
    (overview,) = overviews(found)
    title = "robust AUROC linf 2/255"
    assert {r.spec.attack for own in overview.columns[title].cells.values() for r in own} == {"standard"}
    assert all("apgd (limit=12) reached" in text for text in overview.footnotes.values())  # and went further
    for r in found:
        if r.spec.attack == "standard":
            respec(r, attack_parameters={"steps": 3})
    (overview,) = overviews(found)
    assert any("not the standard evaluation" in text for text in overview.footnotes.values())


def test_an_earlier_version_of_the_standard_evaluation_has_a_board_of_its_own(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,attack=square"])).results
    for r in found:
        respec(r, attack="standard")
    earlier = found[: len(found) // 2]
    for r in earlier:
        r.record.attack.parameters["version"] = "standard-v3"
    titles = {board.title: {r.attack for r in board.cells} for board in boards(found)}
    assert sorted(map(tuple, titles.values())) == [("standard",), ("standard-v3",)]


def test_small_categories_belong_to_a_limited_table(results: Path) -> None:
    found = read_results(results, Filters(["eps=2/255,attack=apgd"])).results
    for r in found:
        respec(r, limit=20 if r.category != "category_0" else None)  # which has 12 images
    (overview,) = overviews(found)
    assert "mean of 10 categories" in overview.title and "20 images" in overview.title


def test_the_overview_takes_the_standard_evaluation_or_else_the_strongest(results: Path) -> None:
    found = read_results(results).results
    (overview,) = overviews(found)
    assert list(overview.columns)[:2] == ["clean AUROC", "robust AUROC linf 0.5/255"]
    cells = overview.columns["robust AUROC linf 2/255"].cells["detector_00"]
    for r in cells:
        both = [o for o in found if (o.detector, o.category, o.eps) == (r.detector, r.category, r.eps)]
        assert len(both) == 2 and r.metrics["robust_auroc"].value == min(o.metrics["robust_auroc"].value for o in both)
    found = read_results(results).results
    for r in found:
        if r.spec.attack == "square":
            respec(r, attack="standard")
    (overview,) = overviews(found)
    assert {r.attack for column in overview.columns.values() for own in column.cells.values() for r in own} == {
        "standard"
    }
    assert not any("not the standard evaluation" in text for text in overview.footnotes.values())
