"""Your own images in the MVTec layout: one category, or a folder of categories."""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data
from ..errors import UserError
from ._layout import MVTEC_LAYOUT, choose, folders_in, is_mvtec_category, mvtec_category, require_root

IMAGE_SIZE = 256
HOME = ""
LAYOUT = MVTEC_LAYOUT


def categories(root: Path | None) -> tuple[str, ...]:
    root = require_root(root, "folder", LAYOUT, HOME)
    if is_mvtec_category(root):
        return (root.resolve().name,)
    found = tuple(f.name for f in folders_in(root) if is_mvtec_category(f))
    if not found:
        raise UserError(f"no category in {root}; expected {LAYOUT}")
    return found


def load(category: str, root: Path | None, image_size: int) -> Data:
    choose(category, categories(root), "folder")
    root = require_root(root, "folder", LAYOUT, HOME)
    folder = root if is_mvtec_category(root) else root / category
    return mvtec_category("folder", category, folder, image_size)
