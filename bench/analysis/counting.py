"""The attack that counts: of all that were tried on a detector under a threat model, the one that is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from ..cells.result import Result

STANDARD = "standard"
Threat = tuple[str, Fraction]
Cells = Mapping[str, Sequence[Result]]
"""Detector -> its cells, one per category."""


def threat_of(r: Result) -> Threat:
    """Norm and budget."""
    return r.spec.norm, r.eps


class Counting(NamedTuple):
    """By threat model, the cells that count."""

    worst: Mapping[Threat, Cells]
    """Under attack; first the threat model that most detectors met."""
    certified: Mapping[Threat, Cells]

    @classmethod
    def of(cls, results: Sequence[Result]) -> Counting:
        attacks, certificates = ([r for r in results if r.certificate == which] for which in (False, True))
        return cls(
            {threat: _chosen(attacks, threat) for threat in _threats(attacks)},
            {threat: _chosen(certificates, threat) for threat in sorted(_threats(certificates))},
        )

    @property
    def threats(self) -> tuple[Threat, ...]:
        return tuple(dict.fromkeys([*self.worst, *self.certified]))

    @property
    def groups(self) -> list[Cells]:
        return [*self.worst.values(), *self.certified.values()]

    @property
    def clean(self) -> Cells:
        """Whose clean scores are shown: those under the first threat model that a detector met."""
        return {name: cells for group in reversed(self.groups) for name, cells in group.items()}


def _threats(results: Sequence[Result]) -> list[Threat]:
    """The one that most detectors met first, and of several the smallest in linf."""
    met = Counter(threat for threat, _ in {(threat_of(r), r.detector) for r in results})
    return sorted(met, key=lambda threat: (-met[threat], threat[0] != "linf", threat[0], threat[1]))


def _chosen(results: Sequence[Result], threat: Threat) -> dict[str, list[Result]]:
    """Detector -> per category the cell of the standard evaluation, or else the one of the lowest AUROC; of
    certificates the one of the most draws."""
    found: dict[str, dict[str, Result]] = {}
    for r in results:
        if threat_of(r) == threat:
            mine = found.setdefault(r.detector, {})
            mine[r.category] = min(mine.get(r.category, r), r, key=_preference)
    return {name: [cells[c] for c in sorted(cells)] for name, cells in found.items()}


def _preference(r: Result) -> tuple[bool, float]:
    if r.certificate:
        return False, -float(r.record.attack.parameters.get("samples", 0))
    return not is_standard(r), r.metrics["robust_auroc"].value


def is_standard(r: Result) -> bool:
    """Whether the cell is of the standard evaluation as it is defined, on however many images."""
    return r.spec.attack == STANDARD and not r.spec.attack_parameters and not r.evaluation
