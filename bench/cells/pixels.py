"""Where the pixels of an image's map lie, as text in a row: histograms over the bins of `stats.pixels`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..stats.measured import Floats
from ..stats.pixels import BINS

SUFFIX = "_pixels"
"""Of the columns that hold such texts."""
AREAS = 3  # background, mask, regions


def to_text(background: Floats, mask: Floats | None = None, covered: Floats | None = None) -> str:
    """Histograms (BINS,) of an image; of one without a mask the background alone.

    Bins that hold something, as `distance from the one before:count`, the first from bin 0; `|` between histograms.
    """
    parts = [background] if mask is None or covered is None else [background, mask, covered]
    return "|".join(map(_to_text, parts))


def from_texts(texts: Sequence[str]) -> tuple[Floats, Floats, Floats, Floats]:
    """Of N images: background, mask and regions (N, BINS) each, and the number of regions (N,).

    Raises ValueError for what `to_text` does not write.
    """
    found = np.zeros((AREAS, len(texts), BINS))
    for i, text in enumerate(texts):
        parts = text.split("|")
        if len(parts) not in (1, AREAS):
            raise ValueError(f"{len(parts)} histograms")
        for area, part in enumerate(parts):
            found[area, i] = _from_text(part)
    background, mask, covered = found
    return background, mask, covered, covered.sum(1).round()


def _to_text(counts: Floats) -> str:
    there = np.flatnonzero(counts)
    steps = np.diff(there, prepend=0)
    return " ".join(f"{step}:{counts[place]:.9g}" for step, place in zip(steps, there, strict=True))


def _from_text(text: str) -> Floats:
    counts = np.zeros(BINS)
    pairs = [pair.partition(":") for pair in text.split(" ")] if text else []
    steps = [int(step) for step, _, _ in pairs]
    values = np.array([float(value) for _, _, value in pairs])
    places = np.cumsum(steps, dtype=np.int64)
    if any(step < 1 for step in steps[1:]) or (steps and not 0 <= steps[0] <= places[-1] < BINS):
        raise ValueError("bins out of order")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("counts must be above 0")
    counts[places] = values
    return counts
