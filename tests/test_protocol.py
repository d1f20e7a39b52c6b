"""Cells of an older protocol or version of a data set: read and verified by their own rules, and never mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PLUGIN, Linear, NoisyLinear, small_data
from stored_cells import rewrite

import bench
from bench import Data, Rng, Score, UserError, evaluate, load_results
from bench.analysis.boards import boards
from bench.cells.reader import read_results
from bench.core.protocol import DRAWS, PROTOCOL
from bench.core.threshold import threshold_at
from bench.plugins.fitting import DetectorSpec

QUICK: dict[str, Any] = {"attack_params": {"steps": 2}}


def as_before(folder: Path, **spec: Any) -> None:
    """run.json as it was written when there was one protocol."""

    def change(record: dict[str, Any]) -> None:
        for name in ("protocol", "dataset_version"):
            del record["spec"][name]
        record["spec"].update(spec)

    rewrite(folder, change)


def test_a_score_is_a_mean_over_as_many_draws_as_the_protocol_says(data: Data) -> None:
    assert DRAWS[PROTOCOL] == 32
    rows, same = evaluate(NoisyLinear(), data, **QUICK), evaluate(NoisyLinear(), data, draws=32, **QUICK)
    assert (rows["clean"] == same["clean"]).all() and (rows["worst"] == same["worst"]).all()
    held = data.train.split(0)[1]
    scores = Score(NoisyLinear()).mean(held.images(range(len(held))), Rng.held_out(0, held.ids), 32)
    assert rows.attrs["run"]["threshold"]["value"] == pytest.approx(threshold_at(scores.numpy()))


def test_rows_say_how_noisy_their_scores_are(data: Data) -> None:
    """A draw of NoisyLinear's score has the standard deviation |x| / 2."""
    rows = evaluate(NoisyLinear(), data, "pgd-linf", bench.ThreatModel("linf", "8/255", "normal"), **QUICK)
    sizes = data.test.images(range(len(data.test))).flatten(1).norm(dim=1).numpy()
    ratios = rows["clean_se"].to_numpy() / (sizes / 2 / 32**0.5)
    assert 0.85 < np.mean(ratios) < 1.15
    moved = rows["distance"] > 0
    assert moved.any() and (rows["worst_se"] > 0).all()
    assert (rows["worst_se"] == rows["clean_se"])[~moved].all() and (rows["worst_se"] != rows["clean_se"])[moved].any()
    for kind, draws in ((Linear, None), (NoisyLinear, 1)):
        assert "clean_se" not in evaluate(kind(), data, draws=draws, **QUICK).columns


def test_cells_of_two_protocols_have_boards_of_their_own(data: Data, tmp_path: Path) -> None:
    old = Path(evaluate(Linear(), data, results=tmp_path / "old", **QUICK).attrs["folder"])
    as_before(old)
    evaluate(Linear(), data, results=tmp_path / "new", **QUICK)
    titles = {board.title.partition(":")[0] for board in boards(read_results(tmp_path).results)}
    assert titles == {"small, 8 px", "small (protocol 1), 8 px"}
    assert sorted(load_results(tmp_path)["protocol"]) == [1, 2]


def test_a_cell_of_an_older_protocol_is_not_gone_on_with(data: Data, tmp_path: Path) -> None:
    folder = Path(evaluate(Linear(), data, results=tmp_path, **QUICK).attrs["folder"])
    as_before(folder)
    before = (folder / "samples.csv").read_bytes()
    with pytest.raises(UserError, match=r"before the protocol \(1, now 2\) changed; --force"):
        evaluate(Linear(), data, results=tmp_path, **QUICK)
    assert (folder / "samples.csv").read_bytes() == before


def test_versions_of_a_data_set_are_never_mixed(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path / "first", **QUICK)
    second = dataclasses.replace(small_data(normal=9), version=2)
    evaluate(Linear(), second, results=tmp_path / "second", **QUICK)
    titles = {board.title.partition(":")[0] for board in boards(read_results(tmp_path).results)}
    assert titles == {"small, 8 px", "small v2, 8 px"}
    with pytest.raises(UserError, match="before the version of small and the images changed"):
        evaluate(Linear(), second, results=tmp_path / "first", **QUICK)


@pytest.mark.usefixtures("own_cache")
def test_an_old_cell_is_verified_with_its_own_images_and_draws(
    tree: Path, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    """Made as protocol 1 would have: its stride, 8 draws, a spec that names neither."""
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    detector = DetectorSpec(f"{tmp_path}/mine.py:Noisy")
    bed = bench.load_data("folder", root=tree, image_size=16).limited(5, protocol=1)
    rows = evaluate(detector, bed, results=tmp_path / "results", draws=8, save_images=1, **QUICK)
    folder = Path(rows.attrs["folder"])
    as_before(folder, draws=None, limit=5)
    options = ("--data-root", tree, "--detector", f"{tmp_path}/mine.py:Noisy")
    code, out, _ = run_cli("verify", folder, *options)
    assert code == 0 and "pass    data" in out and "pass    scores" in out
    code, out, _ = run_cli("check-run", folder, *options)
    assert "stored rows: 5 clean scores, scored again, differ by" in out and "FAIL    stored rows" not in out
    rewrite(folder, lambda record: record["spec"].update(protocol=2))
    code, out, _ = run_cli("verify", folder, *options)
    assert code == 1 and "FAIL    data" in out


@pytest.mark.usefixtures("own_cache")
def test_images_of_another_version_are_said_to_be(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    bed = bench.load_data(category="brick", image_size=16)
    detector = DetectorSpec("autoencoder", {"steps": 2, "width": 4})
    rows = evaluate(detector, bed, results=tmp_path, limit=4, save_images=1, **QUICK)
    folder = Path(rows.attrs["folder"])
    assert rows.attrs["run"]["spec"]["dataset_version"] == bed.version == 2
    rewrite(folder, lambda record: record["spec"].update(dataset_version=1))
    code, out, _ = run_cli("verify", folder)
    assert code == 1 and "the run had version 1 of textures/brick, and here is version 2" in " ".join(out.split())
