"""Models of anomalib that are normalizing flows: an image is as anomalous as its features are unlikely."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar
from unittest import mock

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import UserError

from ._anomalib import TOY, Member, Pretrained, count
from ._anomalib_gradient import Call, uncut
from ._anomalib_library import load_weights, part_of
from ._features import Weights


class Fastflow(Pretrained):
    """FastFlow: normalizing flows over feature maps (Yu et al. 2021, arXiv:2111.07677).

    flow_steps, hidden_ratio, conv3x3_only: of the flows. steps, batch_size: of the training; theirs are 500 epochs of
    batches of 32. anomalib allows ResNet-18 and Wide ResNet-50; here any backbone of timm with these layers.
    """

    toy_parameters: ClassVar = {**TOY, "flow_steps": 2, "steps": 10, "batch_size": 16}
    source = ("fastflow", "Fastflow")
    arguments = "backbone=asked_for flow_steps hidden_ratio conv3x3_only"
    told_size = True
    default = "resnet18"
    multiple = 16

    layers: tuple[int, ...] = (1, 2, 3)
    flow_steps: PositiveInt = 8
    hidden_ratio: float = 1.0
    conv3x3_only: bool = True
    steps: PositiveInt = 300
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None


class Uflow(Pretrained):
    """U-Flow: a U-shaped normalizing flow over feature maps (Tailanian et al. 2022, arXiv:2211.12353).

    flow_steps, clamp, channels_ratio, permute_soft: of the flow. steps, batch_size: of the training; theirs are 200
    epochs. anomalib's default pair of CaiT transformers is not offered; it allows ResNet-18 and Wide ResNet-50 besides,
    here any backbone of timm whose layers halve in size.
    """

    toy_parameters: ClassVar = {**TOY, "flow_steps": 2, "steps": 10, "batch_size": 16}
    source = ("uflow", "Uflow")
    arguments = (
        "backbone=asked_for flow_steps affine_clamp=clamp affine_subnet_channels_ratio=channels_ratio permute_soft"
    )
    told_size = True
    default = "resnet18"
    multiple = 16
    rate_per_step = True

    layers: tuple[int, ...] = (1, 2, 3)
    flow_steps: PositiveInt = 4
    clamp: float = 2.0
    channels_ratio: float = 1.0
    permute_soft: bool = False
    steps: PositiveInt = 200
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None


class Patchflow(Pretrained):
    """PatchFlow: a flow over the fused features of an image at several scales (Zhang et al. 2026, arXiv:2602.05238).

    flow_steps, features, hidden: length, channels and subnet width of the flow.
    scales: the image and its halves. steps, batch_size: of the training. resize: theirs is 768.
    """

    toy_parameters: ClassVar = {**TOY, "features": 16, "hidden": 16, "steps": 10, "batch_size": 16}
    source = ("patchflow", "Patchflow")
    arguments = "backbone=asked_for flow_steps flow_feature_dim=features num_scales=scales flow_hidden_dim=hidden lr"
    told_size = True
    default = "tf_efficientnet_b5"
    multiple = 32

    flow_steps: PositiveInt = 1
    features: PositiveInt = 128
    hidden: PositiveInt = 128
    scales: PositiveInt = 3
    lr: PositiveFloat = 1e-3
    steps: PositiveInt = 150
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None


class Cflow(Pretrained):
    """CFLOW-AD: conditional normalizing flows over positions (Gudovskiy et al. 2022, arXiv:2107.12571).

    anomalib divides the likelihoods by their maximum over the batch, so that a score depends on the other images; here
    the maxima are constants, taken from the training images. coupling_blocks, condition: blocks and length of the
    position's code. fibers: positions per step of the optimiser. steps: batches of batch_size images; theirs are 25 to
    100 epochs.
    """

    toy_parameters: ClassVar = {
        **TOY, "layers": (2, 3), "coupling_blocks": 2, "fibers": 128, "steps": 6, "batch_size": 16
    }  # fmt: skip
    source = ("cflow", "Cflow")
    arguments = "backbone=asked_for layers fiber_batch_size=fibers condition_vector=condition coupling_blocks lr"
    default = "wide_resnet50_2"

    layers: tuple[int, ...] = (2, 3, 4)
    coupling_blocks: PositiveInt = 8
    condition: PositiveInt = 128
    fibers: PositiveInt = 64
    lr: PositiveFloat = 1e-4
    steps: PositiveInt = 40
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition % 4:
            raise ValueError(f"condition must be a multiple of 4, got {self.condition}")
        self.register_buffer("peaks", torch.zeros(len(self.layers)))  # highest log-likelihood of each layer in training
        self.register_buffer("top", torch.zeros(()))  # highest sum of the layers' likelihoods in training
        self.peaks: Tensor
        self.top: Tensor

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        self._refuse_too_many_fibers(min(count(normal), self.batch_size))
        super()._learn(module, normal)
        self.model.eval()
        with torch.no_grad():
            likelihoods = [self._log_likelihoods(self._inner(x.to(self.size.device))) for x in normal]
            self.peaks = torch.stack([torch.cat(layer).max() for layer in zip(*likelihoods, strict=True)])
            side = torch.Size(self.size.tolist())
            self.top = torch.stack([self._sum(layers, side).max() for layers in likelihoods]).max()

    def _refuse_too_many_fibers(self, images: int) -> None:
        with torch.no_grad():
            maps = self.model.encoder(torch.zeros(1, 3, *self.size.tolist()).to(self.mean)).values()
        coarsest = min(m[0, 0].numel() for m in maps)
        if images * coarsest < self.fibers:
            raise UserError(
                f"cflow: a batch of {images} images has {images * coarsest} positions in its coarsest layer, fewer "
                f"than fibers={self.fibers}; choose fewer fibers or earlier layers"
            )

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = self._map(x).flatten(1)
        return values.amax(1), values

    def _map(self, x: Tensor) -> Tensor:
        return self.top - self._sum(self._log_likelihoods(x), x.shape[-2:])

    def _sum(self, layers: list[Tensor], size: torch.Size) -> Tensor:
        likelihoods = [(m - peak).exp() for m, peak in zip(layers, self.peaks, strict=True)]
        return torch.stack([F.interpolate(m, size, mode="bilinear", align_corners=True) for m in likelihoods]).sum(0)

    def _log_likelihoods(self, x: Tensor) -> list[Tensor]:
        """(B, 1, h, w) per layer: mean over the feature's dimensions. All positions at once, where the library's own
        forward pass takes `fibers` at a time."""
        encode = part_of("anomalib.models.image.cflow.utils", "positional_encoding_2d")
        likelihood = part_of("anomalib.models.image.cflow.utils", "get_logp")
        with uncut(x.dtype):
            encoded = self.model.encoder(x).values()
        maps = []
        for features, decoder in zip(encoded, self.model.decoders, strict=True):
            batch, channels, height, width = features.shape
            code = encode(self.condition, height, width).to(x).flatten(1).T.repeat(batch, 1)
            u, jacobian = decoder(features.permute(0, 2, 3, 1).reshape(-1, channels), [code])
            maps.append((likelihood(channels, u, jacobian) / channels).view(batch, 1, height, width))
        return maps


class Csflow(Member):
    """CS-Flow: a flow across scales of EfficientNet-B5 features (Rudolph et al. 2022, arXiv:2110.02855).

    weights: `hub` (torchvision downloads them), `random`, or a file with torchvision's efficientnet_b5. hidden:
    channels inside the flow; blocks: its length; clamp: bound of its scales' logarithms. steps, batch_size: of the
    training; theirs are 240 epochs of batches of 16. resize: theirs is 768; multiples of 128.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "weights": "random", "hidden": 32, "blocks": 1, "steps": 6, "batch_size": 8, "resize": 128
    }  # fmt: skip
    source = ("csflow", "Csflow")
    arguments = "cross_conv_hidden_channels=hidden n_coupling_blocks=blocks clamp"
    told_size = True
    multiple = 128
    smallest = 128
    hears = "graph"

    weights: Weights = "hub"
    hidden: PositiveInt = 1024
    blocks: PositiveInt = 4
    clamp: int = 3
    steps: PositiveInt = 100
    batch_size: PositiveInt = 16
    resize: PositiveInt | None = 256

    def _build(self, size: tuple[int, int]) -> Any:
        bare = part_of("torchvision.models", "efficientnet_b5")
        with mock.patch("anomalib.models.image.csflow.torch_model.efficientnet_b5", lambda weights: bare().eval()):
            return super()._build(size)

    def _load_weights(self) -> None:
        target = self.model.feature_extractor.feature_extractor.feature_extractor
        known = part_of("torchvision.models", "EfficientNet_B5_Weights").IMAGENET1K_V1
        download = partial(known.get_state_dict, progress=False, check_hash=True)
        load_weights(target, self.weights, "torchvision's efficientnet_b5", download)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        if self.weights == "random":  # its features would all but vanish
            _amplify(self.model, self._inner(next(iter(normal))[:8].to(self.size.device)))
        super()._learn(module, normal)

    def _local(self, call: Call) -> Tensor:
        """Half the mean square at each position of the three scales (B, 304, h, w); the score is its mean."""
        latents, _ = call.made
        return torch.cat([z.square().mean(1).flatten(1) for z in latents], dim=1) / 2


def _amplify(model: Any, x: Tensor) -> None:
    """One gain for all batch normalisations of a random extractor, such that its features have a deviation of 1."""
    extractor = model.feature_extractor.feature_extractor
    layers = [m for m in extractor.modules() if isinstance(m, nn.BatchNorm2d)]
    low, high = 1.0, 4.0
    with torch.no_grad():
        for _ in range(10):
            gain = (low + high) / 2
            for layer in layers:
                layer.weight.fill_(gain)
            low, high = (gain, high) if extractor(x)["features.6.8"].std() < 1 else (low, gain)
