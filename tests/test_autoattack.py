"""AutoAttack's cascade on a score: what it breaks, what it leaves alone, and that nothing of it leaks."""

from __future__ import annotations

import logging
import random
import sys
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Linear, NoisyLinear
from pyautoattack import checks  # type: ignore[import-untyped]
from test_oracle import IDS, SIGN, best_gain, images
from torch import Tensor

from bench import Attacked, Data, Detector, Rng, Score, ThreatModel, evaluate
from bench.cells.reader import read_results
from bench.plugins.lookup import make_attack
from bench.report.write import write_report
from bench.stats.metrics import accuracy

SMALL = {"steps": 10, "queries": 20, "ascent_steps": 5}
PLAIN, CONTINUED = "autoattack", "autoattack then apgd"


def attacked(score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, **given: int) -> Attacked:
    attack = make_attack("autoattack", {name: str(value) for name, value in (SMALL | given).items()})[2]
    found = attack(score, x, sign, threat, Rng(0, IDS[: len(x)]))
    assert isinstance(found, Attacked)
    for image in found.images.values():
        assert threat.violation(image, x) is None
    return found


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_breaks_what_can_be_broken_and_the_ascent_goes_to_the_end(linear: Linear, norm: str) -> None:
    threat, x = ThreatModel(norm, "0.05" if norm == "linf" else "0.8"), images(interior=True)
    scores = linear.score(x)
    gain = best_gain(linear.weight, x, SIGN, threat).float()
    tau = scores.median().item() + 0.01
    excess = SIGN * (scores - tau)
    can = excess + gain > 0
    assert can.any()
    found = attacked(Score(linear, threshold=tau), x, SIGN, threat)
    assert found.columns["broken"].bool().tolist() == can.tolist()
    plain, further = (SIGN * (linear.score(found.images[part]) - tau) for part in (PLAIN, CONTINUED))
    assert (plain[can] > 0).all()
    untouched = (excess > 0) | ~can
    assert torch.equal(found.images[PLAIN][untouched], x[untouched])
    assert torch.allclose(further, excess + gain, rtol=1e-3)


@pytest.mark.parametrize("shift", [-1e4, 1e4], ids=["below", "above"])
def test_a_threshold_out_of_reach_leaves_every_image_where_it_was(linear: Linear, shift: float) -> None:
    """The measured failure of plain AutoAttack; the column that goes on does not share it."""
    threat, x = ThreatModel("linf", "8/255"), images(interior=True)
    found = attacked(Score(linear, threshold=shift), x, SIGN, threat)
    right = (SIGN > 0) == (shift > 0)
    assert torch.equal(found.images[PLAIN], x)
    assert found.columns["broken"].bool().tolist() == (~right).tolist()
    gain = SIGN * (linear.score(found.images[CONTINUED]) - linear.score(x))
    assert torch.allclose(gain, best_gain(linear.weight, x, SIGN, threat).float(), rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_score_changes_nothing(scale: float) -> None:
    class Scaled(Linear):
        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            return scale * super().score(x)

    threat, x = ThreatModel("linf", "0.05"), images(interior=True)
    tau = Linear().score(x).median().item() + 0.01
    found = attacked(Score(Scaled(), threshold=scale * tau), x, SIGN, threat)
    plain = attacked(Score(Linear(), threshold=tau), x, SIGN, threat)
    assert found.columns["broken"].tolist() == plain.columns["broken"].tolist()
    assert torch.allclose(found.images[PLAIN], plain.images[PLAIN], atol=1e-4)


def test_nothing_global_is_left_changed(linear: Linear) -> None:
    threat, x = ThreatModel("l2", "0.3"), images(interior=True)
    score = Score(linear, threshold=linear.score(x).median().item())

    def tracer(frame: FrameType, event: str, argument: Any) -> None:
        return None

    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    functions = {name: getattr(checks, name) for name in dir(checks) if name.startswith("check_")}
    counted = dict(checks.funcs)
    handlers, level = list(logging.getLogger("auto-attack").handlers), logging.getLogger("auto-attack").level
    trace = sys.gettrace()
    sys.settrace(tracer)
    try:
        attacked(score, x, SIGN, threat)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(trace)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist() and before[2] == random.getstate()  # type: ignore[index]
    assert functions == {name: getattr(checks, name) for name in functions} and counted == checks.funcs
    assert logging.getLogger("auto-attack").handlers == handlers
    assert logging.getLogger("auto-attack").level == level


def test_the_seed_is_the_images_not_the_clocks(linear: Linear) -> None:
    threat, x = ThreatModel("linf", "8/255"), images(interior=True)
    score = Score(linear, threshold=linear.score(x).median().item() + 1)
    first = attacked(score, x, SIGN, threat)
    torch.manual_seed(123)  # a global seed changes nothing either
    again = attacked(score, x, SIGN, threat)
    for part in (PLAIN, CONTINUED):
        assert torch.equal(first.images[part], again.images[part])


def test_the_noise_of_a_randomized_detector_stays_fresh() -> None:
    """The package seeds torch's generator before each attack; the detector draws from its own source."""
    drawn: list[float] = []

    class Watched(NoisyLinear):
        def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            assert rng is not None
            noise = rng.normal(x)
            drawn.append(noise.flatten()[0].item())
            return (x * (self.weight.to(x) + 0.5 * noise)).flatten(1).sum(1)

    x = images(interior=True)[:1]
    tau = Linear().score(x).item() + 1e3
    attacked(Score(Watched(), threshold=tau), x, SIGN[:1], ThreatModel("linf", "8/255"), draws=2)
    choice = 2 * 5 * 2  # what chooses between the candidates of the ascent repeats its draws, on purpose
    assert len(drawn) > 100 and len(set(drawn)) > len(drawn) - choice


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_rows_do_not_depend_on_the_batch(data: Data, kind: type[Detector]) -> None:
    options: dict[str, Any] = {"threat": ThreatModel("linf", "8/255"), "attack_params": SMALL | {"draws": 2}}
    one, seven = (evaluate(kind(), data, "autoattack", batch_size=n, **options) for n in (1, 7))
    for name in ("worst", PLAIN, CONTINUED, "broken"):
        assert np.allclose(one[name], seven[name], rtol=1e-4), name


def test_its_own_accuracy_is_reported(data: Data, tmp_path: Any) -> None:
    threat = ThreatModel("linf", "8/255", "normal")
    frame = evaluate(Linear(), data, "autoattack", threat, attack_params=SMALL, results=tmp_path)
    assert frame.broken.isna().tolist() == (frame.label == 1).tolist()
    (result,) = read_results(tmp_path).results
    tau = result.record.threshold.value
    expected = accuracy(frame[PLAIN], frame.label, tau).value
    assert result.metrics["autoattack_accuracy"].value == pytest.approx(expected)
    assert expected < accuracy(frame.clean, frame.label, tau).value
    sign = 1 - 2 * frame.label
    assert (sign * frame[CONTINUED] >= sign * frame[PLAIN] - 1e-5).all()
    write_report(tmp_path)
    board = (tmp_path / "LEADERBOARD.md").read_text()
    assert "| AutoAttack acc. |" in board and "*AutoAttack acc.*" in board
    assert pd.read_csv(tmp_path / "leaderboard.csv").autoattack_accuracy[0] == pytest.approx(expected)
