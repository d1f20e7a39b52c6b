"""SPADE: distance of an image's deep features to its nearest normal images (Cohen & Hoshen 2020).

https://arxiv.org/abs/2005.02357. Both of its stages: nearest normal images by the globally pooled features of the
last layer (section 3.2: the image score), and the correspondence of each position with a gallery of the patches of
those images (section 3.3: the anomaly map).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng

from ._features import Backbone, Weights, backbone_name, euclidean, last_layer, unranked
from ._similarity import gaussian_filter

SMOOTHING = 1.0  # sigma of the Gaussian over the map at 64 pixels: the 4 at 256 pixels of the paper
CHUNK = 8  # training images whose patches are compared at a time


class Spade(Detector):
    """Score = mean Euclidean distance to the nearest training images, in the pooled features of the last layer.

    The features are those of the normalised image, unscaled, as in the paper; the image is taken at the size it has,
    where the paper takes the central 224 of 256 pixels.

    backbone: timm name, `resnet50_v1` or `squeezenet1_1`; by default what the weights file is named after, else
    wide_resnet50_2, the paper's.
    weights: a local file, `hub` (they are downloaded), or `random` (for tests: no detector to be ranked).
    layers: timm's out_indices whose features make up the anomaly map; 1,2,3 as in the paper.
    neighbours: training images in the mean, and in the gallery of the map; all of them where there are fewer.
    """

    needs = "weights"
    scoring_parameters = frozenset({"neighbours"})
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random"}

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (1, 2, 3),
        neighbours: int = 50,
    ):
        super().__init__()
        if not layers:
            raise ValueError("layers must name at least one layer")
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.backbone, self.weights = backbone_name(backbone, weights), weights
        self.layers, self.neighbours = layers, neighbours
        self.unranked = unranked(weights)
        last = last_layer(self.backbone)
        taken = sorted({*layers, last})
        self.features = Backbone(self.backbone, tuple(taken))
        self.in_map = [taken.index(layer) for layer in sorted(set(layers))]
        self.register_buffer("pooled", torch.zeros(0, 0))  # (N, C) after fit: the training images' pooled features
        self.register_buffer("images", torch.zeros(0, 3, 0, 0))  # (N, 3, H, W) after fit, for the galleries of the map
        self.pooled: Tensor
        self.images: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.features.load_weights(self.weights)
        self.images = torch.cat([images.to(self.features.mean.device) for images in normal])
        with torch.no_grad():
            self.pooled = torch.cat([_pooled(self.features(images)) for images in self.images.split(CHUNK)])

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """The evidence (B, k) is the distances to the nearest images: no place of the image has a score of its own."""
        pooled = _pooled(self.features(x))
        distances = euclidean(pooled[:, None], self.pooled[self._nearest_images(pooled)])
        return distances.mean(1), distances

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): distance of every position to the nearest patch of the nearest images, smoothed."""
        maps = self.features(x)
        patches = self._pyramid(maps)  # (B, C, h, w)
        nearest = self._nearest_images(_pooled(maps))
        rows = [
            euclidean(found, self._correspondence(found.detach(), self.images[images]))
            for found, images in zip(patches.flatten(2).mT, nearest, strict=True)
        ]
        distance = torch.stack(rows).view(len(x), 1, *patches.shape[-2:])
        distance = F.interpolate(distance, x.shape[-2:], mode="bilinear", align_corners=False)
        sigma = SMOOTHING * min(x.shape[-2:]) / 64
        return gaussian_filter(distance, 2 * round(4 * sigma) + 1, sigma)

    def _nearest_images(self, pooled: Tensor) -> Tensor:
        """Indices (B, k) of the training images nearest to each; the choice itself has no gradient."""
        count = min(self.neighbours, len(self.pooled))
        with torch.no_grad():
            return torch.cdist(pooled, self.pooled).topk(count, largest=False).indices

    def _pyramid(self, maps: list[Tensor]) -> Tensor:
        """The layers of the map, concatenated at the size of the finest: (B, C, h, w)."""
        chosen = [maps[i] for i in self.in_map]
        size = chosen[0].shape[-2:]
        rest = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in chosen[1:]]
        return torch.cat([chosen[0], *rest], dim=1)

    def _correspondence(self, patches: Tensor, images: Tensor) -> Tensor:
        """(P, C): for each patch (P, C), the nearest one at any position of the images (k, 3, H, W)."""
        best = torch.full((len(patches),), torch.inf, dtype=patches.dtype, device=patches.device)
        match = torch.zeros_like(patches)
        with torch.no_grad():
            for some in images.split(CHUNK):
                gallery = self._pyramid(self.features(some)).permute(0, 2, 3, 1).flatten(0, 2)  # (entries, C)
                distance, index = torch.addmm(gallery.square().sum(1), patches, gallery.T, alpha=-2).min(1)
                closer = distance < best
                best = torch.where(closer, distance, best)
                match = torch.where(closer[:, None], gallery[index], match)
        return match


def _pooled(maps: list[Tensor]) -> Tensor:
    """(B, C): the global average of the last layer."""
    return maps[-1].mean((2, 3))
