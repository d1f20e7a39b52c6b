"""What a stored cell was made of, built again from its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..plugins.fitting import Tell


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
    tell: Tell = lambda message: None


def with_files(values: Mapping[str, Any], given: Mapping[str, str], option: str) -> dict[str, Any]:
    """The stored parameters; a file is stored as its hash, so the user says where it lies."""
    for name, value in values.items():
        if isinstance(value, str) and value.startswith("sha256:") and name not in given:
            raise UserError(f"parameter {name} was a file ({value[:15]}...); say where it lies: {option} {name}=FILE")
    return {**values, **given}
