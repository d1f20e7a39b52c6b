"""Fitted detectors: built from a name and parameters, fitted once, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from ..core import parameters
from ..core.data import BATCH_SIZE, Data, TrainSet
from ..core.detector import Detector, Origin, Purifier, Wrapper
from ..core.manners import left_as_it_was
from ..core.progress import Progress, Tell, to_log
from ..core.protocol import PROTOCOL, Protocol
from ..core.rng import fit_seed
from ..core.score import where_it_failed
from ..core.threshold import Threshold, cross_fitted_threshold, held_out_threshold
from ..errors import UserError, unknown
from ..system import locks
from ..system.files import file_sha256
from ..system.provenance import choose_device, versions
from . import kept_fits, registry, round_trip
from .origin import around

_one_at_a_time = threading.RLock()
"""Of this process: a fit draws from torch's global generator, and there is one for all threads."""


class Kept(NamedTuple):
    """What is kept of the fit of one part."""

    path: Path
    """Its folder; or the file of tensors that was given instead of a fit."""
    model_sha256: str

    def load(self, detector: Detector) -> None:
        """Raises UserError if it is not what it was."""
        given = self.path.is_file()
        if given:
            same = file_sha256(self.path) == self.model_sha256
        else:
            same = kept_fits.is_whole(self.path) and kept_fits.summary(self.path)["model_sha256"] == self.model_sha256
        if not same:
            raise UserError(f"the fit kept in {self.path} is not what it was")
        if given:
            kept_fits.take_from(detector, self.path)
        else:
            kept_fits.load(detector, self.path)


class NotKept(UserError):
    """A fit would have to be made, and none was wanted."""


@dataclass(frozen=True, eq=False)
class DetectorSpec:
    """A detector by name and parameters: what is needed to know its results, before it is built or fitted.

    `bench.evaluate` and `bench.certify` take one wherever they take a name: it fits once for all their calls. Nothing
    is imported before it is needed; what is wrong with the name or a parameter is a UserError of the first access that
    needs it. A fit is kept in the user's cache folder, and found there by everything that it depends on.
    """

    name: str
    """As `bench list detectors` shows, `path/to/file.py:ClassName`, or `outer+inner`: a wrapper around another."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters; text means what it means on the command line. `part.k` is of that part, `k` of every part that has
    it."""
    seed: int = 0
    """Of the fit, and of the choice of the held-out images."""
    device: str = "auto"
    """`auto` is the first GPU where there is one; else as torch names it."""
    progress: Progress = field(default_factory=Progress)
    """Hears of the steps of a fit."""
    tell: Tell = to_log
    """Receives a sentence when something worth knowing happens (another process fits the same, a plug-in changed)."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Part -> a file of tensors that it takes instead of a fit; "" or `outer+inner` is that part of it that learns."""
    only_kept: bool = False
    """True: a fit that is not kept is not made, and raises NotKept."""
    clean: dict[Hashable, torch.Tensor] = field(default_factory=dict)
    """What cells have found of the test images as they are, kept for the next one by who makes it."""
    scoring: dict[int, Any] = field(default_factory=dict)
    """What a score costs, by the side of an image; cells measure it once."""
    _fitted: dict[str, Detector] = field(default_factory=dict)
    _thresholds: dict[str, Threshold] = field(default_factory=dict)
    _kept: list[Kept] = field(default_factory=list)

    def __post_init__(self) -> None:
        name, given = spelled_out(self.name, self.given)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "given", given)

    @cached_property
    def plugin(self) -> registry.Plugin:
        """Of the outer part."""
        outer, rest = split(self.name)
        with left_as_it_was(f"detector {outer}", "its module"):
            plugin = registry.load("detectors", outer)
        if rest is None and issubclass(plugin.target, Wrapper):
            raise UserError(
                f"{plugin.name} goes before a detector: {plugin.name}+patchcore ({plugin.name} alone scores nothing)"
            )
        if rest is not None and not issubclass(plugin.target, Wrapper):
            raise UserError(
                f"{self.name}: {plugin.name} is a whole detector; before `+` goes one of "
                + ", ".join(registry.wrappers())
            )
        return plugin

    @cached_property
    def inner(self) -> DetectorSpec | None:
        """What the outer part is around."""
        rest, outer = split(self.name)[1], self.plugin
        if rest is None:
            return None
        inner = DetectorSpec(rest, {}, self.seed, self.device, self.progress, self.tell, self.weights, self.only_kept)
        for part in inner.parts:
            both = issubclass(outer.target, Purifier) and issubclass(part.plugin.target, Purifier)
            if both or part.plugin.name == outer.name:
                raise UserError(
                    f"{self.name}: {outer.name} cannot go before {part.plugin.name}"
                    + (", both are purifiers; choose one" if both else "")
                )
        return inner

    @cached_property
    def parts(self) -> list[DetectorSpec]:
        """Outermost first; the last is the detector."""
        return [self, *(self.inner.parts if self.inner else [])]

    @cached_property
    def label(self) -> str:
        """The name in results: `diffpure+patchcore`."""
        return "+".join(part.plugin.name for part in self.parts)

    @cached_property
    def code(self) -> str:
        """Hash of the code of every part."""
        own = self.plugin.sha256
        return hashlib.sha256((own + self.inner.code).encode()).hexdigest() if self.inner else own

    @property
    def accepted(self) -> set[str]:
        """The names of all parameters, `k` and `part.k`."""
        return {name for part in self.parts for k in part._own for name in (k, f"{part.plugin.name}.{k}")}

    @cached_property
    def differentiable(self) -> bool:
        """What the classes declare; an instance may say otherwise once it is built."""
        return all(part.plugin.target.differentiable for part in self.parts)

    @property
    def toy(self) -> dict[str, Any]:
        """Parameters with which every part is fitted in seconds."""
        return {
            f"{part.plugin.name}.{k}": v for part in self.parts for k, v in part.plugin.target.toy_parameters.items()
        }

    @property
    def _own(self) -> dict[str, Any]:
        return parameters.accepted(self.plugin.target)

    @cached_property
    def values(self) -> dict[str, dict[str, Any]]:
        """Part -> its given parameters, converted by the constructor's annotations."""
        shares: dict[str, dict[str, Any]] = {part.plugin.name: {} for part in self.parts}
        for key, value in sorted(self.given.items(), key=lambda item: "." in item[0]):  # the particular one wins
            if key not in self.accepted:
                raise unknown(f"parameter of {self.label}", key, self.accepted)
            owner, _, name = key.rpartition(".")
            for part in self.parts:
                if name in part._own and owner in ("", part.plugin.name):
                    shares[part.plugin.name][name] = value
        return {
            part.plugin.name: parameters.convert(part.plugin.target, shares[part.plugin.name], part.plugin.name)
            for part in self.parts
        }

    @cached_property
    def changed(self) -> dict[str, Any]:
        """The identity of the given parameters that differ from the defaults; `part.k` where there are several."""
        found: dict[str, Any] = {}
        for part in self.parts:
            own = part._own_changed(self.values)
            found |= own if len(self.parts) == 1 else {f"{part.plugin.name}.{k}": v for k, v in own.items()}
        return found

    def _own_changed(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Of this part alone, as JSON."""
        changed: dict[str, Any] = parameters.identity(parameters.changed(self.plugin.target, values[self.plugin.name]))
        return changed

    def build(self) -> Detector:
        """Not fitted."""
        return self._of(self.values)

    def fitted(self, data: Data) -> Detector:
        """Every part loaded from the cache, or fitted on the normal images that are not held out, and kept."""
        key = data.train.split(self.seed)[0].fingerprint
        if key not in self._fitted:
            # inside out: a part is built around those that are ready
            ready: list[Detector] = []
            for place in range(len(self.parts) - 1, -1, -1):
                ready = [self.parts[place]._fitted_part(self._data_of(place, data), self.values, ready)]
            self._fitted[key] = ready[0]
        return self._fitted[key]

    def _data_of(self, place: int, data: Data) -> Data:
        """What that part is fitted on: the parts around it may want it to learn from something else."""
        for outer in self.parts[:place]:
            data = outer.plugin.target.inner_data(data, self.values[outer.plugin.name])
        return data

    @property
    def kept(self) -> list[Kept | None]:
        """Where the last fit of every part is kept; None of a part that learns nothing."""
        return [part._kept[-1] if part._kept else None for part in self.parts]

    def loaded(self, kept: Sequence[Kept | None]) -> Detector:
        """The detector whose `kept` this is, as `fitted` gives it. Raises UserError if a fit is not what it was."""
        ready: list[Detector] = []
        with _one_at_a_time, torch.random.fork_rng():
            for part, fit in zip(reversed(self.parts), reversed(kept), strict=True):
                detector = part._build_for(self.values, ready)
                if fit is not None:
                    fit.load(detector)
                ready = [detector.eval().requires_grad_(False)]
        return ready[0]

    def threshold(self, data: Data, folds: int | None = None, protocol: Protocol = PROTOCOL) -> Threshold:
        """The threshold at 5 % false alarms on the held-out normal images; with `folds`, on all of them, for which
        another `folds` - 1 detectors are fitted."""
        key = f"{data.train.fingerprint} {folds} {protocol}"
        if key not in self._thresholds:
            self._thresholds[key] = (
                held_out_threshold(self.fitted(data), data, self.seed, self.label, protocol)
                if folds is None
                else cross_fitted_threshold(self._of_fold, data, self.seed, self.label, folds, protocol)
            )
        return self._thresholds[key]

    def _of_fold(self, data: Data) -> Detector:
        """As `fitted`; of another fold than the first nobody needs the detector again: it is kept on the disk alone."""
        if data.train.fold is None or not data.train.fold[0]:
            return self.fitted(data)
        return DetectorSpec(self.name, self.given, self.seed, self.device, self.progress, self.tell).fitted(data)

    def _of(self, values: Mapping[str, Mapping[str, Any]], *first: Detector) -> Detector:
        """This part around `first`, or around inner parts built anew."""
        if self.inner and not first:
            first = (self.inner._of(values),)
        with left_as_it_was(f"detector {self.plugin.name}", "its constructor"):
            detector = parameters.build(self.plugin.target, values[self.plugin.name], self.plugin.name, *first)
        assert isinstance(detector, Detector)
        parameters.refuse_unkept(detector, values[self.plugin.name], self.plugin.name)
        return detector

    def _fitted_part(self, data: Data, values: Mapping[str, Mapping[str, Any]], inside: Sequence[Detector]) -> Detector:
        """This part around `inside[0]`, ready to score."""

        def build() -> Detector:
            return self._build_for(values, inside)

        with _one_at_a_time, torch.random.fork_rng():
            detector, kept = build(), None
            if type(detector).fit is not Wrapper.fit:
                detector, kept = self._learned(detector, build, data)
        used = parameters.identity(detector.parameters_record)
        origin = Origin(self.plugin.name, self.plugin.sha256, used, self._own_changed(values), kept)
        for inner in inside:
            assert inner.origin is not None
            origin = around(origin, inner.origin)
        detector.origin = origin
        detector.eval().requires_grad_(False)
        return detector

    def _build_for(self, values: Mapping[str, Mapping[str, Any]], inside: Sequence[Detector]) -> Detector:
        """This part around `inside[0]`, on its device, with what its constructor draws; not fitted."""
        torch.manual_seed(fit_seed(self.seed))
        return self._of(values, *inside).to(choose_device(self.device))

    def _learned(
        self, detector: Detector, build: Callable[[], Detector], data: Data
    ) -> tuple[Detector, dict[str, Any]]:
        """The detector, loaded from what is kept of its fit, and what the record of a run says of that fit, which was
        kept before or is made now: the process that fits scores what every later one will. Of several processes that
        want the same fit one makes it, and the others wait."""
        fit_set, _ = data.train.split(self.seed)
        name = self.plugin.name
        carried = next((path for parts, path in self.weights.items() if name in (parts or name).split("+")), None)
        if carried is not None:
            kept_fits.take_from(detector, carried)
            self._kept.append(Kept(carried, file_sha256(carried)))
            return detector, {"model_sha256": self._kept[-1].model_sha256, "seconds": 0.0, "images": len(fit_set)}
        recipe = {k: v for k, v in detector.parameters_record.items() if k not in detector.scoring_parameters}
        identity = {
            "detector": self.plugin.name,
            "code": self.plugin.sha256,
            "seed": self.seed,
            "data": fit_set.fingerprint,
            "parameters": parameters.identity(recipe),
            "image_size": data.image_size,
        }
        if data.train.fold and data.train.fold[0]:  # the first is the fit that is always made
            identity["fold"] = data.train.fold[0]
        folder = kept_fits.folder_of(self.plugin.name, data, identity)
        if not kept_fits.is_whole(folder):
            if self.only_kept:
                raise NotKept(f"no fit of {name} on {data.name}/{data.category} is kept")
            with locks.alone(folder, f"fits {self.plugin.name} on {data.name}/{data.category}", self.tell):
                if not kept_fits.is_whole(folder):
                    if damage := kept_fits.remove_damaged(folder):
                        self.tell(damage)
                    detector = self._fit(detector, build, data, fit_set, folder, identity)
        kept_fits.load(detector, folder)
        summary = kept_fits.summary(folder)
        self._kept.append(Kept(folder, summary["model_sha256"]))
        return detector, summary

    def _fit(
        self,
        detector: Detector,
        build: Callable[[], Detector],
        data: Data,
        fit_set: TrainSet,
        folder: Path,
        identity: Mapping[str, Any],
    ) -> Detector:
        """Keeps what `detector` learns; another one, as `build` makes it, that has taken it.

        Raises Forgotten, and keeps nothing, if the two differ.
        """
        name = self.plugin.name
        if len(fit_set) < detector.minimum_images:
            raise UserError(
                f"{name} learns from at least {detector.minimum_images} normal images; {data.name}/{data.category} "
                f"has {len(data.train)}, of which {len(data.train) - len(fit_set)} are held out"
            )
        same = {key: identity.get(key) for key in ("detector", "parameters", "seed", "fold")}
        if any(same == {key: other.get(key) for key in same} for other in kept_fits.others(folder)):
            self.tell(
                f"{name} on {data.name}/{data.category}: the code or the data changed since it was last fitted "
                f"(or another file has a {name}); fitting again"
            )
        detector.progress = self.progress
        self.progress.checkpoint = folder / "training.pt"
        started = time.monotonic()
        try:
            detector.train()
            with left_as_it_was(f"detector {name}", "fit"):
                detector.fit(DataLoader(fit_set, batch_size=_batch_size(len(fit_set))))
        except (UserError, KeyboardInterrupt):
            raise
        except OSError as error:
            raise UserError(f"fitting {name} failed: {error}") from error
        except Exception as error:  # a plug-in may raise anything
            raise UserError(f"detector {name} failed in fit: {where_it_failed(error)}") from error
        finally:
            detector.progress = Progress()
        record = {
            "schema": kept_fits.SCHEMA,
            **identity,
            "images": len(fit_set),
            "seconds": round(time.monotonic() - started, 1),
            "versions": versions(),
            "threads": torch.get_num_threads(),
        }
        loaded = round_trip.loaded_again(name, detector.eval(), build().eval(), fit_set)
        kept_fits.save(detector, folder, record)
        (folder / "training.pt").unlink(missing_ok=True)
        return loaded


def _batch_size(images: int) -> int:
    """The largest that leaves no last batch of one image, of which BatchNorm can learn nothing."""
    return next((size for size in range(BATCH_SIZE, 1, -1) if images % size != 1), BATCH_SIZE)


EXPORTED = "exported:"
FORMATS = {".onnx": "onnx", ".xml": "openvino", ".pt": "torchscript", ".ts": "torchscript"}
"""Of models in files, by suffix."""


def spelled_out(name: str, given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """`exported:model.onnx` -> `exported:onnx` with its file as a parameter; any other name as it is."""
    before, found, file = name.partition(EXPORTED)
    if not found or (before and not before.endswith("+")) or file in FORMATS.values():
        return name, given
    member = FORMATS.get(Path(file).suffix.lower())
    if member is None:
        raise UserError(
            f"{EXPORTED}{file}: expected a file whose name ends in {', '.join(FORMATS)}, or one of "
            f"{', '.join(EXPORTED + known for known in dict.fromkeys(FORMATS.values()))}"
        )
    key = f"{EXPORTED}{member}.file" if before else "file"
    return f"{before}{EXPORTED}{member}", {key: file, **given}


def split(name: str) -> tuple[str, str | None]:
    """`outer+inner` -> outer, inner; either may be `path/to/file.py:Class`, and a folder may have a + in its name."""
    for plus in (i for i, letter in enumerate(name) if letter == "+"):
        outer, rest = name[:plus], name[plus + 1 :]
        beside = not rest.startswith(("+", "/")) or outer in registry.wrappers()  # and not a folder named `x+`
        if re.search(r"\.py(:\w+)?$", outer) or ("/" not in outer and beside):
            if not outer or not rest:
                raise UserError(f"{name!r}: expected outer+inner, as in diffpure+patchcore")
            return outer, rest
    return name, None


def is_foreign(name: str) -> bool:
    """Whether any part of a detector does not come with this package; nothing is imported to know it."""
    outer, rest = split(name)
    return registry.is_foreign("detectors", outer) or (rest is not None and is_foreign(rest))
