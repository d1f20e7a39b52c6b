"""VisA (Zou et al. 2022): 12 categories, read from the official layout and its `split_csv/1cls.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

from ..core.data import Data, TestSet, TrainSet
from ..core.images import FileSource, MaskSource, Record
from ..core.names import printable
from ..errors import UserError
from ._hints import VISA_TABLE, hint, holder_of_categories, require_root
from ._layout import choose, of_both_classes
from ._normal import is_mvtec_category

IMAGE_SIZE = 256
HOME = "https://github.com/amazon-science/spot-diff"
LAYOUT = "split_csv/1cls.csv and CATEGORY/Data/{Images/Normal, Images/Anomaly, Masks/Anomaly}"
CATEGORIES = (
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3",
    "pcb4", "pipe_fryum",
)  # fmt: skip
COLUMNS = ("object", "split", "label", "image", "mask")
SPLITS = ("train", "test")
LABELS = ("normal", "anomaly")


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "visa", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "visa", LAYOUT, HOME)
    choose(category, CATEGORIES, "visa")
    table = root / VISA_TABLE
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for line, row in _rows(root, table):
        if row["object"] == category:
            split = _one_of(SPLITS, row, "split", f"{printable(table)}, line {line}")
            records[split].append(_record(root, row, f"{printable(table)}, line {line}"))
    if not any(records.values()):
        raise UserError(
            f"{printable(table)} lists no image of {category}; take the table that comes with VisA ({HOME})"
        )
    train, test = (records[split] for split in SPLITS)
    return of_both_classes(Data("visa", category, image_size, TrainSet(train, image_size), TestSet(test, image_size)))


def _rows(root: Path, table: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, row) with every column there, and without blanks around the values."""
    if not table.is_file():
        prepared = root if is_mvtec_category(root) else holder_of_categories(root)
        help_ = (
            f"{printable(prepared)} is laid out like MVTec AD, as the preparation script of VisA leaves it: "
            f"--dataset folder --data-root {printable(prepared)}"
            if prepared
            else hint(root) or f"expected {LAYOUT}"
        )
        raise UserError(f"there is no {printable(table)}; {help_}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # Excel begins its tables with a mark
            reader = csv.DictReader(file)
            rows = [(reader.line_num, {c: (row.get(c) or "").strip() for c in COLUMNS}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {printable(table)} ({printable(error)}); save it as CSV in UTF-8") from None
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{printable(table)} has no column {missing[0]}; VisA's has {', '.join(COLUMNS)}, with commas between them"
        )
    return rows


def _record(root: Path, row: dict[str, str], where: str) -> Record:
    label = _one_of(LABELS, row, "label", where)
    image = _file(root, row["image"], where)
    mask = MaskSource((_file(root, row["mask"], where),)) if row["mask"] else None
    # Normal and anomalous images share their file names, so the folder is part of the id
    return Record(f"{label}/{printable(image.stem)}", FileSource(image), LABELS.index(label), mask)


def _one_of(known: tuple[str, ...], row: dict[str, str], column: str, where: str) -> str:
    value = row[column].lower()
    if value not in known:
        raise UserError(f"{where} has the {column} {printable(row[column])!r}; expected {' or '.join(known)}")
    return value


def _file(root: Path, relative: str, where: str) -> Path:
    path = root / relative
    try:
        found = path.exists()
    except (OSError, ValueError):  # cannot be a name
        found = False
    if not relative or not found:
        raise UserError(f"{where} lists {printable(relative) or 'no image'}, which is not below {printable(root)}")
    return path
