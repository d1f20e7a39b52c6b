"""Photographs that ship inside scikit-image (brick, grass, gravel) with drawn defects: nothing to download.

An image is a tile of the photograph, magnified twice. Tiles do not overlap, so no pixel of an image is in another one:
what is held out of a fit, or tested, was not seen in it. Which tile is which is drawn, so that normal images to learn
from, to hold out and to be judged on are alike. Defects of four kinds (scratch, rust stain, foreign patch, missing
texture) are drawn into tiles in eight grades, from barely visible to plain, so that the task is not saturated.
Everything is computed with integers and NumPy's frozen legacy generator, so every machine gets the same bytes.

Version 1 had crops at random places, which overlapped: a third of the tested pixels were in two test images or more,
and four fifths of the pixels of held-out images in fitted ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.data import Data, TestSet, TrainSet
from ..core.images import ArraySource, Record
from ..errors import UserError, unknown

IMAGE_SIZE = 64
HOME = "inside the scikit-image wheel, https://scikit-image.org"
LAYOUT = "none: the photographs are part of an installed package"

CATEGORIES = ("brick", "grass", "gravel")
FOREIGN = {"brick": "gravel", "grass": "brick", "gravel": "grass"}  # whose texture is the foreign patch

TAKES_ROOT = False
VERSION = 2
SIDE = 512  # of a photograph
ZOOM = 2
MAX_SIDE = 64  # larger images are these, resized: larger tiles would be too few
TRAIN_COUNT = 161  # with the test images below all 15 x 15 tiles of 34 pixels
NORMAL_COUNT = 32
GRADES = 8

RUST = (450, 800, 1024)  # how much of red, green and blue a stain swallows, of 1024
WOOD = (1024, 780, 460)  # the colour of the foreign material

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def categories(root: Path | None) -> tuple[str, ...]:
    if root is not None:
        raise UserError(
            "data set 'textures' is built in and takes no --data-root; for your own images: --dataset folder"
        )
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    if category not in categories(root):
        raise unknown("category of textures", category, CATEGORIES)
    side = min(image_size, MAX_SIDE)
    photo, foreign = photograph(category), photograph(FOREIGN[category])
    # RandomState, not default_rng: NumPy guarantees its stream for ever (NEP 19)
    rng = np.random.RandomState([CATEGORIES.index(category), side, VERSION])
    tiles = iter(_tiles(photo, side, rng))
    train = [Record(f"train/{i:03}", ArraySource(next(tiles))) for i in range(TRAIN_COUNT)]
    test = [Record(f"good/{i:03}", ArraySource(next(tiles))) for i in range(NORMAL_COUNT)]
    for kind, draw in DEFECTS.items():
        for grade in range(1, GRADES + 1):
            tile, other = next(tiles), next(_tiles(foreign, side, rng))
            paint, alpha = draw(tile.astype(np.int64), other, grade, rng)
            mask = np.where(alpha > 0, 255, 0).astype(np.uint8)
            image = ArraySource(_blend(tile, paint, alpha))
            test.append(Record(f"{kind}/{grade:02}", image, 1, ArraySource(mask.max(-1))))
    return Data(
        "textures", category, image_size, TrainSet(train, image_size), TestSet(test, image_size), version=VERSION
    )


def photograph(name: str) -> Bytes:
    """The grey photograph, uint8 (512, 512)."""
    import skimage.data

    return np.asarray(getattr(skimage.data, name)(), dtype=np.uint8)


def places(side: int, rng: np.random.RandomState) -> list[tuple[slice, slice]]:
    """Rows and columns of the tiles of a photograph, in a drawn order; no two have a pixel in common."""
    size = -(-side // ZOOM) + 2  # a border pixel on every side feeds the interpolation
    parts = [slice(start, start + size) for start in range(0, SIDE - size + 1, size)]
    return [(parts[i // len(parts)], parts[i % len(parts)]) for i in rng.permutation(len(parts) ** 2)]


def _tiles(photo: Bytes, side: int, rng: np.random.RandomState) -> Iterator[Bytes]:
    """Magnified, (side, side)."""
    return (_magnified(photo[place])[:side, :side] for place in places(side, rng))


def _magnified(tile: Bytes) -> Bytes:
    """(n, n) -> (2n - 4, 2n - 4), bilinear: without the border pixels."""
    found = tile.astype(np.int64)
    for _ in range(2):  # along one axis and, transposed, along the other
        before, here, after = found[:-2], found[1:-1], found[2:]
        found = np.stack([3 * here + before, 3 * here + after], axis=1).reshape(-1, found.shape[1]).T
    return ((found + 8) >> 4).astype(np.uint8)


def _blend(crop: Bytes, paint: Ints, alpha: Ints) -> Bytes:
    """The grey crop (H, W) moved towards paint (H, W, 3) by alpha / 1024: (H, W, 3)."""
    base = crop.astype(np.int64)[..., None]
    return np.clip((base * (1024 - alpha) + paint * alpha + 512) >> 10, 0, 255).astype(np.uint8)


def _box(side: int, low: int, high: int, rng: np.random.RandomState) -> tuple[slice, slice]:
    """A rectangle whose sides are low..high percent of the image."""
    height, width = (max(side * rng.randint(low, high + 1) // 100, 3) for _ in range(2))
    top, left = rng.randint(0, side - height + 1), rng.randint(0, side - width + 1)
    return slice(top, top + height), slice(left, left + width)


# A defect returns what is painted and how strongly, both (H, W, 3); alpha is out of 1024 and grows with the grade.


def _scratch(crop: Ints, foreign: Bytes, grade: int, rng: np.random.RandomState) -> tuple[Ints, Ints]:
    """A straight bright or dark line, two or three pixels wide at 64."""
    side = len(crop)
    ends = rng.randint(side // 8, side - side // 8, size=(2, 2)).astype(np.int64)
    if np.abs(ends[0] - ends[1]).max() < side // 3:  # too short: stretch it across the image
        ends[1] = (ends[0] + side // 2) % side
    yy, xx = np.mgrid[:side, :side].astype(np.int64)
    (y0, x0), (y1, x1) = ends
    dy, dx = y1 - y0, x1 - x0
    length2 = dy * dy + dx * dx
    along = (yy - y0) * dy + (xx - x0) * dx
    across = (yy - y0) * dx - (xx - x0) * dy
    width = max(side * (2 + grade // 5) // 64, 1)
    line = (along >= 0) & (along <= length2) & (4 * across * across <= width * width * length2)
    colour = 255 if rng.randint(2) else 0
    return np.full((side, side, 3), colour), np.repeat(line[..., None] * (300 + 90 * grade), 3, axis=2)


def _stain(crop: Ints, foreign: Bytes, grade: int, rng: np.random.RandomState) -> tuple[Ints, Ints]:
    """A round rusty spot that fades towards its rim."""
    side = len(crop)
    radius = max(side * rng.randint(10, 21) // 100, 2)
    cy, cx = rng.randint(radius, side - radius, size=2)
    yy, xx = np.mgrid[:side, :side].astype(np.int64)
    inside = np.maximum(radius * radius - (yy - cy) ** 2 - (xx - cx) ** 2, 0)
    strength = inside * (250 + 100 * grade) // (radius * radius)
    return np.zeros((side, side, 3), np.int64), strength[..., None] * np.array(RUST) >> 10


def _foreign(crop: Ints, foreign: Bytes, grade: int, rng: np.random.RandomState) -> tuple[Ints, Ints]:
    """A rectangle of another material."""
    box = _box(len(crop), 14, 32, rng)
    alpha = np.zeros((*crop.shape, 3), np.int64)
    alpha[box] = 300 + 90 * grade
    return foreign.astype(np.int64)[..., None] * np.array(WOOD) >> 10, alpha


def _missing(crop: Ints, foreign: Bytes, grade: int, rng: np.random.RandomState) -> tuple[Ints, Ints]:
    """A rectangle in which the texture is worn off: it fades to a bare, bright grey."""
    box = _box(len(crop), 18, 38, rng)
    alpha = np.zeros((*crop.shape, 3), np.int64)
    alpha[box] = 300 + 90 * grade
    bare = min(int(crop[box].sum()) // crop[box].size + 80, 235)
    return np.full((*crop.shape, 3), bare), alpha


DEFECTS = {"scratch": _scratch, "stain": _stain, "foreign": _foreign, "missing": _missing}
