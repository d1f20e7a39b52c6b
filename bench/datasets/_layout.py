"""The MVTec layout, which most image-folder data sets share, and errors that say what would make a folder fit it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.data import Data, TestSet, TrainSet
from ..core.images import FileSource, Record
from ..core.names import printable
from ..errors import UserError, unknown
from ._hints import hint
from ._listing import child, folders_in, images_in, is_folder
from ._masks import Masks, masks_of, on_masks
from ._normal import is_mvtec_category, normal_folder

MVTEC_LAYOUT = "CATEGORY/{train/good, test/good, test/DEFECT, ground_truth/DEFECT/STEM_mask.png}"


def choose(category: str, known: Sequence[str], dataset: str) -> str:
    if category not in known:
        raise unknown(f"category of {dataset}", category, known)
    return category


def official_category(
    name: str, category: str, known: tuple[str, ...], root: Path, image_size: int, validation: bool = False
) -> Data:
    """One of the categories that a published data set has, below the root."""
    folder = root / category
    if category not in known:
        here = (
            f". {printable(folder)} is not part of it: --dataset folder reads it" if is_mvtec_category(folder) else ""
        )
        raise UserError(f"{unknown(f'category of {name}', category, known)}{here}")
    if not is_mvtec_category(folder):
        found = [c for c in known if is_mvtec_category(root / c)]
        if found and not is_folder(folder):
            raise UserError(
                f"{category} is not in {printable(root)}, which holds {len(found)} of the {len(known)} categories of "
                f"{name}: --category {','.join(found)} runs all that is there"
            )
        raise UserError(
            f"{printable(folder)} is not laid out as expected: {hint(root) or _others(root) or MVTEC_LAYOUT}"
        )
    return of_both_classes(mvtec_category(name, category, folder, image_size, validation))


def of_both_classes(data: Data) -> Data:
    """The same. UserError where it has no anomalous test image: of a published data set, such a copy is not whole."""
    if data.normal_only:
        raise UserError(
            f"{data.name}/{data.category} has no anomalous test image, and as published it has some: the copy is not "
            "whole; normal images alone are read by --dataset folder"
        )
    return data


def _others(root: Path) -> str:
    held = [printable(f.name) for f in folders_in(root) if is_mvtec_category(f)]
    return f"for what is in there, {', '.join(held[:5])}: --dataset folder" if held else ""


def mvtec_category(name: str, category: str, folder: Path, image_size: int, validation: bool = False) -> Data:
    """One category in the MVTec layout; its test has one folder of normal images, and one per kind of defect.

    validation: the normal images of that folder are learned from as well."""
    folders_in(folder)  # if it may not be listed, that is what is wrong
    train, test = child(folder, "train"), child(folder, "test")
    if train is None or test is None:
        raise UserError(f"{printable(folder)} is not laid out as expected: {hint(folder) or MVTEC_LAYOUT}")
    good, passed, ground_truth = normal_folder(train), normal_folder(test), child(folder, "ground_truth")
    records: list[Record] = []
    strangers: list[Path] = []
    for kind in folders_in(test):
        images = images_in(kind)
        masks = Masks({}, []) if kind == passed else masks_of(kind, images, ground_truth)
        strangers += masks.strangers
        label = int(kind != passed)
        records += [Record(_id(kind, p), FileSource(p), label, masks.of.get(p)) for p in images]
    more = child(folder, "validation") if validation else None
    remarks = _not_read(folder, train, good, more)
    if ground_truth:
        kinds = {kind.name.lower() for kind in folders_in(test)}
        strangers += [f for f in folders_in(ground_truth) if f.name.lower() not in kinds]
        remarks += on_masks(records, strangers)
    learned = [Record(f"train/{_id(good, p)}", FileSource(p)) for p in images_in(good)]
    if more is not None:
        also = normal_folder(more)
        learned += [Record(f"validation/{_id(also, p)}", FileSource(p)) for p in images_in(also)]
    _refuse_one_stem_twice([*learned, *records])
    _refuse_forgotten(test, passed, records)
    return Data(name, category, image_size, TrainSet(learned, image_size), TestSet(records, image_size), tuple(remarks))


def _id(folder: Path, image: Path) -> str:
    return f"{printable(folder.name)}/{printable(image.stem)}"


def _refuse_one_stem_twice(records: Sequence[Record]) -> None:
    seen: dict[str, Record] = {}
    for record in records:
        first = seen.setdefault(record.id, record)
        if first is not record:
            names = " and ".join(
                printable(r.source.path.name) for r in (first, record) if isinstance(r.source, FileSource)
            )
            raise UserError(f"there are two images with the id {record.id!r}, {names}; rename one, or keep one")


def _refuse_forgotten(test: Path, passed: Path, records: Sequence[Record]) -> None:
    """All test images are normal, and there is a folder for others: are they missing, or meant to be?"""
    others = [folder for folder in folders_in(test) if folder != passed]
    if others and not any(record.label for record in records):
        raise UserError(
            f"{printable(others[0])} holds no image; put its images there, or remove the folder if all test images are "
            "meant to be normal"
        )


def _not_read(folder: Path, train: Path, good: Path, validation: Path | None) -> list[str]:
    """Remarks on folders of images that a person may think are used."""
    unread = [f for f in folders_in(train) if f != good]
    unread += [f for f in (child(folder, "validation"), child(folder, "val")) if f and f != validation]
    if not unread:
        return []
    names = ", ".join(printable(f.relative_to(folder)) for f in unread)
    return [f"not read in {printable(folder.name)}: {names}; only {printable(good.relative_to(folder))} is learned"]
