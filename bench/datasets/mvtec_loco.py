"""MVTec LOCO AD (Bergmann et al. 2022): five categories with logical and structural anomalies, official layout.

The normal images of `validation` are learned from with those of `train`; what is held out of a fit is drawn from both.
An anomaly may have several masks, in a folder of its image's name: their union counts.
"""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data
from ._hints import require_root
from ._layout import official_category

IMAGE_SIZE = 256
HOME = "https://www.mvtec.com/company/research/datasets/mvtec-loco"
LAYOUT = (
    "CATEGORY/{train/good, validation/good, test/{good, logical_anomalies, structural_anomalies}, "
    "ground_truth/KIND/STEM/*.png}"
)
CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "mvtec-loco", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "mvtec-loco", LAYOUT, HOME)
    return official_category("mvtec-loco", category, CATEGORIES, root, image_size, validation=True)
