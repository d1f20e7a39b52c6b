"""The commands that make a cell again, and that test it, as a reader may type them."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..cells.result import Result
from ..cells.spec import DETERMINISTIC, images_folder
from ..errors import UserError
from ..plugins import registry

BUILT_IN = "textures"
"""The data set that takes no --data-root."""


def command_of(r: Result, category: str | None = None, balls: Mapping[str, Result] | None = None) -> str:
    """What makes a cell again; a parameter that was a file, or a folder of images, is left for the reader to name.

    category: another one, or `all`. balls: see `balls_of`; a cell that began at a smaller ball needs that one before.
    """
    s = r.spec
    if r.certificate:
        return _certify(r, category)
    if r.of_shifts:
        return _shift(r, category)
    budgets = ",".join(_sweep(r, balls or {}))
    words = ["bench", "run", "--detector", s.detector, "--attack", f"{s.attack}-{s.norm}", "--eps", budgets]
    words += _bed(r, category) + _params("--param", s.detector_parameters)
    words += _params("--attack-param", s.attack_parameters)
    words += ["--draws", str(s.draws)] if s.draws is not None else []
    return shlex.join(words)


def checking(r: Result) -> list[str]:
    """What tests a cell where it lies; of a submission, the whole of it."""
    if r.source:
        return [shlex.join(["bench", "verify", r.source, "--rerun"])]
    return [shlex.join(["bench", command, str(r.folder)]) for command in ("check-run", "verify")]


def balls_of(results: Sequence[Result]) -> dict[str, Result]:
    """The cells that a larger ball may have begun at, by the name that `smaller_ball` of its record gives them."""
    return {_ball(r): r for r in results if r.record.kind == "attack"}


def _ball(r: Result) -> str:
    own = r.record
    sources = [own.detector.code, own.attack.code, own.data.train, own.data.test]
    return images_folder(r.spec, [*sources, *([own.detector.state] if own.detector.state else [])]).name


def _sweep(r: Result, balls: Mapping[str, Result]) -> list[str]:
    """The budgets of a cell and of the smaller ones that it goes back to, ascending."""
    found = [r.spec.eps]
    while (smaller := balls.get(r.record.smaller_ball or "")) is not None and smaller.eps < r.eps:
        found.insert(0, smaller.spec.eps)
        r = smaller
    return found


def _certify(r: Result, category: str | None) -> str:
    s = r.spec
    if s.attack == DETERMINISTIC:
        words = ["bench", "certify", "--detector", s.detector, "--norm", s.norm, "--radius", s.eps]
        return shlex.join(words + _bed(r, category) + _params("--param", s.detector_parameters))
    outer = s.detector.partition("+")[0]
    sigma = r.record.detector.parameters.get(f"{outer}.sigma")
    noise = _noise_parameters(s.detector)
    parameters = {name: value for name, value in s.detector_parameters.items() if name not in noise}
    words = ["bench", "certify", "--detector", s.detector, "--sigma", str(sigma), "--radius", s.eps]
    words += ["--center", str(parameters.pop(f"{outer}.center"))] if f"{outer}.center" in parameters else []
    for name, value in r.record.attack.parameters.items():
        words += [f"--{name}", str(value)]
    return shlex.join(words + _bed(r, category) + _params("--param", parameters))


def _shift(r: Result, category: str | None) -> str:
    s, own = r.spec, r.record.attack.parameters
    words = ["bench", "shift", "--detector", s.detector]
    if r.of_box:
        words += ["--worst", s.eps, *_params("--search", s.attack_parameters)]
    else:
        words += [
            word
            for option, name in (("--kind", "kinds"), ("--severity", "severities"))
            for word in (option, _joined(own[name]))
        ]
    words += ["--draws", str(s.draws)] if s.draws is not None else []
    return shlex.join(words + _bed(r, category) + _params("--param", s.detector_parameters))


def _joined(values: Any) -> str:
    return ",".join(map(str, values))


@functools.cache
def _noise_parameters(detector: str) -> frozenset[str]:
    """`part.sigma` of every part that is told the noise of the certificate; see `certificate.candidate`."""
    found = set()
    for part in detector.split("+"):
        try:
            known = registry.load("detectors", part).target.noise_parameter
        except UserError:  # from a file, or of a package that is not installed
            continue
        found |= {f"{part}.{known}"} if known else set()
    return frozenset(found)


def _bed(r: Result, category: str | None) -> list[str]:
    """The images, the seed, and what is attacked."""
    s = r.spec
    words = ["--dataset", s.dataset, "--category", category or s.category, "--image-size", str(s.image_size)]
    words += ["--data-root", "DIR"] if s.dataset != BUILT_IN else []
    words += ["--seed", str(s.seed)] if s.seed else []
    words += ["--limit", str(s.limit)] if s.limit is not None else []
    words += ["--threshold-folds", str(s.threshold_folds)] if s.threshold_folds is not None else []
    words += ["--targets", s.targets] if s.targets != "both" else []
    return words + (["--goal", s.goal] if s.goal != "rank" else [])


def _params(option: str, values: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [option, f"{name}={'FILE' if text.startswith('sha256:') else text}"]
    return words
