"""Rows of the side-by-side: the file they are kept in, which of them compare, the table and the verdict."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]

OURS, CONTROL = "bench", "control"

CELL = (
    "detector", "detector_parameters", "detector_code", "dataset", "category", "image_size", "limit", "batch_size",
    "seed", "repeats", "passes", "draws", "norm", "eps", "dataset_version", "protocol",
)  # fmt: skip
"""What rows that are compared have in common."""

LATER = {"repeats": 1, "dataset_version": 1, "protocol": 1}
"""What rows from before they said so had."""

KEY = (*CELL, "library", "attack", "version")
"""What a row is: one that is there is not run again."""

SHORT = {"adversarial-robustness-toolbox": "ART"}

ALLOWED = {"standard": 0.005, "apgd": 0.01}
"""By how much the AUROC that ours reach may lie above the best peer's."""

COLUMNS = {
    "detector": "detector",
    "data": "data",
    "norm": "norm",
    "eps": "eps",
    "library": "library",
    "attack": "attack",
    "auroc": "AUROC",
    "forwards": "forward/image",
    "backwards": "backward/image",
    "seconds": "seconds",
    "ms_per_pass": "ms/pass",
    "peak_memory": "peak MiB",
    "added_memory": "of it by the attack",
    "note": "note",
}
DECIMALS = {"auroc": 4, "forwards": 1, "backwards": 1, "seconds": 2, "ms_per_pass": 3}


class Margin(NamedTuple):
    """Ours against the best peer of a cell: positive where the peer reached a lower AUROC."""

    ours: Row
    peer: Row

    @property
    def value(self) -> float:
        return float(self.ours["auroc"] - self.peer["auroc"])

    @property
    def allowed(self) -> float | None:
        return ALLOWED.get(method(self.ours))

    @property
    def fails(self) -> bool:
        return self.allowed is not None and self.value > self.allowed


def method(row: Row) -> str:
    """`apgd-linf:restarts=2` -> `apgd`."""
    name, _, _ = str(row["attack"]).partition(":")
    stem, _, norm = name.rpartition("-")
    return stem if norm in ("linf", "l2") else name


def key(row: Row, names: Sequence[str] = KEY) -> str:
    return json.dumps([row.get(name, LATER.get(name)) for name in names], sort_keys=True)


def read(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; a last line that a killed process left unfinished is dropped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(row) + "\n")


def cells(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Cell -> its rows, of several with one key the last."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(key(row, CELL), {})[key(row)] = row
    return {name: list(members.values()) for name, members in found.items()}


def judged(members: Sequence[Row]) -> list[Row]:
    """The rows of a cell with a note, and `compared`: a peer that random noise equals on both classes is not. One that
    it equals on one class says so, and is compared: its AUROC may still be the lowest."""
    control = next((r for r in members if r["library"] == CONTROL and r["status"] == "done"), None)
    result = []
    for row in members:
        note, compared = "", row["status"] == "done" and row["library"] != CONTROL
        if row["status"] != "done":
            note = f"{row['status']}: {row.get('reason', '')}"
        elif compared and control is not None:
            idle = [c for c in ("normal", "anomalous") if row[f"gain_{c}"] <= control[f"gain_{c}"]]
            if idle:
                compared = row["library"] == OURS or len(idle) == 1
                note = f"does nothing on {' and '.join(idle)} images: not better than random noise"
        if row["status"] == "done" and row.get("overstep", 0) > 1e-6:
            note = "; ".join(filter(None, (note, f"overstepped by {row['overstep']:.2g}, projected")))
        if len(row.get("aurocs", ())) > 1:
            note = "; ".join(filter(None, (note, f"of seeds: {', '.join(f'{a:.3f}' for a in row['aurocs'])}")))
        result.append({**row, "compared": compared, "note": note})
    return result


def margins(members: Sequence[Row]) -> list[Margin]:
    """Each of ours against the peer of the lowest AUROC in the same cell."""
    rows = [row for row in judged(members) if row["compared"]]
    peers = [row for row in rows if row["library"] != OURS]
    if not peers:
        return []
    best = min(peers, key=lambda row: float(row["auroc"]))
    return [Margin(row, best) for row in rows if row["library"] == OURS]


def overview(rows: Iterable[Row]) -> str:
    """A line per cell: what noise, ours and the peers reached, the best peer apart."""
    found = cells(rows)
    ours = list(dict.fromkeys(r["attack"] for members in found.values() for r in members if r["library"] == OURS))
    titles = ["detector", "data", "images", "passes", "norm eps", "clean", "noise", *ours, "best peer", "the others"]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for members in found.values():
        done = [row for row in judged(members) if row["status"] == "done"]
        if not done:
            continue
        first = done[0]
        noise = next((f"{row['auroc']:.3f}" for row in done if row["library"] == CONTROL), "")
        own = {row["attack"]: f"{row['auroc']:.3f}" for row in done if row["library"] == OURS}
        peers = sorted((r for r in done if r["compared"] and r["library"] != OURS), key=lambda r: float(r["auroc"]))
        told = [f"{row['auroc']:.3f} {SHORT.get(row['library'], row['library'])} {row['attack']}" for row in peers]
        randomized = min((r["backwards"] for r in done if r["backwards"]), default=0) > first["passes"]
        passes = f"{first['passes']}" + f" x {first['draws']} draws" * randomized
        cell = [
            first["detector"],
            f"{first['category']} {first['image_size']} px",
            f"{first['images']}" + (f", {first['repeats']} seeds" if first.get("repeats", 1) > 1 else ""),
            passes,
            f"{first['norm']} {first['eps']}",
            f"{first['clean_auroc']:.3f}",
            noise,
            *(own.get(name, "") for name in ours),
            *(told[:1] or [""]),
            ", ".join(told[1:]),
        ]
        lines.append(f"| {' | '.join(map(str, cell))} |")
    return "\n".join(lines) + "\n"


def table(rows: Iterable[Row]) -> list[dict[str, str]]:
    """As text, cell by cell, the lowest AUROC first."""
    lines = []
    for members in cells(rows).values():
        for row in sorted(judged(members), key=lambda r: (r["status"] != "done", r.get("auroc") or 0)):
            passes = (row.get("forwards") or 0) + (row.get("backwards") or 0)
            images = row.get("images") or 0
            shown = {**row, "data": f"{row['dataset']}/{row['category']} {row['image_size']} px"}
            if passes:
                shown["ms_per_pass"] = 1000 * row["seconds"] / (passes * images)
            lines.append({name: _text(name, shown.get(name)) for name in COLUMNS})
    return lines


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.{DECIMALS[name]}f}" if name in DECIMALS else str(value)


def markdown(rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(COLUMNS.values())} |", f"|{' --- |' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(text.replace('|', '/') for text in line.values())} |" for line in table(rows)]
    return "\n".join(lines) + "\n"


def as_csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table(rows))
    return text.getvalue()


def verdict(rows: Iterable[Row]) -> tuple[list[str], bool]:
    """Sentences, one per cell and attack of ours, and whether every limit is kept."""
    sentences, kept = [], True
    for members in cells(rows).values():
        first = members[0]
        where = f"{first['detector']} on {first['category']} {first['image_size']} px, {first['norm']} {first['eps']}"
        compared = [r for r in judged(members) if r["compared"] and r["library"] != OURS]
        if not compared:
            sentences.append(f"{where}: no peer to compare with")
            continue
        best = min(compared, key=lambda row: float(row["auroc"]))
        sentences.append(f"{where}: best peer {best['library']} {best['attack']} {best['auroc']:.4f}")
        for margin in margins(members):
            limit = "" if margin.allowed is None else f" (allowed {margin.allowed:+.3f})"
            fails = " FAILS" if margin.fails else ""
            sentences.append(
                f"    {margin.ours['attack']} {margin.ours['auroc']:.4f}, margin {margin.value:+.4f}{limit}{fails}"
            )
            kept = kept and not margin.fails
    return sentences, kept
