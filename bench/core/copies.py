"""Images that a data set holds twice: in training and test, where they are known by heart, or twice in the test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
BLOCK = 256  # images that are compared with all others at a time


class Glance(NamedTuple):
    """What is kept of an image to know it again."""

    id: str
    digest: bytes
    grid: Tensor  # float (3 * GRID * GRID,), fewer for tiny images


def glance(name: str, image: Tensor) -> Glance:
    """Of an image (3, S, S)."""
    grid = F.adaptive_avg_pool2d(image, min(GRID, image.shape[-1])).flatten()
    return Glance(name, hashlib.sha256(image.numpy().tobytes()).digest(), grid)


def copies(train: Sequence[Glance], test: Sequence[Glance]) -> list[str]:
    """A sentence per kind of copy; none if every test image is new."""
    limit = min(NEAR, ALIKE * _typical_distance([*train, *test]))
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


def _partners(test: Sequence[Glance], others: Sequence[Glance], limit: float) -> Partners:
    """Of each test image an equal other one, else the closest within `limit`; in its own set, of those before it."""
    found = Partners([], [])
    first: dict[bytes, str] = {}
    if others is not test:
        first = {other.digest: other.id for other in reversed(others)}
    for i, (image, distances) in enumerate(zip(test, _to_others(test, others), strict=True)):
        before = distances[:i] if others is test else distances
        if image.digest in first:
            found.same.append((image.id, first[image.digest]))
        elif len(before):
            distance, closest = before.min(0)
            if distance < limit:
                found.near.append((image.id, others[int(closest)].id))
        if others is test:
            first.setdefault(image.digest, image.id)
    return found


def _to_others(test: Sequence[Glance], others: Sequence[Glance]) -> Iterator[Tensor]:
    """Of each test image the distances to the others, in its own set at least to those before it: by products of
    blocks, in double precision, which leaves them as they are but for 1e-7."""
    for start in range(0, len(test), BLOCK):
        own = _grids(test[start : start + BLOCK]).double()
        reached = others[: start + BLOCK] if others is test else others
        blocks = (_grids(reached[i : i + BLOCK]).double() for i in range(0, len(reached), BLOCK))
        yield from torch.cat([_distances(own, block, "use_mm_for_euclid_dist") for block in blocks], 1)


def _grids(images: Sequence[Glance]) -> Tensor:
    return torch.stack([g.grid for g in images])


def _typical_distance(images: Sequence[Glance]) -> float:
    """The median over the pairs of an even sample of the images that differ at all."""
    grids = _grids(images[:: -(-len(images) // SAMPLE)])
    distances = _distances(grids, grids)
    different = distances[distances > 0]
    return float(different.median()) if len(different) else 0.0


def _distances(a: Tensor, b: Tensor, mode: str = "donot_use_mm_for_euclid_dist") -> Tensor:
    """Root mean square of every difference: (A, V) and (B, V) -> (A, B)."""
    return torch.cdist(a, b, compute_mode=mode) / a.shape[1] ** 0.5
