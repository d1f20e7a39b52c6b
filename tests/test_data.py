"""Data sets: the same bytes everywhere, the built-in readers, and what a set of images promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tree, noise_image, shared, small_data
from PIL import Image

from bench import Data, Record, TestSet, TrainSet, UserError, categories, load_data
from bench.core.images import to_tensor
from bench.datasets import textures

# Of ids, labels and pixels at 64 px: a change here is another version of `textures`.
TEXTURES = {
    "brick": ("bb6a026f19b89181", "e7f18de7e432a3ef"),
    "grass": ("cf5bc64973d594e9", "5fde49b8445313dd"),
    "gravel": ("b3807bf8e9b88815", "ecbb9625ed847a9c"),
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


@pytest.mark.parametrize("side", [16, 33, 64])
def test_no_pixel_of_a_photograph_is_in_two_texture_images(side: int) -> None:
    """The tiles do not overlap, and every image is a tile of its own: train, held out or test."""
    data = load_data(category="gravel", image_size=side)
    seed = [textures.CATEGORIES.index("gravel"), side, data.version]
    places = textures.places(side, np.random.RandomState(seed))
    covered = np.zeros((textures.SIDE, textures.SIDE), int)
    for place in places:
        covered[place] += 1
    assert covered.max() == 1 and covered[covered == 0].size < 0.2 * covered.size
    records, half = [*data.train.records, *data.test.records], side // 2
    photo = textures.photograph("gravel").astype(float) / 255
    assert len(records) <= len(places)
    for record, place in zip(records, places, strict=False):
        if not record.label:
            tile = photo[place]
            for _ in range(2):  # what two pixels side by side have of the three that they are made of
                tile = ((tile[:-2] + 6 * tile[1:-1] + tile[2:]) / 8).T
            image = to_tensor(record.source.pixels(), side)[0, : 2 * half, : 2 * half].numpy()
            halved = image.reshape(half, 2, half, 2).mean((1, 3))
            assert np.abs(halved - tile[:half, :half]).max() < 1 / 255, record.id


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
    [("no anomalous", "dent holds no image"), ("no normal", "no normal test image"),
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
