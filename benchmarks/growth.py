"""How the cost of a run grows: seconds over images and over cells, memory over images, and workers of a Ray cluster.

    python benchmarks/growth.py [--images 250,500,1000] [--cells 2,4,8] [--memory 500,10000] [--ray] [--rounds 3]

Everything is `bench run` of an autoencoder on made-up images of 32 px (half of them with a grey square), each in a
process of its own with one thread; times are medians, in turn. *Work* is what the records say of their attacks and
checks; *command* is the whole command, its imports and its fit (kept from before) included. Memory is the peak of the
process that attacks, in a run that does little more than score (`noise` with one try).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE = 32
FIT = ("--param", "steps=100")


class Took(NamedTuple):
    """A command."""

    seconds: float
    work: float
    """Seconds of all cells, by their records."""
    peak: float
    """MiB, of the process that has attacked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="250,500,1000")
    parser.add_argument("--cells", default="2,4,8")
    parser.add_argument("--memory", default="500,10000")
    parser.add_argument("--ray", action="store_true", help="one worker and two, of a cluster of this machine")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"XDG_CACHE_HOME": str(Path(folder) / "cache"), "OMP_NUM_THREADS": "1"}
        images, cells, memory = (_numbers(text) for text in (options.images, options.cells, options.memory))
        for count in {*images, *memory, 64}:
            make_images(Path(f"made/n{count}"), count)
        for category in ("a", "b", "c", "d"):
            make_images(Path(f"four/{category}"), 200)
        pgd = ("--attack", "pgd-linf", "--attack-param", "steps=10", "--workers", "1")
        runs = {f"images {n}": (*pgd, *of(f"n{n}")) for n in images}
        runs |= {f"cells {n}": (*pgd, *of("n64"), "--eps", _eps(n)) for n in cells}
        runs |= {f"memory {n}": ("--attack", "noise-linf", "--attack-param", "tries=1", *of(f"n{n}")) for n in memory}
        if options.ray:
            runs |= {f"ray {n}": (*pgd, "--executor", "ray", "--workers", str(n), *of("all", "four")) for n in (1, 2)}
        for words in runs.values():
            run(words)  # fits
        found: dict[str, list[Took]] = defaultdict(list)
        for _ in range(options.rounds):
            for name, words in runs.items():
                found[name].append(run(words))
    print("| what | command, s | work, s | peak, MiB |\n| --- | --- | --- | --- |")
    for name, took in found.items():
        seconds, work, peak = (statistics.median(values) for values in zip(*took, strict=True))
        print(f"| {name} | {seconds:.1f} | {work:.1f} | {peak:.0f} |")


def of(category: str, root: str = "made") -> tuple[str, ...]:
    return ("--dataset", "folder", "--data-root", root, "--category", category, "--image-size", str(SIZE))


def run(words: Sequence[str]) -> Took:
    with tempfile.TemporaryDirectory(dir=".") as results:
        command = [sys.executable, "-m", "bench.cli", "run", "--detector", "autoencoder", *FIT, *words]
        begun = time.monotonic()
        done = subprocess.run([*command, "--results", results], stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        if done.returncode:
            sys.exit(f"{' '.join(words)} failed")
        records = [json.loads(path.read_text()) for path in Path(results).rglob("run.json")]
        work = sum(record["seconds"] + record["checks_seconds"] for record in records)
        return Took(seconds, work, max(record["peak_memory"] or 0 for record in records))


def make_images(folder: Path, count: int) -> None:
    """40 normal images to learn from, and `count` to be tested."""
    random = np.random.default_rng(0)
    for place, number, defect in (("train/good", 60, False), ("test/good", count // 2, False),
                                  ("test/square", count - count // 2, True)):  # fmt: skip
        (folder / place).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            pixels = random.integers(60, 180, (SIZE, SIZE, 3)).astype(np.uint8)
            if defect:
                pixels[8:16, 8:16] = 110
            Image.fromarray(pixels).save(folder / place / f"{i:05}.png")


def _eps(cells: int) -> str:
    return ",".join(f"{i + 1}/255" for i in range(cells))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
