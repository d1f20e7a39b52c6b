"""What a reader must know beside a table: where a figure comes from, and what cells of one table do not share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..cells.metrics import METRICS
from ..cells.result import Result
from ..core.data import NORMAL_ONLY
from ..core.threshold import possible_false_alarms
from ..stats.measured import mean
from .counting import Cells, Threat, is_standard, threat_of


class Footnotes(NamedTuple):
    texts: Mapping[str, str]
    """By letter."""
    marks: Mapping[tuple[Threat, str], str]
    """(threat model, detector) -> the letter of its robust AUROC."""


def footnotes(worst: Mapping[Threat, Cells], attacks: Sequence[Result]) -> Footnotes:
    """Which attacks a figure comes from where that is not the standard evaluation, and where another attack went
    further.

    worst: the cells that count. attacks: all of them.
    """
    letters: dict[str, str] = {}
    marks = {}
    rivals: dict[tuple[Threat, str], list[Result]] = {}
    for r in attacks:
        rivals.setdefault((threat_of(r), r.detector), []).append(r)
    for threat, cells in worst.items():
        for name, own in cells.items():
            said = []
            if not all(map(is_standard, own)):
                said.append(f"by {', '.join(sorted({r.attack for r in own}))}, not the standard evaluation")
            if further := _further(own, rivals[threat, name]):
                best = min(further, key=lambda r: r.metrics["robust_auroc"].value)
                said.append(f"{best.attack} reached {best.metrics['robust_auroc'].value:.3f} on {best.category}")
            if said:
                text = "; ".join(said)
                letters.setdefault(text, _letter(len(letters)))
                marks[threat, name] = letters[text]
    return Footnotes({letter: text for text, letter in letters.items()}, marks)


def _further(own: Sequence[Result], rivals: Sequence[Result]) -> list[Result]:
    """Which of the attacks on the same reached less than those that count."""
    counts = {r.category: r.metrics["robust_auroc"].value for r in own}
    return [r for r in rivals if r.metrics["robust_auroc"].value < counts.get(r.category, -1)]


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    before, last = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)


def differing(results: Sequence[Result]) -> list[str]:
    """A sentence for each package whose version cells of one table do not share, and for each detector or attack whose
    code they do not: their figures may differ by it."""
    versions: dict[str, Counter[str]] = {}
    codes: dict[str, Counter[str]] = {}
    for r in results:
        for package, version in r.record.versions.items():
            versions.setdefault(package, Counter())[str(version)] += 1
        for name, part in (
            (f"detector {r.spec.detector}", r.record.detector),
            (f"attack {r.spec.attack}", r.record.attack),
        ):
            codes.setdefault(name, Counter())[part.code[:8]] += 1
    return [
        f"made with different {what}{name}: "
        + ", ".join(f"{one} ({count} cells)" for one, count in sorted(counts.items()))
        for what, found in (("versions of ", versions), ("code of ", codes))
        for name, counts in found.items()
        if len(counts) > 1
    ]


def wrong_ways(results: Sequence[Result]) -> list[str]:
    """A sentence for each detector and category whose clean scores rank worse than chance."""
    return sorted({f"{r.detector} on {r.category}: {r.wrong_way}" for r in results if r.wrong_way})


def without_anomalies(results: Sequence[Result]) -> list[str]:
    """A sentence for each category whose test images are all normal."""
    found = {r.category: NORMAL_ONLY.format(count=len(r.table.ids)) for r in results if r.normal_only}
    return [f"{category}: {sentence}" for category, sentence in sorted(found.items())]


def thresholds(results: Sequence[Result]) -> list[str]:
    """A sentence for each number of images that a threshold was set on: how many false alarms it may have."""
    found = {(own.held_out, own.false_alarms) for r in results if r.of_scores and (own := r.record.threshold).held_out}
    said = []
    for held_out, asked in sorted(found):
        low, high = possible_false_alarms(held_out, asked)
        said.append(
            f"accuracy: a threshold for {100 * asked:g} % false alarms that was set on {held_out} held-out normal "
            f"images has {100 * low:.1f} to {100 * high:.1f} % on others (95 % interval)"
        )
    return said


def over_seeds(results: Sequence[Result]) -> list[str]:
    """A sentence for each detector, attack and budget that was run with several seeds: how far apart its means over the
    categories are that all of these seeds have. Intervals do not hold it."""
    groups: dict[tuple[object, ...], dict[int, dict[str, Result]]] = {}
    for r in results:
        s = r.spec
        key = (s.bed, s.image_size, r.attack, s.norm, r.eps, s.targets, r.normal_only, r.detector)
        groups.setdefault(key, {}).setdefault(s.seed, {})[r.category] = r
    return [sentence for seeds in groups.values() if len(seeds) > 1 and (sentence := _over_seeds(seeds))]


def _over_seeds(seeds: Mapping[int, Mapping[str, Result]]) -> str:
    """Empty where no category, or no number, is in all of them."""
    shared = sorted(set.intersection(*(set(cells) for cells in seeds.values())))
    if not shared:
        return ""
    first = next(iter(seeds.values()))[shared[0]]
    metric, s = first.ranked_by, first.spec
    values = [mean([cells[c].metrics[metric] for c in shared]).value for _, cells in sorted(seeds.items())]
    if np.isnan(values).any():
        return ""
    scope = f"mean of {len(shared)} categories" if len(shared) > 1 else shared[0]
    return (
        f"{first.detector}, {first.attack} {s.norm} {s.eps} on {s.bed}, {s.image_size} px ({scope}): "
        f"{METRICS[metric].title} {', '.join(f'{value:.3f}' for value in values)} with the seeds "
        f"{', '.join(map(str, sorted(seeds)))}; standard deviation {np.std(values, ddof=1):.3f}"
    )
