"""`bench certify`: bound what any attack of an l2 ball can do, by randomized smoothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..core.exact import read_number
from ..errors import UserError
from .common import known, names, option, whole
from .grid import (
    ALL,
    Failure,
    GridRequest,
    beds_of,
    detectors_of,
    images_and_place,
    refuse_what_cannot_be_used,
    said_at_the_end,
)

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec
    from .progress import Bars

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

    def carry_out(self) -> int:
        """Everything that can be wrong is looked at before any work; then the cells, one by one."""
        from .progress import Bars

        if self.norm != "l2":
            _refuse_norm(self)
        radii = _radii(self)
        refuse_what_cannot_be_used(self)
        with Bars() as bars:
            specs = _smoothed(self, bars)
            beds = beds_of(self, radii, "--radius")
            cells = [cell for bed in beds for spec in specs for cell in _cells(self, bed, spec, radii, bars)]
        return said_at_the_end(cells, self.results)


def _radii(request: CertifyRequest) -> list[ThreatModel]:
    """The balls, each once, the smaller ones first."""
    from ..core.threat import ThreatModel
    from ..harness.certify import parse_radius

    found = {ThreatModel("l2", parse_radius(text), request.targets) for text in request.radii or (RADIUS,)}
    return sorted(found, key=lambda threat: threat.eps)


def _smoothed(request: CertifyRequest, bars: Bars) -> list[DetectorSpec]:
    """Every detector behind noise of every sigma."""
    from ..engine.certifier import OUTER
    from ..harness.certify import candidate

    outer = f"{OUTER}+"
    if request.center is not None:
        request = replace(request, params={**request.params, f"{OUTER}.center": request.center})
    typed = [name if name.startswith(outer) or name == ALL else outer + name for name in request.detectors]
    return [
        candidate(bare.name, sigma, bare.given, bare.seed, bare.device, progress=bare.progress, tell=bare.tell)
        for bare in detectors_of(request, typed, bars, outer)
        for sigma in request.sigmas
    ]


def _cells(
    request: CertifyRequest, bed: Data, spec: DetectorSpec, radii: Sequence[ThreatModel], bars: Bars
) -> Iterator[Path | Failure]:
    """Certify one detector and category in every radius; what fails is said, and the others go on."""
    from ..core.threat import eps_text
    from ..engine.certifier import OUTER
    from ..harness.certify import certify

    sigma = spec.values[OUTER]["sigma"]
    for threat in radii:
        label = f"{spec.label} on {bed.category}: certificate, sigma {sigma:g}, {threat}"
        try:
            with bars.cell(label) as monitor:
                rows = certify(
                    spec,
                    bed,
                    eps_text(threat.eps),
                    samples=request.samples,
                    alpha=request.alpha,
                    goal=request.goal,
                    targets=request.targets,
                    results=request.results,
                    seed=request.seed,
                    limit=request.limit,
                    batch_size=request.batch_size,
                    force=request.force,
                    monitor=monitor,
                )
            yield Path(rows.attrs["folder"])
        except UserError as error:
            yield Failure(label, str(error))


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
    return CertifyRequest(**options)
