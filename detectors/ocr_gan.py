"""OCR-GAN, repaired: a GAN that reconstructs two frequency bands of normal images (Liang et al. 2022).

https://arxiv.org/abs/2203.00259 (IEEE TIP 2023). A low and a high band go through two U-Nets that exchange channel
weights at every level of their encoders; what their sum cannot reproduce, in pixels or in the features of the
discriminator, is anomalous.

It differs from the public code where that code cannot be evaluated:

- The modules that select channels belong to the network: trained, saved, and the same in every call. There they are
  built anew inside each forward call, with random weights, so that neither a score nor a training repeats.
- The frequency split is part of the score, without rounding to 8 bits, so that an attack has its gradient.
- The augmented image that the discriminator must reject goes through the same split as the real one. There it does
  not, and lies one unit above it in brightness, which alone tells them apart.
- The score is raw. There it is scaled by the extremes of the whole test set, which a single image does not have.
- Training has a fixed length. There the epoch is chosen by the AUROC on the test set.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng, UserError

from . import _training

ADVERSARIAL, RECONSTRUCTION, FEATURE = 1.0, 50.0, 1.0  # weights of the generator's loss
IMAGE_SHARE, FEATURE_SHARE = 0.9, 0.1  # of the score
FEATURES = 100  # channels of the discriminator's feature
COLLAPSED = 1e-5  # a discriminator whose loss is below starts anew


class Preset(NamedTuple):
    """Two networks and their training."""

    levels: int
    filters: int
    halvings: int
    batch_size: int
    steps: int | None
    epochs: int
    lr: float


PRESETS: dict[str, Preset] = {
    # 64 to 128 pixels on a CPU: trained in about a minute
    "small": Preset(levels=5, filters=16, halvings=4, batch_size=16, steps=500, epochs=0, lr=2e-4),
    # 256 pixels on a GPU, as published
    "paper": Preset(levels=8, filters=64, halvings=6, batch_size=32, steps=None, epochs=200, lr=2e-4),
}


class OcrGan(Detector):
    """Score = 0.9 * mean squared error of the image + 0.1 * mean squared error of the discriminator's feature.

    The image is the sum of both bands, each in [-1, 1]. Batch normalisation uses its running statistics in a score.

    preset: `small` (64 to 128 pixels in multiples of 32, about a minute on a CPU) or `paper` (256 pixels, a GPU).
    steps: of the training; of `paper` as many as 200 epochs have, unless given.
    batch_size, lr: the preset's where not given.
    """

    toy_parameters: ClassVar = {"steps": 100, "batch_size": 8, "lr": 1e-3}

    def __init__(
        self,
        preset: Literal["small", "paper"] = "small",
        *,
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__()
        chosen = PRESETS[preset]
        self.preset = preset
        self.steps = chosen.steps if steps is None else steps
        self.batch_size = chosen.batch_size if batch_size is None else batch_size
        self.lr = chosen.lr if lr is None else lr
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}: batches are normalised")
        self.generator = Generator(chosen.levels, chosen.filters)
        self.discriminator = Discriminator(chosen.halvings, chosen.filters)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        first = next(iter(normal))
        chosen = PRESETS[self.preset]
        multiple, least = 2**chosen.levels, 2 ** (chosen.halvings + 2)
        if any(side % multiple or side < least for side in first.shape[-2:]):
            sides = "x".join(map(str, first.shape[-2:]))
            nearest = max(least, multiple * round(first.shape[-1] / multiple))
            raise UserError(
                f"ocr-gan: preset {self.preset} takes images whose sides are multiples of {multiple} pixels and at "
                f"least {least}, not {sides}; choose --image-size {nearest}"
            )
        count = len(normal.dataset)  # type: ignore[arg-type]
        steps = self.steps or chosen.epochs * math.ceil(count / self.batch_size)
        self._train(normal, steps)
        self.generator.eval()
        self.discriminator.eval()

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        real, fake = self._images(*bands(x))
        feature = (self.discriminator(real)[1] - self.discriminator(fake)[1]).square().flatten(1).mean(1)
        return IMAGE_SHARE * (real - fake).square().flatten(1).mean(1) + FEATURE_SHARE * feature

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): squared reconstruction error, mean over channels."""
        real, fake = self._images(*bands(x))
        return (real - fake).square().mean(1, keepdim=True)

    def _images(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the bands (B, 3, H, W), and its reconstruction."""
        low_again, high_again = self.generator(low, high)
        return low + high, low_again + high_again

    def _train(self, normal: DataLoader[Tensor], steps: int) -> None:
        """Generator and discriminator in turn."""
        device = next(self.parameters()).device
        optimizers = [
            torch.optim.Adam(network.parameters(), lr=self.lr, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]
        parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "optimizer_g": optimizers[0],
            "optimizer_d": optimizers[1],
        }
        self.train()
        _training.repeat(
            self,
            parts,
            lambda x: self._step(x, *optimizers),
            normal,
            steps=steps,
            batch_size=self.batch_size,
            device=device,
        )

    def _step(self, x: Tensor, generator: torch.optim.Optimizer, discriminator: torch.optim.Optimizer) -> list[float]:
        """One update of each network; their losses."""
        low, high = bands(x)
        augmented = torch.stack(bands(cut_and_paste(x))).sum(0)
        self.discriminator.requires_grad_(False)
        generator.zero_grad(set_to_none=True)
        with _training.autocast(x.device):
            real, fake = self._images(low, high)
            loss = self.generator_loss(real, fake)
        loss.backward()
        generator.step()

        self.discriminator.requires_grad_(True)
        discriminator.zero_grad(set_to_none=True)
        with _training.autocast(x.device):
            against = self.discriminator_loss(real, fake.detach(), augmented)
        against.backward()
        discriminator.step()
        if against.item() < COLLAPSED:
            self.discriminator.apply(initialise)
        return [loss.item(), against.item()]

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """1 * adversarial + 50 * L1 + 1 * squared error of the features."""
        verdict, feature = self.discriminator(fake)
        with torch.no_grad():
            target = self.discriminator(real)[1]
        return (
            ADVERSARIAL * _cross_entropy(verdict, real=True)
            + RECONSTRUCTION * (fake.float() - real).abs().mean()
            + FEATURE * F.mse_loss(feature.float(), target.float())
        )

    def discriminator_loss(self, real: Tensor, fake: Tensor, augmented: Tensor) -> Tensor:
        """Real against reconstructed and against cut-and-pasted, and the same squared error of the features."""
        verdict, feature = self.discriminator(real)
        verdict_fake, feature_fake = self.discriminator(fake)
        return (
            _cross_entropy(verdict, real=True)
            + _cross_entropy(verdict_fake, real=False)
            + _cross_entropy(self.discriminator(augmented)[0], real=False)
            + F.mse_loss(feature.float(), feature_fake.float())
        )


def bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in [0, 1] -> low and high frequencies in [-1, 1] each.

    Low: one level down and up a pyramid of the 5x5 binomial filter. High: what it lacks, where that is positive.
    """
    taps = torch.tensor([1, 4, 6, 4, 1], dtype=x.dtype, device=x.device) / 16
    small = _filtered(x, taps)[..., ::2, ::2]
    spread = x.new_zeros((*x.shape[:2], 2 * small.shape[2], 2 * small.shape[3]))
    spread[..., ::2, ::2] = small
    low = _filtered(spread, 2 * taps)[..., : x.shape[2], : x.shape[3]]
    return 2 * low - 1, 2 * (x - low).relu() - 1


def _filtered(x: Tensor, taps: Tensor) -> Tensor:
    """Every channel filtered along both sides, at the same size; borders are reflected."""
    kernel = taps.expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(F.conv2d(x, kernel, groups=x.shape[1]), kernel.mT, groups=x.shape[1])


class Selection(nn.Module):
    """Channel weights from the sum of both branches; for every channel the two weights sum to 1."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 2, 32)
        self.squeeze = nn.Linear(channels, hidden)
        self.low, self.high = nn.Linear(hidden, channels), nn.Linear(hidden, channels)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        summary = self.squeeze((low + high).mean((2, 3)))
        share = torch.stack([self.low(summary), self.high(summary)]).softmax(0)[..., None, None]  # (2, B, C, 1, 1)
        return low * share[0], high * share[1]


class Branch(nn.Module):
    """The levels of one U-Net: each encoder level halves, each decoder level doubles."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        last = len(channels) - 1
        for i, out in enumerate(channels):
            before = 3 if i == 0 else channels[i - 1]
            down: list[nn.Module] = [] if i == 0 else [nn.LeakyReLU(0.2)]
            down.append(nn.Conv2d(before, out, 4, stride=2, padding=1, bias=False))
            if 0 < i < last:
                down.append(nn.BatchNorm2d(out))
            self.down.append(nn.Sequential(*down))
            widened = out if i == last else 2 * out  # the level below is concatenated
            rise = nn.ConvTranspose2d(widened, before, 4, stride=2, padding=1, bias=i == 0)
            self.up.append(nn.Sequential(nn.ReLU(), rise, nn.Tanh() if i == 0 else nn.BatchNorm2d(before)))


class Generator(nn.Module):
    """Two U-Nets with a channel selection between their encoders at every level."""

    def __init__(self, levels: int, filters: int):
        super().__init__()
        channels = [filters * min(2**i, 8) for i in range(levels)]
        self.low, self.high = Branch(channels), Branch(channels)
        self.selections = nn.ModuleList(Selection(c) for c in channels)
        self.apply(initialise)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        skips = []
        for down_low, down_high, select in zip(self.low.down, self.high.down, self.selections, strict=True):
            low, high = select(down_low(low), down_high(high))
            skips.append((low, high))
        for i in reversed(range(len(skips))):
            if i < len(skips) - 1:
                low, high = (torch.cat(pair, dim=1) for pair in zip(skips[i], (low, high), strict=True))
            low, high = self.low.up[i](low), self.high.up[i](high)
        return low, high


class Discriminator(nn.Module):
    """(B, 3, H, W) -> logits that an image is real, and the feature (B, 100, h, w) behind them.

    At 2^(halvings + 2) pixels the feature is a single vector; larger images have one at several places.
    """

    def __init__(self, halvings: int, filters: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, filters, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
        for i in range(1, halvings):
            channels = filters * 2**i
            layers.append(nn.Conv2d(channels // 2, channels, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(filters * 2 ** (halvings - 1), FEATURES, 4, bias=False))
        self.feature = nn.Sequential(*layers)
        self.head = nn.Conv2d(FEATURES, 1, 3, padding=1, bias=False)
        self.apply(initialise)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.feature(x)
        return self.head(feature), feature


def initialise(module: nn.Module) -> None:
    """The usual start of such GANs: normal weights of deviation 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def cut_and_paste(x: Tensor) -> Tensor:
    """Each image with a recoloured piece of itself at another place, and a black square.

    The piece has 2 to 15 % of the area and an aspect ratio of 0.3 to 3.3; the square 20 of 256 pixels to a side.
    """
    from torchvision.transforms import ColorJitter

    recolour = ColorJitter(0.1, 0.1, 0.1, 0.1)
    x = x.clone()
    height, width = x.shape[-2:]
    for image in x:
        area = height * width * torch.empty(()).uniform_(0.02, 0.15).item()
        aspect = torch.empty(()).uniform_(0.3, 1 / 0.3).item()
        size = min(round(math.sqrt(area / aspect)), height), min(round(math.sqrt(area * aspect)), width)
        piece = recolour(image[_window(image, size)])
        image[_window(image, size)] = piece
        side = max(round(min(height, width) * 20 / 256), 1)
        image[_window(image, (side, side))] = 0
    return x


def _window(image: Tensor, size: tuple[int, int]) -> tuple[slice, slice, slice]:
    """A place of this size (height, width) anywhere in the image."""
    starts = [int(torch.randint(whole - part + 1, ())) for whole, part in zip(image.shape[1:], size, strict=True)]
    rows, columns = (slice(start, start + part) for start, part in zip(starts, size, strict=True))
    return slice(None), rows, columns


def _cross_entropy(logits: Tensor, *, real: bool) -> Tensor:
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
