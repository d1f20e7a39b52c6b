"""MPDD (Jezek et al. 2021): six painted metal parts, in the layout of MVTec AD."""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data
from ._hints import require_root
from ._layout import MVTEC_LAYOUT, official_category

IMAGE_SIZE = 256
HOME = "https://github.com/stepanje/MPDD"
LAYOUT = MVTEC_LAYOUT
CATEGORIES = ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes")


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "mpdd", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "mpdd", LAYOUT, HOME)
    return official_category("mpdd", category, CATEGORIES, root, image_size)
