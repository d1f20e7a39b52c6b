"""ImageNet backbones as feature extractors: one place that builds them and loads their weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import UserError
from bench.core.detector import RANDOM_WEIGHTS

Weights = Literal["hub", "random"] | Path
DEFAULT_BACKBONE = "wide_resnet50_2"
CIFAR_BACKBONE = "cifar_resnet18"
"""A ResNet-18 for CIFAR-10 whose trained weights ship inside the pyautoattack package: nothing to download."""

KERAS_BACKBONE = "resnet50_v1"
"""ResNet-50 as first published and as Keras has it (He et al. 2016, https://arxiv.org/abs/1512.03385): layers 2 and 3
halve the size in the first 1x1 convolution of their first block, where torchvision and timm do it in the 3x3. The
parameters have the same shapes and timm's names; the features differ. Its weights come from a file, up to layer 3."""
SQUEEZENET = "squeezenet1_1"
"""torchvision's SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360): layers 1 to 3 are the output of
the last fire module at 1/4, 1/8 and 1/16 of the size (`features.4`, `.7` and `.12`: 128, 256 and 512 channels)."""

_FIRES = (4, 7, 12)  # in torchvision's `features`, for layers 1 to 3
_NOT_IN_TIMM = (CIFAR_BACKBONE, KERAS_BACKBONE, SQUEEZENET)


def backbone_name(backbone: str | None, weights: Weights) -> str:
    """As given, else what the weights file is named after, else wide_resnet50_2.

    A file is named after a backbone if its name up to the first dot is that backbone's; for those that are not in timm
    more words may follow (`resnet50_v1_to_layer3.fp16.safetensors`).
    """
    import timm

    if backbone is not None:
        if backbone not in _NOT_IN_TIMM and not timm.is_model(backbone):
            raise UserError(
                f"timm has no model {backbone!r}; `timm.list_models('*resnet*')` lists such names, and "
                f"{', '.join(_NOT_IN_TIMM)} are known besides"
            )
        return backbone
    stem = weights.name.split(".")[0] if isinstance(weights, Path) else ""
    own = [name for name in _NOT_IN_TIMM if f"{stem}_".startswith(f"{name}_")]
    return own[0] if own else stem if timm.is_model(stem) else DEFAULT_BACKBONE


def last_layer(name: str) -> int:
    """The deepest layer of a backbone."""
    import timm

    if name in (KERAS_BACKBONE, SQUEEZENET):
        return 3
    try:
        with torch.device("meta"):
            whole: Any = timm.create_model(_timm_name(name), features_only=True, pretrained=False)
    except Exception as error:
        raise UserError(f"timm cannot give layers of {name}: {error}") from None
    return len(whole.feature_info.channels()) - 1


def _timm_name(name: str) -> str:
    """The architecture in timm from which a backbone is built."""
    return {CIFAR_BACKBONE: "resnet18", KERAS_BACKBONE: "resnet50"}.get(name, name)


def unranked(weights: Weights) -> str:
    """`Detector.unranked` of a detector with such a backbone."""
    return RANDOM_WEIGHTS if weights == "random" else ""


class Backbone(nn.Module):
    """Feature maps of a timm model, or of a backbone above: images (B, 3, H, W) in [0, 1] -> (B, C, h, w) per layer.

    Layers count as timm's `out_indices`: 1 to 4 are at 1/4 to 1/32 of the size, `layer1` to `layer4` of a ResNet; the
    maps come in that order. The model's own mean and standard deviation are applied inside. It is always in eval mode,
    and frozen; the gradient to the image is exact. It starts with random weights: `load_weights` gives it others.
    """

    def __init__(self, name: str, layers: tuple[int, ...]):
        super().__init__()
        import timm

        self.name = name
        if name in (KERAS_BACKBONE, SQUEEZENET) and not set(layers) <= {1, 2, 3}:
            raise UserError(f"{name} has layers 1, 2 and 3, not {','.join(map(str, layers))}")
        model: Any
        mean: tuple[float, ...] = (0.485, 0.456, 0.406)
        std: tuple[float, ...] = (0.229, 0.224, 0.225)
        if name == SQUEEZENET:
            model = _SqueezeNet(layers)
        else:
            known = _timm_name(name)
            try:
                model = timm.create_model(known, features_only=True, out_indices=layers, pretrained=False)
            except Exception as error:
                raise UserError(f"timm cannot give layers {','.join(map(str, layers))} of {name}: {error}") from None
            config = timm.get_pretrained_cfg(known)
            if config and name != KERAS_BACKBONE:
                mean, std = config.mean, config.std
        if name == CIFAR_BACKBONE:  # made for 32 pixels: it keeps the size at the entrance, and takes raw pixels
            model["conv1"] = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            model["maxpool"] = nn.Identity()
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if name == KERAS_BACKBONE:
            for layer in ("layer2", "layer3"):
                if layer in model:
                    model[layer][0].conv1.stride, model[layer][0].conv2.stride = (2, 2), (1, 1)
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Always eval: running statistics must not follow the images that are scored."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model((x - self.mean) / self.std)
        return maps

    def load_weights(self, weights: Weights) -> None:
        """From a local file (safetensors or a state dict of tensors), from the hub, or keep the random ones.

        Half precision becomes single.
        """
        if weights == "random":
            return
        if isinstance(weights, Path):
            self._load_state(read_weights(weights), str(weights))
            return
        if self.name == CIFAR_BACKBONE:
            self._load_state(_cifar_state(), "pyautoattack's checkpoint")
            return
        if self.name == KERAS_BACKBONE:
            raise UserError(
                f"the weights of {KERAS_BACKBONE} cannot be downloaded; give a file under timm's names for resnet50: "
                "--param weights=PATH/TO/FILE.safetensors"
            )
        self._load_state(hub_state(self.name), f"the hub's {self.name}")

    def _load_state(self, state: Mapping[str, Tensor], source: str) -> None:
        wanted = self.model.state_dict()
        missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
        unfit = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
        for problem, keys in (("lacks", missing), ("has another shape for", unfit)):
            if keys:
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                raise UserError(
                    f"{source} does not fit {self.name}: it {problem} {', '.join(keys[:3])}{more}; "
                    "--param backbone=NAME names the model that the weights belong to"
                )
        self.model.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


_unreachable: dict[str, str] = {}
"""Models whose download failed in this process, and why: a grid must not wait for every retry of every cell."""


def hub_state(name: str) -> dict[str, Tensor]:
    """The pretrained weights of a model, from timm's or torchvision's hub or from the hub's own cache."""
    import timm
    import torchvision

    place = "https://huggingface.co once, where timm"
    if name == SQUEEZENET:
        place = "https://download.pytorch.org once, where torchvision"
    if name not in _unreachable:
        try:
            if name == SQUEEZENET:
                model: nn.Module = torchvision.models.squeezenet1_1(weights="DEFAULT")
            else:
                model = timm.create_model(name, pretrained=True)
            return model.state_dict()
        except Exception as error:
            _unreachable[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    raise UserError(
        f"cannot download the weights of {name} ({_unreachable[name]}). Either give a local file: "
        f"--param weights=PATH/TO/FILE.safetensors, or connect to {place} keeps them"
    )


class _SqueezeNet(nn.Module):
    """The part of torchvision's squeezenet1_1 that the layers need, under torchvision's names."""

    def __init__(self, layers: tuple[int, ...]):
        super().__init__()
        import torchvision

        self.ends = sorted({_FIRES[layer - 1] for layer in layers})
        self.features = torchvision.models.squeezenet1_1().features[: self.ends[-1] + 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.ends:
                maps.append(x)
        return maps


def _cifar_state() -> dict[str, Tensor]:
    """The checkpoint of pyautoattack's example, under timm's names for the same layers."""
    package = importlib.util.find_spec("pyautoattack")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"backbone {CIFAR_BACKBONE} needs the package pyautoattack: pip install pyautoattack")
    state = read_weights(Path(package.submodule_search_locations[0]) / "examples" / "model_test.pt")
    return {name.replace("shortcut", "downsample"): value for name, value in state.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file; nothing is unpickled but tensors."""
    if not path.is_file():
        raise UserError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(f"cannot read weights from {path}: {reason}") from None


def patch_features(maps: list[Tensor]) -> Tensor:
    """Locally averaged patch features: maps of several layers -> (B, C, h, w) at the size of the first.

    Each position becomes the mean over 3x3 around it, coarser layers are resized bilinearly (Roth et al. 2022,
    section 3.1, as anomalib computes it: zero padding counts in the mean).
    """
    pooled = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
    size = pooled[0].shape[-2:]
    rest = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in pooled[1:]]
    return torch.cat([pooled[0], *rest], dim=1)


def root(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, not infinite."""
    return squared.clamp_min(1e-12).sqrt()


def euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Distance over the last axis."""
    return root((x - y).square().sum(-1))
