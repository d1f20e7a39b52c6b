"""What an image file says before it is decoded: size, depth, which side is up, and whether it is whole."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from PIL import Image, TiffImagePlugin

from ..errors import UserError
from .formats import Format, format_of, size_of, unreadable
from .names import printable

# A square of 10,000 pixels: decoded within seconds and two gigabytes. Larger files bring nothing, since everything is
# resized to --image-size.
MAX_PIXELS = 100_000_000

MAX_CHUNKS = 2**20  # of a PNG; libpng writes 8 KiB a chunk, so even a file of a gigabyte has fewer
MAX_EXIF = 2**20

# tags of TIFF and EXIF
WIDTH, HEIGHT, BITS, COMPRESSION, ORIENTATION, SAMPLES, SAMPLE_FORMAT = 256, 257, 258, 259, 274, 277, 339
STRIPS, STRIP_SIZES, TILES, TILE_SIZES = 273, 279, 324, 325

Kind = Literal["integer", "signed integer", "floating-point"]
_TIFF_KINDS: dict[int, Kind] = {1: "integer", 2: "signed integer", 3: "floating-point"}
_TIFF_JPEG = (6, 7)  # compressed as JPEG, the old and the new way

# What Pillow warns of is said by an error here, or changes no pixel.
warnings.filterwarnings("ignore", module=r"PIL\b")


class Header(NamedTuple):
    """Of one image file; width and height are as shown, after turning by the orientation."""

    format: Format
    width: int
    height: int
    channels: int
    bits: int = 8  # per colour; fewer are spread over 8 when decoded
    kind: Kind = "integer"
    orientation: int = 1  # of EXIF, 1 to 8; 1 is upright
    lossy: bool = False
    whole: bool = True
    """False: the file seems to end too early; only decoding it can tell."""


def read_header(path: Path) -> Header:
    """Raises UserError, naming the file, if it is no image of a known format, has several pictures or is too large."""
    size = size_of(path)
    try:
        with path.open("rb") as file:
            header = _READERS[format_of(file, path)](file, size)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path, "too many") from None
    # Pillow raises whatever the broken byte led to: OSError, SyntaxError, struct.error, KeyError, ...
    except Exception as error:
        raise unreadable(path, error) from None
    if header is None:
        raise UserError(
            f"image {printable(path)} holds several pictures, pages or an animation; save the one that is meant as a "
            "file of its own"
        )
    if header.width * header.height > MAX_PIXELS:
        raise _too_large(path, f"{header.width} x {header.height}")
    return header if header.orientation < 5 else header._replace(width=header.height, height=header.width)


def _too_large(path: Path, pixels: str) -> UserError:
    return UserError(
        f"image {printable(path)} has {pixels} pixels; at most {MAX_PIXELS // 10**6} million are read: scale it down "
        "(it is resized to --image-size anyway) or cut it into tiles"
    )


# The readers give width and height as stored, and None for a file with several pictures.


def _png(file: BinaryIO, size: int) -> Header | None:
    with Image.open(file, formats=["PNG"]) as image:
        if image.is_animated:
            return None
        header = _header("PNG", image)
        # PngImageFile's own getexif would decode the image to look behind it
        orientation = _orientation(lambda: Image.Image.getexif(image))
        file.seek(24)
        bits = max(file.read(1)[0], 8)
        exif, whole = _png_chunks(file, size)
    if exif:
        orientation = _orientation(lambda: _parsed(exif))
    return header._replace(bits=bits, orientation=orientation, whole=whole)


def _png_chunks(file: BinaryIO, size: int) -> tuple[bytes, bool]:
    """The eXIf chunk, wherever it is, and whether the file goes on until the chunk that ends it."""
    exif, at = b"", 8
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        start = file.read(8)
        if len(start) < 8:
            break
        length, name = struct.unpack(">I4s", start)
        at += length + 12
        if at > size:
            break
        if name == b"IEND":
            return exif, True
        if name == b"eXIf" and length <= MAX_EXIF:
            exif = file.read(length)
    return exif, False


def _jpeg(file: BinaryIO, size: int) -> Header:
    # Of a phone's multi-picture JPEG the first picture is read, as viewers do; the others are previews and depth
    with Image.open(file, formats=["JPEG"]) as image:
        header = _header("JPEG", image)._replace(orientation=_orientation(image.getexif), lossy=True)
        file.seek(max(size - 1024, 0))
        return header._replace(whole=file.read().rstrip(b"\0").endswith(b"\xff\xd9"))


def _bmp(file: BinaryIO, size: int) -> Header:
    with Image.open(file, formats=["BMP"]) as image:
        file.seek(10)
        start, _, _, _, _, bits, compression = struct.unpack("<IIiiHHI", file.read(24))
        row = (image.width * bits + 31) // 32 * 4
        plain = compression in (0, 3)  # not run-length encoded
        return _header("BMP", image)._replace(whole=plain and start + row * image.height <= size)


def _webp(file: BinaryIO, size: int) -> Header | None:
    head = file.read(64)
    (length,) = struct.unpack_from("<I", head, 4)
    file.seek(0)
    with Image.open(file, formats=["WEBP"]) as image:
        if image.is_animated:
            return None
        header = _header("WEBP", image)._replace(orientation=_orientation(image.getexif))
    return header._replace(lossy=b"VP8L" not in head, whole=length + 8 <= size)


def _tiff(file: BinaryIO, size: int) -> Header | None:
    """From the tags, since Pillow opens only part of what a TIFF may be."""
    start = file.read(8)
    start += file.read(8) if b"+" in start else b""  # BigTIFF
    tags = TiffImagePlugin.ImageFileDirectory_v2(start)
    file.seek(tags.next)
    tags.load(file)
    if tags.next:
        return None
    places = (*tags.get(STRIPS, ()), *tags.get(TILES, ()))
    sizes = (*tags.get(STRIP_SIZES, ()), *tags.get(TILE_SIZES, ()))
    return Header(
        "TIFF",
        int(tags[WIDTH]),
        int(tags[HEIGHT]),
        channels=int(tags.get(SAMPLES, 1)),
        bits=max(8, *tags.get(BITS, (1,))),
        kind=_TIFF_KINDS.get(max(tags.get(SAMPLE_FORMAT, (1,))), "integer"),
        orientation=_upright_or(tags.get(ORIENTATION)),
        lossy=tags.get(COMPRESSION) in _TIFF_JPEG,
        whole=len(places) == len(sizes) > 0 and all(a + n <= size for a, n in zip(places, sizes, strict=True)),
    )


_READERS: dict[Format, Callable[[BinaryIO, int], Header | None]] = {
    "PNG": _png, "JPEG": _jpeg, "BMP": _bmp, "WEBP": _webp, "TIFF": _tiff,
}  # fmt: skip


def _header(name: Format, image: Image.Image) -> Header:
    return Header(name, image.width, image.height, len(image.getbands()))


def _orientation(exif: Callable[[], Image.Exif]) -> int:
    """1 where there is none, or none that can be read: as every viewer does."""
    try:
        found = exif().get(ORIENTATION)
    except Exception:  # Pillow's parser raises whatever the broken byte led to
        return 1
    return _upright_or(found)


def _upright_or(found: object) -> int:
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _parsed(content: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(content)
    return exif
