"""BTAD (Mishra et al. 2021): three industrial products; normal images are `ok`, anomalous ones `ko`."""

from __future__ import annotations

from pathlib import Path

from ..core.data import Data
from ._hints import require_root
from ._layout import official_category

IMAGE_SIZE = 256
HOME = "http://avires.dimi.uniud.it/papers/btad/btad.zip (paper: https://arxiv.org/abs/2104.10036)"
LAYOUT = "{01,02,03}/{train/ok, test/ok, test/ko, ground_truth/ko}"
CATEGORIES = ("01", "02", "03")


def categories(root: Path | None) -> tuple[str, ...]:
    require_root(root, "btad", LAYOUT, HOME)
    return CATEGORIES


def load(category: str, root: Path | None, image_size: int) -> Data:
    root = require_root(root, "btad", LAYOUT, HOME)
    return official_category("btad", category, CATEGORIES, root, image_size)
