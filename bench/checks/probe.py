"""A fitted detector and a few images, which the checks of a detector look at; a toy task to fit one on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..core.data import Data, TestSet, TrainSet
from ..core.detector import Detector
from ..core.rng import Rng
from ..core.score import Score
from ..plugins.lookup import load_data

TOY_TRAIN = 48
TOY_IMAGES = 6  # of each class
NOT_DIFFERENTIABLE = (
    "declared not differentiable, and no gradient leads anywhere: only attacks that need none are offered"
)
NO_PATH = "no gradient reaches the image: the path is cut (no_grad, detach or NumPy inside score)"


class Probe(NamedTuple):
    """A fitted detector and images (N, 3, H, W) to try it on; the first half are normal."""

    detector: Detector
    images: Tensor
    ids: list[str]
    data: Data
    differentiable: bool = True
    """What was found, whatever the detector declares."""

    def score(self, images: Tensor | None = None, rows: list[int] | None = None, seed: int = 0) -> Tensor:
        """Scores under noise fixed by `seed`, for the rows of `images` that are given."""
        x = self.images if images is None else images
        ids = self.ids if rows is None else [self.ids[i] for i in rows]
        return Score(self.detector)(x, Rng(seed, ids))

    def spread(self, scores: Tensor) -> float:
        return max(float(scores.max() - scores.min()), 1e-12)


def toy_data(image_size: int | None = None) -> Data:
    """A few bricks, with the plainest defects of each kind: a detector that learns anything tells them apart."""
    data = load_data("textures", category="brick", image_size=image_size)
    normal = [r for r in data.test.records if not r.label][:TOY_IMAGES]
    plain = [r for r in data.test.records if r.label and r.id.endswith(("/07", "/08"))][:TOY_IMAGES]
    train = TrainSet(data.train.records[: TOY_TRAIN + 16], data.image_size)
    return Data("toy", "brick", data.image_size, train, TestSet([*normal, *plain], data.image_size))
