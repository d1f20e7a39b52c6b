"""Rows that are not what they say are found; checks do nothing else to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from planted import (
    BALL,
    Change,
    Planted,
    black_box,  # noqa: F401  a fixture
    cell,
    failed,
)
from torch import Tensor

from bench import Detector, Rng, evaluate
from bench.cells.record import read_record
from bench.cells.rows import Row
from bench.checks import of_attack as beliefs
from bench.checks import of_detector as checks
from bench.checks.of_detector import STANDARD_ERRORS, at_least_usual
from bench.core.check import Outcome
from bench.core.score import Passes
from bench.engine.warm_starts import WarmStarts
from bench.harness import cell as cells


def without_rounding(rows: list[Row]) -> list[Row]:
    return [row._replace(rounded=row.rounded - 30 * row.label) for row in rows]


def too_far(rows: list[Row]) -> list[Row]:
    return [row._replace(distance=row.distance + 1e-5) for row in rows]


def other_clean(rows: list[Row]) -> list[Row]:
    return [row._replace(clean=row.clean + 0.1) for row in rows]


def other_worst(rows: list[Row]) -> list[Row]:
    return [row._replace(worst=row.worst + (1 - 2 * row.label)) for row in rows]


def tied(rows: list[Row]) -> list[Row]:
    return [row._replace(worst=rows[0].worst) if i == 3 else row for i, row in enumerate(rows)]


ROWS: dict[Change, set[str]] = {
    without_rounding: {"rounding"}, too_far: {"budget"}, other_clean: {"clean", "fresh process"},
    other_worst: {"repeat", "fresh process"}, tied: {"ties"},
}  # fmt: skip


@pytest.mark.parametrize("change", ROWS, ids=lambda c: c.__name__)
def test_rows_that_are_not_the_detectors_are_caught(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    run = beliefs.checks_of_cell
    monkeypatch.setattr(cells, "checks_of_cell", lambda s, d, r, a, rows, *k: run(s, d, r, a, change(list(rows)), *k))
    assert set(failed(cell(Linear()))) == ROWS[change]


def test_images_on_the_disk_that_are_not_the_rows_are_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, data = beliefs.checks_of_cell, small_data()
    WarmStarts(tmp_path).put(data.test.ids, data.test.images(range(len(data.test))))  # the clean ones
    monkeypatch.setattr(
        cells, "checks_of_cell", lambda s, d, r, a, rows, *k: run(s, d, r, a, rows, WarmStarts(tmp_path))
    )
    assert set(failed(cell(Linear(), data=data))) == {"rescored"}


def no_checks(*_: Any) -> Outcome:
    return Outcome([], 0.0, Passes())


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_rows_and_counts_are_the_same_without_checks(
    kind: type[Detector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> tuple[bytes, dict[str, Any]]:
        record = evaluate(kind(), small_data(), "pgd-linf", BALL, results=tmp_path / name).attrs["run"]
        (samples,) = (tmp_path / name).rglob("samples.csv")
        return samples.read_bytes(), record

    torch.manual_seed(3)
    rows, record = run("with")
    drawn = torch.rand(3)
    monkeypatch.setattr(cells, "checks_of_cell", no_checks)
    torch.manual_seed(3)
    bare_rows, bare = run("without")
    assert rows == bare_rows
    assert torch.equal(drawn, torch.rand(3))  # nor does the caller's own generator move
    for name in ("forwards", "backwards", "threshold", "data", "spec", "samples_sha256"):
        assert record[name] == bare[name], name
    assert record["checks_passes"]["backwards"] > 0 and record["checks_seconds"] > 0
    assert len(record["checks"]) == len(bare["checks"]) + len(beliefs.CHECKS)


def test_a_single_draw_is_not_taken_for_the_mean() -> None:
    assert failed(cell(NoisyLinear(), draws=1)) == {}


class Interrupted(Exception):
    pass


def test_a_kill_during_the_checks_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> Outcome:
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(cells, "checks_of_cell", killed)
        evaluate(Linear(), small_data(), "pgd-linf", BALL, results=tmp_path)
    (path,) = tmp_path.rglob("run.json")
    record = read_record(path.parent).as_json()
    assert record["status"] == "running" and record["rows"] == len(small_data().test)
    samples = (path.parent / "samples.csv").read_bytes()
    again = evaluate(Linear(), small_data(), "pgd-linf", BALL, results=tmp_path).attrs["run"]
    assert again["status"] == "finished" and (path.parent / "samples.csv").read_bytes() == samples
    names = [check["name"] for check in again["checks"]]
    assert names == [*checks.OF_A_RUN, *checks.OF_AN_OBJECT, *beliefs.CHECKS]
    assert (again["forwards"], again["backwards"]) == (record["forwards"], record["backwards"])


def test_a_check_that_raises_has_failed_and_costs_no_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(trial: object) -> tuple[bool, str]:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setitem(beliefs.CHECKS, "noise", broken)
    record = cell(Linear())
    assert record["status"] == "finished"
    assert list(failed(record)) == ["noise"] and "ZeroDivisionError: nothing to divide by" in failed(record)["noise"]


class PreparedOnce(Planted):
    prepared: ClassVar[list[object]] = []

    def prepare(self, context: object) -> None:
        self.prepared.append(context)
        if len(self.prepared) > 1:
            raise RuntimeError("only once")


def test_an_attack_that_cannot_be_prepared_again_costs_no_cell() -> None:
    record = cell(Linear(), PreparedOnce())
    assert record["status"] == "finished" and set(failed(record)) == set(beliefs.CHECKS)


def test_memory_that_runs_out_halves_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    score = Linear.score
    started = False

    def limited(self: Linear, x: Tensor, rng: Rng | None = None) -> Tensor:
        if started and len(x) > 2:
            raise torch.OutOfMemoryError
        return score(self, x, rng)

    def run(*given: Any) -> Outcome:
        nonlocal started
        started = True
        return checks_of_cell(*given)

    checks_of_cell = beliefs.checks_of_cell
    monkeypatch.setattr(cells, "checks_of_cell", run)
    monkeypatch.setattr(Linear, "score", limited)
    found = failed(cell(Linear(), data=small_data(normal=60, anomalous=60)))
    assert all("OutOfMemory" in sentence for sentence in found.values()), found


def test_the_probe_is_spread_over_the_ranks_and_small() -> None:
    from bench.checks.reattack import PROBE, _probe

    rows = [Row(f"{i}", i % 2, 0.0, float(i), 0.0, 0.0) for i in range(200)]
    probe, few = _probe(rows, [True] * 200, seed=0)
    assert len(probe) == 2 * PROBE and len(few) == PROBE
    for label in (0, 1):
        ranks = sorted(i // 2 for i in probe if i % 2 == label)
        assert [rank // 25 for rank in ranks] == [0, 1, 2, 3]  # one in each quarter
    assert probe != _probe(rows, [True] * 200, seed=1)[0]
    assert len(_probe(rows[:24], [True] * 24, seed=0)[0]) == 2


def test_few_draws_accuse_no_honest_detector_by_luck() -> None:
    """Means of 8 and of 32 draws of one distribution at 6 images: nobody differs by 6 standard errors in 20,000 cells,
    and by an image's own variance some do."""
    generator = torch.Generator().manual_seed(0)
    few, many = (torch.randn(20_000, n, 6, generator=generator, dtype=torch.float64).exp() for n in (8, 32))
    off = (few.mean(1) - many.mean(1)).abs()
    scale = (1 / 8 + 1 / 32) ** 0.5
    own = (off / (few.var(1).sqrt() * scale)).amax(1) > STANDARD_ERRORS
    usual = torch.stack([at_least_usual(one.var(0)) for one in few])
    accused = (off / (usual.sqrt() * scale)).amax(1) > STANDARD_ERRORS
    assert own.double().mean() > 0.01 and accused.double().mean() < 1e-3
