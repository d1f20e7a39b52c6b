"""Where the labels of points go, so that none covers another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

OFFSETS = (7, 13, 21, 31, 43)  # from a point to its label, in points
DIRECTIONS = 12
POINT = 4.0  # half the width of a marker with some air, in points


def placed(at: Any, sizes: Any, corners: Any, lines: Any = ()) -> tuple[npt.NDArray[np.float64], list[bool]]:
    """Where the labels of points go: the offset of the centre of each (n, 2), and whether it is far from its point.

    at (n, 2), sizes (n, 2) of the labels, corners (2, 2) of the panel and the ends of lines (m, 2, 2) along the axes,
    low end first, have one unit. One after another, each at the nearest place that is free, or else least covered.
    """
    offsets, far = np.zeros((len(at), 2)), [False] * len(at)
    taken = [(point - POINT, point + POINT) for point in at] + [(low - 1, high + 1) for low, high in lines]
    for i, size in enumerate(sizes):
        best = math.inf
        for ring, distance in enumerate(OFFSETS):
            for turn in range(DIRECTIONS):
                angle = 2 * math.pi * turn / DIRECTIONS
                way = np.array([math.cos(angle), math.sin(angle)])
                offset = way * (distance + size / 2 * np.abs(way))
                low, high = at[i] + offset - size / 2, at[i] + offset + size / 2
                outside = np.maximum(corners[0] - low, 0).sum() + np.maximum(high - corners[1], 0).sum()
                covered = sum(_shared(low, high, *other) for other in taken)
                cost = covered + 100 * outside + ring
                if cost < best:
                    best, offsets[i], far[i], box = cost, offset, ring > 0, (low, high)
        taken.append(box)
    return offsets, far


def _shared(low: Any, high: Any, other_low: Any, other_high: Any) -> float:
    """The area that two boxes share."""
    return float(np.prod(np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0)))
