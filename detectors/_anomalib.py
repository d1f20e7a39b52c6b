"""What the models of the library anomalib have in common: how one is built, trained by it, and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from typing_extensions import dataclass_transform

from bench import Detector, Rng, UserError

from ._anomalib_gradient import Call, overheard, uncut
from ._anomalib_library import BARE, Frozen, load_weights, part, quiet, seeded, sized, weightless
from ._anomalib_training import Items, batches, per_step, train
from ._features import Weights, backbone_name, hub_state, unranked

TOY: Mapping[str, Any] = {"backbone": "mobilenetv2_100", "weights": "random"}
"""Toy parameters of a model on feature maps."""


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Member(Detector):
    """A model of anomalib: `_build` makes the library's Lightning module, `fit` trains it with the library's Engine.

    Every subclass is made a dataclass: its annotated attributes are its parameters. The torch model inside becomes
    `self.model`. It is built in `fit` and in `load_state_dict`, because some models depend on the size of the images,
    and because importing anomalib takes ten seconds. The score is that of the library's own forward pass, with the
    gradient that the library cuts. weights: `hub` (they are downloaded), `random`, or a file, as in patchcore.
    backbone: timm's name. layers: its out_indices. batch_size: of the training. lr: learning rate of the training.
    resize: the side to which images are resized inside, before the model (bilinear with antialiasing), by default not
    at all.
    """

    source: ClassVar[tuple[str, str]]
    """The module below anomalib.models.image, and the class in its `lightning_model`."""

    arguments: ClassVar[str] = ""
    """What that class is given: names of attributes, `theirs=ours` where the library has another."""

    told_size: ClassVar[bool] = False
    """It is also given a pre-processor, from which it reads the size of the images."""

    multiple: ClassVar[int] = 1
    smallest: ClassVar[int] = 32
    """Sides that the model takes: multiples of the one, from the other on."""

    normalised: ClassVar[bool] = True
    """The library's pre-processor applies ImageNet's mean and deviation; some models do it inside."""

    rate_per_step: ClassVar[bool] = False
    """The learning rate follows the steps, as in the paper; in anomalib it follows the epochs."""

    hears: ClassVar[str] = ""
    """The submodule that makes the local scores; if none is named, they are the library's map."""

    resize: PositiveInt | None
    layers: tuple[int, ...] | None = None
    weights: Weights | None = None
    steps: PositiveInt | None = None
    """Batches to train on; None: one pass."""
    batch_size: PositiveInt = 32
    model: Any

    def __init_subclass__(cls) -> None:
        dataclass(eq=False, repr=False, kw_only=True)(cls)

    def __post_init__(self) -> None:
        super().__init__()  # the fields are plain values, which a torch module takes before its constructor
        self.unranked = "" if self.weights is None else unranked(self.weights)
        self.register_buffer("size", torch.zeros(2, dtype=torch.long))  # (h, w) that the model was built for
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1), persistent=False)
        self.size: Tensor
        self.mean: Tensor
        self.std: Tensor

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        """The library's arguments, for images of this size."""
        names = (word.partition("=") for word in self.arguments.split())
        given = {theirs: getattr(self, ours or theirs) for theirs, _, ours in names}
        return given | {"pre_processor": sized(size)} if self.told_size else given

    def _build(self, size: tuple[int, int]) -> Any:
        """The library's Lightning module, with random weights."""
        return part(*self.source)(**BARE | self._options(size))

    def _load_weights(self) -> None:
        """Pretrained parts take their weights; what is trained keeps its own."""

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        """Everything after the weights were loaded."""
        if self.rate_per_step:
            per_step(module)
        # a memory takes every image; a training whole batches
        loader = batches(self._items(normal), self.batch_size, drop_last=self.steps is not None)
        train(module, loader, self.steps, self.progress, self.size.device)
        self.model.to(self.size.device)

    def _local(self, call: Call) -> Tensor | None:
        """(B, ...): what the score is pooled from."""
        return call.made if self.hears else call.made.anomaly_map

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scores (B,) and the local ones (B, P), from normalised images."""
        found, call = self._forward(x)
        local = self._local(call)
        return found.pred_score.flatten(), None if local is None else local.flatten(1)

    def _map(self, x: Tensor) -> Tensor:
        """(B, 1, h, w) from normalised images (B, 3, h, w)."""
        maps: Tensor = self._forward(x)[0].anomaly_map
        return maps.view(len(maps), 1, *maps.shape[-2:])

    def _forward(self, x: Tensor) -> tuple[Any, Call]:
        """What the library makes of normalised images, and the call of `hears` on the way."""
        with uncut(x.dtype), overheard(self.model.get_submodule(self.hears)) as calls:
            found = self.model(x)
        return found, calls[-1]

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        return self._score(self._inner(x))

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) at the size of x."""
        return resized(self._map(self._inner(x)), x.shape[-2:])

    def fit(self, normal: DataLoader[Tensor]) -> None:
        images: Any = normal.dataset
        size = self._inner_size(tuple(images[0].shape[-2:]))
        for side in size:
            if side < self.smallest or side % self.multiple:
                takes = f"in multiples of {self.multiple}, " if self.multiple > 1 else ""
                raise UserError(
                    f"anomalib's {self.source[1]} takes image sizes {takes}at least {self.smallest}, not "
                    f"{size[0]}x{size[1]}; give another "
                    "image size, or let it resize inside: --param resize="
                    f"{max(self.smallest, round(max(size) / self.multiple) * self.multiple)}"
                )
        with quiet(), seeded():
            module = self._assemble(size)
            self._load_weights()
            self._learn(module, normal)
        self.to(self.size.device).eval().requires_grad_(False)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        height, width = (int(side) for side in state_dict["size"])
        with quiet(), seeded():
            self._assemble((height, width))
        self.requires_grad_(False)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def train(self, mode: bool = True) -> Member:
        """Always eval; the library's Engine trains a module that it keeps in the modes of its own making."""
        return super().train(False)

    def _assemble(self, size: tuple[int, int]) -> Any:
        part(*self.source)  # an installed version without this model says so before anything is built
        module = self._build(size)
        self.model = module.model
        self.size = torch.tensor(size, device=self.size.device)
        for extractor in self.model.modules():
            if isinstance(extractor, Frozen):
                self.mean, self.std = (value.to(self.mean.device) for value in extractor.statistics)
        self.model.to(self.size.device)
        return module

    def _items(self, normal: DataLoader[Tensor]) -> Items:
        """The normal images as the model takes them."""
        return Items(normal.dataset, lambda image: self._inner(image.to(self.mean.device)))

    def _inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size if self.resize is None else (self.resize, self.resize)

    def _inner(self, x: Tensor) -> Tensor:
        """Resized and normalised, as the model takes it."""
        x = resized(x, self._inner_size((x.shape[-2], x.shape[-1])))
        return (x - self.mean) / self.std if self.normalised else x


class Pretrained(Member):
    """A model on a backbone of timm, whose weights it takes from where a user says."""

    needs = "weights"

    default: ClassVar[str]
    """The backbone, where neither it nor a file of weights is given."""

    whole: ClassVar[str] = ""
    """The submodule that is a whole model of timm; elsewhere the library takes feature maps of one."""

    native: ClassVar[bool] = False
    """The whole model keeps the position codes of its weights, where the library would cut them to the image."""

    asked_for: ClassVar[str] = "resnet18"
    """The backbone of which the library is told, where it does not know ours. It gets ours."""

    backbone: str | None = field(default=None, kw_only=False)
    weights: Weights = "hub"

    def __post_init__(self) -> None:
        super().__post_init__()
        named = self.backbone is not None or isinstance(self.weights, Path)
        self.network = backbone_name(self.backbone, self.weights) if named else self.default
        self.backbone = self.network

    def _build(self, size: tuple[int, int]) -> Any:
        with weightless(self.network, self.layers, self.native):
            return super()._build(size)

    def _load_weights(self) -> None:
        if self.whole:
            target, name = self.model.get_submodule(self.whole), self.network
            load_weights(target, self.weights, f"timm's {name}", lambda: hub_state(name))
        for inside in self.model.modules():
            if isinstance(inside, Frozen):
                inside.load_weights(self.weights)


class Transformer(Pretrained):
    """A model on a Vision Transformer, whose size the library knows from its name."""

    multiple = 14
    smallest = 28
    sizes: ClassVar[tuple[str, ...]] = ("small", "base", "large")
    word: ClassVar[str] = ""
    """What else the name must hold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "vit" not in self.network or self.word not in self.network or not any(s in self.network for s in self.sizes):
            sizes = f"{', '.join(self.sizes[:-1])} or {self.sizes[-1]}"
            also = f" with {self.word}" if self.word else ""
            raise ValueError(f"backbone must be a {sizes} transformer{also}, got {self.backbone}")


class PatchesOf16(Pretrained):
    """A model on a transformer of any size with patches of 16 pixels."""

    multiple = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if "patch16" not in self.network:
            raise ValueError(f"backbone must be a transformer with patches of 16 pixels, got {self.backbone}")


def count(normal: DataLoader[Tensor]) -> int:
    return len(normal.dataset)  # type: ignore[arg-type]


def resized(x: Tensor, size: Any) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", antialias=True, align_corners=False)
