"""What defines a cell: everything that its numbers depend on, and the folder that this gives it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.score import Goal
from ..core.threat import ThreatModel, eps_text
from ..system import files
from ..system.cache import folder_of


@dataclass(frozen=True)
class RunSpec:
    """Everything that defines a number, and nothing that does not (batch size, device)."""

    detector: str
    detector_parameters: dict[str, Any]
    attack: str
    attack_parameters: dict[str, Any]
    threat: ThreatModel
    dataset: str
    category: str
    image_size: int
    default_image_size: int | None
    seed: int
    limit: int | None
    draws: int | None
    """Noise draws whose mean is the score of a randomized detector; None is the default."""
    goal: Goal = "rank"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "detector": self.detector,
            "detector_parameters": self.detector_parameters,
            "attack": self.attack,
            "attack_parameters": self.attack_parameters,
            "norm": self.threat.norm,
            "eps": eps_text(self.threat.eps),
            "targets": self.threat.targets,
            "dataset": self.dataset,
            "category": self.category,
            "image_size": self.image_size,
            "seed": self.seed,
            "limit": self.limit,
            "draws": self.draws,
            "goal": self.goal,
        }

    def folder(self, results: Path) -> Path:
        """results/dataset/category/detector/attack-norm-eps; eight hex digits follow the detector or the attack
        where something of it is not the default."""
        size = None if self.image_size == self.default_image_size else self.image_size
        detector = _suffix(parameters=self.detector_parameters, image_size=size, seed=self.seed)
        targets = None if self.threat.targets == "both" else self.threat.targets
        goal = None if self.goal == "rank" else self.goal
        attack = _suffix(
            parameters=self.attack_parameters, targets=targets, limit=self.limit, draws=self.draws, goal=goal
        )
        eps = eps_text(self.threat.eps).replace("/", "_")
        parts = [
            self.dataset,
            self.category,
            self.detector + detector,
            f"{self.attack}-{self.threat.norm}-{eps}{attack}",
        ]
        return results.joinpath(*(re.sub(r"[^A-Za-z0-9._+-]", "_", part) for part in parts))


def _suffix(**settings: Any) -> str:
    changed = {name: value for name, value in settings.items() if value not in ({}, None, 0)}
    return f"-{files.digest(json.dumps(changed, sort_keys=True), 8)}" if changed else ""


def images_folder(spec: Mapping[str, Any], sources: Sequence[str], kind: str = "attacked", *more: str) -> Path:
    """Where the attacked images of a cell are kept for the next larger ball.

    spec: as it is recorded. sources: hashes of the detector's code, the attack's, the training and the test images.
    """
    return folder_of(kind, [spec, *sources, *more])
