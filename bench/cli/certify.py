"""`bench certify`: bound what any attack of a ball can do, by bounds of the detector itself or by smoothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import click

from ..core.exact import read_number
from ..errors import UserError
from .common import known, names, option, whole
from .grid import ALL, GridRequest, beds_of, elsewhere, images_and_place
from .jobs import Plan

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.progress import Progress, Tell
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec

RADII = {"l2": "0.2", "linf": "2/255"}
SIGMA = 0.25


@dataclass(frozen=True, kw_only=True)
class CertifyRequest(GridRequest):
    """Certificates of detectors."""

    sigmas: tuple[float, ...] | None
    """In pixel units in [0, 1]; None where none was typed."""
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

        if not self.are_there:
            _refuse_norm(self)
        radii = self.radii or (RADII.get(self.norm, RADII["l2"]),)
        found = {ThreatModel(self.norm, parse_radius(text, self.norm), self.targets) for text in radii}
        return sorted(found, key=lambda threat: threat.eps)

    @property
    def are_there(self) -> bool:
        """Whether these detectors have certificates in the norm."""
        return self.norm == "l2" or not any(name.startswith(self.outer) for name in self._names)

    def typed(self) -> list[str]:
        return self._names

    @cached_property
    def _names(self) -> list[str]:
        """The detectors that are certified: by bounds of their own where they have them, else behind noise."""
        return [self._certified(name) for name in self.detectors]

    def _certified(self, name: str) -> str:
        if name == ALL and self.norm != "l2":
            raise UserError(f"--detector all --norm {self.norm}: name those that bound their score in {self.norm}")
        if name == ALL or name.startswith(self.outer):
            return name
        return name if self.sigmas is None and self.norm in _bounded(self, name) else self.outer + name

    def threats(self, planned: Sequence[ThreatModel]) -> list[ThreatModel]:
        return list(planned)

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]:
        """As it is, or behind noise of every sigma."""
        from ..harness.certify import candidate
        from ..plugins.fitting import DetectorSpec

        if not name.startswith(self.outer):
            return [DetectorSpec(name, given, self.seed, self.device, progress, tell)]
        return [
            candidate(name, sigma, given, self.seed, self.device, progress=progress, tell=tell)
            for sigma in self.sigmas or (SIGMA,)
        ]

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[ThreatModel]) -> Iterator[Plan]:
        from ..core.threat import eps_text
        from ..engine.certifier import OUTER
        from ..harness.certify import planned as planned_cell

        smoothed = spec.plugin.name == OUTER
        sigma = spec.values[OUTER]["sigma"] if smoothed else 0.0
        for threat in planned:
            yield (
                f"{spec.label} on {bed.category}: certificate, " + f"sigma {sigma:g}, " * smoothed + f"{threat}",
                partial(
                    planned_cell,
                    spec,
                    bed,
                    eps_text(threat.eps),
                    norm=threat.norm,
                    sigma=sigma or None,
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


def _bounded(request: CertifyRequest, name: str) -> tuple[str, ...]:
    """Norms in which a detector bounds its own score; none of one that cannot be imported, which is said later."""
    from ..harness.certify import norms_bounded
    from ..plugins.fitting import is_foreign

    try:
        found: tuple[str, ...] = (
            elsewhere(request, name, norms_bounded, name) if is_foreign(name) else norms_bounded(name)
        )
    except UserError:
        return ()
    return found


def _refuse_norm(request: CertifyRequest) -> NoReturn:
    """Says what a certificate in linf would take in l2, and who has one in it."""
    from ..engine.certifier import Certificate
    from ..harness.certify import explain_linf, no_certificate

    if request.norm != "linf" or request.radii is None:
        first = next(name for name in request.typed() if name.startswith(request.outer))
        raise UserError(no_certificate(first.removeprefix(request.outer), request.norm))
    beds = [bed.limited(request.limit) for bed in beds_of(request)]
    settings, images = Certificate(request.samples, request.alpha), max(len(bed.test) for bed in beds)
    sigmas = request.sigmas or (SIGMA,)
    raise UserError(explain_linf(request.radii[0], beds[0].image_size, sigmas, settings, images))


def _sigmas(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    return None if text is None else tuple(_above_zero(part) for part in names(context, parameter, text) or ())


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
  bench certify --detector nearest-patch --norm linf --radius 1/255,2/255     # no sampling
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
    callback=_sigmas,
    metavar="S[,S2..]",
    help="smooth with noise of this standard deviation, in pixel units in [0, 1], also a detector that has bounds of "
    f"its own  [default: {SIGMA}]",
)
@option(
    "--radius",
    "radii",
    callback=names,
    metavar="R[,R2..]",
    help="of the ball, in the norm and in pixel units in [0, 1]; all of them rest on the same draws  [default: "
    f"{RADII['l2']}, in linf {RADII['linf']}]",
)
@option(
    "--norm",
    default="l2",
    show_default=True,
    metavar="NORM",
    help="l2; linf for detectors that bound their own score in it (`bench describe D`)",
)
@option(
    "--samples",
    default="1000",
    show_default=True,
    callback=whole(1),
    metavar="N",
    help="noise draws per image, where it is smoothed",
)
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
    """Bound what any attack of a ball can do.

    Certified AUROC and accuracy, which no attack can break. A detector that bounds its own score in the norm is asked
    for its bounds, in one pass and without sampling. Any other is put behind Gaussian noise (its score becomes the
    median over draws), and that score is bounded in l2.
    """
    if options["center"] is not None:
        options["params"] = {**options["params"], "smoothed.center": options["center"]}
    return CertifyRequest(**options)
