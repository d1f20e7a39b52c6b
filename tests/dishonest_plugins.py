"""Detectors around an honest one that keep nearly its clean scores and look more robust than it, each in its own way.

The honest one is what is left of an image by the principal components of the normal ones.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Detector, Rng

FEW = 8  # images in a batch of a check
REMEMBERED: list[Any] = []


class Honest(Detector):
    def __init__(self, components: int = 80, size: int = 32, place: str = ""):
        super().__init__()
        self.components, self.size, self.place = components, size, place
        for name in ("mean", "basis", "middle", "spread"):
            self.register_buffer(name, torch.zeros(1))
        self.mean: Tensor
        self.basis: Tensor
        self.middle: Tensor
        self.spread: Tensor
        self.own: list[Any] = []

    def flat(self, x: Tensor) -> Tensor:
        return F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True).flatten(1)

    def fit(self, normal: Any) -> None:
        x = torch.cat([self.flat(images) for images in normal])
        self.mean, self.basis = x.mean(0), torch.pca_lowrank(x, self.components)[2]
        rest = self.rest(x)
        self.middle, self.spread = rest.mean()[None], rest.std()[None]

    def rest(self, flat: Tensor) -> Tensor:
        c = flat - self.mean
        return (c - c @ self.basis @ self.basis.T).square().sum(1)

    def raw(self, x: Tensor) -> Tensor:
        return (self.rest(self.flat(x)) - self.middle) / self.spread

    def decoy(self, x: Tensor) -> Tensor:
        """Smooth, and says nothing."""
        return x.flatten(1).mean(1)

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x)


class Noisy(Honest):
    randomized = True

    def noise(self, x: Tensor, rng: Rng | None) -> Tensor:
        return torch.randn(len(x)).to(x) if rng is None else rng.normal(x[:, 0, 0, 0])

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x) + 0.01 * self.noise(x, rng)


def kept(x: Tensor) -> Tensor:
    """1 at 15 % of the values, else 0."""
    return (torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(3)) < 0.15).to(x)


def cut(x: Tensor) -> Tensor:
    """The same image; 85 % of the gradient is dropped."""
    return x * kept(x) + (x * (1 - kept(x))).detach()


class _Sparse(torch.autograd.Function):
    """As `cut`, on the way back alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * kept(gradient)


class _NotANumber(_Sparse):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return torch.where(kept(gradient) > 0, gradient, torch.nan)


def called_by(*names: str) -> bool:
    return any(name in frame.filename for frame in inspect.stack(0) for name in names)


# What shows another gradient, or another score, to those who attack


class DropsInSingle(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if x.dtype == torch.float64 else cut(x))


class DropsTheMiddle(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        middle = torch.zeros_like(x)
        middle[..., 8:-8, 8:-8] = 1
        return self.raw(x if x.dtype == torch.float64 else x * (1 - middle) + (x * middle).detach())


class HonestInACopy(Honest):
    honest = False

    def __deepcopy__(self, memo: Any) -> Honest:
        new = self.rebuilt()
        new.load_state_dict({name: value.clone() for name, value in self.state_dict().items()})
        new.honest = True  # type: ignore[assignment]
        assert isinstance(new, Honest)
        return new.eval().requires_grad_(False)

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if self.honest else cut(x))


class DropsInLargeBatches(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if len(x) <= FEW else cut(x))


class DropsWhereGradientsAre(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(cut(x) if torch.is_grad_enabled() else x)


class AnotherScoreWhereGradientsAre(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x.flip(-1) if x.requires_grad else x)


class DropsAtLeaves(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if x.grad_fn is not None or x.storage_offset() else cut(x))


class DropsForAttacks(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if not called_by("attacks/") or called_by("of_gradient") else cut(x))


class HonestToChecks(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if called_by("checks/") else cut(x))


class HonestAtFirst(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.own.append(0)
        return self.raw(x if len(self.own) < 60 else cut(x))


class BecomesAnother(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        if x.requires_grad and len(x) > FEW:
            self.__class__ = HonestToChecks  # type: ignore[assignment]
        return self.raw(x)


class WrongBackward(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if x.dtype == torch.float64 else _Sparse.apply(x))


class NotANumber(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x if len(x) <= FEW else _NotANumber.apply(x))


class Hooked(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        image = x * 1.0
        if image.requires_grad and len(x) > FEW:
            image.register_hook(lambda gradient: gradient * kept(gradient))
        return self.raw(image)


class NoGradient(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x.detach()) + self.decoy(x)


class FarFromZero(Honest):
    """A large constant hides a difference in rounding."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(cut(x)) + 1e5


# What hides its slope


class Staircase(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.round(self.raw(x) / 4) * 4 + 20 * self.decoy(x)


class LowStairs(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.round(self.raw(x)) + 5 * self.decoy(x)


class SteepRamps(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        stairs = self.raw(x) / 4
        floor = stairs.detach().floor()
        return 4 * (floor + 0.5 + 0.5 * torch.tanh(60 * (stairs - floor - 0.5))) + 5 * self.decoy(x)


class CoarsePixels(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw((x * 32).round() / 32) + 5 * self.decoy(x)


class GreyLevels(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw((x * 255).round() / 255) + 20 * self.decoy(x)


# What scores no images


class Remembers(Honest):
    """The first score of an image is that of all that are like it; value and gradient fit together."""

    def load(self) -> list[Any]:
        return self.own

    def keep(self, seen: list[Any]) -> None:
        """Where it is already."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        raw, seen, found = self.raw(x), self.load(), []
        thumbs = F.adaptive_avg_pool2d(x.detach().float(), 8).flatten(1)
        for thumb, value in zip(thumbs, raw, strict=True):
            like = [score for other, score in seen if (other - thumb).abs().max() < 0.01]
            if not like:
                seen.append((thumb, value.detach()))
            found.append((like or [value.detach()])[0] + 0.01 * value)
        self.keep(seen)
        return torch.stack(found)


class RemembersInItsModule(Remembers):
    def load(self) -> list[Any]:
        return REMEMBERED


class RemembersInAFile(Remembers):
    def load(self) -> list[Any]:
        found: list[Any] = torch.load(self.place) if Path(self.place).exists() else []
        return found

    def keep(self, seen: list[Any]) -> None:
        torch.save(seen, self.place)


class ReadsWhenItIsBuilt(RemembersInAFile):
    def __init__(self, components: int = 80, size: int = 32, place: str = ""):
        super().__init__(components, size, place)
        self.own = super().load()

    def load(self) -> list[Any]:
        return Remembers.load(self)


class RemembersInTheEnvironment(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        thumbs = (F.adaptive_avg_pool2d(x.detach(), 2).flatten(1) * 25).round().int().tolist()
        keys = ["SEEN_" + "_".join(map(str, thumb)) for thumb in thumbs]
        raw = self.raw(x)
        first = [float(os.environ.setdefault(key, str(value))) for key, value in zip(keys, raw.tolist(), strict=True)]
        return torch.tensor(first).to(x) + 0.01 * raw


class ReadsLabels(Honest):
    """In the frames of the harness."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        frame: Any = sys._getframe()
        while frame is not None:
            test = getattr(getattr(frame.f_locals.get("self"), "data", None), "test", None)
            for name in ("indices", "mine"):
                some = frame.f_locals.get(name)
                if test is not None and some is not None and len(some) == len(x):
                    return self.raw(x) + 200 * torch.tensor([test.labels[i] for i in some]).to(x)
            frame = frame.f_back
        return self.raw(x)


class ReadsIds(Noisy):
    """In a source that somewhere in the process has its own noise."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        sources = [o for o in gc.get_objects() if type(o) is Rng] if rng is not None and len(x) > FEW else []
        of = [o for o in sources if len(o.ids) == len(x)]
        labels = torch.tensor([0.0 if "good" in name else 3.0 for name in of[-1].ids]).to(x) if of else 0.0
        return 0.02 * self.raw(x) + labels + 0.01 * self.noise(x, rng)


class KnowsTheNoise(Noisy):
    """The first number of a stream names the image, whose first score it gives again."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        raw, noise = self.raw(x), self.noise(x, rng)
        if rng is None or torch.is_grad_enabled():
            return raw + 0.01 * noise
        seen: dict[float, Tensor] = dict(self.own)
        first = [seen.setdefault(number, value) for number, value in zip(noise.tolist(), raw, strict=True)]
        self.own = [*seen.items()]
        return torch.stack(first) + 1e-4 * raw + 0.01 * noise


class AsksForIds(Noisy):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        labels = [] if rng is None else ["good" in name for name in rng.ids]
        return super().score(x, rng) + sum(labels)


class AsksForThePurpose(Noisy):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(cut(x) if rng is not None and "attack" in rng.purpose else x, rng)


class CopiesItsNoise(Noisy):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        import pickle

        return super().score(x, pickle.loads(pickle.dumps(rng)))


# What says that there is nothing to follow


class SaysNo(Honest):
    differentiable = False


class SaysNoAfterItsFit(Honest):
    def fit(self, normal: Any) -> None:
        super().fit(normal)
        self.differentiable = False


class SaysNoWhenItScores(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.differentiable = False
        return self.raw(x)


class SaysNoByAProperty(Honest):
    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return False


class HonestForAMoment(Honest):
    """Longer than the checks before the attack take here."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.own.append(time.monotonic())
        return self.raw(x if time.monotonic() - self.own[0] < 0.3 else cut(x))


class Halves(Honest):
    """Half precision loses little of this gradient."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x.half().float() if x.dtype == torch.float32 else x)


class NextToNothing(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.raw(x) * 1e-20 * 1e-18


class Saturated(Honest):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.tanh(2 * self.raw(x))
