"""`bench shift`: what another light, lens or place of the camera does to a detector. Nobody attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import UserError
from .common import assignments, known, names, option, whole
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
    worst: str | None = None
    """Instead of them, a share of the box of light and pose."""
    search: tuple[tuple[str, str], ...] = ()

    @property
    def what(self) -> str:
        """In words."""
        return f"{len(self.kinds)} shifts" if self.worst is None else f"worst of {self.worst} of the box"


@dataclass(frozen=True, kw_only=True)
class ShiftRequest(GridRequest):
    """Shifts, and the detectors that meet them."""

    kinds: tuple[str, ...] | None
    """None: the published set."""
    severities: tuple[str, ...] | None
    """As typed; None: 3 of the published set alone, else all."""
    worst: tuple[str, ...] | None = None
    """Shares of the box, each a cell."""
    search: Mapping[str, str] = field(default_factory=dict)
    draws: int | None

    @property
    def title(self) -> str:
        return f"shifts on {self.dataset}"

    def planned(self) -> list[Asked]:
        """One, all of it being a cell; of the box one for each share."""
        if self.worst:
            return self._of_the_box(self.worst)
        if self.search:
            raise UserError("--search is of the worst of the box: give --worst as well")
        from ..core.shifts import PUBLISHED_SEVERITY, SETS, SEVERITIES, kinds_of, severities_of

        kinds = kinds_of(self.kinds or (PUBLISHED,))
        published = set(kinds) <= set(SETS[PUBLISHED])
        known = {str(severity): severity for severity in SEVERITIES}
        typed = [known.get(text, text) for text in self.severities or ()]
        severities = typed or ((PUBLISHED_SEVERITY,) if published else SEVERITIES)
        return [Asked(kinds, severities_of(severities))]  # type: ignore[arg-type]  # what is no number is none

    def _of_the_box(self, shares: Sequence[str]) -> list[Asked]:
        from ..core import parameters
        from ..core.norms import SEMANTIC
        from ..core.threat import eps_text, parse_eps
        from ..engine.box import Box

        if self.kinds or self.severities:
            word = "--kind" if self.kinds else "--severity"
            raise UserError(f"--worst searches a box of its own, without kinds and severities: leave out {word}")
        parameters.build(Box, self.search, "worst")
        found = dict.fromkeys(eps_text(parse_eps(share, SEMANTIC, "--worst")) for share in shares)
        return [Asked((), (), share, tuple(self.search.items())) for share in found]

    def threats(self, planned: Sequence[Asked]) -> list[ThreatModel]:
        return []

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]:
        from ..plugins.fitting import DetectorSpec

        return [DetectorSpec(name, given, self.seed, self.device, progress, tell)]

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Asked]) -> Iterator[Plan]:
        from ..harness.shift import planned as planned_cell

        for asked in planned:
            yield (
                f"{spec.label} on {bed.category}: {asked.what}",
                partial(
                    planned_cell,
                    spec,
                    bed,
                    asked.kinds,
                    asked.severities,
                    worst=asked.worst,
                    search=dict(asked.search),
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
  bench shift --detector autoencoder --worst 0.5,1                    # half and all of a box, worst per image
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
    callback=names,
    metavar="K[,K2..]",
    help="published (brightness, contrast, defocus_blur, gaussian_noise), line (exposure, gamma, white-balance, "
    "vignette, defocus, motion-blur, sensor-noise, jpeg, translation, rotation), or some of these  "
    "[default: published]",
)
@option(
    "--severity",
    "severities",
    callback=names,
    metavar="S[,S2..]",
    help="1 to 5  [default: 3 of the published set alone, else all five]",
)
@option(
    "--worst",
    callback=names,
    metavar="W[,W2..]",
    help="instead: for every image the worst exposure, gamma, hue, rotation (5 degrees) and translation (2 pixels), "
    "all at once, within this share of their ranges; 1 is all of them",
)
@option(
    "--search",
    multiple=True,
    callback=assignments,
    metavar="K=V",
    help="how --worst searches: points of the grid along each range, rounds, steps of the gradient, draws",
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
