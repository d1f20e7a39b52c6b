"""PatchCore: distance of the strangest patch to a memory of normal patches (Roth et al. 2022).

https://arxiv.org/abs/2106.08265. Clean scores equal those of anomalib's Patchcore on the same features and bank;
unlike there, the gradient flows through the whole path from the image to the score.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng, UserError

from ._coreset import k_center_greedy
from ._features import Backbone, Weights, backbone_name, euclidean, patch_features, unranked

CHUNK = 4096  # patches compared with the bank at a time


class PatchCore(Detector):
    """Score = distance of the worst patch to the bank, re-weighted by its neighbourhood (their equation 7).

    backbone: timm name, `resnet50_v1` or `squeezenet1_1`; by default what the weights file is named after, else
    wide_resnet50_2. `cifar_resnet18` is a small one that needs no download, for a first look at images of 64 pixels
    (its layer 3 is at 1/4 of the size).
    weights: a local file, `hub` (they are downloaded), or `random` (for tests: no detector to be ranked).
    layers: timm's out_indices; 2,3 are `layer2` and `layer3` of a ResNet.
    coreset: share of the training patches kept in the bank.
    neighbours: bank entries around the matched one that enter the weight; 1 leaves the weight out.
    """

    needs = "weights"
    scoring_parameters = frozenset({"neighbours"})
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random"}

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (2, 3),
        coreset: float = 0.1,
        neighbours: int = 9,
    ):
        super().__init__()
        if not 0 < coreset <= 1:
            raise ValueError(f"coreset must be a share in (0, 1], got {coreset}")
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.backbone, self.weights = backbone_name(backbone, weights), weights
        self.layers, self.coreset, self.neighbours = layers, coreset, neighbours
        self.unranked = unranked(weights)
        self.features = Backbone(self.backbone, layers)
        self.register_buffer("bank", torch.zeros(0, 0))  # (entries, C) after fit
        self.bank: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.features.load_weights(self.weights)
        device = self.features.mean.device
        with torch.no_grad():
            patches = torch.cat([self._embed(images.to(device))[0].flatten(0, 1) for images in normal])
        count = max(int(len(patches) * self.coreset), 1)
        if count < self.neighbours:
            raise UserError(
                f"patchcore: {len(patches)} training patches leave {count} in the bank, fewer than "
                f"neighbours={self.neighbours}; raise coreset or use more images"
            )
        self.bank = patches[k_center_greedy(patches, count, self.progress.update)].clone()

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        patches, _ = self._embed(x)  # (B, P, C)
        index, distance = self._nearest(patches)
        worst = distance.argmax(1)  # (B,)
        rows = torch.arange(len(x), device=x.device)
        if self.neighbours == 1:
            return distance[rows, worst], distance
        patch, entry = patches[rows, worst], index[rows, worst]  # (B, C), (B,)
        with torch.no_grad():
            around = torch.cdist(self.bank[entry], self.bank).topk(self.neighbours, largest=False).indices
        to_neighbours = euclidean(patch[:, None], self.bank[around])  # (B, neighbours)
        weight = 1 - F.softmax(to_neighbours, dim=1)[:, 0]  # the matched entry is its own nearest neighbour
        return weight * distance[rows, worst], distance

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): distance of every patch to the bank, resized to the image."""
        patches, grid = self._embed(x)
        distance = self._nearest(patches)[1].view(len(x), 1, *grid)
        return F.interpolate(distance, x.shape[-2:], mode="bilinear", align_corners=False)

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, P, C) patch features, and the grid (h, w) with P = h * w."""
        features = patch_features(self.features(x))
        return features.flatten(2).mT, (features.shape[2], features.shape[3])

    def _nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Index and distance (B, P) of the bank entry nearest to each patch.

        Only the search runs without gradient: the distance to the entry found has the gradient of the minimum,
        and the (P, entries) table of distances never enters the graph.
        """
        flat = patches.detach().flatten(0, 1)
        lengths = self.bank.square().sum(1)
        found = [torch.addmm(lengths, chunk, self.bank.T, alpha=-2).argmin(1) for chunk in flat.split(CHUNK)]
        index = torch.cat(found).view(patches.shape[:2])
        return index, euclidean(patches, self.bank[index])
