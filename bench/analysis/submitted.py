"""What was submitted and nobody has reproduced here: claims, in a table of their own, without rank or bold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..cells.result import Result

TITLES = ("detector", "data", "attack", "eps", "metric", "clean, claimed", "worst, claimed", "submission")
SHOWN = 200
"""Lines; the CSV has all."""


class Claim(NamedTuple):
    """A line, in the order of TITLES."""

    detector: str
    data: str
    attack: str
    eps: str
    metric: str
    clean: str
    worst: str
    submission: str


def claims(results: Sequence[Result]) -> list[Claim]:
    """Of all cells that were only submitted, by data and detector: never by what they claim."""
    ordered = sorted(results, key=lambda r: (r.spec.bed, r.category, r.detector, r.attack, r.spec.norm, r.eps))
    return [_claim(r) for r in ordered]


def _claim(r: Result) -> Claim:
    score = r.score_name
    clean, worst = (
        f"{r.metrics[name].value:.3f}" if name in r.metrics else "" for name in (f"clean_{score}", r.ranked_by)
    )
    side = f", {r.spec.targets} images" * (r.spec.targets != "both")
    data = f"{r.spec.bed} {r.category}, {r.spec.image_size} px"
    metric = "AUROC" if score == "auroc" else score
    return Claim(r.detector, data, r.attack, f"{r.spec.norm} {r.spec.eps}{side}", metric, clean, worst, r.source)
