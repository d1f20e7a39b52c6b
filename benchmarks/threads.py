"""One thread or two, sleeping or spinning at barriers, on a quiet machine and beside another busy process.

    python benchmarks/threads.py [--detectors autoencoder,advrad,patchcore] [--rounds 3]

Seconds of a training step (patchcore has none) and of a forward and backward pass, each in a process of its own, the
settings in turn; printed are medians as a markdown table. *Spinning* is what OpenMP does by itself; `bench` lets
threads sleep (OMP_WAIT_POLICY=PASSIVE) unless you set it. *Busy* is a process that computes beside it with as many
threads as there are cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib import import_module
from typing import Any

from bench.core.progress import Progress

THREADS = (1, 2)
WAITING = {"asleep": "PASSIVE", "spinning": "ACTIVE"}
PARAMS = {"patchcore": {"backbone": "cifar_resnet18", "layers": "3", "coreset": "0.02", "neighbours": "1"}}
STEPS, PASSES, BATCH = 12, 4, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", default="autoencoder,advrad,patchcore")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.image_size)))
        return
    settings = [(threads, waiting) for threads in THREADS for waiting in WAITING if threads > 1 or waiting == "asleep"]
    found: dict[tuple[str, str, int, str], list[dict[str, float]]] = defaultdict(list)
    turns = itertools.product(range(options.rounds), ("quiet", "busy"), options.detectors.split(","), settings)
    for _, machine, detector, (threads, waiting) in turns:
        found[detector, machine, threads, waiting].append(run(detector, machine == "busy", threads, waiting, options))
    print(
        "| detector | machine | threads | training step, ms | pass of an image, ms |\n| --- | --- | --- | --- | --- |"
    )
    for (detector, machine, threads, waiting), times in sorted(found.items()):
        step, both = (1000 * statistics.median(one[what] for one in times) for what in ("step", "pass"))
        how = "1" if threads == 1 else f"{threads}, {waiting}"
        print(f"| {detector} | {machine} | {how} | {f'{step:.0f}' if step else '-'} | {both:.2f} |")


def run(detector: str, busy: bool, threads: int, waiting: str, options: argparse.Namespace) -> dict[str, float]:
    """In a process of its own, whose OpenMP reads its settings when it starts."""
    beside = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        if beside:
            time.sleep(5)  # it imports torch
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": WAITING[waiting]}
        command = [sys.executable, __file__, "--measure", detector, "--image-size", str(options.image_size)]
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return times
    finally:
        if beside:
            beside.kill()


BUSY = """
import os
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
import torch
a = torch.rand(1000, 1000)
while True:
    a = a @ a / 500
"""


def measured(name: str, size: int) -> dict[str, float]:
    """Seconds of a training step (0 where there is none), and of a forward and backward pass of an image."""
    import torch
    from torch.utils.data import DataLoader

    import bench
    from bench.plugins.fitting import DetectorSpec

    training: Any = import_module("bench.detectors._training")
    training.WORK_OF_A_THREAD = 1  # a fit takes the threads that it is given here, not those that it would choose
    data = bench.load_data("textures", category="brick", image_size=size)
    steps = {} if name in PARAMS else {"steps": str(STEPS)}
    detector, clock = DetectorSpec(name, PARAMS.get(name, steps)).build(), Clock()
    detector.progress = clock
    detector.fit(DataLoader(data.train, batch_size=BATCH))
    detector.eval()
    x = data.test.images(range(BATCH))
    started = 0.0
    for i in range(PASSES + 1):
        started = time.perf_counter() if i == 1 else started  # the first warms up
        point = x.clone().requires_grad_(True)
        torch.autograd.grad(detector(point).sum(), point)
    step = 0.0 if name in PARAMS else (clock.times[-1] - clock.times[1]) / (len(clock.times) - 2)
    return {"step": step, "pass": (time.perf_counter() - started) / PASSES / BATCH}


class Clock(Progress):
    """Hears of the steps of a fit."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        self.times.append(time.perf_counter())


if __name__ == "__main__":
    main()
