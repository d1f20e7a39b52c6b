"""Noisy scores of an image, and the bounds that they prove: the rows of a certificate."""

from __future__ import annotations

import functools
import hashlib
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from ..cells.rows import Row
from ..cells.spec import RunSpec
from ..core.attack import Method
from ..core.data import Data
from ..core.detector import Detector, Wrapper, parts_of
from ..core.progress import Tell
from ..core.rng import Rng
from ..core.score import Passes, Score
from ..errors import UserError
from ..plugins.origin import NOTEBOOK, origin_of, weights_of
from ..stats import smoothing
from ..stats.smoothing import Floats
from ..system import files
from ..system.cache import folder_of
from ..system.memory import free_memory
from ..system.provenance import device_name, versions
from .worker import PROBE_IMAGES, Prepared, refuse_constant

OUTER = "smoothed"
"""The detector that is certified is this one around the one that was asked for."""
SAME_DRAW = 1e-2  # of the spread of scores: a draw repeats up to rounding
KEEP_EVERY = 2.0  # seconds between two writes of an image's draws


@dataclass(frozen=True)
class Certificate(Method):
    """How the smoothed score is bounded.

    samples: noise draws per image (at most, where the goal is the decision).
    alpha: chance with which any of the bounds that a number rests on, one per image, may fail; every image gets an
    equal part of it.
    """

    norms = ("l2",)

    samples: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"--samples must be at least 1, got {self.samples}")
        if not 0 < self.alpha < 1:
            raise UserError(f"--alpha must be between 0 and 1 (a chance of error, such as 0.001), got {self.alpha:g}")


def with_draws(smoothed: Detector, n: int) -> Detector:
    """The same smoothed detector, its score estimated from n draws."""
    assert isinstance(smoothed, Wrapper)
    return type(smoothed)(smoothed.inner, **{**smoothed.parameters_record, "n": n}).eval()


class Noise(NamedTuple):
    """Of a smoothed detector: its sigma, and what of the noisy scores is its score."""

    sigma: float
    percentile: float | None
    """None: the mean, of scores within `limits`."""
    limits: tuple[float, float]

    @classmethod
    def of(cls, smoothed: Any) -> Noise:
        low = -math.inf if smoothed.low is None else smoothed.low
        high = math.inf if smoothed.high is None else smoothed.high
        # a score that was clipped in single precision may be beyond the limit by a rounding
        limits = min(low, float(np.float32(low))), max(high, float(np.float32(high)))
        return cls(smoothed.sigma, smoothed.percentile, limits)

    def center(self, scores: Floats) -> float:
        """The smoothed score, from noisy ones."""
        if self.percentile is None:
            return float(scores.mean())
        rank = max(math.ceil(self.percentile * len(scores)), 1) - 1
        return float(np.partition(scores, rank)[rank])

    def bounds(self, scores: Floats, alpha: float, radius: float) -> tuple[float, float]:
        """(low, high) of the smoothed score over the l2 ball."""
        if self.percentile is None:
            return smoothing.mean_bounds(scores, alpha, radius / self.sigma, self.limits)
        return smoothing.quantile_bounds(scores, alpha, radius / self.sigma, self.percentile)

    def certified_radius(self, scores: Floats, alpha: float, threshold: float, label: int) -> float:
        """How far the image may be moved until its decision could be wrong; 0 if it could be already."""
        if math.isnan(threshold):
            return math.nan
        if self.percentile is None:
            return self.sigma * smoothing.mean_radius(scores, alpha, threshold, label, self.limits)
        wrong = int(((scores > threshold) != label).sum())
        return self.sigma * smoothing.quantile_radius(wrong, len(scores), alpha, self.may_be_wrong(label))

    def may_be_wrong(self, label: int) -> float:
        """The chance of a noisy score on the wrong side of the threshold from which on the decision may be wrong."""
        assert self.percentile is not None
        return self.percentile if label else 1 - self.percentile

    def largest_radius(self, alpha: float, samples: int) -> float:
        """The largest at which bounds are finite; not above 0 if there is none."""
        if self.percentile is None:
            return math.inf
        return self.sigma * smoothing.largest_shift(alpha, samples, self.percentile)


class Certifier:
    """Draws noisy scores, and makes a row of those of an image."""

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        prepared: Prepared,
        settings: Certificate,
        batch_size: int,
        tell: Tell = lambda message: None,
        keep: bool = True,
    ):
        self.spec, self.data, self.prepared, self.settings, self.tell = spec, data, prepared, settings, tell
        self.noise = Noise.of(prepared.detector)
        self.alpha = settings.alpha / len(data.test)
        """Of one image: whatever is said of all of them together fails with a chance of at most `settings.alpha`."""
        self.threshold = prepared.threshold.value if prepared.threshold.held_out else math.nan
        threshold = None if math.isnan(self.threshold) else self.threshold
        self.beforehand = Passes()
        self.score = Score(with_draws(prepared.detector, 1), spec.detector, threshold, spec.goal)
        """Of one draw: that of one noisy image."""
        if spec.goal == "threshold":
            self.score.needed_threshold("--goal threshold")
            if self.noise.percentile is None:
                raise UserError("--goal threshold counts noisy scores, and a mean is no count: use --goal rank")
        self.batch_size = batch_size
        self.folder = self._folder() if keep else None
        self.found: dict[int, Floats] = {}
        """Noisy scores of the image that is being looked at."""

    def probe(self) -> None:
        """Scores of noisy images that are not finite, or all the same, are refused before the work."""
        some = self.data.test.of_each_class(PROBE_IMAGES)
        found = np.array([self._draw(i, 0, 1)[0] for i in some])
        refuse_constant(self.spec.detector, found.tolist(), f"{len(some)} different noisy images")
        kept = [self._kept(path)[:1] if (path := self._path(i)) else np.empty(0) for i in some]
        off = [abs(float(k[0]) - now) for k, now in zip(kept, found, strict=True) if len(k)]
        if self.folder is not None and off and not max(off) <= SAME_DRAW * float(np.ptp(found)):
            self.tell(f"{self.spec.detector}: kept draws are not what it gives now; drawing all of them again")
            shutil.rmtree(self.folder)

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these images."""
        rows = []
        for index in indices:
            before = self.score.passes.forwards
            row, used = self._bounded(index) if self.spec.goal == "rank" else self._decided(index)
            self.score.passes.forwards = before + used  # kept ones as well: what the row rests on
            rows.append(row)
        return rows

    def radius_of(self, label: int) -> float:
        """What the adversary has at an image of this class."""
        controls = self.spec.threat.controls(torch.tensor([label]))
        return self.spec.threat.radius if bool(controls) else 0.0

    def _bounded(self, index: int) -> tuple[Row, int]:
        record, noise = self.data.test.records[index], self.noise
        scores = self.draws(index)
        radius = self.radius_of(record.label)
        low, high = noise.bounds(scores, self.alpha, radius)
        low_0, high_0 = noise.bounds(scores, self.alpha, 0.0)
        stands = noise.certified_radius(scores, self.alpha, self.threshold, record.label)
        more = {"low": low, "high": high, "low_0": low_0, "high_0": high_0, "certified_radius": stands}
        worst = low if record.label else high
        return Row(record.id, record.label, noise.center(scores), worst, radius, math.nan, more), len(scores)

    def _decided(self, index: int) -> tuple[Row, int]:
        """`worst` is only as far on the right side of the threshold as is known: just there, or infinitely wrong."""
        record, noise = self.data.test.records[index], self.noise
        radius = self.radius_of(record.label)
        p = float(special.ndtr(special.ndtri(noise.may_be_wrong(record.label)) - radius / noise.sigma))
        scores, verdict = np.empty(0), None
        while verdict is None and len(scores) < self.settings.samples:
            seen = len(scores)
            scores = self.draws(index, min(seen + self.batch_size, self.settings.samples))
            wrong = ((scores > self.threshold) != record.label).cumsum()
            for n in range(seen + 1, len(scores) + 1):
                verdict = smoothing.decided(int(wrong[n - 1]), n, self.alpha, p)
                if verdict is not None:
                    scores = scores[:n]
                    break
        edge = float(np.nextafter(self.threshold, math.inf)) if record.label else self.threshold
        beyond = -math.inf if record.label else math.inf
        worst = edge if verdict else beyond
        more = {"draws": float(len(scores))}
        return Row(record.id, record.label, noise.center(scores), worst, radius, math.nan, more), len(scores)

    def draws(self, index: int, count: int | None = None) -> Floats:
        """The first `count` noisy scores of a test image; those that are kept are not drawn again."""
        count = self.settings.samples if count is None else count
        path = self._path(index)
        if index not in self.found:
            self.found = {index: np.empty(0) if path is None else self._kept(path)}
        found = self.found[index]
        new, unkept, kept_at = [found], [], time.monotonic()
        done = len(found)
        while done < count:
            batch = self._draw(index, done, min(self.batch_size, count - done))
            done += len(batch)
            new.append(batch)
            unkept.append(batch)
            if path is not None and (done >= count or time.monotonic() - kept_at > KEEP_EVERY):
                files.write_at(path, 8 * (done - sum(map(len, unkept))), np.concatenate(unkept).astype("<f8").tobytes())
                unkept, kept_at = [], time.monotonic()
        self.found[index] = np.concatenate(new)
        return self.found[index][:count]

    def _path(self, index: int) -> Path | None:
        """Where the draws of an image are kept."""
        return None if self.folder is None else self.folder / f"{files.digest(self.data.test.records[index].id)}.f8"

    @staticmethod
    def _kept(path: Path) -> Floats:
        """Whole scores only: a kill may have cut the last one, and a crash of the machine may have left anything."""
        if not path.exists():
            return np.empty(0)
        with files.says_why(path):
            content = path.read_bytes()
        found = np.frombuffer(content[: len(content) // 8 * 8], dtype="<f8")
        return found if np.isfinite(found).all() else np.empty(0)

    def _draw(self, index: int, first: int, count: int) -> Floats:
        """Scores of one image under the draws first, first + 1, ...; each has a source of its own."""
        name = self.data.test.records[index].id
        return self._scores(self.data.test.images([index]), name, first, count)

    def scores_of(self, image: Tensor, name: str) -> Floats:
        """As many noisy scores of any image (1, 3, H, W) as a certificate rests on; none is kept."""
        batches = range(0, self.settings.samples, self.batch_size)
        sizes = [min(self.batch_size, self.settings.samples - first) for first in batches]
        return np.concatenate([self._scores(image, name, f, c) for f, c in zip(batches, sizes, strict=True)])

    def _scores(self, image: Tensor, name: str, first: int, count: int) -> Floats:
        rng = Rng.certificate(self.spec.seed, name, range(first, first + count))
        x = image.to(self.prepared.device).expand(count, -1, -1, -1)
        scores = None
        try:
            with torch.no_grad():
                scores = self.score(x, rng).double().cpu().numpy()
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        if scores is None:  # out of the handler, which would keep what filled the memory
            free_memory()
            half = count // 2
            return np.concatenate(
                [self._scores(image, name, first, half), self._scores(image, name, first + half, count - half)]
            )
        if not np.isfinite(scores).all():
            raise UserError(
                f"detector {self.spec.detector} gives the image {name}, with noise of sigma {self.noise.sigma:g}, "
                f"the score {scores[~np.isfinite(scores)][0]}; noisy scores must be finite"
            )
        return np.asarray(scores)

    def _folder(self) -> Path | None:
        """Where draws are kept: by everything that they depend on, the weights included."""
        origin, detector = self.prepared.origin, self.prepared.detector
        if any(origin_of(part).code.startswith(NOTEBOOK) for part in parts_of(detector)):  # defined in a notebook
            return None
        aside = {"n", "center"}  # of the smoothing: neither changes a noisy score
        identity = {
            "detector": origin.name,
            "code": origin.code,
            "parameters": {k: v for k, v in origin.parameters.items() if k.removeprefix(f"{OUTER}.") not in aside},
            "weights": weights_of(detector),
            "train": self.data.train.fingerprint,
            "test": self.data.test.fingerprint,
            "seed": self.spec.seed,
            "drawn by": own_code(),
            "versions": versions(),
            "device": device_name(self.prepared.device),
        }
        return folder_of("draws", identity)


@functools.cache
def own_code() -> str:
    """Hash of the code that turns draws into bounds."""
    package = Path(__file__).parents[1]
    names = ("engine/certifier.py", "stats/smoothing.py", "core/rng.py")
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in names)).hexdigest()
