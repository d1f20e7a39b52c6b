"""What the image-folder data sets share: listing, masks, and errors that say which layout was expected."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.data import Data, Record, TestSet, TrainSet
from ..core.images import SUFFIXES, FileSource
from ..errors import UserError, unknown

MVTEC_LAYOUT = "CATEGORY/{train/good, test/good, test/DEFECT, ground_truth/DEFECT/STEM_mask.png}"


def require_root(root: Path | None, dataset: str, layout: str, home: str) -> Path:
    """The root if it is a folder; otherwise an error with the layout and where the data set is to be had."""
    hint = f"expected {layout}; home page: {home}" if home else f"expected {layout}"
    if root is None:
        raise UserError(f"data set {dataset!r} needs --data-root (nothing is downloaded); {hint}")
    if not root.exists():
        raise UserError(f"--data-root {root} does not exist; {hint}")
    if not root.is_dir():
        raise UserError(f"--data-root {root} is a file; a folder is needed; {hint}")
    return root


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder by name; anything else but hidden files is an error that names it."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from None
    files = [entry for entry in entries if not entry.name.startswith(".")]
    for file in files:
        if file.is_dir() or file.suffix.lower() not in SUFFIXES:
            raise UserError(f"{file} is not an image (expected {', '.join(sorted(SUFFIXES))}); move it away")
    return files


def folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from None


def is_mvtec_category(folder: Path) -> bool:
    return (folder / "train" / "good").is_dir() and (folder / "test").is_dir()


def mvtec_category(name: str, category: str, folder: Path, image_size: int, normal: str = "good") -> Data:
    """One category in the MVTec layout; `normal` is the name of the folder of good images."""
    if not (folder / "train" / normal).is_dir() or not (folder / "test").is_dir():
        raise UserError(f"{folder} is not laid out as expected: {MVTEC_LAYOUT.replace('good', normal)}")
    train = [Record(f"train/{normal}/{p.stem}", FileSource(p)) for p in images_in(folder / "train" / normal)]
    test: list[Record] = []
    for kind in folders_in(folder / "test"):
        paths = images_in(kind)
        if kind.name == normal:
            test += [Record(f"{normal}/{p.stem}", FileSource(p)) for p in paths]
        else:
            masks = _masks(folder / "ground_truth" / kind.name, paths)
            test += [Record(f"{kind.name}/{p.stem}", FileSource(p), 1, masks.get(p.stem)) for p in paths]
    return Data(name, category, image_size, TrainSet(train, image_size), TestSet(test, image_size))


def _masks(folder: Path, images: Iterable[Path]) -> dict[str, FileSource]:
    """Masks by the stem of their image; `STEM_mask.png` as in MVTec AD, or `STEM.png` as in BTAD."""
    if not folder.is_dir():
        return {}
    stems = {p.stem for p in images}
    masks = {}
    for path in images_in(folder):
        stem = path.stem.removesuffix("_mask")
        if stem not in stems:
            raise UserError(f"mask {path} has no image {stem} in the test folder of the same name")
        masks[stem] = FileSource(path)
    return masks


def choose(category: str, known: tuple[str, ...], dataset: str) -> str:
    if category not in known:
        raise unknown(f"category of {dataset}", category, known)
    return category
