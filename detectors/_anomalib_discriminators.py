"""Models of anomalib that learn to tell normal images from defects which they simulate themselves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader

from bench import UserError

from ._anomalib import TOY, Member, Pretrained, Transformer
from ._anomalib_gradient import Call
from ._anomalib_library import BARE, part
from ._anomalib_training import per_step


class Draem(Member):
    """DRAEM: reconstruction, and segmentation of simulated defects (Zavrtanik et al. 2021, arXiv:2108.07610).

    textures: a folder of pictures that the simulated defects are cut from (theirs is the Describable Textures
    Dataset); None: anomalib's own fallback, the Perlin noise itself. steps, batch_size: of the training; theirs are 700
    epochs of batches of 8.
    """

    needs = "GPU"
    toy_parameters: ClassVar = {"steps": 3, "batch_size": 4}
    source = ("draem", "Draem")
    normalised = False
    multiple = 32

    textures: Path | None = None
    steps: PositiveInt = 20000
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = None

    def _build(self, size: tuple[int, int]) -> Any:
        _refuse_no_pictures("draem", self.textures)
        with tempfile.TemporaryDirectory() as empty:
            return part(*self.source)(self.textures or empty, **BARE)


def _refuse_no_pictures(name: str, folder: Path | None) -> None:
    if folder is not None and not any(folder.rglob("*.*")):
        raise UserError(f"{name}: no pictures in the folder {folder}")


class Supersimplenet(Pretrained):
    """SuperSimpleNet: a discriminator of noisy features, and a classifier (Rolih et al. 2024, arXiv:2408.03143).

    The score is the classifier's, before the sigmoid: in the same order, and with a gradient everywhere. threshold: of
    the Perlin noise that places the noise. steps, batch_size: of the training; theirs are 300 epochs of batches of 32.
    """

    toy_parameters: ClassVar = {**TOY, "steps": 12, "batch_size": 16}
    source = ("supersimplenet", "Supersimplenet")
    arguments = "perlin_threshold=threshold backbone=asked_for layers"
    default = "wide_resnet50_2"
    hears = "segdec"

    layers: tuple[int, ...] = (2, 3)
    threshold: float = 0.2
    steps: PositiveInt = 150
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        def schedule(optimizer: Any) -> MultiStepLR:  # theirs is made for a number of epochs, and there is none here
            for group in optimizer.param_groups:
                group["lr"] = group.pop("initial_lr")
            return MultiStepLR(optimizer, [int(self.steps * 0.8), int(self.steps * 0.9)], gamma=0.4)

        def at_least(side: int) -> int:  # the noise has up to 32 waves, and is scaled down to smaller maps
            return max(32, 1 << (side - 1).bit_length())

        per_step(module, schedule)
        with mock.patch.object(module.model.anomaly_generator, "next_power_2", at_least):
            super()._learn(module, normal)

    def _score(self, x: Tensor) -> tuple[Tensor, None]:
        _, logits = self._forward(x)[1].made
        return logits, None


class Glass(Pretrained):
    """GLASS: a discriminator of features with anomalies made by gradient ascent (Chen et al. 2024, arXiv:2407.09359).

    The score is the highest patch's, before the sigmoid: in the same order, and with a gradient everywhere. textures: a
    folder of pictures that the simulated defects are cut from; None: anomalib's fallback, the Perlin noise. dimension:
    of the features. hidden: of the discriminator. noise: standard deviation of what makes features anomalous. ascent:
    steps on each batch. steps, batch_size: of the training; theirs are 640 epochs of 8.
    """

    toy_parameters: ClassVar = {**TOY, "dimension": 64, "hidden": 64, "ascent": 5, "steps": 20, "batch_size": 8}
    source = ("glass", "Glass")
    arguments = (
        "anomaly_source_path=textures backbone=asked_for pretrain_embed_dim=dimension target_embed_dim=dimension "
        "layers discriminator_hidden=hidden learning_rate=lr step=ascent gaussian_noise_std=noise"
    )
    default = "wide_resnet50_2"
    hears = "discriminator.tail.0"

    layers: tuple[int, ...] = (2, 3)
    textures: Path | None = None
    dimension: PositiveInt = 1536
    hidden: PositiveInt = 1024
    ascent: PositiveInt = 20
    noise: float = 0.015
    lr: PositiveFloat = 1e-4
    steps: PositiveInt = 100
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = None

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        _refuse_no_pictures("glass", self.textures)
        return super()._options(size) | {"input_shape": size}

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._forward(x)[1].made.view(len(x), -1)  # (B, patches)
        return logits.amax(1), logits


class GeneralAd(Transformer):
    """GeneralAD: a discriminator that attends to all patches of a transformer (Straeter et al. 2024, arXiv:2407.12427).

    The score is the mean of the top patches' logits. backbone: a transformer of timm; theirs is
    vit_large_patch14_dinov2 with block 24. layers: blocks, counted from 1. hidden, heads: of the discriminator. noise:
    deviation of the feigned anomalies. top: patches that enter the score. steps, batch_size: of the training; theirs
    are 160 epochs. resize: multiples of the patch's side; theirs is 518.
    """

    toy_parameters: ClassVar = {"weights": "random", "hidden": 64, "steps": 10, "batch_size": 8, "resize": 56}
    source = ("general_ad", "GeneralAD")
    arguments = "backbone=network layers hidden_dim=hidden lr epochs=steps noise_std=noise dsc_heads=heads top_k=top"
    told_size = True
    default = "vit_small_patch14_dinov2"
    whole = "feature_extractor.pretrained_model"
    native = True
    rate_per_step = True
    hears = "discriminator"

    layers: tuple[int, ...] = (12,)
    hidden: PositiveInt = 2048
    heads: PositiveInt = 4
    noise: float = 0.25
    top: PositiveInt = 10
    lr: PositiveFloat = 5e-4
    steps: PositiveInt = 300
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")

    def _forward(self, x: Tensor) -> tuple[Any, Call]:
        found = super()._forward(x)
        extractor: Any = self.model.feature_extractor
        extractor.pretrained_model.blocks[extractor.attn_layer - 1].attn.attn_map = None  # it would keep the graph
        return found
