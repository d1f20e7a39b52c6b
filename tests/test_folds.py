"""A threshold from all normal images: each is scored by a detector that was not fitted on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Linear, small_data

import bench
from bench import Data, UserError, evaluate
from bench.core.threshold import threshold_at
from bench.plugins.fitting import DetectorSpec

QUICK: dict[str, Any] = {"attack_params": {"steps": 2}}


def mean_scores(normal: bench.TrainSet, held: bench.TrainSet) -> list[float]:
    """What `Mean` of conftest gives to images that it was not fitted on."""
    fitted, images = (torch.stack([part.image(i) for i in range(len(part))]) for part in (normal, held))
    return (images - fitted.mean(0)).square().flatten(1).sum(1).tolist()


@pytest.mark.parametrize("count", [4, 7, 31])
def test_every_image_is_held_out_once(count: int) -> None:
    train = small_data(train=40).train
    folds = train.folds(3, count)
    held = [fold.split(seed)[1].ids for seed, fold in enumerate(folds)]
    assert len(held) == count and sorted(i for ids in held for i in ids) == sorted(train.ids)
    assert max(map(len, held)) <= 10 and max(map(len, held[1:])) - min(map(len, held[1:])) <= 1
    assert [part.ids for part in folds[0].split(0)] == [part.ids for part in train.split(3)]
    for fold, left_out in zip(folds, held, strict=True):
        assert set(fold.split(0)[0].ids) == set(train.ids) - set(left_out)


def test_folds_that_hold_out_too_much_are_refused_with_the_number_that_does_not(data: Data, plugin: str) -> None:
    for count in (2, 3, 32):
        with pytest.raises(UserError, match="make 4 to 31 folds"):
            evaluate(plugin, data, threshold_folds=count, **QUICK)
    with pytest.raises(UserError, match="give it by its name"):
        evaluate(Linear(), data, threshold_folds=4, **QUICK)


@pytest.mark.usefixtures("own_cache")
def test_the_threshold_is_that_of_all_images_and_nothing_else_changes(data: Data, plugin: str, results: Path) -> None:
    plain = evaluate(plugin, data, results=results, **QUICK)
    folded = evaluate(plugin, data, results=results, threshold_folds=5, **QUICK)
    columns = ["clean", "worst", "distance"]
    assert (plain[columns] == folded[columns]).all(axis=None)
    assert plain.attrs["run"]["detector"] == folded.attrs["run"]["detector"]
    assert plain.attrs["folder"] != folded.attrs["folder"]
    scores = [score for fold in data.train.folds(0, 5) for score in mean_scores(*fold.split(0))]
    found = folded.attrs["run"]["threshold"]
    assert found["value"] == pytest.approx(threshold_at(scores), rel=1e-5)
    assert (found["held_out"], found["folds"]) == (40, 5)
    assert (plain.attrs["run"]["threshold"]["held_out"], plain.attrs["run"]["threshold"]["folds"]) == (10, None)


@pytest.mark.usefixtures("own_cache")
def test_fits_of_folds_are_kept_and_no_sign_of_changed_code(data: Data, plugin: str) -> None:
    told: list[str] = []
    for count in (4, 5):
        DetectorSpec(plugin, tell=told.append).threshold(data, count)
    again = DetectorSpec(plugin, tell=told.append)
    assert again.threshold(data, 5) == DetectorSpec(plugin).threshold(data, 5)
    assert told == []


@pytest.mark.usefixtures("own_cache")
def test_the_first_fold_is_scored_by_the_very_detector_that_is_tested(
    data: Data, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose weights may have come with a submission: no other fit would be it."""
    scored_by: list[object] = []

    def first_alone(fitted: Callable[[Data], object], full: Data, seed: int, name: str, folds: int, *_: int) -> object:
        scored_by.append(fitted(full.folds(seed, folds)[0]))
        return None

    monkeypatch.setattr("bench.plugins.fitting.cross_fitted_threshold", first_alone)
    spec = DetectorSpec(plugin)
    spec.threshold(data, 4)
    assert len(scored_by) == 1 and scored_by[0] is spec.fitted(data)


def test_the_command_line_passes_it_on(
    tree: Path, plugin: str, results: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    bed = ("--dataset", "folder", "--data-root", tree, "--image-size", 16)
    words = ("--detector", plugin, "--attack-param", "steps=2", *bed, "--results", results, "--threshold-folds", 5)
    code, out, _ = run_cli("run", *words, "--in-process")
    assert code == 0 and "threshold_folds=5" in out
    table = bench.load_results(results)
    assert len(table) == 1
    (folder,) = table["folder"]
    code, out, _ = run_cli("check-run", folder, "--data-root", tree, "--detector", plugin)
    assert code in (0, 1) and "pass    stored rows" in out
