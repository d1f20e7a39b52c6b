"""Cells of made-up scores, by what a test needs of them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import made_record, respec
from sklearn.metrics import roc_auc_score

from bench.cells.pixels import to_text
from bench.cells.result import Result
from bench.cells.rows import Row, Table
from bench.cells.schema import MAP_COLUMNS
from bench.stats.pixels import BINS

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from report import write_cells

__all__ = ["area", "many", "moved", "random_scores", "scored", "shifted", "unpacked", "with_maps", "write_cells"]


def random_scores(seed: int, gap: float = 1.0, n: int = 60) -> np.ndarray:
    labels = np.arange(n) >= n // 2
    return np.asarray(np.random.default_rng(seed).normal(size=n) + gap * labels)


def area(scores: np.ndarray) -> float:
    return float(roc_auc_score(np.arange(60) >= 30, scores))


def scored(scores: np.ndarray, name: str, category: str = "one", eps: str = "2/255", **more: np.ndarray) -> Result:
    """A cell with these robust scores, and more columns; the first half of the images is normal."""
    half = len(scores) // 2
    rows = tuple(Row(f"{i}", int(i >= half), float(s), float(s), 0.0, float(s)) for i, s in enumerate(scores))
    record = made_record(spec={"eps": eps})
    table = Table.of(rows)
    found = Result(Path(f"{name}-{category}-{eps}"), record, table._replace(columns=table.columns | more))
    respec(found, detector=name, category=category)  # names that no file could have as well
    return found


def many(names: str, blocks: int, gaps: dict[str, float]) -> list[Result]:
    return [scored(random_scores(97 * i + ord(n), gaps[n]), n, f"c{i}") for n in names for i in range(blocks)]


def moved(
    name: str, category: str = "one", eps: str = "2/255", seed: int = 0, gap: float = 2.0, **changes: Any
) -> Result:
    """A cell of 60 random scores, each moved by 0.7; `changes` are of the spec, or columns; `more`: of the detector."""
    clean = random_scores(seed, gap)
    anomalous = np.arange(60) >= 30
    targets = changes.get("targets", "both")
    moved = (targets == "both") | (anomalous == (targets == "anomalous"))
    worst = np.where(moved, clean + np.where(anomalous, -0.7, 0.7), clean)
    columns = {"clean": clean, "worst": worst, "distance": 0 * clean, "rounded": worst}
    columns |= {key: changes.pop(key) for key in list(changes) if isinstance(changes[key], np.ndarray)}
    record = made_record(
        kind=changes.pop("kind", "attack"), checks=changes.pop("checks", []),
        attack={"parts": changes.pop("parts", [])}, detector=changes.pop("more", {}),
        spec={"category": category, "detector": name, "eps": eps, **changes},
    )  # fmt: skip
    return Result(Path(f"{name}-{category}-{eps}"), record, Table(tuple(map(str, range(60))), anomalous, columns))


def with_maps(name: str = "a", **changes: Any) -> Result:
    """A cell of 60 made-up anomaly maps of 8 x 8 pixels, of which anomalous images have one region."""
    found = moved(name, kind="localisation", goal="map", transfer=random_scores(1), **changes)
    background, region = np.zeros(BINS), np.zeros(BINS)
    background[400:432], region[420:436] = 2, 1
    whole = np.where(np.arange(BINS) == 500, 64, 0)
    texts = tuple(
        to_text(background * 48 / 64, region, region / 16) if anomalous else to_text(whole)
        for anomalous in found.table.anomalous
    )
    return replace(found, table=found.table._replace(pixels=dict.fromkeys(MAP_COLUMNS, texts)))


def shifted(name: str, settings: dict[str, Any], **columns: Any) -> Result:
    """A cell of shifts; columns are its conditions."""
    found = moved(name, kind="shift", attack="shift", parts=list(columns), eps="1", **columns)
    found.record.attack.parameters.update(settings)
    return found


def unpacked(text: str) -> dict[str, Any]:
    """What lies compressed in a page."""
    (packed,) = re.findall(r'<script type="application/gzip" id="data">([^<]*)</script>', text)
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return found
