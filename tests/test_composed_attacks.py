"""Composed attacks: the standard evaluation, the worst of a list, transfer; what a run makes of several candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attacked import EPS, IDS, SIGN, SMALL, Blocked, Peaks, images
from conftest import Linear, NoisyLinear, small_data
from torch import Tensor

from bench import (
    Attacked,
    Context,
    Data,
    Hints,
    Rng,
    Score,
    ThreatModel,
    evaluate,
)
from bench.plugins import registry
from bench.plugins.lookup import make_attack


def test_standard_attacks_what_has_no_gradient(data: Data) -> None:
    frame = evaluate(Blocked(), data, "standard-linf", attack_params=SMALL["standard"])
    assert list(frame.columns[6:]) == ["bpda", "square", "passes", "stopped"]


def test_the_worst_of_a_list_is_no_better_than_any_part(data: Data) -> None:
    frame = evaluate(Peaks(), data, "worst-linf", attack_params=SMALL["worst"])
    sign = 1 - 2 * frame["label"]
    for part in ("pgd[steps=3]", "square[queries=5]"):
        assert (sign * frame["worst"] >= sign * frame[part]).all()
        assert (sign * frame[part] >= sign * frame["clean"]).all()


def test_a_randomized_detector_is_reported_three_ways(data: Data) -> None:
    """The mean over draws; the worst of them; and the draw that the adversary knows, which hurts at least as much."""
    frame = evaluate(NoisyLinear(), data, "apgd-linf", attack_params={"steps": 10}, draws=6)
    sign = 1 - 2 * frame["label"]
    assert (sign * frame["worst_draw"] >= sign * frame["worst"]).all()
    gain_known = (sign * frame["known_noise"]).mean() - (sign * frame["worst"]).mean()
    assert gain_known > 0


def test_known_noise_is_one_draw(data: Data) -> None:
    score = Score(NoisyLinear()).with_known_noise()
    x, rng = images(), Rng(0, IDS)
    assert torch.equal(score(x, rng), score(x, rng))
    assert torch.equal(score(x[[2]], rng.rows([2])), score(x, rng)[[2]])
    assert score.with_known_noise().randomized is False


def test_a_larger_ball_starts_from_the_smaller_one(data: Data, tmp_path: Path) -> None:
    """So that a curve over eps cannot rise, whatever the larger attack is worth."""
    balls = [ThreatModel("linf", eps) for eps in ("4/255", "8/255")]
    first = evaluate(Peaks(), data, "apgd-linf", balls[0], attack_params={"steps": 30}, keep_images=True)
    weak = {"attack": "noise-linf", "threat": balls[1], "attack_params": {"tries": 1}}
    evaluate(Peaks(), data, "noise-linf", balls[0], attack_params={"tries": 1}, keep_images=True)
    alone = evaluate(Peaks(), data, **weak)  # type: ignore[arg-type]
    swept = evaluate(Peaks(), data, **weak, smaller=balls[:1])  # type: ignore[arg-type]
    second = evaluate(Peaks(), data, "apgd-linf", balls[1], attack_params={"steps": 1}, smaller=balls[:1])
    sign = 1 - 2 * first["label"]
    # images are kept under the attack that made them: a weak one does not inherit from a strong one
    assert (sign * swept["worst"] >= sign * alone["worst"] - 1e-9).all()
    assert len(second) == len(first)
    strong = evaluate(
        Peaks(), data, "apgd-linf", balls[1], attack_params={"steps": 30}, smaller=balls[:1], results=tmp_path
    )
    assert (sign * strong["worst"] >= sign * first["worst"]).all()


def test_transfer_attacks_through_its_source(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Linear()
    transfer = registry.load("attacks", "transfer").target
    monkeypatch.setattr(transfer.prepare.__globals__["DetectorSpec"], "fitted", lambda *_: source)
    target = Linear(seed=1)
    frame = evaluate(target, data, "transfer-linf", attack_params={"source": "autoencoder", "steps": 5})
    moved = evaluate(source, data, "apgd-linf", attack_params={"steps": 5})
    assert (frame["distance"] <= 2 / 255 + 1e-6).all()
    gain = (1 - 2 * frame["label"]) * (frame["worst"] - frame["clean"])
    own = (1 - 2 * moved["label"]) * (moved["worst"] - moved["clean"])
    assert (gain >= 0).all() and gain.mean() < own.mean()


def test_the_board_shows_parts_rounding_and_draws(data: Data, tmp_path: Path) -> None:
    from bench.analysis.boards import boards
    from bench.analysis.table import by_part, table
    from bench.cells.reader import read_results

    everywhere = SMALL["standard"] | {"probe": 0}
    evaluate(NoisyLinear(), data, "standard-linf", attack_params=everywhere, draws=3, results=tmp_path)
    results = read_results(tmp_path).results
    (board,) = boards(results)
    assert results[0].spec.attack_parameters == everywhere
    (shown,), parts = table(board), by_part(board)
    assert parts is not None and parts.parts == ["gradient", "square"]
    metrics, (*each, worst) = results[0].metrics, next(iter(parts.lines.values()))
    assert worst.estimate == metrics["robust_auroc"].estimate()
    assert all(worst.estimate.value <= value.estimate.value for value in each if value.estimate)
    for column in ("rounded", "worst draw", "known noise"):
        assert 0 <= float(shown.values[column].text) <= 1
    assert metrics["worst_draw_auroc"].value <= metrics["robust_auroc"].value


def test_standard_takes_the_hints_of_a_detector(data: Data) -> None:
    class Hinted(Peaks):
        def attack_hints(self) -> Hints:
            return Hints(objectives=("mean",), starts=lambda x, sign: 1 - x)

    frame = evaluate(Hinted(), data, "standard-v3-linf", attack_params=SMALL["standard-v3"])
    assert list(frame.columns[6:]) == ["apgd", "apgd-top", "apgd-mean", "apgd-hinted", "apgd-score", "square"]
    frame = evaluate(Hinted(), data, "standard-linf", attack_params=SMALL["standard"])
    assert list(frame.columns[6:]) == ["gradient", "passes", "stopped"]
    assert (frame["distance"] <= 2 / 255 + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_maximum_of_linear_functions_is_attacked_to_its_optimum(norm: str) -> None:
    """Up: the best of the functions, each with its own optimum. Down: at least what one linear program allows."""
    from scipy.optimize import linprog

    detector, x = Peaks(), 0.3 + 0.4 * images()
    threat = ThreatModel(norm, EPS[norm])
    attack = make_attack("standard", {"transfer": False, "queries": 1, "steps": 60})[2]
    score = Score(detector)
    attack.prepare(Context(small_data(), "mine", score, 0))
    found = attack(score, x, SIGN, threat, Rng(0, IDS))
    assert isinstance(found, Attacked)
    reached = torch.stack([SIGN * detector.score(image) for image in found.images.values()]).amax(0)
    dual = detector.weight.abs().sum(1) if norm == "linf" else detector.weight.norm(dim=1)
    local = (x.flatten(1) - 0.5) @ detector.weight.mT
    highest = (local + threat.radius * dual).amax(1)
    up, down = SIGN > 0, SIGN < 0
    gain = highest[up] - detector.score(x)[up]
    assert (reached[up] - detector.score(x)[up] >= 0.99 * gain).all()
    if norm == "linf":  # min over delta of a maximum, exactly
        for i in down.nonzero().flatten().tolist():
            n = detector.weight.shape[1]
            w = detector.weight.double().numpy()
            rows = [[*w[k], -1.0] for k in range(detector.functions)]
            bounds = [(-threat.radius, threat.radius)] * n + [(None, None)]
            lowest = linprog([0.0] * n + [1.0], rows, (-local[i]).double().numpy(), bounds=bounds).fun
            room = float(detector.score(x)[i]) - lowest
            assert float(detector.score(x)[i] + reached[i]) >= 0.97 * room


def test_out_of_memory_halves_the_batch_and_is_said_once(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are those of a run that had memory enough."""
    from bench.core.progress import Monitor

    pgd = registry.load("attacks", "pgd").target
    whole = pgd.__call__
    said: list[str] = []

    def hungry(self: Any, score: Score, x: Tensor, *rest: Any, **named: Any) -> Any:
        if len(x) > 3:
            raise torch.OutOfMemoryError
        return whole(self, score, x, *rest, **named)

    expected = evaluate(Linear(), data, "pgd-linf", attack_params={"steps": 3})
    monkeypatch.setattr(pgd, "__call__", hungry)
    found = evaluate(
        Linear(), data, "pgd-linf", attack_params={"steps": 3}, batch_size=12, monitor=Monitor(tell=said.append)
    )
    assert found["worst"].tolist() == pytest.approx(expected["worst"].tolist(), rel=1e-6)
    assert len([line for line in said if "out of memory" in line]) == 1


def settled_and_not(data: Data, settles: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    standard = registry.load("attacks", "standard").target
    monkeypatch.setattr(standard, "settles", settles)
    return evaluate(Peaks(), data, "standard-linf", attack_params={"transfer": False}, eps="8/255")


def test_settled_images_cost_less_and_change_no_metric(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has lost every pair may be left alone: AUROC of both sides and of each one is the same."""
    left = settled_and_not(data, True, monkeypatch)
    moved = settled_and_not(data, False, monkeypatch)
    assert (left["stopped"] == 1).any() and not (moved["stopped"] == 1).any()
    assert left["passes"].mean() < moved["passes"].mean()
    for side in ("robust_auroc", "normal_only_auroc", "anomalous_only_auroc", "robust_accuracy"):
        assert left.metrics[side] == moved.metrics[side]


def test_the_black_box_meets_all_images_where_it_is_ahead_on_the_probe(data: Data) -> None:
    class Masked(Linear):
        """Its gradient is that of another score."""

        def score(self, x: torch.Tensor, rng: Rng | None = None) -> torch.Tensor:
            true, false = super().score(x), x.flatten(1)[:, ::7].sum(1) * 1e-3
            return true.detach() + false - false.detach()

    given = {"transfer": False, "queries": 400}
    assert "square" in evaluate(Masked(), data, "standard-linf", attack_params=given).columns
    assert "square" not in evaluate(Linear(), data, "standard-linf", attack_params=given).columns
