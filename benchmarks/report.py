"""Time, memory and size of a report of many cells, made of random rows.

    python benchmarks/report.py [--cells 2000] [--images 200] [--folder DIR]

The cells are written first (and kept, with --folder); then `bench report` runs in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from bench.cells.rows import Row, to_csv
from bench.cells.schema import SCHEMA
from bench.cells.spec import RunSpec
from bench.core.check import Check
from bench.core.protocol import PROTOCOL
from bench.core.threshold import threshold_at
from bench.system.provenance import git_state, versions

BUDGETS = ("0.5/255", "1/255", "2/255", "4/255", "8/255")
ATTACKS = ("apgd", "square")
CATEGORIES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="of the cells (default: one that is deleted)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print(f"{write_cells(folder, options.cells, options.images)} cells of {options.images} rows")
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "bench.cli", "report", "--results", str(folder)], check=True, stdout=-3)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{time.perf_counter() - started:.1f} s, peak {peak:.0f} MiB")
        for path in sorted(
            p for p in folder.rglob("*") if p.suffix in (".html", ".md", ".csv") and p.parent.name != ""
        ):
            if path.name.startswith(("index", "LEADERBOARD", "leaderboard")):
                print(f"{path.relative_to(folder)}: {path.stat().st_size / 2**20:.2f} MiB")


def write_cells(folder: Path, cells: int, images: int, seed: int = 0) -> int:
    """Finished cells of made-up detectors: normal scores N(0, 1), anomalous N(2, 1), moved by the attack."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) >= images * 2 // 5
    per_detector = CATEGORIES * len(BUDGETS) * len(ATTACKS)
    written = 0
    for detector, category in product(range(-(-cells // per_detector)), range(CATEGORIES)):
        strength = rng.uniform(0.05, 0.4)
        clean = rng.normal(size=images) + 2 * labels
        for (level, eps), attack in product(enumerate(BUDGETS, 1), ATTACKS):
            if written == cells:
                return written
            moved = rng.uniform(0, 2 * strength * level * (2 if attack == "apgd" else 1), images)
            worst = clean + moved * (1 - 2 * labels)
            rows = [
                Row(
                    f"test/{i:04}.png", int(labels[i]), float(clean[i]), float(worst[i]), 0.001 * level, float(worst[i])
                )
                for i in range(images)
            ]
            spec = RunSpec(
                detector=f"detector_{detector:02}", detector_parameters={}, attack=attack, attack_parameters={},
                norm="linf", eps=eps, targets="both", dataset="made_up", category=f"category_{category}", image_size=64,
                seed=0, limit=None, draws=None, goal="rank", protocol=PROTOCOL,
            )  # fmt: skip
            write_cell(folder, spec, rows, [Check("gradient", True, f"agrees to {rng.uniform(0, 1e-4):.2g}")] * 12)
            written += 1
    return written


def write_cell(folder: Path, spec: RunSpec, rows: list[Row], checks: list[Check]) -> Path:
    """A finished cell of these rows."""
    cell = spec.folder(folder, 64)
    cell.mkdir(parents=True)
    text = to_csv(rows)
    anomalous = sum(row.label for row in rows)
    normal = [row.clean for row in rows if not row.label]
    record = {
        "schema": SCHEMA,
        "kind": "attack",
        "status": "finished",
        "spec": spec.as_json(),
        "detector": {
            "code": "0" * 64, "parameters": {}, "randomized": False, "differentiable": True, "unranked": "",
            "purification": None, "fit": {"model_sha256": "0" * 64, "seconds": 12.5, "images": 200}, "weights": 600_000,
        },
        "attack": {"code": "1" * 64, "parameters": {"steps": 100, "restarts": 1}, "parts": [], "sources": {}},
        "data": {
            "train": "2" * 64, "test": "3" * 64, "train_images": 200, "normal": len(rows) - anomalous,
            "anomalous": anomalous,
        },
        "checks": [check._asdict() for check in checks],
        "threshold": {"value": threshold_at(normal), "held_out": 20, "false_alarms": 0.05},
        "versions": versions(),
        "git": git_state(),
        "device": "none: these rows were made up",
        "batch_size": 32,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "warnings": [],
        "rows": len(rows),
        "forwards": 120 * len(rows),
        "backwards": 100 * len(rows),
        "seconds": 60.0,
        "peak_memory": 512,
        "samples_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }  # fmt: skip
    (cell / "samples.csv").write_text(text, encoding="utf-8")
    (cell / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return cell


if __name__ == "__main__":
    main()
