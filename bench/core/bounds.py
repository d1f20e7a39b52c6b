"""What a detector may return as the bounds of its score."""

from __future__ import annotations

from torch import Tensor


def sides(found: object, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """(low, high), each (B,) in double precision, of images x (B, 3, H, W); None where these cannot be any."""
    if not (isinstance(found, tuple) and len(found) == 2):
        return None
    for part in found:
        if not (isinstance(part, Tensor) and part.shape == (len(x),) and part.is_floating_point()):
            return None
    low, high = (part.detach().double() for part in found)
    return low, high
