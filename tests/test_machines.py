"""Other people's machines: paths with ~, names that are not UTF-8, locales, devices, a notebook's environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from command_line import Run, on_tree, one_line
from conftest import MEAN, make_tree, small_data

import bench
from bench import ThreatModel, UserError
from bench.core.exact import read_number
from bench.core.threat import eps_text
from bench.system.cache import cache_folder
from bench.system.provenance import choose_device

pytestmark = pytest.mark.usefixtures("own_cache")


def python(*arguments: str, given: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process with this environment; a name that is not UTF-8 is printed in escapes."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
        env={**os.environ, **environment},
        timeout=120,
    )


def test_home_is_expanded_where_the_shell_does_not(
    run_cli: Run, tree: Path, plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ("--detector=~/mine.py:Mean", "--data-root=~/images/widget", "--results=~/results")
    assert run_cli("run", *words, "--dataset", "folder", "--image-size", 16)[0] == 0
    assert run_cli("report", "--results=~/results", "--out=~/report")[0] == 0
    assert run_cli("submit", "~/results", "--out=~/s.zip")[0] == 0
    assert (tmp_path / "report/LEADERBOARD.md").is_file() and (tmp_path / "s.zip").is_file()
    assert len(bench.load_results("~/results")) == 1
    data = bench.load_data("folder", category="widget", root="~/images/widget", image_size=16)
    rows = bench.evaluate("~/mine.py:Mean", data, eps=2 / 255, results="~/results")
    assert rows.attrs["folder"] == str(next((tmp_path / "results").rglob("run.json")).parent)
    assert not (tmp_path / "~").exists()


def test_a_home_that_nobody_has(run_cli: Run) -> None:
    code, _, err = run_cli("report", "--results=~nobody-of-that-name/x")
    assert code == 2 and "no such home folder" in one_line(err)


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16, 0.5, 1.5, 100, 254.5])
def test_a_float_of_grey_levels_is_their_fraction(k: float) -> None:
    assert read_number(k / 255) == Fraction(int(2 * k), 510)
    assert ThreatModel("linf", k / 255) == ThreatModel("linf", f"{k:g}/255")
    assert eps_text(ThreatModel("linf", k / 255).eps) == eps_text(ThreatModel("linf", f"{k:g}/255").eps)


@pytest.mark.parametrize("value", [0.03, 0.031372549, 0.1, 0.2, 0.123456789, 1e-9, 1.0])
def test_another_float_is_what_its_text_says(value: float) -> None:
    assert read_number(value) == Fraction(repr(value))


def test_the_neighbours_of_a_grey_level_are_none() -> None:
    import math

    for value in (math.nextafter(8 / 255, 0), math.nextafter(8 / 255, 1)):
        assert read_number(value) == Fraction(repr(value))
    assert read_number(repr(8 / 255)) == Fraction(repr(8 / 255))  # text is exact


@pytest.mark.parametrize("name", ["mps", "quantum", "", "meta", "cuda:99", "xla", "hip", "cpu:x", "cuda:-1", "gpu"])
def test_a_device_that_is_not_here(run_cli: Run, tree: Path, plugin: str, results: Path, name: str) -> None:
    code, _, err = run_cli("run", "--detector", plugin, *on_tree(tree, results), "--device", name)
    said = one_line(err)
    assert code == 2 and "cannot be used here" in said and "expected auto, cpu" in said
    assert len(said) < 300
    assert not results.exists()


class Asking(bench.Detector):
    """Notes whether convolutions and matrix products may be rounded to TF32 while it is asked for a score."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded: set[bool] = set()

    def fit(self, normal: Iterable[torch.Tensor]) -> None:
        """There is nothing to learn."""

    def score(self, x: torch.Tensor, rng: bench.Rng | None = None) -> torch.Tensor:
        self.rounded |= {torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32}
        return x.flatten(1).mean(1)


def test_float32_is_float32_on_a_gpu_too(tf32_is_allowed: None) -> None:
    """AdvRAD failed the check `rows` on five of seven categories on an H200: cuDNN had taken TF32."""
    detector = Asking()
    bench.evaluate(detector, small_data(), "noise-linf", eps="2/255")
    assert detector.rounded == {False}


def test_so_it_is_for_whatever_is_put_on_a_device(tf32_is_allowed: None) -> None:
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def tf32_is_allowed() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_a_report_under_the_settings_of_a_notebook(run_cli: Run, tree: Path, plugin: str, results: Path) -> None:
    assert run_cli("run", "--detector", plugin, *on_tree(tree, results))[0] == 0
    backend = "module://a_backend_that_is_not_installed"
    done = python("-m", "bench.cli", "report", "--results", str(results), MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert list(results.glob("*.png"))


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff"), os.fsdecode("größe".encode())])
@pytest.mark.parametrize("environment", [{}, C_LOCALE])
def test_names_that_a_record_cannot_hold(tmp_path: Path, plugin: str, name: str, environment: dict[str, str]) -> None:
    """One line, or it works: never a traceback."""
    try:
        tree = make_tree(tmp_path / name)
        (tree / "test/good/000.png").rename(tree / f"test/good/{name}.png")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    command = ("-m", "bench.cli", "run", "--detector", plugin, *map(str, on_tree(tree, tmp_path / "results")))
    done = python(*command, **environment)
    assert "Traceback" not in done.stderr
    if name.isprintable() and not environment:
        assert done.returncode == 0
        name_there = tmp_path / f"results {name}"
        (tmp_path / "results").rename(name_there)
        for words in (("report", "--results"), ("verify",)):
            done = python("-m", "bench.cli", *words, str(name_there), **C_LOCALE)
            assert "Traceback" not in done.stderr and done.returncode in (0, 2)
    else:
        assert done.returncode == 0 or "PYTHONUTF8=1" in one_line(done.stderr)


def test_a_results_folder_whose_name_is_not_utf_8(
    run_cli: Run, tree: Path, plugin: str, results: Path, tmp_path: Path
) -> None:
    assert run_cli("run", "--detector", plugin, *on_tree(tree, results))[0] == 0
    try:
        there = results.rename(tmp_path / os.fsdecode(b"results \xff"))
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    code, _, err = run_cli("report", "--results", there)
    assert code == 0 or "not UTF-8" in one_line(err)


def test_a_plugin_whose_file_name_is_not_utf_8(run_cli: Run, tree: Path, results: Path, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"m\xff.py")
    try:
        file.write_text(MEAN, encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    code, _, err = run_cli("run", "--detector", f"{file}:Mean", *on_tree(tree, results))
    assert code == 0 or "not UTF-8" in one_line(err)


def test_images_from_python_with_names_that_are_not_utf_8() -> None:
    data = small_data()
    first, *others = data.test.records
    test = bench.TestSet([bench.Record(os.fsdecode(b"\xff"), first.source), *others], 8)
    with pytest.raises(UserError, match="is not UTF-8: rename it"):
        bench.Data("small", "one", 8, data.train, test)


FROM_STDIN = f"""
{MEAN}
import bench
data = bench.load_data("folder", category="widget", root=ROOT, image_size=16)
detector = Mean()
detector.fit([data.train.images(range(len(data.train)))])
print(bench.evaluate(detector, data, results=RESULTS).metrics["clean_auroc"])
"""


def test_code_from_stdin(tree: Path, results: Path) -> None:
    code = FROM_STDIN.replace("ROOT", repr(str(tree))).replace("RESULTS", repr(str(results)))
    done = python("-", given=code)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout.splitlines()[-1]) <= 1


@pytest.mark.parametrize("home", ["/dev/null/nowhere", ""])
def test_a_home_that_cannot_be_written(tree: Path, plugin: str, results: Path, home: str) -> None:
    command = ("-m", "bench.cli", "run", "--detector", plugin, *map(str, on_tree(tree, results)))
    environment = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "HOME")}
    environment["XDG_CACHE_HOME"] = "/dev/null/x" if not home else ""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env={**environment, "HOME": home}
    )
    assert done.returncode == 2
    assert "XDG_CACHE_HOME" in one_line(done.stderr)


def test_nobody_knows_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~nobody-of-that-name/{name}")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both"])
def test_a_closed_output(run_cli: Run, tree: Path, plugin: str, results: Path, closed: str) -> None:
    shell = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-"}[closed]
    words = ["-m", "bench.cli", "run", "--detector", plugin, *map(str, on_tree(tree, results))]
    command = ["/bin/sh", "-c", f'"$@" {shell}; exit $?', "sh", sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr + done.stdout
    assert list(results.rglob("run.json"))
