"""The README is true: its example works as typed, its commands are those that CI runs."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import COMMANDS, parse

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in b]
    return str(found)


def test_the_example_detector_works_as_typed(
    run_cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(block("python", "class PCA"), encoding="utf-8")
    code, out, err = run_cli("check-detector", "mine.py:PCA")
    assert code == 0, out + err
    code, out, err = run_cli("run", "--detector", "mine.py:PCA", "--eps", "2/255", "--limit", "8")
    assert code == 0 and "PCA" in out, err


def test_the_commands_of_a_submission_run_in_their_order(
    run_cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(block("python", "class PCA"), encoding="utf-8")
    commands = [*block("bash", "bench submit").splitlines(), *block("bash", "bench verify pca.zip").splitlines()]
    assert [command.split()[1] for command in commands] == ["check-detector", "run", "verify", "submit", "verify"]
    for command in commands:
        arguments = command.removeprefix("bench ").replace("standard-linf", "pgd-linf").split()  # in seconds
        code, out, err = run_cli(*arguments, *["--limit", "8"] * (arguments[0] == "run"))
        assert code == 0, (command, out, err)
    assert out.count("pass    metrics: ") == 3  # a cell for each texture


def test_the_python_example_works_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = block("python", "import bench\n").splitlines()
    script = "\n".join(line for line in lines if "load_results" not in line)  # nothing is written here
    (tmp_path / "script.py").write_text(script.replace('"steps": 100', '"steps": 5'), encoding="utf-8")
    rows = runpy.run_path("script.py")["rows"]
    assert "robust AUROC" in repr(rows)
    assert list(rows.columns[:6]) == ["id", "label", "clean", "worst", "distance", "rounded"]


def test_ci_runs_the_readme_test_command() -> None:
    install, test = block("bash", "[dev]").strip().split(" && ")
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert test in ci.splitlines()
    assert install.removeprefix("pip install ") in ci


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/README.md"]
STANDS_FOR_SOMETHING = re.compile(r"`bench [a-z-]+`|`bench certify --norm linf`")
"""A command that a sentence names without what it needs."""


def commands_of(page: str) -> list[str]:
    """Every command in the blocks of a page, and those in its sentences that are complete."""
    blocks = "".join(re.findall(r"```bash\n(.*?)```", page, re.S)).replace("\\\n", " ")
    typed = re.findall(r"(?<![\w/$-])bench [a-z-]+[^\n#&`;]*", blocks)
    named = re.findall(r"`bench [^`]+`", re.sub(r"```.*?```", "", page, flags=re.S))
    named = [" ".join(text.split()) for text in named]  # a sentence may break its line inside a command
    return [*typed, *(text.strip("`") for text in named if not STANDS_FOR_SOMETHING.fullmatch(text))]


def test_every_command_of_the_pages_parses() -> None:
    commands = [command for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))]
    requests = [parse(shlex.split(command.replace("--sigma S", "--sigma 0.25"))[1:]) for command in commands]
    assert None not in requests and {command.split()[1] for command in commands} == set(COMMANDS)
