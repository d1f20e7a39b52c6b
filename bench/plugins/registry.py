"""Finds detectors, attacks and data sets by name: a file in our folders, an entry point, or a path.

The file's name is the name on the command line (`_` is written `-`). A file with a module-level `MEMBERS`
(member -> class) is a family: `anomalib:padim` is one of anomalib's. Nothing is imported before it is named.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from abc import ABCMeta
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from ..errors import UserError, unknown
from ..system.files import at_home
from . import from_file, sources

Kind = Literal["detectors", "attacks", "datasets"]
KINDS: tuple[Kind, ...] = ("detectors", "attacks", "datasets")
GRADIENT = "differentiable"
BUILT_IN = "built in"


class Plugin(NamedTuple):
    """Something found by name: `target` is a Detector subclass, an attack class or a data set module."""

    name: str
    target: Any
    sha256: str
    """Hash of the code that defines it, its own helpers included; see `sources`."""


class Listed(NamedTuple):
    name: str
    summary: str
    where: str
    differentiable: bool | None = None
    """Of a detector; None where only its code would tell."""
    needs: str = ""
    wraps: bool = False
    """It goes before a detector: `name+detector`."""


def names(kind: Kind) -> list[str]:
    """Every name of a kind, built-in and by entry point; of a family, its members."""
    found = set(_entry_points(kind))
    for name, path in _files(kind).items():
        members = _members(path)
        found |= {f"{name}:{member}" for member in members} if members else {name}
    return sorted(found)


def wrappers() -> list[str]:
    """Built-in names that go before a detector, as in `diffpure+patchcore`."""
    return [row.name for row in listing("detectors") if row.wraps]


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
    family, _, member = name.partition(":")
    if family in files and (members := _members(files[family])):
        if member not in members:
            raise unknown(f"{kind[:-1]} of {family}", name, [f"{family}:{m}" for m in members])
        module = _imported(kind, files[family], family)
        return Plugin(name, _checked(kind, module.MEMBERS[member], name), sources.of_built_in(files[family]).sha256)
    if name in files:
        module = _imported(kind, files[name], name)
        return Plugin(name, _target(kind, module, name), sources.of_built_in(files[name]).sha256)
    if name in points:
        point = points[name][0]
        try:
            target = point.load()
        except Exception as error:
            raise UserError(
                f"{kind[:-1]} {name!r} of {_package(point)} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        module = target if inspect.ismodule(target) else sys.modules[target.__module__]
        return Plugin(name, _checked(kind, target, name), sources.of_module(module).sha256)
    raise unknown(kind[:-1], name, names(kind))


def is_foreign(kind: Kind, name: str) -> bool:
    """Whether a name is that of a file or of another package's entry point; nothing is imported to know it."""
    return ".py" in name or name in _entry_points(kind)


def listing(kind: Kind) -> list[Listed]:
    """Name, one line and origin of everything of a kind; nothing is imported for it."""
    rows = [row for name, path in _files(kind).items() for row in _described(name, path)]
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


def _entry_points(kind: Kind) -> Mapping[str, list[EntryPoint]]:
    return _installed(kind, tuple(map(_state, sys.path)))


@lru_cache(maxsize=len(KINDS))
def _installed(kind: Kind, _: tuple[tuple[str, int], ...]) -> Mapping[str, list[EntryPoint]]:
    """Of all packages: half a hundred files are read for it."""
    grouped: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"bench.{kind}"):
        grouped.setdefault(point.name, []).append(point)
    return grouped


def _state(folder: str) -> tuple[str, int]:
    """Another one as soon as a package is installed there, or removed."""
    try:
        return folder, Path(folder or ".").stat().st_mtime_ns
    except OSError:
        return folder, 0


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _imported(kind: Kind, path: Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"bench.{kind}.{path.stem}")
    except ImportError as error:
        raise UserError(f"{kind[:-1]} {name} cannot be imported: {error}") from error


@lru_cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _members(path: Path) -> dict[str, str]:
    """Of a family, member -> name of its class."""
    for node in _parsed(path).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "MEMBERS" for target in targets):
                pairs = zip(node.value.keys, node.value.values, strict=True)
                return {str(ast.literal_eval(k)): v.id for k, v in pairs if k and isinstance(v, ast.Name)}
    return {}


def _described(name: str, path: Path) -> list[Listed]:
    """What the code of a built-in plug-in says about itself, read and not run."""
    tree = _parsed(path)
    own = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    beside = (node for helper in sources.of_built_in(path).helpers for node in _parsed(helper).body)
    classes = {node.name: node for node in beside if isinstance(node, ast.ClassDef)} | own
    members = _members(path)
    if members:
        return [
            _row(f"{name}:{member}", _first_line(classes[kind]), classes[kind], classes)
            for member, kind in members.items()
        ]
    rows = [_row(name, _first_line(tree), node, classes) for node in own.values() if not node.name.startswith("_")]
    detectors = [row for row in rows if row.differentiable is not None]
    return detectors[:1] or [Listed(name, _first_line(tree), BUILT_IN)]


def _row(name: str, summary: str, kind: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Listed:
    line = [kind]  # the class and its bases in the same file, nearest first
    while known := [classes[b.id] for b in line[-1].bases if isinstance(b, ast.Name) and b.id in classes]:
        line.append(known[0])
    bases = {b.id for node in line for b in node.bases if isinstance(b, ast.Name)}
    if not bases & {"Detector", "Wrapper", "Purifier"}:
        return Listed(name, summary, BUILT_IN)
    own = {a: next((v for node in line if (v := _constant(node, a)) is not None), None) for a in ("needs", GRADIENT)}
    wraps = bool(bases & {"Wrapper", "Purifier"})
    return Listed(name, summary, BUILT_IN, own[GRADIENT] is not False, own["needs"] or "", wraps)


def _constant(kind: ast.ClassDef, attribute: str) -> Any:
    """The literal that a class body assigns to an attribute, or None."""
    for node in kind.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == attribute for t in targets):
            value = getattr(node, "value", None)
            return value.value if isinstance(value, ast.Constant) else value
    return None


def _first_line(node: ast.Module | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


def _from_path(kind: Kind, name: str) -> Plugin:
    file, _, attribute = name.partition(".py")
    path, attribute = at_home(file + ".py"), attribute.lstrip(":")
    if not path.is_file():
        raise UserError(f"no file {path} (expected path/to/file.py:ClassName)")
    module, code = from_file.module_of(path)
    if kind == "datasets":
        return Plugin(path.stem, _checked(kind, module, name), code)
    if not attribute:
        return Plugin(path.stem, _target(kind, module, name), code)
    if not hasattr(module, attribute):
        raise unknown(f"class in {path}", attribute, (n for n in vars(module) if not n.startswith("_")))
    return Plugin(attribute, _checked(kind, getattr(module, attribute), name), code)


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
    return _checked(kind, own[0], name)


def _checked(kind: Kind, target: Any, name: str) -> Any:
    if not _CHECKS[kind](target):
        raise UserError(f"{name} is no {kind[:-1]}: expected {_EXPECTED[kind]}")
    return _as_attack(target) if kind == "attacks" else target


@lru_cache
def _as_attack(target: Any) -> Any:
    """The class, as one of `bench.Attack`: what it does not say about itself has the defaults of that class.

    `norms` and a call are all that an attack needs, so one that was written before that class existed goes on working;
    where it does not say whether it takes `starts` and `trace`, its call says it.
    """
    from ..core.attack import Attack  # as above

    call = inspect.signature(target.__call__).parameters
    flags = {"takes_starts": "starts", "takes_trace": "trace"}
    unsaid = {flag: True for flag, keyword in flags.items() if keyword in call and not getattr(target, flag, False)}
    bases = (target,) if issubclass(target, Attack) else (target, Attack)
    if bases == (target,) and not unsaid:
        return target
    same = {name: getattr(target, name) for name in ("__module__", "__qualname__", "__doc__")}
    return ABCMeta(target.__name__, bases, {**same, **unsaid})


def _is_detector(target: Any) -> bool:
    from ..core.detector import Detector  # as above

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
