"""An attack that somebody else wrote: for today's base class, and for the protocol that was before it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conftest import Linear

from bench import Attack, Data, ThreatModel, UserError, evaluate
from bench.core.parameters import accepted
from bench.plugins.lookup import make_attack

PROTOCOL = """
from dataclasses import dataclass
import torch
from bench import Attacked

@dataclass(frozen=True)
class Published:
    '''One step, from where it is told to start.'''

    norms = ("linf",)
    budget: int = 7
    numbers: tuple = ("told",)

    def __call__(self, score, x, sign, threat, rng, starts=None):
        point = (x if starts is None else starts).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad((sign * score(point, rng)).sum(), point)
        image = threat.project(point.detach() + threat.radius / self.budget * gradient.sign(), x)
        return Attacked({"step": image}, {"told": 0 * sign + (starts is not None)})
"""
TRACED = """
class Traced:
    norms = ("linf", "l2")
    needs_gradient = False

    def __init__(self, tries: int = 3):
        self.tries = self.budget = tries
        self.numbers = ("tried",)

    def __call__(self, score, x, sign, threat, rng, trace):
        from bench import Attacked
        trace.note(self.tries + 1, sign * score.mean(x, rng, 1))
        return Attacked({"traced": x}, {"tried": 0 * sign + self.tries})
"""
TODAY = """
from bench import Attack

class Still(Attack):
    norms = ("linf",)

    def __call__(self, score, x, sign, threat, rng):
        return x
"""


def plugin(folder: Path, text: str) -> str:
    path = folder / "theirs.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_published_attack_has_the_defaults_of_the_base_class(tmp_path: Path) -> None:
    name, _, attack, _ = make_attack(plugin(tmp_path, PROTOCOL), {"budget": "5"})
    assert isinstance(attack, Attack) and name == "theirs"
    assert (type(attack).__name__, type(attack).__doc__) == ("Published", "One step, from where it is told to start.")
    assert attack.takes_starts and not attack.takes_trace  # its `budget` is a parameter of its own
    assert attack.needs_gradient and not attack.needs_threshold and attack.stronger() == {}
    assert list(accepted(type(attack))) == ["budget", "numbers"]
    assert attack.parameters_record == {"budget": 5, "numbers": ("told",)}
    other = dataclasses.replace(attack, budget=2)  # type: ignore[type-var]
    assert type(other) is type(attack) and other.parameters_record["budget"] == 2


def test_a_published_attack_meets_the_smaller_eps_of_a_sweep(tmp_path: Path, data: Data) -> None:
    path = plugin(tmp_path, PROTOCOL)
    small, large = (ThreatModel("linf", eps) for eps in ("4/255", "8/255"))
    assert not evaluate(Linear(), data, path, small, keep_images=True)["told"].any()
    assert evaluate(Linear(), data, path, large, smaller=[small])["told"].all()


def test_a_published_attack_keeps_its_trace(tmp_path: Path, data: Data) -> None:
    """`budget` and `numbers` as it sets them itself, in its constructor."""
    frame = evaluate(Linear(), data, plugin(tmp_path, TRACED), attack_params={"tries": 4})
    assert {"after_1", "after_2", "after_4"} <= set(frame.columns)
    assert (frame["tried"] == 4).all() and (frame["after_4"] == frame["clean"]).all()


def test_an_attack_of_today_needs_norms_and_a_call(tmp_path: Path, data: Data) -> None:
    frame = evaluate(Linear(), data, plugin(tmp_path, TODAY))
    assert (frame["worst"] == frame["clean"]).all()
    with pytest.raises(UserError, match="expected one attack class in the file, found none"):
        make_attack(plugin(tmp_path, TODAY.replace("norms", "forms")))
    with pytest.raises(UserError, match="abstract"):
        make_attack(plugin(tmp_path, TODAY.replace("__call__", "call")))
