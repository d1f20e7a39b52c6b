"""Models of anomalib that describe or remember normal features, and measure how far those of an image are from them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from bench import UserError

from ._anomalib import TOY, PatchesOf16, Pretrained, Transformer, count
from ._anomalib_gradient import Call, uncut
from ._anomalib_library import Frozen, Named, part_of


class Padim(Pretrained):
    """PaDiM: Mahalanobis distance of each position's features (Defard et al. 2021, arXiv:2011.08785).

    features: channels kept, drawn at random; by default 100 of a ResNet-18, 550 of a Wide ResNet-50 (the paper's),
    100 of any other, or all where there are fewer.
    """

    toy_parameters: ClassVar = {**TOY, "features": 20}
    source = ("padim", "Padim")
    arguments = "backbone=asked_for layers"
    default = "resnet18"

    layers: tuple[int, ...] = (1, 2, 3)
    features: int | None = None
    resize: PositiveInt | None = None

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        return super()._options(size) | {"n_features": 1}  # until their number is known

    def _build(self, size: tuple[int, int]) -> Any:
        module = super()._build(size)
        model = module.model
        known = model.n_features_original
        model.n_features = self.features or {"wide_resnet50_2": 550}.get(self.network, min(100, known))
        if model.n_features > known:
            raise UserError(f"padim: layers {self.layers} of {self.backbone} have {known} features, fewer than asked")
        model.idx = torch.randperm(known)[: model.n_features]
        return module


class Dfkde(Pretrained):
    """DFKDE: kernel density estimate of the principal components of pooled features (anomalib's own; no paper).

    The score is minus the log-density, from which anomalib makes a probability that is 1 wherever the density falls
    below what single precision holds. layer: timm's out_index. components: of the PCA. scaling: of the components, by
    the largest length in training (`scale`) or each to length 1 (`norm`).
    """

    toy_parameters: ClassVar = {**TOY, "components": 6, "layer": 2}
    source = ("dfkde", "Dfkde")
    arguments = "backbone=asked_for n_pca_components=components"
    default = "resnet18"
    anomaly_map = None  # type: ignore[assignment]

    layer: PositiveInt = 4
    components: PositiveInt = 16
    scaling: str = "scale"
    resize: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaling not in ("scale", "norm"):
            raise ValueError(f"scaling must be scale or norm, got {self.scaling}")

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        method = part_of("anomalib.models.components.classification", "FeatureScalingMethod")
        return super()._options(size) | {"layers": [self.layer], "feature_scaling_method": method(self.scaling)}

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        channels = module.model.feature_extractor.feature_extractor.channels()[0]
        if min(count(normal) - 1, channels) < self.components:
            raise UserError(
                f"dfkde: {self.components} components need more than {self.components} images and as many features, "
                f"not {count(normal)} and {channels}; choose fewer components"
            )
        super()._learn(module, normal)

    def _score(self, x: Tensor) -> tuple[Tensor, None]:
        known, kernels = self.model.classifier, self.model.classifier.kde_model
        with uncut(x.dtype):
            parts = known.pca_model.transform(self.model.get_features(x))
            scaled, _ = known.pre_process(parts, known.max_length)
        squared = (kernels.dataset - (scaled @ kernels.bw_transform)[:, None]).square().sum(2)  # (B, images)
        return math.log(len(kernels.dataset)) - torch.log(kernels.norm) - torch.logsumexp(-squared / 2, 1), None


class Cfa(Pretrained):
    """CFA: features adapted towards a memory of centres (Lee et al. 2022, arXiv:2206.04325).

    gamma_c, gamma_d: by how much centres and channels are reduced. neighbours: nearest centres that attract, and that
    enter the score; negatives: the next ones, which repel; radius: of the spheres. steps, batch_size: of the training;
    theirs are 30 epochs of batches of 4. anomalib allows some backbones; here any of timm with these layers.
    """

    toy_parameters: ClassVar = {**TOY, "steps": 10, "batch_size": 16}
    source = ("cfa", "Cfa")
    arguments = (
        "backbone=asked_for gamma_c gamma_d num_nearest_neighbors=neighbours num_hard_negative_features=negatives "
        "radius"
    )
    default = "wide_resnet50_2"

    layers: tuple[int, ...] = (1, 2, 3)
    gamma_c: PositiveInt = 1
    gamma_d: PositiveInt = 1
    neighbours: PositiveInt = 3
    negatives: PositiveInt = 3
    radius: float = 1e-5
    steps: PositiveInt = 500
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = None

    def _build(self, size: tuple[int, int]) -> Any:
        maps = Frozen(self.network, self.layers)
        channels = sum(maps.channels())
        library = "anomalib.models.image.cfa.torch_model"
        with mock.patch(f"{library}.get_feature_extractor", lambda *_: Named(maps)):
            module = super()._build(size)
        convolution = part_of(library, "CoordConv2d")
        module.model.descriptor.layer = convolution(channels, channels // self.gamma_d, kernel_size=1)
        module.model.radius = self.radius  # was a tensor with a graph, which cannot be copied
        return module

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        with mock.patch("anomalib.models.image.cfa.torch_model.tqdm", lambda batches: batches):
            super()._learn(module, normal)


class MhPatchcore(Pretrained):
    """MH-PatchCore: PatchCore in a whitened space, its memory merged of parts (Ferrari et al. 2026, arXiv:2605.27748).

    variance: share that the PCA keeps. shrinkage: of the covariance. memory: patches in the memory. neighbours: that
    weight the score.
    """

    toy_parameters: ClassVar = {**TOY, "memory": 100}
    source = ("mh_patchcore", "MHPatchcore")
    arguments = (
        "backbone=asked_for layers pca_variance_ratio=variance covariance_shrinkage=shrinkage "
        "memory_bank_size=memory num_neighbors=neighbours"
    )
    default = "wide_resnet50_2"
    hears = "anomaly_map_generator"

    layers: tuple[int, ...] = (2, 3)
    variance: float = 0.99
    shrinkage: float = 0.07
    memory: PositiveInt = 1000
    neighbours: PositiveInt = 9
    resize: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance < 1:
            raise ValueError(f"variance must be a share in (0, 1), got {self.variance}")

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        for _ in ("PCA", "covariance", "memory"):  # one pass each
            super()._learn(module, normal)

    def _local(self, call: Call) -> Tensor:
        """The patches' distances (B, 1, h, w), of which the score is the largest, weighted."""
        return call.given[0]


class AnomalyDino(Transformer):
    """AnomalyDINO: distance of DINOv2's patches to a memory of them (Damm et al. 2025, arXiv:2405.14529).

    The score is the mean of the farthest hundredth of the patches. backbone: a transformer of timm with `dino` in its
    name. neighbours: in the memory, averaged. coreset: share of the patches that the memory keeps; None: all. resize:
    multiples of the patch's side. Background is not masked, as is anomalib's default.
    """

    toy_parameters: ClassVar = {"weights": "random", "resize": 56}
    source = ("anomaly_dino", "AnomalyDINO")
    arguments = "num_neighbours=neighbours encoder_name=network"
    default = "vit_small_patch14_dinov2"
    word = "dino"
    whole = "feature_encoder.feature_extractor"
    hears = "anomaly_map_generator"

    neighbours: PositiveInt = 1
    coreset: float | None = None
    resize: PositiveInt | None = 252

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coreset is not None and not 0 < self.coreset <= 1:
            raise ValueError(f"coreset must be a share in (0, 1], got {self.coreset}")

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        sampling = {"coreset_subsampling": self.coreset is not None, "sampling_ratio": self.coreset or 1.0}
        return super()._options(size) | sampling

    def _local(self, call: Call) -> Tensor:
        """(B, 1, h, w): cosine distance of every patch to its neighbours in the memory."""
        return call.given[0]


class Rad(PatchesOf16):
    """RAD: patches compared with those near their place in the most similar images (2026, arXiv:2601.22763).

    The score is the mean of the highest hundredth of the map. backbone: a transformer of timm; anomalib's is
    vit_base_patch16_dinov3. layers: blocks, whose distances are averaged. images: the most similar ones, by class
    token: a choice that has no gradient. radius: of the places. resize: multiples of the patch's side.
    """

    toy_parameters: ClassVar = {"backbone": "vit_small_patch16_224", "weights": "random", "images": 20, "resize": 64}
    source = ("rad", "Rad")
    arguments = "backbone=network layers k_image=images pos_radius=radius"
    default = "vit_base_patch16_dinov3"
    whole = "feature_extractor.feature_extractor"

    layers: tuple[int, ...] = (3, 6, 9, 11)
    images: PositiveInt = 150
    radius: int = 1
    resize: PositiveInt | None = 224


class SuperAdd(PatchesOf16):
    """SuperADD: distance to memories of several blocks of a transformer, averaged (2026, arXiv:2605.14808).

    The score is the mean of the highest thousandth of the map. backbone: a transformer of timm; anomalib's is
    vit_huge_plus_patch16_dinov3. layers: blocks; None: anomalib's choice for that size. memory: patches kept per block.
    resize: multiples of the patch's side; an image is seen whole, where anomalib cuts large ones into tiles.
    """

    toy_parameters: ClassVar = {"backbone": "vit_small_patch16_224", "weights": "random", "resize": 64}
    source = ("super_add", "SuperADD")
    arguments = "backbone=network layers"
    default = "vit_base_patch16_dinov3"
    whole = "backbone.dino"
    native = True
    smallest = 48

    layers: tuple[int, ...] | None = None
    memory: PositiveInt = 100000
    resize: PositiveInt | None = 224

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        return super()._options(size) | {"patch_size": size[0]}

    def _build(self, size: tuple[int, int]) -> Any:
        if size[0] != size[1]:
            raise UserError(f"super_add takes square images, not {size[0]}x{size[1]}; choose a resize")
        module = super()._build(size)
        module.model.max_database_size = self.memory
        features = module.model.backbone  # it makes this call in inference mode, which no gradient leaves
        call = partial(features.dino.forward_intermediates, indices=features.layers, norm=False, output_fmt="NLC")
        features.forward = partial(call, intermediates_only=True)
        return module
