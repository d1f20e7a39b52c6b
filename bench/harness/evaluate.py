"""Attack a detector from Python; the command line does it with this function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..cells.spec import images_folder
from ..core.attack import Attack
from ..core.data import Data
from ..core.detector import Detector
from ..core.norms import NORMS
from ..core.progress import Monitor
from ..core.threat import ThreatModel
from ..engine.saved_images import refuse_less_than_one
from ..engine.warm_starts import WarmStarts
from ..engine.worker import Prepared
from ..errors import UserError
from ..plugins import registry
from ..plugins.fitting import DetectorSpec
from ..plugins.lookup import default_size, make_attack
from ..system.files import at_home
from .asked import Asked
from .cell import Cell
from .evaluated import Evaluated
from .localise import MapCell, refuse_attack
from .subject import DetectorUnderTest

Eps = str | float | Fraction


def evaluate(
    detector: str | Detector | DetectorSpec,
    data: Data,
    attack: str = "pgd-linf",
    threat: ThreatModel | Eps | None = None,
    *,
    eps: Eps | None = None,
    params: Mapping[str, Any] | None = None,
    attack_params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    draws: int | None = None,
    goal: str = "rank",
    threshold_folds: int | None = None,
    smaller: Sequence[ThreatModel | Eps] = (),
    keep_images: bool = False,
    save_images: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    force: bool = False,
    monitor: Monitor | None = None,
    in_process: bool = False,
) -> Evaluated:
    """Attack a detector: one row per test image, with the columns id, label, clean, worst, distance, rounded, more.

    label is 1 for anomalous; clean and worst are raw scores (for randomized detectors the mean over `draws` noise
    draws, 32 by default); distance is how far the image was moved, in the norm of the threat model. `worst` is the
    score after the attack, never better for the detector than `clean`; `rounded` is it after rounding to 8 bits; the
    columns that follow depend on the attack and the detector (see `Row.more`). `.metrics` is what they come to,
    AUROCs and all else that a report shows, by name; `.attrs["run"]` is the record of the run.

    threat: by default linf 2/255, both classes; a `ThreatModel`, text ("l2 0.5"), or what `eps` takes. eps: instead of
    it, in the norm of the attack: "2/255" or a number, both classes.
    params: of the detector, which is named then; attack_params: of the attack. Text means what it means on the command
    line; of a composition `part.k` is of one part, `k` of every part that has it.
    goal: `rank` moves every score as far as it goes; `threshold` stops at an image as soon as the decision at the
    threshold is wrong, which is cheaper and gives robust accuracy, not AUROC. `map` attacks the anomaly map instead:
    clean and worst are then, of an anomalous image, the pixel AUROC of its own map, and of a normal one the mean
    of its map, in standard deviations of held-out normal pixels; `.metrics` has pixel AUROC, AUPRO and more.
    threshold_folds: so many fits, each with other normal images held out, whose scores of those the threshold rests on;
    without it, the held-out images of the detector itself.
    smaller: smaller balls of the same sweep, run before with `keep_images`: the attack also starts from the largest
    of them, and never ends up with less.
    save_images: of each class that is attacked, keep as many of the images whose score moved most, and of the hardest
    ones, below the cell's folder in `results`, whose README says how. It changes no number.

    results: a folder in which the cell is kept; without it nothing is
    written. A finished cell is read, not run again; an unfinished one goes on where it stopped; `force` starts over.
    in_process: no other process is started; the check `fresh process` loads a detector by name again in this one.
    batch_size: changes speed and memory, not results; by default 32 up to 128 pixels, and as many pixels above.
    A detector that is passed as an object is put into eval mode, and its parameters no longer require gradients.
    """
    return planned(
        detector,
        data,
        attack,
        threat,
        eps=eps,
        params=params,
        attack_params=attack_params,
        results=results,
        seed=seed,
        limit=limit,
        draws=draws,
        goal=goal,
        threshold_folds=threshold_folds,
        smaller=smaller,
        keep_images=keep_images,
        save_images=save_images,
        device=device,
        in_process=in_process,
    ).run(batch_size, force, monitor)


def planned(
    detector: str | Detector | DetectorSpec,
    data: Data,
    attack: str,
    threat: ThreatModel | Eps | None = None,
    *,
    eps: Eps | None = None,
    params: Mapping[str, Any] | None = None,
    attack_params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    draws: int | None = None,
    goal: str = "rank",
    threshold_folds: int | None = None,
    smaller: Sequence[ThreatModel | Eps] = (),
    keep_images: bool = False,
    save_images: int | None = None,
    device: str = "auto",
    in_process: bool = False,
) -> Asked:
    """What `evaluate` would do, with the same arguments; UserError where it cannot be done."""
    refuse_less_than_one(save_images)
    if save_images is not None and results is None:
        raise UserError("save_images keeps images beside the rows of a cell: give a folder as results")
    method, norm, maker, attack_code = make_attack(attack, attack_params)
    if eps is not None and threat is not None:
        raise UserError("give the threat model as threat or as eps, not both")
    own_norm = norm or ("linf" if "linf" in maker.norms else next(iter(maker.norms)))
    threat = _threat_model(threat, own_norm) if eps is None else _threat_model(eps, own_norm, "eps")
    if norm is not None and norm != threat.norm:
        raise UserError(f"attack {attack} is in {norm}, but the threat model is in {threat.norm}")
    threat.refuse_longer(data.image_size)
    if goal == "map":
        refuse_attack(maker, attack)
    if draws is not None and draws < 1:
        raise UserError(f"--draws must be at least 1, got {draws}")
    if params and not isinstance(detector, str):
        raise UserError("params are of a detector that is given by its name; this one is built already")
    full, data = data, data.limited(limit)
    subject = DetectorUnderTest(
        DetectorSpec(detector, params or {}, seed, device) if isinstance(detector, str) else detector, seed, in_process
    )
    spec = subject.spec(method, maker, threat, full, limit, goal, draws, threshold_folds)

    def prepare() -> Prepared:
        if maker.needs_gradient and subject.has_no_gradient(data):
            _refuse_gradient(subject.built, maker, subject.label, method)
        prepared = subject.prepared(data, threshold_folds=threshold_folds)
        if maker.needs_gradient and not prepared.differentiable:
            _refuse_gradient(prepared.detector, maker, subject.label, method)
        return prepared

    folder = None if results is None else spec.folder(at_home(results), default_size(data.name))

    def images_of(ball: ThreatModel, kind: str = "attacked", *more: str) -> Path:
        """Where the attacked images of this cell, in this ball, are kept for the next larger one."""
        sources = [subject.code, attack_code, data.train.fingerprint, data.test.fingerprint]
        sources += [subject.as_object.state] if subject.as_object else []
        return images_folder(spec.within(ball), sources, kind, *more)

    balls = [ball for ball in (_threat_model(given, threat.norm) for given in smaller) if ball.norm == threat.norm]
    before = max(balls, key=lambda ball: ball.eps, default=None)
    own = images_of(threat) if keep_images else None
    if folder is not None and save_images is not None and own is None:  # for this cell alone
        own = images_of(threat, "to be saved", str(folder.resolve()))
    warm_starts = WarmStarts(own, None if before is None else images_of(before), until_finished=not keep_images)
    kind = MapCell if goal == "map" else Cell
    cell = kind(spec, folder, subject.code, attack_code, subject.as_object, warm_starts, save_images)
    return Asked(cell, data, prepare, maker)


def _threat_model(given: ThreatModel | Eps | None, norm: str, option: str = "threat") -> ThreatModel:
    """`ThreatModel("linf", "2/255")`; `"linf 2/255"`; `"2/255"` or a number in the norm of the attack."""
    if given is None or isinstance(given, ThreatModel):
        return given or ThreatModel(norm, "2/255")
    if isinstance(given, bool) or not isinstance(given, (str, int, float, Fraction)):
        raise UserError(f'{option} is {given!r}; expected "2/255", "linf 2/255", a number or a bench.ThreatModel')
    first, _, rest = str(given).strip().partition(" ")
    return ThreatModel(first, rest) if first in NORMS else ThreatModel(norm, given)


def _refuse_gradient(detector: Detector, maker: Attack, label: str, attack: str) -> None:
    """Unless the attack goes around the blocks that have no gradient; says which attacks fit."""
    if maker.goes_around_blocks and detector.attack_hints().bpda:
        return
    attacks = ((name, registry.load("attacks", name).target) for name in registry.names("attacks"))
    blind = [f"{name}-{norm}" for name, a in attacks if not a.needs_gradient for norm in a.norms]
    fits = ", ".join(blind) or "none is installed; a plug-in with needs_gradient = False would"
    raise UserError(f"{label} is not differentiable and {attack} follows the gradient; attacks that fit: {fits}")
