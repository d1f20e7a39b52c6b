"""A detector that is not honest is refused, or not ranked, or ranked as its honest twin is."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
from pathlib import Path
from typing import Any

import dishonest_plugins
import pytest
import torch

import bench
from bench import Rng, UserError
from bench.core.opaque import Opaque, opaque
from bench.harness.evaluated import Evaluated

FILE = Path(__file__).with_name("dishonest_plugins.py")
NOTHING = "a detector is not told which image it scores"
ROOM = 0.03  # of AUROC, above the honest twin

FLAGGED = {
    "DropsInSingle": {"gradient", "followed", "estimated gradient"},
    "HonestInACopy": {"gradient", "followed", "estimated gradient"},
    "DropsInLargeBatches": {"followed", "estimated gradient"},
    "Staircase": {"estimated gradient"},
    "Remembers": {"fresh process"},
}
"""Kind -> checks that fail, perhaps among others."""

FLAGGED_TOO = {
    "DropsTheMiddle": {"gradient", "followed"},
    "DropsWhereGradientsAre": {"gradient", "followed"},
    "AnotherScoreWhereGradientsAre": {"gradient", "followed"},
    "DropsAtLeaves": {"followed"},
    "DropsForAttacks": {"followed"},
    "HonestToChecks": {"followed"},
    "HonestAtFirst": {"followed"},
    "BecomesAnother": {"followed"},
    "WrongBackward": {"gradient", "followed"},
    "NotANumber": {"followed"},
    "Hooked": {"followed"},
    "NoGradient": {"gradient", "followed"},
    "FarFromZero": {"gradient", "followed"},
    "LowStairs": {"estimated gradient"},
    "SteepRamps": {"estimated gradient"},
    "CoarsePixels": {"estimated gradient"},
    "GreyLevels": {"estimated gradient"},
    "RemembersInItsModule": {"fresh process"},
    "RemembersInAFile": {"fresh process"},
    "ReadsWhenItIsBuilt": {"fresh process"},
    "RemembersInTheEnvironment": {"fresh process"},
    "ReadsLabels": {"fresh process"},
    "ReadsIds": {"fresh process"},
    "KnowsTheNoise": {"fresh process"},
}

REFUSED = ("AsksForIds", "AsksForThePurpose", "CopiesItsNoise")
DISBELIEVED = ("SaysNo", "SaysNoAfterItsFit", "SaysNoWhenItScores", "SaysNoByAProperty")
AS_THE_TWIN = ("Noisy", "Halves", "NextToNothing", "Saturated", "HonestForAMoment")
"""Flagged or not: what they do brings them nothing, or it is up to the machine whether they do it."""


def run(kind: str, **settings: Any) -> Evaluated:
    data = bench.load_data("textures", category="brick", image_size=64).limited(64)
    return bench.evaluate(f"{FILE}:{kind}", data, "pgd-linf", device="cpu", **settings)


def failed(rows: Evaluated) -> set[str]:
    return {check["name"] for check in rows.attrs["run"]["checks"] if not check["passed"]}


@functools.cache
def of_the_twin() -> float:
    honest = run("Honest")
    assert failed(honest) == set()
    return honest.metrics["robust_auroc"]


def is_flagged(kind: str, names: set[str], place: Path) -> None:
    rows = run(kind, params={"place": str(place)})
    assert names <= failed(rows), failed(rows)
    assert rows.metrics["robust_auroc"] > of_the_twin() + ROOM


@pytest.mark.parametrize("kind", FLAGGED)
def test_what_looks_robust_and_is_not_is_not_ranked(kind: str, tmp_path: Path) -> None:
    is_flagged(kind, FLAGGED[kind], tmp_path / "seen.pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAGGED_TOO)
def test_whatever_looks_robust_and_is_not_is_not_ranked(kind: str, tmp_path: Path) -> None:
    is_flagged(kind, FLAGGED_TOO[kind], tmp_path / "seen.pt")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_asks_its_noise_for_more_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=NOTHING):
        run(kind)


@pytest.mark.parametrize("kind", DISBELIEVED)
def test_what_denies_its_gradient_is_attacked_through_it(kind: str) -> None:
    rows = run(kind)
    assert rows.metrics["robust_auroc"] == of_the_twin()
    record = rows.attrs["run"]
    assert record["detector"]["differentiable"]
    # what a fit sets beside the state dict is not kept: the detector that is loaded says yes
    assert any("differentiable = False" in said for said in record["warnings"]) == (kind != "SaysNoAfterItsFit")


def test_the_standard_evaluation_does_not_believe_it_either() -> None:
    settings = {"steps": 2, "queries": 2, "transfer": False}
    data = bench.load_data("textures", category="brick", image_size=64).limited(8)
    rows = bench.evaluate(f"{FILE}:SaysNo", data, "standard-linf", attack_params=settings, device="cpu")
    assert "gradient" in rows.attrs["run"]["attack"]["parts"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", AS_THE_TWIN)
def test_what_brings_nothing_is_no_better_than_its_twin(kind: str) -> None:
    rows = run(kind)
    assert failed(rows) or rows.metrics["robust_auroc"] <= of_the_twin() + ROOM


def test_every_kind_is_tried() -> None:
    kinds = {
        name
        for name, kind in vars(dishonest_plugins).items()
        if isinstance(kind, type) and issubclass(kind, dishonest_plugins.Honest)
    }
    assert kinds == {"Honest", *FLAGGED, *FLAGGED_TOO, *REFUSED, *DISBELIEVED, *AS_THE_TWIN}


LIKE = torch.zeros(2, 3, 4)


def test_opaque_noise_is_the_same_noise() -> None:
    source, hidden = Rng(7, ["a", "b"], "test"), opaque(Rng(7, ["a", "b"], "test"))
    assert isinstance(hidden, Opaque)
    for draw in (
        lambda rng: rng.normal(LIKE),
        lambda rng: rng.uniform(LIKE),
        lambda rng: rng.rows([1]).normal(LIKE[:1]),
        lambda rng: rng.child("x", 1).uniform(LIKE),
        lambda rng: rng.known().normal(LIKE),
    ):
        assert torch.equal(draw(source), draw(hidden))
    first, second = (Opaque(rng).normal(LIKE) for rng in source.paired(2))
    assert torch.equal(first, -second)
    assert opaque(hidden) is hidden and opaque(None) is None


@pytest.mark.parametrize("make", [lambda rng: rng, lambda rng: rng.rows([0]), lambda rng: rng.child("x")])
def test_opaque_noise_says_nothing(make: Any) -> None:
    hidden = make(opaque(Rng(7, ["good/000", "dent/000"], "test/attack")))
    for name in ("ids", "purpose", "seed", "_generators", "_turned"):
        with pytest.raises(AttributeError, match=NOTHING):
            getattr(hidden, name)
    for read in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=NOTHING):
            read(hidden)
    assert vars(hidden) == {} and repr(hidden) == "<noise>"
    assert all(referent in ({}, Opaque) for referent in gc.get_referents(hidden))
    methods: tuple[tuple[Any, Any], ...] = (
        (Rng.normal, LIKE[:1]), (Rng.rows, [0]), (Rng.child, "x"), (Rng.again, [0]),
    )  # fmt: skip
    for method, given in methods:
        with pytest.raises(AttributeError, match=NOTHING):
            method(hidden, given)
