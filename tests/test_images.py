"""Adversarial images beside the rows: the right ones, as they were scored, through kills, redos and lost caches."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from test_run import Interrupted, cell_of, stop_after
from torch import Tensor

from bench import Data, Detector, Rng, Score, ThreatModel, UserError, evaluate
from bench.cells.images import ImageRecord
from bench.cells.record import read_finished, read_record, read_rows
from bench.cells.rows import Row
from bench.engine.saved_images import chosen
from bench.engine.warm_starts import WarmStarts
from bench.system import files
from bench.system.cache import cache_folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test keeps for the next row, another must not find."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Mapped(Linear):
    """Linear, and each pixel's part of the score."""

    def anomaly_map(self, x: Tensor) -> Tensor:
        return (x * self.weight.to(x)).sum(1, keepdim=True)


class NoisyMapped(NoisyLinear):
    def anomaly_map(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return (x * (self.weight.to(x) + 0.5 * noise)).sum(1, keepdim=True)


class BrokenMap(Linear):
    def anomaly_map(self, x: Tensor) -> Tensor:
        raise IndexError("no map today")


def saved(folder: Path) -> list[tuple[ImageRecord, dict[str, Tensor]]]:
    """Entries and arrays, after every file's hash has been compared."""
    found = []
    for entry in read_record(folder).images:
        content = (folder / entry.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256
        with np.load(folder / entry.file) as arrays:
            assert all(arrays[name].dtype == np.float32 for name in arrays)
            found.append((entry, {name: torch.from_numpy(arrays[name]) for name in arrays}))
    assert {p.name for p in (folder / "images").iterdir()} == {Path(e.file).name for e, _ in found}
    return found


def rows_of(folder: Path) -> dict[str, Row]:
    return {row.id: row for row in read_rows(folder, read_finished(folder))}


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
@pytest.mark.parametrize(("norm", "eps"), [("linf", "4/255"), ("l2", "0.2"), ("l0", "5")])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_saved_image_has_the_score_of_its_row(
    data: Data, tmp_path: Path, kind: type[Detector], norm: str, eps: str, batch_size: int
) -> None:
    detector, threat = kind(), ThreatModel(norm, eps)
    evaluate(detector, data, "pgd", threat, results=tmp_path, save_images=2, batch_size=batch_size, seed=3, draws=5)
    folder, score = cell_of(tmp_path), Score(detector)
    rows, draws = rows_of(folder), 5 if detector.randomized else 1
    # a sum over one image and over a batch is not always added up in the same order
    allowed = 0.0 if batch_size == 1 else 1e-4
    images = saved(folder)
    assert len(images) >= 4
    for entry, arrays in images:
        clean, attacked = arrays["clean"][None], arrays["attacked"][None]
        row = rows[entry.id]
        assert torch.equal(clean[0], data.test.image(data.test.ids.index(row.id)))
        assert entry.label == row.label
        for image, noted in ((clean, row.clean), (attacked, row.worst)):
            rng = Rng.evaluation(3, [row.id])
            assert abs(float(score.mean(image, rng, draws)) - noted) <= allowed
        assert threat.violation(attacked, clean) is None
        assert float(threat.distance(attacked, clean)) == pytest.approx(row.distance, rel=1e-6)
    assert any(rows[entry.id].distance > 0 for entry, _ in images)


def test_the_most_moved_and_the_hardest_are_chosen() -> None:
    rows = [
        Row("n0", 0, 0.1, 0.9, 1, 0), Row("n1", 0, 0.5, 0.6, 1, 0), Row("n2", 0, 0.2, 0.2, 0, 0),
        Row("a0", 1, 0.3, 0.1, 1, 0), Row("a1", 1, 0.9, 0.8, 1, 0), Row("a2", 1, 0.4, 0.4, 0, 0),
    ]  # fmt: skip
    both = ThreatModel("linf", "1/255")
    assert chosen(rows, both, 1) == {"n0": "most moved", "n1": "hardest", "a0": "most moved, hardest"}
    two = chosen(rows, both, 2)
    assert two["n1"] == "most moved, hardest" and two["n2"] == "hardest"
    assert two["a1"] == "most moved" and two["a2"] == "hardest"
    assert set(chosen(rows, both, 9)) == {row.id for row in rows}
    assert chosen(rows, both, 9)["a2"] == "hardest"  # it was not moved
    for targets, first in (("normal", "n"), ("anomalous", "a")):
        names = chosen(rows, ThreatModel("linf", "1/255", targets), 2)
        assert names == {name: why for name, why in two.items() if name[0] == first}


def test_the_cell_holds_those_that_its_rows_choose(data: Data, tmp_path: Path) -> None:
    threat = ThreatModel("linf", "4/255", "anomalous")
    evaluate(Linear(), data, threat=threat, results=tmp_path, save_images=2)
    folder = cell_of(tmp_path)
    assert {e.id: e.why for e, _ in saved(folder)} == chosen(list(rows_of(folder).values()), threat, 2)
    assert {e.label for e, _ in saved(folder)} == {1}


@pytest.mark.parametrize("kind", [Mapped, NoisyMapped])
def test_maps_are_those_of_the_scored_draws(data: Data, tmp_path: Path, kind: type[Detector]) -> None:
    evaluate(kind(), data, results=tmp_path, save_images=1)
    rows = rows_of(cell_of(tmp_path))
    for entry, arrays in saved(cell_of(tmp_path)):
        row = rows[entry.id]
        assert arrays["map_clean"].shape == (8, 8)
        assert arrays["map_clean"].sum().item() == pytest.approx(row.clean, rel=1e-4)
        assert arrays["map_attacked"].sum().item() == pytest.approx(row.worst, rel=1e-4)


def test_a_map_that_fails_costs_no_image(data: Data, tmp_path: Path) -> None:
    record = evaluate(BrokenMap(), data, results=tmp_path, save_images=1).attrs["run"]
    assert {name for _, arrays in saved(cell_of(tmp_path)) for name in arrays} == {"clean", "attacked"}
    (warning,) = [w for w in record["warnings"] if "anomaly map" in w]
    assert "no map today" in warning


def test_images_change_no_number_and_no_cell(data: Data, tmp_path: Path) -> None:
    for name, count in (("without", None), ("with", 2), ("again", 2)):
        evaluate(NoisyLinear(), data, results=tmp_path / name, save_images=count)
    without, first, again = (cell_of(tmp_path / name) for name in ("without", "with", "again"))
    assert not read_record(without).images and not (without / "images").exists()
    assert (without / "samples.csv").read_bytes() == (first / "samples.csv").read_bytes()
    assert without.relative_to(tmp_path / "without") == first.relative_to(tmp_path / "with")
    assert read_record(first).images == read_record(again).images  # with their hashes
    assert not list(cache_folder().rglob("*.npy"))  # no sweep needs them


def test_a_killed_run_ends_with_the_same_images(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, batch_size=4, results=tmp_path / "whole", save_images=2)
    for rows in (4, 15):  # the second falls between the last row and the end
        with pytest.raises(Interrupted):
            evaluate(Linear(), data, batch_size=4, results=tmp_path / "cut", save_images=2, monitor=stop_after(rows))
    evaluate(Linear(), data, batch_size=4, results=tmp_path / "cut", save_images=2)
    whole, cut = cell_of(tmp_path / "whole"), cell_of(tmp_path / "cut")
    assert read_record(whole).images == read_record(cut).images
    assert [e for e, _ in saved(whole)] == [e for e, _ in saved(cut)]


def test_images_that_are_gone_or_not_of_the_rows_are_said(data: Data, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        evaluate(Linear(), data, batch_size=4, results=tmp_path, save_images=9, monitor=stop_after(8))
    kept = {name: next(cache_folder().rglob(f"{files.digest(name)}.npy")) for name in data.test.ids[:8]}
    gone, cut, still, outside, *_ = kept
    kept[gone].unlink()
    kept[cut].write_bytes(kept[cut].read_bytes()[:-1])
    own = WarmStarts(kept[still].parent)
    own.put([still], data.test.image(data.test.ids.index(still))[None])  # in the ball, with another score
    weight = Linear().weight
    along = torch.where(weight.abs() == weight.abs().min(), 0.1, 0)  # beyond the ball, with nearly the same score
    own.put([outside], torch.from_numpy(np.load(kept[outside]))[None] + along)
    record = evaluate(Linear(), data, batch_size=4, results=tmp_path, save_images=9).attrs["run"]
    assert record["status"] == "finished" and len(record["images"]) == len(data.test) - 4
    (warning,) = [w for w in record["warnings"] if "--save-images" in w]
    assert warning.startswith("4 of the 15 images of --save-images 9 are missing")
    assert "2 not in the cache" in warning and "2 not those that the rows were computed from" in warning
    saved(cell_of(tmp_path))


def test_a_sweep_keeps_what_a_larger_ball_starts_from(data: Data, tmp_path: Path) -> None:
    small, large = ThreatModel("linf", "2/255"), ThreatModel("linf", "4/255")
    evaluate(Linear(), data, threat=small, results=tmp_path, save_images=1, keep_images=True)
    assert len(list(cache_folder().rglob("*.npy"))) == len(data.test)
    record = evaluate(Linear(), data, threat=large, results=tmp_path, save_images=1, smaller=[small]).attrs["run"]
    assert record["smaller_ball"] and record["images"]
    assert len(list(cache_folder().rglob("*.npy"))) == len(data.test)


class Sometimes(Linear):
    """Breaks when told to, without a change of its code or parameters."""

    broken = False

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) * (float("nan") if self.broken else 1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_redo_that_fails_gives_the_images_back(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(Sometimes(), data, results=tmp_path, save_images=1)
    before = content(cell_of(tmp_path))
    monkeypatch.setattr(Sometimes, "broken", True)
    with pytest.raises(UserError, match="must be finite"):
        evaluate(Sometimes(), data, results=tmp_path, save_images=1, force=True)
    assert content(cell_of(tmp_path)) == before


def test_a_redo_sets_the_images_aside_until_it_is_done(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path, batch_size=4, save_images=2)
    folder = cell_of(tmp_path)
    before = content(folder)
    for _ in range(2):
        with pytest.raises(Interrupted):
            evaluate(Linear(), data, results=tmp_path, batch_size=4, force=True, monitor=stop_after(4))
        assert content(folder / "previous") == before
        assert not (folder / "images").exists()
    evaluate(Linear(), data, results=tmp_path, batch_size=4)  # nobody asks for images now
    assert sorted(p.name for p in folder.iterdir()) == ["run.json", "samples.csv"]


def test_a_finished_cell_without_enough_images_says_so(run_cli: Run, tmp_path: Path) -> None:
    command = ("run", "--detector", "autoencoder", "--param", "steps=2", "--category", "brick", "--limit", 6,
               "--image-size", 16, "--attack", "noise-linf", "--results", tmp_path / "results")  # fmt: skip
    assert run_cli(*command, "--save-images", 1)[0] == 0
    folder = cell_of(tmp_path / "results")
    assert all("map_clean" in arrays for _, arrays in saved(folder))
    code, _, err = run_cli(*command, "--save-images", 1)
    assert code == 0 and "--force" not in err
    code, _, err = run_cli(*command, "--save-images", 3)
    (said,) = [line for line in err.splitlines() if "--force runs it again" in line]
    assert code == 0 and " of the 6 images that --save-images 3 asks for" in said
    shutil.rmtree(folder / "images")
    code, _, err = run_cli(*command, "--save-images", 1)
    assert code == 0 and "finished without the images" in err
    code, _, err = run_cli(*command, "--save-images", 3, "--force")
    assert code == 0 and len(saved(folder)) == 6


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_number_of_images_that_is_none_is_refused(run_cli: Run, tmp_path: Path, count: str) -> None:
    code, _, err = run_cli("run", "--detector", "autoencoder", f"--save-images={count}", "--results", tmp_path / "r")
    assert code == 2 and len(err.strip().splitlines()) == 1 and "--save-images" in err
    assert not (tmp_path / "r").exists()


def test_images_need_a_folder(data: Data) -> None:
    with pytest.raises(UserError, match="give a folder as results"):
        evaluate(Linear(), data, save_images=1)
    with pytest.raises(UserError, match="must be at least 1, got 0"):
        evaluate(Linear(), data, save_images=0)


class Bank(Linear):
    """Holds numbers in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("bank", torch.zeros(10, 7))
        self.register_buffer("steps", torch.zeros(1000, dtype=torch.long))
        self.again = self.layer


def test_the_record_counts_the_numbers_that_a_detector_holds(tmp_path: Path) -> None:
    record = evaluate(Bank(), small_data(), results=tmp_path).attrs["run"]
    assert record["detector"]["weights"] == 3 * 8 * 8 + (4 * 3 + 3) + 10 * 7
    stored = json.loads((cell_of(tmp_path) / "run.json").read_text())
    assert stored["detector"]["weights"] == record["detector"]["weights"]
