"""How often intervals hold the truth, and how often equal detectors are called worse: what docs/statistics.md reports.

    python benchmarks/simulated.py [auroc|others|means|differences|best] [--experiments 2000]

Scores are drawn from distributions whose AUROC is known; ties count half in it as in ours. The simulation is seeded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from bench.stats import intervals
from bench.stats.intervals import Spread
from bench.stats.measured import Measured, mean
from bench.stats.metrics import accuracy, auroc_of, average_precision_of, fpr95_of, points
from bench.stats.paired import difference, may_be_best

Floats = npt.NDArray[np.float64]
AUROCS = (0.5, 0.7, 0.85, 0.95, 0.98, 0.99, 0.999)
SIZES = ((16, 16), (20, 20), (32, 32), (50, 50), (100, 100), (20, 60), (60, 20))
"""(normal, anomalous)"""
Z = intervals.normal_quantile()
PAIRS = 2_000_000  # compared at a time


Metric = Callable[[Any, Any], Measured]


class Scores(NamedTuple):
    """Where scores come from."""

    normal: Callable[[np.random.Generator, tuple[int, ...]], Floats]
    anomalous: Callable[[np.random.Generator, tuple[int, ...]], Floats]


def _gap(auroc: float, scale: float = 1.0) -> float:
    return float(stats.norm.ppf(auroc)) * math.hypot(1, scale)


def binormal(auroc: float, scale: float = 1.0) -> Scores:
    """N(0, 1) against a normal distribution of another mean and standard deviation."""
    gap = _gap(auroc, scale)
    return Scores(lambda rng, n: rng.normal(size=n), lambda rng, n: gap + scale * rng.normal(size=n))


def wider(auroc: float) -> Scores:
    """Anomalous scores spread three times as far."""
    return binormal(auroc, 3.0)


def exponential(auroc: float) -> Scores:
    """Of another scale."""
    scale = auroc / (1 - auroc)
    return Scores(lambda rng, n: rng.exponential(size=n), lambda rng, n: scale * rng.exponential(size=n))


def shifted_exponential(auroc: float) -> Scores:
    gap = -math.log(2 * (1 - auroc))
    return Scores(lambda rng, n: rng.exponential(size=n), lambda rng, n: gap + rng.exponential(size=n))


def shifted_lognormal(auroc: float) -> Scores:
    """A few normal images score above everything."""
    places = np.exp(stats.norm.ppf((np.arange(4000) + 0.5) / 4000))
    gap = float(optimize.brentq(lambda g: stats.norm.cdf(np.log(places + g)).mean() - auroc, 0, 1000))
    return Scores(lambda rng, n: rng.lognormal(size=n), lambda rng, n: gap + rng.lognormal(size=n))


def rounded(auroc: float, step: float = 1.0) -> Scores:
    """Binormal scores rounded to whole steps."""
    edges = (np.arange(-60, 62) - 0.5) * step
    normal = np.diff(stats.norm.cdf(edges))
    below = np.cumsum(normal) - normal / 2
    gap = float(optimize.brentq(lambda g: np.diff(stats.norm.cdf(edges - g)) @ below - auroc, -1, 25))
    return Scores(
        lambda rng, n: np.round(rng.normal(size=n) / step), lambda rng, n: np.round((gap + rng.normal(size=n)) / step)
    )


def coarse(auroc: float) -> Scores:
    """To steps of two standard deviations: three to five different scores."""
    return rounded(auroc, 2.0)


FAMILIES = (binormal, wider, exponential, shifted_exponential, shifted_lognormal, rounded, coarse)


class Covered(NamedTuple):
    """Of one distribution, AUROC and size."""

    family: str
    auroc: float
    sizes: tuple[int, int]
    coverage: float
    width: float
    delong_coverage: float
    delong_width: float


def placements(normal: Floats, anomalous: Floats) -> tuple[Floats, Floats, Floats]:
    """(experiments, n), (experiments, m) -> AUROC and the variances of DeLong's two parts, (experiments,) each."""
    wins = (anomalous[:, :, None] > normal[:, None]) + (anomalous[:, :, None] >= normal[:, None]).astype(np.float32)
    first, second = (wins.mean(axis, dtype=np.float64) / 2 for axis in (2, 1))
    return first.mean(1), *(one.var(1, ddof=1) / one.shape[1] for one in (first, second))


def of_auroc(
    experiments: int,
    families: Sequence[Callable[[float], Scores]] = FAMILIES,
    aurocs: Sequence[float] = AUROCS,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> Iterator[Covered]:
    """Single cells, beside Wald's interval with DeLong's variance."""
    for family in families:
        for auroc in aurocs:
            scores = family(auroc)
            for n, m in sizes:
                rng = np.random.default_rng([1, FAMILIES.index(family), AUROCS.index(auroc), n, m])
                found, done = [], 0
                while done < experiments:
                    count = min(experiments - done, max(PAIRS // (n * m), 1))
                    found.append(placements(scores.normal(rng, (count, n)), scores.anomalous(rng, (count, m))))
                    done += count
                value, one, other = (np.concatenate(parts) for parts in zip(*found, strict=True))
                variance, typical = one + other, (1 / n + 1 / m) / 2
                ends = np.array([
                    intervals.share(float(v), Spread(float(s), typical, 1 / min(n, m)), Z)
                    for v, s in zip(value, variance, strict=True)
                ])  # fmt: skip
                half = Z * np.sqrt(variance)
                wald = np.stack([value - half, value + half], axis=1)
                yield Covered(
                    family.__name__, auroc, (n, m), *_covers(ends, auroc), *_covers(wald.clip(0, 1), auroc)
                )  # fmt: skip


def _covers(ends: Floats, truth: float) -> tuple[float, float]:
    """Share of intervals that hold the truth, and mean width."""
    inside = (ends[:, 0] <= truth + 1e-12) & (ends[:, 1] >= truth - 1e-12)
    return float(inside.mean()), float((ends[:, 1] - ends[:, 0]).mean())


def _images(scores: Scores, rng: np.random.Generator, n: int, m: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    labels = np.repeat([False, True], [n, m])
    return np.concatenate([scores.normal(rng, (n,)), scores.anomalous(rng, (m,))]), labels


def of_others(experiments: int) -> Iterator[tuple[str, str, float, tuple[int, int], float, float]]:
    """(metric, family, AUROC, sizes, coverage, width) of average precision, FPR95 and accuracy."""
    for family in (binormal, wider, shifted_exponential, rounded):
        for auroc in (0.7, 0.85, 0.95, 0.99):
            scores = family(auroc)
            for n, m in ((16, 16), (32, 32), (100, 100), (20, 60)):
                rng = np.random.default_rng([2, FAMILIES.index(family), AUROCS.index(auroc), n, m])
                everything, labels = _images(scores, rng, 400_000 * n // (n + m), 400_000 * m // (n + m))
                threshold = float(np.quantile(everything[~labels], 0.95))
                truth = points(everything, labels) | {"accuracy": accuracy(everything, labels, threshold).value}
                found: dict[str, list[tuple[float, float]]] = {"ap": [], "fpr95": [], "accuracy": []}
                for _ in range(experiments):
                    drawn = _images(scores, rng, n, m)
                    found["ap"].append(average_precision_of(*drawn).ends(Z))
                    found["fpr95"].append(fpr95_of(*drawn).ends(Z))
                    found["accuracy"].append(accuracy(*drawn, threshold).ends(Z))
                for name, ends in found.items():
                    yield name, family.__name__, auroc, (n, m), *_covers(np.array(ends), truth[name])


def of_means(experiments: int) -> Iterator[tuple[int, str, tuple[float, ...], tuple[int, int], float, float]]:
    """(categories, family, their AUROCs in turn, sizes, coverage, width)."""
    for count in (3, 15):
        for family in (binormal, wider, shifted_exponential, rounded):
            for aurocs in ((0.7,), (0.95,), (0.99,), (0.999,), (0.6, 0.99), (0.8, 0.999)):
                of = [aurocs[i % len(aurocs)] for i in range(count)]
                scores = [family(auroc) for auroc in of]
                for n, m in ((16, 16), (32, 32), (20, 60)):
                    rng = np.random.default_rng([3, count, FAMILIES.index(family), round(1000 * aurocs[0]), n])
                    ends = [
                        mean([auroc_of(*_images(one, rng, n, m)) for one in scores]).ends(Z) for _ in range(experiments)
                    ]
                    yield count, family.__name__, aurocs, (n, m), *_covers(np.array(ends), float(np.mean(of)))


def together(
    rng: np.random.Generator, aurocs: Sequence[float], images: int, alike: float
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(detectors, 2 * images) binormal scores of the same images; alike: correlation."""
    labels = np.repeat([False, True], images)
    shared, own = rng.normal(size=2 * images), rng.normal(size=(len(aurocs), 2 * images))
    gaps = np.array([_gap(auroc) for auroc in aurocs])
    scores = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own + gaps[:, None] * labels
    return scores, labels


class Told(NamedTuple):
    """Of two detectors."""

    aurocs: tuple[float, float]
    images: int
    """A class."""
    categories: int
    alike: float
    coverage: float
    width: float
    told: float
    """Share of experiments with p < 0.05."""


def of_differences(experiments: int) -> Iterator[Told]:
    for categories in (1, 5):
        for aurocs in ((0.7, 0.7), (0.9, 0.9), (0.9, 0.8), (0.99, 0.99), (0.99, 0.95), (0.999, 0.98)):
            for images in (16, 32, 100):
                for alike in (0.0, 0.7, 0.95):
                    seed = [4, categories, round(1e5 * sum(aurocs)), images, round(100 * alike)]
                    rng, ends, told = np.random.default_rng(seed), [], 0
                    for _ in range(experiments):
                        cells = [together(rng, aurocs, images, alike) for _ in range(categories)]
                        a, b = (mean([auroc_of(s[i], y) for s, y in cells]) for i in (0, 1))
                        found = difference(a, b)
                        ends.append(found.estimate[1:])
                        told += found.p < 0.05
                    covers = _covers(np.array(ends), aurocs[0] - aurocs[1])
                    yield Told(aurocs, images, categories, alike, *covers, told / experiments)


class Best(NamedTuple):
    """Of boards of detectors, of which the last may be worse than the others, which are equal."""

    detectors: int
    categories: int
    images: int
    auroc: float
    worse: float
    """AUROC by which the last is worse."""
    wrong: float
    """Share of boards in which one of the equal ones is called worse."""
    right: float
    """Share of boards in which the last one is."""


def of_best(
    experiments: int,
    detectors: Sequence[int] = (2, 5, 13, 30),
    metric: Metric = auroc_of,
    margins: Sequence[float] = (0.0, 0.1, 0.2),
    beds: Sequence[tuple[int, int]] = ((1, 16), (1, 64), (5, 16), (5, 64)),
    aurocs: Sequence[float] = (0.8, 0.95),
) -> Iterator[Best]:
    """beds: (categories, images of each class)."""
    for categories, images in beds:
        for count in detectors:
            for auroc in aurocs:
                for worse in margins:
                    rng = np.random.default_rng([5, categories, images, count, round(100 * auroc)])
                    truth = [*[auroc] * (count - 1), auroc - worse]
                    left = [_left(rng, truth, categories, images, metric) for _ in range(experiments)]
                    equal = set(range(count if worse == 0 else count - 1))
                    wrong = float(np.mean([not equal <= found for found in left]))
                    right = float(np.mean([count - 1 not in found for found in left]))
                    yield Best(count, categories, images, auroc, worse, wrong, right)


def _left(
    rng: np.random.Generator,
    aurocs: Sequence[float],
    categories: int,
    images: int,
    metric: Metric,
) -> set[int]:
    cells = [together(rng, aurocs, images, 0.5) for _ in range(categories)]
    return set(may_be_best([mean([metric(s[i], y) for s, y in cells]) for i in range(len(aurocs))]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    makers: dict[str, Callable[[int], Iterator[tuple[Any, ...]]]] = {
        "auroc": of_auroc, "others": of_others, "means": of_means, "differences": of_differences, "best": of_best,
    }  # fmt: skip
    parser.add_argument("what", choices=makers, nargs="?", default="auroc")
    parser.add_argument("--experiments", type=int, default=2000)
    options = parser.parse_args()
    for row in makers[options.what](options.experiments):
        print(*(f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
