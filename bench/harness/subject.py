"""The detector under test: by name, fitted when it is needed, or one that the caller has fitted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from ..cells.base import first_problem
from ..cells.spec import RunSpec
from ..checks.of_detector import OF_A_RUN, OF_AN_OBJECT, checks_of_run, probe_of
from ..checks.of_gradient import leads_somewhere
from ..core import parameters
from ..core.attack import Method
from ..core.data import BATCH_SIZE, Data
from ..core.detector import Detector, Origin
from ..core.protocol import PROTOCOL
from ..core.score import GOALS
from ..core.threat import ThreatModel, eps_text
from ..core.threshold import held_out_threshold
from ..engine.worker import Prepared
from ..errors import UserError
from ..plugins.fitting import DetectorSpec
from ..plugins.origin import origin_of, weights_of
from ..system.provenance import choose_device, float32_throughout
from .afresh import FreshTwin
from .cell import Built

FULL_BATCH_UP_TO = 128
"""Image size in pixels above which the default batch shrinks, so that the memory of an attack does not grow."""


@dataclass(frozen=True)
class DetectorUnderTest:
    """What is tested: a detector by name, fitted when it is needed, or one that the caller has fitted."""

    detector: Detector | DetectorSpec
    seed: int
    in_process: bool = False
    """No other process is to be started."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """As it is before the detector is imported."""

    @cached_property
    def origin(self) -> Origin:
        """Of a detector that the caller built."""
        assert isinstance(self.detector, Detector)
        return origin_of(self.detector)

    @property
    def label(self) -> str:
        return self.detector.label if isinstance(self.detector, DetectorSpec) else self.origin.name

    @property
    def code(self) -> str:
        """Hash of its code."""
        return self.detector.code if isinstance(self.detector, DetectorSpec) else self.origin.code

    @cached_property
    def as_object(self) -> Built | None:
        """Which object of its class it is; None of a detector by name, whose fit is known by what it depends on."""
        if isinstance(self.detector, DetectorSpec):
            return None
        return Built(self.detector, weights_of(self.detector), self.origin.fit is not None)

    @property
    def changed(self) -> dict[str, Any]:
        """Its parameters that are not the defaults."""
        return self.detector.changed if isinstance(self.detector, DetectorSpec) else self.origin.changed

    @property
    def built(self) -> Detector:
        """Perhaps not fitted."""
        return self.detector.build() if isinstance(self.detector, DetectorSpec) else self.detector

    def has_no_gradient(self, data: Data) -> bool:
        """Whether it is plain before a fit, which may be long, that there is none to follow: the detector says so, and
        as it is scores images without one."""
        built = self.built.eval()
        if built.differentiable and self.detector.differentiable:
            return False
        some = data.test.of_each_class(1)
        images, ids = data.test.images(some).to(built.device), [data.test.ids[i] for i in some]
        try:
            return not leads_somewhere(built, images, ids)
        except Exception:  # it cannot score before it is fitted
            return False

    def spec(
        self,
        method: str,
        attack: Method,
        threat: ThreatModel,
        data: Data,
        limit: int | None,
        goal: str,
        draws: int | None = None,
        threshold_folds: int | None = None,
    ) -> RunSpec:
        """Of a cell on at most `limit` of the test images of `data`."""
        if goal not in GOALS:
            raise UserError(f"unknown goal {goal!r}; expected one of {', '.join(GOALS)}")
        self._refuse_folds(data, threshold_folds)
        _refuse_without_anomalies(data, threat, goal)
        given = attack.parameters_record
        try:
            return RunSpec(
                detector=self.label,
                detector_parameters=self.changed,
                attack=method,
                attack_parameters=parameters.identity(parameters.changed(type(attack), given)),
                norm=threat.norm,
                eps=eps_text(threat.eps),
                targets=threat.targets,
                dataset=data.name,
                category=data.category,
                image_size=data.image_size,
                seed=self.seed,
                limit=limit if limit is not None and limit < len(data.test) else None,
                draws=draws,
                goal=goal,
                dataset_version=data.version,
                threshold_folds=threshold_folds,
                protocol=PROTOCOL,
            )
        except ValidationError as error:
            raise UserError(f"nobody could read a cell of this again: {first_problem(error)}") from None

    def _refuse_folds(self, data: Data, folds: int | None) -> None:
        """What no fit can be made for."""
        if folds is None:
            return
        if isinstance(self.detector, Detector):
            raise UserError("threshold_folds fits the detector anew: give it by its name, not as an object")
        data.train.folds(self.seed, folds)

    def prepared(
        self,
        data: Data,
        checks: Sequence[str] = OF_A_RUN,
        threshold_folds: int | None = None,
        afresh: bool = True,
    ) -> Prepared:
        """Fitted, with its threshold and what was checked of it. afresh: a fresh twin will be asked for scores.

        Raises UserError for an image that cannot be decoded, before a fit that may be long.
        """
        _ = data.notes
        if isinstance(self.detector, DetectorSpec):
            fitted, device = self.detector.fitted(data), choose_device(self.detector.device)
            threshold, origin = self.detector.threshold(data, threshold_folds), fitted.origin
            assert origin is not None
        else:
            float32_throughout()
            fitted, device, origin = self.detector.eval().requires_grad_(False), self.detector.device, self.origin
            threshold = held_out_threshold(fitted, data, self.seed, self.label)
            checks = (*checks, *OF_AN_OBJECT)
        probe = probe_of(fitted, data)
        spec = self.detector if isinstance(self.detector, DetectorSpec) else None
        twin = FreshTwin(fitted, spec, self.in_process, self.environment) if afresh else None
        found = checks_of_run(probe, checks)
        clean = spec.clean if spec else None  # an object may be another one by the next call
        scoring = spec.scoring if spec else None
        return Prepared(fitted, origin, threshold, found, device, probe.differentiable, twin, clean, scoring)


def _refuse_without_anomalies(data: Data, threat: ThreatModel, goal: str) -> None:
    """What asks for anomalous images where there are none."""
    what = {"map": "--goal map", "anomalous": "--targets anomalous"}
    asked = what.get(goal) or what.get(threat.targets)
    if data.normal_only and asked:
        raise UserError(
            f"{asked} needs anomalous test images, and {data.name}/{data.category} has none; leave it out to measure "
            "false alarms"
        )


def batch_size_for(image_size: int, asked: int | None = None) -> int:
    """Images in a batch: as asked, or fewer above 128 pixels, so that memory does not grow with the size."""
    if asked is not None and asked < 1:
        raise UserError(f"--batch-size must be at least 1, got {asked}")
    return asked or max(min(BATCH_SIZE, BATCH_SIZE * FULL_BATCH_UP_TO**2 // image_size**2), 1)
