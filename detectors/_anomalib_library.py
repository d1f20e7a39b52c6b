"""The library anomalib from outside: its parts, its weights, and a process that it leaves as it found it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from bench import UserError

from ._features import Backbone, Weights, read_weights

INSTALL = "pip install 'anomalib>=2.7,<2.8'"
BARE: dict[str, Any] = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}
"""The library's module without what it adds around the model."""


def part(model: str, name: str, file: str = "lightning_model") -> Any:
    """A class of one of the library's models."""
    return part_of(f"anomalib.models.image.{model}.{file}", name)


def part_of(module: str, name: str) -> Any:
    """Raises UserError that says what is missing: the library, a package that it needs, or the part in this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        try:
            version = importlib.metadata.version("anomalib")
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"this detector needs the package anomalib: {INSTALL}") from None
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("anomalib"):
            raise UserError(f"anomalib {version} needs the package {error.name}, which is missing") from None
        what = module.removeprefix("anomalib.models.image.").split(".")[0]
        raise UserError(f"anomalib {version} has no model {what} as this detector knows it; {INSTALL}") from None


def sized(size: tuple[int, int]) -> Any:
    """A pre-processor from which the library's module reads the size of the images."""
    resize = part_of("torchvision.transforms.v2", "Resize")(size)
    return part_of("anomalib.pre_processing", "PreProcessor")(transform=resize)


class Frozen(Backbone):
    """A backbone inside a model of anomalib: it takes images that are normalised already."""

    def __init__(self, name: str, layers: tuple[int, ...]):
        super().__init__(name, layers)
        self.statistics = (self.mean.clone(), self.std.clone())
        self.mean.zero_()
        self.std.fill_(1)

    def trainable(self) -> nn.Module:
        """The bare model with random weights, to be trained."""
        return self.model.requires_grad_(True).train()

    @property
    def feature_info(self) -> Frozen:
        """timm's way to say it: `feature_info.channels()`, `feature_info.reduction()`."""
        return self

    def channels(self) -> list[int]:
        return [m.shape[1] for m in self._trial()]

    def reduction(self) -> list[int]:
        return [256 // m.shape[-1] for m in self._trial()]

    def _trial(self) -> list[Tensor]:
        with torch.no_grad():
            return list(self(torch.zeros(1, 3, 256, 256)))


class Named(nn.Module):
    """Feature maps under torchvision's names: `layer1` and so on."""

    def __init__(self, maps: nn.Module):
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {f"layer{i}": m for i, m in enumerate(self.maps(x), 1)}


@contextlib.contextmanager
def weightless(name: str, layers: tuple[int, ...] | None = None, native: bool = False) -> Iterator[None]:
    """Whatever backbone the library asks timm for, it gets `name`, without weights: frozen if it wanted weights.

    layers: in place of those that it asks for. native: position codes stay as the weights have them, for any size.
    """
    import timm

    transformer: Any = importlib.import_module("timm.models.vision_transformer")
    create = timm.create_model

    def ours(wanted: str, pretrained: bool = False, features_only: bool = False, **options: Any) -> nn.Module:
        out_indices: Any = options.get("out_indices")
        with mock.patch.object(timm, "create_model", create):
            if features_only and not out_indices:  # anomalib looks up names of layers
                return create(wanted, features_only=True)
            if features_only:
                frozen = Frozen(name, tuple(layers or out_indices))
                return frozen if pretrained else frozen.trainable()
            if native:
                options = {"num_classes": options["num_classes"], "dynamic_img_size": True}
            return create(name, pretrained=False, **options)

    # anomalib switches the antialiasing of position codes off for every transformer of the process
    kept = mock.patch.object(transformer, "resample_abs_pos_embed", transformer.resample_abs_pos_embed)
    with mock.patch.object(timm, "create_model", ours), kept:
        yield


def load_into(target: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """All of `target` from `state`, which may hold more."""
    wanted = target.state_dict()
    unfit = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    lacks = [key for key in unfit if not key.endswith("num_batches_tracked")]
    if lacks:
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
        raise UserError(f"{source} does not fit: it lacks {', '.join(lacks[:3])}{more}, or has them in another shape")
    target.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def load_weights(target: nn.Module, weights: Weights, what: str, download: Callable[[], Mapping[str, Tensor]]) -> None:
    """From a local file, or as `what` that `download` returns, or left random.

    Raises UserError if the download fails, or if the weights do not fit.
    """
    if isinstance(weights, Path):
        load_into(target, read_weights(weights), str(weights))
    elif weights == "hub":
        try:
            state = download()
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise UserError(f"cannot download {what} ({reason}); give a local file: --param weights=PATH") from None
        load_into(target, state, what)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """NumPy's and Python's generators, which the library also draws from, follow torch's; then they go on as before."""
    seed = int(torch.randint(2**31, ()).item())
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No chatter of the libraries on the console."""
    names = ("lightning.pytorch", "lightning", "lightning.fabric", "anomalib", "pytorch_lightning", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in names]
    with contextlib.ExitStack() as undo, warnings.catch_warnings():
        for logger in loggers:
            undo.callback(logger.setLevel, logger.level)
        part_of("anomalib.engine", "Engine")  # the import sets levels of its own
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        yield
