"""Finds detectors, attacks and data sets by name: a file in our folders, an entry point, or a path.

The file's name is the name on the command line (`_` is written `-`). Nothing is imported before it is named.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from .errors import UserError, unknown

Kind = Literal["detectors", "attacks", "datasets"]
KINDS: tuple[Kind, ...] = ("detectors", "attacks", "datasets")


class Plugin(NamedTuple):
    """Something found by name: `target` is a Detector subclass, an attack class or a data set module."""

    name: str
    target: Any
    sha256: str
    """Hash of the code that defines it."""


class Listed(NamedTuple):
    name: str
    summary: str
    where: str


def names(kind: Kind) -> list[str]:
    """Every name of a kind, built-in and by entry point."""
    return sorted({*_files(kind), *_entry_points(kind)})


def load(kind: Kind, name: str) -> Plugin:
    """The plug-in of that name, or of `path/to/file.py:ClassName`.

    Raises UserError if there is none, if two packages claim the name, or if it cannot be imported.
    """
    if name.endswith(".py") or ".py:" in name:
        return _from_path(kind, name)
    files, points = _files(kind), _entry_points(kind)
    if name in points and (name in files or len(points[name]) > 1):
        claims = ["adv-anomaly-bench"] * (name in files) + [_package(point) for point in points[name]]
        raise UserError(
            f"{len(claims)} packages claim the {kind[:-1]} {name!r}: {', '.join(claims)}; "
            "uninstall one, or name a file: path/to/file.py:ClassName"
        )
    if name in files:
        module = importlib.import_module(f"bench.{kind}.{files[name].stem}")
        return Plugin(name, _target(kind, module, name), _code_hash(files[name], helpers=True))
    if name in points:
        point = points[name][0]
        try:
            target = point.load()
        except Exception as error:
            raise UserError(
                f"{kind[:-1]} {name!r} of {_package(point)} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        module = target if inspect.ismodule(target) else sys.modules[target.__module__]
        return Plugin(name, _checked(kind, target, name), _code_hash(Path(str(module.__file__))))
    raise unknown(kind[:-1], name, names(kind))


def listing(kind: Kind) -> list[Listed]:
    """Name, one line and origin of everything of a kind; nothing is imported for it."""
    rows = [Listed(name, _summary(path), "built in") for name, path in _files(kind).items()]
    rows += [
        Listed(name, point.value, _package(point)) for name, points in _entry_points(kind).items() for point in points
    ]
    return sorted(rows)


def _files(kind: Kind) -> dict[str, Path]:
    found = importlib.util.find_spec(f"bench.{kind}")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the package bench.{kind} is not installed: run `pip install -e .` in the checkout")
    folder = Path(next(iter(found.submodule_search_locations)))
    return {path.stem.replace("_", "-"): path for path in sorted(folder.glob("[!_]*.py"))}


def _entry_points(kind: Kind) -> dict[str, list[EntryPoint]]:
    grouped: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"bench.{kind}"):
        grouped.setdefault(point.name, []).append(point)
    return grouped


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def _from_path(kind: Kind, name: str) -> Plugin:
    file, _, attribute = name.partition(".py")
    path, attribute = Path(file + ".py"), attribute.lstrip(":")
    if not path.is_file():
        raise UserError(f"no file {path} (expected path/to/file.py:ClassName)")
    # the path belongs to the name, so that two files called mine.py are two modules
    module_name = f"bench_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        from .score import where_it_failed

        raise UserError(f"cannot import {path}: {where_it_failed(error)}") from error
    if kind == "datasets":
        return Plugin(path.stem, _checked(kind, module, name), _code_hash(path))
    if not attribute:
        return Plugin(path.stem, _target(kind, module, name), _code_hash(path))
    if not hasattr(module, attribute):
        raise unknown(f"class in {path}", attribute, (n for n in vars(module) if not n.startswith("_")))
    return Plugin(attribute, _checked(kind, getattr(module, attribute), name), _code_hash(path))


def _code_hash(path: Path, helpers: bool = False) -> str:
    """Hash of the file, and of the `_*.py` beside it that built-in plug-ins share."""
    total = hashlib.sha256(path.read_bytes())
    for helper in sorted(path.parent.glob("_[!_]*.py")) if helpers else ():
        total.update(helper.read_bytes())
    return total.hexdigest()


def _target(kind: Kind, module: ModuleType, name: str) -> Any:
    """The one class that the module defines for its kind, or the module itself for a data set."""
    if kind == "datasets":
        return _checked(kind, module, name)
    fits = _CHECKS[kind]
    own = [
        v
        for v in vars(module).values()
        if inspect.isclass(v) and v.__module__ == module.__name__ and not v.__name__.startswith("_") and fits(v)
    ]
    if len(own) != 1:
        found = ", ".join(c.__name__ for c in own) or "none"
        raise UserError(
            f"{name}: expected one {kind[:-1]} class in the file, found {found}; name it: path/to/file.py:ClassName"
        )
    return own[0]


def _checked(kind: Kind, target: Any, name: str) -> Any:
    if not _CHECKS[kind](target):
        raise UserError(f"{name} is no {kind[:-1]}: expected {_EXPECTED[kind]}")
    return target


def _is_detector(target: Any) -> bool:
    from .detector import Detector

    return inspect.isclass(target) and issubclass(target, Detector)


def _is_attack(target: Any) -> bool:
    return inspect.isclass(target) and hasattr(target, "norms") and "__call__" in dir(target)


def _is_dataset(target: Any) -> bool:
    return all(hasattr(target, attribute) for attribute in ("categories", "load", "IMAGE_SIZE"))


_CHECKS: dict[Kind, Callable[[Any], bool]] = {"detectors": _is_detector, "attacks": _is_attack, "datasets": _is_dataset}
_EXPECTED: dict[Kind, str] = {
    "detectors": "a subclass of bench.Detector",
    "attacks": "a class with `norms` whose instances are called as (score, x, sign, threat, rng)",
    "datasets": "a module with categories(root), load(category, root, image_size) and IMAGE_SIZE",
}
