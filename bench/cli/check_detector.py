"""`bench check-detector`: does a detector keep the contract? One line per check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from .common import Request, assignments, known, option, whole


@dataclass(frozen=True, kw_only=True)
class CheckDetectorRequest(Request):
    """A detector, and how it is built for the toy task."""

    detector: str
    params: Mapping[str, str]
    image_size: int | None

    def carry_out(self) -> int:
        """1 if a check fails."""
        from ..checks.of_detector import check_detector
        from ..plugins.fitting import DetectorSpec

        bare = DetectorSpec(self.detector)
        toy = {k: v for k, v in bare.toy.items() if k not in self.params and k.rpartition(".")[2] not in self.params}
        spec = DetectorSpec(self.detector, toy | dict(self.params), device="cpu")
        spec.build()  # a parameter out of range is said now
        passed = True
        for check in check_detector(spec, self.image_size):
            print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.sentence}", flush=True)
            passed &= check.passed
        return 0 if passed else 1


@click.command()
@click.argument("detector", metavar="NAME", shell_complete=known("detectors"))
@option("--param", "params", multiple=True, callback=assignments, metavar="K=V", help="of the detector (repeatable)")
@option("--image-size", callback=whole(8), metavar="N", help="side of the toy images in pixels")
def command(**options: Any) -> CheckDetectorRequest:
    """Does a detector keep the contract? One line per check.

    Fits a detector (a name, path/to/mine.py:MyDetector, or outer+inner) on a toy task and checks its contract. Exit
    code 0 if all checks pass, 1 if one fails, 2 on bad input.
    """
    return CheckDetectorRequest(**options)
