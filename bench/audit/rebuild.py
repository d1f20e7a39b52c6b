"""What a stored cell was made of, built again from its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..cells.schema import DataRecord, FinishedRecord
from ..cells.spec import SHIFT
from ..checks.of_detector import probe_of
from ..core import parameters
from ..core.attack import Method
from ..core.data import Data
from ..core.norms import SEMANTIC
from ..core.progress import Tell
from ..engine import box, shifter
from ..engine.box import Box
from ..engine.certificates import SETTINGS, Settings, code_of
from ..engine.shifter import Shift
from ..engine.worker import Prepared
from ..errors import UserError
from ..harness.afresh import FreshTwin
from ..plugins import registry
from ..plugins.fitting import DetectorSpec
from ..plugins.lookup import load_data, make_attack, root_below, takes_root


def quiet(sentence: str) -> None:
    """Tells nobody."""


class Overrides(NamedTuple):
    """What a record cannot hold: where things lie on this computer."""

    params: Mapping[str, str] = {}
    attack_params: Mapping[str, str] = {}
    detector: str | None = None
    """path/to/mine.py:MyDetector, where the cell's came from a file."""
    attack: str | None = None
    dataset: str | None = None
    data_root: Path | None = None
    device: str = "auto"
    tell: Tell = quiet


@dataclass(frozen=True)
class Rebuilt:
    """A cell's data, detector and attack, each built when it is asked for; what is not here is a UserError."""

    record: FinishedRecord
    given: Overrides
    weights: Mapping[str, Path] = field(default_factory=dict)
    """What the parts of the detector take instead of a fit: see `DetectorSpec.weights`."""

    @cached_property
    def data(self) -> Data:
        """Perhaps other images than those of the cell: see `same_images`."""
        spec = self.record.spec
        name, root = self.given.dataset or spec.dataset, self.given.data_root
        own = root_below(root, spec.dataset) if root is not None and takes_root(name) else None
        found = load_data(name, category=spec.category, root=own, image_size=spec.image_size)
        return found.limited(spec.limit, spec.protocol)

    @property
    def same_images(self) -> bool:
        return DataRecord.of(self.data) == self.record.data

    @cached_property
    def detector(self) -> DetectorSpec:
        """With the parameters of the cell."""
        return self._detector(with_files(self.record.spec.detector_parameters, self.given.params, "--param"))

    @property
    def detector_code(self) -> str:
        """Hash of what is installed or given here; files that are parameters need not be here."""
        return self._detector({}).code

    def _detector(self, values: Mapping[str, Any]) -> DetectorSpec:
        """One that was given from a file stands for the cells that have its name, also as the inner part."""
        spec, given = self.record.spec, self.given
        outer = spec.detector.rpartition("+")[0]
        names = [] if given.detector is None else [given.detector, *[f"{outer}+{given.detector}"] * bool(outer)]
        for name in [*names, spec.detector]:
            found = DetectorSpec(name, values, spec.seed, given.device, tell=given.tell, weights=self.weights)
            if name == spec.detector or found.label == spec.detector:
                break
        return found

    @cached_property
    def method(self) -> Method:
        """The attack, or the settings of the certificate, with the parameters of the cell."""
        values = self.record.spec.attack_parameters
        if self.record.kind == "shift":
            kind: type[Method] = Box if self.record.spec.norm == SEMANTIC else Shift
            return cast(Method, parameters.build(kind, values, SHIFT))
        if self.certified:
            settings = SETTINGS[self.record.spec.attack]
            return cast(Settings, parameters.build(settings, values, self.record.spec.attack))
        return make_attack(self._attack_name, with_files(values, self.given.attack_params, "--attack-param"))[2]

    @property
    def attack_code(self) -> str:
        if self.record.kind == "shift":
            return box.own_code() if self.record.spec.norm == SEMANTIC else shifter.own_code()
        return (
            code_of(self.record.spec.attack) if self.certified else registry.load("attacks", self._attack_name).sha256
        )

    @property
    def _attack_name(self) -> str:
        """As for the detector."""
        own, given = self.record.spec.attack, self.given.attack
        return given if given is not None and registry.load("attacks", given).name == own else own

    @property
    def certified(self) -> bool:
        return self.record.kind == "certificate"

    def changed(self) -> list[str]:
        """What is not as it was when the cell was run."""
        spec, record = self.record.spec, self.record
        same = {
            "the images": self.same_images,
            f"the code of detector {spec.detector}": record.detector.code == self.detector.code,
            f"the parameters of detector {spec.detector}": spec.detector_parameters == self.detector.changed,
            f"the code of attack {spec.attack}": record.attack.code == self.attack_code,
        }
        return [what for what, is_same in same.items() if not is_same]

    def prepared(self) -> Prepared:
        """The fitted detector with its threshold; nothing of it has been checked."""
        detector = self.detector.fitted(self.data)
        assert detector.origin is not None
        spec, attacked = self.record.spec, self.record.kind == "attack"
        twin = FreshTwin(detector, self.detector) if attacked else None
        threshold = self.detector.threshold(self.data, spec.threshold_folds, spec.protocol)
        gradient = probe_of(detector, self.data).differentiable
        return Prepared(detector, detector.origin, threshold, (), detector.device, gradient, twin)


def with_files(values: Mapping[str, Any], given: Mapping[str, str], option: str) -> dict[str, Any]:
    """The stored parameters; a file is stored as its hash, so the user says where it lies."""
    for name, value in values.items():
        if isinstance(value, str) and value.startswith("sha256:") and name not in given:
            raise UserError(f"parameter {name} was a file ({value[:15]}...); say where it lies: {option} {name}=FILE")
    return {**values, **{name: text for name, text in given.items() if name in values}}
