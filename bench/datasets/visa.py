"""VisA (Zou et al. 2022): 12 categories, read from the official layout and its `split_csv/1cls.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

from ..core.data import Data, Record, TestSet, TrainSet
from ..core.images import FileSource
from ..errors import UserError
from ._layout import choose, require_root

IMAGE_SIZE = 256
HOME = "https://github.com/amazon-science/spot-diff"
LAYOUT = "split_csv/1cls.csv and CATEGORY/Data/{Images/Normal, Images/Anomaly, Masks/Anomaly}"
CATEGORIES = (
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3",
    "pcb4", "pipe_fryum",
)  # fmt: skip
COLUMNS = ("object", "split", "label", "image", "mask")


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "visa", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "visa", LAYOUT, HOME)
    choose(category, CATEGORIES, "visa")
    table = root / "split_csv" / "1cls.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {table} ({error}); expected {LAYOUT}") from None
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise UserError(f"{table} is not VisA's split: expected the columns {', '.join(COLUMNS)}")
    records: dict[str, list[Record]] = {"train": [], "test": []}
    for row in rows:
        if row["object"] == category:
            image = _file(root, row["image"], table)
            label = 0 if row["label"] == "normal" else 1
            mask = _file(root, row["mask"], table) if row["mask"] else None
            # Normal and anomalous images share their file names, so the folder is part of the id
            records[row["split"]].append(Record(f"{row['label']}/{image.path.stem}", image, label, mask))
    return Data(
        "visa", category, image_size, TrainSet(records["train"], image_size), TestSet(records["test"], image_size)
    )


def _file(root: Path, relative: str, table: Path) -> FileSource:
    path = root / relative
    if not path.is_file():
        raise UserError(f"{table} lists {relative}, which is not below {root}")
    return FileSource(path)
