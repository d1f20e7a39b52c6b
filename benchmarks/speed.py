"""How fast attacks are beside a bare loop and beside other libraries, and how cost grows: one command, one table each.

    python benchmarks/speed.py [--weights mobilenetv2_100.safetensors] [--rounds 5] [--out speed]

*Attacks*: passes (an image forward or backward) a second of pgd and apgd and of each library that is installed
(benchmarks/README.md), through the bridges of `side_by_side.py`, as a share of those of a bare loop of forward and
backward passes: all in turn, in one process, on the same fitted detector and batch; medians of the rounds.
*Growth*: seconds of `pgd` over steps, images, resolution, noise draws and the size of PatchCore's memory.
*Commands*: seconds until `bench --help` and `bench list detectors` end.
Written are OUT.md and, of the growth, OUT.png.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peers import PEERS, PeerAttack
from torch import Tensor

import bench
from bench import Attack, Detector, Rng, Score, ThreatModel
from bench.plugins.lookup import make_attack
from bench.system.memory import keep_freed_memory

PASSES = 20  # forward and backward, of each attack
BATCH = 16
BALL = ThreatModel("linf", "2/255")
COMPARED = ("torchattacks:pgd", "torchattacks:apgd", "foolbox:pgd", "art:pgd", "secmlt:pgd", "pyautoattack:apgd-ce")


class Cell(NamedTuple):
    detector: str
    size: int
    params: Mapping[str, str]
    batch: int = BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of PatchCore's backbone; without it PatchCore is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("speed"))
    options = parser.parse_args()
    keep_freed_memory()
    cells = [Cell("autoencoder", 64, {"steps": "200"})]
    if options.weights:
        backbone = {"weights": str(options.weights)}
        cells += [Cell("patchcore", 128, backbone, 4), Cell("patchcore", 224, backbone, 2)]
    cells += [Cell("advrad", 64, {"steps": "50"}, 4)]
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    lines = [
        f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}, medians of {options.rounds}.",
        "",
    ]
    lines += [
        *attacks(cells, options.rounds),
        "",
        *growth(options.out.with_suffix(".png")),
        "",
        *commands(options.rounds),
    ]
    text = "\n".join(lines) + "\n"
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def attacks(cells: list[Cell], rounds: int) -> Iterator[str]:
    """A row per cell and attack."""
    missing = {name: why for name in COMPARED if (why := PEERS[name].missing())}
    peers = [name for name in COMPARED if name not in missing]
    yield from (f"Left out: {why}." for why in missing.values())
    yield f"| detector | px | bare loop, passes/s | pgd | apgd | {' | '.join(peers)} |"
    yield "|" + " --- |" * (5 + len(peers))
    for cell in cells:
        task = Task.of(cell)
        ours = {n: make_attack(f"{n}-linf", {"steps": str(PASSES), "draws": "1"})[2] for n in ("pgd", "apgd")}
        theirs = {name: PeerAttack(PEERS[name], PASSES, 1) for name in peers}
        runs = {name: partial(task.attacked, attack) for name, attack in (ours | theirs).items()}
        times = in_turn({"bare": task.bare, **runs}, rounds)
        bare = times.pop("bare")
        shares = " | ".join(f"{rate / bare:.2f}" for rate in times.values())
        yield f"| {cell.detector} | {cell.size} | {bare:.0f} | {shares} |"


class Task:
    """A fitted detector and a batch of test images."""

    def __init__(self, detector: Detector, x: Tensor, sign: Tensor, ids: tuple[str, ...]):
        self.detector, self.x, self.sign, self.ids = detector, x, sign, ids

    @classmethod
    def of(cls, cell: Cell) -> Task:
        data = bench.load_data("textures", category="brick", image_size=cell.size).limited(cell.batch)
        detector = bench.fit_or_load(cell.detector, data, params=dict(cell.params))
        indices = range(len(data.test))
        sign = torch.tensor([1.0 - 2 * label for label in data.test.labels])
        return cls(detector, data.test.images(indices), sign, tuple(data.test.ids))

    def bare(self) -> float:
        """Passes a second of the least that an attack can do: no projection, no choice of the best, no record."""
        started = time.perf_counter()
        for _ in range(PASSES):
            point = self.x.clone().requires_grad_(True)
            torch.autograd.grad(self.detector.score(point).sum(), point)
        return 2 * PASSES * len(self.x) / (time.perf_counter() - started)

    def attacked(self, attack: Attack) -> float:
        """Passes a second of an attack, which are counted."""
        score = Score(self.detector)
        started = time.perf_counter()
        attack(score, self.x, self.sign, BALL, Rng(0, self.ids))
        return (score.forwards + score.backwards) / (time.perf_counter() - started)


def in_turn(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Name -> the median of what it returns; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            found[name].append(run())
    return {name: statistics.median(rates[1:]) for name, rates in found.items()}


def growth(path: Path) -> Iterator[str]:
    """Seconds over what the cost depends on, as a table, and as a figure with one line each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    small = {"backbone": "cifar_resnet18", "layers": "3"}
    lines: dict[str, list[tuple[float, float]]] = {
        "steps (autoencoder)": [(n, pgd("autoencoder", steps=n)) for n in (10, 20, 40, 80)],
        "images (autoencoder)": [(n, pgd("autoencoder", images=n)) for n in (8, 16, 32, 64)],
        "pixels of a side (autoencoder)": [(n, pgd("autoencoder", size=n)) for n in (32, 64, 128)],
        "draws (advrad, 32 px)": [(n, pgd("advrad", size=32, draws=n)) for n in (2, 4, 8, 16)],
        "share of patches (patchcore, 32 px)": [
            (share, pgd("patchcore", {**small, "coreset": str(share)}, size=32)) for share in (0.01, 0.05, 0.25)
        ],
    }
    figure, axes = plt.subplots(1, len(lines), figsize=(3 * len(lines), 2.6), layout="constrained")
    yield "| pgd over | seconds |"
    yield "| --- | --- |"
    for (name, points), plot in zip(lines.items(), axes, strict=True):
        plot.loglog(*zip(*points, strict=True), marker="o")
        plot.set(xlabel=name, ylabel="seconds")
        yield f"| {name}: {', '.join(f'{x:g}' for x, _ in points)} | {', '.join(f'{y:.2f}' for _, y in points)} |"
    figure.savefig(path, dpi=150)


def pgd(
    name: str,
    params: Mapping[str, str] | None = None,
    steps: int = 10,
    images: int = 16,
    size: int = 64,
    draws: int = 1,
) -> float:
    """Seconds, the least of three."""
    task = Task.of(Cell(name, size, params or {"steps": "50"}, images))
    attack = make_attack("pgd-linf", {"steps": str(steps), "draws": str(draws)})[2]

    def seconds() -> float:
        started = time.perf_counter()
        task.attacked(attack)
        return time.perf_counter() - started

    return min(seconds() for _ in range(3))


def commands(rounds: int) -> Iterator[str]:
    """Seconds of commands that somebody waits for."""
    yield "| command | seconds |"
    yield "| --- | --- |"
    for words in (("--help",), ("list", "detectors"), ("list", "attacks"), ("describe", "patchcore")):

        def run(words: tuple[str, ...] = words) -> float:
            started = time.perf_counter()
            command: list[Any] = [sys.executable, "-m", "bench.cli", *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - started

        yield f"| bench {' '.join(words)} | {statistics.median(run() for _ in range(rounds + 1)):.2f} |"


if __name__ == "__main__":
    main()
