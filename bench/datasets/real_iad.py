"""Real-IAD (Wang et al. 2024, https://arxiv.org/abs/2403.12580): 30 parts from five sides, official tables.

A category is read by its table: `realiad_jsons/CATEGORY.json` (all five sides), and `CATEGORY-sv` by that of
`realiad_jsons_sv` (the top view alone). Of the downloaded sizes the smallest that is there is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core.data import Data, TestSet, TrainSet
from ..core.images import FileSource, MaskSource, Record
from ..core.names import printable
from ..errors import UserError
from ._hints import require_root
from ._layout import choose, of_both_classes
from ._listing import is_folder

IMAGE_SIZE = 256
HOME = "https://realiad4ad.github.io/Real-IAD/"
LAYOUT = "realiad_jsons/CATEGORY.json and {realiad_256, realiad_512, realiad_1024 or realiad_raw}/CATEGORY/{OK, NG}/..."
SIZES = ("realiad_256", "realiad_512", "realiad_1024", "realiad_raw")
TABLES = {"": "realiad_jsons", "sv": "realiad_jsons_sv"}
CATEGORIES = (
    "audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint", "mounts", "pcb",
    "phone_battery", "plastic_nut", "plastic_plug", "porcelain_doll", "regulator", "rolled_strip_base", "sim_card_set",
    "switch", "tape", "terminalblock", "toothbrush", "toy", "toy_brick", "transistor1", "u_block", "usb", "usb_adaptor",
    "vcpill", "wooden_beads", "woodstick", "zipper",
)  # fmt: skip


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "real-iad", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "real-iad", LAYOUT, HOME)
    name, _, side = category.partition("-")
    choose(name, CATEGORIES, "real-iad")
    choose(side, tuple(TABLES), f"real-iad ({name}), which is `sv` or nothing,")
    table = _table(root, TABLES[side], name)
    below = next((root / size for size in SIZES if is_folder(root / size)), None)
    if below is None:
        raise UserError(f"none of {', '.join(SIZES)} is in {printable(root)}; expected {LAYOUT}; home page: {HOME}")
    try:
        prefix, normal = str(table["meta"]["prefix"]), str(table["meta"]["normal_class"])
        splits = {
            split: [_record(below / prefix, entry, normal) for entry in table[split]] for split in ("train", "test")
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"the table of {category} is not that of Real-IAD: {printable(error)} is not there") from None
    train = [record for record in splits["train"] if not record.label]
    return of_both_classes(
        Data("real-iad", category, image_size, TrainSet(train, image_size), TestSet(splits["test"], image_size))
    )


def _table(root: Path, folder: str, name: str) -> Any:
    places = (root / folder / f"{name}.json", root / "realiad_jsons" / folder / f"{name}.json")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"there is no {printable(places[0])}; expected {LAYOUT}; home page: {HOME}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {printable(path)}: {printable(error)}") from None


def _record(folder: Path, entry: dict[str, Any], normal: str) -> Record:
    image = _file(folder, entry["image_path"])
    label = int(entry["anomaly_class"] != normal)
    mask = MaskSource((_file(folder, entry["mask_path"]),)) if label and entry.get("mask_path") else None
    return Record(printable(Path(entry["image_path"]).with_suffix("").as_posix()), FileSource(image), label, mask)


def _file(folder: Path, relative: str) -> Path:
    path = folder / relative
    if not path.is_file():
        raise UserError(f"the table lists {printable(relative)}, which is not below {printable(folder)}")
    return path
