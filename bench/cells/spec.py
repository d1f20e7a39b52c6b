"""What defines a cell: everything that its numbers depend on, and the folder that this gives it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ..core.protocol import DRAWS, PROTOCOL, Protocol
from ..core.score import Goal
from ..core.threat import Targets, ThreatModel, eps_text
from ..errors import UserError
from ..system import files
from ..system.cache import folder_of
from .base import Category, Name, NormName, Parameters, Part

LARGEST_SEED = 10**18
SMOOTHING = "certificate"
DETERMINISTIC = "deterministic"
SHIFT = "shift"
"""What `attack` is of a cell of shifts, where there is none; its parameters are kinds and severities."""
CERTIFICATES = (SMOOTHING, DETERMINISTIC)
"""What `attack` is of a certificate: by randomized smoothing, or by bounds that the detector itself proves."""


class RunSpec(Part):
    """Everything that defines a number, and nothing that does not (batch size, device): `spec` of run.json.

    Raises pydantic.ValidationError, whose `first_problem` is a sentence, for a ball that is none and for names that
    are paths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: Name
    """As on the command line."""
    detector_parameters: Parameters
    """Those that are not the defaults."""
    attack: Name
    """Without the norm; of a certificate one of `CERTIFICATES`."""
    attack_parameters: Parameters
    """Those that are not the defaults; of a certificate all."""
    norm: NormName
    """In which a perturbation is measured."""
    eps: str
    """The largest size of a perturbation, exact, as text: `2/255`."""
    targets: Targets
    """Which test images the adversary moves."""
    dataset: Name
    category: Category
    image_size: Annotated[int, Field(ge=1, le=10**5)]
    """Side in pixels of what the detector is given."""
    seed: Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)]
    """Of the fit and of all noise."""
    limit: Annotated[int, Field(ge=1)] | None
    """So many of the test images; null: all."""
    draws: Annotated[int, Field(ge=1)] | None
    """Noise draws whose mean is the score of a randomized detector; null is the default of the protocol."""
    goal: Goal
    """Scores as far as they go, or just a wrong decision."""
    dataset_version: Annotated[int, Field(ge=1)] = 1
    """Of a data set that has had several."""
    threshold_folds: Annotated[int, Field(ge=2)] | None = None
    """Fits whose held-out images the threshold rests on; null: the tested detector's own."""
    protocol: Protocol = 1
    """How images are chosen under a limit, and how many draws make a score; absent in cells from before there were
    two."""

    @model_validator(mode="after")
    def _is_a_ball(self) -> RunSpec:
        try:
            _ = self.threat
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.norm, self.eps, self.targets)

    @property
    def bed(self) -> str:
        """The data set as boards name it, whose cells may stand on one: `textures v2`, `mvtec (protocol 1)`."""
        version = f" v{self.dataset_version}" if self.dataset_version > 1 else ""
        return f"{self.dataset}{version}" + f" (protocol {self.protocol})" * (self.protocol != PROTOCOL)

    @property
    def score_draws(self) -> int:
        """Noise draws whose mean is the score of a randomized detector."""
        return self.draws or DRAWS[self.protocol]

    def within(self, threat: ThreatModel) -> RunSpec:
        """The same under another threat model."""
        return self.model_copy(
            update={"norm": threat.norm, "eps": eps_text(threat.eps), "targets": threat.targets},
        )

    def folder(self, results: Path, default_image_size: int | None = None) -> Path:
        """results/dataset/category/detector/attack-norm-eps; eight hex digits follow the detector or the attack
        where something of it is not the default, and a name of which `files.safe_name` had to replace something."""
        size = None if self.image_size == default_image_size else self.image_size
        detector = _suffix(parameters=self.detector_parameters, image_size=size, seed=self.seed)
        targets = None if self.targets == "both" else self.targets
        goal = None if self.goal == "rank" else self.goal
        attack = _suffix(
            parameters=self.attack_parameters,
            targets=targets,
            limit=self.limit,
            draws=self.draws,
            goal=goal,
            threshold_folds=self.threshold_folds,
        )
        eps = eps_text(self.threat.eps).replace("/", "_")
        return results.joinpath(
            files.safe_name(self.dataset),
            files.safe_name(self.category),
            files.safe_name(self.detector.replace(":", "_")) + detector,  # a family's member has a colon in its name
            files.safe_name(f"{self.attack}-{self.norm}-{eps}") + attack,
        )


def _suffix(**settings: Any) -> str:
    changed = {name: value for name, value in settings.items() if value not in ({}, None, 0)}
    return f"-{files.digest(json.dumps(changed, sort_keys=True), 8)}" if changed else ""


def images_folder(spec: RunSpec, sources: Sequence[str], kind: str = "attacked", *more: str) -> Path:
    """Where the attacked images of a cell are kept for the next larger ball.

    sources: hashes of the detector's code, the attack's, the training and the test images.
    """
    return folder_of(kind, [spec.as_json(), *sources, *more])
