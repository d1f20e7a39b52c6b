"""Parameters mean the same as text and as values; what they stand for is their identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import PositiveInt

from bench import UserError
from bench.core.parameters import build, changed, convert, identity, parse_assignments, refuse_unkept


class Example:
    def __init__(
        self,
        kind: Literal["a", "b"] = "a",
        *,
        count: int = 3,
        rate: float | None = None,
        layers: tuple[int, ...] = (2, 3),
        flag: bool = False,
        weights: Literal["hub", "random"] | Path = "hub",
        steps: PositiveInt = 5,
    ):
        if count < 0:
            raise ValueError(f"count must not be negative, got {count}")
        self.count = count


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("kind", "b", "b"), ("count", "7", 7), ("rate", "0.5", 0.5), ("rate", "none", None), ("layers", "1,2", (1, 2)),
     ("layers", "4", (4,)), ("flag", "true", True), ("flag", "0", False), ("weights", "random", "random"),
     ("weights", "hub", "hub"), ("weights", "a/b.pt", Path("a/b.pt"))],
)  # fmt: skip
def test_text_becomes_what_the_annotation_says(name: str, text: str, value: Any) -> None:
    (converted,) = convert(Example, {name: text}, "example").values()
    assert converted == value and type(converted) is type(value)
    assert convert(Example, {name: value}, "example") == {name: value}


@pytest.mark.parametrize(
    ("given", "says"),
    [({"count": "many"}, "example.count=many: .*integer"), ({"kind": "c"}, "example.kind=c: .*'a' or 'b'"),
     ({"counts": "1"}, "Did you mean 'count'"), ({"flag": "perhaps"}, "example.flag=perhaps"),
     ({"count": "-1"}, "example: count must not be negative"), ({"layers": "1,x"}, "example.layers=1,x"),
     ({"rate": "nan"}, "example.rate=nan: .*finite"), ({"rate": float("inf")}, "example.rate=inf: .*finite"),
     ({"steps": "0"}, "example.steps=0: .*greater than 0")],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(given: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        build(Example, given, "example")
    assert "\n" not in str(caught.value)


def test_assignments() -> None:
    assert parse_assignments(["k=50", "path=a=b"]) == {"k": "50", "path": "a=b"}
    for text in ("k", "=5"):
        with pytest.raises(UserError, match="name=value"):
            parse_assignments([text])


def test_defaults_are_not_changes() -> None:
    assert changed(Example, {"count": 3, "rate": None, "flag": True}) == {"flag": True}


def test_a_file_is_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("same")
    (tmp_path / "b").write_text("same")
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    assert str(identity(tmp_path / "a")).startswith("sha256:")
    with pytest.raises(UserError, match="cannot read"):
        identity(tmp_path / "missing")


class Forgets:
    def __init__(self, power: float = 2.0, size: int = 3):
        self.power = power


class Shadows:
    def __init__(self, power: float = 2.0):
        self.power = 2 * power


def test_what_is_not_kept_as_it_was_given_is_refused() -> None:
    with pytest.raises(UserError, match="argument size is not kept: set self.size = size"):
        refuse_unkept(Forgets(), {}, "forgets")
    with pytest.raises(UserError, match=r"argument power was 3.0 and is kept as 6.0"):
        refuse_unkept(Shadows(3.0), {"power": "3"}, "shadows")
    refuse_unkept(Shadows(), {}, "shadows")
