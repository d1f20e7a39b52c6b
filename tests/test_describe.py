"""Every parameter of every built-in plug-in is described, with the default that it has."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from command_line import Run, one_line
from conftest import MEAN

from bench import UserError
from bench.core import parameters
from bench.plugins import registry
from bench.plugins.describe import describe, texts_of, type_text

NAMES = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_built_in_says_what_its_parameters_are(kind: registry.Kind, name: str) -> None:
    (found,) = describe(name)
    assert (found.kind, found.name) == (kind, name) and found.summary
    target = registry.load(kind, name).target
    accepted = {} if kind == "datasets" else parameters.accepted(target)
    assert {p.name: p.default for p in found.parameters} == {n: p.default for n, p in accepted.items()}
    assert [p.name for p in found.parameters if not p.text] == []


def test_what_it_needs_and_can_do() -> None:
    def facts(name: str) -> dict[str, Any]:
        return dict(describe(name)[0].facts)

    no_bounds: dict[str, Any] = {"bounded": []}
    patchcore = {"wraps": False, "needs": "weights", "gradient": True, "randomized": False}
    assert facts("patchcore") == patchcore | no_bounds and facts("nearest-patch")["bounded"] == ["linf", "l2"]
    assert facts("advrad")["randomized"] and not facts("advrad-one-noise")["randomized"]
    assert facts("smoothed") == {"wraps": True, "needs": "", "gradient": None, "randomized": True} | no_bounds
    assert facts("denoised")["randomized"] is None  # as the detector inside
    assert not facts("anomalib:dsr")["gradient"]
    assert facts("pgd-linf") == {"norms": ["linf", "l2", "l1", "l0"], "needs_gradient": True}
    assert not facts("square")["needs_gradient"] and not facts("transfer")["needs_gradient"]
    assert facts("textures")["categories"] == ["brick", "grass", "gravel"]
    assert "--data-root" in facts("visa")["needs"] and facts("visa")["image_size"] == 256


def test_a_composition_is_its_parts() -> None:
    assert [part.name for part in describe("diffpure+patchcore")] == ["diffpure", "patchcore"]


def test_plugins_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MEAN.replace("normal image.", "normal image.\n\n    power: of the distance."), encoding="utf-8")
    for name in (str(path), f"{path}:Mean"):
        (found,) = describe(name)
        assert (found.kind, found.summary) == ("detectors", "Distance to the mean normal image.")
        assert [(p.name, p.type, p.default, p.text) for p in found.parameters] == [
            ("power", "whole number", 2, "of the distance.")
        ]
    assert [part.name for part in describe(f"smoothed+{path}:Mean")] == ["smoothed", "Mean"]
    with pytest.raises(UserError, match="no class in .* named 'Maen'. Did you mean 'Mean'"):
        describe(f"{path}:Maen")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("patchcor", "Did you mean 'patchcore'"),
        ("pdg-linf", "Did you mean 'pgd"),
        ("textrues", "Did you mean 'textures'"),
        ("anomalib:pading", "Did you mean 'anomalib:padim'"),
        ("anomalib", "anomalib:"),
        ("nothing at all", "`bench list detectors`"),
        ("patchcore+advrad", "patchcore is a whole detector"),
        ("nowhere.py:X", "no file nowhere.py"),
    ],
)
def test_a_name_that_nothing_has(run_cli: Run, name: str, says: str) -> None:
    code, _, err = run_cli("describe", name)
    assert code == 2 and says in one_line(err)


def test_what_is_printed(run_cli: Run) -> None:
    code, out, _ = run_cli("describe", "pgd-linf")
    assert code == 0
    words = out.split()
    assert words[words.index("schedule") :][:4] == ["schedule", "linear", "linear", "|"]
    (found,) = json.loads(run_cli("describe", "patchcore", "--json")[1])
    assert found["kind"] == "detectors" and found["needs"] == "weights"
    layers = next(p for p in found["parameters"] if p["name"] == "layers")
    assert layers["default"] == [2, 3] and "out_indices" in layers["text"]


class Base:
    """One thing.

    a: of the base. b,
    c: of two,
    on two lines; d: after a semicolon. z: of subclasses.

    Note: prose is no parameter.
    """

    def __init__(self, a: int = 1, b: int = 2, c: int = 3, d: int = 4):
        """e: not a parameter here."""


class Derived(Base):
    """Another.

    a: said anew.
    """

    def __init__(self, a: int = 1, d: int = 4, e: int = 5, *, f: int):
        """e: of the constructor."""


@dataclass
class Fields:
    """Fields."""

    g: int = 1
    """Below the field."""
    h: int = 2


def test_texts_are_found_where_people_write_them() -> None:
    assert texts_of(Base, inspect.signature(Base).parameters.keys()) == {
        "a": "of the base.",
        "b": "of two, on two lines",
        "c": "of two, on two lines",
        "d": "after a semicolon.",
    }
    assert texts_of(Derived, inspect.signature(Derived).parameters.keys()) == {
        "a": "said anew.",
        "d": "after a semicolon.",
        "e": "of the constructor.",
    }
    assert texts_of(Fields, inspect.signature(Fields).parameters.keys()) == {"g": "Below the field."}


def test_types_as_they_are_typed() -> None:
    assert type_text(Literal["a", "b"] | None) == "a | b | none"
    assert type_text(tuple[int, ...]) == "whole number,.."
    assert type_text(Path | float | bool) == "file | number | true | false"
