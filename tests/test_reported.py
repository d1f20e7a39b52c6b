"""Published figures: the file is whole and sorted, a wrong line is named, and boards find what belongs beside them."""

from __future__ import annotations

import csv
from fractions import Fraction
from importlib import resources
from pathlib import Path

import pytest
from made_up import moved

from bench import UserError
from bench.analysis import published
from bench.analysis.overview import overviews
from bench.analysis.reported import WHOLE, beside, published_metrics, reported
from bench.cells.metrics import METRICS
from bench.plugins import registry

HEADER = "detector,dataset,category,image_size,metric,value,norm,eps,attack,source,where,note"
CLEAN = "spade,MVTec AD,bottle,224,clean_auroc,0.9,,,,Some et al. 2020,Table 1,"
ROBUST = 'spade,mvtec,mean,,robust_auroc,0.1,linf,2/255,PGD,"Some, Other 2020",Table 2,both classes'


def written(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "figures.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_the_installed_figures_are_read_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = reported()
    assert len(table) and list(table.columns) == HEADER.split(",")
    assert table.value.between(0, 1).all() and not table.source.eq("").any()
    assert {"advrad", "patchcore"} <= set(table.detector)


def test_the_lines_are_sorted_and_named_as_ours_where_we_have_them() -> None:
    text = resources.files("bench.results").joinpath("reported.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    assert rows == sorted(rows)
    table = reported()
    for ours, theirs in ((registry.names("detectors"), table.detector), (registry.names("datasets"), table.dataset)):
        assert not {name for name in theirs if name.lower() in ours} - set(ours)


def test_metrics_are_those_of_the_boards() -> None:
    known = published_metrics()
    assert {name for name, metric in METRICS.items() if metric.headline} < set(known)
    ours = set(METRICS) | {f"certified_{name}" for name in METRICS}
    assert set(known) < ours
    assert "certified_normal_only_auroc" in known and "PART_auroc" not in known and "median_radius_normal" not in known


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    table = reported(written(tmp_path, CLEAN, ROBUST))
    assert table.source.tolist() == ["Some et al. 2020", "Some, Other 2020"]
    assert table.image_size.isna().tolist() == [False, True] and table.image_size[0] == 224
    assert table.norm.tolist() == ["", "linf"] and table.value.tolist() == [0.9, 0.1]
    assert reported(written(tmp_path)).empty


def test_the_mark_of_a_spreadsheet_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = written(tmp_path, CLEAN)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert reported(path).detector.tolist() == ["spade"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (CLEAN.replace("0.9", "90.0"), "line 3: value 90.0 is not a number in .0, 1."),
        (CLEAN.replace("0.9", "high"), "line 3: value high is not a number"),
        (CLEAN.replace("0.9", "nan"), "line 3: value nan is not a number"),
        (CLEAN.replace("0.9", ""), "line 3: value is empty"),
        (CLEAN.replace("Some et al. 2020", " "), "line 3: source is empty"),
        (CLEAN.replace("224", "224x224"), "line 3: image_size 224x224"),
        (CLEAN.replace("clean_auroc", "clean_aurco"), "line 3: .*Did you mean 'clean_auroc'"),
        (CLEAN.replace(",,,", ",linf,2/255,"), "line 3: clean_auroc has no norm, got linf"),
        (ROBUST.replace("linf", "inf"), "line 3: .*Did you mean 'linf'"),
        (ROBUST.replace("2/255", "2/0"), "line 3: eps 2/0 is not a number"),
        (ROBUST.replace("2/255", "2"), r"line 3: eps 2 is wider .* did you mean 2/255"),
        (ROBUST.replace("2/255", ""), "line 3: eps is empty"),
        (ROBUST.replace('"', ""), "line 3: 13 fields instead of 12; text with a comma needs double quotes"),
        (CLEAN.replace("0.9", "0.8"), "line 3: the same figure as in line 2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        reported(written(tmp_path, CLEAN, line))
    assert "\n" not in str(caught.value)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1: the column 'source' is missing"):
        reported(written(tmp_path, header=HEADER.replace("source", "paper")))
    with pytest.raises(UserError, match=r"nowhere\.csv is not there"):
        reported(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="cannot read"):
        reported(tmp_path)
    path = tmp_path / "latin.csv"
    path.write_bytes(HEADER.encode() + "\nDefard, Zürich".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        reported(path)


def test_a_board_finds_its_budget_and_what_is_clean(tmp_path: Path) -> None:
    table = reported(written(tmp_path, CLEAN, ROBUST))
    assert beside("mvtec", "bottle", "linf", "2/255", table).equals(table)
    assert beside("mvtec", "bottle", "linf", Fraction(2, 255), table).equals(table)
    for norm, eps in (("linf", "1/255"), ("l2", "2/255")):
        assert beside("mvtec", "bottle", norm, eps, table).metric.tolist() == ["clean_auroc"]
    assert beside("mvtec", "grid", "linf", "2/255", table).category.tolist() == [WHOLE]
    assert beside("mvtec", WHOLE, "linf", "2/255", table).category.tolist() == [WHOLE]
    assert beside("visa", "bottle", "linf", "2/255", table).empty
    assert beside("mvtec", "bottle", "linf", "2/255", table[:0]).empty


@pytest.mark.parametrize(
    ("dataset", "category"),
    [("MVTec-AD", "Bottle"), ("mvtec_ad", "bottle"), ("folder", "mvtec_bottle"), ("folder", "MVTec AD bottle")],
)
def test_a_data_set_matches_however_it_is_spelt(dataset: str, category: str, tmp_path: Path) -> None:
    table = reported(written(tmp_path, CLEAN, ROBUST))
    assert len(beside(dataset, category, "linf", "2/255", table)) == 2


def test_a_folder_is_only_what_its_name_says(tmp_path: Path) -> None:
    brain = ROBUST.replace("mvtec", "BrainMRI")
    table = reported(written(tmp_path, CLEAN, ROBUST, brain))
    assert beside("folder", "brain-mri", "linf", "2/255", table).dataset.tolist() == ["BrainMRI"]
    for unsaid in ("bottle", "mvtec_bottles", "mvtec_like", "brain-mri-2"):
        assert beside("folder", unsaid, "linf", "2/255", table).empty
    assert beside("folder", "mvtec", "linf", "2/255", table).category.tolist() == [WHOLE]


def test_a_clean_figure_far_below_the_published_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = reported().iloc[:1].copy()
    figures.loc[:, ["detector", "dataset", "category", "metric", "norm", "eps"]] = [
        "a", "MVTec AD", "bottle", "clean_auroc", "", "",
    ]  # fmt: skip
    figures["image_size"], figures["value"], figures["source"] = 8, 0.99, "somebody"
    monkeypatch.setattr(published, "reported", lambda: figures)
    ours = moved("a", "bottle", dataset="mvtec", gap=1.0)
    assert ours.metrics["clean_auroc"].value < 0.98
    (said,) = published.below_published([ours])
    assert said.startswith("a on bottle: clean AUROC 0.") and said.endswith(", published 0.990 at 8 px (somebody)")
    others = [
        moved("a", "bottle", dataset="mvtec", gap=9.0),  # as good
        moved("a", "bottle", dataset="mvtec", image_size=16),  # another size
        moved("a", "cable", dataset="mvtec"), moved("b", "bottle", dataset="mvtec"),
        moved("a", "bottle", dataset="mvtec", limit=60),  # a part of the images
    ]  # fmt: skip
    assert published.below_published(others) == []
    assert said in overviews([ours])[0].notes
