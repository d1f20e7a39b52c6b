"""`bench certify`: bound what any attack of an l2 ball can do, by randomized smoothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import click

from ..core.exact import read_number
from ..errors import UserError
from .common import known, names, option, whole
from .grid import ALL, GridRequest, beds_of, images_and_place
from .jobs import Plan

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.progress import Progress, Tell
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec

RADIUS = "0.2"


@dataclass(frozen=True, kw_only=True)
class CertifyRequest(GridRequest):
    """Certificates of detectors."""

    sigmas: tuple[float, ...]
    """In pixel units in [0, 1]."""
    radii: tuple[str, ...] | None
    """As typed; None where none was."""
    norm: str
    samples: int
    alpha: float
    center: str | None

    budget: ClassVar = "--radius"
    outer: ClassVar = "smoothed+"  # OUTER of engine/certifier.py, which imports torch

    @property
    def title(self) -> str:
        return f"certificates on {self.dataset}"

    def planned(self) -> list[ThreatModel]:
        """The balls, each once."""
        from ..core.threat import ThreatModel
        from ..harness.certify import parse_radius

        if self.norm != "l2":
            _refuse_norm(self)
        found = {ThreatModel("l2", parse_radius(text), self.targets) for text in self.radii or (RADIUS,)}
        return sorted(found, key=lambda threat: threat.eps)

    def typed(self) -> list[str]:
        return [name if name.startswith(self.outer) or name == ALL else self.outer + name for name in self.detectors]

    def threats(self, planned: Sequence[ThreatModel]) -> list[ThreatModel]:
        return list(planned)

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]:
        """Behind noise of every sigma."""
        from ..harness.certify import candidate

        return [
            candidate(name, sigma, given, self.seed, self.device, progress=progress, tell=tell) for sigma in self.sigmas
        ]

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[ThreatModel]) -> Iterator[Plan]:
        from ..core.threat import eps_text
        from ..engine.certifier import OUTER
        from ..harness.certify import planned as planned_cell

        for threat in planned:
            yield (
                f"{spec.label} on {bed.category}: certificate, sigma {spec.values[OUTER]['sigma']:g}, {threat}",
                partial(
                    planned_cell,
                    spec,
                    bed,
                    eps_text(threat.eps),
                    samples=self.samples,
                    alpha=self.alpha,
                    goal=self.goal,
                    targets=self.targets,
                    results=self.results,
                    seed=self.seed,
                    limit=self.limit,
                    threshold_folds=self.threshold_folds,
                ),
            )


def _refuse_norm(request: CertifyRequest) -> NoReturn:
    """Says what a certificate in linf would take in l2."""
    from ..engine.certifier import Certificate
    from ..harness.certify import explain_linf

    if request.norm != "linf":
        raise UserError(f"--norm {request.norm}: certificates by Gaussian noise are in l2")
    if request.radii is None:
        raise UserError("--norm linf: give the budget as --radius, for example 2/255, to see what it takes in l2")
    beds = [bed.limited(request.limit) for bed in beds_of(request)]
    settings, images = Certificate(request.samples, request.alpha), max(len(bed.test) for bed in beds)
    raise UserError(explain_linf(request.radii[0], beds[0].image_size, request.sigmas, settings, images))


def _sigmas(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    return tuple(_above_zero(part) for part in names(context, parameter, text) or ())


def _above_zero(text: str) -> float:
    sigma = read_number(text)
    if sigma is None or sigma <= 0:
        raise UserError(f"--sigma {text} must be a number above 0, in pixel units in [0, 1], for example 0.25")
    return float(sigma)


def _chance(_: click.Context, __: click.Parameter, text: str) -> float:
    alpha = read_number(text)
    if alpha is None or not 0 < alpha < 1:
        raise UserError(f"--alpha must be between 0 and 1 (a chance of error, such as 0.001), got {text}")
    return float(alpha)


@click.command(
    epilog="""\b
examples:
  bench certify --detector autoencoder --sigma 0.12,0.25 --radius 0.1,0.2,0.5 --samples 1000 --alpha 0.001
  bench run --detector smoothed+autoencoder --param sigma=0.25 --attack apgd-l2 --eps 0.2   # the other side
"""
)
@option(
    "--detector",
    "detectors",
    required=True,
    callback=names,
    metavar="D[,D2..]",
    shell_complete=known("detectors"),
    help="as of run; D and smoothed+D mean the same, denoised+D removes the noise before D",
)
@option(
    "--sigma",
    "sigmas",
    default="0.25",
    show_default=True,
    callback=_sigmas,
    metavar="S[,S2..]",
    help="standard deviation of the noise, in pixel units in [0, 1]",
)
@option(
    "--radius",
    "radii",
    callback=names,
    metavar="R[,R2..]",
    help=f"of the l2 ball, in pixel units in [0, 1]; all of them rest on the same draws  [default: {RADIUS}]",
)
@option("--norm", default="l2", show_default=True, metavar="NORM", help="l2 (linf: an explanation)")
@option("--samples", default="1000", show_default=True, callback=whole(1), metavar="N", help="noise draws per image")
@option(
    "--alpha",
    default="0.001",
    show_default=True,
    callback=_chance,
    metavar="A",
    help="chance with which a bound of any image may fail",
)
@option(
    "--center",
    metavar="C",
    help="median, mean (needs --param low=.. and high=..), or p between 0 and 1 for a percentile  [default: median]",
)
@option(
    "--goal",
    type=click.Choice(("rank", "threshold")),
    default="rank",
    show_default=True,
    help="rank: bounds of every score, for AUROC; threshold: of the decision, with fewer draws",
)
@images_and_place
def command(**options: Any) -> CertifyRequest:
    """Bound what any attack in l2 can do: randomized smoothing.

    Puts each detector behind Gaussian noise (its score becomes the median over draws) and bounds that score over the
    l2 ball of each radius: certified AUROC and accuracy, which no attack can break.
    """
    if options["center"] is not None:
        options["params"] = {**options["params"], "smoothed.center": options["center"]}
    return CertifyRequest(**options)
