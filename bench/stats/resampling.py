"""Medians of the images drawn again with replacement: what a difference of two medians is judged by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .measured import Floats

RESAMPLES = 1000
SEED = 20240808
CHUNK = 2**22  # weights held at a time: resamples x images


def resampled_medians(values: npt.ArrayLike, salt: str = "") -> Floats:
    """(RESAMPLES,) of numbers that may be inf. Equal salts and lengths draw the same images, so that two detectors are
    paired."""
    v = np.asarray(values, dtype=np.float64)
    order = np.argsort(v, kind="stable")
    v, found = v[order], []
    for weights in weights_of(len(v), salt):
        below = weights[order].cumsum(0)
        # the two middle ones of each resample, or twice the one
        lower = v[(below >= len(v) / 2).argmax(0)]
        upper = v[(below >= len(v) // 2 + 1).argmax(0)]
        found.append((lower + upper) / 2)
    return np.concatenate(found)


def weights_of(n: int, salt: str) -> Iterator[Floats]:
    """How often each image is in each resample (images, resamples), in chunks."""
    rng = np.random.default_rng([SEED, *salt.encode()])
    per_chunk = max(CHUNK // n, 1)
    for done in range(0, RESAMPLES, per_chunk):
        count = min(per_chunk, RESAMPLES - done)
        yield rng.multinomial(n, np.full(n, 1 / n), size=count).T.astype(np.float32)
