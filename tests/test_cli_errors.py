"""Bad input: one line, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run, on_tree, one_line, read
from conftest import MEAN as PLUGIN

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--detector", "advrat"), "Did you mean 'advrad'"),
        (("--attack", "pdg-linf"), "Did you mean 'pgd-linf'"),
        (("--attack", "pgd-l3"), "no attack named 'pgd-l3'"),
        (("--dataset", "foldr"), "Did you mean 'folder'"),
        (("--category", "wigdet"), "Did you mean 'widget'"),
        (("--eps", "-2/255"), "must be above 0"),
        (("--eps", "0"), "must be above 0"),
        (("--eps", "small"), "is not a number"),
        (("--eps", "nan"), "is not a number"),
        (("--eps", "2"), "did you mean 2/255?"),
        (("--eps", "1/255,,2/255"), "has an empty name"),
        (("--attack", "pgd-l2", "--eps", "1000"), "longer than any change"),
        (("--attack", "pgd-l1", "--eps", "1000"), "longer than any change"),
        (("--attack", "pgd-l0", "--eps", "1000"), "eps counts pixels"),
        (("--attack", "pgd-l0"), "expected a whole number of pixels"),
        (("--targets", "none"), "not one of 'both', 'normal', 'anomalous'"),
        (("--data-root", "nowhere"), "does not exist"),
        (("--attack-param", "steps=0"), "steps must be at least 1"),
        (("--attack-param", "stps=3"), "Did you mean 'steps'"),
        (("--attack-param", "steps"), "name=value"),
        (("--limit", "1"), "at least 2"),
        (("--batch-size", "0"), "--batch-size must be at least 1"),
        (("--draws", "0"), "--draws must be at least 1"),
        (("--image-size", "4"), "--image-size must be at least 8"),
        (("--device", "quantum"), "--device quantum cannot be used"),
        (("--image-size", "big"), "--image-size big is no whole number"),
        (("--goal", "win"), "'win' is not one of 'rank', 'threshold'"),
        (("--attack", "pgd-l2", "--eps", "1/255,1000"), "longer than any change"),
        (("--save-images", "0"), "--save-images must be at least 1"),
        (("--results", ""), "expected a file or a folder, got nothing"),
        (("--results", "s3://bucket/results"), "s3://bucket/results is no folder: cells need locks and renames"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    run_cli: Run, tree: Path, plugin: str, results: Path, change: tuple[str, ...], says: str
) -> None:
    code, _, err = run_cli("run", "--detector", plugin, *on_tree(tree, results), *change)
    assert code == 2
    assert says in one_line(err)
    assert not results.exists()


def test_results_that_are_a_file(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    results.write_text("")
    for command in (("run", "--detector", plugin, *on_tree(tree, results)), ("report", "--results", results)):
        code, _, err = run_cli(*command)
        assert code == 2 and "is a file" in one_line(err)


def test_a_data_root_that_is_a_file(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    file = tree / "test/good/000.png"
    code, _, err = run_cli("run", "--detector", plugin, *on_tree(file, results))
    assert code == 2 and "is a file; a folder is needed" in one_line(err)


def test_a_broken_image_stops_the_run_and_is_named(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    (tree / "test/dent/002.png").write_bytes(b"broken")
    code, _, err = run_cli("run", "--detector", plugin, *on_tree(tree, results))
    assert code == 2 and "test/dent/002.png" in one_line(err)


def test_an_image_whose_pixels_are_damaged_is_named_before_the_fit(
    run_cli: Run, tree: Path, results: Path, tmp_path: Path
) -> None:
    """Its header is whole."""
    picture = tree / "test/dent/002.png"
    whole = bytearray(picture.read_bytes())
    place = whole.index(b"IDAT") + 20
    whole[place : place + 4] = bytes(255 - value for value in whole[place : place + 4])
    picture.write_bytes(whole)
    fits = tmp_path / "fits.py"
    fits.write_text(PLUGIN.replace("self.mean = ", f"open({str(tmp_path / 'fitted')!r}, 'w'); self.mean = "))
    code, _, err = run_cli("run", "--detector", f"{fits}:Mean", *on_tree(tree, results))
    assert code == 2 and "test/dent/002.png" in one_line(err)
    assert not (tmp_path / "fitted").exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [("x.mean((1, 2, 3)) * float('nan')", "the score nan; scores must be finite"),
     ("x.mean((1, 2, 3)) * 0 + 3", "a constant score ranks nothing"), ("1 / 0", "ZeroDivisionError")],
)  # fmt: skip
def test_a_bad_score_is_one_line(run_cli: Run, tree: Path, results: Path, tmp_path: Path, body: str, says: str) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(PLUGIN.replace("(x - self.mean).abs().pow(self.power).flatten(1).sum(1)", body))
    code, _, err = run_cli("run", "--detector", f"{bad}:Mean", *on_tree(tree, results))
    assert code == 2 and says in one_line(err)


def test_nothing_to_report(run_cli: Run, results: Path) -> None:
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "does not exist; `bench run` makes it" in one_line(err)
    results.mkdir()
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "no finished results" in one_line(err)


def test_results_of_another_schema(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    assert run_cli("run", "--detector", plugin, *on_tree(tree, results))[0] == 0
    record = next(results.rglob("run.json"))
    record.write_text(json.dumps({**read(record), "schema": 1}))
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "was written by another version (schema 1, this one reads 3)" in one_line(err)
    record.write_text("{")
    code, _, err = run_cli("report", "--results", results)
    assert code == 2 and "is not JSON" in one_line(err)


def test_a_tampered_checkpoint(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    command = ("run", "--detector", plugin, *on_tree(tree, results))
    assert run_cli(*command)[0] == 0
    from bench.system.cache import cache_folder

    for model in (cache_folder() / "fitted/folder-widget-16px").rglob("model.safetensors"):
        model.write_bytes(b"\x80\x04" + model.read_bytes())
    before = next(results.rglob("samples.csv")).read_bytes()
    code, _, err = run_cli(*command, "--force")
    assert code == 0 and "was changed after it was written" in " ".join(err.split())
    assert next(results.rglob("samples.csv")).read_bytes() == before
