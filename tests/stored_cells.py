"""What tests do to the files of finished cells."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cells.reader import find_cells

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from report import write_cells as write_cells

Run = Callable[..., tuple[int, str, str]]
Change = Callable[[dict[str, Any]], object]
Verify = Callable[..., tuple[int, dict[str, str]]]
"""Runs `bench verify`: the exit code, and by test the line without its name."""


def three_cells(folder: Path) -> Path:
    """Made up, of 12 images each."""
    write_cells(folder, 3, 12)
    return folder


def first(results: Path) -> Path:
    return min(results.rglob("run.json")).parent


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def rewrite(folder: Path, change: Change) -> None:
    record = record_of(folder)
    change(record)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def with_rows(folder: Path, content: bytes) -> None:
    """samples.csv of that content, with its hash in run.json."""
    (folder / "samples.csv").write_bytes(content)
    rewrite(folder, lambda record: record.update(samples_sha256=hashlib.sha256(content).hexdigest()))


def packed(results: Path, run_cli: Run, name: str) -> Path:
    """All cells of the folder, with their metrics and without weights, in a submission beside it."""
    for r in find_cells(results).results:
        record = r.record.as_json() | {"metrics": {name: metric.value for name, metric in r.metrics.items()}}
        (r.folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = run_cli("submit", results, "--out", results.parent / name, "--without-weights")
    assert code == 0, err
    return results.parent / name


def cell(published: Path, name: str = "Mean") -> Path:
    (found,) = published.rglob(f"{name}*/pgd-linf-4_255")
    return found


def failed(found: dict[str, str]) -> list[str]:
    return [name for name, line in found.items() if line.startswith("FAIL")]


def change_rows(folder: Path, change: Callable[[list[dict[str, str]]], object], hide: bool = True) -> None:
    """Change samples.csv; `hide` gives run.json the new hash, as who wants to be believed would."""
    path = folder / "samples.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    change(rows)
    path.write_text("\n".join([header, *(",".join(row.values()) for row in rows)]) + "\n", encoding="utf-8")
    if hide:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rewrite(folder, lambda record: record.update(samples_sha256=digest))


def index_of(rows: list[dict[str, str]], name: str) -> int:
    return next(i for i, row in enumerate(rows) if name in row["id"])


def verifier(run_cli: Run, ran: Path) -> Verify:
    """With what lies in `ran`."""

    def verify(path: Path, *more: object, detector: str = "Mean") -> tuple[int, dict[str, str]]:
        options = ("--data-root", ran / "images/widget", "--detector", f"{ran}/mine.py:{detector}", *more)
        code, out, err = run_cli("verify", path, *options)
        lines = [line.split(maxsplit=1) for line in out.splitlines()]
        found = {rest.partition(": ")[0]: f"{status} {rest.partition(': ')[2]}" for status, rest in lines}
        return code, found | ({"error": err} if err else {})

    return verify
