"""An honest submission of one small cell, and what somebody may do to it who wants to be ahead."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.cells.result import metrics_of
from bench.cells.rows import from_csv
from bench.cells.schema import FinishedRecord

SIZE = 16
SPOTS = '''
import torch
from bench import Detector

class Spots(Detector):
    """Distance of local means to those of normal images."""

    def __init__(self, side: int = 4):
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.zeros(1))

    def fields(self, x):
        return torch.nn.functional.avg_pool2d(x, self.side)

    def fit(self, normal):
        self.mean = self.fields(torch.cat(list(normal))).mean(0)

    def score(self, x):
        return (self.fields(x) - self.mean).square().flatten(1).sum(1)

class Corners(Spots):
    """Another detector, which learns nothing else."""

    def score(self, x):
        return (self.fields(x) - self.mean).abs().flatten(1).amax(1)
'''


def make_images(root: Path, train: int = 88, good: int = 16, bad: int = 16, seed: int = 0) -> Path:
    """Noise; a defect is a little brighter than it, and the last ones less so."""
    rng = np.random.RandomState(seed)
    for folder, count in (("train/good", train), ("test/good", good), ("test/dent", bad)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            image = rng.randint(90, 130, size=(SIZE, SIZE, 3)).astype(np.uint8)
            if folder == "test/dent":
                image[4:12, 4:12] += np.uint8(24 - i)
            Image.fromarray(image).save(root / folder / f"{i:03}.png")
    return root


@dataclass
class Forged:
    """A submission of one cell, open to be changed."""

    place: str
    record: dict[str, Any]
    rows: list[dict[str, Any]]
    others: dict[str, bytes]
    """By name: weights, images, and whatever else is put in."""

    @classmethod
    def of(cls, path: Path) -> Forged:
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        (name,) = (name for name in content if name.endswith("run.json"))
        place = name.removesuffix("/run.json")
        record = json.loads(content.pop(name))
        table = list(csv.DictReader(io.StringIO(content.pop(f"{place}/samples.csv").decode())))
        rows = [{k: v if k in ("id", "label") else float(v) for k, v in row.items()} for row in table]
        return cls(place, record, rows, content)

    @property
    def text(self) -> str:
        lines = [",".join(self.rows[0])]
        lines += [",".join(v if isinstance(v, str) else repr(v) for v in row.values()) for row in self.rows]
        return "\n".join(lines) + "\n"

    def each(self, change: Callable[[dict[str, Any]], object]) -> None:
        for row in self.rows:
            change(row)

    def hide(self) -> None:
        """All that can be computed from the rows agrees with them: counts, hash and metrics."""
        record, count = self.record, len(self.rows)
        record["rows"] = count
        record["data"]["anomalous"] = sum(row["label"] == "1" for row in self.rows)
        record["data"]["normal"] = count - record["data"]["anomalous"]
        record["samples_sha256"] = hashlib.sha256(self.text.encode()).hexdigest()
        record["metrics"] = metrics_of(Path(), FinishedRecord.model_validate(record), from_csv(self.text, Path()))

    def save_as_it_is(self, path: Path) -> Path:
        """With the hash of the rows; no metric is computed of what may be none."""
        self.record["samples_sha256"] = hashlib.sha256(self.text.encode()).hexdigest()
        return self.save(path, hide=False)

    def save(self, path: Path, hide: bool = True) -> Path:
        if hide:
            self.hide()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{self.place}/run.json", json.dumps(self.record))
            archive.writestr(f"{self.place}/samples.csv", self.text)
            for name, content in self.others.items():
                archive.writestr(name, content)
        return path


@dataclass(frozen=True)
class Honest:
    """What the author of a submission has: `attacked.zip`, `weak.zip`, `radii.zip` and `certified.zip` lie in
    `root`."""

    root: Path

    @property
    def options(self) -> list[object]:
        """Of `verify`: where things lie."""
        return ["--data-root", self.root / "images/widget", "--detector", f"{self.root}/mine.py:Spots"]

    def zip_of(self, kind: str) -> Path:
        return self.root / f"{kind}.zip"


def make_honest(root: Path, kinds: tuple[str, ...] = ("attacked", "weak", "certified", "radii")) -> Honest:
    """Run, run with an attack that is too weak, certified, and submitted, with a cache of its own."""
    from bench.cli import main

    images = make_images(root / "images" / "widget")
    make_images(root / "images" / "gadget", seed=1)
    (root / "mine.py").write_text(SPOTS, encoding="utf-8")
    bed = ["--detector", f"{root}/mine.py:Spots", "--dataset", "folder", "--data-root", str(images), "--image-size",
           str(SIZE)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        commands = {
            "attacked": ["run", *bed, "--attack", "pgd-linf", "--eps", "6/255", "--attack-param", "steps=10",
                         "--save-images", "1"],
            "weak": ["run", *bed, "--attack", "pgd-linf", "--eps", "6/255", "--attack-param", "steps=2",
                     "--attack-param", "step_size=0.001"],
            "radii": ["run", *bed, "--attack", "ddn-l2", "--eps", "1", "--attack-param", "steps=20"],
            "certified": ["certify", *bed, "--sigma", "0.1", "--radius", "0.05", "--samples", "100"],
        }  # fmt: skip
        for name in kinds:
            assert main([*commands[name], "--results", str(root / name)]) == 0
            assert main(["submit", str(root / name), "--out", str(root / f"{name}.zip")]) == 0
    return Honest(root)
