"""Randomness that belongs to an image: its draws do not depend on the batch, the order or an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Rng:
    """One random generator per image of a batch, seeded by the run's seed and the image's id.

    Row i of every draw comes from generator i alone, and always from the CPU, so the same image meets the same
    draws in any batch, in any order and on any device. `child(name)` is an independent source for another
    purpose: what an attack consumes never shifts what the evaluation draws.
    """

    def __init__(self, seed: int, ids: Sequence[str], purpose: str = ""):
        self.seed, self.ids, self.purpose = seed, tuple(ids), purpose
        self._generators = [torch.Generator().manual_seed(_seed(seed, purpose, i)) for i in self.ids]

    def child(self, *name: object) -> Rng:
        """An independent source for the same images, fixed by `name`."""
        return Rng(self.seed, self.ids, "/".join([self.purpose, *map(str, name)]))

    def rows(self, keep: Sequence[int]) -> Rng:
        """The sources of some of the images: what they draw here, they do not draw again from this one."""
        part = object.__new__(type(self))
        part.seed, part.ids, part.purpose = self.seed, tuple(self.ids[i] for i in keep), self.purpose
        part._generators = [self._generators[i] for i in keep]
        return part

    def known(self) -> Rng:
        """The noise of these images that an adversary may know: the same draws at every call."""
        return Rng(self.seed, self.ids, "known noise")

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform on [0, 1), shaped as `like` (B, ...), on its device."""
        return self._draw(torch.rand, like)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal, shaped as `like` (B, ...), on its device."""
        return self._draw(torch.randn, like)

    def _draw(self, kind: Callable[..., Tensor], like: Tensor) -> Tensor:
        if len(like) != len(self._generators):
            raise ValueError(f"expected a batch of {len(self._generators)} images, got {len(like)}")
        # float32 whatever `like` is: half precision would draw other numbers
        draws = [kind(like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(draws).to(like)


def _seed(seed: int, purpose: str, image_id: str) -> int:
    digest = hashlib.sha256(f"{seed}\t{purpose}\t{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits and a sign
