"""How tests type commands: what they run on, and what they say of a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import MEAN, make_tree

Run = Callable[..., tuple[int, str, str]]


def on_tree(tree: Path, results: Path) -> tuple[object, ...]:
    """Options of `bench run`."""
    return ("--dataset", "folder", "--data-root", tree, "--image-size", 16, "--results", results)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def rows_of(results: Path) -> dict[Path, bytes]:
    """The bytes of every samples.csv below a folder, by its place there."""
    return {path.relative_to(results): path.read_bytes() for path in results.rglob("samples.csv")}


def suite_on_two(tmp_path: Path, text: str) -> Path:
    """A suite: `text` with the `root` of a small tree of two categories and the `plugin` Mean filled in."""
    for name in ("nut", "bolt"):
        make_tree(tmp_path / "tree" / name, good=5, bad=4)
    plugin = tmp_path / "mine.py"
    plugin.write_text(MEAN)
    path = tmp_path / "mine.toml"
    path.write_text(text.format(root=str(tmp_path / "tree"), plugin=f"{plugin}:Mean"))
    return path


def one_line(err: str) -> str:
    """The error, which must be the only line that starts with `bench:` and hold no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("bench:")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
