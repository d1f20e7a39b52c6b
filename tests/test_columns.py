"""Every column of a table of results is documented, and no other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import Linear, small_data
from made_up import moved, random_scores, with_maps

import bench
from bench import evaluate
from bench.cells.reader import tidy
from bench.cells.result import Result

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/results.md"


def documented() -> set[str]:
    """Every column of docs/results.md, with those of the intervals of its metrics; PART is one called `apgd`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found: set[str] = set()
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        names = [name.replace("PART", "apgd") for name in re.findall(r"^\| `(\w+)` \|", section, re.M)]
        found |= set(names)
        if section.startswith("Metrics"):
            found |= {f"{name}_{end}" for name in names for end in ("low", "high")}
    return found


def of_normal_images(cell: Result) -> Result:
    """The first half of it."""
    whole = cell.table
    columns = {name: values[:30] for name, values in whole.columns.items()}
    return replace(cell, table=whole._replace(ids=whole.ids[:30], anomalous=whole.anomalous[:30], columns=columns))


def test_every_column_is_documented_and_no_other(tmp_path: Path) -> None:
    evaluate(Linear(), small_data(), results=tmp_path, attack_params={"steps": 2})
    real = bench.load_results(tmp_path)
    assert set(real.columns) <= documented()
    half = np.where(np.arange(60) % 2, 0.3, np.nan)
    scores, half_error = random_scores(1), np.full(60, 0.1)
    kinds = [
        moved(
            "a",
            apgd=scores,
            parts=["apgd"],
            worst_draw=scores,
            known_noise=scores,
            broken=half,
            clean_se=half_error,
            worst_se=half_error,
        ),
        moved("a", radius=np.abs(scores)),
        moved("a", kind="certificate", low_0=scores, high_0=scores, certified_radius=np.abs(scores)),
        with_maps(),
        moved("a", kind="shift", parts=["apgd"], apgd=scores),
        of_normal_images(moved("a")),
        of_normal_images(moved("a", kind="certificate", low_0=scores, high_0=scores)),
    ]
    assert set(real.columns) | set(tidy(kinds).columns) == documented()
