"""Fitted detectors: built from a name and parameters, fitted once, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from . import files, parameters, registry
from .data import Data
from .detector import Detector, Origin, Progress
from .errors import UserError
from .metrics import threshold_at
from .provenance import choose_device, versions
from .rng import Rng
from .score import Score, where_it_failed

SCHEMA = 1
BATCH_SIZE = 32
RANDOMIZED_DRAWS = 8  # noise draws whose mean is the reported score of a randomized detector
FALSE_ALARMS = 0.05

Tell = Callable[[str], None]


def cache_folder() -> Path:
    """Where fitted detectors are kept: the platform's cache folder (XDG_CACHE_HOME where it is set)."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("adv-anomaly-bench"))


class Threshold(NamedTuple):
    """A decision threshold from held-out normal training images."""

    value: float
    held_out: int
    false_alarms: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A detector by name and parameters: what is needed to know its results, before it is built or fitted."""

    name: str
    given: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    progress: Progress = field(default_factory=Progress)
    tell: Tell = lambda message: None
    """Receives a sentence when something worth knowing happens (a fit starts, a plug-in changed)."""
    _fitted: dict[str, Detector] = field(default_factory=dict)
    _thresholds: dict[str, Threshold] = field(default_factory=dict)

    @cached_property
    def plugin(self) -> registry.Plugin:
        return registry.load("detectors", self.name)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The given parameters, converted by the constructor's annotations."""
        return parameters.convert(self.plugin.target, self.given, self.plugin.name)

    @cached_property
    def changed(self) -> dict[str, Any]:
        """The identity of the given parameters that differ from the defaults."""
        return parameters.identity(parameters.changed(self.plugin.target, self.values))

    def build(self) -> Detector:
        detector = parameters.build(self.plugin.target, self.values, self.plugin.name)
        assert isinstance(detector, Detector)
        return detector

    def fitted(self, data: Data) -> Detector:
        """Loaded from the cache, or fitted on the normal images that are not held out, and kept."""
        fit_set, _ = data.train.split(self.seed)
        if fit_set.fingerprint in self._fitted:
            return self._fitted[fit_set.fingerprint]
        device = choose_device(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(_torch_seed(self.seed))
            detector = self.build().to(device)
            detector.origin = self.origin(detector)
            folder = self._folder(data, detector, fit_set.fingerprint)
            if (folder / "fit.json").exists():
                load(detector, folder)
            else:
                self._fit(detector, data, folder, fit_set.fingerprint)
            kept = files.read_json(folder / "fit.json")
            fit = {name: kept[name] for name in ("model_sha256", "seconds", "images")}
            detector.origin = detector.origin._replace(fit=fit)
        detector.eval().requires_grad_(False)
        self._fitted[fit_set.fingerprint] = detector
        return detector

    def origin(self, detector: Detector) -> Origin:
        used = parameters.identity(detector.parameters_record)
        return Origin(self.plugin.name, self.plugin.sha256, used, self.changed)

    def threshold(self, data: Data) -> Threshold:
        """The threshold at 5 % false alarms on the held-out normal images."""
        key = data.train.fingerprint
        if key not in self._thresholds:
            self._thresholds[key] = held_out_threshold(self.fitted(data), data, self.seed, self.plugin.name)
        return self._thresholds[key]

    def _folder(self, data: Data, detector: Detector, fingerprint: str) -> Path:
        key = {
            "detector": self.plugin.name,
            "code": self.plugin.sha256,
            "seed": self.seed,
            "data": fingerprint,
            "parameters": parameters.identity(detector.parameters_record),
            "image_size": data.image_size,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        place = f"{data.name}-{data.category}-{data.image_size}px"
        return cache_folder() / "fitted" / place / f"{self.plugin.name}-{digest}"

    def _fit(self, detector: Detector, data: Data, folder: Path, fingerprint: str) -> None:
        older = [
            p
            for p in folder.parent.glob(f"{self.plugin.name}-*/fit.json")
            if files.read_json(p)["changed"] == self.changed and files.read_json(p)["seed"] == self.seed
        ]
        if older:
            self.tell(
                f"{self.plugin.name} on {data.name}/{data.category}: the code or the data changed since it "
                "was last fitted; fitting again"
            )
        fit_set, _ = data.train.split(self.seed)
        detector.progress = self.progress
        self.progress.checkpoint = folder / "training.pt"
        started = time.monotonic()
        try:
            detector.train()
            detector.fit(DataLoader(fit_set, batch_size=BATCH_SIZE))
        except (UserError, KeyboardInterrupt):
            raise
        except OSError as error:
            raise UserError(f"fitting {self.plugin.name} failed: {error}") from error
        except Exception as error:  # a plug-in may raise anything
            raise UserError(f"detector {self.plugin.name} failed in fit: {where_it_failed(error)}") from error
        finally:
            detector.progress = Progress()
        record = {
            "schema": SCHEMA,
            "detector": self.plugin.name,
            "code": self.plugin.sha256,
            "seed": self.seed,
            "parameters": parameters.identity(detector.parameters_record),
            "changed": self.changed,
            "data": fingerprint,
            "image_size": data.image_size,
            "images": len(fit_set),
            "seconds": round(time.monotonic() - started, 1),
            "versions": versions(),
        }
        save(detector, folder, record)
        (folder / "training.pt").unlink(missing_ok=True)


def save(detector: Detector, folder: Path, record: dict[str, Any]) -> None:
    """model.safetensors and, last, fit.json with its hash: a folder with fit.json is whole."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous().clone() for name, value in detector.state_dict().items()}
    model = folder / "model.safetensors"
    with files.writing(model) as partial:
        save_file(state, partial)
    files.write_json(folder / "fit.json", {**record, "model_sha256": parameters.file_sha256(model)})


def load(detector: Detector, folder: Path) -> None:
    from safetensors.torch import load_file

    model = folder / "model.safetensors"
    remedy = f"delete {folder} to fit again"
    record = files.read_json(folder / "fit.json")
    if record.get("schema") != SCHEMA:
        raise UserError(f"{folder} was written by another version (schema {record.get('schema')}); {remedy}")
    if parameters.file_sha256(model) != record["model_sha256"]:
        raise UserError(f"checkpoint {model} was changed after it was written (its sha256 differs); {remedy}")
    try:
        detector.load_state_dict(load_file(model))
    except Exception as error:
        raise UserError(f"checkpoint {model} cannot be loaded ({where_it_failed(error)}); {remedy}") from None


def held_out_threshold(detector: Detector, data: Data, seed: int, name: str) -> Threshold:
    """Scores the normal images that were not fitted on, as test images are scored."""
    _, held = data.train.split(seed)
    score = Score(detector, name)
    device = next((t.device for t in (*detector.parameters(), *detector.buffers())), torch.device("cpu"))
    draws = RANDOMIZED_DRAWS if detector.randomized else 1
    scores: list[float] = []
    for start in range(0, len(held), BATCH_SIZE):
        rows = range(start, min(start + BATCH_SIZE, len(held)))
        rng = Rng(seed, [held.records[i].id for i in rows], "held out")
        scores += score.mean(held.images(rows).to(device), rng, draws).tolist()
    return Threshold(threshold_at(scores, FALSE_ALARMS), len(held), FALSE_ALARMS)


def _torch_seed(seed: int) -> int:
    """Spreads run seeds, so that the per-step seeds of a training do not overlap between runs."""
    return int.from_bytes(hashlib.sha256(f"fit\t{seed}".encode()).digest()[:6], "big")
