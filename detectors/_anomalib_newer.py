"""More models of anomalib: the family's newer and smaller ones, in the same way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader

from bench import Hints, Rng, UserError, bpda

from ._anomalib import (
    BARE,
    BLUR,
    FeatureError,
    Frozen,
    Member,
    blurred,
    downloading,
    enlarged,
    load_into,
    load_timm,
    mean_of_highest,
    part,
    part_of,
    per_step,
    sized,
)
from ._features import Weights, read_weights, root
from ._similarity import gaussian_filter


class Ganomaly(Member):
    """GANomaly: distance of an image's code to that of its reconstruction (Akcay et al. 2018, arXiv:1805.06725).

    features: channels of the first layer; latent: length of the code; extra_layers: at the full width. steps,
    batch_size: of the training; theirs are 100 epochs of batches of 32. Images are padded to a power of two.
    """

    toy_parameters: ClassVar = {"features": 8, "latent": 16, "steps": 60, "batch_size": 16}
    source = ("ganomaly", "Ganomaly")
    anomaly_map = None  # type: ignore[assignment]

    def __init__(
        self,
        *,
        features: int = 64,
        latent: int = 100,
        extra_layers: int = 0,
        lr: float = 2e-4,
        steps: int = 300,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.features, self.latent, self.extra_layers, self.lr = features, latent, extra_layers, lr
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        side = 2 ** math.ceil(math.log2(max(size)))
        return part(*self.source)(
            self.batch_size,
            self.features,
            self.latent,
            self.extra_layers,
            lr=self.lr,
            pre_processor=sized((side, side)),
            **BARE,
        )

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        step = module.training_step

        def shown(*given: Any) -> dict[str, Tensor]:
            losses = step(*given)
            return {"loss": losses["generator_loss"] + losses["discriminator_loss"]}

        module.training_step = shown
        super()._learn(module, normal)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, None]:
        return self.model(self._inner(x)).pred_score, None


class Uflow(Member):
    """U-Flow: a U-shaped normalizing flow over feature maps (Tailanian et al. 2022, arXiv:2211.12353).

    flow_steps, clamp, channels_ratio, permute_soft: of the flow. steps, batch_size: of the training; theirs are 200
    epochs. anomalib's default pair of CaiT transformers is not offered; it allows ResNet-18 and Wide ResNet-50 besides,
    here any backbone of timm whose layers halve in size.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "mobilenetv2_100",
        "weights": "random",
        "flow_steps": 2,
        "steps": 10,
        "batch_size": 16,
    }
    source = ("uflow", "Uflow")
    multiple = 16

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (1, 2, 3),
        flow_steps: int = 4,
        clamp: float = 2.0,
        channels_ratio: float = 1.0,
        permute_soft: bool = False,
        steps: int = 200,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "resnet18")
        self.layers, self.flow_steps, self.clamp = layers, flow_steps, clamp
        self.channels_ratio, self.permute_soft = channels_ratio, permute_soft
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone, self.layers):
            return part(*self.source)(
                "resnet18",
                self.flow_steps,
                self.clamp,
                self.channels_ratio,
                self.permute_soft,
                pre_processor=sized(size),
                **BARE,
            )

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        per_step(module)
        super()._learn(module, normal)

    def _map(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model(x).anomaly_map
        return maps


class AnomalyDino(Member):
    """AnomalyDINO: distance of DINOv2's patches to a memory of them (Damm et al. 2025, arXiv:2405.14529).

    The score is the mean of the farthest hundredth of the patches. backbone: a transformer of timm with `dino` in its
    name. neighbours: in the memory, averaged. coreset: share of the patches that the memory keeps; None: all. resize:
    multiples of the patch's side. Background is not masked, as is anomalib's default.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"weights": "random", "resize": 56}
    source = ("anomaly_dino", "AnomalyDINO")
    multiple = 14
    smallest = 28

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        neighbours: int = 1,
        coreset: float | None = None,
        resize: int | None = 252,
    ):
        super().__init__()
        if coreset is not None and not 0 < coreset <= 1:
            raise ValueError(f"coreset must be a share in (0, 1], got {coreset}")
        self.backbone = _transformer(self._set_weights(backbone, weights, "vit_small_patch14_dinov2"), "dino")
        self.neighbours, self.coreset, self.resize = neighbours, coreset, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(
                self.neighbours,
                self.backbone,
                coreset_subsampling=self.coreset is not None,
                sampling_ratio=self.coreset or 1.0,
                pre_processor=False,
                **BARE,
            )

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.feature_encoder.feature_extractor, self.backbone, self.weights)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, values.shape[1] // 100)

    def _map(self, x: Tensor) -> Tensor:
        return blurred(F.interpolate(self._local(x), x.shape[-2:]))

    def _local(self, x: Tensor) -> Tensor:
        """(B, 1, h, w): cosine distance of every patch to its neighbours in the memory."""
        model: Any = self.model
        features = F.normalize(model.extract_features(x), dim=-1)  # (B, P, C)
        nearest = (features @ model.memory_bank.T).topk(self.neighbours).values
        distances = (1 - nearest).clamp(0, 2).mean(-1)
        return distances.view(len(x), 1, *(side // model.patch_size for side in x.shape[-2:]))


class Supersimplenet(Member):
    """SuperSimpleNet: a discriminator of noisy features, and a classifier (Rolih et al. 2024, arXiv:2408.03143).

    The score is the classifier's, before the sigmoid: in the same order, and with a gradient everywhere. threshold: of
    the Perlin noise that places the noise. steps, batch_size: of the training; theirs are 300 epochs of batches of 32.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "steps": 12, "batch_size": 16}
    source = ("supersimplenet", "Supersimplenet")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (2, 3),
        threshold: float = 0.2,
        steps: int = 150,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        self.layers, self.threshold = layers, threshold
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(self.threshold, "resnet18", list(self.layers), pre_processor=False, **BARE)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        configure = module.configure_optimizers
        milestones = [int(self.steps * 0.8), int(self.steps * 0.9)]  # type: ignore[operator]

        def configured() -> Any:
            (optimizer,), _ = configure()  # its schedule counts epochs, of which there is no number here
            for group in optimizer.param_groups:
                group["lr"] = group.pop("initial_lr")
            schedule = MultiStepLR(optimizer, milestones, gamma=0.4)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def at_least(side: int) -> int:  # the noise has up to 32 waves, and is scaled down to smaller maps
            return max(32, 1 << (side - 1).bit_length())

        module.configure_optimizers = configured
        with mock.patch.object(module.model.anomaly_generator, "next_power_2", at_least):
            super()._learn(module, normal)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, None]:
        model: Any = self.model
        features = self._features(self._inner(x))
        maps = self._logits(features)
        head = model.segdec
        decided = head.cls_conv(torch.cat([features, maps], 1))
        pooled = [p.flatten(1) for m in (decided, maps) for p in (F.adaptive_max_pool2d(m, 1), m.mean((2, 3)))]
        return head.cls_fc(torch.cat(pooled, 1))[:, 0], None

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        maps: Tensor = model.anomaly_map_generator(self._logits(self._features(x)), final_size=x.shape[-2:])
        return maps.sigmoid()

    def _features(self, x: Tensor) -> Tensor:
        extractor: Any = self.model.feature_extractor
        maps = list(extractor.feature_extractor(x).values())
        height, width = maps[0].shape[-2:]
        pooled: Tensor = extractor.pooler(torch.cat([enlarged(m, (2 * height, 2 * width)) for m in maps], 1))
        return pooled

    def _logits(self, features: Tensor) -> Tensor:
        model: Any = self.model
        logits: Tensor = model.segdec.seg_head(model.adaptor(features))
        return logits


class Fre(FeatureError):
    """FRE: reconstruction error of a shallow autoencoder of features (Ndiour et al. 2022, arXiv:2211.12650).

    layer: timm's out_index. pooling: side of the average pooling before. latent: length of the code. steps, batch_size:
    of the training; theirs are 220 epochs of batches of 32.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "mobilenetv2_100",
        "weights": "random",
        "layer": 1,
        "latent": 16,
        "steps": 20,
        "batch_size": 16,
    }
    source = ("fre", "Fre")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layer: int = 3,
        pooling: int = 2,
        latent: int = 220,
        steps: int = 300,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "resnet50")
        self.layer, self.pooling, self.latent = layer, pooling, latent
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            module = part(*self.source)(
                "resnet18", self.layer, True, self.pooling, 1, self.latent, pre_processor=False, **BARE
            )
        extractor = module.model.feature_extractor.feature_extractor
        channels, reduction = extractor.channels()[0], extractor.reduction()[0]
        sides = [-(-side // reduction) // self.pooling for side in size]
        if not all(sides):
            raise UserError(
                f"fre: layer {self.layer} of {self.backbone} is narrower than pooling={self.pooling} at {min(size)} "
                "pixels; choose a smaller pooling, an earlier layer or a larger resize"
            )
        tied = part_of("anomalib.models.image.fre.torch_model", "TiedAE")
        module.model.fre_model = tied(channels * sides[0] * sides[1], self.latent)
        return module

    def _residual(self, features: Tensor) -> Tensor:
        model: Any = self.model
        restored: Tensor = model.fre_model(features)
        return features - restored


class Dfkde(Member):
    """DFKDE: kernel density estimate of the principal components of pooled features (anomalib's own; no paper).

    The score is minus the log-density, from which anomalib makes a probability that is 1 wherever the density falls
    below what single precision holds. layer: timm's out_index. components: of the PCA. scaling: of the components, by
    the largest length in training (`scale`) or each to length 1 (`norm`).
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "components": 6, "layer": 2}
    source = ("dfkde", "Dfkde")
    anomaly_map = None  # type: ignore[assignment]

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layer: int = 4,
        components: int = 16,
        scaling: str = "scale",
        resize: int | None = None,
    ):
        super().__init__()
        if scaling not in ("scale", "norm"):
            raise ValueError(f"scaling must be scale or norm, got {scaling}")
        self.backbone = self._set_weights(backbone, weights, "resnet18")
        self.layer, self.components, self.scaling, self.resize = layer, components, scaling, resize

    def _build(self, size: tuple[int, int]) -> Any:
        method = part_of("anomalib.models.components.classification", "FeatureScalingMethod")
        with self._offline(self.backbone):
            return part(*self.source)(
                "resnet18",
                [self.layer],
                n_pca_components=self.components,
                feature_scaling_method=method(self.scaling),
                pre_processor=False,
                **BARE,
            )

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        count = len(normal.dataset)  # type: ignore[arg-type]
        channels = module.model.feature_extractor.feature_extractor.channels()[0]
        if min(count - 1, channels) < self.components:
            raise UserError(
                f"dfkde: {self.components} components need more than {self.components} images and as many features, "
                f"not {count} and {channels}; choose fewer components"
            )
        super()._learn(module, normal)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, None]:
        model: Any = self.model
        pca, kde = model.classifier.pca_model, model.classifier.kde_model
        pooled = model.feature_extractor(self._inner(x))[self.layer].mean((2, 3))
        parts = (pooled - pca.mean) @ pca.singular_vectors
        parts = F.normalize(parts) if self.scaling == "norm" else parts / model.classifier.max_length
        squared = (kde.dataset - (parts @ kde.bw_transform)[:, None]).square().sum(2)  # (B, images)
        return math.log(len(kde.dataset)) - torch.log(kde.norm) - torch.logsumexp(-squared / 2, 1), None


class Patchflow(Member):
    """PatchFlow: a flow over the fused features of an image at several scales (Zhang et al. 2026, arXiv:2602.05238).

    flow_steps, features, hidden: length, channels and subnet width of the flow.
    scales: the image and its halves. steps, batch_size: of the training. resize: theirs is 768.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "mobilenetv2_100",
        "weights": "random",
        "features": 16,
        "hidden": 16,
        "steps": 10,
        "batch_size": 16,
    }
    source = ("patchflow", "Patchflow")
    multiple = 32

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        flow_steps: int = 1,
        features: int = 128,
        hidden: int = 128,
        scales: int = 3,
        lr: float = 1e-3,
        steps: int = 150,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "tf_efficientnet_b5")
        self.flow_steps, self.features, self.hidden, self.scales = flow_steps, features, hidden, scales
        self.lr, self.steps, self.batch_size, self.resize = lr, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(
                "tf_efficientnet_b5",
                flow_steps=self.flow_steps,
                flow_feature_dim=self.features,
                num_scales=self.scales,
                flow_hidden_dim=self.hidden,
                lr=self.lr,
                pre_processor=sized(size),
                **BARE,
            )

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        sides = [[side // 2**s for side in x.shape[-2:]] for s in range(self.scales)]
        scaled = [x, *(F.interpolate(x, side, mode="bilinear", align_corners=False) for side in sides[1:])]
        maps = [m for image in scaled for m in model.feature_extractor(image).values()]
        pooled = [enlarged(model.avg_pool(m), model.fused_spatial_size) for m in maps]
        z = model.flow(model.feature_adaptor(torch.cat(pooled, 1)))[0]
        return enlarged(-(-z.square().mean(1, keepdim=True) / 2).exp(), x.shape[-2:])


class InpFormer(Member):
    """INP-Former: a decoder guided by the image's own normal prototypes (Luo et al. 2025, arXiv:2503.02424).

    The score is the mean of the highest hundredth of the map. backbone: a transformer of timm; theirs is
    vit_base_patch14_reg4_dinov2. prototypes: their number. steps, batch_size: of the training; theirs are 200 epochs of
    batches of 16. resize: multiples of the patch's side; theirs is 392 cut out of 448.
    """

    needs = "weights, GPU"
    toy_parameters: ClassVar = {"weights": "random", "steps": 8, "batch_size": 8, "resize": 56}
    source = ("inp_former", "InpFormer")
    multiple = 14
    smallest = 28

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        prototypes: int = 6,
        steps: int = 5000,
        batch_size: int = 16,
        resize: int | None = 224,
    ):
        super().__init__()
        self.backbone = _transformer(self._set_weights(backbone, weights, "vit_small_patch14_reg4_dinov2"))
        self.prototypes, self.steps, self.batch_size, self.resize = prototypes, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(self.backbone, inp_num=self.prototypes, pre_processor=False, **BARE)

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.encoder.feature_extractor, self.backbone, self.weights)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        per_step(module)
        super()._learn(module, normal)
        for kept in ("distribution", "distance", "cluster_index"):  # of the last batch, with its graph
            module.model.__dict__.pop(kept, None)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, values.shape[1] // 100)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        features = model.encoder(x)
        skipped = 1 + model.encoder.num_register_tokens
        encoded = [features[f"blocks.{i}"][:, skipped:] for i in model.target_layers]
        tokens = torch.stack(encoded).mean(0)
        prototypes = model.prototype_token[0].expand(len(x), -1, -1)
        for block in model.aggregation:
            prototypes = block(prototypes, tokens)
        for block in model.bottleneck:
            tokens = block(tokens)
        decoded: list[Tensor] = []
        for block in model.decoder:
            tokens = block(tokens, prototypes)
            decoded.insert(0, tokens)
        patch = model.encoder.patch_size
        maps = []
        for ours, theirs in zip(model.fuse_layer_encoder, model.fuse_layer_decoder, strict=True):
            target = torch.stack([encoded[i] for i in ours]).mean(0)
            output = torch.stack([decoded[i] for i in theirs]).mean(0)
            distance = 1 - F.cosine_similarity(target, output, dim=-1)
            grid = distance.view(len(x), 1, *(side // patch for side in x.shape[-2:]))
            maps.append(enlarged(grid, x.shape[-2:], True))
        return gaussian_filter(torch.stack(maps).mean(0), 5, BLUR)


class L2bt(Member):
    """L2BT: two students predict a transformer's late features from middle ones, and back (Costanzino et al. 2025).

    https://ieeexplore.ieee.org/document/11048772. The score is the mean of the highest thousandth of the map. backbone:
    a transformer of timm; anomalib's is vit_base_patch14_reg4_dinov2. layers: the middle and the late block. steps,
    batch_size: of the training. resize: multiples of the patch's side.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "vit_small_patch14_reg4_dinov2",
        "weights": "random",
        "steps": 8,
        "batch_size": 8,
        "resize": 56,
    }
    source = ("l2bt", "L2BT")
    multiple = 14
    smallest = 28

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, int] = (7, 11),
        lr: float = 1e-4,
        steps: int = 300,
        batch_size: int = 8,
        resize: int | None = 224,
    ):
        super().__init__()
        self.backbone = _transformer(self._set_weights(backbone, weights, "vit_base_patch14_reg4_dinov2"))
        self.layers, self.lr, self.steps, self.batch_size, self.resize = layers, lr, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        extractor = part_of("anomalib.models.components.feature_extractors", "TimmFeatureExtractor")

        def ours(backbone: str, **options: Any) -> Any:
            return extractor(self.backbone, **options)

        part(*self.source)
        with (
            self._offline(self.backbone),
            mock.patch("anomalib.models.image.l2bt.teacher.TimmFeatureExtractor", ours),
        ):
            return part(*self.source)(self.lr, self.layers, pre_processor=False, **BARE)

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.teacher.fe.feature_extractor, self.backbone, self.weights)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, values.shape[1] // 1000)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        middle, last = model.teacher(x)
        predicted = model.predict_student_features(middle, last)
        maps: Tensor = model.anomaly_map_generator(middle, last, *predicted, x.shape[-2:])[0]
        return maps


class UniNet(Member):
    """UniNet: a student of two teachers, one of which is adapted (Wei et al. 2025, CVPR).

    backbone: resnet50 or wide_resnet50_2 (theirs), with timm's weights. temperature: of the contrastive loss. steps,
    batch_size: of the training; theirs are 100 epochs of batches of 8. resize: multiples of 32; theirs is 256.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "resnet50", "weights": "random", "steps": 2, "batch_size": 4, "resize": 32}
    source = ("uninet", "UniNet")
    multiple = 32

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        temperature: float = 0.1,
        steps: int = 100,
        batch_size: int = 8,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        if self.backbone not in ("resnet50", "wide_resnet50_2"):
            raise ValueError(f"backbone must be resnet50 or wide_resnet50_2, got {self.backbone}")
        self.temperature, self.steps, self.batch_size, self.resize = temperature, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        teachers = part_of("anomalib.models.image.uninet.torch_model", "Teachers")
        source, target = (Frozen(self.backbone, (1, 2, 3)) for _ in range(2))
        given = iter([_Layers(source), _Layers(target.trainable())])
        with mock.patch.object(teachers, "_get_teacher", staticmethod(lambda _: next(given))):
            return part(*self.source)(self.backbone, self.backbone, self.temperature, pre_processor=False, **BARE)

    def _load_weights(self) -> None:
        super()._load_weights()
        teachers: Any = self.model.teachers
        teachers.target_teacher.maps.load_state_dict(teachers.source_teacher.maps.model.state_dict())

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        per_step(module)
        super()._learn(module, normal)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        fixed, adapted = (list(t(x).values()) for t in (model.teachers.source_teacher, model.teachers.target_teacher))
        joined = [torch.cat(pair) for pair in zip(adapted, fixed, strict=True)]
        halves = [m.chunk(2) for m in model.student(model.bottleneck(joined))]
        students = [first for first, _ in halves] + [second for _, second in halves]
        distances = [1 - F.cosine_similarity(t, s)[:, None] for t, s in zip(fixed + adapted, students, strict=True)]
        return gaussian_filter(torch.stack([enlarged(m, x.shape[-2:], True) for m in distances]).sum(0), 5, BLUR)


class _Layers(nn.Module):
    """Feature maps under torchvision's names."""

    def __init__(self, maps: nn.Module):
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {f"layer{i}": m for i, m in enumerate(self.maps(x), 1)}


class Glass(Member):
    """GLASS: a discriminator of features with anomalies made by gradient ascent (Chen et al. 2024, arXiv:2407.09359).

    The score is the highest patch's, before the sigmoid: in the same order, and with a gradient everywhere. textures: a
    folder of pictures that the simulated defects are cut from; None: anomalib's fallback, the Perlin noise. dimension:
    of the features. ascent: steps on each batch. steps, batch_size: of the training; theirs are 640 epochs of 8.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "mobilenetv2_100",
        "weights": "random",
        "dimension": 64,
        "hidden": 64,
        "ascent": 5,
        "steps": 20,
        "batch_size": 8,
    }
    source = ("glass", "Glass")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (2, 3),
        textures: Path | None = None,
        dimension: int = 1536,
        hidden: int = 1024,
        ascent: int = 20,
        noise: float = 0.015,
        lr: float = 1e-4,
        steps: int = 100,
        batch_size: int = 8,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        self.layers, self.textures, self.dimension, self.hidden = layers, textures, dimension, hidden
        self.ascent, self.noise, self.lr = ascent, noise, lr
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        if self.textures is not None and not any(self.textures.rglob("*.*")):
            raise UserError(f"glass: no pictures in the folder {self.textures}")
        with self._offline(self.backbone):
            return part(*self.source)(
                size,
                self.textures and str(self.textures),
                "resnet18",
                self.dimension,
                self.dimension,
                layers=list(self.layers),
                discriminator_hidden=self.hidden,
                learning_rate=self.lr,
                step=self.ascent,
                gaussian_noise_std=self.noise,
                pre_processor=False,
                **BARE,
            )

    def _map(self, x: Tensor) -> Tensor:
        return blurred(enlarged(self._local(x).sigmoid(), x.shape[-2:]))

    def _local(self, x: Tensor) -> Tensor:
        """(B, 1, h, w): logits."""
        model: Any = self.model
        maps = [model.forward_modules["feature_aggregator"](x)[layer] for layer in self.layers]
        embedded = model.projection(patches(maps, self.dimension, self.dimension))
        logits = model.discriminator.tail[0](model.discriminator.body(embedded))
        grid: Tensor = logits.view(len(x), 1, *maps[0].shape[-2:])
        return grid


def patches(maps: list[Tensor], each: int, together: int) -> Tensor:
    """Maps (B, C, h, w) of several layers -> (B * h * w, together) at the size of the first.

    The 3x3 values around each position, averaged to `each` numbers per layer, and those to `together` (Roth et al. 2022
    as first published).
    """
    size = maps[0].shape[-2:]
    rows = []
    for m in maps:
        around = F.unfold(m, 3, padding=1).view(len(m), -1, *m.shape[-2:])  # (B, 9 * C, h, w)
        around = around if around.shape[-2:] == size else enlarged(around, size)
        rows.append(F.adaptive_avg_pool1d(around.permute(0, 2, 3, 1).flatten(0, 2)[:, None], each))
    return F.adaptive_avg_pool1d(torch.cat(rows, 1).flatten(1)[:, None], together)[:, 0]


class GeneralAd(Member):
    """GeneralAD: a discriminator that attends to all patches of a transformer (Straeter et al. 2024, arXiv:2407.12427).

    The score is the mean of the top patches' logits. backbone: a transformer of timm; theirs is
    vit_large_patch14_dinov2 with block 24. layers: blocks, counted from 1. hidden, heads: of the discriminator. noise:
    deviation of the feigned anomalies. top: patches that enter the score. steps, batch_size: of the training; theirs
    are 160 epochs. resize: multiples of the patch's side; theirs is 518.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"weights": "random", "hidden": 64, "steps": 10, "batch_size": 8, "resize": 56}
    source = ("general_ad", "GeneralAD")
    multiple = 14
    smallest = 28

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (12,),
        hidden: int = 2048,
        heads: int = 4,
        noise: float = 0.25,
        top: int = 10,
        lr: float = 5e-4,
        steps: int = 300,
        batch_size: int = 8,
        resize: int | None = 224,
    ):
        super().__init__()
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        self.backbone = _transformer(self._set_weights(backbone, weights, "vit_small_patch14_dinov2"))
        self.layers, self.hidden, self.heads, self.noise, self.top = layers, hidden, heads, noise, top
        self.lr, self.steps, self.batch_size, self.resize = lr, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        import timm

        with self._offline(self.backbone):
            create = timm.create_model

            def native(name: str, num_classes: int, **_: Any) -> Any:  # position codes stay as the weights have them
                return create(name, num_classes=num_classes, dynamic_img_size=True)

            with mock.patch.object(timm, "create_model", native):
                return part(*self.source)(
                    self.backbone,
                    self.layers,
                    self.hidden,
                    self.lr,
                    epochs=self.steps,
                    noise_std=self.noise,
                    dsc_heads=self.heads,
                    top_k=self.top,
                    pre_processor=sized(size),
                    **BARE,
                )

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.feature_extractor.pretrained_model, self.backbone, self.weights)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        per_step(module)
        super()._learn(module, normal)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, self.top)

    def _map(self, x: Tensor) -> Tensor:
        side: Any = self.model.patches_per_side
        return enlarged(self._local(x).view(len(x), 1, side, side), x.shape[-2:])

    def _local(self, x: Tensor) -> Tensor:
        """(B, patches): logits."""
        extractor: Any = self.model.feature_extractor
        features = extractor(x)
        extractor.pretrained_model.blocks[extractor.attn_layer - 1].attn.attn_map = None  # it would keep the graph
        logits: Tensor = self.model.discriminator(features)  # type: ignore[operator]
        return logits


class FoundAd(Member):
    """FoundAD: a projector takes foundation features back to the normal manifold (Zhai et al. 2025, arXiv:2510.01934).

    The score is the mean of the top patches' squared distances. backbone: a transformer of timm; theirs is
    vit_base_patch14_dinov2. depth, width: of the projector. layer: counted from the end. top: patches that enter the
    score. augment: flips, rotations and colours, for few images. steps, batch_size: of the training. resize: multiples
    of the patch's side; theirs is 518.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "weights": "random",
        "depth": 2,
        "width": 96,
        "steps": 8,
        "batch_size": 8,
        "resize": 56,
    }
    source = ("foundad", "FoundAD")
    multiple = 14
    smallest = 28

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        depth: int = 6,
        width: int = 384,
        layer: int = 3,
        top: int = 10,
        augment: bool = True,
        lr: float = 1e-3,
        steps: int = 300,
        batch_size: int = 8,
        resize: int | None = 224,
    ):
        super().__init__()
        self.backbone = _transformer(self._set_weights(backbone, weights, "vit_small_patch14_dinov2"))
        self.depth, self.width, self.layer, self.top, self.augment = depth, width, layer, top, augment
        self.lr, self.steps, self.batch_size, self.resize = lr, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        part(*self.source)
        names = "anomalib.models.image.foundad.components.encoder_loader.TIMM_MODEL_NAMES"
        with self._offline(self.backbone), mock.patch.dict(names, {self.backbone: self.backbone}):
            return part(*self.source)(
                self.backbone,
                self.depth,
                self.width,
                self.layer,
                self.top,
                image_size=size[0],
                lr=self.lr,
                use_few_shot_augmentation=self.augment,
                pre_processor=False,
                **BARE,
            )

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.encoder._model, self.backbone, self.weights)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, self.top)

    def _map(self, x: Tensor) -> Tensor:
        return gaussian_filter(enlarged(self._local(x), x.shape[-2:]), 5, BLUR)

    def _local(self, x: Tensor) -> Tensor:
        """(B, 1, h, w): squared distances."""
        model: Any = self.model
        features = model.encoder.get_intermediate_layers(x, n=self.layer)[0]
        squared = (features - model.projector(features)).square().mean(2)
        return squared.view(len(x), 1, *(side // model.encoder.patch_size for side in x.shape[-2:]))


class Rad(Member):
    """RAD: patches compared with those near their place in the most similar images (2026, arXiv:2601.22763).

    The score is the mean of the highest hundredth of the map. backbone: a transformer of timm; anomalib's is
    vit_base_patch16_dinov3. layers: blocks, whose distances are averaged. images: the most similar ones, by class
    token: a choice that has no gradient. radius: of the places. resize: multiples of the patch's side.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "vit_small_patch16_224", "weights": "random", "images": 20, "resize": 64}
    source = ("rad", "Rad")
    multiple = 16

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (3, 6, 9, 11),
        images: int = 150,
        radius: int = 1,
        resize: int | None = 224,
    ):
        super().__init__()
        self.backbone = _patches_of_16(self._set_weights(backbone, weights, "vit_base_patch16_dinov3"))
        self.layers, self.images, self.radius, self.resize = layers, images, radius, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(
                self.backbone,
                list(self.layers),
                k_image=self.images,
                pos_radius=self.radius,
                pre_processor=False,
                **BARE,
            )

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.feature_extractor.feature_extractor, self.backbone, self.weights)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, values.shape[1] // 100)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        rows, columns = (side // model.patch_size for side in x.shape[-2:])
        features = model._extract_features(x)  # per layer: patches (B, P, C), class token (B, C)
        similar = F.normalize(features[-1][1], dim=-1) @ model.cls_banks[-1].T
        chosen = similar.topk(min(self.images, similar.shape[1])).indices  # (B, K)
        maps = []
        for i, neighbours in enumerate(chosen):
            found = [
                self._nearest(
                    F.normalize(layer[i], dim=-1).view(rows, columns, -1),
                    bank[:, neighbours].view(rows, columns, len(neighbours), -1),
                )
                for (layer, _), bank in zip(features, model.patch_banks, strict=True)
            ]
            maps.append(1 - torch.stack(found).mean(0))
        return gaussian_filter(enlarged(torch.stack(maps)[:, None], x.shape[-2:]), 5, 1.0)

    def _nearest(self, patch: Tensor, bank: Tensor) -> Tensor:
        """(h, w): highest similarity of (h, w, C) to (h, w, K, C) at places up to `radius` away."""
        rows, columns = patch.shape[:2]
        r = self.radius
        best = []
        for down in range(-r, r + 1):
            for right in range(-r, r + 1):
                top, bottom = max(0, -down), rows - max(0, down)  # of the patches whose neighbour is inside
                first, last = max(0, -right), columns - max(0, right)
                if top < bottom and first < last:
                    near = bank[top + down : bottom + down, first + right : last + right]
                    similar = torch.einsum("hwc,hwkc->hwk", patch[top:bottom, first:last], near).amax(-1)
                    best.append(F.pad(similar, (first, columns - last, top, rows - bottom), value=-1.0))
        return torch.stack(best).amax(0)


class MhPatchcore(Member):
    """MH-PatchCore: PatchCore in a whitened space, its memory merged of parts (Ferrari et al. 2026, arXiv:2605.27748).

    variance: share that the PCA keeps. shrinkage: of the covariance. memory: patches in the memory. neighbours: that
    weight the score.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "memory": 100}
    source = ("mh_patchcore", "MHPatchcore")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (2, 3),
        variance: float = 0.99,
        shrinkage: float = 0.07,
        memory: int = 1000,
        neighbours: int = 9,
        resize: int | None = None,
    ):
        super().__init__()
        if not 0 < variance < 1:
            raise ValueError(f"variance must be a share in (0, 1), got {variance}")
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        self.layers, self.variance, self.shrinkage = layers, variance, shrinkage
        self.memory, self.neighbours, self.resize = memory, neighbours, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(
                "resnet18",
                self.layers,
                pca_variance_ratio=self.variance,
                covariance_shrinkage=self.shrinkage,
                memory_bank_size=self.memory,
                num_neighbors=self.neighbours,
                pre_processor=False,
                **BARE,
            )

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        for _ in ("PCA", "covariance", "memory"):  # one pass each
            super()._learn(module, normal)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """The evidence is the patches' distances, of which the score is the largest, weighted."""
        embedded, squared = self._distances(self._inner(x))
        model: Any = self.model
        bank = model.memory_bank.bank
        values = squared.amin(2)
        highest, where = values.max(1)  # (B,): the farthest patch
        count = min(self.neighbours, len(bank))
        if count <= 1:
            return highest, values
        rows = torch.arange(len(where), device=where.device)
        nearest = bank[squared[rows, where].argmin(1)]
        near = bank[_squared(nearest, bank).topk(count, largest=False).indices]  # (B, k, C)
        support = (near - embedded[rows, where][:, None]).square().sum(2)
        largest = support.amax(1)
        weight = 1 - (highest - largest).exp() / (support - largest[:, None]).exp().sum(1)
        return weight.clamp(0, 1) * highest, values

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        squared = self._distances(x)[1].amin(2)
        reduction = model.feature_extractor.feature_extractor.reduction()[0]
        grid = squared.view(len(x), 1, *(-(-side // reduction) for side in x.shape[-2:]))
        maps: Tensor = model.anomaly_map_generator(grid, x.shape[-2:])
        return maps

    def _distances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened patches (B, P, C), and their squared distances to the memory (B, P, memory)."""
        model: Any = self.model
        embedded = model.generate_embedding(model.feature_extractor(x))
        reduced = (embedded @ model.pca.components.T - model.pca.projected_mean).to(model.covariance.mean.dtype)
        bank = model.memory_bank.bank
        white = ((reduced - model.covariance.mean) @ model.covariance.whitening_matrix).to(bank.dtype)
        return white.view(len(x), -1, white.shape[1]), _squared(white, bank).view(len(x), -1, len(bank))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


class SuperAdd(Member):
    """SuperADD: distance to memories of several blocks of a transformer, averaged (2026, arXiv:2605.14808).

    The score is the mean of the highest thousandth of the map. backbone: a transformer of timm; anomalib's is
    vit_huge_plus_patch16_dinov3. layers: blocks; None: anomalib's choice for that size. memory: patches kept per block.
    resize: multiples of the patch's side; an image is seen whole, where anomalib cuts large ones into tiles.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "vit_small_patch16_224", "weights": "random", "resize": 64}
    source = ("super_add", "SuperADD")
    multiple = 16
    smallest = 48

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] | None = None,
        memory: int = 100000,
        resize: int | None = 224,
    ):
        super().__init__()
        self.backbone = _patches_of_16(self._set_weights(backbone, weights, "vit_base_patch16_dinov3"))
        self.layers, self.memory, self.resize = layers, memory, resize

    def _build(self, size: tuple[int, int]) -> Any:
        import timm

        if size[0] != size[1]:
            raise UserError(f"super_add takes square images, not {size[0]}x{size[1]}; choose a resize")
        with self._offline(self.backbone):
            create = timm.create_model

            def native(name: str, num_classes: int, **_: Any) -> Any:
                return create(name, num_classes=num_classes, dynamic_img_size=True)

            with mock.patch.object(timm, "create_model", native):
                module = part(*self.source)(
                    self.backbone,
                    patch_size=size[0],
                    layers=self.layers and list(self.layers),
                    pre_processor=False,
                    **BARE,
                )
        module.model.max_database_size = self.memory
        return module

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.backbone.dino, self.backbone, self.weights)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, values.shape[1] // 1000)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        features = model.backbone.dino.forward_intermediates(
            x, indices=model.layers, norm=False, output_fmt="NLC", intermediates_only=True
        )
        maps = []
        for layer, bank in zip(features, model.memory_bank, strict=True):
            nearest = root(_squared(layer.flatten(0, 1), bank).amin(1)) / layer.shape[2]
            maps.append(nearest.view(len(x), *(side // model.backbone.model_patch_size for side in x.shape[-2:])))
        return blurred(enlarged(torch.stack(maps, 1), x.shape[-2:]).mean(1, keepdim=True))


class Dsr(Member):
    """DSR: anomalies simulated in a quantised feature space (Zavrtanik et al. 2022, arXiv:2208.01521).

    Not differentiable: the image passes through a vector quantisation, whose nearest codes are constant almost
    everywhere, so that the true gradient is zero; only attacks that need no gradient apply, or one that lets it pass
    the quantisation unchanged. weights: `hub` (anomalib downloads its quantised autoencoder), `random`, or a file with
    it. strength: of the simulated anomalies. steps: of the training, in two phases of whole epochs; theirs are 700
    epochs of batches of 8. resize: theirs is 256.
    """

    needs = "weights, GPU"
    differentiable = False
    toy_parameters: ClassVar = {"weights": "random", "steps": 4, "batch_size": 16}
    source = ("dsr", "Dsr")
    normalised = False
    multiple = 32
    smallest = 64

    def __init__(
        self,
        *,
        weights: Weights = "hub",
        strength: float = 0.2,
        steps: int = 20000,
        batch_size: int = 8,
        resize: int | None = None,
    ):
        super().__init__()
        self._set_weights(None, weights, "")
        self.strength, self.steps, self.batch_size, self.resize = strength, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        module = part(*self.source)(self.strength, pre_processor=False, **BARE)
        first = module.model.discrete_latent_model._encoder_t._residual_stack._layers[0]._block[0]
        first.inplace = False  # the backward pass needs its input, a ReLU's output, as it was; the values are equal
        return module

    def _load_weights(self) -> None:
        model: Any = self.model
        if isinstance(self.weights, Path):
            load_into(model.discrete_latent_model, read_weights(self.weights), str(self.weights))
        elif self.weights == "hub":
            with downloading("anomalib's quantised autoencoder for DSR"):
                path = part(*self.source).prepare_pretrained_model()
            load_into(model.discrete_latent_model, read_weights(path), str(path))

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        module.on_train_start = lambda: None  # it would download
        super()._learn(module, normal)

    def attack_hints(self) -> Hints:
        return Hints(bpda=True)

    def _local(self, x: Tensor) -> Tensor:
        """(B, 1, h, w): the mask, averaged over the 21 x 21 positions around each."""
        return F.avg_pool2d(self._segmented(x)[2][:, 1:], 21, stride=1, padding=10)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        maps: Tensor = model.upsampling_module(*self._segmented(x)).softmax(1)
        return maps[:, 1:]

    def _segmented(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images decoded from the restored and from the plain codes, and their mask: probabilities (B, 2, h, w)."""
        model: Any = self.model
        latent = model.discrete_latent_model
        fine = latent._encoder_b(x)
        coarse = _quantised(latent.vq_vae_top, latent._pre_vq_conv_top(latent._encoder_t(fine)))
        above = latent.upsample_t(coarse)
        fine = _quantised(latent.vq_vae_bot, latent._pre_vq_conv_bot(torch.cat((fine, above), 1)))
        plain = latent._decoder_b(torch.cat((above, fine), 1))
        fine = _quantised(latent.vq_vae_bot, model.subspace_restriction_module_hi.unet(fine))
        coarse = _quantised(latent.vq_vae_top, model.subspace_restriction_module_lo.unet(coarse))
        restored = model.image_reconstruction_network(torch.cat((latent.upsample_t(coarse), fine), 1))
        return restored, plain, model.anomaly_detection_module(restored, plain).softmax(1)


def _quantised(codes: nn.Module, features: Tensor) -> Tensor:
    """The nearest codes; without a gradient, which the library would let pass, unless an attack asks for it."""
    return bpda(lambda z: codes(z).detach(), features)


def _patches_of_16(name: str) -> str:
    if "patch16" not in name:
        raise ValueError(f"backbone must be a transformer with patches of 16 pixels, got {name}")
    return name


def _transformer(name: str, *words: str) -> str:
    """A Vision Transformer whose size the library knows from its name."""
    known = any(size in name for size in ("small", "base", "large"))
    if not known or not all(word in name for word in ("vit", *words)):
        raise ValueError(
            f"backbone must be a small, base or large transformer{' with ' * bool(words)}{' '.join(words)}, got {name}"
        )
    return name
