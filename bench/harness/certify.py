"""Certificates: what no attack of a ball can do to a detector, one row per image.

The rows and folders are those of an attack. `worst` is not a score that somebody found but a bound that holds for every
image of the ball: of a normal image the upper one, of an anomalous image the lower one. A detector that bounds its own
score is asked for its bounds; any other is smoothed, and its smoothed score bounded in l2.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from scipy import special

from ..cells.rows import Row
from ..cells.schema import Record
from ..cells.spec import DETERMINISTIC, SMOOTHING
from ..checks.of_certificate import checks_of_certificate
from ..checks.of_detector import OF_A_CERTIFICATE
from ..core import parameters
from ..core.attack import Method
from ..core.check import Outcome
from ..core.data import Data
from ..core.detector import Detector, Origin, parts_of
from ..core.progress import Monitor
from ..core.threat import ThreatModel, eps_text, parse_eps
from ..engine.bounder import Deterministic
from ..engine.certificates import Settings, code_of, name_of, worker_of
from ..engine.certifier import OUTER, Certificate, Certifier, Noise
from ..engine.worker import Prepared, Work
from ..errors import UserError
from ..plugins import registry
from ..plugins.fitting import DetectorSpec
from ..plugins.lookup import default_size
from ..plugins.origin import around as around_origin
from ..plugins.origin import origin_of
from ..stats import smoothing
from ..system import locks
from ..system.files import at_home
from .asked import Asked
from .cell import Cell
from .evaluated import Evaluated
from .subject import DetectorUnderTest

SIGMA = 0.25
TAIL_DRAWS = 3  # of the n that the threshold is set on, at least so many beyond the percentile


def certify(
    detector: str | Detector | DetectorSpec,
    data: Data,
    radius: str | float = 0.2,
    *,
    norm: str = "l2",
    sigma: float | None = None,
    samples: int = 1000,
    alpha: float = 0.001,
    goal: str = "rank",
    threshold_folds: int | None = None,
    targets: str = "both",
    params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    force: bool = False,
    monitor: Monitor | None = None,
) -> Evaluated:
    """Bound the score of a detector over the ball of a radius in a norm: one row per test image.

    A detector that has `bounds` in this norm (`Detector.bounded`) is bounded as it is, without any chance of error, if
    no sigma is given; clean is its own score then, and low_0 and high_0 are that as well.

    Any other, in l2 alone, is put behind `smoothed`: its score becomes the median over Gaussian noise of `sigma` (in
    [0, 1] pixels, radius too; 0.25 unless the detector is a smoothed one already). Columns: id, label, clean (its
    smoothed score, from `samples` draws), worst (its bound on the adversary's side: with a chance of at least 1 -
    alpha, this column holds for every image within the radius, as does each of the others by itself), low and high
    (both bounds), low_0 and high_0 (the same at radius 0), certified_radius (how far the image may be moved until its
    decision at the threshold could be wrong; nan without a threshold). Bounds may be infinite; distance is the radius
    that the adversary has, and rounded means nothing here (nan). `.metrics` and `.attrs` as of `evaluate`.

    goal: `rank` bounds every score, for AUROC; `threshold` asks only whether the decision at the threshold stands, and
    stops drawing at an image as soon as that is known (a sequential test that may be looked at after every batch).
    Draws are kept in the cache: another radius, or more samples, goes on with them. (To add samples until a bound
    pleases is no certificate: choose their number before.) The rest as in `evaluate`.
    """
    return planned(
        detector,
        data,
        radius,
        sigma=sigma,
        samples=samples,
        alpha=alpha,
        goal=goal,
        threshold_folds=threshold_folds,
        targets=targets,
        params=params,
        results=results,
        seed=seed,
        limit=limit,
        device=device,
        norm=norm,
    ).run(batch_size, force, monitor)


def planned(
    detector: str | Detector | DetectorSpec,
    data: Data,
    radius: str | float = 0.2,
    *,
    norm: str = "l2",
    sigma: float | None = None,
    samples: int = 1000,
    alpha: float = 0.001,
    goal: str = "rank",
    threshold_folds: int | None = None,
    targets: str = "both",
    params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    device: str = "auto",
) -> Asked:
    """What `certify` would do, with the same arguments; UserError where it cannot be done."""
    full, data = data, data.limited(limit)
    bounds = sigma is None and norm in norms_bounded(detector)
    threat = ThreatModel(norm, parse_radius(radius, norm), targets)
    if not bounds and norm != "l2":
        raise UserError(no_certificate(detector, norm))
    settings: Settings = Deterministic() if bounds else Certificate(samples, alpha)
    tested = _as_it_is(detector, params, seed, device) if bounds else _smoothed(detector, sigma, params, seed, device)
    subject = DetectorUnderTest(tested, seed)
    spec = subject.spec(name_of(settings), settings, threat, full, limit, goal, threshold_folds=threshold_folds)
    threat.refuse_longer(data.image_size, "--radius")
    if isinstance(settings, Certificate):
        refuse_impossible(threat, settings, subject.built, data, goal)
    elif goal != "rank":
        raise UserError("--goal threshold is for smoothing: bounds of the score decide at the threshold as they are")
    folder = None if results is None else spec.folder(at_home(results), default_size(data.name))
    cell = CertificateCell(spec, folder, subject.code, code_of(spec.attack), subject.as_object)

    def prepare() -> Prepared:
        return subject.prepared(data, OF_A_CERTIFICATE, threshold_folds, afresh=False)

    return Asked(cell, data, prepare, settings)


def _as_it_is(
    detector: str | Detector | DetectorSpec, params: Mapping[str, Any] | None, seed: int, device: str
) -> Detector | DetectorSpec:
    if isinstance(detector, str):
        return DetectorSpec(detector, params or {}, seed, device)
    if params:
        raise UserError("params are of a detector that is given by its name; this one is built already")
    return detector


def _smoothed(
    detector: str | Detector | DetectorSpec,
    sigma: float | None,
    params: Mapping[str, Any] | None,
    seed: int,
    device: str,
) -> Detector | DetectorSpec:
    if isinstance(detector, str):
        return candidate(detector, SIGMA if sigma is None else sigma, params, seed, device)
    return detector if isinstance(detector, DetectorSpec) else around(detector, sigma, params)


def norms_bounded(detector: str | Detector | DetectorSpec) -> tuple[str, ...]:
    """Those in which it bounds its own score."""
    spec = DetectorSpec(detector) if isinstance(detector, str) else detector
    tested = spec.plugin.target if isinstance(spec, DetectorSpec) else spec
    return () if tested.randomized else tuple(tested.bounded)


def no_certificate(detector: str | Detector | DetectorSpec, norm: str) -> str:
    """Why there is none of a detector in a norm, and which there are."""
    name = detector if isinstance(detector, str) else type(detector).__name__
    name = detector.label if isinstance(detector, DetectorSpec) else name
    own = ", ".join(norms_bounded(detector))
    has = f"it bounds its score in {own}" if own else "it bounds its score in no norm"
    return f"{name} has no certificate in {norm}: {has}, and smoothing gives one in l2 (--norm l2 --sigma 0.25)"


def candidate(
    name: str, sigma: float, params: Mapping[str, Any] | None = None, seed: int = 0, device: str = "auto", **more: Any
) -> DetectorSpec:
    """The smoothed detector by name; parts that must know the noise in front of them are told its sigma."""
    name = name if name.startswith(f"{OUTER}+") else f"{OUTER}+{name}"
    given = dict(params or {})
    bare = DetectorSpec(name, given, seed, device, **more)
    for part in bare.parts:
        known = part.plugin.target.noise_parameter
        for key in (known, f"{part.plugin.name}.{known}") if known else ():
            if key in given:
                raise UserError(f"{key} is the noise of the certificate: give it as --sigma {given[key]}")
        if known:
            given[f"{part.plugin.name}.{known}"] = sigma
    return DetectorSpec(name, given, seed, device, **more)


def around(detector: Detector, sigma: float | None = None, params: Mapping[str, Any] | None = None) -> Detector:
    """The smoothed detector, of one that the caller has fitted; params are of the smoothing."""
    plugin = registry.load("detectors", OUTER)
    outer = plugin.target
    given: dict[str, Any] = dict(params or {})
    if sigma is not None:
        given[outer.noise_parameter] = sigma
    if isinstance(detector, outer):  # as it is, but for what is asked
        if all(getattr(detector, name, None) == value for name, value in given.items()):
            return detector
        given, detector = {**detector.parameters_record, **given}, detector.inner
    smoothed: Any = parameters.build(outer, {outer.noise_parameter: SIGMA, **given}, OUTER, detector)
    record = smoothed.parameters_record
    changed = parameters.identity(parameters.changed(outer, record))
    own = Origin(OUTER, plugin.sha256, parameters.identity(record), changed)
    smoothed.origin = around_origin(own, origin_of(detector))
    for part in parts_of(detector):
        known = part.noise_parameter
        if known and getattr(part, known) != smoothed.sigma:
            raise UserError(
                f"{type(part).__name__} was made for noise of {known}={getattr(part, known):g}, and the certificate "
                f"adds {smoothed.sigma:g}: they must be the same"
            )
    assert isinstance(smoothed, Detector)
    return smoothed


def parse_radius(text: str | float, norm: str = "l2") -> Fraction:
    """A length in a norm, or a UserError that says what was expected."""
    return parse_eps(text, norm, "--radius")


def refuse_impossible(threat: ThreatModel, settings: Certificate, smoothed: Any, data: Data, goal: str) -> None:
    """A radius at which these draws could bound no score, or decide nothing, says how many it takes."""
    alpha, noise = settings.alpha / len(data.test), Noise.of(smoothed)
    p = noise.percentile
    if p is None:
        return
    if smoothed.n * min(p, 1 - p) < TAIL_DRAWS and p != 0.5:
        enough = math.ceil(TAIL_DRAWS / min(p, 1 - p)) // 2 * 2 + 1
        raise UserError(
            f"the threshold is set on scores of n={smoothed.n} draws, too few for the {p:g}-quantile: give --param "
            f"{OUTER}.n={enough}"
        )
    shift = threat.radius / noise.sigma
    if goal == "threshold":
        edges = [float(special.ndtr(special.ndtri(noise.may_be_wrong(label)) - shift)) for label in (0, 1)]
        needed = max(smoothing.fewest_verdict_draws(alpha, edge) if edge else math.inf for edge in edges)
        what = "verdict"
    else:
        needed, what = smoothing.fewest_draws(alpha, shift, p), "finite bound"
    if needed <= settings.samples:
        return
    many = f"{needed:,}" if needed < 1e9 else "more than a billion"
    raise UserError(
        f"radius {eps_text(threat.eps)} with sigma {noise.sigma:g} needs at least --samples {many} for any {what} "
        f"(alpha {settings.alpha:g} over {len(data.test)} images); the bounds of {settings.samples} draws reach radius "
        f"{max(noise.largest_radius(alpha, settings.samples), 0):.3f}"
    )


def explain_linf(eps: str, image_size: int, sigmas: Sequence[float], settings: Certificate, images: int) -> str:
    """Why there is no certificate in linf, and what one in l2 would have to reach."""
    exact = float(parse_eps(eps, "linf")) * math.sqrt(3 * image_size**2)
    radius = math.ceil(exact * 1000) / 1000  # the ball must hold the other one
    reach = max(Noise(s, 0.5, (0, 0)).largest_radius(settings.alpha / images, settings.samples) for s in sigmas)
    verdict = (
        f"ask for --norm l2 --radius {radius:.3f}"
        if reach >= radius
        else f"{settings.samples} draws with sigma {max(sigmas):g} reach {reach:.3g}, so no certificate here covers it"
    )
    return (
        f"certificates are in l2: the smallest l2 ball that holds linf {eps} at {image_size} pixels has radius "
        f"{radius:.3f} (eps times the root of 3 x {image_size} x {image_size}); {verdict}"
    )


@dataclass(frozen=True)
class CertificateCell(Cell):
    """A cell whose rows are bounds."""

    kind = "certificate"

    def _worker(self, data: Data, prepared: Prepared, attack: Method, batch_size: int, monitor: Monitor) -> Work:
        assert isinstance(attack, Settings)
        return worker_of(self.spec, data, prepared, attack, batch_size, monitor.tell)

    def _at_once(self, batch_size: int) -> int:
        return 1 if self.spec.attack == SMOOTHING else batch_size  # a batch is one image under many draws

    def _work(
        self, data: Data, worker: Work, rows: list[Row], record: Record, batch_size: int, monitor: Monitor
    ) -> None:
        """The cells of all radii share their draws: what another process draws is waited for, and then it is there."""
        doing = f"draws noisy scores of {self.spec.detector} on {data.name}/{data.category}"
        shared = worker.folder if isinstance(worker, Certifier) else None
        with locks.alone(shared, doing, monitor.tell) if shared else contextlib.nullcontext():
            super()._work(data, worker, rows, record, batch_size, monitor)

    def _scores_are_those(self, detector: Detector, data: Data, rows: list[Row]) -> bool:
        if self.spec.attack == DETERMINISTIC:
            return super()._scores_are_those(detector, data, rows)
        return True  # they are medians of many draws: the state and the code must do

    def _checks(self, data: Data, worker: Work, attack: Method, rows: list[Row], record: Record) -> Outcome:
        assert isinstance(attack, Settings)
        return checks_of_certificate(self.spec, data, worker.prepared, attack, rows, record.batch_size)
