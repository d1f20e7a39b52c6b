"""The code of a plug-in: its file and, of those that come with it, the files that it imports, directly or not.

They are read, never run. What is imported by a name that is only known at run time is not seen.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

BENCH = "bench"
FOUNDATIONS = {"abc", "builtins", "torch", "numpy"}
"""Packages whose classes a notebook's may name without being another one when they change."""
CONSTANTS = (bool, int, float, str, bytes, tuple, frozenset, dict, type(None))
FROM_FILE = "bench_plugin_"
"""How the names of packages begin that stand for the folder of a plug-in; see `from_file`."""


class Sources(NamedTuple):
    """The files of a plug-in."""

    path: Path
    """That of the plug-in itself."""
    helpers: dict[Path, str]
    """What it imports -> the absolute name under which it does, or nothing where all imports are relative."""

    @property
    def sha256(self) -> str:
        total = hashlib.sha256(self.path.read_bytes())
        for helper in sorted(self.helpers):
            total.update(helper.read_bytes())
        return total.hexdigest()


def of_built_in(path: Path) -> Sources:
    """The relative imports among the files of one folder: of the house itself nothing counts."""
    found, versions = _known.get(path, (None, None))
    if found is None or versions != _versions(found):
        found = _reached([path], path.parent, lambda top: False)
        _known[path] = found, _versions(found)
    return found


_known: dict[Path, tuple[Sources, list[tuple[int, int]]]] = {}


def _versions(sources: Sources) -> list[tuple[int, int]]:
    """Others, as soon as one of the files has changed."""
    states = (path.stat() for path in (sources.path, *sources.helpers))
    return [(state.st_mtime_ns, state.st_size) for state in states]


def of_file(path: Path) -> Sources:
    """What can be imported as it lies beside the file, as beside a script; nothing of Python itself."""
    if str(path.parent) in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return of_built_in(path)  # a module that was installed: what lies beside it is not its own
    return _reached([path], path.parent, lambda top: top != BENCH and top not in sys.stdlib_module_names)


def of_module(module: ModuleType) -> Sources:
    """Of an installed package: what is imported of the same package, its `__init__` included."""
    path = Path(str(module.__file__)).resolve()
    top, *more = module.__name__.split(".")
    root = path.parents[len(more) + (path.stem == "__init__")]
    packages = [file for file, _ in _files(root, (top, *more))]
    return _reached([path, *packages], root, lambda name: name == top)


def of_class(kind: type) -> Sources:
    """Of an object that the caller has built. Raises OSError or TypeError where there is no file, as in a notebook."""
    path = _file_of(kind)
    if kind.__module__.startswith(f"{BENCH}."):
        return of_built_in(path)
    alone = "." not in kind.__module__ or kind.__module__.startswith(FROM_FILE)
    return of_file(path) if alone else of_module(sys.modules[kind.__module__])


def of_definitions(kind: type) -> str:
    """sha256 of a class that has no file, as in a notebook: of its functions, its constants and what these name beside
    it, up to the classes that have one."""
    total, seen, kept = hashlib.sha256(), set[int](), list[object]()
    waiting: list[object] = [kind]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen or isinstance(found, ModuleType):
            continue
        seen.add(id(found))
        kept.append(found)
        found = getattr(found, "__func__", getattr(found, "fget", found))  # of a method, a property
        if inspect.isclass(found) and _has_no_file(found):
            total.update(found.__qualname__.encode())
            waiting += [*found.__bases__, *(value for name, value in sorted(vars(found).items()) if name[:2] != "__")]
            waiting += [vars(found)["__init__"]] if "__init__" in vars(found) else []
        elif inspect.isclass(found) and found.__module__.partition(".")[0] not in FOUNDATIONS:
            total.update(of_class(found).sha256.encode())
        elif inspect.isfunction(found) and found.__globals__.get("__name__") == kind.__module__:
            total.update(_instructions(found.__code__))
            named = sorted(_names_in(found.__code__) & set(found.__globals__))
            waiting += [found.__defaults__, found.__kwdefaults__, *(found.__globals__[name] for name in named)]
        elif isinstance(found, CONSTANTS):
            total.update(_constant(found))
    return total.hexdigest()


def _file_of(kind: type) -> Path:
    """Raises OSError or TypeError where there is none: in a notebook, or for code from the standard input."""
    path = Path(inspect.getfile(kind)).resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def _has_no_file(kind: type) -> bool:
    try:
        _file_of(kind)
    except (OSError, TypeError):
        return kind.__module__ != "builtins"
    return False


def _instructions(code: CodeType) -> bytes:
    """What a function does, whatever lines it stands on."""
    inner = [_instructions(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return b"\n".join([code.co_code, repr((code.co_names, code.co_varnames)).encode(), *inner])


def _constant(value: object) -> bytes:
    """The same in every process: no address, and no order of a set."""
    text = str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text).encode()


def _names_in(code: CodeType) -> set[str]:
    """The globals that a function reads; an attribute may have the name of one."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_names_in(c) for c in code.co_consts if isinstance(c, CodeType)))


def _reached(start: Sequence[Path], root: Path, own: Callable[[str], bool]) -> Sources:
    """From the first of some files on. root: where its own absolute names begin; own: whether a top-level name counts
    if it is found there."""
    found, waiting = dict.fromkeys(start, ""), list(start)
    while waiting:
        file = waiting.pop()
        for level, names in _imports(file.read_bytes()):
            folder = file.parents[level - 1] if level else root
            if folder.is_relative_to(root) and (level or own(names[0])):
                for new, absolute in _files(folder, names):
                    waiting += [] if new in found else [new]
                    found[new] = found.get(new) or ("" if level else absolute)
    return Sources(start[0], {path: name for path, name in found.items() if path != start[0]})


def _files(folder: Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """What `import a.b.c` reads below a folder, with its name: the packages on the way, and the module."""
    for i, name in enumerate(names):
        dotted = ".".join(names[: i + 1])
        package, module = folder / name / "__init__.py", folder / f"{name}.py"
        if package.is_file():
            yield package, dotted
        elif module.is_file():
            yield module, dotted
            return  # what follows is in it
        folder /= name


@lru_cache
def _imports(source: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """(level, names) of every import of a file; level 0 is absolute, 1 is its own folder, 2 the one above."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # who imports it says so
        return ()
    found: list[tuple[int, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, tuple(alias.name.split("."))) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            found += [(node.level, (*base, alias.name)) for alias in node.names]  # which may be a module as well
    return tuple(dict.fromkeys(found))
