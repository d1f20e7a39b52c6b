"""Image files: told by content, turned upright, one meaning of a pixel, refused in one line, and never waited for."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from conftest import make_tree, noise_image
from PIL import Image

from bench import Data, Record, TestSet, TrainSet, UserError, load_data
from bench.core import headers
from bench.core.headers import read_header
from bench.core.images import ArraySource, FileSource, to_tensor

# Pillow's are told by our errors
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

FORMATS = [("png", "L"), ("png", "RGB"), ("png", "RGBA"), ("png", "I;16"), ("png", "rgb16"), ("png", "rgba16"),
           ("png", "P"), ("png", "LA"), ("jpg", "L"), ("jpg", "RGB"), ("bmp", "L"), ("bmp", "RGB"), ("tif", "L"),
           ("tif", "RGB"), ("tif", "RGBA"), ("tif", "I;16"), ("tiff", "rgb16"), ("webp", "RGB")]  # fmt: skip


@pytest.mark.parametrize(("suffix", "mode"), FORMATS)
def test_every_pixel_format_gives_the_same_image(tmp_path: Path, suffix: str, mode: str) -> None:
    """A ramp, written in each format, is read back to its own precision."""
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    colour = np.stack([ramp, 1 - ramp, np.full_like(ramp, 0.25)], -1)
    grey = mode in {"L", "LA", "I;16"}
    path = tmp_path / f"ramp.{suffix}"
    if mode in {"rgb16", "rgba16", "I;16"}:
        deep = np.round((ramp if grey else colour) * 65535).astype(np.uint16)
        if mode == "rgba16":
            deep = np.concatenate([deep, np.full((8, 8, 1), 30000, np.uint16)], -1)
        save_deep(path, deep)
    else:
        byte = np.round((ramp if grey else colour) * 255).astype(np.uint8)
        image = Image.fromarray(byte)
        image = image.quantize(64) if mode == "P" else image.convert(mode)
        options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
        image.save(path, **(options | ({"lossless": True} if suffix == "webp" else {})))
    found = to_tensor(FileSource(path).pixels(), 8)
    expected = torch.tensor(np.stack([ramp] * 3) if grey else colour.transpose(2, 0, 1))
    precise = {"I;16": 1e-5, "rgb16": 1e-5, "rgba16": 1e-5, "P": 0.12}.get(mode, 0.02 if suffix == "jpg" else 0.002)
    assert (found - expected).abs().max() < precise


def save_deep(path: Path, pixels: np.ndarray) -> None:
    """16 bit, grey or RGB(A)."""
    if path.suffix == ".png":
        order = [2, 1, 0, 3][: pixels.shape[-1]]
        assert cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., order])
    else:
        tifffile.imwrite(path, pixels, photometric="minisblack" if pixels.ndim == 2 else "rgb")


def test_resizing_is_antialiased() -> None:
    """A checkerboard of single pixels shrinks to grey, not to stripes."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert (to_tensor(board, 16) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "deep png", "deep tif", "png, late"])
def test_an_image_is_read_as_the_camera_was_held(tmp_path: Path, kind: str, orientation: int) -> None:
    """Stored so that EXIF's instructions lead back to one picture: its first row lies at `row`, its first column at
    `column` of what is stored (JEITA CP-3451, table of Orientation)."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: upright[:, ::-1].swapaxes(0, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1), 8: upright[::-1].swapaxes(0, 1),
    }[orientation]  # fmt: skip
    path = tmp_path / f"held.{kind.split(',')[0].split()[-1]}"
    save_held(path, np.ascontiguousarray(stored), orientation, kind)
    header = read_header(path)
    assert (header.width, header.height, header.orientation) == (24, 16, orientation)
    found = FileSource(path).pixels()
    assert found.dtype == (np.uint16 if "deep" in kind else np.uint8)
    difference = found / np.iinfo(found.dtype).max - upright / 255
    # of the parts' middle: JPEG blurs their edges
    assert np.abs(difference[2:6, 2:6]).max() < 0.1 and np.abs(difference[2:6, 18:22]).max() < 0.1
    assert np.abs(difference[10:14, 2:6]).max() < 0.1 and found.shape == upright.shape


def save_held(path: Path, stored: np.ndarray, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if path.suffix == ".tif":
        pixels = stored.astype(np.uint16) * 257 if "deep" in kind else stored
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    elif kind == "jpg":
        Image.fromarray(stored).save(path, exif=exif, quality=95, subsampling=0)
    elif kind == "webp":
        Image.fromarray(stored).save(path, exif=exif, lossless=True)
    else:
        Image.fromarray(stored).save(path, exif=exif)
        if kind != "png":
            chunk = path.read_bytes().split(b"eXIf", 1)
            length = int.from_bytes(chunk[0][-4:], "big")
            entry = chunk[0][-4:] + b"eXIf" + chunk[1][: length + 4]
            save_deep(path, stored.astype(np.uint16) * 257) if "deep" in kind else Image.fromarray(stored).save(path)
            content = path.read_bytes()
            at = content.index(b"IEND") - 4  # behind the pixels
            path.write_bytes(content[:at] + entry + content[at:])


def test_what_was_read_lying_on_its_side_is_another_image_now(tmp_path: Path) -> None:
    path = tmp_path / "held.png"
    save_held(path, noise_image(np.random.RandomState(0)), 6, "png")
    turned = FileSource(path).digest()
    content = path.read_bytes()
    save_held(path, noise_image(np.random.RandomState(0)), 1, "png")
    upright = FileSource(path).digest()
    assert upright == hashlib.sha256(path.read_bytes()).digest()  # stored results stay valid
    assert turned != hashlib.sha256(content).digest()


def test_broken_exif_is_no_reason_to_refuse_an_image(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(noise_image(np.random.RandomState(0))).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert FileSource(path).pixels().shape == (16, 16, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".webp", ".png"])
def test_the_suffix_is_not_believed(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(noise_image(np.random.RandomState(0))).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / f"other{suffix}")
    assert read_header(tmp_path / f"other{suffix}").format == "PNG"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"not an image", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, says: str, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"photo\." + suffix) as caught:
        FileSource(path).pixels()
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_what_another_format_would_open_is_not_opened(tmp_path: Path, suffix: str) -> None:
    """A GIF, an icon and a PPM, which Pillow reads, are not what the benchmark reads."""
    for name in ("GIF", "ICO", "PPM"):
        path = tmp_path / f"photo.{suffix}"
        Image.fromarray(noise_image(np.random.RandomState(0))).save(path, name)
        with pytest.raises(UserError, match=r"expected PNG, JPEG, BMP, TIFF or WebP: convert it"):
            FileSource(path).pixels()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_file_that_was_cut_is_found_before_any_work(tmp_path: Path, suffix: str) -> None:
    tree = make_tree(tmp_path / "widget")
    path = tree / f"test/good/cut.{suffix}"
    Image.fromarray(noise_image(np.random.RandomState(0), 64)).save(path)
    load_data("folder", root=tree, image_size=16)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UserError, match=rf"cannot read image .*cut\.{suffix}: .*; copy it again"):
        load_data("folder", root=tree, image_size=16)


def test_bytes_behind_an_image_are_no_damage(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        path = tree / f"test/good/long_{suffix}.{suffix}"
        Image.fromarray(noise_image(np.random.RandomState(0), 64)).save(path)
        path.write_bytes(path.read_bytes() + b"made by a camera")
    assert len(load_data("folder", root=tree, image_size=16).test) == 17


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "dangling", "socket"])
def test_only_a_regular_file_is_opened(tmp_path: Path, what: str) -> None:
    tree = make_tree(tmp_path / "widget")
    path = tree / "train/good/x.png"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
        shutil.copy(tree / "train/good/000.png", path / "y.png")
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path is short
            made.bind(path.name)
            os.chdir(here)
    else:
        path.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"x\.png is (a named pipe|a device|a folder|a socket|gone)"):
        load_data("folder", root=tree, image_size=16)
    if what != "folder":
        with pytest.raises(UserError, match=r"x\.png is"):
            FileSource(path).pixels()
        with pytest.raises(UserError, match=r"x\.png is"):
            FileSource(path).digest()


def test_several_pictures_in_one_file_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise_image(np.random.RandomState(i))) for i in range(2))
    for suffix in ("png", "tif", "webp"):
        path = tmp_path / f"pages.{suffix}"
        first.save(path, save_all=True, append_images=[second])
        with pytest.raises(UserError, match="holds several pictures"):
            FileSource(path).pixels()
    first.save(tmp_path / "one.tif", save_all=True)
    assert FileSource(tmp_path / "one.tif").pixels().shape == (16, 16, 3)


def test_a_phones_multi_picture_jpeg_is_its_first_picture(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise_image(np.random.RandomState(i))) for i in range(2))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "plain.jpg", "JPEG")
    assert (FileSource(tmp_path / "phone.jpg").pixels() == FileSource(tmp_path / "plain.jpg").pixels()).all()


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (12_000, 12_000)).save(path)
    with pytest.raises(UserError, match=r"12000 x 12000 pixels; at most 100 million are read: scale it down"):
        FileSource(path).pixels()
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"large.png"):
        FileSource(path).pixels()
    monkeypatch.setattr(headers, "MAX_PIXELS", 16 * 16)
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        Image.fromarray(noise_image(np.random.RandomState(0))).save(tmp_path / f"small.{suffix}")
        assert read_header(tmp_path / f"small.{suffix}").width == 16
        Image.fromarray(noise_image(np.random.RandomState(0), 17)).save(tmp_path / f"large.{suffix}")
        with pytest.raises(UserError, match=r"17 x 17 pixels"):
            read_header(tmp_path / f"large.{suffix}")


@pytest.mark.parametrize(
    ("dtype", "says"),
    [("uint32", "32-bit integer"), ("int32", "32-bit signed"), ("int16", "16-bit signed"), ("int8", "8-bit signed"),
     ("float32", "32-bit floating-point"), ("float64", "64-bit floating-point"), ("float16", "16-bit floating-point")],
)  # fmt: skip
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_that_do_not_say_what_is_white_are_refused(tmp_path: Path, dtype: str, says: str, colour: bool) -> None:
    tree = make_tree(tmp_path / "widget")
    pixels = np.arange(16 * 16 * 3).reshape(16, 16, 3)[..., : 3 if colour else 1].squeeze().astype(dtype)
    tifffile.imwrite(tree / "test/dent/009.tif", pixels, photometric="rgb" if colour else "minisblack")
    with pytest.raises(UserError, match=rf"009.tif has {says}.*; expected 8 or 16 bit integers: scale all"):
        load_data("folder", root=tree, image_size=16)
    with pytest.raises(UserError, match=says):
        FileSource(tree / "test/dent/009.tif").pixels()


def deep_data(train: int, test: int) -> Data:
    """16-bit images whose largest pixels are these."""

    def records(largest: int, labels: tuple[int, ...]) -> list[Record]:
        images = [np.full((8, 8), largest // (i + 1), np.uint16) for i in range(len(labels))]
        return [Record(str(i), ArraySource(a), y) for i, (a, y) in enumerate(zip(images, labels, strict=True))]

    return Data("deep", "one", 8, TrainSet(records(train, (0,) * 4), 8), TestSet(records(test, (0, 1)), 8))


@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (4095, 12), (3000, 12), (16383, 14), (255, 8)])
def test_fewer_bits_in_a_16_bit_file_are_refused(largest: int, bits: int) -> None:
    for train, test, where in ((largest, 65535, "train"), (65535, largest, "test")):
        with pytest.raises(
            UserError, match=rf"{where} exceeds {largest}, as if {bits} bits .* by {2 ** (16 - bits)} and"
        ):
            deep_data(train, test)


def test_16_bit_that_are_used_are_read() -> None:
    assert deep_data(65535, 20000).train[0].max() == 1


def test_12_bit_files_are_refused_however_they_are_packed(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    for path in [*tree.rglob("train/good/*.png"), *tree.rglob("test/*/*.png")]:
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16
        save_deep(path, grey)
    with pytest.raises(UserError, match="12 bits were stored in 16"):
        load_data("folder", root=tree, image_size=16)


def test_depths_are_not_mixed(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "widget")
    save_deep(tree / "test/good/deep.png", noise_image(np.random.RandomState(0)).astype(np.uint16) * 257)
    with pytest.raises(UserError, match=r"mixes 8-bit images \(.*\) and 16-bit images \(good/deep\); save all"):
        load_data("folder", root=tree, image_size=16)


def test_arrays_of_a_plug_in_that_are_no_pixels_are_refused() -> None:
    for array in (np.zeros((8, 8, 3)), np.zeros((8, 8, 2), np.uint8), np.zeros((3, 8, 8), np.uint8)):
        with pytest.raises(UserError, match="expected uint8 or uint16"):
            to_tensor(array, 8)  # type: ignore[arg-type]
