"""Images scored once more by a detector that knows nothing of the run: loaded anew, in a process of its own.

Whatever a detector has kept of the images that it met (in lists, modules, the environment) is not there, and files that
it may have kept it in are seen. The process is given neither ids nor labels, nor which image was attacked.
"""

from __future__ import annotations

import copy
import os
import stat
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.detector import Detector
from ..core.rng import Rng
from ..core.score import Score
from ..engine.worker import Afresh
from ..plugins import kept_fits
from ..plugins.fitting import DetectorSpec, Kept
from ..system import server
from .process import ask

AT_ONCE = 7  # images: not the batches of the run


class _Recipe(NamedTuple):
    """All that a process must know to load a detector."""

    name: str
    given: Mapping[str, Any]
    seed: int
    device: str
    kept: Sequence[Kept | None]


@dataclass(frozen=True)
class FreshTwin:
    """Scores images with a fresh twin of a fitted detector.

    The twin of a detector by name is loaded in another process, unless that is not wanted; that of an object is built
    anew in this one, and takes its state dict.
    """

    detector: Detector
    spec: DetectorSpec | None = None
    in_process: bool = False
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """As it was before the detector was imported."""
    since: float = field(default_factory=time.time)
    """When the detector was ready to score, in seconds since 1970."""

    def __post_init__(self) -> None:
        if self.spec is not None and not self.in_process:
            server.start()  # while the attack runs

    def __call__(self, images: Tensor, names: Sequence[str], draws: int) -> Afresh:
        """Scores of images (N, 3, H, W) under `draws` draws of noise with these names. Raises what the detector
        raises."""
        if self.spec is None:
            twin, how = self._twin
            return Afresh(_scores(twin, images, names, draws), f"{how}, in this process")
        recipe = _Recipe(self.spec.name, self.spec.given, self.spec.seed, self.spec.device, self.spec.kept)
        if self.in_process:
            return Afresh(_scores(_loaded(recipe), images, names, draws), "loaded again, in this process")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            path = Path(folder) / "images.npy"
            np.save(path, images.cpu().numpy())
            given = (recipe, path, list(names), draws, self.since)
            found, suspect = ask(_answer, *given, environment=self.environment)
        return Afresh(torch.from_numpy(found), "loaded in another process", suspect)

    @cached_property
    def _twin(self) -> tuple[Detector, str]:
        try:
            twin = self.detector.rebuilt().to(self.detector.device)
            kept_fits.take(twin, kept_fits.state_of(self.detector))
            how = "built anew from its state dict"
        except Exception:  # it needs more than its parameters
            twin, how = copy.deepcopy(self.detector), "copied"
        return twin.eval().requires_grad_(False), how


def _answer(
    recipe: _Recipe, path: Path, names: Sequence[str], draws: int, since: float
) -> tuple[np.ndarray[Any, Any], str]:
    """In the other process: the scores, and which file they may rest on."""
    images = torch.from_numpy(np.load(path))
    path.unlink()
    opened = _Opened()
    detector = _loaded(recipe)
    loading = set(opened.paths)
    scores = _scores(detector, images, names, draws).numpy()
    return scores, opened.suspect(loading, since)


class _Opened:
    """The files that Python opens in this process from now on."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        sys.addaudithook(self._hear)  # for good: it is a process for this alone

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            self.paths.add(os.path.realpath(os.fsdecode(arguments[0])))

    def suspect(self, loading: set[str], since: float) -> str:
        """What the detector does with a file in which it may remember images; those in `loading` made it."""
        for name in sorted(self.paths - loading):
            if not _is_installed(name) and _changed(name):
                return f"opens {name} while it scores"
        for name in sorted(loading):
            if not name.endswith(".pyc") and _changed(name) > since:
                return f"reads {name}, written after the fit"
        return ""


def _changed(name: str) -> float:
    """When, in seconds since 1970: by the clock of the file system, which nobody sets back. 0 of what is no file."""
    if name.startswith(("/proc/", "/sys/", "/dev/")):
        return 0.0
    try:
        found = Path(name).stat()
    except OSError:
        return 0.0
    return found.st_ctime if stat.S_ISREG(found.st_mode) else 0.0


def _is_installed(name: str) -> bool:
    """Code, or a file of Python or of an installed package: a library may load itself late."""
    roots = {os.path.realpath(root) for root in (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))}
    return name.endswith((".py", ".pyc")) or any(name.startswith(root + os.sep) for root in roots)


def _loaded(recipe: _Recipe) -> Detector:
    spec = DetectorSpec(recipe.name, recipe.given, recipe.seed, recipe.device)
    return spec.loaded(recipe.kept)


def _scores(detector: Detector, images: Tensor, names: Sequence[str], draws: int) -> Tensor:
    """(draws, N)"""
    score, found = Score(detector), []
    for first in range(0, len(images), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        found.append(score.each(images[some].to(detector.device), Rng(0, names[some]), draws).cpu())
    return torch.cat(found, 1)
