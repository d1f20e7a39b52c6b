"""What certification costs beside the detector itself: noisy scores per second, a second radius, memory over n.

    python benchmarks/certify.py [--detector autoencoder] [--samples 320] [--images 4]

Plain forward passes and draws alternate at the same batch size; the ratio of the medians is printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile

import torch
from overhead import timed

import bench
from bench.cells.spec import RunSpec
from bench.core.detector import Origin
from bench.core.threshold import Threshold
from bench.engine.certifier import Certificate, Certifier
from bench.engine.worker import Prepared
from bench.harness.certify import around
from bench.system.memory import PeakMemory, keep_freed_memory

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", default="autoencoder")
    parser.add_argument("--samples", type=int, default=320)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--param", action="append", default=[])
    parser.add_argument(
        "--memory", action="store_true", help="print the peak memory of one certificate, and nothing else"
    )
    options = parser.parse_args()
    keep_freed_memory()
    data = bench.load_data(category="brick").limited(options.images)
    params = dict(text.split("=", 1) for text in options.param)
    detector = bench.fit_or_load(options.detector, data, **params)
    if options.memory:
        memory = PeakMemory(detector.device)
        with tempfile.TemporaryDirectory() as folder:
            bench.certify(detector, data, 0.1, samples=options.samples, results=folder)
        print(memory.mebibytes())
        return

    x = data.test.images(range(len(data.test)))
    smoothed = around(detector, 0.25)
    settings = Certificate(options.samples)
    spec = RunSpec(
        detector="smoothed", detector_parameters={}, attack="certificate", attack_parameters={}, norm="l2", eps="0.1",
        targets="both", dataset=data.name, category=data.category, image_size=64, seed=0, limit=None, draws=None,
        goal="rank",
    )  # fmt: skip
    origin = Origin("smoothed", "unknown", {}, {})
    ready = Prepared(smoothed, origin, Threshold(0.0, 0, 0.05), (), detector.device)

    def plain() -> None:
        with torch.no_grad():
            for i in range(len(x)):
                batch = x[i : i + 1].expand(BATCH, -1, -1, -1).contiguous()
                for _ in range(options.samples // BATCH):
                    detector.score(batch)

    def draws() -> Certifier:
        certifier = Certifier(spec, data, ready, settings, BATCH, keep=False)
        for i in range(len(x)):
            certifier.draws(i)
        return certifier

    for run in (plain, draws):  # warm up
        run()
    pairs = [(timed(plain), timed(draws)) for _ in range(options.rounds)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    count = options.samples // BATCH * BATCH * len(x)
    print(f"{options.detector}, {len(x)} images of 64 px, {options.samples} draws, {torch.get_num_threads()} threads")
    print(f"plain {count / slow:.0f} forward/s, certificate {count / fast:.0f} draws/s: ratio {slow / fast:.3f}")

    certifier = Certifier(spec, data, ready, settings, BATCH, keep=False)
    found = [certifier.draws(0)]
    bounding = timed(lambda: [certifier.noise.bounds(found[0], 1e-5, radius) for radius in (0.1, 0.0)])
    print(f"one more radius: {bounding / (fast / len(x)):.4%} of an image's draws")
    for samples in (options.samples, 10 * options.samples):
        command = [sys.executable, __file__, "--detector", options.detector, "--samples", str(samples), "--memory"]
        command += ["--images", str(options.images), *(part for text in options.param for part in ("--param", text))]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"peak memory with {samples} draws: {peak} MiB")


if __name__ == "__main__":
    main()
