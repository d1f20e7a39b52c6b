"""Shared by all tests: a private cache, small data on disk, and detectors whose best attack is known."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

# of each worker, before torch is imported: threads that wait for a busy core cost more than they bring
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import bench
from bench import Data, Detector, Progress, Purifier, Record, Rng, TestSet, TrainSet
from bench.cells.result import Result
from bench.cells.schema import FinishedRecord
from bench.cli import parse
from bench.cli.common import Request
from bench.core.images import ArraySource
from bench.plugins import registry

RECORD: dict[str, Any] = {
    "schema": 3, "kind": "attack", "status": "finished",
    "spec": {
        "detector": "d", "detector_parameters": {}, "attack": "pgd", "attack_parameters": {}, "norm": "linf",
        "eps": "2/255", "targets": "both", "dataset": "d", "category": "one", "image_size": 8, "seed": 0, "limit": None,
        "draws": None, "goal": "rank", "dataset_version": 1, "protocol": 2,
    },
    "detector": {
        "code": "0" * 64, "parameters": {}, "randomized": False, "differentiable": True, "unranked": "",
        "purification": None, "fit": None, "weights": 0,
    },
    "attack": {"code": "1" * 64, "parameters": {}, "parts": [], "sources": {}},
    "data": {"train": "2" * 64, "test": "3" * 64, "train_images": 40, "normal": 30, "anomalous": 30},
    "checks": [], "threshold": {"value": 0.5, "held_out": 20, "false_alarms": 0.05}, "versions": {},
    "git": {"commit": None, "dirty": None}, "device": "cpu", "batch_size": 32, "started": "", "warnings": [],
    "rows": 60, "forwards": 60, "backwards": 60, "seconds": 1.0, "peak_memory": None, "finished": "",
    "samples_sha256": "4" * 64,
}  # fmt: skip
"""run.json of a made-up cell."""


def made_record(**changes: Any) -> FinishedRecord:
    """A finished cell's; a mapping changes only the fields that it names."""
    found = {name: RECORD[name] | value if isinstance(value, dict) else value for name, value in changes.items()}
    return FinishedRecord.model_validate(copy.deepcopy(RECORD | found))


def respec(r: Result, **changes: Any) -> None:
    """Another spec, before anything has been asked of the result."""
    r.record.spec = r.spec.model_copy(update=changes)


SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real images and weights, beside the checkout where they are to be had; they are never part of it."""


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's own fitted detectors."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


def shared(*parts: str) -> Path:
    """A real file or folder, or a skip that says what is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path.name} beside the checkout (looked for {'/'.join(('../shared', *parts))})")
    return path


def noise_image(rng: np.random.RandomState, size: int = 16, defect: bool = False) -> np.ndarray:
    image = rng.randint(90, 130, size=(size, size, 3)).astype(np.uint8)
    if defect:
        image[4:10, 4:10] = 220
    return image


def make_tree(root: Path, train: int = 12, good: int = 6, bad: int = 6, size: int = 16) -> Path:
    """A category in the MVTec layout, with masks."""
    rng = np.random.RandomState(0)
    for folder, count, defect in (("train/good", train, False), ("test/good", good, False), ("test/dent", bad, True)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(noise_image(rng, size, defect)).save(root / folder / f"{i:03}.png")
    (root / "ground_truth/dent").mkdir(parents=True)
    for i in range(bad):
        Image.fromarray(np.full((size, size), 255, np.uint8)).save(root / f"ground_truth/dent/{i:03}_mask.png")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "images" / "widget")


def small_data(normal: int = 8, anomalous: int = 7, size: int = 8, train: int = 40) -> Data:
    """Random grey images; anomalous ones are brighter."""
    rng = np.random.RandomState(1)

    def record(name: str, i: int, label: int) -> Record:
        low = 100 if label else 60
        return Record(f"{name}/{i}", ArraySource(rng.randint(low, low + 80, (size, size, 3)).astype(np.uint8)), label)

    test = [record("good", i, 0) for i in range(normal)] + [record("bad", i, 1) for i in range(anomalous)]
    return Data(
        "small", "one", size, TrainSet([record("train", i, 0) for i in range(train)], size), TestSet(test, size)
    )


@pytest.fixture
def data() -> Data:
    return small_data()


class Linear(Detector):
    """score = <w, x>: the best attack has a closed form in every norm."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed
        self.register_buffer("weight", torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed)) + 0.3)
        self.weight: Tensor

    def fit(self, normal: object) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return (x * self.weight.to(x)).flatten(1).sum(1)


class NoisyLinear(Linear):
    """Linear with random weights around w: its expectation is Linear's score."""

    randomized = True

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return (x * (self.weight.to(x) + 0.5 * noise)).flatten(1).sum(1)


class Half(Purifier):
    """Halves every image, and counts its draws."""

    level = "factor"

    def __init__(self, inner: Detector, *, factor: float = 0.5):
        super().__init__(inner)
        self.factor = factor

    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.factor * x


def detector(name: str, **given: Any) -> Any:
    """A built-in one, not fitted."""
    return registry.load("detectors", name).target(**given)


def module(name: str) -> Any:
    """A module beside the built-in detectors; only the registry names their package."""
    package = registry.load("detectors", "autoencoder").target.__module__.rpartition(".")[0]
    return importlib.import_module(f"{package}.{name}")


class Killed(Exception):
    pass


class KilledAt(Progress):
    """A process that dies at a step, after the training has been saved."""

    def __init__(self, step: int, checkpoint: Path):
        self.step, self.checkpoint = step, checkpoint

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        if step == self.step:
            raise Killed


@pytest.fixture
def linear() -> Linear:
    return Linear()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plug-in on the same images would otherwise be found fitted by another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    """`mine.py:Mean`, as it is typed."""
    path = tmp_path / "mine.py"
    path.write_text(MEAN, encoding="utf-8")
    return f"{path}:Mean"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "results"


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    from bench.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Asked = TypeVar("Asked", bound=Request)


def asked_for(command: str, kind: type[Asked]) -> Asked:
    """What a command as it is typed asks for, not done."""
    name, *words = shlex.split(command, comments=True)
    assert name == "bench"
    request = parse(words)
    assert isinstance(request, kind)
    return request


MEAN = '''
import torch
from bench import Detector

class Mean(Detector):
    """Distance to the mean normal image."""

    def __init__(self, power: int = 2):
        super().__init__()
        self.power = power
        self.register_buffer("mean", torch.zeros(1))

    def fit(self, normal):
        self.mean = torch.cat(list(normal)).mean(0)

    def score(self, x):
        return (x - self.mean).abs().pow(self.power).flatten(1).sum(1)
'''
PLUGIN = f'''{MEAN}
class Noisy(Mean):
    """The same under noise."""

    randomized = True

    def score(self, x, rng=None):
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return super().score(x + 0.02 * noise)
'''


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images/widget`, `mine.py` (Mean and Noisy), `cache`, `results` of both under attack in two balls,
    and `attacked/NAME`: the images of the smaller ball."""
    from bench.cli import main

    root = tmp_path_factory.mktemp("ran")
    tree = make_tree(root / "images" / "widget")
    (root / "mine.py").write_text(PLUGIN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for name in ("Mean", "Noisy"):
            code = main([
                "run", "--detector", f"{root}/mine.py:{name}", "--eps", "4/255,8/255", "--dataset", "folder",
                "--data-root", str(tree), "--image-size", "16", "--results", str(root / "results"),
            ])  # fmt: skip
            assert code == 0
            (kept,) = (root / "cache").rglob("attacked")
            kept.rename(root / f"attacked {name}")
    return root


@pytest.fixture
def published(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of `ran`, to be changed; every fourth image of the smaller ball is stored beside its row."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(ran / "cache", tmp_path / "cache")
    shutil.copytree(ran / "results", tmp_path / "results")
    data = bench.load_data("folder", category="widget", root=ran / "images" / "widget", image_size=16)
    for name in ("Mean", "Noisy"):
        (folder,) = (tmp_path / "results").rglob(f"{name}*/pgd-linf-4_255")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        (folder / "images").mkdir()
        record["images"] = [
            stored_image(folder, data, i, next((ran / f"attacked {name}").rglob(f"{digest(data.test.ids[i])}.npy")))
            for i in range(0, len(data.test), 4)
        ]
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path / "results"


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]


def stored_image(folder: Path, data: Data, index: int, attacked: Path) -> dict[str, Any]:
    """A test image before and after the attack, stored in a cell's folder: its entry in run.json."""
    record = data.test.records[index]
    file = folder / "images" / f"{digest(record.id)}.npz"
    np.savez_compressed(file, clean=data.test.image(index).numpy(), attacked=np.load(attacked))
    return {
        "id": record.id,
        "label": record.label,
        "why": "every fourth",
        "file": f"images/{file.name}",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


assert bench.__file__ is not None
