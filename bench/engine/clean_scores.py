"""Scores of the test images as they are: each image is scored once, however many cells a detector has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping, Sequence

import torch
from torch import Tensor

from ..core.data import TestSet

LOT = 16  # images that are scored together: always the same ones, so that no score depends on who asks for it


class CleanScores:
    """The draws of every score, made when they are asked for.

    each: gives (draws, B) of some images. key: what they depend on beside the images. known: those of other cells of
    the same detector, to which these are added; None: of no others.
    """

    def __init__(
        self,
        test: TestSet,
        each: Callable[[Sequence[int]], Tensor],
        key: Hashable = None,
        known: MutableMapping[Hashable, Tensor] | None = None,
    ):
        self._test, self._each, self._key = test, each, (test.fingerprint, key)
        self._lots: MutableMapping[Hashable, Tensor] = {} if known is None else known

    def of(self, indices: Sequence[int]) -> Tensor:
        """(draws, B)."""
        lots = {index // LOT: self._lot(index // LOT) for index in indices}
        return torch.stack([lots[index // LOT][:, index % LOT] for index in indices], 1)

    def _lot(self, number: int) -> Tensor:
        key = (self._key, number)
        if key not in self._lots:
            self._lots[key] = self._made(range(number * LOT, min((number + 1) * LOT, len(self._test))))
        return self._lots[key]

    def _made(self, indices: Sequence[int]) -> Tensor:
        """In halves where there is too little memory for all."""
        try:
            return self._each(indices)
        except torch.OutOfMemoryError:
            if len(indices) == 1:
                raise
        middle = len(indices) // 2
        return torch.cat([self._made(indices[:middle]), self._made(indices[middle:])], 1)
