"""Greedy k-center selection (Sener & Savarese 2018, https://arxiv.org/abs/1708.00489, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def k_center_greedy(points: Tensor, count: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
    """Indices (count,) of `points` (n, d): each next point is the one farthest from those chosen so far.

    The maximal distance of any point to its nearest chosen one is at most twice the least possible. In many
    dimensions the distances are measured after a random projection that keeps them (Johnson-Lindenstrauss).
    The first point and the projection come from torch's global generator.
    """
    from sklearn.random_projection import johnson_lindenstrauss_min_dim

    n, d = points.shape
    dims = int(johnson_lindenstrauss_min_dim(n, eps=0.9))
    if dims < d:
        points = points @ (torch.randn(d, dims) / dims**0.5).to(points)
    lengths = points.square().sum(1)
    nearest = torch.full_like(lengths, torch.inf)
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    current = torch.randint(n, ()).to(points.device)
    for i in range(count):
        chosen[i] = current
        # |p - c|^2 = |p|^2 - 2 p.c + |c|^2: one matrix-vector product, no (n, d) temporary
        distance = torch.addmv(lengths, points, points[current], alpha=-2).add_(lengths[current])
        torch.minimum(nearest, distance, out=nearest)
        nearest[current] = -torch.inf  # rounding must not choose a point twice
        current = nearest.argmax()
        if progress is not None and (i % 100 == 99 or i + 1 == count):
            progress(i + 1, count)
    return chosen
