"""From an image file to its pixels, upright; and from a mask file to what it marks."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import UserError
from .formats import unreadable
from .headers import Header, read_header
from .names import printable

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Samples = npt.NDArray[np.generic]
"""(H, W) or (H, W, C): numbers of any type."""
Marks = npt.NDArray[np.bool_]
"""(H, W)"""


def decode(path: Path) -> Pixels:
    """(H, W) or (H, W, 3), uint8 or uint16, upright. Raises UserError, naming the file, if it holds anything else."""
    header = read_header(path)
    refuse_depth(path, header)
    array = _upright_samples(path, header, alpha=False)
    if array.dtype != (np.uint8 if header.bits == 8 else np.uint16):
        raise UserError(f"image {printable(path)} has pixels of a kind that is not read; save it as grey or RGB PNG")
    return cast(Pixels, array[..., :3] if array.ndim == 3 else array)


def refuse_depth(path: Path, header: Header) -> None:
    """Raises UserError if the largest value that a pixel can have is not white."""
    if header.kind != "integer" or header.bits not in (8, 16):
        raise UserError(
            f"image {printable(path)} has {header.bits}-bit {header.kind} pixels, of which none says what is white; "
            "expected 8 or 16 bit integers: scale all images of the data set alike and save them as PNG"
        )


def decode_mask(path: Path) -> Marks:
    """True where the mask is neither black nor wholly transparent, upright.

    Whatever number stands for an anomaly marks it: 255, 1, a class, a colour, of any depth. Only where lossy
    compression blurs the edges (JPEG, most WebP) a pixel marks from half of the mask's largest value on.
    Raises UserError, naming the file, if it cannot be read.
    """
    header = read_header(path)
    samples = _upright_samples(path, header, alpha=True)
    colours = samples[..., :3] if samples.ndim == 3 else samples[..., None]
    marks = (colours != 0).any(-1)
    if header.lossy:
        brightest = colours.max(-1)
        marks &= brightest * 2.0 >= brightest.max()
    if samples.shape[2:] == (4,):
        marks &= samples[..., 3] != 0
    return cast(Marks, marks)


def _upright_samples(path: Path, header: Header, *, alpha: bool) -> Samples:
    try:
        deep = header.bits > (32 if header.channels == 1 else 8)
        array = (_by_opencv if deep else _by_pillow)(path, header, alpha)
    except UserError:
        raise
    except Exception as error:  # Pillow and OpenCV raise whatever the broken byte led to
        raise unreadable(path, error) from None
    # both turn a TIFF themselves
    return np.ascontiguousarray(array if header.format == "TIFF" else _upright(array, header.orientation))


def _by_pillow(path: Path, header: Header, alpha: bool) -> Samples:
    with Image.open(path, formats=[header.format]) as image:
        image.load()  # a truncated file raises here
        if image.mode == "F" or image.mode.startswith("I"):  # older versions of Pillow read 16 bit into 32
            array: Samples = np.asarray(image)
            return array.astype(np.uint16) if header.bits == 16 and header.kind == "integer" else array
        grey = image.mode in {"1", "L"} or (image.mode == "LA" and not alpha)
        mode = "L" if grey else "RGBA" if alpha else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode))


def _by_opencv(path: Path, header: Header, alpha: bool) -> Samples:
    """Colour of more than 8 bit, which Pillow would silently reduce to 8 or does not know."""
    import cv2

    if header.bits == 16:
        _refuse_broken(path, header)
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise UserError(
            f"image {printable(path)} is damaged, or of a kind that is not read; save it as grey or RGB PNG"
        )
    if array.ndim == 3:  # BGR(A) -> RGB(A)
        array = array[..., [2, 1, 0, 3] if alpha and array.shape[-1] == 4 else [2, 1, 0]]
    return array


def _refuse_broken(path: Path, header: Header) -> None:
    """Pillow raises where OpenCV would print and go on."""
    with Image.open(path, formats=[header.format]) as image:
        image.load()
        if image.mode not in {"RGB", "RGBA", "LA"}:
            raise UserError(f"image {printable(path)} is {image.mode}; expected grey or RGB: save it as such a PNG")


def _upright(array: Samples, orientation: int) -> Samples:
    """As the camera was held: EXIF's 8 orientations are 4 turns, each of them mirrored or not."""
    if orientation in (2, 4, 5, 7):
        array = array[:, ::-1]
    return np.rot90(array, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))
