"""What the harness adds to an attack of 20 steps: `evaluate` against a bare loop of 20 forward + backward passes.

    python benchmarks/overhead.py [--detector autoencoder] [--attack pgd-linf] [--rounds 5]

Both run on the same fitted detector and the same batch, alternating; the ratio of the medians is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import bench
from bench.memory import keep_freed_memory

STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", default="autoencoder")
    parser.add_argument("--attack", default="pgd-linf")
    parser.add_argument("--eps", default="2/255")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--param", action="append", default=[])
    options = parser.parse_args()
    keep_freed_memory()

    data = bench.load_data(category="brick", image_size=options.image_size).limited(32)
    params = dict(text.split("=", 1) for text in options.param)
    detector = bench.fit_or_load(options.detector, data, **params)
    draws = 8 if detector.randomized else 1
    x = data.test.images(range(len(data.test)))

    def bare() -> None:
        """The least that 20 steps can cost: no projection, no choice of the best, no record."""
        for _ in range(STEPS * draws):
            point = x.clone().requires_grad_(True)
            torch.autograd.grad(detector.score(point).sum(), point)

    def harness() -> float:
        threat = bench.ThreatModel(options.attack.rpartition("-")[2], options.eps)
        rows = bench.evaluate(detector, data, options.attack, threat, attack_params={"steps": STEPS}, batch_size=len(x))
        return float(rows.attrs["run"]["seconds"])  # of the batch: scored, attacked, verified, scored again

    timed(bare), harness()  # warm up
    pairs = [(timed(bare), harness()) for _ in range(options.rounds)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    size = f"{len(x)} images of {options.image_size} px"
    print(
        f"{options.detector}, {options.attack} {options.eps}, {size}, {draws} draws, {torch.get_num_threads()} threads"
    )
    print(f"bare loop {slow:.2f} s, harness {fast:.2f} s: ratio {fast / slow:.3f}")


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
