"""Greedy k-center selection of a PatchCore bank: ours against anomalib's, on the same points and machine.

    python benchmarks/coreset.py [--points 100000] [--dims 448] [--share 0.1] [--latent 16]

Prints the seconds of both, their ratio, and the cover radius of both: the largest distance of any point to its nearest
chosen one, between the points themselves (anomalib chooses by their random projections). The points are made like
features after a ReLU, of few hidden dimensions; `--latent 0` makes every dimension independent, the hardest case.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import time

import torch
from torch import Tensor

from bench.plugins import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=448)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = int(options.points * options.share)
    points = make_points(options.points, options.dims, options.latent, options.seed)
    place = f"{torch.get_num_threads()} threads"
    print(f"{count} of {options.points} points of {options.dims} dimensions, latent {options.latent}, {place}")

    seconds = {}
    anomalibs(points[:100], 0.1)  # imports are not timed
    for name, select in (("ours", ours), ("anomalib", anomalibs)):
        torch.manual_seed(options.seed)
        started = time.perf_counter()
        chosen = select(points, options.share)
        seconds[name] = time.perf_counter() - started
        assert len(set(chosen.tolist())) == count, f"{name} chose a point twice"
        print(f"{name}: {seconds[name]:.1f} s, cover radius {cover_radius(points, chosen):.4f}", flush=True)
    print(f"ratio ours / anomalib {seconds['ours'] / seconds['anomalib']:.3f}")


def make_points(count: int, dims: int, latent: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if latent == 0:
        return torch.randn(count, dims, generator=generator)
    hidden = torch.randn(count, latent, generator=generator) @ torch.randn(latent, dims, generator=generator)
    return (hidden + 0.1 * torch.randn(count, dims, generator=generator)).relu()


def ours(points: Tensor, share: float) -> Tensor:
    package = registry.load("detectors", "patchcore").target.__module__.rpartition(".")[0]
    chosen: Tensor = importlib.import_module(f"{package}._coreset").k_center_greedy(points, int(len(points) * share))
    return chosen


def anomalibs(points: Tensor, share: float) -> Tensor:
    from anomalib.models.components import KCenterGreedy

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        return torch.tensor(KCenterGreedy(points, share).select_coreset_idxs())


def cover_radius(points: Tensor, chosen: Tensor) -> float:
    """In double precision, a block of points at a time."""
    centres = points[chosen].double()
    lengths = centres.square().sum(1)
    worst = 0.0
    for block in points.split(2000):
        own = block.double()
        squared = torch.addmm(lengths, own, centres.T, alpha=-2).amin(1) + own.square().sum(1)
        worst = max(worst, float(squared.max().clamp_min(0)))
    return worst**0.5


if __name__ == "__main__":
    main()
