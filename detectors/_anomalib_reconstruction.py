"""Models of anomalib that restore an image or its features: it is as anomalous as what is restored differs."""

from __future__ import annotations

import math
from typing import Any, ClassVar
from unittest import mock

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Hints, UserError, bpda

from ._anomalib import TOY, Member, Pretrained, Transformer
from ._anomalib_gradient import Call, uncut
from ._anomalib_library import load_weights, part, part_of, sized
from ._features import Weights, read_weights


class Ganomaly(Member):
    """GANomaly: distance of an image's code to that of its reconstruction (Akcay et al. 2018, arXiv:1805.06725).

    features: channels of the first layer; latent: length of the code; extra_layers: at the full width. steps,
    batch_size: of the training; theirs are 100 epochs of batches of 32. Images are padded to a power of two.
    """

    toy_parameters: ClassVar = {"features": 8, "latent": 16, "steps": 60, "batch_size": 16}
    source = ("ganomaly", "Ganomaly")
    arguments = "batch_size n_features=features latent_vec_size=latent extra_layers lr"
    anomaly_map = None  # type: ignore[assignment]

    features: PositiveInt = 64
    latent: PositiveInt = 100
    extra_layers: int = 0
    lr: PositiveFloat = 2e-4
    steps: PositiveInt = 300
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        side = 2 ** math.ceil(math.log2(max(size)))
        return super()._options(size) | {"pre_processor": sized((side, side))}

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        step = module.training_step

        def shown(*given: Any) -> dict[str, Tensor]:
            losses = step(*given)
            return {"loss": losses["generator_loss"] + losses["discriminator_loss"]}

        module.training_step = shown
        super()._learn(module, normal)


class FeatureError(Pretrained):
    """Score = sum of the squared errors with which the pooled features of one layer are restored."""

    def _errors(self, x: Tensor) -> Tensor:
        """(B, 1, h, w): the sum at each position of the features, from normalised images."""
        raise NotImplementedError

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        errors = self._errors(x).flatten(1)
        return errors.sum(1), errors

    def _map(self, x: Tensor) -> Tensor:
        return F.interpolate(self._errors(x), x.shape[-2:], mode="bilinear")


class Dfm(FeatureError):
    """DFM: reconstruction error of a PCA of deep features (Ahuja et al. 2019, arXiv:1909.11786).

    layer: timm's out_index. pooling: side of the average pooling before the PCA. variance: share that the PCA keeps.
    """

    toy_parameters: ClassVar = {**TOY, "layer": 1}
    source = ("dfm", "Dfm")
    arguments = "backbone=asked_for layer pooling_kernel_size=pooling pca_level=variance"
    default = "resnet50"

    layer: PositiveInt = 3
    pooling: PositiveInt = 4
    variance: float = 0.97
    resize: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance < 1:
            raise ValueError(f"variance must be a share in (0, 1), got {self.variance}")

    def _build(self, size: tuple[int, int]) -> Any:
        module = super()._build(size)
        reduction = module.model.feature_extractor.feature_extractor.reduction()[0]
        if min(size) // reduction < self.pooling:
            raise UserError(
                f"dfm: layer {self.layer} of {self.backbone} is {min(size) // reduction} wide at {min(size)} pixels, "
                f"less than pooling={self.pooling}; choose a smaller pooling, an earlier layer or a larger resize"
            )
        return module

    def _errors(self, x: Tensor) -> Tensor:
        with uncut(x.dtype):
            return self.model.score(*self.model.get_features(x))[1]


class Fre(FeatureError):
    """FRE: reconstruction error of a shallow autoencoder of features (Ndiour et al. 2022, arXiv:2211.12650).

    layer: timm's out_index. pooling: side of the average pooling before. latent: length of the code. steps, batch_size:
    of the training; theirs are 220 epochs of batches of 32.
    """

    toy_parameters: ClassVar = {**TOY, "layer": 1, "latent": 16, "steps": 20, "batch_size": 16}
    source = ("fre", "Fre")
    arguments = "backbone=asked_for layer pooling_kernel_size=pooling latent_dim=latent"
    default = "resnet50"

    layer: PositiveInt = 3
    pooling: PositiveInt = 2
    latent: PositiveInt = 220
    steps: PositiveInt = 300
    batch_size: PositiveInt = 32
    resize: PositiveInt | None = None

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        return super()._options(size) | {"input_dim": 1}  # until its size is known

    def _build(self, size: tuple[int, int]) -> Any:
        module = super()._build(size)
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

    def _errors(self, x: Tensor) -> Tensor:
        with uncut(x.dtype):
            features, restored, shape = self.model.get_features(x)
        return (features - restored).square().view(shape).sum(1, keepdim=True)


class Dinomaly(Transformer):
    """Dinomaly: a noisy bottleneck and a loose decoder over DINOv2 (Guo et al. 2025, arXiv:2405.14573).

    The score is the mean of the highest hundredth of the map, blurred at 256 pixels. backbone: a Vision Transformer of
    timm; theirs is vit_base_patch14_reg4_dinov2. steps, batch_size: of the training; theirs are 5000 of 16. resize:
    multiples of the patch's side; theirs is 392 cut out of 448. The learning rate follows the steps, as in the paper;
    in anomalib it follows the epochs.
    """

    needs = "weights, GPU"
    toy_parameters: ClassVar = {"weights": "random", "steps": 16, "batch_size": 8, "resize": 56}
    source = ("dinomaly", "Dinomaly")
    arguments = "encoder_name=network"
    default = "vit_small_patch14_reg4_dinov2"
    sizes = ("small", "base", "large", "huge")
    whole = "encoder.feature_extractor"
    rate_per_step = True
    hears = "gaussian_blur"

    steps: PositiveInt = 5000
    batch_size: PositiveInt = 16
    resize: PositiveInt | None = 224


class InpFormer(Transformer):
    """INP-Former: a decoder guided by the image's own normal prototypes (Luo et al. 2025, arXiv:2503.02424).

    The score is the mean of the highest hundredth of the map. backbone: a transformer of timm; theirs is
    vit_base_patch14_reg4_dinov2. prototypes: their number. steps, batch_size: of the training; theirs are 200 epochs of
    batches of 16. resize: multiples of the patch's side; theirs is 392 cut out of 448.
    """

    needs = "weights, GPU"
    toy_parameters: ClassVar = {"weights": "random", "steps": 8, "batch_size": 8, "resize": 56}
    source = ("inp_former", "InpFormer")
    arguments = "encoder_name=network inp_num=prototypes"
    default = "vit_small_patch14_reg4_dinov2"
    whole = "encoder.feature_extractor"
    rate_per_step = True

    prototypes: PositiveInt = 6
    steps: PositiveInt = 5000
    batch_size: PositiveInt = 16
    resize: PositiveInt | None = 224

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        super()._learn(module, normal)
        self._forget()

    def _forward(self, x: Tensor) -> tuple[Any, Call]:
        found = super()._forward(x)
        self._forget()
        return found

    def _forget(self) -> None:
        """What the model keeps of the last batch for its loss, with the whole graph."""
        for kept in ("distribution", "distance", "cluster_index"):
            self.model.__dict__.pop(kept, None)


class FoundAd(Transformer):
    """FoundAD: a projector takes foundation features back to the normal manifold (Zhai et al. 2025, arXiv:2510.01934).

    The score is the mean of the top patches' squared distances. backbone: a transformer of timm; theirs is
    vit_base_patch14_dinov2. depth, width: of the projector. layer: counted from the end. top: patches that enter the
    score. augment: flips, rotations and colours, for few images. steps, batch_size: of the training. resize: multiples
    of the patch's side; theirs is 518.
    """

    toy_parameters: ClassVar = {"weights": "random", "depth": 2, "width": 96, "steps": 8, "batch_size": 8, "resize": 56}
    source = ("foundad", "FoundAD")
    arguments = (
        "encoder_name=network pred_depth=depth pred_emb_dim=width n_layer=layer top_k=top lr "
        "use_few_shot_augmentation=augment"
    )
    default = "vit_small_patch14_dinov2"
    whole = "encoder._model"
    hears = "projector"

    depth: PositiveInt = 6
    width: PositiveInt = 384
    layer: PositiveInt = 3
    top: PositiveInt = 10
    augment: bool = True
    lr: PositiveFloat = 1e-3
    steps: PositiveInt = 300
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = 224

    def _options(self, size: tuple[int, int]) -> dict[str, Any]:
        return super()._options(size) | {"image_size": size[0]}

    def _build(self, size: tuple[int, int]) -> Any:
        names = "anomalib.models.image.foundad.components.encoder_loader.TIMM_MODEL_NAMES"
        with mock.patch.dict(names, {self.network: self.network}):
            return super()._build(size)

    def _local(self, call: Call) -> Tensor:
        """(B, patches): squared distances of the features to their projection."""
        return (call.given[0] - call.made).square().mean(2)


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
    arguments = "latent_anomaly_strength=strength"
    normalised = False
    multiple = 32
    smallest = 64

    weights: Weights = "hub"
    strength: float = 0.2
    steps: PositiveInt = 20000
    batch_size: PositiveInt = 8
    resize: PositiveInt | None = None

    def _build(self, size: tuple[int, int]) -> Any:
        module = super()._build(size)
        first = module.model.discrete_latent_model._encoder_t._residual_stack._layers[0]._block[0]
        first.inplace = False  # the backward pass needs its input, a ReLU's output, as it was; the values are equal
        return module

    def _load_weights(self) -> None:
        def download() -> dict[str, Tensor]:
            return read_weights(part(*self.source).prepare_pretrained_model())

        target = self.model.discrete_latent_model
        load_weights(target, self.weights, "anomalib's quantised autoencoder for DSR", download)

    def _learn(self, module: Any, normal: DataLoader[Tensor]) -> None:
        module.on_train_start = lambda: None  # it would download
        super()._learn(module, normal)

    def attack_hints(self) -> Hints:
        return Hints(bpda=True)

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The local scores are the mask, averaged over the 21 x 21 positions around each."""
        mask = self._segmented(x)[2][:, 1:]
        local = F.avg_pool2d(mask, 21, stride=1, padding=10).flatten(1)
        return local.amax(1), local

    def _map(self, x: Tensor) -> Tensor:
        return self.model.upsampling_module(*self._segmented(x)).softmax(1)[:, 1:]

    def _segmented(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images decoded from the restored and from the plain codes, and their mask: probabilities (B, 2, h, w).

        The library's forward pass, but for the gradient of its quantisation.
        """
        model = self.model
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
