"""Folders as people have them: read, or one line that says what would help; never another label without a word."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tree, noise_image
from PIL import Image

from bench import Data, UserError, categories, load_data


def read(root: Path, name: str = "folder", category: str | None = None) -> Data:
    return load_data(name, category=category, root=root, image_size=16)


def refusal(root: Path, name: str = "folder", category: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(root, name, category)
    said = str(caught.value)
    assert "\n" not in said and said.isprintable()
    return said


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise_image(np.random.RandomState(0))).save(path)


@pytest.mark.parametrize("name", ["Good", "OK", "ok", "Normal", "nominal", "defect-free", "No Defect"])
@pytest.mark.parametrize("where", ["test", "train"])
def test_normal_images_are_normal_however_their_folder_is_called(tree: Path, name: str, where: str) -> None:
    before = read(tree)
    (tree / where / "good").rename(tree / where / name)
    data = read(tree)
    assert sorted(data.test.labels) == sorted(before.test.labels) and len(data.train) == len(before.train)


@pytest.mark.parametrize("name", ["ok", "Good", "normal"])
def test_two_folders_of_normal_images_are_refused(tree: Path, name: str) -> None:
    put(tree / "test" / name / "000.png")
    said = refusal(tree)
    assert "good" in said and name in said and "both names of normal images" in said


@pytest.mark.parametrize("name", ["good_2", "normal (copy)", "OK1", "goods"])
def test_a_folder_that_may_be_normal_is_asked_about(tree: Path, name: str) -> None:
    put(tree / "test" / name / "000.png")
    assert "may hold normal images or defects" in refusal(tree)


@pytest.mark.parametrize("name", ["not_good", "nok", "NG", "ko", "no_good", "bad", "abnormal"])
def test_a_defect_is_a_defect(tree: Path, name: str) -> None:
    put(tree / "test" / name / "000.png")
    assert sum(read(tree).test.labels) == 7


def test_a_test_without_a_normal_folder_says_which_names_are_normal(tree: Path) -> None:
    (tree / "test/good").rename(tree / "test/fine")
    said = refusal(tree)
    assert "holds dent, fine" in said and "called good, ok" in said and "no normal test image" in said


@pytest.mark.parametrize(
    "name",
    ["Thumbs.db", "desktop.ini", ".DS_Store", "._000.png", "000.png:Zone.Identifier", "Icon\r", "ehthumbs.db"],
)
@pytest.mark.parametrize("where", ["train/good", "test/good", "test/dent", "test", "ground_truth/dent", "."])
def test_what_file_managers_leave_behind_is_looked_past(tree: Path, where: str, name: str) -> None:
    before = read(tree)
    (tree / where / name).write_bytes(b"junk")
    data = read(tree)
    assert data.test.ids == before.test.ids and data.train.ids == before.train.ids and data.remarks == ()


def test_folders_among_images(tree: Path) -> None:
    (tree / "train/good/cam1").mkdir()
    (tree / "test/good/__MACOSX").mkdir()
    (tree / "test/good/__MACOSX/000.png").write_bytes(b"junk")
    assert len(read(tree).train) == 12
    put(tree / "train/good/cam1/inside/000.png")
    assert "holds images itself (inside/000.png); move them into" in refusal(tree)


def test_images_beside_the_folders_of_the_test_are_not_dropped_without_a_word(tree: Path) -> None:
    put(tree / "test/lonely.png")
    assert "lonely.png lies beside the folders" in refusal(tree)


def test_a_file_that_is_no_image_may_have_been_meant(tree: Path) -> None:
    (tree / "test/dent/notes.txt").write_text("hello")
    assert "notes.txt is not an image" in refusal(tree)


def test_folders_that_are_not_read_are_spoken_of(tree: Path) -> None:
    put(tree / "train/bad/000.png")
    put(tree / "validation/good/000.png")
    assert read(tree).remarks == ("not read in widget: train/bad, validation; only train/good is learned",)


def test_capital_letters(tree: Path) -> None:
    before = read(tree)
    for name in ("train", "test", "ground_truth"):
        (tree / name).rename(tree / name.upper())
    (tree / "TEST/dent").rename(tree / "TEST/Dent")
    data = read(tree)
    assert data.test.labels == [*before.test.labels[:0], *data.test.labels] and sum(data.test.labels) == 6
    assert sum(r.mask is not None for r in data.test.records) == 6
    (tree / "train").mkdir()
    assert "holds TRAIN and train; keep one" in refusal(tree)


def test_mvtec_loco_is_read(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "loco" / "pushpins")
    for name in ("test", "ground_truth"):
        (tree / name / "dent").rename(tree / name / "logical_anomalies")
    for i in range(6):
        mask = tree / f"ground_truth/logical_anomalies/{i:03}_mask.png"
        (tree / f"ground_truth/logical_anomalies/{i:03}").mkdir()
        mask.rename(tree / f"ground_truth/logical_anomalies/{i:03}/000.png")
    put(tree / "validation/good/000.png")
    data = read(tree.parent)
    assert all(r.mask is not None for r in data.test.records if r.label)
    assert "validation" in data.remarks[0]
    assert "pushpins is not part of it: --dataset folder reads it" in refusal(tree.parent, "mvtec", "pushpins")
    assert "pushpins: --dataset folder" in refusal(tree.parent, "mvtec", "bottle")


def test_mvtec_ad_2_is_told_its_reader(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "ad2" / "can")
    (tree / "test/dent").rename(tree / "test/bad")
    (tree / "ground_truth/dent").rename(tree / "ground_truth/bad")
    (tree / "test").rename(tree / "test_public")
    (tree / "ground_truth").rename(tree / "test_public/ground_truth")
    for root in (tree, tree.parent, tmp_path):
        for name, category in (("folder", None), ("mvtec", "bottle")):
            assert "MVTec AD 2: --dataset mvtec-ad-2 --data-root" in refusal(root, name, category)
    (tree / "test_public").rename(tree / "test")  # the half of it
    assert "masks belong beside test" in refusal(tree)
    (tree / "test/ground_truth").rename(tree / "ground_truth")
    assert sum(r.mask is not None for r in read(tree.parent).test.records) == 6


def test_visa_after_its_preparation_script(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "visa_pytorch" / "1cls" / "candle")
    for name in ("test", "ground_truth"):
        (tree / name / "dent").rename(tree / name / "bad")
    for mask in (tree / "ground_truth/bad").iterdir():
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    assert f"--dataset folder --data-root {tree}" in refusal(tree, "visa", "candle")
    for root in (tree.parent, tree.parents[1]):
        said = refusal(root, "visa", "candle")
        assert f"--dataset folder --data-root {tree.parent}" in said and "preparation script" in said
    assert sum(r.mask is not None for r in read(tree.parent).test.records) == 6


def test_visa_as_it_is_downloaded_is_not_a_folder_of_categories(tmp_path: Path) -> None:
    (tmp_path / "VisA/split_csv").mkdir(parents=True)
    (tmp_path / "VisA/split_csv/1cls.csv").write_text("object,split,label,image,mask\n")
    for name, category in (("folder", None), ("visa", "candle")):
        assert f"--dataset visa --data-root {tmp_path / 'VisA'}" in refusal(tmp_path, name, category)


def test_one_downloaded_category_and_a_category_that_is_missing(tmp_path: Path) -> None:
    make_tree(tmp_path / "bottle")
    assert len(categories("mvtec", tmp_path)) == 15
    assert "holds 1 of the 15 categories of mvtec: --category bottle" in refusal(tmp_path, "mvtec", "cable")


def test_a_root_that_is_one_level_off(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "images" / "bottle")
    right = f"--data-root {tmp_path / 'images'}"
    for name in ("mvtec", "folder"):
        for root in (tmp_path, tree / "train", tree / "train/good", tree / "test"):
            assert right in refusal(root, name, "bottle")
    assert f"{right} --category bottle" in refusal(tree, "mvtec", "bottle")
    assert read(tree, category="bottle").category == "bottle"
    (tmp_path / "elsewhere/empty").mkdir(parents=True)
    assert "expected CATEGORY/{train/good" in refusal(tmp_path / "elsewhere")


def test_a_category_that_lacks_its_test_is_not_left_out_without_a_word(tmp_path: Path) -> None:
    make_tree(tmp_path / "one")
    shutil.rmtree(make_tree(tmp_path / "two") / "test")
    assert categories("folder", tmp_path) == ("one", "two")
    assert "two is not laid out as expected" in refusal(tmp_path, category="two")


def test_a_folder_that_may_not_be_listed_is_in_nobodys_way(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, listed = tree.parent / "lost+found", Path.iterdir
    closed.mkdir()

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert categories("folder", tree.parent) == ("widget",)
    assert "there are categories in" in refusal(tree.parents[1])
    closed = tree
    assert "no category in" in refusal(tree.parent)


def test_a_home_folder_is_found(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree.parent))
    assert categories("folder", "~") == ("widget",) == categories("folder", "~/widget")
    monkeypatch.setattr(Path, "expanduser", lambda self: exec("raise RuntimeError('no home')"))
    assert "there is no such home folder" in refusal(Path("~nobody/x"))


@pytest.mark.parametrize("root", ["x" * 5000, "a\0b", "no/where"])
@pytest.mark.parametrize("name", ["folder", "mvtec", "btad", "visa"])
def test_a_root_that_cannot_be(root: str, name: str) -> None:
    said = refusal(Path(root), name, "bottle")
    assert "--data-root" in said and "expected" in said


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / os.fsdecode(b"caf\xe9"))
    for folder, name in (("test/good", b"\xff.png"), ("train/good", b"a\nb.png"), ("test/dent", b"\xc3\xa9.png")):
        put(tree / folder / os.fsdecode(name))
    (tree / "test/dent").rename(tree / "test" / os.fsdecode(b"d\xe9nt"))
    (tree / "ground_truth/dent").rename(tree / "ground_truth" / os.fsdecode(b"d\xe9nt"))
    data = read(tree)
    assert data.category == "caf%E9" and categories("folder", tmp_path) == ("caf%E9",)
    assert read(tmp_path, category="caf%E9").test.fingerprint == data.test.fingerprint
    assert "good/%FF" in data.test.ids and "d%E9nt/000" in data.test.ids and "d%E9nt/é" in data.test.ids
    assert "train/good/a%0Ab" in data.train.ids
    assert sum(r.mask is not None for r in data.test.records) == 6
    (tree / "test/good" / os.fsdecode(b"\xfe\n.png")).write_bytes(b"junk")
    assert "%FE%0A.png is not an image" in refusal(tree)


def test_a_name_that_is_as_long_as_names_may_be(tree: Path) -> None:
    name = "x" * 251
    put(tree / f"test/good/{name}.png")
    assert f"good/{name}" in read(tree).test.ids


@pytest.mark.parametrize("other", ["003.bmp", "003.PNG", "003.jpeg"])
def test_one_stem_twice_is_refused_with_both_names(tree: Path, other: str) -> None:
    put(tree / f"test/dent/x{other}")
    (tree / f"test/dent/x{other}").rename(tree / f"test/dent/{other}")
    said = refusal(tree)
    assert "two images with the id 'dent/003'" in said and other in said and "003.png" in said
    (tree / f"test/dent/{other}").rename(tree / f"test/dent/A{other}")
    put(tree / f"test/dent/a{other}")
    assert {"dent/A003", "dent/a003"} < set(read(tree).test.ids)
