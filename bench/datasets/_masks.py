"""Which mask belongs to which image: by name, as MVTec AD, BTAD, VisA and MVTec LOCO name them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.images import MaskSource, Record
from ..core.names import printable
from ..errors import UserError
from ._listing import child, entries, image, images_in, is_folder

_MARKED = re.compile(r"^(mask|gt|label)[ _.-]+|[ _.-]+(mask|gt|ground_?truth|labels?|seg|segmentation)$", re.IGNORECASE)


class Masks(NamedTuple):
    """By image, and those that belong to none."""

    of: dict[Path, MaskSource]
    strangers: list[Path]


def masks_of(kind: Path, images: Sequence[Path], ground_truth: Path | None) -> Masks:
    """Masks of the images in one folder of the test, from the folder of the same name in ground_truth.

    A mask is `STEM_mask.png`, `STEM.png` or alike in any image format, or a folder `STEM` whose images are united.
    Raises UserError if two belong to one image.
    """
    found = Masks({}, [])
    folder = child(ground_truth, kind.name.lower()) if ground_truth else None
    by_name = _names(images)
    for entry in entries(folder) if folder else []:
        paths = tuple(images_in(entry)) if is_folder(entry) else (image(entry),)
        owner = _owner(entry, by_name)
        if owner is None:
            found.strangers.append(entry)
        elif owner in found.of:
            first = found.of[owner].paths[0]
            raise UserError(
                f"image {printable(owner)} has two masks, {printable(first)} and {printable(entry)}; keep one"
            )
        elif paths:
            found.of[owner] = MaskSource(paths)
    return found


def _names(images: Sequence[Path]) -> dict[str, list[Path]]:
    """Images by every way in which a mask may name them."""
    by_name: dict[str, list[Path]] = {}
    for path in images:
        for name in {f(n) for n in (path.stem, path.name) for f in (_composed, _folded)}:
            by_name.setdefault(name, []).append(path)
    return by_name


def _owner(mask: Path, by_name: dict[str, list[Path]]) -> Path | None:
    name = mask.name if is_folder(mask) else mask.stem
    for said in (name, _MARKED.sub("", name)):
        for key in (_composed(said), _folded(said)):
            if len(by_name.get(key, ())) == 1:
                return by_name[key][0]
    return None


def _composed(name: str) -> str:
    """macOS writes an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


def on_masks(records: Sequence[Record], strangers: Sequence[Path]) -> list[str]:
    """Remarks on masks that are missing, and on those of no image."""
    defects = [r for r in records if r.label]
    without = [r for r in defects if r.mask is None]
    said = []
    if without:
        said.append(f"no mask for {len(without)} of {len(defects)} anomalous test images (such as {without[0].id})")
    if strangers:
        first = printable("/".join(strangers[0].parts[-2:]))
        more = f", nor to {len(strangers) - 1} others in there" if len(strangers) > 1 else ""
        said.append(f"no test image belongs to {first} of ground_truth{more}")
    return said
