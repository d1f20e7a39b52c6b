"""Which files are opened as images at all: regular ones of a known format, told from their first bytes.

The content decides, never the suffix. Nothing else reaches a decoder, since some run programs (Pillow hands EPS to
Ghostscript) and a read from a named pipe or a device may never end.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO, Literal

from ..errors import UserError
from .names import printable

Format = Literal["PNG", "JPEG", "BMP", "TIFF", "WEBP"]
KNOWN = "PNG, JPEG, BMP, TIFF or WebP"
MAX_BYTES = 2**30

_BEGINNINGS: dict[bytes, Format] = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip

# (offset, content, what such a file is)
_STRANGERS = (
    (0, b"GIF8", "a GIF"), (0, b"%!PS", "PostScript"), (0, b"\xc5\xd0\xd3\xc6", "EPS"), (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop file"), (4, b"ftypavif", "AVIF"), (4, b"ftyphei", "HEIC"), (4, b"ftypmif1", "HEIC"),
    (4, b"ftyp", "a video"), (4, b"jP  ", "JPEG 2000"), (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"), (4, b"JXL ", "JPEG XL"), (0, b"\0\0\1\0", "an icon"), (0, b"v/1\x01", "OpenEXR"),
    (0, b"DDS ", "a DDS texture"), (0, b"\x93NUMPY", "a NumPy array"), (128, b"DICM", "DICOM"), (0, b"\x89HDF", "HDF5"),
    (0, b"PK\3\4", "a zip archive"), (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"version https://git-lfs", "a pointer of Git LFS (`git lfs pull` fetches the content)"),
    (0, b"<?xml", "XML or SVG"), (0, b"<svg", "SVG"), (0, b"<!DOCTYPE", "a web page"), (0, b"<html", "a web page"),
    (0, b"P1\n", "PBM"), (0, b"P4\n", "PBM"), (0, b"P2\n", "PGM"), (0, b"P5\n", "PGM"), (0, b"P3\n", "PPM"),
    (0, b"P6\n", "PPM"),
)  # fmt: skip

_SPECIAL = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def size_of(path: Path) -> int:
    """In bytes. Raises UserError, naming the file, if it is not a regular one of reasonable size."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        what = _SPECIAL.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise UserError(f"{printable(path)} is {what}, not an image; move it away")
    if status.st_size == 0:
        raise UserError(f"image {printable(path)} is empty (0 bytes); copy it again or move it away")
    if status.st_size > MAX_BYTES:
        raise UserError(f"{printable(path)} has {status.st_size} bytes; at most {MAX_BYTES} are read of an image")
    return status.st_size


def format_of(file: BinaryIO, path: Path) -> Format:
    """From the first bytes; the file is rewound. Raises UserError that says what it is instead of an image."""
    head = file.read(256)
    file.seek(0)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return name
    what = next((what for at, content, what in _STRANGERS if head[at:].startswith(content)), None)
    said = f"is {what}; expected {KNOWN}" if what else f"is not an image ({KNOWN})"
    raise UserError(f"{printable(path)} {said}: convert it, or move it away")


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file whose decoder gave up."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"image {printable(path)} is gone: it was there when the folder was listed")
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    reason = printable(" ".join(told.split())) or type(error).__name__
    return UserError(f"cannot read image {printable(path)}: {reason}; copy it again or move it away")
