"""What our code adds to an attack of 20 steps: a bare loop of forward + backward passes, the attack, and `evaluate`.

    python benchmarks/overhead.py [--detector autoencoder] [--attack pgd-linf] [--rounds 5]

All three run on the same fitted detector and batch, in turn. Printed are medians: the attack's seconds per pass against
those of the bare loop (a forward and a backward are a pass each), and the seconds of `evaluate`, which has more passes,
against the loop's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import bench
from bench import Rng, Score
from bench.plugins.lookup import make_attack
from bench.system.memory import keep_freed_memory

STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    x, ids = data.test.images(range(len(data.test))), data.test.ids
    sign = torch.tensor([1.0 - 2 * label for label in data.test.labels]).to(x)
    threat = bench.ThreatModel(options.attack.rpartition("-")[2], options.eps)
    attack = make_attack(options.attack, {"steps": STEPS})[2]
    score = Score(detector)

    def bare() -> None:
        """The least that 20 steps can cost: no projection, no choice of the best, no record."""
        for _ in range(STEPS * draws):
            point = x.clone().requires_grad_(True)
            torch.autograd.grad(detector.score(point).sum(), point)

    def attacked() -> None:
        attack(score, x, sign, threat, Rng(0, ids))

    def harness() -> float:
        rows = bench.evaluate(detector, data, options.attack, threat, attack_params={"steps": STEPS}, batch_size=len(x))
        return float(rows.attrs["run"]["seconds"])  # of the batch: scored, attacked, verified, scored again

    timed(bare), timed(attacked), harness()  # warm up
    before = score.forwards + score.backwards
    rounds = [(timed(bare), timed(attacked), harness()) for _ in range(options.rounds)]
    least, ours, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
    passes = (score.forwards + score.backwards - before) / len(x) / options.rounds
    size = f"{len(x)} images of {options.image_size} px"
    print(
        f"{options.detector}, {options.attack} {options.eps}, {size}, {draws} draws, {torch.get_num_threads()} threads"
    )
    per_pass = (ours / passes) / (least / (2 * STEPS * draws))
    print(f"bare loop {least:.2f} s; the attack {ours:.2f} s for {passes:.0f} passes: ratio per pass {per_pass:.3f}")
    print(f"`evaluate` {whole:.2f} s: ratio {whole / least:.3f}")


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
