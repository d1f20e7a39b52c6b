"""Image files as float tensors: PNG, JPEG, BMP and TIFF, 8 and 16 bit, grey, RGB and RGBA, decoded on demand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError

TIFF_BITS_PER_SAMPLE = 258
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


class Source(Protocol):
    """Where an image comes from."""

    def pixels(self) -> Pixels:
        """(H, W), (H, W, 3) or (H, W, 4), uint8 or uint16."""
        ...

    def digest(self) -> bytes:
        """A hash of the content: two sources with the same digest hold the same image."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """An image that already sits in memory, as the embedded textures do."""

    array: Pixels

    def pixels(self) -> Pixels:
        return self.array

    def digest(self) -> bytes:
        described = f"{self.array.dtype.str}{self.array.shape}".encode()
        return hashlib.sha256(described + np.ascontiguousarray(self.array).tobytes()).digest()


@dataclass(frozen=True)
class FileSource:
    """An image file; errors name it."""

    path: Path

    def pixels(self) -> Pixels:
        try:
            return _decode(self.path)
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(f"image {self.path} is gone: it was there when the folder was listed") from None
        # Pillow's decoders raise whatever the broken byte led to: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"cannot read image {self.path}: {reason}") from None

    def digest(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return (
                    hashlib.file_digest(file, "sha256").digest()
                    if hasattr(hashlib, "file_digest")
                    else hashlib.sha256(file.read()).digest()
                )
        except OSError as error:
            raise UserError(f"cannot read image {self.path}: {error.strerror}") from None


def _decode(path: Path) -> Pixels:
    if path.stat().st_size == 0:
        raise UserError(f"image {path} is empty (0 bytes)")
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        if path.suffix.lower() in {".tif", ".tiff"}:  # Pillow knows no 16-bit colour TIFF
            return _decode_deep(path)
        raise UserError(f"{path} is not an image that can be read (PNG, JPEG, BMP or TIFF)") from None
    with image:
        if image.mode in {"RGB", "RGBA"} and _is_deep(image):
            return _decode_deep(path)
        image.load()  # a truncated file raises here
        if image.mode.startswith("I"):  # 16-bit grey: "I;16" and its byte orders, or "I" in older Pillow
            array = np.asarray(image)
            if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
                raise UserError(f"image {path} has 32-bit pixels; expected 8 or 16 bit")
            return array.astype(np.uint16)
        if image.mode == "F":
            raise UserError(f"image {path} has floating-point pixels; expected 8 or 16 bit integers")
        return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"))


def _is_deep(image: Image.Image) -> bool:
    """16 bit per colour, which Pillow would silently reduce to 8."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (8,))) > 8  # type: ignore[attr-defined]
    tiles = getattr(image, "tile", [])  # how Pillow means to decode: (codec, extents, offset, raw mode, ...)
    return any(isinstance(tile[3], str) and ";16" in tile[3] for tile in tiles)


def _decode_deep(path: Path) -> Pixels:
    import cv2

    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path} is broken, or not an 8 or 16 bit image")
    if array.ndim == 2:
        return cast(Pixels, array)
    return cast(Pixels, np.ascontiguousarray(array[..., 2::-1]))  # BGR(A) -> RGB


def to_tensor(pixels: Pixels, image_size: int) -> Tensor:
    """Pixels -> float (3, S, S) in [0, 1]: alpha dropped, grey repeated, resized bilinearly with antialiasing."""
    scale = float(np.iinfo(pixels.dtype).max)
    # torch has no arithmetic on uint16, so the cast happens in NumPy
    image = torch.from_numpy(pixels.astype(np.float32)) / scale
    image = image.expand(3, *image.shape) if image.ndim == 2 else image[..., :3].permute(2, 0, 1)
    if image.shape[1:] != (image_size, image_size):
        size = (image_size, image_size)
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    return image.clamp(0, 1).contiguous()
