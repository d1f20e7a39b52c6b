"""What cells will cost, by the records of those that are finished."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..cells.schema import FinishedRecord
from ..cells.spec import RunSpec


class Left(NamedTuple):
    """What a cell will cost; None where no record tells."""

    passes: float | None
    seconds: float | None


@dataclass
class Costs:
    """Of finished cells, by what they depend on: medians over categories."""

    cells: Mapping[Any, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Detector, attack and size -> passes and seconds of an image."""
    passes: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Attack, and whether the detector draws noise -> passes of an image."""
    pace: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Detector and size -> seconds of a pass."""
    fits: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Detector and size -> seconds."""
    peaks: Mapping[Any, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Detector, attack and size -> MiB at the most."""
    randomized: dict[Any, bool] = field(default_factory=dict)
    """Detector -> whether it draws noise."""
    fitted: set[Any] = field(default_factory=set)
    """Detectors on categories."""

    def add(self, record: FinishedRecord) -> None:
        spec, passes = record.spec, (record.forwards + record.backwards) / max(record.rows, 1)
        seconds = (record.seconds + (record.checks_seconds or 0)) / max(record.rows, 1)
        self.cells[_detector(spec), _attack(spec)].append((passes, seconds))
        if record.peak_memory is not None:
            self.peaks[_detector(spec), _attack(spec)].append(record.peak_memory)
        self.randomized[_detector(spec)] = record.detector.randomized
        self.passes[_attack(spec), record.detector.randomized].append(passes)
        if passes:
            self.pace[_detector(spec)].append(seconds / passes)
        if record.detector.fit is not None:
            self.fits[_detector(spec)].append(record.detector.fit.seconds)
        self.fitted.add(fit_of(spec))

    def left(self, spec: RunSpec, images: int) -> Left:
        """Of so many rows that are missing, without a fit."""
        if not images:
            return Left(0, 0)
        detector, attack = _detector(spec), _attack(spec)
        if same := self.cells.get((detector, attack)):
            passes, seconds = (statistics.median(column) for column in zip(*same, strict=True))
            return Left(images * passes, images * seconds)
        counts, pace = self.passes.get((attack, self.randomized.get(detector))), self.pace.get(detector)
        if not counts or not pace:
            return Left(None, None)
        expected = images * statistics.median(counts)
        return Left(expected, expected * statistics.median(pace))

    def memory(self, spec: RunSpec) -> float:
        """MiB at the most of a process that works on it; 0 where nobody knows."""
        return max(self.peaks.get((_detector(spec), _attack(spec)), [0.0]))

    def fit(self, spec: RunSpec) -> float:
        """Seconds that a fit takes which is not there; 0 of one whose time nobody knows."""
        times = self.fits.get(_detector(spec))
        return statistics.median(times) if times and fit_of(spec) not in self.fitted else 0.0


def detector_key(label: str, changed: Mapping[str, Any], image_size: int) -> Hashable:
    """What the time of a pass depends on."""
    return label, repr(sorted(changed.items())), image_size


def _detector(spec: RunSpec) -> Any:
    return detector_key(spec.detector, spec.detector_parameters, spec.image_size)


def _attack(spec: RunSpec) -> Any:
    return spec.attack, repr(sorted(spec.attack_parameters.items())), spec.norm, spec.goal, spec.draws


def fit_of(spec: RunSpec) -> Any:
    """What cells of one fit have in common."""
    return (*_detector(spec), spec.dataset, spec.category, spec.seed)
