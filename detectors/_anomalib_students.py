"""Models of anomalib in which a student imitates a teacher: an image is as anomalous as they disagree."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest import mock

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from bench import UserError

from ._anomalib import TOY, Member, Pretrained, Transformer, count
from ._anomalib_gradient import Call
from ._anomalib_library import BARE, Frozen, Named, load_weights, part, part_of
from ._anomalib_training import batches
from ._features import CIFAR_BACKBONE, Weights
from ._similarity import gaussian_filter


class Stfpm(Pretrained):
    """STFPM: a student imitates the feature pyramid of a teacher (Wang et al. 2021, arXiv:2103.04257).

    The map is the product of the layers' differences. steps, batch_size: of the training; theirs are 100 epochs of
    batches of 32. It needs a teacher with trained weights: a student of a random teacher is soon its equal.
    """

    toy_parameters: ClassVar = {**TOY, "steps": 10, "batch_size": 16}
    source = ("stfpm", "Stfpm")
    arguments = "backbone=asked_for layers"
    default = "resnet18"

    layers: tuple[int, ...] = (1, 2, 3)
    steps: PositiveInt = 200
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None


class ReverseDistillation(Pretrained):
    """Reverse distillation: a decoder restores a teacher's features (Deng and Li 2022, arXiv:2201.10703).

    The map is the sum of the layers' cosine distances. backbone: resnet18, resnet34, resnet50, wide_resnet50_2 (the
    paper's) or cifar_resnet18. steps, batch_size: of the training; theirs are 200 epochs of batches of 16.
    """

    toy_parameters: ClassVar = {"backbone": "resnet18", "weights": "random", "steps": 12, "batch_size": 8}
    source = ("reverse_distillation", "ReverseDistillation")
    told_size = True
    default = "wide_resnet50_2"
    multiple = 32

    steps: PositiveInt = 150
    batch_size: PositiveInt = 16
    resize: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in _REVERSIBLE:
            raise ValueError(f"backbone must be one of {', '.join(_REVERSIBLE)}, got {self.backbone}")

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        return super()._options(size) | {"backbone": _REVERSIBLE[self.network], "layers": (1, 2, 3)}


_REVERSIBLE = {name: name for name in ("resnet18", "resnet34", "resnet50", "wide_resnet50_2")}
_REVERSIBLE[CIFAR_BACKBONE] = "resnet18"


class UniNet(Pretrained):
    """UniNet: a student of two teachers, one of which is adapted (Wei et al. 2025, CVPR).

    backbone: resnet50 or wide_resnet50_2 (theirs), with timm's weights. temperature: of the contrastive loss. steps,
    batch_size: of the training; theirs are 100 epochs of batches of 8. resize: multiples of 32; theirs is 256.
    """

    toy_parameters: ClassVar = {"backbone": "resnet50", "weights": "random", "steps": 2, "batch_size": 4, "resize": 32}
    source = ("uninet", "UniNet")
    arguments = "student_backbone=network teacher_backbone=network temperature"
    default = "wide_resnet50_2"
    multiple = 32
    rate_per_step = True

    temperature: PositiveFloat = 0.1
    steps: PositiveInt = 100
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in ("resnet50", "wide_resnet50_2"):
            raise ValueError(f"backbone must be resnet50 or wide_resnet50_2, got {self.backbone}")

    def _build(self, size: tuple[int, int]) -> Any:
        teachers = part_of("anomalib.models.image.uninet.torch_model", "Teachers")
        source, target = (Frozen(self.network, (1, 2, 3)) for _ in range(2))
        given = iter([Named(source), Named(target.trainable())])
        with mock.patch.object(teachers, "_get_teacher", staticmethod(lambda _: next(given))):
            return super()._build(size)

    def _load_weights(self) -> None:
        super()._load_weights()
        teachers: Any = self.model.teachers
        teachers.target_teacher.maps.load_state_dict(teachers.source_teacher.maps.model.state_dict())

    def _local(self, call: Call) -> Tensor:
        """(B, 1, h, w): the map, whose maximum is the score once it is blurred."""
        return gaussian_filter(call.made.anomaly_map.unsqueeze(1), 5, 4.0)

    def _map(self, x: Tensor) -> Tensor:
        return self._local(self._forward(x)[1])


class L2bt(Transformer):
    """L2BT: two students predict a transformer's late features from middle ones, and back (Costanzino et al. 2025).

    https://ieeexplore.ieee.org/document/11048772. The score is the mean of the highest thousandth of the map. backbone:
    a transformer of timm; anomalib's is vit_base_patch14_reg4_dinov2. layers: the middle and the late block. steps,
    batch_size: of the training. resize: multiples of the patch's side.
    """

    toy_parameters: ClassVar = {
        "backbone": "vit_small_patch14_reg4_dinov2", "weights": "random", "steps": 8, "batch_size": 8, "resize": 56
    }  # fmt: skip
    source = ("l2bt", "L2BT")
    arguments = "lr layers"
    default = "vit_base_patch14_reg4_dinov2"
    whole = "teacher.fe.feature_extractor"

    layers: tuple[int, int] = (7, 11)
    lr: PositiveFloat = 1e-4
    steps: PositiveInt = 300
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = 224


class EfficientAd(Member):
    """EfficientAD: a small student and an autoencoder imitate a teacher (Batzner et al. 2024, arXiv:2303.14535).

    model_size: `small` or `medium`. weights: `hub` (anomalib downloads its teacher), `random`, or a file such as its
    `pretrained_teacher_small.pth`. imagenet: a folder of folders of pictures for the penalty that keeps the student
    from imitating the teacher elsewhere; None: trained without that penalty. channels: of the teacher's features; its
    weights have 384. steps: batches of one image; theirs are 70000. resize: at least 256, which is theirs. A tenth of
    the training images is held out for the quantiles that make the two maps comparable.
    """

    needs = "weights, GPU"
    toy_parameters: ClassVar = {"weights": "random", "channels": 16, "steps": 4}
    source = ("efficient_ad", "EfficientAd")
    arguments = "teacher_out_channels=channels model_size lr"
    normalised = False
    smallest = 256
    rate_per_step = True
    batch_size = 1

    model_size: Literal["small", "medium"] = field(default="small", kw_only=False)
    weights: Weights = "hub"
    imagenet: Path | None = None
    channels: PositiveInt = 384
    lr: PositiveFloat = 1e-4
    steps: PositiveInt = 70000
    resize: PositiveInt | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}")

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        return super()._options(size) | {"imagenet_dir": self.imagenet or ""}

    def _load_weights(self) -> None:
        def download() -> dict[str, Tensor]:
            fetched = part(*self.source)(model_size=self.model_size, **BARE)
            fetched.prepare_pretrained_model()
            return fetched.model.teacher.state_dict()

        load_weights(self.model.teacher, self.weights, "anomalib's teacher for EfficientAD", download)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        images = range(count(normal))
        split = len(images) - max(len(images) // 10, 1)
        learned, held = (DataLoader(Subset(normal.dataset, rows)) for rows in (images[:split], images[split:]))
        if self.imagenet is not None and not self.imagenet.is_dir():
            raise UserError(f"efficient-ad: no folder {self.imagenet} for imagenet")
        model = self.model

        def start() -> None:
            if self.imagenet is not None:
                module.prepare_imagenette_data(tuple(self.size.tolist()))
            model.mean_std.update(module.teacher_channel_mean_std(batches(self._items(learned), 8, shuffle=False)))

        module.on_train_start = start
        if self.imagenet is None:
            module.training_step = lambda batch, *_: {"loss": self._loss(batch.image)}
        with mock.patch("anomalib.models.image.efficient_ad.lightning_model.tqdm.tqdm", lambda loader, **_: loader):
            super()._learn(module, learned)
            model.eval()
            held_out = batches(self._items(held), 8, shuffle=False)
            model.quantiles.update(module.to(self.size.device).map_norm_quantiles(held_out))

    def _loss(self, x: Tensor) -> Tensor:
        """Hard student-teacher pairs, autoencoder, and student-autoencoder: their algorithm 1, without the penalty."""
        model = self.model
        _, distance = model.compute_student_teacher_distance(x)
        few = part("efficient_ad", "reduce_tensor_elems", "torch_model")(distance)  # as many as `quantile` takes
        hard = distance[distance >= torch.quantile(few, 0.999)].mean()
        changed = model.choose_random_aug_image(x)
        imitation = model.ae(changed, x.shape[-2:])
        with torch.no_grad():
            teacher = model._normalize_teacher(model.teacher(changed))
        student = model.student(changed)[:, self.channels :]
        return hard + (teacher - imitation).square().mean() + (imitation - student).square().mean()
