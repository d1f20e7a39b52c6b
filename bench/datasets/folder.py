"""Your own images in the MVTec layout: one category, or a folder of categories."""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data
from ..core.names import printable
from ..errors import UserError
from ._hints import hint, require_root
from ._layout import MVTEC_LAYOUT, choose, mvtec_category
from ._listing import child, folders_in
from ._normal import is_mvtec_category

IMAGE_SIZE = 256
HOME = ""
LAYOUT = MVTEC_LAYOUT


def categories(root: Path | None) -> tuple[str, ...]:
    return tuple(_folders(root))


def load(category: str, root: Path | None, image_size: int) -> Data:
    folders, category = _folders(root), printable(category)
    choose(category, tuple(folders), "folder")
    return mvtec_category("folder", category, folders[category], image_size)


def _folders(root: Path | None) -> dict[str, Path]:
    """By category."""
    root = require_root(root, "folder", LAYOUT, HOME)
    if is_mvtec_category(root):
        return {printable(root.resolve().name): root}
    # one that lacks the rest is meant as a category too, and `load` says what is missing
    found = {printable(f.name): f for f in folders_in(root) if child(f, "train")}
    if not found:
        raise UserError(f"no category in {printable(root)}: {hint(root) or f'expected {LAYOUT}'}")
    return found
