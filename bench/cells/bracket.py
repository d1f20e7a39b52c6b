"""Certified beside attacked: the true worst case of a detector lies between both, or one of them is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from ..stats.intervals import Estimate
from ..stats.measured import Measured, mean
from .result import Result, with_settings
from .schema import CheckRecord
from .spec import SMOOTHING

CHECK = "bracket"
ENOUGH_DRAWS = 15
"""`n` of the smoothed detector that was attacked: the mean of medians of fewer draws is too far from the median."""
PAIRS = {"certified_auroc": "robust_auroc", "certified_accuracy": "robust_accuracy"}


class Bracket(NamedTuple):
    """One certified detector at one radius: its certificates and the attacks on it, by category."""

    data: str
    detector: str
    how: str
    """The certificate's settings that are not the defaults."""
    norm: str
    radius: Fraction
    certificates: Mapping[str, Result]
    attacks: Mapping[str, Sequence[Result]]
    """At exactly this radius."""

    @property
    def method(self) -> str:
        """What the certificate rests on, where all settings are the defaults."""
        first = next(iter(self.certificates.values()))
        return "defaults" if first.spec.attack == SMOOTHING else first.spec.attack

    @property
    def categories(self) -> list[str]:
        return sorted(self.certificates)

    def certified(self, metric: str = "certified_auroc") -> Estimate | None:
        """Mean over the categories; None where the certificate does not say."""
        found = [self.certificates[c].metrics.get(metric) for c in self.categories]
        return mean([f for f in found if f is not None]).estimate() if all(found) else None

    def attacked(self) -> Estimate | None:
        """Of the strongest attack on each category; None unless all of them were attacked at this radius."""
        strongest = self.strongest
        return mean([r.metrics["robust_auroc"] for r in strongest]).estimate() if strongest else None

    @property
    def strongest(self) -> list[Result]:
        """The attack that reached least, per category; none unless all of them were attacked at this radius."""
        found = []
        for category in self.categories:
            cells = [r for r in self.attacks.get(category, ()) if "robust_auroc" in r.metrics]
            found += [min(cells, key=lambda r: r.metrics["robust_auroc"].value)] if cells else []
        return found if len(found) == len(self.categories) else []

    @property
    def scope(self) -> str:
        """The categories in words."""
        count = len(self.categories)
        return f"mean of {count} categories" if count > 1 else self.categories[0]

    @property
    def violations(self) -> list[str]:
        """How an attack went below what is certified: a sentence each; one of both is wrong."""
        cells = [r for own in (self.certificates.values(), *self.attacks.values()) for r in own]
        return sorted({check.sentence for r in cells for check in r.record.failed if check.name == CHECK})

    @property
    def verdict(self) -> str:
        """Whether it holds, as far as that was tried."""
        if self.violations:
            return "violated"
        if self.attacked() is None or self.certified() is None:
            return "open"
        few = [r for cells in self.attacks.values() for r in cells if not _enough_draws(r)]
        return f"open (attacked with n below {ENOUGH_DRAWS})" if few else "holds"


def brackets(results: Sequence[Result]) -> list[Bracket]:
    """Every certificate with the attacks on the same detector, by radius."""
    results = [r for r in results if not r.normal_only]  # brackets are about AUROC
    attacks_on = _attacks(results)
    groups: dict[tuple[Any, ...], dict[str, Result]] = {}
    for r in results:
        if r.certificate:
            groups.setdefault((*_identity(r), _how(r), r.spec.norm, r.eps), {})[r.category] = r
    found = []
    for (*identity, how, norm, radius), certificates in sorted(groups.items()):
        attacks = {
            category: [r for r in attacks_on.get(_made_of(certificate), ()) if r.eps == radius]
            for category, certificate in certificates.items()
        }
        dataset, size, seed, targets, name, settings = identity
        data = f"{dataset}, {size} px" + f", {targets} images" * (targets != "both") + f", seed {seed}" * bool(seed)
        detector = with_settings(name, json.loads(settings))
        found.append(Bracket(data, detector, how, norm, radius, certificates, attacks))
        attacked = {category for category, cells in attacks.items() if cells}
        if attacked and attacked != set(certificates):  # the bracket of those that have both ends
            some = {category: certificates[category] for category in sorted(attacked)}
            found.append(Bracket(data, detector, how, norm, radius, some, attacks))
    return found


def compare_bounds(results: Sequence[Result]) -> None:
    """Adds the check `bracket` to the certificates, and to every attack that one of them contradicts.

    An attack of a smaller ball bounds the worst case of a larger one, so every radius up to the certificate's counts.
    """
    attacks_on = _attacks(results)
    for certificate in results:
        if not certificate.certificate:
            continue
        compared, wrong = [], []
        for attack in attacks_on.get(_made_of(certificate), ()):
            if attack.eps > certificate.eps or not _enough_draws(attack):
                continue
            for bound, reached in PAIRS.items():
                low, high = certificate.metrics.get(bound), attack.metrics.get(reached)
                if low is None or high is None:
                    continue
                if bound.endswith("accuracy") and not _same_threshold(certificate, attack):
                    continue
                sentence = _sentence(certificate, attack, low, high, bound)
                compared.append(sentence)
                if low.value > high.value:
                    wrong.append(sentence)
                    attack.checks.append(CheckRecord(name=CHECK, passed=False, sentence=sentence))
        said = wrong or compared
        if said:
            certificate.checks.append(CheckRecord(name=CHECK, passed=not wrong, sentence="; ".join(said)))


def broken_brackets(results: Sequence[Result]) -> list[str]:
    """A sentence for every certificate that an attack contradicts."""
    return [
        f"{r.detector} on {r.category}: {check.sentence}"
        for r in results
        for check in r.record.failed
        if r.certificate and check.name == CHECK
    ]


def _sentence(certificate: Result, attack: Result, low: Measured, high: Measured, bound: str) -> str:
    what = "AUROC" if bound.endswith("auroc") else "accuracy"
    relation = "is above" if low.value > high.value else "is at most"
    return (
        f"certified {what} {low.value:.4f} at {certificate.spec.norm} {certificate.spec.eps} {relation} the "
        f"{high.value:.4f} that {attack.attack} reached at {attack.spec.norm} {attack.spec.eps}"
    )


def _attacks(results: Sequence[Result]) -> dict[tuple[Any, ...], list[Result]]:
    """By the detector, the norm and the images, if there is any certificate to set them beside."""
    found: dict[tuple[Any, ...], list[Result]] = {}
    if any(r.certificate for r in results):
        for r in results:
            if r.record.kind == "attack":
                found.setdefault(_made_of(r), []).append(r)
    return found


def _enough_draws(attack: Result) -> bool:
    if not attack.record.detector.randomized:
        return True
    found = attack.record.detector.parameters.get(smoothing_key(attack, "n"))
    return isinstance(found, int) and found >= ENOUGH_DRAWS


def _same_threshold(a: Result, b: Result) -> bool:
    return a.record.threshold.value == b.record.threshold.value


def smoothing_key(r: Result, parameter: str) -> str:
    """Of the smoothing, which is the outermost part."""
    return f"{r.spec.detector.partition('+')[0]}.{parameter}"


def _identity(r: Result) -> tuple[Any, ...]:
    s, draws = r.spec, smoothing_key(r, "n")  # how well a smoothed score is estimated, not what it is
    settings = {k: v for k, v in s.detector_parameters.items() if k != draws}
    return s.bed, s.image_size, s.seed, s.targets, s.detector, json.dumps(settings, sort_keys=True)


def _made_of(r: Result) -> tuple[Any, ...]:
    """With the images, the code and the weights: the same detector, and not one of the same name."""
    data, own = r.record.data, r.record.detector
    weights = json.dumps([own.code, own.fit and own.fit.as_json()], sort_keys=True)
    return *_identity(r), r.spec.norm, r.category, data.train, data.test, weights


def _how(r: Result) -> str:
    settings = {**r.spec.attack_parameters}
    settings |= {"limit": r.spec.limit} if r.spec.limit is not None else {}
    settings |= {"goal": r.spec.goal} if r.spec.goal != "rank" else {}
    settings |= {"threshold_folds": r.spec.threshold_folds} if r.spec.threshold_folds is not None else {}
    return ", ".join(f"{k}={v}" for k, v in settings.items())
