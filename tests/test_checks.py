"""Checks that say whether a cell may be believed: what is planted must be found, and what is clean must pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from torch import Tensor

from bench import Attack, Attacked, Data, Detector, Rng, Score, ThreatModel, evaluate
from bench.cells import bracket
from bench.cells.record import read_finished, read_record, read_rows
from bench.cells.rows import Row
from bench.checks import of_attack as beliefs
from bench.checks import of_detector as checks
from bench.checks.explanations import CELL, CERTIFICATE, DETECTOR, EXPLAINED, markdown
from bench.checks.of_certificate import CHECKS as CERTIFICATE_CHECKS
from bench.checks.probe import toy_data
from bench.core.check import Outcome
from bench.core.score import Passes
from bench.engine.warm_starts import WarmStarts
from bench.harness import cell as cells
from bench.harness import evaluate as evaluation
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec

Run = Callable[..., tuple[int, str, str]]
PGD = registry.load("attacks", "pgd").target
BALL = ThreatModel("linf", "8/255")
DOCS = (Path(__file__).resolve().parents[1] / "docs" / "checks.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Blocks(Attack):
    """A black box: random square blocks at the rim of the ball, kept where they help."""

    norms = ("linf", "l2")
    needs_gradient = False
    queries: int = 300

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        def value(images: Tensor) -> Tensor:
            with torch.no_grad():
                return sign * score(images, rng.child("look"))

        best = threat.project(x + threat.radius * threat.steepest(rng.normal(x)), x)
        best_value = value(best)
        side = 3
        for _ in range(self.queries):
            corner = (rng.uniform(x[:, 0, 0, :2]) * (x.shape[-1] - side + 1)).long()
            shift = best - x
            for i, (row, column) in enumerate(corner.tolist()):
                flip = rng.rows([i]).uniform(x[:1, :, :1, :1])[0] < 0.5
                level = threat.radius if threat.norm == "linf" else 1.0
                shift[i, :, row : row + side, column : column + side] = torch.where(flip, level, -level)
            shown = threat.project(x + shift, x)
            found = value(shown)
            best = torch.where((found > best_value)[:, None, None, None], shown, best)
            best_value = torch.maximum(found, best_value)
        return best


@pytest.fixture(autouse=True)
def black_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are under test here, and not the attack that they compare with."""
    load, names = registry.load, registry.names
    monkeypatch.setattr(
        registry, "load", lambda kind, name: registry.Plugin(name, Blocks, "") if name == "square" else load(kind, name)
    )
    monkeypatch.setattr(registry, "names", lambda kind: sorted({*names(kind), *(["square"] * (kind == "attacks"))}))


def cell(
    detector: Detector, attack: Any = None, threat: ThreatModel = BALL, data: Data | None = None, **settings: Any
) -> dict[str, Any]:
    """The record of a run in memory."""
    patch = pytest.MonkeyPatch()
    with patch.context() as p:
        p.setattr(evaluation, "make_attack", lambda *_: ("planted", None, attack or PGD(), "code"))
        record: dict[str, Any] = evaluate(detector, data or small_data(), "pgd", threat, **settings).attrs["run"]
    return record


def failed(record: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["sentence"] for check in record["checks"] if not check["passed"]}


# --- clean ones


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
@pytest.mark.parametrize(("norm", "eps"), [("linf", "8/255"), ("l2", "0.2")])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_cell_passes_every_check(kind: type[Detector], norm: str, eps: str, seed: int) -> None:
    record = cell(kind(), threat=ThreatModel(norm, eps), seed=seed)
    assert failed(record) == {}
    assert [c["name"] for c in record["checks"]] == [*checks.OF_A_RUN, *beliefs.CHECKS]


@pytest.mark.parametrize("targets", ["normal", "anomalous"])
def test_a_clean_cell_that_moves_one_class_passes(targets: str) -> None:
    assert failed(cell(Linear(), threat=ThreatModel("linf", "8/255", targets))) == {}


def test_a_clean_cell_that_stops_at_the_threshold_passes() -> None:
    assert failed(cell(Linear(), goal="threshold")) == {}


def test_a_fitted_detector_passes_every_check() -> None:
    data = toy_data(32)
    detector = DetectorSpec("autoencoder", {"width": 8, "latent": 8, "steps": 60}, device="cpu").fitted(data)
    assert failed(cell(detector, PGD(steps=40), ThreatModel("linf", "2/255"), data)) == {}


# --- detectors that look robust and are not


class ZeroGradient(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x).detach() + 0 * x.flatten(1).sum(1)


class RoundedScore(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        score = super().score(x) / 8
        return score.round() + 0 * score


class HalfDetached(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(torch.cat([x[..., :4].detach(), x[..., 4:]], -1))


class HiddenNoise(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + torch.randn(len(x))


class SeedsInside(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        torch.manual_seed(0)
        return super().score(x)


class SeedsAndDraws(NoisyLinear):
    """Its noise looks fresh, and is the same at every call."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        if rng is None:
            torch.manual_seed(0)
        return super().score(x, rng)


class ChangesState(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.seen += len(x)
        return super().score(x)


class CrossGradient(Linear):
    """Scores and the gradient of their sum are right; that of a single score is its neighbour's as well."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        score, light = super().score(x), x.flatten(1).sum(1)
        return score + 1e-3 * (light.roll(1) - light.roll(1).detach() - light + light.detach())


class Saturated(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.sigmoid(20 * (super().score(x) - 30))


class Shattered(Linear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x) + 0.02 * (torch.sin(3e4 * x) * self.weight.to(x)).flatten(1).sum(1)


class Masked(Linear):
    """Pixels climb a staircase of tanh: level, so without a gradient, but for 9 % of the way."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        steps = 64 * x
        within = steps - steps.detach().floor()
        return super().score((steps.detach().floor() + 0.5 + 0.5 * torch.tanh(200 * (within - 0.5))) / 64)


class Bounded(Linear):
    """Half of the image decides, by a level that is flat in float32 but for one spot; the rest has a gradient, and adds
    little."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        level = x[..., :4].flatten(1).mean(1)
        return 100 * torch.sigmoid(2000 * (level - 0.47)) + torch.tanh(super().score(x * (torch.arange(8) >= 4)) / 50)


ALONE = [
    (HalfDetached, PGD(), {"gradient"}),
    (SeedsInside, PGD(), {"seeding", "generators"}),
    (SeedsAndDraws, PGD(), {"randomness", "seeding", "clean"}),  # one draw is not the mean
    (ChangesState, PGD(), {"state"}),
    (CrossGradient, PGD(), {"mixing"}),
    (Bounded, PGD(random_start=False), {"unbounded"}),
]
AMONG = [  # what hides the gradient, or is noise, fails wherever it meets an attack
    (ZeroGradient, {"gradient", "shattered", "moved", "noise", "black box", "unbounded"}),
    (RoundedScore, {"gradient", "shattered", "saturation", "ties", "moved"}),
    (HiddenNoise, {"rows", "randomness", "generators", "repeat"}),
    (Saturated, {"gradient", "shattered", "saturation", "ties", "moved"}),
    (Shattered, {"shattered", "black box"}),
    (Masked, {"black box", "noise"}),
]


@pytest.mark.parametrize(("kind", "attack", "names"), ALONE, ids=lambda v: getattr(v, "__name__", ""))
def test_an_obfuscation_is_caught_by_its_check_and_by_no_other(
    kind: type[Detector], attack: Any, names: set[str]
) -> None:
    assert set(failed(cell(kind(), attack))) == names


@pytest.mark.parametrize(("kind", "names"), AMONG, ids=lambda v: getattr(v, "__name__", ""))
def test_an_obfuscation_is_caught(kind: type[Detector], names: set[str]) -> None:
    assert names <= set(failed(cell(kind())))


# --- attacks that are weaker, or stronger, than they say


@dataclass(frozen=True)
class Planted(Attack):
    """PGD, with something wrong."""

    norms = ("linf", "l2")

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        return PGD()(score, x, sign, threat, rng)


class Wasteful(Planted):
    """Finds the best point, and returns another."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        best: Tensor = super().__call__(score, x, sign, threat, rng)
        score(best, rng)
        return x + 0.7 * (best - x)


class Backwards(Planted):
    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        return super().__call__(score, x, -sign, threat, rng)


class Seeding(Planted):
    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        torch.manual_seed(7)
        return super().__call__(score, x, sign, threat, rng)


class Unrepeatable(Planted):
    """Goes a part of the way that the global generator decides."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        return x + torch.rand(()) * (super().__call__(score, x, sign, threat, rng) - x)


class Lucky(Planted):
    """Succeeds at one start in two."""

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        reach = torch.where(rng.child("luck").uniform(x[:, :1, :1, :1]) < 0.5, 1.0, 0.5)
        source = rng.child("other")
        found = super().__call__(Score(score.detector), x, sign, threat, source)
        return x + reach * (found - x)


@dataclass(frozen=True)
class Overshoots(Planted):
    """One step is good, many lead away."""

    steps: int = 20

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        found = super().__call__(Score(score.detector), x, sign, threat, rng)
        return found if self.steps == 1 else x + 0.5 * (found - x)


class Outdone(Planted):
    """Its part that transfers is ahead of its own."""

    parts = ("own", "transfer")

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Any:
        found = super().__call__(score, x, sign, threat, rng)
        return Attacked({"own": x + 0.5 * (found - x), "transfer": found})


class VeryNoisy(NoisyLinear):
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        noise = torch.randn_like(x) if rng is None else rng.normal(x)
        return (x * (self.weight.to(x) + 4 * noise)).flatten(1).sum(1)


WEAK = [
    (Linear, PGD(steps=1, step_size=1e-5, random_start=False), {"steps", "noise", "black box", "unbounded"}),
    (Linear, PGD(schedule="constant", step_size=8 / 255 / 40, random_start=False), {"steps", "convergence"}),
    (Linear, Wasteful(), {"best iterate"}),
    (Linear, Backwards(), {"signs", "moved", "noise", "black box", "unbounded"}),
    (Linear, Seeding(), {"generators"}),
    (Linear, Unrepeatable(), {"generators", "repeat"}),
    (Linear, Lucky(), {"restarts"}),
    (Linear, Overshoots(), {"one step"}),
    (Linear, Outdone(), {"transfer"}),
]


@pytest.mark.parametrize(("kind", "attack", "names"), WEAK, ids=lambda v: getattr(v, "__name__", type(v).__name__))
def test_an_attack_that_must_not_be_believed_is_caught(kind: type[Detector], attack: Any, names: set[str]) -> None:
    assert set(failed(cell(kind(), attack))) == names


def test_too_few_draws_are_caught() -> None:
    assert set(failed(cell(VeryNoisy(), PGD(steps=3, draws=1), draws=128))) == {"draws"}


# --- rows that are not what they say


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


Change = Callable[[list[Row]], list[Row]]
ROWS: dict[Change, set[str]] = {
    without_rounding: {"rounding"}, too_far: {"budget"}, other_clean: {"clean"}, other_worst: {"repeat"},
    tied: {"ties"},
}  # fmt: skip


@pytest.mark.parametrize("change", ROWS, ids=lambda c: c.__name__)
def test_rows_that_are_not_the_detectors_are_caught(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    run = beliefs.checks_of_cell
    monkeypatch.setattr(cells, "checks_of_cell", lambda s, d, r, a, rows, k: run(s, d, r, a, change(list(rows)), k))
    assert set(failed(cell(Linear()))) == ROWS[change]


def test_images_on_the_disk_that_are_not_the_rows_are_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, data = beliefs.checks_of_cell, small_data()
    WarmStarts(tmp_path).put(data.test.ids, data.test.images(range(len(data.test))))  # the clean ones
    monkeypatch.setattr(
        cells, "checks_of_cell", lambda s, d, r, a, rows, k: run(s, d, r, a, rows, WarmStarts(tmp_path))
    )
    assert set(failed(cell(Linear(), data=data))) == {"rescored"}


# --- what checks do to a run: nothing


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
    assert names == [*checks.OF_A_RUN, *beliefs.CHECKS]
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


# --- bench check-run


@pytest.fixture
def stored(tree: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "power").write_text("2", encoding="utf-8")
    code, _, err = run_cli(
        "run", "--detector", f"{tmp_path}/mine.py:Mean", "--dataset", "folder", "--data-root", tree, "--image-size", 16,
        "--results", tmp_path / "results", "--param", f"power={tmp_path}/power", "--eps", "4/255",
    )  # fmt: skip
    assert code == 0, err
    yield next((tmp_path / "results").rglob("run.json")).parent


PLUGIN = '''
from pathlib import Path
import torch
from bench import Detector

class Mean(Detector):
    """Distance to the mean normal image."""

    def __init__(self, power: Path = Path("power")):
        super().__init__()
        self.power = power
        self.exponent = int(Path(power).read_text())
        self.register_buffer("mean", torch.zeros(1))

    def fit(self, normal):
        self.mean = torch.cat(list(normal)).mean(0)

    def score(self, x):
        return (x - self.mean).abs().pow(self.exponent).flatten(1).sum(1)
'''


def options(stored: Path) -> tuple[object, ...]:
    root = stored.parents[4]
    return (
        "--data-root", root / "images/widget", "--detector", f"{root}/mine.py:Mean", "--param", f"power={root}/power",
    )  # fmt: skip


def rewrite(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps(record | changes), encoding="utf-8")


def test_check_run_repeats_what_is_stored(run_cli: Run, stored: Path) -> None:
    for path in (stored, stored / "run.json", stored.parents[2]):
        code, out, err = run_cli("check-run", path, *options(stored))
        lines = out.splitlines()
        failing = failed(read_record(stored).as_json())
        assert (code, err) == (int(bool(failing)), ""), out
        assert len(lines) == 1 + len(checks.OF_A_RUN) + len(beliefs.CHECKS)
        assert all(line.startswith(("pass", "FAIL")) and "stored:" not in line for line in lines), out
        assert lines[0].startswith("pass    stored rows: 12 clean scores, scored again, differ by 0.0e+00")


def test_check_run_says_what_changed(run_cli: Run, stored: Path) -> None:
    record = read_record(stored).as_json()
    for check in record["checks"]:
        if check["name"] == "signs":
            check |= {"passed": False, "sentence": "another sentence"}
    rewrite(stored, checks=record["checks"])
    code, out, _ = run_cli("check-run", stored, *options(stored))
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("changed")]
    assert line.startswith("changed signs: ") and line.endswith("(now pass, stored FAIL: another sentence)")


def test_check_run_finds_rows_that_are_not_the_detectors(run_cli: Run, stored: Path) -> None:
    import hashlib

    rows = read_rows(stored, read_finished(stored))
    from bench.cells.rows import to_csv

    text = to_csv([row._replace(clean=row.clean * 1.01) for row in rows])
    (stored / "samples.csv").write_text(text, encoding="utf-8")
    rewrite(stored, samples_sha256=hashlib.sha256(text.encode()).hexdigest())
    code, out, _ = run_cli("check-run", stored, *options(stored))
    assert code == 1
    assert re.search("^FAIL    stored rows", out, re.M) and re.search("^changed clean", out, re.M)


def test_check_run_says_in_one_line_what_it_cannot_do(run_cli: Run, stored: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        code, out, err = run_cli("check-run", *arguments)
        assert code == 2 and not out and len(err.splitlines()) == 1, (code, out, err)
        return err

    root, (_, data, _, plugin, _, power) = stored.parents[4], options(stored)
    assert "expected a cell's folder" in refused(tmp_path / "nothing")
    assert "there is no run.json in it" in refused(root / "images")
    assert "no detector named 'Mean'" in refused(stored, "--data-root", data, "--param", power)
    without = refused(stored, "--data-root", data, "--detector", plugin)
    assert "parameter power was a file (sha256:" in without and "--param power=FILE" in without
    (root / "other").write_text("3", encoding="utf-8")
    assert "the parameters of detector Mean changed" in refused(
        stored, "--data-root", data, "--detector", plugin, "--param", f"power={root}/other"
    )
    (root / "mine.py").write_text(PLUGIN.replace(".sum(1)", ".mean(1)"), encoding="utf-8")
    assert "the code of detector Mean changed" in refused(stored, *options(stored))
    (root / "mine.py").write_text(PLUGIN, encoding="utf-8")
    rewrite(stored, status="running")
    assert "is not finished" in refused(stored, *options(stored))
    rewrite(stored, schema=99)
    assert "written by another version" in refused(stored, *options(stored))


# --- what is said about checks


def test_every_check_is_explained_once_and_in_the_docs() -> None:
    assert {"fit", *checks.CHECKS} == set(DETECTOR)
    assert list(beliefs.CHECKS) == list(CELL)
    assert [*CERTIFICATE_CHECKS, bracket.CHECK] == list(CERTIFICATE)
    assert len(EXPLAINED) == len(DETECTOR) + len(CELL) + len(CERTIFICATE)
    assert re.findall(r"^### (.+)$", DOCS, re.M) == list(EXPLAINED)
    assert all(markdown(part) in DOCS for part in (DETECTOR, CELL, CERTIFICATE))
    assert all(part.strip() for explained in EXPLAINED.values() for part in explained)


def test_every_pitfall_has_an_answer_that_exists() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (checked|by design|not covered): (.+?) \|$", DOCS, re.M)
    assert [int(number) for number, *_ in rows] == list(range(1, 41))
    tests = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    for _, _, kind, answer in rows:
        named = re.findall(r"`([^`]+)`", answer)
        if kind == "checked":
            assert any(name in EXPLAINED or name.partition("::")[0] in tests for name in named), answer
        for name in named:
            file, _, test = name.partition("::")
            if file.endswith(".py"):
                assert f"def {test}(" in tests[file], name


def test_checks_are_listed(run_cli: Run) -> None:
    code, out, _ = run_cli("list", "checks")
    assert code == 0 and all(f"\n{name}\n  raised if" in f"\n{out}" for name in EXPLAINED)
    code, out, _ = run_cli("list", "checks", "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)] == list(EXPLAINED)
