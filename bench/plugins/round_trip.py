"""Whether all that a fit learned is in what is kept of it: fitted and loaded, a detector gives the same scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.data import TrainSet
from ..core.detector import Detector
from ..core.rng import Rng
from ..core.score import Score, where_it_failed
from ..errors import UserError
from . import kept_fits

IMAGES = 2  # of those that were learned from: no test image is needed to tell
TOLERANCE = 1e-4  # of the spread of scores; a GPU adds in another order each time
ROUNDING = 1e-6  # of the largest score: single precision
REMEDY = (
    "register it (self.register_buffer), or give it as tensors in learned() and take it back in load_state_dict(); of "
    "a scikit-learn or faiss model, what it is made of"
)
FORGOTTEN = "detector {name} has learned something that is not in its state dict: loaded again"


class Forgotten(UserError):
    """Of a detector that would be another one in the next process."""


def loaded_again(name: str, fitted: Detector, fresh: Detector, learned_from: TrainSet) -> Detector:
    """`fresh`, which is not fitted, after it has taken what is kept of `fitted`.

    Forgotten, if it cannot take it, or scores an image that was learned from in another way. What cannot be scored, or
    not twice alike, is not judged here: whoever runs the detector is told.
    """
    try:
        kept_fits.take(fresh, kept_fits.state_of(fitted))
    except Exception as error:  # a plug-in may raise anything
        raise Forgotten(
            f"detector {name} cannot take back what its fit has learned ({where_it_failed(error)}); {REMEDY}"
        ) from error
    fresh.eval().requires_grad_(False)  # what it took may have made parts that it did not have
    some = range(min(len(learned_from), IMAGES))
    ids = [learned_from.ids[i] for i in some]
    x = learned_from.images(some).to(fresh.device)
    try:
        first, second = _scores(fitted, x, ids), _scores(fitted, x, ids)
    except (UserError, torch.OutOfMemoryError):
        return fresh
    try:
        off = _off(first, second, _scores(fresh, x, ids))
    except UserError as error:
        raise Forgotten(f"{FORGOTTEN.format(name=name)}, it cannot score ({error}); {REMEDY}") from error
    except torch.OutOfMemoryError:
        return fresh
    if off:
        far = f"it scores an image {off:.3g} away from what it did after the fit"
        raise Forgotten(f"{FORGOTTEN.format(name=name)}, {far}; {REMEDY}")
    return fresh


def _off(first: Tensor, second: Tensor, again: Tensor) -> float:
    """How far the scores `again` (B,), of who was loaded, are from those of who was fitted, at most; 0 within what the
    arithmetic, or a detector that does not repeat itself, accounts for."""
    allowed = max(TOLERANCE * float(first.max() - first.min()), ROUNDING * float(first.abs().max()))
    off = float((again - first).abs().nan_to_num(torch.inf).amax())
    if float((second - first).abs().max()) > allowed or not first.isfinite().all():
        return 0.0
    return off if off > allowed else 0.0


def _scores(detector: Detector, x: Tensor, ids: Sequence[str]) -> Tensor:
    """(B,) in double precision, the noise of a randomized one fixed."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        return Score(detector)(x, Rng(0, list(ids))).double()
