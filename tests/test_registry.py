"""Finding things by name: our folders, entry points of other packages, and files."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from bench import UserError
from bench.plugins import registry, sources
from bench.plugins.origin import origin_of

PLUGIN = '''"""A detector of somebody else."""
from bench import Detector

class Bright(Detector):
    def fit(self, normal): pass
    def score(self, x): return x.mean((1, 2, 3))
'''


def test_what_is_built_in() -> None:
    assert {"advrad", "autoencoder", "patchcore"} <= set(registry.names("detectors"))
    assert "pgd" in registry.names("attacks")
    assert {"textures", "folder", "mvtec", "visa", "btad"} <= set(registry.names("datasets"))
    for kind in registry.KINDS:
        for row in registry.listing(kind):
            assert row.summary and row.where
            registry.load(kind, row.name)


@pytest.mark.parametrize(("kind", "typo", "near"), [("detectors", "pachcore", "patchcore"), ("attacks", "pdg", "pgd"),
                                                     ("datasets", "texture", "textures")])  # fmt: skip
def test_a_typo_gets_a_suggestion(kind: registry.Kind, typo: str, near: str) -> None:
    with pytest.raises(UserError, match=f"Did you mean '{near}'"):
        registry.load(kind, typo)


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    named, only = registry.load("detectors", f"{path}:Bright"), registry.load("detectors", str(path))
    assert named.name == "Bright" and only.target.__name__ == "Bright" and named.sha256 == only.sha256
    path.write_text(PLUGIN + "# changed\n")
    assert registry.load("detectors", str(path)).sha256 != named.sha256


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("mine.py:Brigth", PLUGIN, "Did you mean 'Bright'"), ("mine.py:Bright", "import nothing_like_it", "cannot import"),
     ("mine.py", "x = 1", "expected one detector class in the file, found none"),
     ("mine.py:Path", "from pathlib import Path", "expected a subclass of bench.Detector"),
     ("other.py:Bright", PLUGIN, "no file")],
)  # fmt: skip
def test_a_bad_file_is_said_in_one_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        registry.load("detectors", f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


def install(folder: Path, package: str, entry: str, code: str = PLUGIN) -> None:
    """A distribution on sys.path, as pip would leave it."""
    (folder / f"{package}.py").write_text(code)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bench.detectors]\n{entry}\n")


def test_an_entry_point_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "theirs", "bright = theirs:Bright")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.load("detectors", "bright").target.__name__ == "Bright"
    assert registry.Listed("bright", "theirs:Bright", "theirs 1.0") in registry.listing("detectors")


def test_two_packages_with_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "greedy", "advrad = greedy:Bright")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"2 packages claim the detector 'advrad': adv-anomaly-bench, greedy 1\.0"):
        registry.load("detectors", "advrad")


def test_an_entry_point_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "sad", "sad = sad:Bright", "raise RuntimeError('no licence found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="sad 1.0 cannot be imported: RuntimeError: no licence found"):
        registry.load("detectors", "sad")


def test_nothing_heavy_is_imported_to_list() -> None:
    import subprocess

    code = (
        "import sys, bench.cli; [bench.cli.main(['list', kind]) for kind in ('detectors', 'attacks', 'datasets')]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_family_is_its_members() -> None:
    names = registry.names("detectors")
    assert "anomalib:padim" in names and "anomalib" not in names
    rows = {row.name: row for row in registry.listing("detectors")}
    assert rows["anomalib:padim"].needs == "weights" and "Defard" in rows["anomalib:padim"].summary
    assert registry.load("detectors", "anomalib:padim").target.__name__ == "Padim"
    with pytest.raises(
        UserError, match="no detector of anomalib named 'anomalib:pading'. Did you mean 'anomalib:padim'"
    ):
        registry.load("detectors", "anomalib:pading")
    with pytest.raises(UserError, match="anomalib:padim"):
        registry.load("detectors", "anomalib")


def test_the_gradient_and_needs_that_are_listed_are_those_of_the_class() -> None:
    for row in registry.listing("detectors"):
        target = registry.load("detectors", row.name).target
        assert (row.differentiable, row.needs) == (target.differentiable, target.needs), row.name


def test_the_code_of_a_built_in_is_its_file_and_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from ._near import x\nimport other\n")
    (tmp_path / "_near.py").write_text("from . import _far\n")
    (tmp_path / "_far.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text("y = 1\n")
    code = sources.of_built_in(tmp_path / "mine.py").sha256
    (tmp_path / "other.py").write_text("y = 2\n")
    assert sources.of_built_in(tmp_path / "mine.py").sha256 == code
    (tmp_path / "_far.py").write_text("x = 2\n")
    assert sources.of_built_in(tmp_path / "mine.py").sha256 != code


HELPED = """
from bench import Detector
{imports}

class Bright(Detector):
    def fit(self, normal): pass
    def score(self, x): return SIGN * x.mean((1, 2, 3))
"""


def written(folder: Path, **files: str) -> Path:
    """`mine.py` and what lies beside it."""
    for name, code in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return folder / "mine.py"


def sign(path: Path) -> tuple[float, str]:
    """That of the score, and the hash of the code."""
    plugin = registry.load("detectors", f"{path}:Bright")
    return plugin.target().score(torch.ones(1, 3, 4, 4)).item(), plugin.sha256


@pytest.mark.parametrize(
    ("imports", "helper"),
    [
        ("from helper import SIGN", "helper"),
        ("import helper\nSIGN = helper.SIGN", "helper"),
        ("from .helper import SIGN", "helper"),
        ("from . import helper\nSIGN = helper.SIGN", "helper"),
        ("from near import SIGN", "far"),
        ("from .pkg.deep import SIGN", "pkg__deep"),
        ("from pkg.deep import SIGN", "pkg__deep"),
        ("import pkg.deep\nSIGN = pkg.deep.SIGN", "pkg__deep"),
    ],
)
def test_a_changed_helper_is_other_code_and_is_imported_anew(tmp_path: Path, imports: str, helper: str) -> None:
    """In one process, within a second, and with a file of the same size."""
    others = {"near": "from far import SIGN\n"} if helper == "far" else {}
    path = written(tmp_path, mine=HELPED.format(imports=imports), **{helper: "SIGN = 1\n"}, **others)
    first, before = sign(path)
    assert sign(path) == (first, before) and first == 1
    written(tmp_path, **{helper: "SIGN = 2\n"})
    second, after = sign(path)
    assert second == 2 and after != before
    written(tmp_path, unrelated="SIGN = 3\n")
    assert sign(path) == (second, after)
    written(tmp_path, **{helper: "SIGN = 1\n"})
    assert sign(path) == (first, before)
    assert str(tmp_path) not in sys.path and not list(tmp_path.rglob("__pycache__"))


def test_helpers_of_two_folders_may_have_one_name(tmp_path: Path) -> None:
    code = HELPED.format(imports="from helper import SIGN")
    one = written(tmp_path / "one", mine=code, helper="SIGN = 1\n")
    two = written(tmp_path / "two", mine=code, helper="SIGN = 2\n")
    assert [sign(path)[0] for path in (one, two, one, two)] == [1, 2, 1, 2]
    assert sign(one)[1] != sign(two)[1]


def test_plugins_of_one_folder_share_their_helpers_and_stay_what_they_are(tmp_path: Path) -> None:
    code = HELPED.format(imports="from helper import SIGN, Base").replace("(Detector)", "(Base)")
    helper = "from bench import Detector\nSIGN = 1\nclass Base(Detector): pass\n"
    one = written(tmp_path, mine=code, helper=helper)
    (tmp_path / "other.py").write_text(code)
    first, second = (registry.load("detectors", f"{p}:Bright").target for p in (one, tmp_path / "other.py"))
    assert first.__mro__[1] is second.__mro__[1]
    assert registry.load("detectors", f"{one}:Bright").target is first


def test_a_helper_that_hides_another_module_is_said_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, mine=HELPED.format(imports="from numpy import SIGN"), numpy="SIGN = 1\n")
    with pytest.raises(UserError, match="cannot import .*SIGN"):
        registry.load("detectors", str(path))
    written(tmp_path, mine=HELPED.format(imports="import numpy\nSIGN = 1"))
    with pytest.raises(UserError, match="was imported before under that name: rename one of them"):
        registry.load("detectors", str(path))
    assert sys.modules["numpy"].__file__ != str(tmp_path / "numpy.py")


def test_a_helper_that_fails_says_where(tmp_path: Path) -> None:
    path = written(tmp_path, mine=HELPED.format(imports="from helper import SIGN"), helper="def (:\n")
    with pytest.raises(UserError, match="cannot import .*SyntaxError") as caught:
        registry.load("detectors", str(path))
    assert "\n" not in str(caught.value)
    written(tmp_path, helper="SIGN = 1\n")
    assert sign(path)[0] == 1


def test_the_code_of_an_entry_point_is_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__": "",
        "deep__pca": HELPED.format(imports="from ..base import SIGN\nimport elsewhere"),
        "base": "from their_package.far import SIGN\n",
        "far": "SIGN = 1\n",
        "unused": "x = 1\n",
    }
    written(tmp_path / "their_package", **{name.replace("__init__", "_init"): code for name, code in files.items()})
    (tmp_path / "their_package/_init.py").rename(tmp_path / "their_package/__init__.py")
    (tmp_path / "elsewhere.py").write_text("x = 1\n")
    install(tmp_path, "theirs_2", "their-pca = their_package.deep.pca:Bright", "")
    monkeypatch.syspath_prepend(tmp_path)

    def code() -> str:
        return registry.load("detectors", "their-pca").sha256

    before = code()
    for name in ("unused", "../elsewhere"):
        (tmp_path / "their_package" / f"{name}.py").write_text("x = 2\n")
        assert code() == before
    for name in ("far", "base", "__init__"):
        (tmp_path / "their_package" / f"{name}.py").write_text("SIGN = 2\n")
        assert code() != before, name
        before = code()


def test_an_object_has_the_code_of_its_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, mine_object=HELPED.format(imports="from helper_object import SIGN"), helper_object="SIGN = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    built = importlib.import_module("mine_object").Bright()
    before = origin_of(built).code
    assert before == registry.load("detectors", f"{tmp_path}/mine_object.py:Bright").sha256
    written(tmp_path, helper_object="SIGN = 2\n")
    assert origin_of(built).code != before
