"""Peak memory of a PatchCore attack on 83 images at 224 px.

    python benchmarks/memory.py --data-root DIR --category mvtec_bottle --weights mobilenetv2_100.safetensors

Fitting and attacking run in processes of their own; what is printed is the peak resident memory of each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--coreset", default="0.1")
    parser.add_argument("--work", choices=("fit", "attack"))
    options = parser.parse_args()
    if options.work is None:
        for work in ("fit", "attack"):
            subprocess.run([sys.executable, *sys.argv, "--work", work], check=True)
        return

    import bench
    from bench.system.memory import keep_freed_memory

    keep_freed_memory()
    data = bench.load_data("folder", category=options.category, root=options.data_root, image_size=224)
    detector = bench.fit_or_load("patchcore", data, weights=options.weights, coreset=options.coreset)
    if options.work == "attack":
        rows = bench.evaluate(detector, data, "pgd-linf", attack_params={"steps": options.steps})
        print(f"attacked {len(rows)} images of 224 px, {options.steps} steps", end=": ")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.work} peaked at {peak:.2f} GiB")


if __name__ == "__main__":
    main()
