"""Data sets: the same bytes everywhere, the built-in readers, and what a set of images promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tree, noise_image, shared, small_data
from PIL import Image

from bench import Data, Record, TestSet, TrainSet, UserError, categories, load_data

# Of ids, labels and pixels at 64 px: a change here changes every published number of `textures`.
TEXTURES = {
    "brick": ("8c62bf10ac36bba4", "956bb44dee63d7ec"),
    "grass": ("c92ad4beebebbbdf", "d3fae24b39b3b7a0"),
    "gravel": ("d107b2cd4e326d79", "8bb4e365d7988679"),
}


@pytest.mark.parametrize("category", TEXTURES)
def test_textures_are_the_same_bytes_on_every_machine(category: str) -> None:
    data = load_data(category=category)
    assert (data.train.fingerprint[:16], data.test.fingerprint[:16]) == TEXTURES[category]


@pytest.mark.parametrize("size", [64, 97, 256, 400])
def test_textures_fit_any_size(size: int) -> None:
    data = load_data(category="grass", image_size=size)
    image, label, name = data.test[len(data.test) - 1]
    assert image.shape == (3, size, size) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1
    assert (label, name) == (1, "missing/08")
    mask = data.test.mask(len(data.test) - 1)
    assert mask is not None and mask.shape == (1, size, size) and 0 < mask.float().mean() < 0.5
    assert data.test.mask(0) is None
    assert data.train[0].shape == (3, size, size)


def test_texture_defects_change_the_masked_pixels_only() -> None:
    """Repainting: outside of its mask, an anomalous image is still the grey photograph."""
    data = load_data(category="brick")
    for i, record in enumerate(data.test.records):
        if record.label:
            image, mask = data.test.image(i), data.test.mask(i)
            assert mask is not None
            outside = image[:, ~mask[0]]
            assert (outside == outside[:1]).all(), record.id


def test_training_and_test_crops_are_from_disjoint_rows() -> None:
    from bench.datasets import textures

    assert textures.TRAIN_ROWS[1] <= textures.TEST_ROWS[0]
    largest = textures.MAX_SIDE // textures.ZOOM + 2
    assert all(rows[1] - rows[0] > largest for rows in (textures.TRAIN_ROWS, textures.TEST_ROWS))


def test_a_folder_in_the_mvtec_layout(tree: Path) -> None:
    for root in (tree, tree.parent):  # one category, or a folder of categories
        assert categories("folder", root) == ("widget",)
        data = load_data("folder", root=root, image_size=16)
        assert (len(data.train), len(data.test), sum(data.test.labels)) == (12, 12, 6)
        assert data.test[0][1:] == (1, "dent/000")
        mask = data.test.mask(0)
        assert mask is not None and mask.all()


def test_images_are_decoded_when_asked_for_and_kept_within_bounds(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.core.data.CACHE_BYTES", 3 * 3 * 16 * 16 * 4)  # three images
    data = load_data("folder", root=tree, image_size=16)
    for i in range(len(data.train)):
        data.train.image(i)
    assert len(data.train._cache) == 3


def spoil(tree: Path, what: str) -> None:
    """Damages a category in one way."""
    dent, masks = tree / "test/dent", tree / "ground_truth/dent"
    if what == "no anomalous":
        for folder in (dent, masks):
            for file in folder.iterdir():
                file.unlink()
    elif what == "no normal":
        for file in (tree / "test/good").iterdir():
            file.unlink()
    elif what == "two with one id":
        Image.open(dent / "003.png").save(dent / "003.bmp")
    elif what == "stranger":
        (dent / "notes.txt").write_text("hello")
    elif what == "no training":
        for file in (tree / "train/good").iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("what", "says"),
    [("no anomalous", "no anomalous test image"), ("no normal", "no normal test image"),
     ("two with one id", "two images with the id 'dent/003'"),
     ("stranger", "notes.txt is not an image"), ("no training", "0 normal training images")],
)  # fmt: skip
def test_a_data_set_that_cannot_be_judged_is_refused_before_any_work(tree: Path, what: str, says: str) -> None:
    spoil(tree, what)
    with pytest.raises(UserError, match=says):
        load_data("folder", root=tree, image_size=16)


@pytest.mark.parametrize("name", ["folder", "mvtec", "visa", "btad"])
def test_a_missing_root_says_the_layout_and_the_home_page(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for root, says in ((None, "needs --data-root"), (tmp_path / "no", "does not exist"), (file, "is a file")):
        with pytest.raises(UserError, match=says) as caught:
            load_data(name, category="bottle", root=root)
        assert "expected" in str(caught.value)
        assert name == "folder" or "http" in str(caught.value)


def test_an_unknown_category_suggests_the_near_one(tree: Path) -> None:
    for name, category, near in (
        ("folder", "wigdet", "widget"),
        ("mvtec", "botle", "bottle"),
        ("textures", "brik", "brick"),
    ):
        with pytest.raises(UserError, match=f"Did you mean '{near}'"):
            load_data(name, category=category, root=None if name == "textures" else tree)


def test_the_official_mvtec_layout(tmp_path: Path) -> None:
    make_tree(tmp_path / "screw")
    assert len(categories("mvtec", tmp_path)) == 15
    assert len(load_data("mvtec", category="screw", root=tmp_path, image_size=16).test) == 12
    with pytest.raises(UserError, match="wood is not in .* 1 of the 15 .* --category screw runs all"):
        load_data("mvtec", category="wood", root=tmp_path)


def test_the_official_btad_layout(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    for folder in ("train/ok", "test/ok", "test/ko", "ground_truth/ko"):
        (tmp_path / "01" / folder).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(noise_image(rng)).save(tmp_path / "01" / folder / f"{i:04}.{'bmp' if i % 2 else 'png'}")
    data = load_data("btad", category="01", root=tmp_path, image_size=16)
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (6, 12, 6)
    assert sum(data.test.mask(i) is not None for i in range(12)) == 6


def test_held_out_images_depend_on_seed_and_ids_alone() -> None:
    data = small_data(train=40)
    fit, held = data.train.split(0)
    assert (len(fit), len(held)) == (30, 10)
    backwards = TrainSet(tuple(reversed(data.train.records)), data.image_size)
    assert set(backwards.split(0)[1].ids) == set(held.ids)
    assert set(data.train.split(1)[1].ids) != set(held.ids)
    assert not set(fit.ids) & set(held.ids)


def test_a_limit_keeps_both_classes() -> None:
    test = small_data(normal=30, anomalous=10).test
    assert [len(test.first(n)) for n in (2, 8, 39, 99)] == [2, 8, 39, 40]
    assert sum(test.first(8).labels) == 2 and sum(test.first(2).labels) == 1
    with pytest.raises(UserError, match="at least 2"):
        test.first(1)


def test_a_fingerprint_changes_with_anything_that_matters() -> None:
    data = small_data()
    records = list(data.test.records)
    renamed = [Record("other", records[0].source, records[0].label), *records[1:]]
    relabelled = [Record(records[0].id, records[0].source, 1), *records[1:]]
    seen = {
        TestSet(r, s).fingerprint
        for r, s in ((records, 8), (records, 9), (renamed, 8), (relabelled, 8), (records[1:], 8), (records[::-1], 8))
    }
    assert len(seen) == 6


def test_real_images_are_read() -> None:
    root = shared("data")
    for category in categories("folder", root):
        data = load_data("folder", category=category, root=root, image_size=32)
        assert isinstance(data, Data)
        assert 0 <= data.train[0].min() < data.train[0].max() <= 1
        assert {0, 1} == set(data.test.labels)
