"""Seeded nonsense: whatever a file or a word holds, there is a result, or one sentence; no traceback, no hang."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shutil
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Linear, small_data
from stored_cells import first, three_cells

import bench
from bench import ThreatModel, UserError
from bench.audit.rebuild import Overrides
from bench.audit.submit import submit
from bench.audit.verify import verify
from bench.cells.filters import Filters
from bench.cells.reader import find_cells
from bench.cells.submission import cells_in
from bench.cli import parse
from bench.core.norms import NORMS
from bench.core.parameters import parse_assignments
from bench.core.threat import eps_text, parse_eps
from bench.harness.certify import parse_radius
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec
from bench.plugins.lookup import find_attack, make_attack
from bench.system.files import safe_name

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's, of 1e308 and the like
]

QUICK, SLOW = 50, 800  # inputs of each of the seven kinds
PATIENCE = 20  # seconds; what is slower hangs

WEIRD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**9, -(10**18), 10**30, 10**400, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"),
    float("inf"), float("-inf"), "", " ", "a", "0", "nan", "2/255", "1/0", "../../x", "/etc/passwd", "mine.py",
    "mine.py:X", "ü", "\u202e", "\x00", "\ud800", "\n", "x" * 5000, "%s", "{}", "<b>", "=cmd", [], [[]], {}, [None],
    {"a": {}}, [1, 2], {"": None}, "1e999", "٣", "\uff11", "0x10", "1_0", "+", "-", "~nobody/x", "None", "none", "all",
)  # fmt: skip
LETTERS = "0123456789./eE+-_ ,:=()[]'\"\\\n\t\x00abcxπ٣\uff5e\ud800😀*?"


def text(rng: random.Random, longest: int = 30) -> str:
    """Half of the time of a few words, which go deeper than noise does."""
    if rng.random() < 0.5:
        return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(longest)))
    words = [*map(str, WEIRD[13:]), "linf", "l2", "l0", "pgd", "pgd-linf", "patchcore", "smoothed", "255", "1", "2"]
    return "".join(rng.choice(words) + rng.choice(("", "/", "+", "-", ":", ",", " ", "=")) for _ in range(3))


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Fails what does not come back."""
    if not hasattr(signal, "setitimer"):  # elsewhere the suite itself would hang, and be seen
        yield
        return

    def hangs(*_: object) -> None:
        raise TimeoutError(f"no answer within {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def clean(act: Callable[[], object], shown: Callable[[], str]) -> None:
    """A result, or what the command line makes one line of."""
    try:
        with patient():
            act()
    except (UserError, click.UsageError):
        return
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {str(error)[:300]} of {shown()[:600]}")


def mutated(rng: random.Random, value: Any) -> Any:
    """JSON with one thing in it that is another one, gone, or new."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice((*WEIRD, text(rng)))
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    new = value.copy()
    what = rng.random()
    if what < 0.1:
        del new[key]
    elif what < 0.15 and isinstance(new, dict):
        new[text(rng)] = rng.choice(WEIRD)
    else:
        new[key] = mutated(rng, value[key])
    return new


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with some of them changed, cut out, or there twice."""
    at, far = rng.randrange(len(content)), rng.randrange(1, 40)
    new = rng.choice(
        (rng.randbytes(far), b"", content[at : at + far] * 2, rng.choice((b"\xff", b"\0", b"1e999", b",\n")))
    )
    return content[:at] + new + content[at + rng.choice((0, far)) :]


def read_and_judged(root: Path) -> None:
    """As `report` and `verify` read it."""
    for r in find_cells(root).results:
        assert r.metrics
    for folder in sorted(path.parent for path in root.rglob("run.json")):
        with contextlib.suppress(UserError):
            list(verify(folder, Overrides(), scores=False))


def record_of_a_cell(rng: random.Random, folder: Path) -> None:
    path = folder / "run.json"
    before = path.read_bytes()
    changed: Any = json.loads(before)
    for _ in range(rng.randrange(1, 3)):
        changed = mutated(rng, changed)
    new = damaged(rng, before) if rng.random() < 0.2 else json.dumps(changed).encode()
    path.write_bytes(new)
    clean(lambda: read_and_judged(folder), lambda: repr(new))
    path.write_bytes(before)


def rows_of_a_cell(rng: random.Random, folder: Path) -> None:
    """With the hash that fits them, as who wants to be believed would write it."""
    table, record = folder / "samples.csv", folder / "run.json"
    before = table.read_bytes(), record.read_bytes()
    lines = [line.split(",") for line in before[0].decode().splitlines()]
    for _ in range(rng.randrange(1, 4)):
        line = rng.choice(lines)
        line[rng.randrange(len(line))] = text(rng) if rng.random() < 0.3 else str(rng.choice(WEIRD))
    content = "\n".join(map(",".join, lines)).encode("utf-8", "surrogatepass")
    content = damaged(rng, before[0]) if rng.random() < 0.3 else content
    table.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    record.write_text(json.dumps({**json.loads(before[1]), "samples_sha256": digest}), encoding="utf-8")
    clean(lambda: read_and_judged(folder), lambda: repr(content))
    table.write_bytes(before[0])
    record.write_bytes(before[1])


def eps(rng: random.Random, _: Path) -> None:
    value: Any = rng.choice((text(rng), rng.choice(WEIRD), rng.random() * 10 ** rng.randrange(-12, 12)))
    value = rng.choice((value, f"{rng.randrange(600)}/{rng.randrange(600)}", Fraction(rng.randrange(99), 510)))
    norm = rng.choice(list(NORMS))

    def act() -> None:
        parse_radius(value)
        exact = parse_eps(value, norm)
        assert parse_eps(eps_text(exact), norm) == exact
        ThreatModel(norm, value).refuse_longer(32)
        assert safe_name(eps_text(exact).replace("/", "_"))

    clean(act, lambda: f"{norm} {value!r}")


def parameters(rng: random.Random, _: Path) -> None:
    name, attack = rng.choice(
        (("patchcore", "pgd-linf"), ("autoencoder", "square-l2"), ("smoothed+spade", "worst-linf"))
    )
    known = [*DetectorSpec(name).accepted, *vars(make_attack(attack)[2]), text(rng)]
    value = rng.choice((rng.choice(WEIRD), text(rng)))
    given = {rng.choice(known): value}
    clean(lambda: parse_assignments([f"{next(iter(given))}={value}", text(rng)]), lambda: repr(given))
    # a bank of 10**9 vectors may be asked for: parameters are read, no detector is built of them
    clean(lambda: DetectorSpec(name, given).changed, lambda: f"{name} {given!r}")
    clean(lambda: make_attack(attack, given), lambda: f"{attack} {given!r}")


def names(rng: random.Random, _: Path) -> None:
    name = text(rng, 12)
    for kind in registry.KINDS:
        clean(lambda kind=kind: registry.load(kind, name), lambda: repr(name))  # type: ignore[misc]
    clean(lambda: find_attack(name), lambda: repr(name))
    clean(lambda: DetectorSpec(name).label, lambda: repr(name))
    clean(lambda: Filters(f"{rng.choice(('eps', 'detector', 'x'))}={name}"), lambda: repr(name))
    safe = safe_name(name)
    assert safe and "/" not in safe and not safe.startswith(".") and len(safe.encode()) < 256
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        words = [
            "run",
            "--detector",
            name,
            rng.choice(("--eps", "--seed", "--limit", "--param", "--device", name)),
            name,
        ]
        clean(lambda: parse(words), lambda: repr(words))


def zips(rng: random.Random, folder: Path) -> None:
    whole = (folder.parent / "whole.zip").read_bytes()
    path = folder.parent / "changed.zip"
    if rng.random() < 0.5:
        path.write_bytes(damaged(rng, whole) if rng.random() < 0.9 else rng.randbytes(rng.randrange(200)))
    else:
        shutil.copy(folder.parent / "whole.zip", path)
        with zipfile.ZipFile(path, "a") as archive:
            name = rng.choice((text(rng), *archive.namelist())).replace("\x00", "").replace("\ud800", "") or "x"
            info = zipfile.ZipInfo(name)
            info.external_attr = rng.choice((0, 0o120777 << 16, 0o100644 << 16, 0o20644 << 16, 2**32 - 1))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name that is there twice
                archive.writestr(info, rng.randbytes(rng.randrange(100)))
    before = sorted(folder.parent.iterdir())

    def act() -> None:
        for place in cells_in(path):
            with contextlib.suppress(UserError):
                list(verify(place.folder, Overrides(), scores=False))
        find_cells(folder.parent)

    clean(act, lambda: repr(path.read_bytes()[-300:]))
    assert sorted(folder.parent.iterdir()) == before
    path.unlink()


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a finished cell of each kind, and with a submission of it beside it."""
    root = tmp_path_factory.mktemp("fuzz")
    attack = shutil.copytree(first(three_cells(root / "made")), root / "attack/d/c/m/pgd-linf-2_255")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        bench.certify(Linear(), small_data(), samples=150, alpha=0.05, radius=0.05, results=root / "certified")
        bench.evaluate(Linear(), small_data(), results=root / "submitted/results", attack="noise-linf")
    packed = next((root / "submitted").rglob("run.json")).parent
    assert list(submit(packed, root / "submitted/whole.zip"))
    return {"attack": attack, "certificate": first(root / "certified"), "zip": root / "submitted/results"}


KINDS: dict[str, tuple[Callable[[random.Random, Path], None], str]] = {
    "records": (record_of_a_cell, "attack"), "records of certificates": (record_of_a_cell, "certificate"),
    "rows": (rows_of_a_cell, "attack"), "eps": (eps, ""), "parameters": (parameters, ""), "names": (names, ""),
    "zips": (zips, "zip"),
}  # fmt: skip


def tried(kind: str, cells: dict[str, Path], seeds: range) -> None:
    attempt, folder = KINDS[kind]
    for seed in seeds:
        attempt(random.Random(f"{kind} {seed}"), cells.get(folder, Path()))


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense(kind: str, cells: dict[str, Path]) -> None:
    tried(kind, cells, range(QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_nonsense(kind: str, cells: dict[str, Path]) -> None:
    tried(kind, cells, range(QUICK, QUICK + SLOW))
