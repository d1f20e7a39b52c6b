"""What a score costs: measured once for all cells of a detector, and what memory does not allow is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Linear, small_data
from torch import Tensor

from bench import Rng, evaluate, load_results
from bench.engine import scoring_cost as module
from bench.engine.scoring_cost import scoring_cost
from bench.harness import cell
from bench.plugins.fitting import DetectorSpec


class Full(Linear):
    """Has room for a few images."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        if len(x) > 8:
            raise torch.OutOfMemoryError("full")
        return super().score(x)


def test_it_is_in_the_record_and_the_table(tmp_path: Path) -> None:
    evaluate(Linear(), small_data(), results=tmp_path, attack_params={"steps": 2})
    (row,) = load_results(tmp_path).to_dict("records")
    assert row["ms_1"] > 0 and row["ms_32"] > 0
    assert row["disk_mib"] == pytest.approx(3 * 8 * 8 * 4 / 2**20)


def test_a_batch_that_memory_does_not_allow_is_left_out() -> None:
    found = scoring_cost(Full(), "full", 8)
    assert found.ms_1 > 0 and found.ms_32 is None


def test_a_slow_one_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOO_LONG", 0.0)
    assert scoring_cost(Linear(), "slow", 8).ms_32 is None


def test_cells_of_a_detector_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(detector: object, name: str, size: int) -> object:
        asked.append(size)
        return scoring_cost(detector, name, size)  # type: ignore[arg-type]

    monkeypatch.setattr(cell, "scoring_cost", counted)
    spec, data = DetectorSpec("autoencoder", {"steps": 2}), small_data(size=16)
    for eps in ("1/255", "2/255"):
        evaluate(spec, data, eps=eps, attack_params={"steps": 2})
    assert asked == [16]
