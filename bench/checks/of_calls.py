"""Whether an attack was told the truth while it ran: its own calls against the score that makes the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.score import Score
from ..engine.witness import Call
from ..engine.worker import SAME
from .of_steps import blocks
from .reattack import Reattack

AGREES = 0.4  # median relative disagreement of what an attack has followed with finite differences
CLEAR = AGREES / 3  # below which an image leaves no doubt
FIRST = 2  # images of each class, beyond which none is looked at where these leave no doubt
STEPS = (1e-3, 1e-4, 2.5e-5)  # of the differences, in [0, 1] pixels
LONG = 4e-3  # where rounding hides all of these
BLOCK = 8  # pixels: the side of the coarse directions
SMOOTHED = 5  # pixels, over which a gradient is averaged
ULPS = 5e-7  # of the largest term of a sum: what single precision leaves of a difference


def attack_was_told_the_truth(reattack: Reattack) -> tuple[bool, str]:
    """One call of the attack in each of the first batches, noted while it ran: the score of the same image under the
    same noise, asked for without a gradient, is the same; and what flowed back is its slope."""
    calls = reattack.calls
    if not calls:
        return True, "not checked: the attack follows no gradient, or scores images without their sources"
    detached = [call for call in calls if not call.gradient.isfinite().any()]
    if detached:
        return False, "the gradient that the attack was given is not finite"
    off = max(_off(reattack.worker.score, call) for call in calls)
    if off > max(SAME * reattack.spread, reattack.floor):
        return False, f"what the attack was told differs by {off:.1e} from the score of the same image outside of it"
    return _slopes_agree(reattack, calls)


def _off(score: Score, call: Call) -> float:
    with torch.no_grad():
        plain = score(call.images, call.noise.again(range(len(call.images))))
    return float((plain - call.scores).abs().max())


def _slopes_agree(reattack: Reattack, calls: list[Call]) -> tuple[bool, str]:
    of_class: tuple[list[float], list[float]] = ([], [])
    for some in _in_two(calls):
        for call in some:
            least = _least_disagreement(reattack.worker.score, call)
            for label, off in zip(call.labels, least.nan_to_num(-1).amax(0).tolist(), strict=True):
                of_class[label].extend([off] if off >= 0 else [])
        if all(of_class[y] and max(of_class[y]) < CLEAR for call in calls for y in call.labels):
            break
    worst = max(float(torch.tensor(found).quantile(0.5)) if found else 0.0 for found in of_class)
    return worst <= AGREES, (
        f"the gradient that the attack followed disagrees with finite differences by {worst:.1%} at "
        f"{sum(map(len, of_class))} images"
    )


def _in_two(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """The first few images of each class, and the others, which are looked at where one of those is in doubt."""
    parts: tuple[list[Call], list[Call]] = ([], [])
    seen = [0, 0]
    for call in calls:
        rows: tuple[list[int], list[int]] = ([], [])
        for i, label in enumerate(call.labels):
            rows[seen[label] >= FIRST].append(i)
            seen[label] += 1
        for part, some in zip(parts, rows, strict=True):
            part.extend([call.of(some)] if some else [])
    return parts


def _least_disagreement(score: Score, call: Call) -> Tensor:
    """(3, N), as `_disagreement` with the step at which it is least: a wrong slope is wrong at every one."""
    least = torch.full((3, len(call.images)), torch.nan, dtype=torch.float64)
    for step in STEPS:
        left = (~(least < CLEAR).all(0)).nonzero().flatten().tolist()
        if left:
            least[:, left] = least[:, left].fmin(_disagreement(score, call.of(left), step).cpu())
    if hidden := least.isnan().all(0).nonzero().flatten().tolist():
        least[:, hidden] = _disagreement(score, call.of(hidden), LONG).cpu()
    return least


class _Aim(NamedTuple):
    """What a call's gradient is the gradient of: weights * score + the sum of local weights * evidence."""

    score: Score
    call: Call

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) in double precision, of the call's images once or several times; and what rounding may leave of it."""
        call, times = self.call, len(x) // len(self.call.images)
        noise = call.noise.again([*range(len(call.images))] * times)
        with torch.no_grad():
            scores, evidence = self.score.with_evidence(x, noise, wanted=call.local_weights is not None)
        terms = (call.weights.double().repeat(times) * scores.double())[:, None]
        if evidence is not None and call.local_weights is not None:
            terms = torch.cat([terms, call.local_weights.double().repeat(times, 1) * evidence.double()], 1)
        return terms.sum(1), ULPS * terms.abs().amax(1)


def _disagreement(score: Score, call: Call, step: float) -> Tensor:
    """(3, N): along the gradient, along the same smoothed, and in the median over random directions. nan where rounding
    hides it."""
    aim, gradient = _Aim(score, call), call.gradient.nan_to_num(0, 0, 0)
    found = []
    for direction in _directions(gradient):
        claimed = (gradient * direction).flatten(1).sum(1).double()
        ends, hidden = aim(torch.cat([call.images + step * direction, call.images - step * direction]))
        up, down = ends.chunk(2)
        measured, hidden = (up - down) / (2 * step), hidden.chunk(2)[0]
        scale = torch.maximum(claimed.abs(), measured.abs())
        visible = scale * step > hidden
        found.append(torch.where(visible, (claimed - measured).abs() / scale, torch.nan))
    along, smoothed, *others = found
    return torch.stack([along, smoothed, torch.stack(others).nanquantile(0.5, dim=0)])


def _directions(gradient: Tensor) -> Iterator[Tensor]:
    """Each (N, 3, H, W) of 1 and -1: the gradient, what its neighbourhood says it is, noise and coarse noise."""
    yield gradient.sign()
    padded = F.pad(gradient, (SMOOTHED // 2,) * 4, mode="replicate")
    yield F.avg_pool2d(padded, SMOOTHED, 1).sign()
    yield from blocks(gradient, (1, BLOCK, BLOCK), torch.Generator().manual_seed(0))
