"""What an attack notes of its way: the worst score after so many passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from torch import Tensor

import bench
from bench import Rng, Score, ThreatModel, Trace, UserError, evaluate
from bench.plugins.lookup import make_attack
from bench.report.figures.progress import AttackProgress


class Hilly(Linear):
    """Linear and waves on it: not climbed in one step."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + torch.sin(40 * x * self.weight.to(x)).flatten(1).sum(1)


def climbed(name: str, steps: int, restarts: int = 1, goal: Any = "rank", **more: Any) -> tuple[Tensor, Trace, Score]:
    """Image, trace and score of an attack on five images."""
    attack: Any = make_attack(name, {"steps": steps, "restarts": restarts, **more})[2]
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    score = Score(Hilly(), threshold=float(Hilly().score(x).median()), goal=goal)
    trace = Trace(attack.budget)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    ids = [str(i) for i in range(5)]
    image = attack(score, x, sign, ThreatModel("linf", "8/255"), Rng(0, ids), trace=trace)
    score_without = Score(Hilly(), threshold=score.threshold, goal=goal)
    without = attack(score_without, x, sign, ThreatModel("linf", "8/255"), Rng(0, ids))
    assert torch.equal(image, without) and score.forwards == score_without.forwards
    assert [len(best) for best in trace.best] == [5] * len(trace.passes)
    torch.testing.assert_close(trace.best[-1], sign * score.detector.score(image))
    return torch.stack(trace.best), trace, score


def test_a_trace_notes_one_two_five_and_the_last() -> None:
    assert Trace(21).passes == (1, 2, 5, 10, 20, 21)
    assert Trace(101).columns[-2:] == ("after_100", "after_101")
    assert Trace(10).passes == (1, 2, 5, 10) and Trace(1).passes == (1,)


@pytest.mark.parametrize("goal", ["rank", "threshold"])
@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_a_trace_rises_to_what_the_attack_returns_and_costs_nothing(name: str, restarts: int, goal: str) -> None:
    """The same image and the same number of passes as without; the last value is the score of that image."""
    best, trace, score = climbed(name, 12, restarts, goal)
    assert (best[1:] >= best[:-1]).all()
    assert trace.passes[-1] == 13 * restarts
    assert score.forwards <= 5 * trace.passes[-1]
    if goal == "rank":
        assert (best[-1] > best[0]).all()


def test_more_steps_extend_the_same_columns() -> None:
    same: dict[str, Any] = {"schedule": "constant", "step_size": 0.002}
    short, few, _ = climbed("pgd", 9, **same)
    long, many, _ = climbed("pgd", 40, **same)
    assert few.passes == (1, 2, 5, 10) and many.passes[:4] == few.passes
    assert torch.equal(short, long[:4]) and (long[-1] > short[-1]).any()


def test_rows_have_the_progress(tmp_path: Path) -> None:
    for targets in ("both", "normal"):
        threat = ThreatModel("linf", "8/255", targets)
        frame = evaluate(Hilly(), small_data(), "apgd-linf", threat, attack_params={"steps": 20}, results=tmp_path)
        names = [f"after_{k}" for k in (1, 2, 5, 10, 20, 21)]
        assert list(frame.columns[6:]) == names
        sign = (1 - 2 * frame["label"]).to_numpy()[:, None]
        reached = sign * frame[["clean", *names]].to_numpy()
        assert (np.diff(reached) >= 0).all()
        np.testing.assert_allclose(frame["after_21"], frame["worst"], rtol=1e-5)
        if targets == "normal":
            kept = frame[frame["label"] == 1]
            assert (kept[names].to_numpy() == kept[["clean"]].to_numpy()).all()
    found = {figure.board: figure.lines for figure in AttackProgress.of(bench.read_results(tmp_path).results)}
    assert len(found) == 2
    points = found["small, 8 px: apgd (steps=20), linf 8/255"]["Hilly"]
    (cell,) = (r for r in bench.read_results(tmp_path).results if r.spec.targets == "both")
    assert [p.passes for p in points] == [1, 2, 5, 10, 20, 21]
    assert points[-1].auroc == pytest.approx(cell.metrics["robust_auroc"].value)
    assert points[0].auroc > points[-1].auroc


def test_what_makes_the_passes_unclear_has_no_progress() -> None:
    """Lucky draws of a randomized detector, and the parts of a list, whose passes are not the list's."""
    noisy = evaluate(NoisyLinear(), small_data(), attack_params={"steps": 3})
    listed = evaluate(Linear(), small_data(), "worst-linf", attack_params={"attacks": "pgd[steps=3],apgd[steps=3]"})
    assert not any(name.startswith("after_") for frame in (noisy, listed) for name in frame.columns)


def test_a_trace_that_is_not_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pgd = type(make_attack("pgd")[2])
    monkeypatch.setattr(pgd, "__call__", lambda self, score, x, sign, threat, rng, trace=None: x)
    with pytest.raises(UserError, match="does not keep it"):
        evaluate(Linear(), small_data())
