"""`bench shift`: what another light, lens or place of the camera does to a detector. Nobody attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .common import known, names, option, whole
from .grid import GridRequest, grid_options
from .jobs import Plan

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.progress import Progress, Tell
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec

PUBLISHED = "published"


class Asked(NamedTuple):
    """Kinds of shift, each at which severities."""

    kinds: tuple[str, ...]
    severities: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ShiftRequest(GridRequest):
    """Shifts, and the detectors that meet them."""

    kinds: tuple[str, ...]
    severities: tuple[str, ...] | None
    """As typed; None: 3 of the published set alone, else all."""
    draws: int | None

    @property
    def title(self) -> str:
        return f"shifts on {self.dataset}"

    def planned(self) -> list[Asked]:
        """One: all of it is a cell."""
        from ..core.shifts import PUBLISHED_SEVERITY, SETS, SEVERITIES, kinds_of, severities_of

        kinds = kinds_of(self.kinds)
        published = set(kinds) <= set(SETS[PUBLISHED])
        known = {str(severity): severity for severity in SEVERITIES}
        typed = [known.get(text, text) for text in self.severities or ()]
        severities = typed or ((PUBLISHED_SEVERITY,) if published else SEVERITIES)
        return [Asked(kinds, severities_of(severities))]  # type: ignore[arg-type]  # what is no number is none

    def threats(self, planned: Sequence[Asked]) -> list[ThreatModel]:
        return []

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]:
        from ..plugins.fitting import DetectorSpec

        return [DetectorSpec(name, given, self.seed, self.device, progress, tell)]

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Asked]) -> Iterator[Plan]:
        from ..harness.shift import planned as planned_cell

        for asked in planned:
            yield (
                f"{spec.label} on {bed.category}: {len(asked.kinds)} shifts",
                partial(
                    planned_cell,
                    spec,
                    bed,
                    asked.kinds,
                    asked.severities,
                    results=self.results,
                    seed=self.seed,
                    limit=self.limit,
                    draws=self.draws,
                    threshold_folds=self.threshold_folds,
                ),
            )


@click.command(
    epilog="""\b
examples:
  bench shift --detector patchcore,nearest-patch --dataset folder --data-root photos/ --category bottle
  bench shift --detector autoencoder --kind line                      # ten kinds at five severities
  bench shift --detector autoencoder --kind exposure,defocus --severity 2,4
"""
)
@option(
    "--detector",
    "detectors",
    required=True,
    callback=names,
    metavar="D[,D2..]",
    shell_complete=known("detectors"),
    help="as of run",
)
@option(
    "--kind",
    "kinds",
    default=PUBLISHED,
    show_default=True,
    callback=names,
    metavar="K[,K2..]",
    help="published (brightness, contrast, defocus_blur, gaussian_noise), line (exposure, gamma, white-balance, "
    "vignette, defocus, motion-blur, sensor-noise, jpeg, translation, rotation), or some of these",
)
@option(
    "--severity",
    "severities",
    callback=names,
    metavar="S[,S2..]",
    help="1 to 5  [default: 3 of the published set alone, else all five]",
)
@grid_options
@option(
    "--draws",
    callback=whole(1),
    metavar="N",
    help="noise draws whose mean is the score of a randomized detector  [default: 32]",
)
def command(**options: Any) -> ShiftRequest:
    """Score test images under other light, through another lens.

    No adversary: AUROC, and false alarms and misses at the threshold that was set on normal images as they are. Cells
    and tables of their own, never ranked among attacks.
    """
    return ShiftRequest(targets="both", goal="rank", **options)
