"""`bench check-detector`: does a detector keep the contract? One line per check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .common import Request, apart, assignments, known, option, whole

if TYPE_CHECKING:
    from ..core.check import Check


@dataclass(frozen=True, kw_only=True)
class CheckDetectorRequest(Request):
    """A detector, and how it is built for the toy task."""

    detector: str
    params: Mapping[str, str]
    image_size: int | None

    def carry_out(self) -> int:
        """1 if a check fails."""
        from ..plugins.fitting import is_foreign

        foreign = is_foreign(self.detector) or any(".py" in value for value in self.params.values())
        passed = True
        for check in apart(self.detector, _checks, self) if foreign else _checks(self):
            print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.sentence}", flush=True)
            passed &= check.passed
        return 0 if passed else 1


def _checks(request: CheckDetectorRequest) -> Iterator[Check]:
    from ..checks.of_detector import check_detector
    from ..plugins.fitting import DetectorSpec

    params = request.params
    bare = DetectorSpec(request.detector)
    toy = {k: v for k, v in bare.toy.items() if k not in params and k.rpartition(".")[2] not in params}
    spec = DetectorSpec(request.detector, toy | dict(params), device="cpu")
    spec.build()  # a parameter out of range is said now
    yield from check_detector(spec, request.image_size)


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
