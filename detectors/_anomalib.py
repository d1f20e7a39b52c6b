"""How a model of the library anomalib is built without downloads, trained by its Engine, and scored with gradient."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from bench import Detector, Progress, Rng, UserError

from ._features import DEFAULT_BACKBONE, Backbone, Weights, _hub_state, backbone_name, read_weights, unranked
from ._similarity import gaussian_filter

INSTALL = "pip install 'anomalib>=2.7,<2.8'"
BLUR = 4.0  # sigma in pixels of the model's input, as all of anomalib's maps have it


class Member(Detector):
    """A model of anomalib: `_build` makes the library's Lightning module, `fit` trains it with the library's Engine.

    The torch model inside becomes `self.model`. It is built in `fit` and in `load_state_dict`, because some models
    depend on the size of the images, and because importing anomalib takes ten seconds.
    """

    source: ClassVar[tuple[str, str]]
    """The module below anomalib.models.image, and the class in its `lightning_model`."""

    multiple: ClassVar[int] = 1
    smallest: ClassVar[int] = 32
    """Sides that the model takes: multiples of the one, from the other on."""

    normalised: ClassVar[bool] = True
    """The library's pre-processor applies ImageNet's mean and deviation; some models do it inside."""

    resize: int | None
    weights: Weights = "random"
    steps: int | None = None
    """Batches to train on; None: one pass."""
    batch_size: int = 32
    model: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("size", torch.zeros(2, dtype=torch.long))  # (h, w) that the model was built for
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1), persistent=False)
        self.size: Tensor
        self.mean: Tensor
        self.std: Tensor

    def _build(self, size: tuple[int, int]) -> Any:
        """The library's Lightning module for images of this size, with random weights."""
        raise NotImplementedError

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        """Everything after the weights were loaded."""
        train(self, module, normal)

    def _load_weights(self) -> None:
        """Pretrained parts take their weights; what is trained keeps its own."""
        for part in self.model.modules():
            if isinstance(part, Frozen):
                part.load_weights(self.weights)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) at the size of x."""
        return resized(self._map(self._inner(x)), x.shape[-2:])

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        """The score is `_pool` of `_local`; a member whose score is something else overrides this."""
        values = self._local(self._inner(x)).flatten(1)
        return self._pool(values), values

    def _pool(self, values: Tensor) -> Tensor:
        """(B,): the scores from the local ones (B, P)."""
        return values.amax(1)

    def _local(self, x: Tensor) -> Tensor:
        """(B, ...): the local scores, from normalised images."""
        return self._map(x)

    def _map(self, x: Tensor) -> Tensor:
        """(B, 1, h, w) from normalised images (B, 3, h, w)."""
        raise NotImplementedError

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
        with quiet(), library_randomness():
            module = self._assemble(size)
            self._load_weights()
            self._learn(module, normal)
        self.to(self.size.device).eval().requires_grad_(False)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        height, width = (int(side) for side in state_dict["size"])
        with quiet(), library_randomness():
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
        extractor_class = part_of("anomalib.models.components", "TimmFeatureExtractor")
        for extractor in self.model.modules():
            if isinstance(extractor, Frozen):
                self.mean, self.std = (value.to(self.mean.device) for value in extractor.statistics)
            if isinstance(extractor, extractor_class) and not extractor.requires_grad:
                extractor.feature_extractor.eval().requires_grad_(False)
                extractor.requires_grad = True  # its flag: without it, the features are cut from the image
        self.model.to(self.size.device)
        return module

    def _inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size if self.resize is None else (self.resize, self.resize)

    def _inner(self, x: Tensor) -> Tensor:
        """Resized and normalised, as the model takes it."""
        x = resized(x, self._inner_size((x.shape[-2], x.shape[-1])))
        return (x - self.mean) / self.std if self.normalised else x

    def _set_weights(self, backbone: str | None, weights: Weights, default: str) -> str:
        """Keeps `weights` and returns the backbone: as given, as the file is named, or the library's default."""
        self.weights = weights
        self.unranked = unranked(weights)
        name = backbone_name(backbone, weights)
        return default if backbone is None and name == DEFAULT_BACKBONE and not isinstance(weights, Path) else name

    @contextlib.contextmanager
    def _offline(self, name: str, layers: tuple[int, ...] | None = None) -> Iterator[None]:
        """Whatever backbone the library asks timm for, it gets `name`, without weights: frozen if it wanted weights."""
        import timm

        create = timm.create_model

        def ours(
            wanted: str,
            pretrained: bool = False,
            features_only: bool = False,
            out_indices: tuple[int, ...] = (),
            **options: Any,
        ) -> nn.Module:
            with mock.patch.object(timm, "create_model", create):
                if features_only and not out_indices:  # anomalib looks up names of layers
                    return create(wanted, features_only=True)
                if features_only:
                    frozen = Frozen(name, layers or tuple(out_indices))
                    return frozen if pretrained else frozen.trainable()
                return create(wanted, pretrained=False, **options)

        with mock.patch.object(timm, "create_model", ours), _position_embedding_untouched():
            yield


class FeatureError(Member):
    """Score = sum of the squared errors with which the pooled features of one layer are restored."""

    layer: int
    pooling: int

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """The evidence (B, h * w) is the sum at each position of the features."""
        errors = self._errors(self._inner(x))
        return errors.flatten(1).sum(1), errors.sum(1).flatten(1)

    def _map(self, x: Tensor) -> Tensor:
        return enlarged(self._errors(x).sum(1, keepdim=True), x.shape[-2:])

    def _errors(self, x: Tensor) -> Tensor:
        """(B, C, h, w)"""
        model: Any = self.model
        features = model.feature_extractor(x)[self.layer]
        features = F.avg_pool2d(features, self.pooling) if self.pooling > 1 else features
        return self._residual(features.flatten(1)).square().view(features.shape)

    def _residual(self, features: Tensor) -> Tensor:
        """(B, C * h * w): what is not restored of the features, of the same shape."""
        raise NotImplementedError


class Frozen(Backbone):
    """A backbone inside a model of anomalib: it takes images that are normalised already."""

    def __init__(self, name: str, layers: tuple[int, ...]):
        super().__init__(name, layers)
        self.statistics = (self.mean.clone(), self.std.clone())
        self.mean.zero_()
        self.std.fill_(1)

    def trainable(self) -> nn.Module:
        """The bare model with random weights, to be trained."""
        model: nn.Module = self.model.requires_grad_(True).train()
        return model

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


def train(detector: Member, module: Any, normal: DataLoader[Tensor], rows: range | None = None) -> None:
    """anomalib's Engine on the normal images: no validation, no labels, no files that stay.

    The loss of every batch is shown, and must be a number.
    """
    device, steps, batch_size = detector.size.device, detector.steps, detector.batch_size
    loader = batches(detector, normal, batch_size, rows=rows)
    total = len(loader) if steps is None else steps
    lightning = importlib.import_module("lightning.pytorch")
    engine_class = part_of("anomalib.engine", "Engine")
    manual = not module.automatic_optimization
    limit: dict[str, Any] = {"max_epochs": 1} if steps is None else {"max_steps": steps, "max_epochs": -1}
    if manual and steps is not None:  # Lightning counts each call of the optimiser, not the batches
        limit = {"max_epochs": -(-steps // len(loader))}
    module.pre_processor = module.post_processor = module.evaluator = module.visualizer = None

    with tempfile.TemporaryDirectory() as folder:
        engine = engine_class(
            callbacks=[_watch(lightning.Callback, detector.progress, total)],
            logger=False,
            default_root_dir=folder,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            enable_checkpointing=False,
            barebones=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            **limit,
        )
        engine._setup_anomalib_callbacks = lambda: None  # it would write checkpoints and time stamps
        try:
            engine.fit(module, datamodule=_datamodule(lightning.LightningDataModule, loader, batch_size))
        except SystemExit:  # how Lightning passes an interrupt on
            raise KeyboardInterrupt from None
    detector.model.to(device)


def _watch(base: type, progress: Progress, total: int) -> Any:
    """Shows the loss of every batch, and stops at the first that is no number, or after `total` batches."""

    class Watch(base):  # type: ignore[misc]
        step = 0

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.step += 1
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            value = float(loss) if loss is not None else 0.0
            if value != value or abs(value) == float("inf"):
                raise UserError(
                    f"training diverged at step {self.step} of {total}: the loss is {value}; try fewer steps or "
                    "other weights"
                )
            progress.update(min(self.step, total), total, value)
            trainer.should_stop |= self.step >= total

    return Watch()


class _Items(Dataset[Any]):
    """Normal images as anomalib's items, prepared as the model takes them."""

    def __init__(self, detector: Member, images: Any, rows: range):
        self.detector, self.images, self.rows = detector, images, rows
        self.item = part_of("anomalib.data", "ImageItem")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        image = self.images[self.rows[index]][None]
        with torch.no_grad():
            prepared = self.detector._inner(image.to(self.detector.mean.device))[0].cpu()
        return self.item(image=prepared, gt_label=torch.tensor(0))


def batches(
    detector: Member,
    normal: DataLoader[Tensor],
    batch_size: int,
    *,
    shuffle: bool = True,
    rows: range | None = None,
) -> DataLoader[Any]:
    """The normal images in anomalib's batches."""
    count = len(normal.dataset)  # type: ignore[arg-type]
    items = _Items(detector, normal.dataset, range(count) if rows is None else rows)
    collate = part_of("anomalib.data", "ImageBatch").collate
    drop = shuffle and detector.steps is not None and len(items) > batch_size  # a memory takes every image
    return DataLoader(items, batch_size=batch_size, shuffle=shuffle, collate_fn=collate, drop_last=drop)


def _datamodule(base: type, loader: DataLoader[Any], batch_size: int) -> Any:
    class Images(base):  # type: ignore[misc]
        name, category, train_batch_size = "images", "", batch_size

        def train_dataloader(self) -> DataLoader[Any]:
            return loader

    return Images()


def per_step(module: Any) -> None:
    """The schedule of the learning rate counts steps, as the papers have it; the library lets it count epochs."""
    configure = module.configure_optimizers

    def configured() -> Any:
        given = configure()
        optimizer, schedule = (
            (given["optimizer"], given["lr_scheduler"]) if isinstance(given, dict) else (given[0][0], given[1][0])
        )
        schedule = schedule["scheduler"] if isinstance(schedule, dict) else schedule
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module.configure_optimizers = configured


def sized(size: tuple[int, int]) -> Any:
    """A pre-processor from which the library's module reads the size of the images."""
    resize = part_of("torchvision.transforms.v2", "Resize")(size)
    return part_of("anomalib.pre_processing", "PreProcessor")(transform=resize)


BARE: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}
"""The library's module without what it adds around the model."""


def part(model: str, name: str, file: str = "lightning_model") -> Any:
    """A class of one of the library's models."""
    return part_of(f"anomalib.models.image.{model}.{file}", name)


def part_of(module: str, name: str) -> Any:
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


def load_into(target: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """All of `target` from `state`, which may hold more."""
    wanted = target.state_dict()
    lacks = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    lacks = [key for key in lacks if not key.endswith("num_batches_tracked")]
    if lacks:
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
        raise UserError(f"{source} does not fit: it lacks {', '.join(lacks[:3])}{more}, or has them in another shape")
    target.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def load_timm(target: nn.Module, name: str, weights: Weights) -> None:
    """A whole timm model: from its file, from the hub, or left random."""
    if isinstance(weights, Path):
        load_into(target, read_weights(weights), str(weights))
    elif weights == "hub":
        load_into(target, _hub_state(name), f"timm's {name}")


@contextlib.contextmanager
def downloading(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise UserError(f"cannot download {what} ({reason}); give a local file: --param weights=PATH") from None


def resized(x: Tensor, size: Any) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", antialias=True, align_corners=False)


def enlarged(maps: Tensor, size: Any, align_corners: bool = False) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=align_corners)


def blurred(maps: Tensor) -> Tensor:
    return gaussian_filter(maps, 2 * int(4 * BLUR + 0.5) + 1, BLUR)


def mean_of_highest(values: Tensor, count: int) -> Tensor:
    """(B, P) -> (B,): over at least one and at most all of them."""
    return values.topk(min(max(count, 1), values.shape[1])).values.mean(1)


@contextlib.contextmanager
def library_randomness() -> Iterator[None]:
    """NumPy's and Python's generators, which the library also draws from, follow torch's."""
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
    levels = {name: logging.getLogger(name).level for name in names}
    part_of("anomalib.engine", "Engine")  # the import sets levels of its own
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _position_embedding_untouched() -> Iterator[None]:
    """anomalib switches antialiasing off for every timm transformer of the process; ours stay as timm has them."""
    transformer: Any = importlib.import_module("timm.models.vision_transformer")
    original = transformer.resample_abs_pos_embed
    try:
        yield
    finally:
        transformer.resample_abs_pos_embed = original
