"""A whole submission run again, and what is said of it beside the zip: see `cells/reproduction.py`."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ..cells.reproduction import write_reproduction
from ..cells.submission import CellLocation
from ..errors import UserError
from ..harness.process import ask
from ..system.provenance import choose_device, device_name, versions
from .rebuild import Overrides
from .rerun import Place, Reran, Rerun, rerun_cells

DIGITS = 9
"""Significant, of a difference."""


def rerun_all(
    cells: Sequence[CellLocation], given: Overrides, how: Rerun, patience: float | None = None
) -> Iterator[tuple[CellLocation, Reran | UserError]]:
    """Each cell and what came of it, or why it could not be run; those of a detector and category in a process of their
    own, which may do what it likes. patience: seconds for each cell."""
    for _, group in itertools.groupby(cells, lambda cell: cell.folder.parent):
        some = list(group)
        places = [Place(cell.folder, cell.weights) for cell in some]
        found: Sequence[Reran | UserError]
        try:
            found = ask(rerun_cells, places, given, how, patience=None if patience is None else patience * len(some))
        except UserError as error:
            found = [error] * len(some)
        yield from zip(some, found, strict=True)


def write_verdict(submission: Path, sha256: str, found: Mapping[str, Reran], how: Rerun, device: str) -> Path:
    """What a rerun found, beside the zip of that content; `found` by where a cell lies in it."""
    cells = {
        inside: {
            "verdict": _verdict(reran.reproduced),
            "tests": [test._asdict() for test in reran.tests],
            "images": reran.images,
            "differences": {name: float(f"{value:.{DIGITS}g}") for name, value in reran.differences.items()},
            "detector_code": reran.detector_code,
            "attack_code": reran.attack_code,
        }
        for inside, reran in found.items()
    }
    record = {
        "sha256": sha256,
        "verdict": _verdict(all(reran.reproduced for reran in found.values())),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seed": how.seed,
        "images": how.images,
        "refitted": how.refit,
        "other_versions": how.other_versions,
        "threads": torch.get_num_threads(),
        "device": device_name(choose_device(device)),
        "versions": versions(),
        "cells": cells,
    }
    return write_reproduction(submission, record)


def _verdict(reproduced: bool) -> str:
    return "reproduced" if reproduced else "not reproduced"
