"""A plug-in from a file: imported together with the files beside it, and anew when one of them has changed."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ..errors import UserError
from ..system.files import digest, file_sha256
from . import sources
from .sources import Sources

_loaded: dict[Path, tuple[str, ModuleType]] = {}
"""File -> the hash of its code, and the module that was made of it."""
_beside: dict[str, tuple[Path, str]] = {}
"""Name in sys.modules of what plug-ins have imported from beside them -> the file, and its hash at that time."""


def module_of(path: Path) -> tuple[ModuleType, str]:
    """The module of a file, and the hash of its code: see `sources.of_file`.

    The file may import those beside it, by their names or relatively. As long as none of them changes, it is the same
    module. Raises UserError for what cannot be imported.
    """
    path = path.resolve()
    own = sources.of_file(path)
    code = own.sha256
    if path not in _loaded or _loaded[path][0] != code:
        _forget(own)
        _loaded[path] = code, _imported(own)
    return _loaded[path][1], code


def _imported(own: Sources) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{_package(own)}.{own.path.stem.replace('.', '_')}", own.path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with _importable(own.path.parent):
            spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        from ..core.score import where_it_failed  # imports torch, which listing and help must not wait for

        raise UserError(f"cannot import {own.path}: {where_it_failed(error)}") from error
    for name, file in _names(own):
        if (there := _file_of(name)) == file:
            _beside[name] = file, file_sha256(file)
        elif there is not None:
            raise UserError(
                f"{own.path} imports {file}, but {there} was imported before under that name: rename one of them"
            )
    return module


def _package(own: Sources) -> str:
    """A package in name only, whose modules are the files of a folder: two files called mine.py are two modules, and
    each can say `from .helper import x`."""
    name = f"{sources.FROM_FILE}{digest(str(own.path.parent), 8)}"
    if name not in sys.modules:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(own.path.parent)]
    return name


def _names(own: Sources) -> Iterator[tuple[str, Path]]:
    """What sys.modules may call the files that a plug-in imports."""
    for file, absolute in own.helpers.items():
        parts = file.relative_to(own.path.parent).with_suffix("").parts
        relative = ".".join([_package(own), *(parts[:-1] if parts[-1] == "__init__" else parts)])
        yield from ((name, file.resolve()) for name in (absolute, relative) if name)


def _file_of(name: str) -> Path | None:
    """Of a module that is imported already."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None else Path(file).resolve()


def _forget(own: Sources) -> None:
    """What is to be imported anew: all of its files if any has changed, or was imported nobody knows when; and files
    beside another plug-in that have the same names."""
    there = {name: file for name, file in _names(own) if _file_of(name) == file}
    changed = any(_beside.get(name) != (file, file_sha256(file)) for name, file in there.items())
    others = {name for name, file in _names(own) if name in _beside and _beside[name][0] != file}
    for name in (set(there) if changed else set()) | others:
        package, _, last = name.rpartition(".")
        if package in sys.modules:  # which would give it to `from . import x`
            vars(sys.modules[package]).pop(last, None)
        sys.modules.pop(name, None)
        _beside.pop(name, None)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within, the files of a folder can be imported, as beside a script, and what was compiled of them is not kept:
    it would be taken for that of another file of the same size and second."""
    keep_out, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = keep_out
        with contextlib.suppress(ValueError):  # the plug-in did it
            sys.path.remove(str(folder))
