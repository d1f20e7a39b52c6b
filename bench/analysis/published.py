"""Clean figures that are worse here than where they were published: a reader should know before comparing the rest."""

from __future__ import annotations

from collections.abc import Sequence

from ..cells.result import Result
from .reported import WHOLE, beside, reported

MARGIN = 0.01
"""One point of AUROC."""


def below_published(results: Sequence[Result]) -> list[str]:
    """A sentence for each cell whose clean AUROC is more than a point below the published one of the same detector,
    category and image size, on all test images."""
    figures = reported()
    figures = figures[(figures["metric"] == "clean_auroc") & figures["image_size"].notna()]
    said = []
    for r in results:
        if not r.of_scores or r.spec.limit is not None or "clean_auroc" not in r.metrics:
            continue
        spec, ours = r.spec, r.metrics["clean_auroc"].value
        same = figures[(figures["detector"] == spec.detector) & (figures["image_size"] == spec.image_size)]
        if not len(same):
            continue
        found = beside(spec.dataset, r.category, spec.norm, spec.eps, same)
        found = found[found["category"] != WHOLE]
        for value, source in zip(found["value"], found["source"], strict=True):
            if ours < value - MARGIN:
                here = f"{r.detector} on {r.category}: clean AUROC {ours:.3f}"
                said.append(f"{here}, published {value:.3f} at {spec.image_size} px ({source})")
    return sorted(set(said))
