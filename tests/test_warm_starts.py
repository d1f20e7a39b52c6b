"""Images of a smaller eps in the cache: what is not what was kept there is not used, and that is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Linear, small_data

from bench import evaluate
from bench.core.progress import Monitor
from bench.harness.evaluated import Evaluated
from bench.system import files
from bench.system.cache import cache_folder

DATA = small_data()


def larger(monitor: Monitor | None = None) -> Evaluated:
    return evaluate(
        Linear(), DATA, "noise-linf", "8/255", attack_params={"tries": 1}, smaller=["4/255"], monitor=monitor
    )


def kept(name: str) -> Path:
    return next(cache_folder().rglob(f"{files.digest(name)}.npy"))


def flipped(path: Path, _: Path) -> bytes:
    """One bit of the last pixel."""
    content = bytearray(path.read_bytes())
    content[-40] ^= 64
    return bytes(content)


def cut(path: Path, _: Path) -> bytes:
    return path.read_bytes()[:-1]


def empty(path: Path, _: Path) -> bytes:
    return b""


def foreign(_: Path, other: Path) -> bytes:
    """That of another image, as it was kept."""
    return other.read_bytes()


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("change", [flipped, cut, empty, foreign])
def test_a_kept_image_that_is_not_what_was_kept_is_not_used(change: Callable[[Path, Path], bytes]) -> None:
    told = list[str]()
    monitor = Monitor(tell=told.append)
    evaluate(Linear(), DATA, "noise-linf", "4/255", attack_params={"tries": 1}, keep_images=True)
    assert larger(monitor).attrs["run"]["smaller_ball"] and not told
    path = kept(DATA.test.ids[0])
    path.write_bytes(change(path, kept(DATA.test.ids[1])))
    damaged = larger(monitor)
    (said,) = told
    assert said.startswith("1 attacked image of the smaller eps in ") and "was damaged or not of this sweep" in said
    assert damaged.attrs["run"]["warnings"][-1] == said
    path.unlink()
    gone = larger(monitor)
    assert gone.equals(damaged) and len(told) == 1 and said not in gone.attrs["run"]["warnings"]
