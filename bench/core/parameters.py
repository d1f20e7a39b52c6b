"""Parameters: text or values -> what the constructor's annotations say, and their identity in a result."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown
from ..system.files import at_home, content_sha256


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """["k=50", "filter=5"] -> {"k": "50", "filter": "5"}."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"expected a parameter as name=value, got {text!r}")
        pairs[name.strip()] = value
    return pairs


def accepted(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function, without self, and of a wrapper without its inner detector."""
    known = [
        (n, p)
        for n, p in inspect.signature(build).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return dict(known[1:] if getattr(build, "wraps", False) else known)


@functools.lru_cache(maxsize=256)
def hints_of(build: Callable[..., Any]) -> Mapping[str, Any]:
    """What the parameters of a class or function may be; `Annotated` ones with their range."""
    if dataclasses.is_dataclass(build):  # a field may be inherited from another module
        return typing.get_type_hints(build, include_extras=True)
    return typing.get_type_hints(build.__init__ if inspect.isclass(build) else build, include_extras=True)


def convert(build: Callable[..., Any], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """`given` with every value converted by the annotations of `build`; text means what it means on the
    command line, in Python as well, and a single value that does not fit means what its text means: `layers=3`.

    Raises UserError for an unknown name or a value that does not fit.
    """
    known, hints = accepted(build), hints_of(build)
    converted = {}
    for name, value in given.items():
        if name not in known:
            raise unknown(f"parameter of {owner}", name, known)
        converted[name] = _convert(value, hints.get(name, Any), f"{owner}.{name}")
    return converted


def _convert(value: Any, annotation: Any, where: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    if isinstance(value, str) and value.startswith("~") and Path in (annotation, *typing.get_args(annotation)):
        value = str(at_home(value))
    try:
        if not isinstance(value, str):
            try:
                return adapter.validate_python(value)
            except ValidationError:
                if not isinstance(value, (Number, Path)):
                    raise
                value = str(value)
        if value.lower() in {"none", "null"} and type(None) in typing.get_args(annotation):
            return None
        if any(typing.get_origin(a) in {tuple, list} for a in (annotation, *typing.get_args(annotation))):
            return adapter.validate_python(value.split(","))
        return adapter.validate_strings(value)
    except ValidationError as error:
        reasons = " or ".join(dict.fromkeys(e["msg"][:1].lower() + e["msg"][1:] for e in error.errors()))
        raise UserError(f"parameter {where}={value}: {reasons}") from None


def build(target: Callable[..., Any], given: Mapping[str, Any], owner: str, *first: Any) -> Any:
    """Call `target` with `first` and converted parameters; its ValueError becomes the user's one line."""
    converted = convert(target, given, owner)
    try:
        return target(*first, **converted)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"{owner}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def unkept(built: object) -> list[str]:
    """The arguments of its constructor that are no attributes of it."""
    return [name for name in accepted(type(built)) if not hasattr(built, name)]


def refuse_unkept(built: object, given: Mapping[str, Any], owner: str) -> None:
    """UserError unless a detector has every argument of its constructor as an attribute, and those that were `given` as
    they were: a fit is kept, and a detector built again, by these values."""
    for name in unkept(built):
        raise UserError(f"{owner}: the constructor's argument {name} is not kept: set self.{name} = {name}")
    for name, value in convert(type(built), given, owner).items():
        kept = getattr(built, name)
        if identity(kept) != identity(value):
            raise UserError(
                f"{owner}: the constructor's argument {name} was {value!r} and is kept as {kept!r}; keep it as it was "
                "given, and what is made of it under another name"
            )


def changed(target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the defaults of `target`."""
    known = accepted(target)
    return {name: value for name, value in values.items() if name not in known or known[name].default != value}


def identity(value: Any) -> Any:
    """What a parameter stands for, as JSON: a file or a folder is its content, wherever it lies."""
    if isinstance(value, Path):
        return f"sha256:{content_sha256(value)}"
    if isinstance(value, Mapping):
        return {str(name): identity(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
