"""Images that a data set holds twice are noticed; photographs of one product are not taken for copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import shared, small_data
from PIL import Image

from bench import ArraySource, Data, Record, TestSet, TrainSet, categories, load_data
from bench.core import copies as copying
from bench.core.images import FileSource, Source


def photograph(seed: int, size: int = 64) -> np.ndarray:
    """Smooth shapes that differ from image to image."""
    rng = np.random.RandomState(seed)
    small = rng.randint(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def made_of(train: list[Source], test: list[Source], size: int = 64) -> Data:
    """The last test image is anomalous."""
    labels = [0] * (len(test) - 1) + [1]
    records = [Record(f"test/{i}", s, y) for i, (s, y) in enumerate(zip(test, labels, strict=True))]
    learned = TrainSet([Record(f"train/{i}", s) for i, s in enumerate(train)], size)
    return Data("made", "one", size, learned, TestSet(records, size))


def images(*seeds: int) -> list[Source]:
    return [ArraySource(photograph(seed)) for seed in seeds]


def test_an_image_of_the_training_in_the_test_is_noticed() -> None:
    assert made_of(images(0, 1, 2, 3), images(4, 5)).notes == ()
    (note,) = made_of(images(0, 1, 2, 3), images(2, 4, 3)).notes
    assert note.startswith("2 of 3 test images: also among the training images")
    assert "test/0, which is train/2" in note and "\n" not in note


def test_an_image_that_is_twice_in_the_test_is_noticed() -> None:
    (note,) = made_of(images(0, 1, 2, 3), images(4, 5, 4, 4)).notes
    assert note.startswith("2 of 4 test images: twice in the test set") and "test/2, which is test/0" in note


def test_another_format_makes_no_other_image(tmp_path: Path) -> None:
    files: list[Source] = []
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(photograph(9)).save(tmp_path / f"same.{suffix}")
        files.append(FileSource(tmp_path / f"same.{suffix}"))
    notes = made_of([*images(0, 1, 2), files[0]], [files[1], *images(4), files[2]]).notes
    assert len(notes) == 2 and notes[0].startswith("2 of 3") and notes[1].startswith("1 of 3")


@pytest.mark.parametrize("how", ["JPEG 75", "half", "other half"])
def test_a_near_copy_is_noticed(how: str) -> None:
    image = Image.fromarray(photograph(9, 256))
    if how == "JPEG 75":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=75)
        again = np.asarray(Image.open(buffer))
    else:
        method = Image.Resampling.LANCZOS if how == "half" else Image.Resampling.BOX
        again = np.asarray(image.resize((128, 128), method))
    train: list[Source] = [ArraySource(photograph(i, 256)) for i in (9, 1, 2, 3)]
    (note,) = made_of(train, [ArraySource(again), *images(4)], 256).notes
    assert note.startswith("1 of 2 test images: nearly the same as a training image")
    assert "test/0, which is train/0" in note


def test_surfaces_that_are_all_alike_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    plates: list[Source] = [
        ArraySource(np.clip(120 + rng.normal(0, 5, (64, 64, 3)), 0, 255).astype(np.uint8)) for _ in range(30)
    ]
    assert made_of(plates[:20], plates[20:]).notes == ()
    assert small_data().notes == ()


def test_many_images_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where their grids lie in a file."""
    moved = np.clip(photograph(2).astype(int) + 1, 0, 255).astype(np.uint8)
    data = made_of(images(*range(9)), [*images(20, 21, 22, 5, 23, 24, 20, 25), ArraySource(moved)])
    whole = data.notes
    assert [note.split(":")[0] for note in whole] == ["1 of 9 test images"] * 3
    assert "test/3, which is train/5" in whole[0] and "test/8, which is train/2" in whole[1]
    assert "test/6, which is test/0" in whole[2]
    monkeypatch.setattr(copying, "BLOCK", 2)
    monkeypatch.setattr(copying, "IN_MEMORY", 1)
    assert made_of(images(*range(9)), [r.source for r in data.test.records]).notes == whole


def test_one_image_over_and_over() -> None:
    notes = made_of(images(0, 0, 0, 0), images(0, 0)).notes
    assert [n.split(":")[0] for n in notes] == ["2 of 2 test images", "1 of 2 test images"]


def test_remarks_of_the_reader_come_first() -> None:
    data = made_of(images(0, 1, 2, 3), images(2, 4))
    told = Data(data.name, data.category, data.image_size, data.train, data.test, ("half is missing",))
    assert told.notes[0] == "half is missing" and len(told.notes) == 2
    assert told.limited(2).remarks == told.remarks


def test_photographs_of_one_product_are_no_copies() -> None:
    root = shared("data")
    for category in categories("folder", root):
        notes = load_data("folder", category=category, root=root, image_size=128).notes
        assert not [note for note in notes if "test images: " in note], category
