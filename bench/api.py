"""The harness from Python; the command line is written with these functions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import parameters, registry
from .checks import OF_A_RUN, checks_of_run
from .data import Data
from .detector import Detector, Origin, Wrapper
from .errors import UserError, unknown
from .fitting import BATCH_SIZE, Candidate, around, held_out_threshold
from .provenance import choose_device
from .run import COLUMNS, Attack, Cell, Kept, Monitor, Ready, Row, RunSpec, images_folder
from .saved_images import refuse_less_than_one
from .score import GOALS
from .threat import NORMS, Norm, ThreatModel

if TYPE_CHECKING:
    import pandas as pd

FULL_BATCH_UP_TO = 128
"""Image size in pixels above which the default batch shrinks, so that the memory of an attack does not grow."""


def categories(name: str, root: str | Path | None = None) -> tuple[str, ...]:
    """The categories of a data set."""
    module = registry.load("datasets", name).target
    return tuple(module.categories(None if root is None else Path(root)))


def load_data(
    name: str = "textures",
    *,
    category: str | None = None,
    root: str | Path | None = None,
    image_size: int | None = None,
) -> Data:
    """One category of a data set: `data.train[i]` is an image, `data.test[i]` is `(image, label, id)`.

    name: as `bench list datasets` shows, or a path to a plug-in file. category: may be left out where there is only
    one. root: the folder of the images. image_size: side in pixels; the data set's own default if left out.
    Images are float (3, S, S) in [0, 1], decoded when accessed. Raises UserError if the layout is not as expected.
    """
    plugin = registry.load("datasets", name)
    place = None if root is None else Path(root)
    if category is None:
        known = plugin.target.categories(place)
        if len(known) != 1:
            raise UserError(f"{name} has several categories; choose one of {', '.join(known)}")
        category = known[0]
    return cast(Data, plugin.target.load(category, place, image_size or plugin.target.IMAGE_SIZE))


def fit_or_load(detector: str, data: Data, *, seed: int = 0, device: str = "auto", **params: Any) -> Detector:
    """A fitted detector: from the user's cache if this very fit was made before, else fitted now and kept.

    detector: a name, `path/to/file.py:ClassName`, or `outer+inner`. params: the constructor's; text is converted as
    on the command line; of a composition, `**{"diffpure.t": 50}` is of one part, `t=50` of every part that has it.
    A tenth of the normal images (at least 20 where that is at most a quarter) is held out of the fit.
    """
    return Candidate(detector, params, seed=seed, device=device).fitted(data)


def make_attack(name: str, given: Mapping[str, Any] | None = None) -> tuple[str, Norm | None, Attack, str]:
    """`pgd-linf` or `pgd` -> method, norm (None if not named), the attack, hash of its code."""
    method, _, norm = name.rpartition("-")
    if norm not in NORMS:
        method, norm = name, ""
    if ".py" not in method and method not in registry.names("attacks"):
        known = [f"{m}-{n}" for m in registry.names("attacks") for n in registry.load("attacks", m).target.norms]
        raise unknown("attack", name, known)
    plugin = registry.load("attacks", method)
    if norm and norm not in plugin.target.norms:
        raise UserError(f"attack {plugin.name} has no norm {norm}; it has {', '.join(plugin.target.norms)}")
    attack = parameters.build(plugin.target, given or {}, plugin.name)
    return plugin.name, cast("Norm | None", norm or None), attack, plugin.sha256


def evaluate(
    detector: str | Detector | Candidate,
    data: Data,
    attack: str = "pgd-linf",
    threat: ThreatModel | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    attack_params: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    draws: int | None = None,
    goal: str = "rank",
    smaller: Sequence[ThreatModel] = (),
    keep_images: bool = False,
    save_images: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    force: bool = False,
    monitor: Monitor | None = None,
) -> pd.DataFrame:
    """Attack a detector: one row per test image, with the columns id, label, clean, worst, distance, rounded, more.

    label is 1 for anomalous; clean and worst are raw scores (for randomized detectors the mean over `draws` noise
    draws, 8 by default); distance is how far the image was moved, in the norm of the threat model. `worst` is the
    score after the attack, never better for the detector than `clean`; `rounded` is it after rounding to 8 bits; the
    columns that follow depend on the attack and the detector (see `Row.more`). The run record is in `.attrs["run"]`.

    goal: `rank` moves every score as far as it goes; `threshold` stops at an image as soon as the decision at the
    threshold is wrong, which is cheaper and gives robust accuracy, not AUROC.
    smaller: smaller balls of the same sweep, run before with `keep_images`: the attack also starts from the largest
    of them, and never ends up with less.
    save_images: of each class that is attacked, keep as many of the images whose score moved most, and of the hardest
    ones, below the cell's folder in `results`, whose README says how. It changes no number.

    threat: by default linf 2/255, both classes. results: a folder in which the cell is kept; without it nothing is
    written. A finished cell is read, not run again; an unfinished one goes on where it stopped; `force` starts over.
    batch_size: changes speed and memory, not results; by default 32 up to 128 pixels, and as many pixels above.
    A detector that is passed as an object is put into eval mode, and its parameters no longer require gradients.
    """
    refuse_less_than_one(save_images)
    if save_images is not None and results is None:
        raise UserError("save_images keeps images beside the rows of a cell: give a folder as results")
    method, norm, maker, attack_code = make_attack(attack, attack_params)
    if threat is None:
        threat = ThreatModel(norm or "linf", "2/255")
    if norm is not None and norm != threat.norm:
        raise UserError(f"attack {attack} is in {norm}, but the threat model is in {threat.norm}")
    threat.refuse_longer(data.image_size)
    batch_size = batch_size_for(data.image_size, batch_size)
    if draws is not None and draws < 1:
        raise UserError(f"--draws must be at least 1, got {draws}")
    full, data = data, data.limited(limit)
    subject = Subject(Candidate(detector, params or {}, seed, device) if isinstance(detector, str) else detector, seed)
    spec = subject.spec(method, maker, threat, full, limit, goal, draws)

    def prepare() -> Ready:
        if getattr(maker, "needs_gradient", True) and not subject.differentiable:
            _refuse_gradient(subject.built, maker, subject.label, method)
        return subject.ready(data)

    folder = None if results is None else spec.folder(Path(results))

    def images_of(ball: ThreatModel, kind: str = "attacked", *more: str) -> Path:
        """Where the attacked images of this cell, in this ball, are kept for the next larger one."""
        sources = [subject.code, attack_code, data.train.fingerprint, data.test.fingerprint]
        return images_folder(replace(spec, threat=ball).record(), sources, kind, *more)

    before = max((ball for ball in smaller if ball.norm == threat.norm), key=lambda ball: ball.eps, default=None)
    own = images_of(threat) if keep_images else None
    if folder is not None and save_images is not None and own is None:  # for this cell alone
        own = images_of(threat, "to be saved", str(folder.resolve()))
    kept = Kept(own, None if before is None else images_of(before), until_finished=not keep_images)
    cell = Cell(spec, folder, subject.code, attack_code, kept, save_images)
    rows, record = cell.run(data, prepare, maker, batch_size, force, monitor)
    return frame_of(rows, record)


def frame_of(rows: Sequence[Row], record: dict[str, Any]) -> pd.DataFrame:
    """One row per test image; the run record is in `.attrs["run"]`."""
    import pandas as pd

    frame = pd.DataFrame([row[:-1] for row in rows], columns=list(COLUMNS))
    frame = frame.join(pd.DataFrame([row.more for row in rows]))
    frame.attrs["run"] = record
    return frame


def _refuse_gradient(detector: Detector, maker: Attack, label: str, attack: str) -> None:
    """Unless the attack goes around the blocks that have no gradient; says which attacks fit."""
    if getattr(maker, "goes_around_blocks", False) and detector.attack_hints().bpda:
        return
    attacks = ((name, registry.load("attacks", name).target) for name in registry.names("attacks"))
    blind = [f"{name}-{norm}" for name, a in attacks if not getattr(a, "needs_gradient", True) for norm in a.norms]
    fits = ", ".join(blind) or "none is installed; a plug-in with needs_gradient = False would"
    raise UserError(f"{label} is not differentiable and {attack} follows the gradient; attacks that fit: {fits}")


@dataclass(frozen=True)
class Subject:
    """What is tested: a detector by name, fitted when it is needed, or one that the caller has fitted."""

    detector: Detector | Candidate
    seed: int

    @cached_property
    def origin(self) -> Origin:
        """Of a detector that the caller built."""
        assert isinstance(self.detector, Detector)
        return origin_of(self.detector)

    @property
    def label(self) -> str:
        return self.detector.label if isinstance(self.detector, Candidate) else self.origin.name

    @property
    def code(self) -> str:
        """Hash of its code."""
        return self.detector.code if isinstance(self.detector, Candidate) else self.origin.code

    @property
    def changed(self) -> dict[str, Any]:
        """Its parameters that are not the defaults."""
        return self.detector.changed if isinstance(self.detector, Candidate) else self.origin.changed

    @property
    def built(self) -> Detector:
        """Perhaps not fitted."""
        return self.detector.build() if isinstance(self.detector, Candidate) else self.detector

    @property
    def differentiable(self) -> bool:
        """What the classes declare, and what the parameters make of it: known before a fit that may be long."""
        return self.detector.differentiable and self.built.differentiable

    def spec(
        self,
        method: str,
        attack: Attack,
        threat: ThreatModel,
        data: Data,
        limit: int | None,
        goal: str,
        draws: int | None = None,
    ) -> RunSpec:
        """Of a cell on at most `limit` of the test images of `data`."""
        if goal not in GOALS:
            raise UserError(f"unknown goal {goal!r}; expected one of {', '.join(GOALS)}")
        given = {name: getattr(attack, name) for name in parameters.accepted(type(attack)) if hasattr(attack, name)}
        return RunSpec(
            self.label,
            self.changed,
            method,
            parameters.identity(parameters.changed(type(attack), given)),
            threat,
            data.name,
            data.category,
            data.image_size,
            default_size(data.name),
            self.seed,
            limit if limit is not None and limit < len(data.test) else None,
            draws,
            goal,
        )

    def ready(self, data: Data, checks: Sequence[str] = OF_A_RUN) -> Ready:
        """Fitted, with its threshold and what was checked of it."""
        if isinstance(self.detector, Candidate):
            fitted, device = self.detector.fitted(data), choose_device(self.detector.device)
            threshold, origin = self.detector.threshold(data), fitted.origin
            assert origin is not None
        else:
            fitted, device, origin = self.detector.eval().requires_grad_(False), self.detector.device, self.origin
            threshold = held_out_threshold(fitted, data, self.seed, self.label)
        return Ready(fitted, origin, threshold, checks_of_run(fitted, data, checks), device)


def batch_size_for(image_size: int, asked: int | None = None) -> int:
    """Images in a batch: as asked, or fewer above 128 pixels, so that memory does not grow with the size."""
    if asked is not None and asked < 1:
        raise UserError(f"--batch-size must be at least 1, got {asked}")
    return asked or max(min(BATCH_SIZE, BATCH_SIZE * FULL_BATCH_UP_TO**2 // image_size**2), 1)


def origin_of(detector: Detector) -> Origin:
    """Of a detector that the caller built, and of what it is wrapped around."""
    if detector.origin is not None:
        return detector.origin
    try:
        code = parameters.file_sha256(Path(inspect.getfile(type(detector))))
    except (OSError, TypeError):  # defined in a notebook
        code = "unknown"
    record = detector.parameters_record
    changed = parameters.identity(parameters.changed(type(detector), record))
    own = Origin(type(detector).__name__, code, parameters.identity(record), changed)
    return around(own, origin_of(detector.inner)) if isinstance(detector, Wrapper) else own


def default_size(dataset: str) -> int | None:
    """In pixels, of a data set that is installed."""
    try:
        return int(registry.load("datasets", dataset).target.IMAGE_SIZE)
    except UserError:  # data that the caller built
        return None
