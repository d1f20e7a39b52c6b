"""Randomness that belongs to an image: its draws do not depend on the batch, the order or an interruption.

The streams of the benchmark are named here and nowhere else: whoever repeats a number must meet the same draws.
"""

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
    purpose: what an attack consumes never shifts what the evaluation draws. An attack names children of its own.
    """

    def __init__(self, seed: int, ids: Sequence[str], purpose: str = ""):
        self.seed, self.ids, self.purpose = seed, tuple(ids), purpose
        self._generators = [torch.Generator().manual_seed(_seed(seed, purpose, i)) for i in self.ids]
        self._turned = False

    @classmethod
    def of_run(cls, seed: int, ids: Sequence[str]) -> Rng:
        """What a run draws for these test images; the streams `for_...` come from it."""
        return cls(seed, ids, "test")

    @classmethod
    def evaluation(cls, seed: int, ids: Sequence[str]) -> Rng:
        """The noise under which these test images are scored, before an attack and after it."""
        return cls.of_run(seed, ids).for_evaluation()

    @classmethod
    def held_out(cls, seed: int, ids: Sequence[str]) -> Rng:
        """The noise under which these normal images are scored, for the threshold."""
        return cls(seed, ids, "held out")

    @classmethod
    def certificate(cls, seed: int, image_id: str, draws: range) -> Rng:
        """The noise that a certificate of the image rests on: each draw has a source of its own, by its number."""
        return cls(seed, [f"{image_id}\tdraw {j}" for j in draws], "certificate")

    @classmethod
    def against_certificate(cls, seed: int, ids: Sequence[str]) -> Rng:
        """Of an attack that tries to break a certificate."""
        return cls(seed, ids, "certificate/attack")

    def for_evaluation(self) -> Rng:
        return self.child("evaluate")

    def for_attack(self) -> Rng:
        return self.child("attack")

    def for_another_attack(self) -> Rng:
        """Of the same attack, run once more from other random starts."""
        return self.child("another attack")

    def for_attack_on_known_noise(self) -> Rng:
        return self.child("attack", "known noise")

    def for_choice(self) -> Rng:
        """Fresh noise for choosing among candidates, so that none wins by luck."""
        return self.child("choose")

    def for_check(self) -> Rng:
        """Fresh noise that is the same for every attack, and that none has seen."""
        return self.child("check")

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

    def again(self, keep: Sequence[int]) -> Rng:
        """What this source draws next, for some of the images, or several times for one; drawing from it leaves this
        one where it is."""
        source = self.rows(keep)
        source._generators = [torch.Generator().set_state(g.get_state()) for g in source._generators]
        return source

    def _opposite(self) -> Rng:
        """What this source draws next, turned round."""
        source = self.again(range(len(self.ids)))
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


def held_out_lot(seed: int, image_id: str) -> str:
    """Of a normal image: those that come first in this order are held out of the fit."""
    return _lot("held out", seed, image_id)


def first_place(label: int) -> float:
    """In [0, 1), of a class of test images: where the choice under a limit begins. It is the same in every run."""
    return int.from_bytes(hashlib.sha256(f"limit\t{label}".encode()).digest()[:4], "big") / 2**32


def probe_lot(seed: int, image_id: str) -> str:
    """Of a test image: those that come first in this order are attacked again by the checks."""
    return _lot("probe", seed, image_id)


def fresh_names(key: str, count: int) -> list[str]:
    """Of the noise under which images are scored once more, where `key` was known to nobody before."""
    return [hashlib.sha256(f"fresh\t{key}\t{i}".encode()).hexdigest() for i in range(count)]


def witness_lot(seed: int, image_id: str) -> str:
    """Of a test image: those that come first in this order are looked at while they are attacked."""
    return _lot("witness", seed, image_id)


def rerun_lot(seed: int, image_id: str) -> str:
    """Of a test image: those that come first in this order are attacked again by who runs a submission once more."""
    return _lot("rerun", seed, image_id)


def _lot(name: str, seed: int, image_id: str) -> str:
    return hashlib.sha256(f"{name}\t{seed}\t{image_id}".encode()).hexdigest()


def fit_seed(seed: int) -> int:
    """Of torch's global generator in a fit: spread, so that the per-step seeds of a training do not overlap between
    runs."""
    return int.from_bytes(hashlib.sha256(f"fit\t{seed}".encode()).digest()[:6], "big")


def _seed(seed: int, purpose: str, image_id: str) -> int:
    digest = hashlib.sha256(f"{seed}\t{purpose}\t{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits and a sign
