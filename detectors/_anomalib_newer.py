"""More models of anomalib: the family's newer and smaller ones, in the same way."""

from __future__ import annotations

import math
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader

from bench import Rng, UserError

from ._anomalib import BARE, Member, blurred, enlarged, load_timm, part, part_of, per_step, sized
from ._features import Weights


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

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        scores: Tensor = self.model(self._inner(x)).pred_score
        return scores


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

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        distances = self._distances(self._inner(x)).flatten(1)
        return distances.topk(max(distances.shape[1] // 100, 1)).values.mean(1)

    def _map(self, x: Tensor) -> Tensor:
        return blurred(F.interpolate(self._distances(x), x.shape[-2:]))

    def _distances(self, x: Tensor) -> Tensor:
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

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        model: Any = self.model
        features = self._features(self._inner(x))
        maps = self._logits(features)
        head = model.segdec
        decided = head.cls_conv(torch.cat([features, maps], 1))
        pooled = [p.flatten(1) for m in (decided, maps) for p in (F.adaptive_max_pool2d(m, 1), m.mean((2, 3)))]
        scores: Tensor = head.cls_fc(torch.cat(pooled, 1))[:, 0]
        return scores

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


class Fre(Member):
    """FRE: reconstruction error of a shallow autoencoder of features (Ndiour et al. 2023, arXiv:2301.09249).

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

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self._errors(self._inner(x)).flatten(1).sum(1)

    def _map(self, x: Tensor) -> Tensor:
        return enlarged(self._errors(x).sum(1, keepdim=True), x.shape[-2:])

    def _errors(self, x: Tensor) -> Tensor:
        """(B, C, h, w): squared errors of the pooled features."""
        model: Any = self.model
        features = model.feature_extractor(x)[self.layer]
        features = F.avg_pool2d(features, self.pooling) if self.pooling > 1 else features
        flat = features.flatten(1)
        return (flat - model.fre_model(flat)).square().view(features.shape)


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

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        model: Any = self.model
        pca, kde = model.classifier.pca_model, model.classifier.kde_model
        pooled = model.feature_extractor(self._inner(x))[self.layer].mean((2, 3))
        parts = (pooled - pca.mean) @ pca.singular_vectors
        parts = F.normalize(parts) if self.scaling == "norm" else parts / model.classifier.max_length
        squared = (kde.dataset - (parts @ kde.bw_transform)[:, None]).square().sum(2)  # (B, images)
        return math.log(len(kde.dataset)) - torch.log(kde.norm) - torch.logsumexp(-squared / 2, 1)


def _transformer(name: str, *words: str) -> str:
    """A Vision Transformer whose size the library knows from its name."""
    known = any(size in name for size in ("small", "base", "large", "giant"))
    if not known or not all(word in name for word in ("vit", *words)):
        raise ValueError(
            f"backbone must be a small, base or large transformer{' with ' * bool(words)}{' '.join(words)}, got {name}"
        )
    return name
