"""Finding things by name: our folders, entry points of other packages, and files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import UserError
from bench.plugins import registry

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


def test_the_code_of_a_detector_is_its_file_and_what_that_imports(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from ._near import x\n")
    (tmp_path / "_near.py").write_text("from ._far import x\n")
    (tmp_path / "_far.py").write_text("x = 1\n")
    (tmp_path / "_other.py").write_text("y = 1\n")

    def code() -> str:
        registry._parsed.cache_clear()
        return registry._code_hash(tmp_path / "mine.py", helpers=True)

    before = code()
    (tmp_path / "_other.py").write_text("y = 2\n")
    assert code() == before
    (tmp_path / "_far.py").write_text("x = 2\n")
    assert code() != before
