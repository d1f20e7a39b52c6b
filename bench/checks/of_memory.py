"""Whether the rows are scores of images: a twin of the detector that has not seen the run gives the same."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..cells.rows import COLUMNS
from ..core.rng import fresh_names
from ..engine.worker import SAME
from .of_detector import STANDARD_ERRORS, at_least_usual
from .reattack import Reattack


def a_fresh_twin_agrees(reattack: Reattack) -> tuple[bool, str]:
    """Clean and attacked images, mixed, in other batches and, of a randomized detector, under noise that nobody could
    foresee: it is named after the rows."""
    elsewhere = reattack.prepared.elsewhere
    if elsewhere is None:
        return True, "not checked: nobody knows how to load the detector again"
    images, noted, signs = _mixed(reattack)
    draws = reattack.draws
    key = hashlib.sha256(repr([row[: len(COLUMNS)] for row in reattack.rows]).encode()).hexdigest()
    names = fresh_names(key, len(images))
    order = sorted(range(len(images)), key=lambda i: names[i])
    found = elsewhere(images[order], [names[i] for i in order], draws)
    reattack.passes.forwards += len(images) * draws
    scores = torch.empty_like(found.scores)
    scores[:, order] = found.scores
    off = scores.double().mean(0) - noted
    if found.suspect:
        return False, f"the detector, {found.where}, {found.suspect}: a score may rest on images that it met before"
    said = f"{len(images)} images, scored by the detector {found.where},"
    if reattack.worker.score.randomized:
        errors = _standard_errors(scores.double(), off, signs, reattack)
        return errors <= STANDARD_ERRORS, f"{said} differ from the rows by {errors:.1f} standard errors at most"
    far = float(off.abs().max())
    return far <= max(SAME * reattack.spread, reattack.floor), f"{said} differ from the rows by {far:.1e} at most"


def _mixed(reattack: Reattack) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, H, W), first those that were attacked; what is noted of them (N,); 1 or -1: how an adversary, or
    the label, would have moved it (N,)."""
    kept = reattack.attacked_images
    indices = [*kept, *(i for i in reattack.probe if i not in kept)]
    clean = reattack.data.test.images(indices).cpu()
    images = torch.cat([torch.stack([kept[i][0] for i in kept]).cpu(), clean])
    rows = reattack.rows
    noted = [*(kept[i][1] for i in kept), *(rows[i].clean for i in indices)]
    labels = torch.tensor([rows[i].label for i in (*kept, *indices)])
    return images, torch.tensor(noted, dtype=torch.float64), 1.0 - 2.0 * labels


def _standard_errors(scores: Tensor, off: Tensor, sign: Tensor, reattack: Reattack) -> float:
    """The largest difference: of an image, or of a class in the mean, before or after the attack; in units of its
    error."""
    var = scores.var(0)
    error = (at_least_usual(var) * (1 / len(scores) + 1 / reattack.worker.draws)).sqrt()
    error = error.clamp_min(SAME * reattack.spread)
    attacked = torch.arange(len(off)) < len(reattack.attacked_images)
    means = [
        float(off[of].mean().abs() * len(off[of]) / error[of].square().sum().sqrt())
        for of in (attacked & (sign > 0), attacked & (sign < 0), ~attacked & (sign > 0), ~attacked & (sign < 0))
        if of.any()
    ]
    return max(float((off.abs() / error).max()), *means)
