"""What lies around the code: packages, workflows, guides, the changelog, the citation."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Linear, small_data

from bench import evaluate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
TOML = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, BUILD = TOML["project"], TOML["tool"]["setuptools"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PACKAGES = {"pip": "pip", "mkdocs": "mkdocs"}
"""Command of a workflow -> the package that brings it."""


def workflow(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def steps(found: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in found["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_of_a_workflow_exists(path: Path) -> None:
    found = workflow(path.stem)
    commands = [step["run"] for step in steps(found) if "run" in step]
    for command in commands:
        assert "${{" not in command, "what somebody else wrote would be a part of the command"
        words = [word.removeprefix("ours/").removeprefix("./") for word in shlex.split(command)]
        if words[0] == "python" and words[1] == "-m":
            assert words[2] in ("pip", "build")
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), command
        elif words[0] in PACKAGES:
            assert importlib.metadata.version(PACKAGES[words[0]])
        else:
            assert (ROOT / words[0]).is_file() and (ROOT / words[0]).stat().st_mode & 0o100, command
    assert commands
    assert set(re.findall(r"\.\[([a-z]+)\]", " ".join(commands))) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_little_else(path: Path) -> None:
    found = workflow(path.stem)
    triggers = found[True]  # `on` is true in YAML 1.1
    assert found["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in triggers and "secrets" not in path.read_text(encoding="utf-8").split("jobs:")[1]
    more = {name for name, job in found["jobs"].items() if "permissions" in job}
    assert more <= {"deploy"}
    for step in steps(found):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_workflows_run_what_ci_runs_on_the_pythons_that_are_promised() -> None:
    tests = workflow("tests")["jobs"]["tests"]
    assert [step["run"] for step in tests["steps"] if "run" in step] == [".ci/run"]
    assert PROJECT["requires-python"] == f">={tests['strategy']['matrix']['python'][0]}"


def test_code_of_a_pull_request_is_not_run_on_its_submission() -> None:
    checkouts = [step["with"] for step in steps(workflow("submissions")) if "checkout" in step.get("uses", "")]
    assert [(c["path"], c["ref"]) for c in checkouts] == [
        ("ours", "${{ github.event.pull_request.base.sha }}"),
        ("theirs", "${{ github.event.pull_request.head.sha }}"),
    ]
    commands = [step["run"] for step in steps(workflow("submissions")) if "run" in step]
    assert commands[0] == "pip install ./ours"
    assert all(command.startswith("python ours/.ci/submissions.py ours theirs") for command in commands[1:])


def test_every_folder_of_code_is_in_the_wheel_and_below_bench() -> None:
    folders = {path.parent for path in (ROOT / "bench").rglob("__init__.py")}
    code = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(BUILD["packages"]) == code | set(BUILD["package-dir"])
    assert all(name.split(".")[0] == "bench" for name in BUILD["packages"])
    assert all((ROOT / folder / "__init__.py").is_file() for folder in BUILD["package-dir"].values())


def test_a_wheel_that_claims_more_or_lacks_something_is_found() -> None:
    packages = runpy.run_path(str(ROOT / ".ci/packages.py"))
    tracked = ["bench/run.py", "detectors/pca.py", "tests/test_run.py"]
    whole = ["bench/run.py", "bench/detectors/pca.py", "adv_anomaly_bench-1.dist-info/METADATA"]
    assert packages["of_wheel"](whole, tracked) == []
    assert packages["of_wheel"]([*whole, "detectors/pca.py"], tracked) == ["the wheel claims bench, detectors"]
    assert packages["of_wheel"](whole[:1], tracked) == ["the wheel lacks bench/detectors/pca.py"]
    assert packages["of_sdist"](["a-1/bench/run.py", "a-1/detectors/pca.py"], tracked) == [
        "the sdist lacks tests/test_run.py"
    ]


@pytest.fixture
def checkouts(tmp_path: Path) -> tuple[Path, Path]:
    """Of a leaderboard with one cell and one submission, and of a pull request that changes nothing."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    (ours / "results/published/submissions").mkdir(parents=True)
    (ours / "results/published/run.json").write_text("{}")
    (ours / "results/published/submissions/old.zip").write_bytes(b"old")
    shutil.copytree(ours, theirs)
    return ours, theirs


def submissions(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["submissions.py", *map(str, arguments)])
    return int(runpy.run_path(str(ROOT / ".ci/submissions.py"))["main"]())


def test_a_pull_request_that_ranks_itself_is_refused(
    checkouts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = checkouts[1] / "results/published"
    assert submissions(monkeypatch, *checkouts) == 0
    (theirs / "run.json").write_text("{ }")
    (theirs / "submissions/old.zip").unlink()
    (theirs / "submissions/new.zip.reproduced.json").write_text("{}")
    (theirs / "submissions/link.zip").symlink_to("/etc/hostname")
    (theirs / "new.zip").write_bytes(b"")
    assert submissions(monkeypatch, *checkouts) == 1
    refused = re.findall(r"^FAIL    '(\S+)'", capsys.readouterr().out, re.M)
    assert refused == [
        "results/published/new.zip",
        "results/published/run.json",
        *(f"results/published/submissions/{name}" for name in ("link.zip", "new.zip.reproduced.json", "old.zip")),
    ]
    assert submissions(monkeypatch, *checkouts, "--owner") == 0


def test_a_submission_is_verified(
    checkouts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = checkouts[1] / "results/published/submissions"
    with zipfile.ZipFile(folder / "-x.zip", "w") as file:
        file.writestr("evil.py", "")
    assert submissions(monkeypatch, *checkouts, "--owner") == 1
    captured = capfd.readouterr()
    assert "is not a submission" in captured.err


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_of_the_guide_reaches_the_best_image_of_a_linear_score(norm: str, tmp_path: Path) -> None:
    guide = (ROOT / "docs/your_attack.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    (tmp_path / "climb.py").write_text(code, encoding="utf-8")
    (command,) = re.findall(r"^bench run .*climb\.py.*", guide, re.M)
    assert "climb.py:Climb-linf" in command and "--attack-param Climb.steps=" in command
    rows = evaluate(detector := Linear(), small_data(), f"{tmp_path / 'climb.py'}:Climb-{norm}", eps="2/255")
    length = detector.weight.abs().sum() if norm == "linf" else detector.weight.norm()
    gains = (rows["worst"] - rows["clean"]).abs()  # no pixel of these images is near 0 or 1
    assert gains.tolist() == pytest.approx([2 / 255 * float(length)] * len(rows), rel=1e-3)


def test_the_changelog_and_the_citation_are_of_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = PROJECT["version"]
    first, *others = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", changes, re.M)
    assert first == ("Unreleased", "") and others[0][0] == version and all(date for _, date in others)
    kinds = set(re.findall(r"^### (.*)", changes, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", version)
    assert str(cited["date-released"]) == others[0][1] and {"message", "title", "authors"} <= set(cited)


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_a_form_of_an_issue_asks_for_something(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    kinds = {field["type"] for field in form["body"]}
    assert kinds <= {"markdown", "input", "textarea", "dropdown", "checkboxes"} and kinds - {"markdown"}
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids) and all(field["attributes"]["label"] for field in form["body"])


def test_pages_link_only_to_what_is_there_on_github() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += [*(ROOT / "docs").glob("*.md"), ROOT / "results/README.md", ROOT / "benchmarks/README.md"]
    broken = []
    for page in pages:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
            if ":" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
