"""Names of folders and files: readable, one of its own for every name, and as they always were for plain ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Linear, small_data
from hypothesis import given
from hypothesis import strategies as st

from bench import Data, UserError, evaluate, fit_or_load, load_results
from bench.audit.submit import submit
from bench.cells.spec import RunSpec
from bench.cells.submission import MEMBER, cells_in
from bench.plugins import kept_fits
from bench.report.figures._style import stem
from bench.system.files import safe_name

NAMES = st.text(min_size=1, max_size=300).filter(lambda name: set(name).isdisjoint("/\\") and ".py" not in name)
PLAIN = ("brick", "metal_nut", "PCA", "diffpure+patchcore", "one-two_3.4", "pgd-linf-2_255", "0")
OTHER = (
    "瓶子",
    "螺丝",
    "a b",
    "a_b",
    "a/b",
    "a:b",
    "ä",
    "",
    ".",
    "..",
    ".hidden",
    "a.",
    "CON",
    "nul.txt",
    "x" * 300,
    "x" * 301,
)


def folder(**changed: str) -> Path:
    """Of a cell with such names."""
    values: dict[str, Any] = {
        "detector": "autoencoder", "detector_parameters": {}, "attack": "pgd", "attack_parameters": {}, "norm": "linf",
        "eps": "2/255", "targets": "both", "dataset": "folder", "category": "brick", "image_size": 64, "seed": 0,
        "limit": None, "draws": None, "goal": "rank",
    }  # fmt: skip
    return RunSpec(**values | changed).folder(Path(), 64)


def of(category: str) -> Data:
    data = small_data()
    return Data("folder", category, data.image_size, data.train, data.test)


def test_a_plain_name_is_its_own_folder() -> None:
    assert [safe_name(name) for name in PLAIN] == list(PLAIN)
    assert folder() == Path("folder/brick/autoencoder/pgd-linf-2_255")
    assert folder(detector="smoothed+anomalib:padim").parts[2] == "smoothed+anomalib_padim"


def test_other_names_stay_readable_and_apart() -> None:
    found = [safe_name(name) for name in OTHER]
    assert len({name.lower() for name in found}) == len(OTHER)
    assert found[2].startswith("a_b-") and found[3] == "a_b"
    assert all(0 < len(name) < 230 for name in found)
    assert not [name for name in found if name.startswith(".") or name.endswith(".") or set(name) & set("/\\: ")]


@given(dataset=NAMES, category=NAMES, detector=NAMES, attack=NAMES)
def test_a_submission_may_hold_every_folder_that_a_run_makes(
    dataset: str, category: str, detector: str, attack: str
) -> None:
    made = folder(dataset=dataset, category=category, detector=detector, attack=attack)
    assert len(made.parts) == 4 and ".." not in made.parts
    assert MEMBER.fullmatch(f"{made.as_posix()}/run.json")


@given(one=NAMES, other=NAMES)
def test_two_names_are_never_one_folder(one: str, other: str) -> None:
    for part in ("dataset", "category", "attack"):
        assert (folder(**{part: one}) == folder(**{part: other})) == (one == other)


def test_categories_in_other_scripts_have_results_of_their_own(tmp_path: Path) -> None:
    for category in ("瓶子", "螺丝"):
        evaluate(Linear(), of(category), results=tmp_path)
        evaluate(Linear(), of(category), results=tmp_path, force=True)
    assert sorted(load_results(tmp_path)["category"]) == ["瓶子", "螺丝"]
    lines = list(submit(tmp_path, tmp_path / "both.zip"))
    assert "2 cells" in lines[-2]
    assert len(cells_in(tmp_path / "both.zip")) == 2


def test_force_never_replaces_another_cell(tmp_path: Path) -> None:
    """As where a file system does not tell capital letters apart, or an older version has put two names together."""
    evaluate(Linear(), of("widget"), results=tmp_path)
    (path,) = tmp_path.rglob("run.json")
    record = json.loads(path.read_text())
    record["spec"]["category"] = "Widget"
    path.write_text(json.dumps(record))
    for force in (False, True):
        with pytest.raises(UserError, match="another cell, of .* on folder/Widget: give another --results"):
            evaluate(Linear(), of("widget"), results=tmp_path, force=force)
    assert json.loads(path.read_text()) == record


def test_names_that_differ_in_capitals_alone_are_submitted_apart(tmp_path: Path) -> None:
    """Who unpacks them may have a file system that does not tell them apart."""
    for category in ("widget", "Widget"):
        evaluate(Linear(), of(category), results=tmp_path)
    with pytest.raises(UserError, match="differ only in capital letters"):
        list(submit(tmp_path, tmp_path / "both.zip"))
    assert not (tmp_path / "both.zip").exists()


def test_fits_and_figures_of_any_name_have_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for category in ("../瓶子", "a/b", "x" * 300):
        fit_or_load("autoencoder", of(category), steps=1)
    fits = [path.parent for path in tmp_path.rglob("fit.json")]
    assert len({path.parent for path in fits}) == 3
    assert {path.parent.parent.name for path in fits} == {"fitted"}
    assert kept_fits.folder_of("anomalib:padim", of("brick"), {}).parts[-2] == "folder-brick-8px"
    assert stem("scores 瓶子") != stem("scores 螺丝")
