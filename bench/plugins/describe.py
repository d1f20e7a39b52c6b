"""What a detector, an attack or a data set is, and what its parameters mean: read from its code and its docstrings."""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from ..core import parameters
from ..core.detector import Detector, Wrapper
from ..core.norms import NORMS
from ..errors import UserError
from . import registry
from .fitting import DetectorSpec, split
from .lookup import find_attack


class Parameter(NamedTuple):
    name: str
    type: str
    """As a person types it: `linear | constant`, `number`."""
    default: Any
    """Of the signature, as JSON or a tuple of it, or as text; `inspect.Parameter.empty` where there is none."""
    text: str
    """What it is, from the docstring of the class that introduces it; empty where nobody wrote it."""

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class Description(NamedTuple):
    """One plug-in."""

    kind: registry.Kind
    name: str
    summary: str
    """One line."""
    about: str
    """What its docstring says beyond the parameters."""
    facts: Mapping[str, Any]
    """What it needs and can do, as JSON. None: that depends on the detector inside."""
    parameters: tuple[Parameter, ...]
    file: str


def describe(name: str) -> list[Description]:
    """What has that name, as it is typed on the command line; of `outer+inner` every part.

    Raises UserError if nothing has it.
    """
    if name.endswith(".py") or ".py:" in name:
        return [_from_path(name)] if split(name)[1] is None else _parts(name)
    if split(name)[1] is not None:
        return _parts(name)
    families = {known.partition(":")[0] for known in registry.names("detectors") if ":" in known}
    if name in registry.names("detectors") or name.partition(":")[0] in families:
        return [_detector(registry.load("detectors", name))]
    method, _, norm = name.rpartition("-")
    if name in registry.names("attacks") or (norm in NORMS and method in registry.names("attacks")):
        return [_attack(find_attack(name)[0])]
    if name in registry.names("datasets"):
        return [_data_set(registry.load("datasets", name))]
    raise _nothing(name)


def _parts(name: str) -> list[Description]:
    return [_detector(part.plugin) for part in DetectorSpec(name).parts]


def _nothing(name: str) -> UserError:
    every = [known for kind in registry.KINDS for known in registry.names(kind)]
    every += [f"{attack}-{norm}" for attack in registry.names("attacks") for norm in NORMS]
    near = difflib.get_close_matches(name, every, n=1, cutoff=0.5)
    return UserError(
        f"no detector, attack or data set named {name!r}."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + " `bench list detectors` (or attacks, datasets) shows what there is"
    )


def _from_path(name: str) -> Description:
    """Whatever the file, or the class in it, turns out to be."""
    first: UserError | None = None
    for describe_it in (
        lambda: _detector(registry.load("detectors", name)),
        lambda: _attack(find_attack(name)[0]),
        lambda: _data_set(registry.load("datasets", name)),
    ):
        try:
            return describe_it()
        except UserError as error:
            first = first or error
    assert first is not None
    raise first


class _Plain(Detector):
    """What a wrapper is put around to see what it adds."""

    def fit(self, normal: Any) -> None:
        """Nothing."""

    def score(self, x: Tensor, rng: Any = None) -> Tensor:
        return x.flatten(1).mean(1)


def _detector(plugin: registry.Plugin) -> Description:
    kind, wraps = plugin.target, issubclass(plugin.target, Wrapper)
    found: Detector | type[Detector] = kind
    with contextlib.suppress(Exception):  # its defaults may name a file that is not here: then what the class says
        found = parameters.build(kind, kind.toy_parameters, plugin.name, *[_Plain()] * wraps)
    facts = {
        "wraps": wraps,
        "needs": kind.needs,
        "gradient": None if wraps and found.differentiable else found.differentiable,
        "randomized": found.randomized or (None if wraps else False),
        "bounded": list(kind.bounded),
    }
    return _described("detectors", plugin, facts)


def _attack(plugin: registry.Plugin) -> Description:
    found = plugin.target
    with contextlib.suppress(Exception):  # transfer names no source by itself
        found = parameters.build(found, {}, plugin.name)
    facts = {"norms": list(found.norms), "needs_gradient": bool(found.needs_gradient)}
    return _described("attacks", plugin, facts)


def _data_set(plugin: registry.Plugin) -> Description:
    module = plugin.target
    categories = None
    with contextlib.suppress(Exception):  # it needs a folder to tell
        categories = list(module.categories(None))
    doc = inspect.getdoc(module) or ""
    facts = {
        "needs": "" if categories else f"--data-root DIR with {getattr(module, 'LAYOUT', 'its images')}",
        "image_size": module.IMAGE_SIZE,
        "categories": categories or list(getattr(module, "CATEGORIES", ())),
    }
    summary, _, about = doc.partition("\n")
    return Description("datasets", plugin.name, summary, _flat(about), facts, (), str(module.__file__))


def _described(kind: registry.Kind, plugin: registry.Plugin, facts: Mapping[str, Any]) -> Description:
    target = plugin.target
    accepted, hints = parameters.accepted(target), parameters.hints_of(target)
    texts = texts_of(target, accepted.keys())
    found = tuple(
        Parameter(name, type_text(hints.get(name, Any)), _plain(parameter.default), texts.get(name, ""))
        for name, parameter in accepted.items()
    )
    summary, _, rest = (inspect.getdoc(target) or "").partition("\n")
    about = " ".join(_flat(_before_parameters(paragraph, accepted.keys())) for paragraph in re.split(r"\n\s*\n", rest))
    listed = next((row.summary for row in registry.listing(kind) if row.name == plugin.name), "")
    if listed and listed != summary:
        summary, about = listed, f"{summary} {about}"
    return Description(kind, plugin.name, summary, about.strip(), facts, found, str(inspect.getsourcefile(target)))


def _plain(default: Any) -> Any:
    if isinstance(default, (tuple, list)):
        return tuple(map(_plain, default))
    plain = default is inspect.Parameter.empty or default is None or type(default) in (bool, int, float, str)
    return default if plain else str(default)


# From docstrings: `name: text` or `name, other: text`, at the beginning of a line or of a sentence


def texts_of(target: type, accepted: Set[str]) -> dict[str, str]:
    """Parameter -> what it is: from the class that introduces it, or the nearest base that says it."""
    found: dict[str, str] = {}
    for kind in target.__mro__[:-1]:
        for doc in (kind.__dict__.get("__doc__"), getattr(kind.__dict__.get("__init__"), "__doc__", None)):
            found = dict(_pairs(doc or "", accepted)) | found
        found = {name: text for name, text in _below_fields(kind).items() if name in accepted} | found
    return found


def _pairs(doc: str, accepted: Set[str]) -> Iterator[tuple[str, str]]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(doc)):
        marks = list(_marks(paragraph))
        ends = [start for _, start, _ in marks[1:]] + [len(paragraph)]
        for (names, _, begin), end in zip(marks, ends, strict=False):
            for name in accepted & names:
                yield name, _flat(paragraph[begin:end]).rstrip(" ;")


def _marks(paragraph: str) -> Iterator[tuple[Set[str], int, int]]:
    """The names, where they begin, and where their text does; a base may name some that a subclass does not have."""
    for match in re.finditer(r"(?:^|(?<=[.;]\s))([a-z]\w*(?:,\s+[a-z]\w*)*):\s", paragraph, re.MULTILINE):
        yield frozenset(re.split(r",\s+", match[1])), match.start(), match.end()


def _before_parameters(paragraph: str, accepted: Set[str]) -> str:
    return paragraph[: next((start for names, start, _ in _marks(paragraph) if names & accepted), None)]


@lru_cache(maxsize=512)  # classes share their bases, torch's among them
def _below_fields(kind: type) -> Mapping[str, str]:
    """The texts below annotated attributes."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError):  # made without a file
        return {}
    found = {}
    for field, below in pairwise(tree.body if isinstance(tree, ast.ClassDef) else []):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _flat(text)
    return found


def _flat(text: str) -> str:
    return " ".join(text.split())


# As a person types it


def type_text(annotation: Any) -> str:
    """`Literal["a", "b"] | None` -> `a | b | none`."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(inside[0]) + " above 0" * (annotation in (PositiveInt, PositiveFloat))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_text, inside))
    if origin is typing.Literal:
        return " | ".join(map(default_text, inside))
    if origin in (tuple, list):
        return f"{type_text(inside[0])},.." if inside else "list"
    plain = {int: "whole number", float: "number", str: "text", bool: "true | false", Path: "file", type(None): "none"}
    return plain.get(annotation) or str(getattr(annotation, "__name__", annotation)).lower()


def default_text(value: Any) -> str:
    """The words that stand for a value after `--param name=`."""
    if value is inspect.Parameter.empty:
        return "(required)"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(default_text, value)) if isinstance(value, (tuple, list)) else str(value)
