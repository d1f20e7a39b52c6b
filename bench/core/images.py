"""Where images come from, memory or files, and how their pixels become float tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from .decode import Pixels, decode, decode_mask
from .formats import unreadable
from .headers import Header, read_header
from .names import printable

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


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

    @cached_property
    def header(self) -> Header:
        """As it was when it was first asked for. Raises UserError if the file cannot be an image."""
        return read_header(self.path)

    def pixels(self) -> Pixels:
        return decode(self.path)

    def digest(self) -> bytes:
        # the bytes alone would not tell what was once read lying on its side
        turned = b"" if self.header.orientation == 1 else b"turned upright"
        try:
            with self.path.open("rb") as file:
                content = (
                    hashlib.file_digest(file, "sha256").digest()
                    if hasattr(hashlib, "file_digest")
                    else hashlib.sha256(file.read()).digest()
                )
        except OSError as error:
            raise unreadable(self.path, error) from None
        return hashlib.sha256(content + turned).digest() if turned else content


@dataclass(frozen=True)
class MaskSource:
    """The mask of one image, in one file or several: what any of them marks is anomalous."""

    paths: tuple[Path, ...]

    @cached_property
    def headers(self) -> tuple[Header, ...]:
        """As FileSource.header."""
        return tuple(read_header(path) for path in self.paths)

    def pixels(self) -> Pixels:
        """(H, W), uint8: 0 or 255."""
        marks = [decode_mask(path) for path in self.paths]
        if len({m.shape for m in marks}) > 1:
            raise UserError(f"the masks in {printable(self.paths[0].parent)} differ in size, but belong to one image")
        return np.logical_or.reduce(marks).astype(np.uint8) * np.uint8(255)

    def digest(self) -> bytes:
        return hashlib.sha256(b"".join(FileSource(path).digest() for path in self.paths)).digest()


@dataclass(frozen=True)
class Record:
    """One image: `id` is unique in its set, `label` is 0 for normal and 1 for anomalous."""

    id: str
    source: Source
    label: int = 0
    mask: Source | None = None


def to_tensor(pixels: Pixels, image_size: int) -> Tensor:
    """Pixels -> float (3, S, S) in [0, 1]: alpha dropped, grey repeated, resized bilinearly with antialiasing."""
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] not in ((), (3,), (4,)):
        raise UserError(
            f"an image has {pixels.dtype} pixels {pixels.shape}; expected uint8 or uint16, (H, W[, 3 or 4])"
        )
    # one colour at a time: a large image takes a third of the memory
    colours = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(3)]
    planes = torch.stack([_resized(colour, image_size) for colour in colours])
    return planes.clamp(0, 1).expand(3, -1, -1).contiguous()


def _resized(colour: Pixels, image_size: int) -> Tensor:
    """(H, W) -> float (S, S)."""
    # torch has no arithmetic on uint16, so the cast happens in NumPy
    plane = torch.from_numpy(colour.astype(np.float32)).div_(float(np.iinfo(colour.dtype).max))
    size = (image_size, image_size)
    if plane.shape == size:
        return plane
    return F.interpolate(plane[None, None], size, mode="bilinear", antialias=True, align_corners=False)[0, 0]


def to_mask(pixels: Pixels, image_size: int) -> Tensor:
    """Pixels -> bool (1, S, S): True where any pixel that falls there is not black, so that thin defects stay."""
    marks = pixels if pixels.ndim == 2 else pixels[..., :3].max(-1)
    found = torch.from_numpy((marks != 0).astype(np.float32))[None]
    return F.adaptive_max_pool2d(found, image_size) > 0
