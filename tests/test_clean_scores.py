"""Clean scores: each image is scored once for all cells of a detector, and the same whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import MEAN, Linear, small_data
from torch import Tensor

from bench import evaluate
from bench.engine.clean_scores import LOT, CleanScores
from bench.plugins.fitting import DetectorSpec

DATA = small_data(normal=LOT, anomalous=7)
IMAGES = len(DATA.test)


class Scored:
    """Counts what it scores: an image's score is its index."""

    def __init__(self, at_most: int = LOT):
        self.calls: list[list[int]] = []
        self.at_most = at_most

    def __call__(self, indices: Sequence[int]) -> Tensor:
        if len(indices) > self.at_most:
            raise torch.OutOfMemoryError
        self.calls.append(list(indices))
        return torch.tensor([list(map(float, indices))] * 2)


def test_the_lots_are_the_same_whoever_asks() -> None:
    backwards, one_by_one = Scored(), Scored()
    everything = CleanScores(DATA.test, backwards).of(range(IMAGES - 1, -1, -1))
    single = CleanScores(DATA.test, one_by_one)
    assert torch.cat([single.of([i]) for i in range(IMAGES)], 1).equal(everything.flip(1))
    assert sorted(backwards.calls) == sorted(one_by_one.calls) == [list(range(LOT)), list(range(LOT, IMAGES))]
    assert everything[0].tolist() == list(range(IMAGES - 1, -1, -1))


def test_what_is_known_is_not_scored_again_and_of_another_seed_it_is() -> None:
    known: dict[object, Tensor] = {}
    first, again, other = Scored(), Scored(), Scored()
    CleanScores(DATA.test, first, 0, known).of(range(IMAGES))
    CleanScores(DATA.test, again, 0, known).of(range(IMAGES))
    CleanScores(DATA.test, other, 1, known).of([3])
    CleanScores(DATA.limited(8).test, other, 0, known).of([3])
    assert (len(first.calls), len(again.calls), len(other.calls)) == (2, 0, 2)


def test_too_little_memory_halves_a_lot() -> None:
    small = Scored(at_most=5)
    assert CleanScores(DATA.test, small).of(range(IMAGES))[1].tolist() == list(range(IMAGES))
    assert max(map(len, small.calls)) <= 5
    with pytest.raises(torch.OutOfMemoryError):
        CleanScores(DATA.test, Scored(at_most=0)).of([0])


@pytest.mark.usefixtures("own_cache")
def test_the_cells_of_a_detector_share_them_and_their_rows_stay(tmp_path: Path) -> None:
    plugin, scored = tmp_path / "counts.py", tmp_path / "scored"
    note = f"        open({str(scored)!r}, 'a').write(f'{{len(x)}} ')\n"
    plugin.write_text(MEAN.replace("        return", note + "        return"))

    def run(spec: DetectorSpec, eps: str, results: str) -> tuple[int, bytes, int]:
        scored.write_text("")
        found = evaluate(spec, DATA, "pgd-linf", eps, attack_params={"steps": 3}, results=tmp_path / results)
        rows = (Path(found.attrs["folder"]) / "samples.csv").read_bytes()
        return found.attrs["run"]["forwards"], rows, sum(map(int, scored.read_text().split()))

    shared, one, other = (DetectorSpec(f"{plugin}:Mean") for _ in range(3))
    first, second = run(shared, "2/255", "shared"), run(shared, "4/255", "shared")
    alone = run(one, "2/255", "alone"), run(other, "4/255", "alone")
    assert (first[:2], second[:2]) == (alone[0][:2], alone[1][:2])  # what they rest on is counted, whoever made it
    shared.clean.clear()
    assert run(shared, "4/255", "scored anew")[2] - second[2] == IMAGES


def test_an_object_is_scored_in_every_call() -> None:
    """It may be another one by then."""
    linear = Linear()
    before = evaluate(linear, DATA, "pgd-linf", attack_params={"steps": 1})
    linear.weight.data.mul_(2)
    after = evaluate(linear, DATA, "pgd-linf", attack_params={"steps": 1})
    assert (after["clean"] - before["clean"]).abs().min() > 0
