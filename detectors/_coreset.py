"""Greedy k-center selection (Sener & Savarese 2018, https://arxiv.org/abs/1708.00489, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CANDIDATES = 1024  # points among which the next ones are searched
BLOCK = 1 << 22  # distances computed at a time


def k_center_greedy(points: Tensor, count: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
    """Indices (count,) of `points` (n, d): each next point is the one farthest from those chosen so far.

    The maximal distance of any point to its nearest chosen one is at most twice the least possible. The first point
    comes from torch's global generator. The result is that of measuring all points again after every choice, without
    the random projection with which other implementations make that affordable.
    """
    n = len(points)
    lengths = points.square().sum(1)
    nearest = torch.full_like(lengths, torch.inf)  # squared distance to the nearest chosen point, or an upper bound
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    chosen[0] = torch.randint(n, ()).to(points.device)
    done = counted = 1
    new = chosen[:1]
    while done < count:
        _shorten(nearest, points, lengths, new)
        nearest[new] = -torch.inf  # rounding must not choose a point twice
        # Distances only shrink. While the farthest of the candidates is no nearer than the bound of the others were
        # when they were measured, it is the farthest of all: only the candidates need to be measured again.
        bound, candidates = nearest.topk(min(CANDIDATES + 1, n))
        rest = bound[-1].item() if len(bound) > CANDIDATES else -torch.inf
        candidates = candidates[:CANDIDATES]
        own, own_lengths, own_nearest = points[candidates], lengths[candidates], nearest[candidates]
        start = done
        while done < count:
            farthest, place = own_nearest.max(0)
            if farthest.item() < rest or farthest.item() == -torch.inf:
                break
            chosen[done] = candidates[place]
            # |p - c|^2 = |p|^2 - 2 p.c + |c|^2: one matrix-vector product, no (n, d) temporary
            distance = torch.addmv(own_lengths, own, own[place], alpha=-2).add_(own_lengths[place])
            torch.minimum(own_nearest, distance, out=own_nearest)
            own_nearest[place] = -torch.inf
            done += 1
        new = chosen[start:done]
        if progress is not None and (done - counted >= 100 or done == count):
            progress(done, count)
            counted = done
    return chosen


def _shorten(nearest: Tensor, points: Tensor, lengths: Tensor, chosen: Tensor) -> None:
    """Squared distances to the nearest chosen point, after more points were chosen; in place."""
    centres, centre_lengths = points[chosen], lengths[chosen]
    rows = max(BLOCK // len(chosen), 1)
    for own, own_lengths, own_nearest in zip(points.split(rows), lengths.split(rows), nearest.split(rows), strict=True):
        distance = torch.addmm(centre_lengths, own, centres.T, alpha=-2).amin(1).add_(own_lengths)
        torch.minimum(own_nearest, distance, out=own_nearest)
