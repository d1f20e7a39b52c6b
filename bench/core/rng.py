"""Randomness that belongs to an image: its draws do not depend on the batch, the order or an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

LARGEST = 1 - 2**-24
"""The largest number that a uniform draw can be: they are the multiples of 2 ** -24 in [0, 1)."""


class Rng:
    """One random generator per image of a batch, seeded by the run's seed and the image's id.

    Row i of every draw comes from generator i alone, and always from the CPU, so the same image meets the same
    draws in any batch, in any order and on any device. `child(name)` is an independent source for another
    purpose: what an attack consumes never shifts what the evaluation draws.
    """

    def __init__(self, seed: int, ids: Sequence[str], purpose: str = ""):
        self.seed, self.ids, self.purpose = seed, tuple(ids), purpose
        self._generators = [torch.Generator().manual_seed(_seed(seed, purpose, i)) for i in self.ids]
        self._turned = False

    def child(self, *name: object) -> Rng:
        """An independent source for the same images, fixed by `name`."""
        source = Rng(self.seed, self.ids, "/".join([self.purpose, *map(str, name)]))
        source._turned = self._turned
        return source

    def rows(self, keep: Sequence[int]) -> Rng:
        """The sources of some of the images: what they draw here, they do not draw again from this one."""
        part = object.__new__(type(self))
        part.seed, part.ids, part.purpose = self.seed, tuple(self.ids[i] for i in keep), self.purpose
        part._generators = [self._generators[i] for i in keep]
        part._turned = self._turned
        return part

    def paired(self, draws: int) -> Iterator[Rng]:
        """This source, `draws` times, for the noise of so many calls whose results are averaged.

        Every second call meets the noise of the one before turned round: -z for a normal z, 1 - u for a uniform u. That
        is as likely, and whatever is odd in the noise cancels in the mean, which comes closer to the expectation than
        that of independent draws (antithetic variates: Hammersley & Morton 1956).
        """
        for _ in range(draws // 2):
            opposite = self._opposite()
            yield self
            yield opposite
        if draws % 2:
            yield self

    def _opposite(self) -> Rng:
        """What this source draws next, turned round; drawing from it leaves this one where it is."""
        source = self.rows(range(len(self.ids)))
        source._generators = [torch.Generator().set_state(g.get_state()) for g in self._generators]
        source._turned = not self._turned
        return source

    def known(self) -> Rng:
        """The noise of these images that an adversary may know: the same draws at every call."""
        return Rng(self.seed, self.ids, "known noise")

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform on [0, 1), shaped as `like` (B, ...), on its device."""
        u = self._draw(torch.rand, like)
        return LARGEST - u if self._turned else u

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal, shaped as `like` (B, ...), on its device."""
        z = self._draw(torch.randn, like)
        return -z if self._turned else z

    def _draw(self, kind: Callable[..., Tensor], like: Tensor) -> Tensor:
        if len(like) != len(self._generators):
            raise ValueError(f"expected a batch of {len(self._generators)} images, got {len(like)}")
        # float32 whatever `like` is: half precision would draw other numbers
        draws = [kind(like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(draws).to(like)


def _seed(seed: int, purpose: str, image_id: str) -> int:
    digest = hashlib.sha256(f"{seed}\t{purpose}\t{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits and a sign
