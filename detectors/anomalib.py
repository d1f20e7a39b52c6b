"""Models of the library anomalib, trained by it and scored with their true gradient (Akcay et al. 2022).

https://arxiv.org/abs/2202.08341, https://github.com/open-edge-platform/anomalib. Each is a detector of its own,
`anomalib:padim` and so on. They are trained by anomalib's Engine on normal images alone. The score is the model's raw
image score, without the library's normalisation by validation images. Where the library's forward pass cuts the
gradient, it is written out here from the model's parts: same score, true gradient.

Parameters that all share: `weights` as in patchcore (`hub`, `random`, or a file), `backbone` and `layers` (timm's
names and out_indices), and `resize`: the side to which images are resized inside, before the model (bilinear with
antialiasing), by default not at all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Rng, UserError

from ._anomalib import (
    BARE,
    FeatureError,
    Frozen,
    Member,
    batches,
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
    train,
)
from ._anomalib_newer import (
    AnomalyDino,
    Dfkde,
    Dsr,
    FoundAd,
    Fre,
    Ganomaly,
    GeneralAd,
    Glass,
    InpFormer,
    L2bt,
    MhPatchcore,
    Patchflow,
    Rad,
    SuperAdd,
    Supersimplenet,
    Uflow,
    UniNet,
)
from ._features import Weights, read_weights, root


class Padim(Member):
    """PaDiM: Mahalanobis distance of each position's features (Defard et al. 2021, arXiv:2011.08785).

    features: channels kept, drawn at random; by default 100 of a ResNet-18, 550 of a Wide ResNet-50 (the paper's),
    100 of any other, or all where there are fewer.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "features": 20}
    source = ("padim", "Padim")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (1, 2, 3),
        features: int | None = None,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "resnet18")
        self.layers, self.features, self.resize = layers, features, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            module = part(*self.source)("resnet18", list(self.layers), n_features=1, pre_processor=False, **BARE)
        model = module.model
        known = model.n_features_original
        model.n_features = self.features or {"wide_resnet50_2": 550}.get(self.backbone, min(100, known))
        if model.n_features > known:
            raise UserError(f"padim: layers {self.layers} of {self.backbone} have {known} features, fewer than asked")
        model.idx = torch.randperm(known)[: model.n_features]
        return module

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        embedding = model.generate_embedding(model.feature_extractor(x))  # (B, C, h, w)
        delta = (embedding.flatten(2) - model.gaussian.mean).permute(2, 0, 1)  # (h * w, B, C)
        squared = (delta @ model.gaussian.inv_covariance * delta).sum(2).T
        distance = root(squared).view(len(x), 1, *embedding.shape[-2:])
        return blurred(enlarged(distance, x.shape[-2:]))


class Stfpm(Member):
    """STFPM: a student imitates the feature pyramid of a teacher (Wang et al. 2021, arXiv:2103.04257).

    The map is the product of the layers' differences. steps, batch_size: of the training; theirs are 100 epochs of
    batches of 32. It needs a teacher with trained weights: a student of a random teacher is soon its equal.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "steps": 10, "batch_size": 16}
    source = ("stfpm", "Stfpm")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (1, 2, 3),
        steps: int = 200,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "resnet18")
        self.layers, self.steps, self.batch_size, self.resize = layers, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)("resnet18", self.layers, pre_processor=False, **BARE)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        teacher, student = model.teacher_model(x), model.student_model(x)
        product = torch.ones((), dtype=x.dtype, device=x.device)
        for layer in self.layers:
            difference = F.normalize(teacher[layer]) - F.normalize(student[layer])
            product = product * enlarged(difference.square().sum(1, keepdim=True) / 2, x.shape[-2:])
        return product


class Fastflow(Member):
    """FastFlow: normalizing flows over feature maps (Yu et al. 2021, arXiv:2111.07677).

    flow_steps, hidden_ratio, conv3x3_only: of the flows. steps, batch_size: of the training; theirs are 500 epochs of
    batches of 32. anomalib allows ResNet-18 and Wide ResNet-50; here any backbone of timm with these layers.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "mobilenetv2_100",
        "weights": "random",
        "flow_steps": 2,
        "steps": 10,
        "batch_size": 16,
    }
    source = ("fastflow", "Fastflow")
    multiple = 16

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (1, 2, 3),
        flow_steps: int = 8,
        hidden_ratio: float = 1.0,
        conv3x3_only: bool = True,
        steps: int = 300,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "resnet18")
        self.layers, self.flow_steps, self.hidden_ratio = layers, flow_steps, hidden_ratio
        self.conv3x3_only, self.steps, self.batch_size, self.resize = conv3x3_only, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone, self.layers):
            return part(*self.source)(
                "resnet18",
                flow_steps=self.flow_steps,
                hidden_ratio=self.hidden_ratio,
                conv3x3_only=self.conv3x3_only,
                pre_processor=sized(size),
                **BARE,
            )

    def _map(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model(x).anomaly_map
        return maps


class Cflow(Member):
    """CFLOW-AD: conditional normalizing flows over positions (Gudovskiy et al. 2022, arXiv:2107.12571).

    anomalib divides the likelihoods by their maximum over the batch, so that a score depends on the other images; here
    the maxima are constants, taken from the training images. coupling_blocks, condition: blocks and length of the
    position's code. fibers: positions per step of the optimiser. steps: batches of batch_size images; theirs are 25 to
    100 epochs.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "backbone": "mobilenetv2_100",
        "weights": "random",
        "layers": (2, 3),
        "coupling_blocks": 2,
        "fibers": 128,
        "steps": 6,
        "batch_size": 16,
    }
    source = ("cflow", "Cflow")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (2, 3, 4),
        coupling_blocks: int = 8,
        condition: int = 128,
        fibers: int = 64,
        lr: float = 1e-4,
        steps: int = 40,
        batch_size: int = 32,
        resize: int | None = None,
    ):
        super().__init__()
        if condition % 4:
            raise ValueError(f"condition must be a multiple of 4, got {condition}")
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        self.layers, self.coupling_blocks, self.condition, self.fibers = layers, coupling_blocks, condition, fibers
        self.lr, self.steps, self.batch_size, self.resize = lr, steps, batch_size, resize
        self.register_buffer("peaks", torch.zeros(len(layers)))  # highest log-likelihood of each layer in training
        self.register_buffer("top", torch.zeros(()))  # highest sum of the layers' likelihoods in training
        self.peaks: Tensor
        self.top: Tensor

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(
                "resnet18",
                self.layers,
                fiber_batch_size=self.fibers,
                condition_vector=self.condition,
                coupling_blocks=self.coupling_blocks,
                lr=self.lr,
                pre_processor=False,
                **BARE,
            )

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        images = min(len(normal.dataset), self.batch_size)  # type: ignore[arg-type]
        with torch.no_grad():
            coarsest = min(
                m[0, 0].numel()
                for m in module.model.encoder(torch.zeros(1, 3, *self.size.tolist()).to(self.mean)).values()
            )
        if images * coarsest < self.fibers:
            raise UserError(
                f"cflow: a batch of {images} images has {images * coarsest} positions in its coarsest layer, fewer "
                f"than fibers={self.fibers}; choose fewer fibers or earlier layers"
            )
        super()._learn(module, normal)
        self.model.eval()
        with torch.no_grad():
            likelihoods = [self._log_likelihoods(self._inner(x.to(self.size.device))) for x in normal]
            self.peaks = torch.stack([torch.cat(layer).max() for layer in zip(*likelihoods, strict=True)])
            side = torch.Size(self.size.tolist())
            self.top = torch.stack([self._sum(layers, side).max() for layers in likelihoods]).max()

    def _map(self, x: Tensor) -> Tensor:
        return self.top - self._sum(self._log_likelihoods(x), x.shape[-2:])

    def _sum(self, layers: list[Tensor], size: torch.Size) -> Tensor:
        maps = [enlarged((m - peak).exp(), size, True) for m, peak in zip(layers, self.peaks, strict=True)]
        return torch.stack(maps).sum(0)

    def _log_likelihoods(self, x: Tensor) -> list[Tensor]:
        """(B, 1, h, w) per layer: mean over the feature's dimensions."""
        model: Any = self.model
        encode = part_of("anomalib.models.image.cflow.utils", "positional_encoding_2d")
        likelihood = part_of("anomalib.models.image.cflow.utils", "get_logp")
        maps = []
        for features, decoder in zip(model.encoder(x).values(), model.decoders, strict=True):
            batch, channels, height, width = features.shape
            code = encode(self.condition, height, width).to(x).flatten(1).T.repeat(batch, 1)
            u, jacobian = decoder(features.permute(0, 2, 3, 1).reshape(-1, channels), [code])
            maps.append((likelihood(channels, u, jacobian) / channels).view(batch, 1, height, width))
        return maps


class Cfa(Member):
    """CFA: features adapted towards a memory of centres (Lee et al. 2022, arXiv:2206.04325).

    gamma_c, gamma_d: by how much centres and channels are reduced. neighbours: nearest centres that attract, and that
    enter the score; negatives: the next ones, which repel; radius: of the spheres. steps, batch_size: of the training;
    theirs are 30 epochs of batches of 4. anomalib allows some backbones; here any of timm with these layers.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "steps": 10, "batch_size": 16}
    source = ("cfa", "Cfa")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layers: tuple[int, ...] = (1, 2, 3),
        gamma_c: int = 1,
        gamma_d: int = 1,
        neighbours: int = 3,
        negatives: int = 3,
        radius: float = 1e-5,
        steps: int = 500,
        batch_size: int = 8,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        self.layers, self.gamma_c, self.gamma_d = layers, gamma_c, gamma_d
        self.neighbours, self.negatives, self.radius = neighbours, negatives, radius
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        extractor = _Named(Frozen(self.backbone, self.layers))
        channels = sum(extractor.maps.channels())
        library = "anomalib.models.image.cfa.torch_model"
        with mock.patch(f"{library}.get_feature_extractor", lambda *_: extractor):
            module = part(*self.source)(
                "resnet18",
                self.gamma_c,
                self.gamma_d,
                self.neighbours,
                self.negatives,
                self.radius,
                pre_processor=False,
                **BARE,
            )
        layer = part_of(library, "CoordConv2d")(channels, channels // self.gamma_d, kernel_size=1)
        module.model.descriptor.layer = layer
        module.model.radius = self.radius  # was a tensor with a graph, which cannot be copied
        return module

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        with mock.patch("anomalib.models.image.cfa.torch_model.tqdm", lambda batches: batches):
            super()._learn(module, normal)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        features = model.descriptor(model.feature_extractor(x))
        nearest = root(model.compute_distance(features)).topk(self.neighbours, largest=False).values  # (B, P, k)
        distance = F.softmin(nearest, dim=-1)[..., 0] * nearest[..., 0]
        return blurred(enlarged(distance.view(len(x), 1, *features.shape[-2:]), x.shape[-2:]))


class _Named(nn.Module):
    """Feature maps under the names that CFA asks for."""

    def __init__(self, maps: Frozen):
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {f"layer{i}": m for i, m in enumerate(self.maps(x), 1)}


class Dfm(FeatureError):
    """DFM: reconstruction error of a PCA of deep features (Ahuja et al. 2019, arXiv:1909.11786).

    layer: timm's out_index. pooling: side of the average pooling before the PCA. variance: share that the PCA keeps.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "mobilenetv2_100", "weights": "random", "layer": 1}
    source = ("dfm", "Dfm")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        layer: int = 3,
        pooling: int = 4,
        variance: float = 0.97,
        resize: int | None = None,
    ):
        super().__init__()
        if not 0 < variance < 1:
            raise ValueError(f"variance must be a share in (0, 1), got {variance}")
        self.backbone = self._set_weights(backbone, weights, "resnet50")
        self.layer, self.pooling, self.variance, self.resize = layer, pooling, variance, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            module = part(*self.source)(
                "resnet18",
                self.layer,
                pooling_kernel_size=self.pooling,
                pca_level=self.variance,
                pre_processor=False,
                **BARE,
            )
        reduction = module.model.feature_extractor.feature_extractor.reduction()[0]
        if min(size) // reduction < self.pooling:
            raise UserError(
                f"dfm: layer {self.layer} of {self.backbone} is {min(size) // reduction} wide at {min(size)} pixels, "
                f"less than pooling={self.pooling}; choose a smaller pooling, an earlier layer or a larger resize"
            )
        return module

    def _residual(self, features: Tensor) -> Tensor:
        pca: Any = self.model.pca_model
        centred: Tensor = features - pca.mean
        basis = pca.singular_vectors
        return centred - centred @ basis @ basis.T


class ReverseDistillation(Member):
    """Reverse distillation: a decoder restores a teacher's features (Deng and Li 2022, arXiv:2201.10703).

    The map is the sum of the layers' cosine distances. backbone: resnet18, resnet34, resnet50, wide_resnet50_2 (the
    paper's) or cifar_resnet18. steps, batch_size: of the training; theirs are 200 epochs of batches of 16.
    """

    needs = "weights"
    toy_parameters: ClassVar = {"backbone": "resnet18", "weights": "random", "steps": 12, "batch_size": 8}
    source = ("reverse_distillation", "ReverseDistillation")
    multiple = 32

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        steps: int = 150,
        batch_size: int = 16,
        resize: int | None = None,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "wide_resnet50_2")
        if self.backbone not in _REVERSIBLE:
            raise ValueError(f"backbone must be one of {', '.join(_REVERSIBLE)}, got {self.backbone}")
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(_REVERSIBLE[self.backbone], (1, 2, 3), pre_processor=sized(size), **BARE)

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        encoded = list(model.encoder(x).values())
        decoded = model.decoder(model.bottleneck(encoded))
        distances = [1 - F.cosine_similarity(e, d)[:, None] for e, d in zip(encoded, decoded, strict=True)]
        return blurred(torch.stack([enlarged(m, x.shape[-2:], True) for m in distances]).sum(0))


_REVERSIBLE = {name: name for name in ("resnet18", "resnet34", "resnet50", "wide_resnet50_2")}
_REVERSIBLE["cifar_resnet18"] = "resnet18"


class Csflow(Member):
    """CS-Flow: a flow across scales of EfficientNet-B5 features (Rudolph et al. 2022, arXiv:2110.02855).

    weights: `hub` (torchvision downloads them), `random`, or a file with torchvision's efficientnet_b5. hidden:
    channels inside the flow; blocks: its length. steps, batch_size: of the training; theirs are 240 epochs of
    batches of 16. resize: theirs is 768; multiples of 128.
    """

    needs = "weights"
    toy_parameters: ClassVar = {
        "weights": "random",
        "hidden": 32,
        "blocks": 1,
        "steps": 6,
        "batch_size": 8,
        "resize": 128,
    }
    source = ("csflow", "Csflow")
    multiple = 128
    smallest = 128

    def __init__(
        self,
        *,
        weights: Weights = "hub",
        hidden: int = 1024,
        blocks: int = 4,
        clamp: int = 3,
        steps: int = 100,
        batch_size: int = 16,
        resize: int | None = 256,
    ):
        super().__init__()
        self._set_weights(None, weights, "")
        self.hidden, self.blocks, self.clamp = hidden, blocks, clamp
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        build = part_of("torchvision.models", "efficientnet_b5")
        library = "anomalib.models.image.csflow.torch_model"
        part(*self.source)
        with mock.patch(f"{library}.efficientnet_b5", lambda weights: build().eval()):
            return part(*self.source)(self.hidden, self.blocks, self.clamp, pre_processor=sized(size), **BARE)

    def _load_weights(self) -> None:
        model: Any = self.model
        target = model.feature_extractor.feature_extractor.feature_extractor
        if isinstance(self.weights, Path):
            load_into(target, read_weights(self.weights), str(self.weights))
        elif self.weights == "hub":
            known = part_of("torchvision.models", "EfficientNet_B5_Weights").IMAGENET1K_V1
            with downloading("torchvision's efficientnet_b5"):
                state = known.get_state_dict(progress=False, check_hash=True)
            load_into(target, state, "torchvision's efficientnet_b5")

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        if self.weights == "random":  # its features would all but vanish
            _amplify(self.model, self._inner(next(iter(normal))[:8].to(self.size.device)))
        super()._learn(module, normal)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """The evidence is half the mean square at each position of the three scales; the score is its mean."""
        squares = [z.square() for z in self._latents(self._inner(x))]
        score = torch.cat([s.flatten(1) for s in squares], dim=1).mean(1) / 2
        return score, torch.cat([s.mean(1).flatten(1) for s in squares], dim=1) / 2

    def _map(self, x: Tensor) -> Tensor:
        maps = [enlarged(z.square().mean(1, keepdim=True), x.shape[-2:]) for z in self._latents(x)]
        return torch.stack(maps).prod(0)

    def _latents(self, x: Tensor) -> list[Tensor]:
        """(B, 304, h, w) at three scales."""
        model: Any = self.model
        return list(model.graph(model.feature_extractor(x))[0])


def _amplify(model: Any, x: Tensor) -> None:
    """One gain for all batch normalisations of a random extractor, such that its features have a deviation of 1."""
    layers = [m for m in model.feature_extractor.modules() if isinstance(m, nn.BatchNorm2d)]
    low, high = 1.0, 4.0
    with torch.no_grad():
        for _ in range(10):
            gain = (low + high) / 2
            for layer in layers:
                layer.weight.fill_(gain)
            low, high = (
                (gain, high) if model.feature_extractor.feature_extractor(x)["features.6.8"].std() < 1 else (low, gain)
            )


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
    normalised = False
    smallest = 256
    batch_size = 1

    def __init__(
        self,
        model_size: Literal["small", "medium"] = "small",
        *,
        weights: Weights = "hub",
        imagenet: Path | None = None,
        channels: int = 384,
        lr: float = 1e-4,
        steps: int = 70000,
        resize: int | None = 256,
    ):
        super().__init__()
        if steps < 2:
            raise ValueError(f"steps must be at least 2, got {steps}")
        self._set_weights(None, weights, "")
        self.model_size, self.imagenet, self.channels = model_size, imagenet, channels
        self.lr, self.steps, self.resize = lr, steps, resize

    def _build(self, size: tuple[int, int]) -> Any:
        module = part(*self.source)(
            self.imagenet or "", self.channels, self.model_size, lr=self.lr, pre_processor=False, **BARE
        )
        module.model.teacher.requires_grad_(False)
        return module

    def _load_weights(self) -> None:
        model: Any = self.model
        if isinstance(self.weights, Path):
            load_into(model.teacher, read_weights(self.weights), str(self.weights))
        elif self.weights == "hub":
            with downloading("anomalib's teacher for EfficientAD"):
                fetched = part(*self.source)(model_size=self.model_size, pre_processor=False, **BARE)
                fetched.prepare_pretrained_model()
            load_into(model.teacher, fetched.model.teacher.state_dict(), "anomalib's teacher")

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        count = len(normal.dataset)  # type: ignore[arg-type]
        held = max(count // 10, 1)
        rows, held_rows = range(count - held), range(count - held, count)
        if self.imagenet is not None and not self.imagenet.is_dir():
            raise UserError(f"efficient-ad: no folder {self.imagenet} for imagenet")
        model: Any = self.model

        def start() -> None:
            if self.imagenet is not None:
                module.prepare_imagenette_data(tuple(self.size.tolist()))
            statistics = module.teacher_channel_mean_std(batches(self, normal, 8, shuffle=False, rows=rows))
            model.mean_std.update(statistics)

        def without_penalty(batch: Any, *_: Any) -> dict[str, Tensor]:
            return {"loss": self._loss(batch.image)}

        module.on_train_start = start
        if self.imagenet is None:
            module.training_step = without_penalty
        per_step(module)
        with mock.patch("anomalib.models.image.efficient_ad.lightning_model.tqdm.tqdm", lambda loader, **_: loader):
            train(self, module, normal, rows)
            model.eval()
            loader = batches(self, normal, 8, shuffle=False, rows=held_rows)
            model.quantiles.update(module.to(self.size.device).map_norm_quantiles(loader))

    def _loss(self, x: Tensor) -> Tensor:
        """Hard student-teacher pairs, autoencoder, and student-autoencoder: their algorithm 1, without the penalty."""
        model: Any = self.model
        _, distance = model.compute_student_teacher_distance(x)
        hard = distance[distance >= torch.quantile(_subsample(distance), 0.999)].mean()
        changed = model.choose_random_aug_image(x)
        imitation = model.ae(changed, x.shape[-2:])
        with torch.no_grad():
            teacher = model._normalize_teacher(model.teacher(changed))
        student = model.student(changed)[:, self.channels :]
        return hard + (teacher - imitation).square().mean() + (imitation - student).square().mean()

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        teacher = model._normalize_teacher(model.teacher(x))
        student = model.student(x)
        imitation = model.ae(x, x.shape[-2:])
        maps = []
        for target, output, kind in (
            (teacher, student[:, : self.channels], "st"),
            (imitation, student[:, self.channels :], "ae"),
        ):
            error = (target - output).square().mean(1, keepdim=True)
            error = enlarged(F.pad(error, (4, 4, 4, 4)), x.shape[-2:])
            low, high = model.quantiles[f"qa_{kind}"], model.quantiles[f"qb_{kind}"]
            maps.append(0.1 * (error - low) / (high - low))
        return torch.stack(maps).mean(0)


def _subsample(values: Tensor, most: int = 2**24) -> Tensor:
    """torch.quantile takes no more than these."""
    values = values.flatten()
    return values if len(values) <= most else values[torch.randperm(len(values), device=values.device)[:most]]


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

    def __init__(
        self,
        *,
        textures: Path | None = None,
        steps: int = 20000,
        batch_size: int = 8,
        resize: int | None = None,
    ):
        super().__init__()
        self.textures, self.steps, self.batch_size, self.resize = textures, steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        if self.textures is not None and not any(self.textures.rglob("*.*")):
            raise UserError(f"draem: no pictures in the folder {self.textures}")
        with tempfile.TemporaryDirectory() as empty:
            return part(*self.source)(self.textures or empty, pre_processor=False, **BARE)

    def _map(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model(x).anomaly_map[:, None]
        return maps


class Dinomaly(Member):
    """Dinomaly: a noisy bottleneck and a loose decoder over DINOv2 (Guo et al. 2025, arXiv:2405.14573).

    The score is the mean of the highest hundredth of the map, blurred at 256 pixels. backbone: a Vision Transformer of
    timm; theirs is vit_base_patch14_reg4_dinov2. steps, batch_size: of the training; theirs are 5000 of 16. resize:
    multiples of the patch's side; theirs is 392 cut out of 448. The learning rate follows the steps, as in the paper;
    in anomalib it follows the epochs.
    """

    needs = "weights, GPU"
    toy_parameters: ClassVar = {"weights": "random", "steps": 16, "batch_size": 8, "resize": 56}
    source = ("dinomaly", "Dinomaly")
    multiple = 14
    smallest = 28

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Weights = "hub",
        steps: int = 5000,
        batch_size: int = 16,
        resize: int | None = 224,
    ):
        super().__init__()
        self.backbone = self._set_weights(backbone, weights, "vit_small_patch14_reg4_dinov2")
        if not any(size in self.backbone for size in ("small", "base", "large", "huge")) or "vit" not in self.backbone:
            raise ValueError(f"backbone must be a small, base, large or huge transformer, got {self.backbone}")
        self.steps, self.batch_size, self.resize = steps, batch_size, resize

    def _build(self, size: tuple[int, int]) -> Any:
        with self._offline(self.backbone):
            return part(*self.source)(self.backbone, pre_processor=False, **BARE)

    def _load_weights(self) -> None:
        model: Any = self.model
        load_timm(model.encoder.feature_extractor, self.backbone, self.weights)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        per_step(module)
        super()._learn(module, normal)

    def _pool(self, values: Tensor) -> Tensor:
        return mean_of_highest(values, values.shape[1] // 100)

    def _local(self, x: Tensor) -> Tensor:
        model: Any = self.model
        maps: Tensor = model.gaussian_blur(enlarged(self._map(x), (256, 256)))
        return maps

    def _map(self, x: Tensor) -> Tensor:
        model: Any = self.model
        encoded, decoded = model.get_encoder_decoder_outputs(x)
        maps: Tensor = model.calculate_anomaly_maps(encoded, decoded, tuple(x.shape[-2:]))[0]
        return maps


MEMBERS = {
    "padim": Padim,
    "stfpm": Stfpm,
    "fastflow": Fastflow,
    "cflow": Cflow,
    "cfa": Cfa,
    "dfm": Dfm,
    "reverse_distillation": ReverseDistillation,
    "csflow": Csflow,
    "efficient_ad": EfficientAd,
    "draem": Draem,
    "dinomaly": Dinomaly,
    "ganomaly": Ganomaly,
    "uflow": Uflow,
    "anomaly_dino": AnomalyDino,
    "supersimplenet": Supersimplenet,
    "fre": Fre,
    "dfkde": Dfkde,
    "patchflow": Patchflow,
    "inp_former": InpFormer,
    "l2bt": L2bt,
    "uninet": UniNet,
    "glass": Glass,
    "general_ad": GeneralAd,
    "dsr": Dsr,
    "foundad": FoundAd,
    "rad": Rad,
    "mh_patchcore": MhPatchcore,
    "super_add": SuperAdd,
}
