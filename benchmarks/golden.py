"""Golden rows: a small fixed grid, and a hash of every cell's rows and metrics, to show that a change moved no number.

    python benchmarks/golden.py --out before.json      # about five minutes on one core
    ... change the code ...
    python benchmarks/golden.py --out after.json --against before.json

Hashes depend on the processor, the number of threads and the version of torch, so both runs belong on one machine; the
script takes one thread. Fits are made anew in a folder of their own. Exit status 1: some cell differs, or is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

BED = "--dataset textures --category brick"
GRID = (
    # detectors under one attack, two budgets each: the larger starts from the smaller
    "run --detector autoencoder,pls,ocr-gan --attack pgd-linf --eps 1/255,2/255 --attack-param steps=5 "
    "--param steps=20",
    "run --detector advrad --attack pgd-linf --eps 1/255,2/255 --attack-param steps=3 --attack-param draws=2 "
    "--param steps=10 --draws 2",
    "run --detector patchcore --attack pgd-linf --eps 1/255,2/255 --attack-param steps=3 "
    "--param backbone=cifar_resnet18 --param layers=3",
    "run --detector anomalib:padim --attack pgd-linf --eps 2/255 --attack-param steps=3 "
    "--param backbone=mobilenetv2_100 --param weights=random",
    "run --detector {plugin}:PCA --attack pgd-linf,apgd-linf --eps 2/255 --attack-param steps=5",
    # attacks on one detector
    "run --detector autoencoder --attack apgd-linf,apgd-l2,eot-pgd-linf --eps 2/255,0.2 --attack-param steps=10 "
    "--param steps=20",
    "run --detector autoencoder --attack square-linf,square-l2 --eps 2/255 --attack-param queries=50 --param steps=20",
    "run --detector autoencoder --attack ddn-l2 --eps 0.5 --attack-param steps=10 --param steps=20",
    "run --detector autoencoder --attack pgd-l0 --eps 10 --attack-param steps=5 --param steps=20",
    "run --detector autoencoder --attack pgd-l1 --eps 12 --attack-param steps=5 --param steps=20",
    "run --detector autoencoder --attack standard-linf --eps 2/255 --attack-param steps=10 --attack-param queries=50 "
    "--attack-param transfer=false --param steps=20",
    "run --detector autoencoder --attack apgd-linf --eps 2/255 --attack-param steps=10 --goal threshold "
    "--param steps=20",
    # compositions
    "run --detector smoothed+autoencoder --attack apgd-l2 --eps 0.2 --attack-param steps=3 --attack-param draws=2 "
    "--param autoencoder.steps=20 --param smoothed.n=5 --draws 2",
    "run --detector adp+autoencoder --attack pgd-linf --eps 2/255 --attack-param steps=2 --attack-param draws=2 "
    "--param autoencoder.steps=20 --param adp.steps=5 --param adp.iterations=1 --limit 4 --draws 2",
    "run --detector advrad --attack standard-linf --eps 2/255 --attack-param steps=2 --attack-param queries=10 "
    "--attack-param draws=2 --attack-param transfer=false --param steps=10 --limit 4 --draws 2",
    # certificates
    "certify --detector autoencoder --sigma 0.12 --radius 0.05,0.1 --samples 60 --alpha 0.1 --param steps=20",
    "certify --detector autoencoder --sigma 0.12 --radius 0.05 --samples 60 --alpha 0.1 --goal threshold "
    "--param steps=20",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the hashes go (JSON)")
    parser.add_argument("--against", type=Path, help="hashes of an earlier run, to compare with")
    parser.add_argument("--results", type=Path, help="keep the cells there, to look at what differs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = options.results or Path(folder) / "results"
        _run(Path(folder), results)
        found = hashes(results)
    options.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(found)} cells: {options.out}")
    return _compare(json.loads(options.against.read_text(encoding="utf-8")), found) if options.against else 0


def _run(folder: Path, results: Path) -> None:
    """Every command of the grid, in this process, with a cache of its own."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from bench.cli import main as bench

    torch.set_num_threads(1)
    plugin = folder / "mine.py"
    plugin.write_text(readme_plugin(), encoding="utf-8")
    for command in GRID:
        words = f"{command.format(plugin=plugin)} {BED} --device cpu --results {results}".split()
        words += [] if "--limit" in words else ["--limit", "8"]
        status = bench(words)
        if status:
            raise SystemExit(f"exit status {status}: bench {' '.join(words)}")


def readme_plugin() -> str:
    """The complete detector that README shows."""
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class PCA(" in block)
    return str(found)


def hashes(results: Path) -> dict[str, dict[str, str]]:
    """Cell -> the sha256 of its samples.csv and of its metrics, by what defines the cell and not where it lies."""
    found = {}
    for path in sorted(results.rglob("run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        spec = {name: value for name, value in record["spec"].items() if value is not None}
        metrics = json.dumps(record["metrics"], sort_keys=True)
        found[json.dumps(spec, sort_keys=True)] = {
            "samples": hashlib.sha256((path.parent / "samples.csv").read_bytes()).hexdigest(),
            "metrics": hashlib.sha256(metrics.encode()).hexdigest(),
        }
    return found


def _compare(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> int:
    """Prints what is not the same; the exit status."""
    wrong = 0
    for cell in sorted({*before, *after}):
        if before.get(cell) != after.get(cell):
            wrong += 1
            one, other = before.get(cell, {}), after.get(cell, {})
            what = ", ".join(k for k in ("samples", "metrics") if one.get(k) != other.get(k))
            print(f"{'differs' if one and other else 'missing'} ({what}): {cell}")
    print(
        f"{len(before) - wrong} of {len(before)} cells are the same, byte for byte" if not wrong else f"{wrong} differ"
    )
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
