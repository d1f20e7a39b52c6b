"""The scores in what a detector's `score` returns, where it is plain which they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

NAME = "pred_score"
"""What anomalib calls the scores in a batch that holds maps and decisions as well."""


def plain_score(found: Any) -> Any:
    """`found` itself, or what it calls `pred_score`, as a field, an attribute or a key: (B,) also where that is (B, 1).

    Whether it is what a score must be is for `core.score` to say.
    """
    if isinstance(found, Tensor):
        return found
    named = found.get(NAME) if isinstance(found, Mapping) else getattr(found, NAME, None)
    if not isinstance(named, Tensor):
        return found
    return named.squeeze(1) if named.ndim == 2 else named
