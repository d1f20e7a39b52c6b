"""A look at every file of a data set before any work: is it readable, and do equal pixels mean the same in all of them?

Headers only, about 0.2 ms a file; a file is decoded where its header leaves a doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import UserError
from .decode import decode, decode_mask, refuse_depth
from .headers import Header
from .images import ArraySource, FileSource, MaskSource, Record, Source
from .names import printable

# Cameras deliver 10, 12 or 14 bit; unscaled in a 16-bit file, none of their pixels reaches this.
LEAST_WHITE = 2**14


def survey(where: str, sets: Mapping[str, Sequence[Record]]) -> None:
    """Raises UserError at the first file that cannot be an image, and if depths or the sizes of masks do not fit."""
    records = [record for records in sets.values() for record in records]
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_look, records):
            pass
    depth = _one_depth(where, records)
    if depth == 16:
        for name, images in sets.items():
            _refuse_low_range(f"{where}/{name}", images)


def _look(record: Record) -> None:
    image, mask = record.source, record.mask
    if isinstance(image, FileSource):
        refuse_depth(image.path, image.header)
        if not image.header.whole:
            decode(image.path)
    if isinstance(mask, MaskSource):
        for path, header in zip(mask.paths, mask.headers, strict=True):
            if not header.whole:
                decode_mask(path)
            if isinstance(image, FileSource):
                _refuse_other_shape(image, path, header)


def _refuse_other_shape(source: FileSource, path: Path, mask: Header) -> None:
    """Raises UserError unless the mask has the aspect of its image; a scaled one may be a pixel off."""
    image = source.header
    off = abs(image.width * mask.height - image.height * mask.width)
    if off > max(image.width, image.height, mask.width, mask.height):
        turned = ", turned upright as its EXIF orientation says" if image.orientation > 1 else ""
        raise UserError(
            f"mask {printable(path)} ({mask.width} x {mask.height}) has not the shape of its image "
            f"{printable(source.path)} ({image.width} x {image.height}{turned}); draw it again or move it away"
        )


def _one_depth(where: str, records: Iterable[Record]) -> int | None:
    found: dict[int, str] = {}
    for record in records:
        bits = _bits(record.source)
        if bits is not None:
            found.setdefault(bits, record.id)
    if len(found) > 1:
        named = " and ".join(f"{bits}-bit images ({name})" for bits, name in sorted(found.items()))
        raise UserError(f"{where} mixes {named}; save all of them at one depth, so that eps means the same in each")
    return next(iter(found), None)


def _bits(source: Source) -> int | None:
    """Per colour; None where only decoding could tell."""
    if isinstance(source, FileSource):
        return source.header.bits
    return source.array.dtype.itemsize * 8 if isinstance(source, ArraySource) else None


def _refuse_low_range(where: str, records: Sequence[Record]) -> None:
    """Stops at the first image that is bright enough; where none is, all have been decoded."""
    largest = 0
    for record in records:
        largest = max(largest, int(record.source.pixels().max()))
        if largest >= LEAST_WHITE:
            return
    bits = next(n for n in (8, 10, 12, 14) if largest < 2**n)
    factor = 2 ** (16 - bits)
    raise UserError(
        f"no pixel of the 16-bit images in {where} exceeds {largest}, as if {bits} bits were stored in 16, whose white "
        f"is 65535; eps would be {factor} times as large as it says: multiply the pixels of train and test by {factor} "
        "and save them again"
    )
