"""Damaged files and random trees: an image, data, or a UserError of one line; nothing else, and nothing hangs."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import make_tree, noise_image
from PIL import Image

from bench import UserError, categories, load_data
from bench.core.images import FileSource, MaskSource, to_tensor

# Pillow's are told by our errors
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SEEDS = 12  # times FORMATS, times two readers


def encoded(name: str, image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """A whole file of every kind that is read or refused by its header."""
    colour = Image.fromarray(noise_image(np.random.RandomState(0), 24))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "png": encoded("PNG", colour, exif=exif), "png grey": encoded("PNG", colour.convert("L")),
        "png palette": encoded("PNG", colour.quantize(8)), "png 1": encoded("PNG", colour.convert("1")),
        "png alpha": encoded("PNG", colour.convert("RGBA")), "apng": encoded("PNG", colour, save_all=True,
                                                                            append_images=[colour.convert("L")]),
        "png 16": encoded("PNG", Image.fromarray(np.full((24, 24), 40000, np.uint16))),
        "jpg": encoded("JPEG", colour, exif=exif), "jpg grey": encoded("JPEG", colour.convert("L")),
        "jpg cmyk": encoded("JPEG", colour.convert("CMYK")),
        "jpg progressive": encoded("JPEG", colour, progressive=True),
        "mpo": encoded("MPO", colour, save_all=True, append_images=[colour]),
        "bmp": encoded("BMP", colour), "bmp palette": encoded("BMP", colour.quantize(8)),
        "webp": encoded("WEBP", colour, exif=exif), "webp lossless": encoded("WEBP", colour, lossless=True),
        "webp animated": encoded("WEBP", colour, save_all=True, append_images=[colour.rotate(90)]),
        "tif": encoded("TIFF", colour), "tif lzw": encoded("TIFF", colour, compression="tiff_lzw"),
        "tif jpeg": encoded("TIFF", colour, compression="jpeg"),
        "tif pages": encoded("TIFF", colour, save_all=True, append_images=[colour]),
        "gif": encoded("GIF", colour), "ppm": encoded("PPM", colour), "ico": encoded("ICO", colour),
    }  # fmt: skip
    deep: dict[str, np.ndarray] = {
        "tif 16": np.full((24, 24, 3), 40000, np.uint16), "tif float": np.ones((24, 24), np.float32),
        "tif 32": np.ones((24, 24), np.uint32), "bigtif": np.full((24, 24, 3), 40000, np.uint16),
    }  # fmt: skip
    for name, pixels in deep.items():
        buffer = io.BytesIO()
        colours = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(buffer, pixels, photometric=colours, bigtiff=name == "bigtif")
        made[name] = buffer.getvalue()
    return made


SAMPLES = samples()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, overwritten, zeroed, doubled or shifted; most often near the start, where the sizes are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(min(len(data), rng.choice((40, 300, len(data))))) if data else 0
        how = rng.randrange(7)
        if how == 0:
            del data[at:]
        elif how == 1:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 2:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        elif how == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif how == 4:
            del data[at : at + rng.randrange(1, 20)]
        elif how == 5:
            data[at:at] = data[at : at + 200]
        else:
            data[at : at + 60] = rng.randbytes(60)
    return bytes(data)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_file_is_an_image_or_one_line(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    refused = 0
    for seed in range(SEEDS):
        content = damaged(SAMPLES[kind], random.Random(f"{kind} {seed}"))
        path = tmp_path / f"{seed}.png"
        path.write_bytes(content)
        for source in (FileSource(path), MaskSource((path,))):
            try:
                pixels = source.pixels()
                assert to_tensor(pixels, 8).shape == (3, 8, 8)
                source.digest()
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and path.name in str(error), error
    assert refused  # the damage was some


def test_the_samples_are_whole(tmp_path: Path) -> None:
    """So that the fuzzing above starts from what is read: all but these."""
    unread = set()
    for kind, content in SAMPLES.items():
        path = tmp_path / "x.png"
        path.write_bytes(content)
        try:
            FileSource(path).pixels()
        except UserError:
            unread.add(kind)
    assert unread == {"apng", "webp animated", "tif pages", "tif float", "tif 32", "gif", "ppm", "ico"}


NAMES = ["train", "test", "good", "Good", "ok", "ground_truth", "dent", "validation", "test_public", "widget", ".x",
         "Test", "Thumbs.db", "000.png", "000_mask.png", "001.tif", "a\nb.png", os.fsdecode(b"\xff.png"),
         "x" * 200 + ".jpg",
         "split_csv", "1cls.csv", "candle", "bottle", "note.txt", "000"]  # fmt: skip


def grow(root: Path, rng: random.Random) -> None:
    """Moves, copies, renames, replaces or removes something in the tree."""
    everything = sorted(root.rglob("*"))
    place = rng.choice(everything)
    target = rng.choice([root, *(p for p in everything if p.is_dir())]) / rng.choice(NAMES)
    how = rng.randrange(7)
    try:
        if how < 3:
            place.rename(target)
        elif how == 3:
            target.symlink_to(place)
        elif how == 4:
            os.mkfifo(target)
        elif how == 5:
            target.mkdir()
        else:
            target.write_bytes(damaged(SAMPLES[rng.choice(list(SAMPLES))], rng))
    except OSError:  # into itself, onto a folder, ...
        pass


@pytest.mark.parametrize("seed", range(60))
def test_a_random_tree_is_data_or_one_line(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    root = tmp_path / "root"
    make_tree(root / rng.choice(("widget", "bottle", "candle")), 6, 3, 3)
    for _ in range(rng.randrange(1, 8)):
        grow(root, rng)
    for name, category in (("folder", None), ("mvtec", "bottle"), ("visa", "candle"), ("btad", "01")):
        for place in (root, root / "widget"):
            try:
                chosen = category or categories(name, place)[0]
                data = load_data(name, category=chosen, root=place, image_size=16)
                assert len(set(data.test.ids)) == len(data.test) and data.test.fingerprint
                assert all("\n" not in note for note in data.notes)
            except UserError as error:
                assert "\n" not in str(error) and str(error).encode(), error
