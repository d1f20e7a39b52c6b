"""What every attack keeps to, and what a climb does on its way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacked import EPS, IDS, SIGN, SMALL, Blocked, Peaks, Rounding, attacked, images
from conftest import Linear, small_data
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench import (
    Attacked,
    Context,
    Data,
    Detector,
    Rng,
    Score,
    ThreatModel,
    UserError,
    evaluate,
    identity_backward,
)
from bench.plugins import registry
from bench.plugins.lookup import make_attack

EVERY = [
    (name, norm)
    for name in registry.names("attacks")
    if name != "given"  # its images are of certain test images: test_given.py
    for norm in registry.load("attacks", name).target.norms
]


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
        assert ThreatModel(norm, EPS[norm]).violation(image, x) is None
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


def test_bpda_attacks_a_detector_that_has_no_gradient_of_its_own(data: Data) -> None:
    frame = evaluate(Blocked(), data, "bpda-pgd-linf", attack_params={"steps": 5})
    assert (frame["worst"] != frame["clean"]).all()
    with pytest.raises(UserError, match="not differentiable"):
        evaluate(Blocked(), data, "apgd-linf")


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("attack", "given", "expected"),
    [
        ("apgd-linf", "steps=0", "steps must be at least 1, got 0"),
        ("apgd-linf", "restarts=0", "restarts must be at least 1, got 0"),
        ("apgd-linf", "draws=0", "draws must be at least 1, got 0"),
        ("standard-linf", "queries=0", "queries must be at least 1, got 0"),
        ("standard-linf", "version=standard-v1", "standard.version=standard-v1: input should be 'standard-v4'"),
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
