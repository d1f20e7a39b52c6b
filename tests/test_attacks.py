"""What every attack keeps to, and what the composed ones promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench import (
    Attacked,
    Context,
    Data,
    Detector,
    Hints,
    Rng,
    Score,
    ThreatModel,
    UserError,
    bpda,
    evaluate,
    identity_backward,
)
from bench.plugins import registry
from bench.plugins.lookup import make_attack

IDS = [f"image {i}" for i in range(5)]
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
SMALL: dict[str, dict[str, Any]] = {
    "transfer": {"source": "autoencoder", "steps": 4},
    "standard": {"steps": 4, "queries": 6, "transfer": False},
    "worst": {"attacks": "pgd[steps=3],square[queries=5]"},
    "bpda-pgd": {"steps": 4},
    "eot-pgd": {"steps": 4, "draws": 3},
    "square": {"queries": 8},
    "noise": {"tries": 3},
}
EVERY = [(name, norm) for name in registry.names("attacks") for norm in registry.load("attacks", name).target.norms]
BUDGETS = {"linf": "4/255", "l2": "0.5", "l1": "3", "l0": "4"}


class Peaks(Detector):
    """score = the highest of a few linear functions: its gradient is that of one of them."""

    def __init__(self, functions: int = 6):
        super().__init__()
        self.functions = functions
        weight = torch.randn(functions, 3 * 8 * 8, generator=torch.Generator().manual_seed(2))
        self.register_buffer("weight", weight)
        self.weight: Tensor

    def fit(self, normal: object) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        # not a matrix product: its rounding depends on the batch, and attacks on a maximum are chaotic
        local = ((x.flatten(1) - 0.5)[:, None] * self.weight.to(x)).sum(2)
        return local.amax(1), local


class Rounding(Linear):
    """Linear behind a block whose own gradient is zero everywhere, and declared."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(bpda(lambda image: (image * 64).round() / 64, x))

    def attack_hints(self) -> Hints:
        return Hints(bpda=True)


def images() -> Tensor:
    return (1.4 * torch.rand(len(IDS), 3, 8, 8, generator=torch.Generator().manual_seed(5)) - 0.2).clamp(0, 1)


def attacked(name: str, norm: str, detector: Detector, x: Tensor, rows: list[int], **given: Any) -> dict[str, Tensor]:
    """The candidates for these rows, of an attack that was prepared as the harness does."""
    settings_ = {**SMALL.get(name, {"steps": 4}), **given}
    attack = make_attack(name, settings_)[2]
    score = Score(detector, threshold=0.5)
    if name == "transfer":
        attack._scores[:] = [Score(Peaks())]  # type: ignore[attr-defined]
    else:
        attack.prepare(Context(small_data(), "mine", score, 0))
    rng = Rng(0, [IDS[i] for i in rows], "attack")
    found = attack(score, x[rows], SIGN[rows], ThreatModel(norm, BUDGETS[norm]), rng)
    return dict(found.images) if isinstance(found, Attacked) else {name: found}


def target_of(name: str) -> Detector:
    return Rounding() if name == "bpda-pgd" else Peaks()


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_an_attack_is_fixed_by_the_image_and_keeps_the_budget(name: str, norm: str) -> None:
    """The same alone, in a batch and in another order; inside the ball; the caller's images are not touched."""
    if name == "worst" and norm in ("l1", "l0"):
        pytest.skip(f"the attacks of this list have no {norm}" if norm == "l0" else "covered by its parts")
    x, detector = images(), target_of(name)
    before = x.clone()
    together = attacked(name, norm, detector, x, list(range(len(IDS))))
    some = attacked(name, norm, detector, x, [3, 1])
    alone = attacked(name, norm, detector, x, [1])
    assert torch.equal(x, before)
    for part, image in together.items():
        assert ThreatModel(norm, BUDGETS[norm]).violation(image, x) is None
        torch.testing.assert_close(some[part], image[[3, 1]])
        torch.testing.assert_close(alone[part], image[[1]])


@settings(deadline=None, max_examples=15)
@given(
    name=st.sampled_from(["pgd", "apgd", "standard"]),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(1e-3, 2.0),
    seed=st.integers(0, 100),
)
def test_the_budget_holds_for_any_radius(name: str, norm: str, eps: float, seed: int) -> None:
    threat = ThreatModel(norm, min(eps, 1.0) if norm == "linf" else eps)
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    score = Score(Peaks())
    attack = make_attack(name, SMALL.get(name, {"steps": 3}))[2]
    attack.prepare(Context(small_data(), "mine", score, 0))
    found = attack(score, x, SIGN[:3], threat, Rng(seed, IDS[:3]))
    for image in found.images.values() if isinstance(found, Attacked) else [found]:
        assert threat.violation(image, x) is None


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_maximum_of_linear_functions_is_attacked_to_its_optimum(norm: str) -> None:
    """Up: the best of the functions, each with its own optimum. Down: at least what one linear program allows."""
    from scipy.optimize import linprog

    detector, x = Peaks(), 0.3 + 0.4 * images()
    threat = ThreatModel(norm, BUDGETS[norm])
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


def test_local_scores_reach_further_than_the_score_alone() -> None:
    detector, x = Peaks(40), 0.3 + 0.4 * images()
    down = [1, 3]
    reached = {}
    for objective in ("score", "logsumexp"):
        image = attacked("apgd", "linf", detector, x, down, steps=15, objective=objective)["apgd"]
        reached[objective] = float(detector.score(image).sum())
    assert reached["logsumexp"] < reached["score"]


def test_images_that_reach_the_threshold_leave() -> None:
    detector, x = Linear(), 0.3 + 0.4 * images()
    middle = float(detector.score(x).median())
    counts = {}
    for goal in ("rank", "threshold"):
        score = Score(detector, threshold=middle, goal=goal)
        image = make_attack("apgd", {"steps": 30})[2](score, x, SIGN, ThreatModel("linf", "16/255"), Rng(0, IDS))
        assert isinstance(image, Tensor)
        assert (SIGN * (detector.score(image) - middle) > 0).all()
        counts[goal] = score.backwards
    assert counts["threshold"] < counts["rank"] / 3


def test_an_image_at_rest_leaves() -> None:
    """A score that an attack has climbed needs no more steps: fewer passes than steps x images, and the optimum."""
    detector, x = Linear(), 0.3 + 0.4 * images()
    score, threat = Score(detector), ThreatModel("linf", "2/255")
    image = make_attack("apgd", {"steps": 200})[2](score, x, SIGN, threat, Rng(0, IDS))
    assert isinstance(image, Tensor)
    best = threat.radius * detector.weight.abs().sum()
    torch.testing.assert_close(
        SIGN * (detector.score(image) - detector.score(x)), best.expand(len(x)), rtol=1e-3, atol=0
    )
    assert score.backwards < 200 * len(x)


def test_the_identity_goes_around_a_declared_block() -> None:
    detector, x = Rounding(), images()
    point = x.clone().requires_grad_(True)
    (true,) = torch.autograd.grad(detector.score(point).sum(), point)
    with identity_backward():
        (around,) = torch.autograd.grad(detector.score(point).sum(), point)
    assert not true.any()
    torch.testing.assert_close(around, detector.weight.expand_as(x))
    image = attacked("bpda-pgd", "linf", detector, x, [0, 2])["bpda-pgd"]
    assert (detector.score(image) > detector.score(x[[0, 2]]) + 1).all()


def test_bpda_on_a_detector_without_a_block_is_refused(data: Data) -> None:
    with pytest.raises(UserError, match="declares no block"):
        evaluate(Linear(), data, "bpda-pgd-linf")


class Blocked(Rounding):
    differentiable = False


def test_bpda_attacks_a_detector_that_has_no_gradient_of_its_own(data: Data) -> None:
    frame = evaluate(Blocked(), data, "bpda-pgd-linf", attack_params={"steps": 5})
    assert (frame["worst"] != frame["clean"]).all()
    with pytest.raises(UserError, match="not differentiable"):
        evaluate(Blocked(), data, "apgd-linf")


def test_standard_attacks_what_has_no_gradient(data: Data) -> None:
    frame = evaluate(Blocked(), data, "standard-linf", attack_params=SMALL["standard"])
    assert list(frame.columns[6:]) == ["bpda", "square"]


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


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("attack", "given", "expected"),
    [
        ("apgd-linf", "steps=0", "steps must be at least 1, got 0"),
        ("apgd-linf", "restarts=0", "restarts must be at least 1, got 0"),
        ("apgd-linf", "draws=0", "draws must be at least 1, got 0"),
        ("standard-linf", "queries=0", "queries must be at least 1, got 0"),
        ("standard-linf", "version=standard-v1", "standard.version=standard-v1: input should be 'standard-v3'"),
        ("transfer-linf", "steps=3", "source must name the detector"),
        ("transfer-linf", "source=nobody", "no detector named 'nobody'"),
        ("worst-linf", "attacks=apgd,nothing", "no attack named 'nothing'"),
        ("worst-linf", "attacks=apgd[steps=0]", "steps must be at least 1, got 0"),
        ("worst-linf", "attacks=apgd[steps", "expected a name, or name[parameter=value;...]"),
        ("apgd-l0", "steps=3", "no norm l0"),
        ("apgd-linf", "objective=everything", "objective"),
    ],
)
def test_bad_input_is_one_line(
    run_cli: Run, tree: Path, tmp_path: Path, attack: str, given: str, expected: str
) -> None:
    code, _, err = run_cli(
        *("run", "--detector", "rae", "--param", "steps=20", "--param", "rounds=1"),
        *("--dataset", "folder", "--data-root", tree.parent, "--category", "widget", "--image-size", "16"),
        *(
            "--attack",
            attack,
            "--attack-param",
            given,
            "--results",
            tmp_path / "results",
            "--eps",
            "2" if "l0" in attack else "2/255",
        ),
    )
    assert code == 2 and expected in err and err.count("\n") == 1


def test_the_board_shows_parts_rounding_and_draws(data: Data, tmp_path: Path) -> None:
    from bench.analysis.boards import boards
    from bench.analysis.table import by_part, table
    from bench.cells.reader import read_results

    evaluate(NoisyLinear(), data, "standard-linf", attack_params=SMALL["standard"], draws=3, results=tmp_path)
    results = read_results(tmp_path).results
    (board,) = boards(results)
    assert results[0].spec.attack_parameters == {"steps": 4, "queries": 6, "transfer": False}
    (shown,), parts = table(board), by_part(board)
    assert parts is not None and parts.parts == ["apgd", "apgd-top", "apgd-score", "square"]
    metrics, (*each, worst) = results[0].metrics, next(iter(parts.lines.values()))
    assert worst.estimate == metrics["robust_auroc"].estimate()
    assert all(worst.estimate.value <= value.estimate.value for value in each if value.estimate)
    for column in ("rounded", "worst draw", "known noise"):
        assert 0 <= float(shown.values[column].text) <= 1
    assert metrics["worst_draw_auroc"].value <= metrics["robust_auroc"].value


def test_half_a_grey_level_is_a_budget(run_cli: Run, tree: Path, tmp_path: Path) -> None:
    place = ("--dataset", "folder", "--data-root", tree.parent, "--category", "widget", "--image-size", "16")
    fit = ("--detector", "rae", "--param", "steps=20", "--param", "rounds=1")
    budgets = ("--attack", "pgd-linf", "--attack-param", "steps=2", "--eps", "1/255,0.5/255")
    assert run_cli("run", *fit, *place, *budgets, "--results", tmp_path)[0] == 0
    assert {path.name.split("-")[2] for path in tmp_path.rglob("pgd-linf-*")} == {"0.5_255", "1_255"}
    assert run_cli("report", "--results", tmp_path)[0] == 0


def test_an_objective_that_brings_nothing_is_given_up() -> None:
    """Local scores that lead nowhere: after a window without gain, an image follows the score itself."""

    class Misled(Peaks):
        def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
            scores, local = super().score_with_evidence(x)
            return scores, -local

    x, given = 0.3 + 0.4 * images(), {"objective": "logsumexp", "steps": 40}
    image = attacked("apgd", "linf", Misled(), x, [0, 2, 4], **given)["apgd"]
    best = attacked("apgd", "linf", Peaks(), x, [0, 2, 4], steps=40)["apgd"]
    gain, most = (Peaks().score(shown) - Peaks().score(x[[0, 2, 4]]) for shown in (image, best))
    assert (gain >= 0.8 * most).all()


def test_standard_takes_the_hints_of_a_detector(data: Data) -> None:
    class Hinted(Peaks):
        def attack_hints(self) -> Hints:
            return Hints(objectives=("mean",), starts=lambda x, sign: 1 - x)

    frame = evaluate(Hinted(), data, "standard-linf", attack_params=SMALL["standard"])
    assert list(frame.columns[6:]) == ["apgd", "apgd-top", "apgd-mean", "apgd-hinted", "apgd-score", "square"]
    assert (frame["distance"] <= 2 / 255 + 1e-6).all()


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
