"""What is said beside the numbers of thresholds, and of seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import Linear, respec, small_data
from made_up import moved, scored

from bench import ThreatModel, evaluate
from bench.analysis.remarks import over_seeds, thresholds
from bench.cells.reader import Results
from bench.cells.result import Result
from bench.core.threshold import possible_false_alarms
from bench.report.leaderboard import markdown
from bench.report.page import page

Run = Callable[..., tuple[int, str, str]]


def with_seed(found: Result, seed: int) -> Result:
    respec(found, seed=seed)
    return found


def test_a_threshold_of_few_images_may_have_many_false_alarms() -> None:
    low, high = possible_false_alarms(20)  # the largest of 20: 1 - the 20th root of a uniform number
    assert abs(low - (1 - 0.975 ** (1 / 20))) < 1e-12
    assert abs(high - (1 - 0.025 ** (1 / 20))) < 1e-12
    assert possible_false_alarms(2000)[1] < 0.065 and possible_false_alarms(1)[1] > 0.97


def test_false_alarms_are_said_beside_the_accuracies() -> None:
    cells = [moved("a"), moved("b")]
    (said,) = thresholds(cells)
    assert said.endswith("set on 20 held-out normal images has 0.1 to 16.8 % on others (95 % interval)")
    assert markdown(cells, []).count(said) == 1 and page(Results(cells, [], [])).count(said) == 1
    cells[1].record.threshold.held_out = 0
    assert thresholds(cells[1:]) == []


def test_the_spread_over_seeds_is_said_where_there_are_several() -> None:
    cells = [with_seed(moved("a", category, seed=seed), seed) for seed in (3, 4, 5) for category in ("one", "two")]
    cells.append(with_seed(moved("a", "three"), 3))  # which the other seeds lack
    (said,) = over_seeds(cells)
    of = {(r.spec.seed, r.category): r.metrics["robust_auroc"].value for r in cells}
    means = [np.mean([of[seed, c] for c in ("one", "two")]) for seed in (3, 4, 5)]
    assert "(mean of 2 categories)" in said and f"standard deviation {np.std(means, ddof=1):.3f}" in said
    assert ", ".join(f"{value:.3f}" for value in means) + " with the seeds 3, 4, 5" in said
    assert "## Over seeds" in markdown(cells, []) and said in page(Results(cells, [], []))


def test_nothing_is_said_of_one_seed_or_of_cells_that_differ_in_more() -> None:
    alone = [scored(np.arange(60.0), "a"), with_seed(scored(np.arange(60.0), "b"), 1)]
    alone.append(with_seed(scored(np.arange(60.0), "a", eps="1/255"), 1))
    alone.append(with_seed(scored(np.arange(60.0), "a", "two"), 1))  # no category in common
    for rules in ({"protocol": 1}, {"dataset_version": 3}):
        alone.append(scored(np.arange(60.0), "a"))
        respec(alone[-1], seed=2, **rules)
    assert over_seeds(alone) == [] and "Over seeds" not in markdown(alone, [])


def test_compare_prints_the_spread_over_seeds(tmp_path: Path, run_cli: Run) -> None:
    for seed in (0, 1):
        for attack in ("noise", "pgd"):
            evaluate(Linear(seed), small_data(), attack, ThreatModel("linf", "8/255"), results=tmp_path, seed=seed)
            evaluate(Linear(5), small_data(), attack, ThreatModel("linf", "8/255"), results=tmp_path, seed=seed)
    code, out, err = run_cli("compare", "Linear (seed=1)", "Linear (seed=5)", "--results", tmp_path)
    assert code == 0, err
    assert " ".join(out.split()).count("with the seeds 0, 1; standard deviation") == 2
