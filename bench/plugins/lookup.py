"""From a name to what it stands for: data, a fitted detector, an attack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..core import parameters
from ..core.attack import Attack
from ..core.data import Data
from ..core.detector import Detector
from ..core.manners import left_as_it_was
from ..core.norms import NO_NORM, NORMS, SEMANTIC
from ..errors import UserError, unknown
from ..system.files import at_home
from . import registry
from .fitting import DetectorSpec


def categories(name: str, root: str | Path | None = None) -> tuple[str, ...]:
    """The categories of a data set."""
    module = registry.load("datasets", name).target
    return tuple(module.categories(None if root is None else at_home(root)))


def takes_root(name: str) -> bool:
    """Whether the images of a data set lie in a folder: a built-in one says `TAKES_ROOT = False`."""
    return bool(getattr(registry.load("datasets", name).target, "TAKES_ROOT", True))


def root_below(folder: Path, name: str) -> Path:
    """Of one data set of several, where `folder` is given for all: FOLDER/NAME where that is a folder, else FOLDER."""
    own = folder / name
    return own if own.is_dir() else folder


def load_data(
    name: str = "textures",
    *,
    category: str | None = None,
    root: str | Path | None = None,
    image_size: int | None = None,
) -> Data:
    """One category of a data set: `data.train[i]` is an image, `data.test[i]` is `(image, label, id)`.

    name: as `bench list datasets` shows, or a path to a plug-in file. category: may be left out where there is only
    one. root: the folder of the images. image_size: side in pixels; the data set's own default if left out.
    Images are float (3, S, S) in [0, 1], decoded when accessed. Raises UserError if the layout is not as expected.
    """
    plugin = registry.load("datasets", name)
    place = None if root is None else at_home(root)
    if category is None:
        known = plugin.target.categories(place)
        if len(known) != 1:
            raise UserError(f"{name} has several categories; choose one of {', '.join(known)}")
        category = known[0]
    return cast(Data, plugin.target.load(category, place, image_size or plugin.target.IMAGE_SIZE))


def fit_or_load(
    detector: str,
    data: Data,
    *,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    **more: Any,
) -> Detector:
    """A fitted detector: from the user's cache if this very fit was made before, else fitted now and kept.

    detector: a name, `path/to/file.py:ClassName`, or `outer+inner`. params: the constructor's, as in `bench.evaluate`:
    text means what it means on the command line; of a composition `{"diffpure.t": 50}` is of one part, `{"t": 50}` of
    every part that has it. They may also be keywords of their own. A tenth of the normal images (at least 20 where
    that is at most a quarter) is held out of the fit.
    """
    if twice := sorted({*(params or {}), *more} - ({*(params or {})} ^ {*more})):
        raise UserError(f"the parameter {twice[0]} is given twice, in params and as a keyword")
    return DetectorSpec(detector, {**(params or {}), **more}, seed=seed, device=device).fitted(data)


def find_attack(name: str) -> tuple[registry.Plugin, str | None]:
    """`pgd-linf`, `pgd` or `path/to/file.py:Mine-l2` -> the plug-in, and the norm if it is named.

    Raises UserError for a name that is none, or a norm that the attack does not have.
    """
    method, _, norm = name.rpartition("-")
    if SEMANTIC in (name, norm):
        raise UserError(f"--attack {name}: {NO_NORM}")
    if norm not in NORMS:
        method, norm = name, ""
    if ".py" not in method and method not in registry.names("attacks"):
        known = [f"{m}-{n}" for m in registry.names("attacks") for n in registry.load("attacks", m).target.norms]
        raise unknown("attack", name, known)
    plugin = registry.load("attacks", method)
    if norm and norm not in plugin.target.norms:
        raise UserError(f"attack {plugin.name} has no norm {norm}; it has {', '.join(plugin.target.norms)}")
    return plugin, norm or None


def make_attack(name: str, given: Mapping[str, Any] | None = None) -> tuple[str, str | None, Attack, str]:
    """`pgd-linf` or `pgd` -> method, norm (None if not named), the attack, hash of its code."""
    with left_as_it_was(f"attack {name}", "its module or constructor"):
        plugin, norm = find_attack(name)
        attack = parameters.build(plugin.target, given or {}, plugin.name)
    parameters.refuse_unkept(attack, given or {}, plugin.name)
    return plugin.name, norm, attack, plugin.sha256


def default_size(dataset: str) -> int | None:
    """In pixels, of a data set that is installed."""
    try:
        return int(registry.load("datasets", dataset).target.IMAGE_SIZE)
    except UserError:  # data that the caller built
        return None
