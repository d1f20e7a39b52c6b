"""KolektorSDD2 (Bozic et al. 2021): surfaces with and without defects, official layout and split.

An image is anomalous if its mask `STEM_GT.png` marks anything. The anomalous training images are left out.
"""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data, TestSet, TrainSet
from ..core.images import FileSource, MaskSource, Record
from ..core.names import printable
from ..errors import UserError
from ._hints import require_root
from ._layout import choose, of_both_classes
from ._listing import images_in, is_folder

IMAGE_SIZE = 256
HOME = "https://www.vicos.si/resources/kolektorsdd2"
LAYOUT = "{train, test}/{NUMBER.png, NUMBER_GT.png}"
CATEGORIES = ("surface",)
MASK = "_GT"


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "kolektor-sdd2", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "kolektor-sdd2", LAYOUT, HOME)
    choose(category, CATEGORIES, "kolektor-sdd2")
    train, test = (_records(root, split) for split in ("train", "test"))
    learned = [record for record in train if not record.label]
    left = len(train) - len(learned)
    remarks = (f"{left} anomalous training images of kolektor-sdd2 are left out",) if left else ()
    return of_both_classes(
        Data("kolektor-sdd2", category, image_size, TrainSet(learned, image_size), TestSet(test, image_size), remarks)
    )


def _records(root: Path, split: str) -> list[Record]:
    folder = root / split
    if not is_folder(folder):
        raise UserError(f"there is no {printable(folder)}; expected {LAYOUT}; home page: {HOME}")
    by_stem = {path.stem: path for path in images_in(folder)}
    found = []
    for stem, path in by_stem.items():
        if stem.endswith(MASK):
            continue
        mask = by_stem.get(stem + MASK)
        if mask is None:
            raise UserError(
                f"{printable(path)} has no mask {printable(stem + MASK)}.png, which says whether it is normal"
            )
        source = MaskSource((mask,))
        marked = bool(source.pixels().any())
        found.append(Record(f"{split}/{printable(stem)}", FileSource(path), int(marked), source if marked else None))
    return found
