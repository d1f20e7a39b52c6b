"""The noise-predicting U-Net of denoising diffusion (Ho et al. 2020, https://arxiv.org/abs/2006.11239)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def step_embedding(step: Tensor, width: int) -> Tensor:
    """Sinusoids of the diffusion step: (B,) -> (B, width), as transformers encode a position."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(width // 2, device=step.device) / (width // 2))
    angles = step[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shift by the step embedding, plus a shortcut."""

    def __init__(self, inside: int, outside: int, embedding: int):
        super().__init__()
        self.first = nn.Sequential(norm(inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1))
        self.shift = nn.Linear(embedding, outside)
        self.second = nn.Sequential(norm(outside), nn.SiLU(), nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)
        nn.init.zeros_(self.second[-1].weight)  # type: ignore[arg-type]  # starts as the identity
        nn.init.zeros_(self.second[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(x) + self.shift(embedding)[:, :, None, None]
        out: Tensor = self.shortcut(x) + self.second(hidden)
        return out


class Attention(nn.Module):
    """Self-attention over positions, one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.flatten(2).mT.unsqueeze(1) for t in self.qkv(self.norm(x)).chunk(3, dim=1))
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # (B, positions, channels)
        out: Tensor = x + self.out(mixed.mT.reshape(x.shape))
        return out


class UNet(nn.Module):
    """Predicts the noise in x_k: images (B, 3, H, W) in [-1, 1] and steps (B,) -> noise (B, 3, H, W).

    `width` channels at the finest level, times `multipliers` at each level below; `blocks` residual blocks a
    level; self-attention at the levels in `attention` (0 is the finest). `unshuffle` folds pixels into channels
    first, which makes a small network several times faster. Any H and W work: the image is padded inside.
    """

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...] = (),
        unshuffle: int = 1,
    ):
        super().__init__()
        self.width, self.unshuffle = width, unshuffle
        self.multiple = unshuffle * 2 ** (len(multipliers) - 1)
        embedding = 4 * width
        self.embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        folded = 3 * unshuffle**2
        self.enter = nn.Conv2d(folded, width, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = width, []
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
            for _ in range(blocks):
                self.down.append(self._stage(channels, width * multiplier, embedding, level in attention))
                channels = width * multiplier
                skips.append(channels)
        self.middle = self._stage(channels, channels, embedding, len(multipliers) - 1 in attention)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks):
                stage = self._stage(channels + skips.pop(), width * multiplier, embedding, level in attention)
                self.up.append(stage)
                channels = width * multiplier
            if level > 0:
                self.up.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.leave = nn.Sequential(norm(channels), nn.SiLU(), nn.Conv2d(channels, folded, 3, padding=1))
        nn.init.zeros_(self.leave[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.leave[-1].bias)  # type: ignore[arg-type]

    @staticmethod
    def _stage(inside: int, outside: int, embedding: int, attention: bool) -> nn.ModuleList:
        stage = nn.ModuleList([Residual(inside, outside, embedding)])
        if attention:
            stage.append(Attention(outside))
        return stage

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        embedding = self.embed(step_embedding(step, self.width).to(x.dtype))
        hidden = self.enter(F.pixel_unshuffle(x, self.unshuffle))
        skips = []
        for stage in self.down:
            if isinstance(stage, nn.Conv2d):
                hidden = stage(hidden)
            else:
                hidden = _run(stage, hidden, embedding)
                skips.append(hidden)
        hidden = _run(self.middle, hidden, embedding)
        for stage in self.up:
            if isinstance(stage, nn.Upsample):
                hidden = stage(hidden)
            else:
                hidden = _run(stage, torch.cat([hidden, skips.pop()], dim=1), embedding)
        noise = F.pixel_shuffle(self.leave(hidden), self.unshuffle)
        return noise[..., :height, :width]


def _run(stage: nn.Module, hidden: Tensor, embedding: Tensor) -> Tensor:
    residual, *attention = stage.children()
    hidden = residual(hidden, embedding)
    for block in attention:
        hidden = block(hidden)
    return hidden
