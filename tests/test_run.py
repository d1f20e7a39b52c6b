"""The loop: rows that do not depend on batches, interruptions or the attack's honesty."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from torch import Tensor

from bench import Attack, Data, Detector, Rng, Score, ThreatModel, UserError, evaluate, load_results
from bench.cells.record import read_record
from bench.core.progress import Monitor
from bench.harness import evaluate as evaluation


class Interrupted(BaseException):
    """Stands for kill -9: nothing may depend on it being handled."""


def stop_after(rows: int) -> Monitor:
    def on_rows(done: int, total: int) -> None:
        if done >= rows:
            raise Interrupted

    return Monitor(on_rows)


def cell_of(results: Path) -> Path:
    (found,) = [p.parent for p in results.rglob("run.json") if p.parent.name != "previous"]
    return found


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_batches_of_one_and_of_seven_differ_by_rounding_only(data: Data, kind: type[Detector], norm: str) -> None:
    threat = ThreatModel(norm, "8/255")
    one, seven = (evaluate(kind(), data, "pgd", threat, batch_size=n) for n in (1, 7))
    assert one.id.tolist() == seven.id.tolist() == data.test.ids
    for column in ("clean", "worst", "distance"):
        assert torch.allclose(torch.tensor(one[column].values), torch.tensor(seven[column].values), rtol=1e-4), column


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_an_interrupted_run_ends_with_the_same_bytes(data: Data, tmp_path: Path, kind: type[Detector]) -> None:
    evaluate(kind(), data, batch_size=4, results=tmp_path / "whole")
    for rows in (4, 12):  # killed twice
        with pytest.raises(Interrupted):
            evaluate(kind(), data, batch_size=4, results=tmp_path / "cut", monitor=stop_after(rows))
    cut = cell_of(tmp_path / "cut") / "samples.csv"
    assert len(cut.read_text().splitlines()) == 1 + 12
    cut.write_text(cut.read_text() + "good/7,0,0.1")  # the kill fell into the middle of a write
    evaluate(kind(), data, batch_size=4, results=tmp_path / "cut")
    whole = cell_of(tmp_path / "whole")
    assert cut.read_bytes() == (whole / "samples.csv").read_bytes()
    records = [read_record(f) for f in (whole, cut.parent)]
    assert records[0].forwards == records[1].forwards
    assert records[0].backwards == records[1].backwards


class Counting(Linear):
    calls = 0

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        type(self).calls += 1
        return super().score(x)


def test_a_finished_cell_is_read_not_run(data: Data, tmp_path: Path) -> None:
    first = evaluate(Counting(), data, results=tmp_path)
    Counting.calls = 0
    again = evaluate(Counting(), data, results=tmp_path)
    assert Counting.calls == 1  # of a few images, by which an object is recognised
    pd.testing.assert_frame_equal(first, again)
    evaluate(Counting(), data, results=tmp_path, force=True)
    assert Counting.calls > 0


def test_passes_are_counted_per_image(data: Data) -> None:
    record = evaluate(Linear(), data, attack_params={"steps": 5, "restarts": 2}).attrs["run"]
    images = len(data.test)
    assert record["backwards"] == 10 * images
    assert (
        record["forwards"] == (10 + 2 + 3) * images
    )  # per restart one last look; before, after, and rounded to 8 bits


class Broken(Linear):
    """Fails in the way it is told to."""

    def __init__(self, how: str = "nan"):
        super().__init__()
        self.how = how

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        good = super().score(x)
        ways: dict[str, Callable[[], Any]] = {
            "nan": lambda: good * float("nan"),
            "constant": lambda: good * 0,
            "shape": lambda: good[:, None],
            "type": lambda: good.tolist(),
            "raise": lambda: 1 / 0,
        }
        return ways[self.how]()


@pytest.mark.parametrize(
    ("how", "says"),
    [("nan", "must be finite"), ("constant", "a constant score ranks nothing"), ("shape", r"of shape \(\d+,\)"),
     ("type", "got list"), ("raise", r"ZeroDivisionError.*test_run.py:\d+")],
)  # fmt: skip
def test_a_score_that_cannot_be_believed_is_refused(data: Data, tmp_path: Path, how: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate(Broken(how), data, results=tmp_path)
    with pytest.raises(UserError, match="no finished results"):
        load_results(tmp_path)


@dataclass(frozen=True)
class Cheat(Attack):
    """An attack that does not keep to the rules."""

    norms = ("linf", "l2")
    how: str = "far"

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        moved = {"far": x + 1.1 * threat.radius, "nan": x * float("nan"), "shape": x[:, :1], "range": x - 2}
        if self.how == "in place":
            x += threat.radius / 2
            return x
        return moved[self.how]


def use_attack(monkeypatch: pytest.MonkeyPatch, attack: Any) -> None:
    monkeypatch.setattr(evaluation, "make_attack", lambda *_: ("cheat", None, attack, "code"))


@pytest.mark.parametrize("how", ["far", "nan", "shape", "range"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_that_breaks_the_budget_is_refused(
    data: Data, monkeypatch: pytest.MonkeyPatch, how: str, norm: str
) -> None:
    use_attack(monkeypatch, Cheat(how))
    with pytest.raises(UserError, match="attack cheat broke the rules"):
        evaluate(Linear(), data, "cheat", ThreatModel(norm, "2/255"))


def test_an_attack_cannot_change_the_images_it_was_given(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    use_attack(monkeypatch, Cheat("in place"))
    rows = evaluate(Linear(), data, "cheat", ThreatModel("linf", "2/255"))
    assert rows.distance.max() == pytest.approx(1 / 255, rel=1e-3)  # measured from the clean image


def test_worst_is_never_better_for_the_detector_than_clean(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    use_attack(monkeypatch, Cheat("in place"))  # helps the detector on half of the images
    rows = evaluate(Linear(), data, "cheat", ThreatModel("linf", "2/255"))
    sign = 1 - 2 * rows.label
    assert (sign * rows.worst >= sign * rows.clean).all()
    assert ((rows.worst == rows.clean) == (rows.distance == 0)).all()


def test_one_sided_threats_leave_the_other_side_alone(data: Data, tmp_path: Path) -> None:
    both = evaluate(Linear(), data, "pgd-linf", ThreatModel("linf", "8/255"), results=tmp_path)
    normal = evaluate(Linear(), data, "pgd-linf", ThreatModel("linf", "8/255", "normal"), results=tmp_path)
    assert (normal[normal.label == 1].distance == 0).all()
    assert normal[normal.label == 0].worst.tolist() == both[both.label == 0].worst.tolist()
    table = load_results(tmp_path).set_index("targets")
    # the columns of the two-sided run are what a one-sided run measures
    assert table.loc["both", "normal_only_auroc"] == table.loc["normal", "robust_auroc"]
    assert pd.isna(table.loc["normal", "anomalous_only_auroc"])
    assert table.loc["both", "robust_auroc"] <= table.loc["both", "normal_only_auroc"]


def test_changed_data_is_noticed_and_said(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path)
    before = (cell_of(tmp_path) / "samples.csv").read_bytes()
    with pytest.raises(UserError, match="before the images changed; --force"):
        evaluate(Linear(), small_data(normal=9), results=tmp_path)
    assert (cell_of(tmp_path) / "samples.csv").read_bytes() == before


def test_parameters_seeds_sizes_and_limits_have_cells_of_their_own(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path)
    evaluate(Linear(1), data, results=tmp_path)
    evaluate(Linear(), data, results=tmp_path, seed=1)
    evaluate(Linear(), data, results=tmp_path, limit=6)
    evaluate(Linear(), data, results=tmp_path, attack_params={"steps": "3"})
    assert len(load_results(tmp_path)) == 5


class Sometimes(Linear):
    """Breaks when told to, without a change of its code or parameters."""

    broken = False

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) * (float("nan") if self.broken else 1)


def test_a_redo_that_fails_gives_the_old_result_back(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(Sometimes(), data, results=tmp_path)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="must be finite"):
        patch.setattr(Sometimes, "broken", True)
        evaluate(Sometimes(), data, results=tmp_path, force=True)
    pd.testing.assert_frame_equal(evaluate(Sometimes(), data, results=tmp_path), first)


def test_a_redo_that_is_killed_keeps_the_old_result_until_it_is_done(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path, batch_size=4)
    for _ in range(2):
        with pytest.raises(Interrupted):
            evaluate(Linear(), data, results=tmp_path, batch_size=4, force=True, monitor=stop_after(4))
        assert json.loads((cell_of(tmp_path) / "previous/run.json").read_text())["status"] == "finished"
    evaluate(Linear(), data, results=tmp_path, batch_size=4)
    assert sorted(p.name for p in cell_of(tmp_path).iterdir()) == ["run.json", "samples.csv"]


def test_tampered_rows_are_found(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path)
    samples = cell_of(tmp_path) / "samples.csv"
    text = samples.read_text()
    digit = next(i for i in range(len(text) - 1, 0, -1) if text[i].isdigit())
    samples.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    with pytest.raises(UserError, match="was changed after it was written"):
        load_results(tmp_path)


def test_another_schema_is_refused(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, results=tmp_path)
    path = cell_of(tmp_path) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    for use in (lambda: load_results(tmp_path), lambda: evaluate(Linear(), data, results=tmp_path)):
        with pytest.raises(UserError, match="written by another version"):
            use()


def test_the_record_can_repeat_the_run(data: Data, tmp_path: Path) -> None:
    rows = evaluate(NoisyLinear(), data, results=tmp_path, attack_params={"steps": "7"}, draws=3)
    record = rows.attrs["run"]
    assert record["spec"]["eps"] == "2/255" and record["spec"]["draws"] == 3
    assert record["attack"]["parameters"] == {
        "steps": 7,
        "restarts": 1,
        "schedule": "linear",
        "step_size": 0.0,
        "objective": "score",
        "momentum": 0.0,
        "draws": 8,
        "random_start": True,
    }
    assert record["detector"]["parameters"] == {"seed": 0} and record["detector"]["randomized"]
    assert record["versions"]["torch"] and record["device"] and record["seconds"] > 0
    assert record["threshold"]["held_out"] == 10
    pd.testing.assert_frame_equal(evaluate(NoisyLinear(), data, attack_params={"steps": 7}, draws=3), rows)


def test_rows_of_an_unfinished_cell_that_are_no_text_are_refused_in_one_line(data: Data, tmp_path: Path) -> None:
    evaluate(Linear(), data, "pgd-linf", ThreatModel("linf", "2/255"), results=tmp_path)
    cell = cell_of(tmp_path)
    record = json.loads((cell / "run.json").read_text())
    (cell / "run.json").write_text(json.dumps(record | {"status": "running", "rows": 2}))
    (cell / "samples.csv").write_bytes(b"id,label\n\xff\xfe,0\n\xff,1\n")
    with pytest.raises(UserError, match="is no text; --force starts over"):
        evaluate(Linear(), data, "pgd-linf", ThreatModel("linf", "2/255"), results=tmp_path)
