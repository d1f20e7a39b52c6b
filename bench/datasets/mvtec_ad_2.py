"""MVTec AD 2 (Heckler-Kram et al. 2025, https://arxiv.org/abs/2503.21622): eight categories under several lights.

Read are train, validation (normal images, learned from as well) and test_public; the private tests have no labels. An
image is called `NUMBER_LIGHT.png`: category `can` holds all lights of the public test, `can-regular`,
`can-overexposed`, `can-underexposed`, `can-shift_1`, ... one of them.
"""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data, TestSet, TrainSet
from ..core.images import FileSource, Record
from ..core.names import printable
from ..errors import UserError
from ._hints import require_root
from ._layout import choose, of_both_classes
from ._listing import child, images_in, is_folder
from ._masks import Masks, masks_of, on_masks

IMAGE_SIZE = 256
HOME = "https://www.mvtec.com/company/research/datasets/mvtec-ad-2"
LAYOUT = "CATEGORY/{train/good, validation/good, test_public/{good, bad, ground_truth/bad/STEM_mask.png}}"
CATEGORIES = ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts")
KINDS = ("good", "bad")


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "mvtec-ad-2", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "mvtec-ad-2", LAYOUT, HOME)
    name, _, light = category.partition("-")
    choose(name, CATEGORIES, "mvtec-ad-2")
    folder = root / name
    learned = [*_images(folder, "train", "good"), *_images(folder, "validation", "good")]
    records: list[Record] = []
    strangers: list[Path] = []
    masks_below = child(folder / "test_public", "ground_truth") if is_folder(folder / "test_public") else None
    for kind in KINDS:
        images = _images(folder, "test_public", kind)
        masks = Masks({}, []) if kind == "good" else masks_of(folder / "test_public" / kind, images, masks_below)
        strangers += masks.strangers
        records += [_record(kind, p, masks) for p in images]
    lights = sorted({_light(record.id) for record in records})
    if light:
        choose(light, lights, f"mvtec-ad-2 ({name}), which is the light,")
        records = [record for record in records if _light(record.id) == light]
    train = [Record(f"{p.parent.parent.name}/good/{printable(p.stem)}", FileSource(p)) for p in learned]
    remarks = tuple(on_masks(records, strangers))
    return of_both_classes(
        Data("mvtec-ad-2", category, image_size, TrainSet(train, image_size), TestSet(records, image_size), remarks)
    )


def _record(kind: str, path: Path, masks: Masks) -> Record:
    return Record(f"{kind}/{printable(path.stem)}", FileSource(path), KINDS.index(kind), masks.of.get(path))


def _images(folder: Path, *parts: str) -> list[Path]:
    place = folder.joinpath(*parts)
    if not is_folder(place):
        raise UserError(f"there is no {printable(place)}; expected {LAYOUT}; home page: {HOME}")
    return images_in(place)


def _light(name: str) -> str:
    """`bad/003_shift_1` -> `shift_1`."""
    return name.partition("/")[2].partition("_")[2]
