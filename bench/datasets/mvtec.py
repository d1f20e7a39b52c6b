"""MVTec AD (Bergmann et al. 2019): 15 categories of objects and textures, official layout and split."""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data
from ._hints import require_root
from ._layout import MVTEC_LAYOUT, official_category

IMAGE_SIZE = 256
HOME = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
LAYOUT = MVTEC_LAYOUT
CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw",
    "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "mvtec", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "mvtec", LAYOUT, HOME)
    return official_category("mvtec", category, CATEGORIES, root, image_size)
