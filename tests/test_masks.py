"""Masks: whatever is not black marks, thin defects stay, and each mask finds its image or is spoken of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import make_tree
from PIL import Image
from test_formats import save_held

from bench import ArraySource, Data, Record, TestSet, UserError, load_data
from bench.core.images import MaskSource

BOX = (slice(4, 10), slice(2, 12))  # of 16 x 16 pixels
MARKS = np.zeros((16, 16), bool)
MARKS[BOX] = True


def painted(dtype: str, *values: float) -> np.ndarray:
    """Each of the values in a part of the box."""
    mask = np.zeros((16, 16), dtype)
    parts = np.array_split(np.arange(4, 10), len(values))
    for rows, value in zip(parts, values, strict=True):
        mask[rows[0] : rows[-1] + 1, BOX[1]] = value
    return mask


def save(path: Path, kind: str) -> None:
    grey = painted("uint8", 255)
    if kind in {"0/1", "127", "classes", "dim"}:
        values = {"0/1": (1,), "127": (127,), "classes": (1, 2, 3), "dim": (3, 200)}[kind]
        Image.fromarray(painted("uint8", *values)).save(path)
    elif kind == "1 bit":
        Image.fromarray(grey).convert("1").save(path)
    elif kind == "colours":
        colours = np.stack([painted("uint8", 200, 0), painted("uint8", 0, 0), painted("uint8", 0, 9)], -1)
        Image.fromarray(colours).save(path)
    elif kind == "palette":
        image = Image.fromarray(painted("uint8", 1, 2))
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(path)
    elif kind == "palette, white first":
        image = Image.fromarray(1 - painted("uint8", 1))
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(path)
    elif kind == "alpha":  # drawn on a transparent layer
        seen = np.stack([painted("uint8", 9)] * 3 + [grey], -1)
        seen[0, 0] = (255, 255, 255, 0)
        Image.fromarray(seen).save(path)
    elif kind == "opaque":
        Image.fromarray(np.dstack([grey] * 3 + [np.full_like(grey, 255)])).save(path)
    elif kind in {"uint16", "uint32", "int32", "int16", "float32", "float64"}:
        tifffile.imwrite(path, painted(kind, 1, 2), photometric="minisblack")
    elif kind == "16-bit PNG":
        Image.fromarray(painted("uint16", 1, 300)).save(path)
    elif kind == "16-bit colour":
        tifffile.imwrite(path, np.stack([painted("uint16", 1, 300)] * 3, -1), photometric="rgb")
    else:
        Image.fromarray(grey).save(path, quality=95)


KINDS = [("0/1", "png"), ("127", "png"), ("classes", "png"), ("dim", "bmp"), ("1 bit", "png"), ("colours", "png"),
         ("palette", "png"), ("palette, white first", "png"), ("alpha", "png"), ("opaque", "png"), ("uint16", "tif"),
         ("uint32", "tif"), ("int32", "tif"), ("float32", "tif"), ("float64", "tif"), ("int16", "tif"),
         ("16-bit PNG", "png"), ("16-bit colour", "tif"),
         ("lossy", "jpg"), ("lossy", "webp")]  # fmt: skip


@pytest.mark.parametrize(("kind", "suffix"), KINDS)
def test_whatever_is_not_black_marks(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"mask.{suffix}"
    save(path, kind)
    found = MaskSource((path,)).pixels()
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 255}
    assert ((found > 0) == MARKS).mean() > (0.95 if kind == "lossy" else 0.9999)


def mask_of(mask: np.ndarray, size: int) -> torch.Tensor:
    image = ArraySource(np.zeros((8, 8), np.uint8))
    found = TestSet([Record("a", image, 1, ArraySource(mask))], size).mask(0)
    assert found is not None and found.shape == (1, size, size) and found.dtype == torch.bool
    return found[0]


def test_a_thin_defect_stays_when_its_mask_is_made_smaller() -> None:
    """A scratch of one pixel in 1,000: at 64 it is one pixel wide, and at any place where it was."""
    scratch = np.zeros((1000, 1000), np.uint8)
    scratch[500, 100:900] = 1
    small = mask_of(scratch, 64)
    assert small[32, 7:57].all() and small.sum() <= 2 * 52
    dot = np.zeros((900, 700), np.uint8)
    dot[899, 699] = 255
    assert mask_of(dot, 32).sum() == 1 and mask_of(dot, 32)[31, 31]


def test_a_mask_of_the_right_size_is_not_changed() -> None:
    assert (mask_of(painted("uint8", 1), 16).numpy() == MARKS).all()
    assert mask_of(np.zeros((40, 30), np.uint8), 16).sum() == 0


def test_a_mask_is_turned_upright_like_its_image(tmp_path: Path) -> None:
    lying = np.zeros((16, 8, 3), np.uint8)
    lying[0] = 255
    save_held(tmp_path / "mask.png", lying, 6, "png")  # its first row is the right-hand side
    found = MaskSource((tmp_path / "mask.png",)).pixels()
    assert found.shape == (8, 16) and found[:, 15].all() and not found[:, :15].any()


def read(tree: Path) -> Data:
    return load_data("folder", root=tree, image_size=16)


def masked(data: Data) -> list[str]:
    return [r.id for r in data.test.records if r.mask is not None]


ALL = [f"dent/{i:03}" for i in range(6)]


@pytest.mark.parametrize(
    "name",
    ["{}.png", "{}_mask.png", "{}-mask.png", "{}_MASK.PNG", "{}.tif", "{}_mask.bmp", "{}.png.png", "{}.png_mask.png",
     "{}_gt.png", "{}_label.png", "mask_{}.png", "{}/000.png"],
)  # fmt: skip
def test_a_mask_finds_its_image(tmp_path: Path, name: str) -> None:
    tree = make_tree(tmp_path / "widget")
    for i, path in enumerate(sorted((tree / "ground_truth/dent").iterdir())):
        target = path.parent / name.format(f"{i:03}")
        target.parent.mkdir(exist_ok=True)
        Image.open(path).save(path.parent / "made.png")
        Image.open(path.parent / "made.png").save(target)
        path.unlink(missing_ok=True) if path != target else None
        (path.parent / "made.png").unlink()
    data = read(tree)
    assert masked(data) == ALL and data.remarks == ()


def test_several_masks_of_an_image_are_united(tmp_path: Path) -> None:
    """As in MVTec LOCO: a folder per image."""
    tree = make_tree(tmp_path / "widget")
    (tree / "ground_truth/dent/003_mask.png").unlink()
    (tree / "ground_truth/dent/003").mkdir()
    for i in range(2):
        mask = np.zeros((16, 16), np.uint8)
        mask[i] = i + 1
        Image.fromarray(mask).save(tree / f"ground_truth/dent/003/{i:03}.png")
    data = read(tree)
    found = data.test.mask(3)
    assert found is not None and found[0, :2].all() and not found[0, 2:].any()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tree / "ground_truth/dent/003/009.png")
    with pytest.raises(UserError, match="differ in size"):
        read(tree).test.mask(3)


def test_masks_and_images_that_do_not_meet_are_spoken_of(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    (tree / "test/dent/003.png").unlink()
    (tree / "ground_truth/dent/001_mask.png").unlink()
    data = read(tree)
    assert masked(data) == ["dent/000", "dent/002", "dent/004", "dent/005"]
    assert data.remarks == (
        "no mask for 1 of 5 anomalous test images (such as dent/001)",
        "no test image belongs to dent/003_mask.png of ground_truth",
    )
    (tree / "ground_truth/dent").rename(tree / "ground_truth/dant")
    assert "belongs to ground_truth/dant of" in read(tree).remarks[1]


def test_an_image_with_two_masks_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    mask = tree / "ground_truth/dent/003_mask.png"
    Image.open(mask).save(mask.with_name("003.bmp"))
    with pytest.raises(UserError, match=r"dent/003.png has two masks, .*003.bmp and .*003_mask.png; keep one"):
        read(tree)


def test_a_mask_of_another_size_is_scaled_and_of_another_shape_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    path = tree / "ground_truth/dent/003_mask.png"
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(path)
    found = read(tree).test.mask(3)
    assert found is not None and found.all()
    Image.fromarray(np.full((16, 8), 255, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"003_mask.png \(8 x 16\) has not the shape of .*dent/003.png \(16 x 16\)"):
        read(tree)


def test_a_broken_mask_is_found_before_any_work(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    path = tree / "ground_truth/dent/003_mask.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="003_mask.png"):
        read(tree)
