"""Images that a data set holds twice: in training and test, where they are known by heart, or twice in the test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 32  # places per side at which two images are compared
# Root mean square over the grid, white being 1. An image that is saved again as JPEG 75, or at half its size, moves by
# at most 1.1 / 255 (measured on photographs of 5 products); two photographs of one product differ by 1.8 and more.
NEAR = 1.5 / 255
# Of the typical distance within the set: flat surfaces are all alike without being copies.
ALIKE = 0.25
SAMPLE = 200  # images that tell the typical distance
BLOCK = 256  # images that are compared with as many others at a time
IN_MEMORY = 4 * 2**20  # bytes of grids; where a set has more, they lie in a temporary file


class Glance(NamedTuple):
    """What is kept of an image to know it again."""

    id: str
    digest: bytes
    grid: Tensor
    """float (3 * GRID * GRID,), fewer of tiny images."""


def glance(name: str, image: Tensor) -> Glance:
    """Of an image (3, S, S)."""
    grid = F.adaptive_avg_pool2d(image, min(GRID, image.shape[-1])).flatten()
    return Glance(name, hashlib.sha256(image.numpy().tobytes()).digest(), grid)


class Glances:
    """Of all images of a set, in order; memory does not grow with their grids."""

    def __init__(self, found: Iterable[Glance]):
        self.ids: list[str] = []
        self.digests: list[bytes] = []
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  closed when nobody holds it
        self._numbers = 0  # of a grid
        for one in found:
            self.ids.append(one.id)
            self.digests.append(one.digest)
            self._numbers = len(one.grid)
            self._file.write(one.grid.numpy().astype(np.float32).tobytes())

    def __len__(self) -> int:
        return len(self.ids)

    def grids(self, first: int, count: int) -> Tensor:
        """float (B, V): of as many images, fewer at the end."""
        size = 4 * self._numbers  # bytes of float32
        self._file.seek(first * size)
        content = bytearray(self._file.read(count * size))
        return torch.from_numpy(np.frombuffer(content, np.float32).reshape(-1, self._numbers))


def copies(train: Glances, test: Glances) -> list[str]:
    """A sentence per kind of copy; none if every test image is new."""
    limit = min(NEAR, ALIKE * _typical_distance([train, test]))
    known, again = _partners(test, train, limit), _partners(test, test, limit)
    found = (
        (known.same, "also among the training images, so that a detector has seen them"),
        (known.near, "nearly the same as a training image, as if saved again"),
        (again.same, "twice in the test set, where they count twice"),
        (again.near, "nearly the same as another test image, as if saved again"),
    )
    return [
        f"{len(pairs)} of {len(test)} test images: {what} (such as {pairs[0][0]}, which is {pairs[0][1]})"
        for pairs, what in found
        if pairs
    ]


class Partners(NamedTuple):
    """Pairs of ids: a test image and the other one."""

    same: list[tuple[str, str]]
    near: list[tuple[str, str]]


def _partners(test: Glances, others: Glances, limit: float) -> Partners:
    """Of each test image an equal other one, else the closest within `limit`; in its own set, of those before it."""
    found = Partners([], [])
    first: dict[bytes, str] = {}
    if others is not test:
        first = dict(zip(reversed(others.digests), reversed(others.ids), strict=True))
    for name, digest, (distance, closest) in zip(test.ids, test.digests, _closest(test, others), strict=True):
        if digest in first:
            found.same.append((name, first[digest]))
        elif distance < limit:
            found.near.append((name, others.ids[closest]))
        if others is test:
            first.setdefault(digest, name)
    return found


def _closest(test: Glances, others: Glances) -> Iterator[tuple[float, int]]:
    """Of each test image the distance to the closest of the others, and its place; in its own set, of those before it:
    by products of blocks, in double precision, which leaves distances as they are but for 1e-7."""
    for start in range(0, len(test), BLOCK):
        own = test.grids(start, BLOCK).double()
        best = torch.full((len(own),), torch.inf, dtype=torch.float64)
        place = torch.zeros(len(own), dtype=torch.long)
        for first in range(0, start + 1 if others is test else len(others), BLOCK):
            distances = _distances(own, others.grids(first, BLOCK).double(), "use_mm_for_euclid_dist")
            if others is test and first == start:  # what is above the diagonal comes later, or is the image itself
                distances = distances.masked_fill(torch.ones_like(distances, dtype=torch.bool).triu(), torch.inf)
            least, at = distances.min(1)
            place = torch.where(least < best, first + at, place)
            best = torch.minimum(least, best)
        yield from zip(best.tolist(), place.tolist(), strict=True)


def _typical_distance(sets: Sequence[Glances]) -> float:
    """The median over the pairs of an even sample of the images that differ at all."""
    every = [(one, i) for one in sets for i in range(len(one))]
    grids = torch.cat([one.grids(i, 1) for one, i in every[:: -(-len(every) // SAMPLE)]])
    distances = _distances(grids, grids)
    different = distances[distances > 0]
    return float(different.median()) if len(different) else 0.0


def _distances(a: Tensor, b: Tensor, mode: str = "donot_use_mm_for_euclid_dist") -> Tensor:
    """Root mean square of every difference: (A, V) and (B, V) -> (A, B)."""
    return torch.cdist(a, b, compute_mode=mode) / a.shape[1] ** 0.5
