"""A broken detector is one line and exit code 2; the healthy ones beside it finish, with their rows."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from broken_plugins import ATTACKS, HANGS, HARMLESS, HARMLESS_ATTACKS, KINDS, QUICK
from command_line import Run, on_tree, one_line
from conftest import MEAN

pytestmark = pytest.mark.usefixtures("own_cache")


def written(folder: Path, sources: Mapping[str, str]) -> dict[str, str]:
    """Kind -> the detector as it is typed; each has a name of its own."""
    folder.mkdir()
    typed = {}
    for i, (kind, source) in enumerate(sources.items()):
        (folder / f"broken{i}.py").write_text(source.replace("Broken", f"Broken{i}"), encoding="utf-8")
        typed[kind] = f"{folder}/broken{i}.py:Broken{i}"
    return typed


def run_beside_a_healthy_one(
    run_cli: Run, tmp_path: Path, tree: Path, sources: Mapping[str, str], *more: object
) -> tuple[int, dict[str, list[str]], set[str]]:
    """The exit code; kind -> its lines, each without `bench:`; the names of the detectors with rows.

    Mean goes last, when everything that could be broken is.
    """
    (tmp_path / "healthy.py").write_text(MEAN, encoding="utf-8")
    mean, alone = f"{tmp_path}/healthy.py:Mean", tmp_path / "alone"
    attack = ("--attack", "noise-linf", "--batch-size", 1)
    assert run_cli("run", "--detector", mean, *attack, *on_tree(tree, alone))[0] == 0
    typed, results = written(tmp_path / "broken", sources), tmp_path / "results"
    names = ",".join([*typed.values(), mean])
    code, _, err = run_cli("run", "--detector", names, *attack, "--force", *more, *on_tree(tree, results))
    assert "Traceback" not in err, err
    lines = [line.removeprefix("bench: ") for line in err.splitlines() if line.startswith("bench: ")]
    of = {kind: [line for line in lines if re.search(rf"\bBroken{i}\b", line)] for i, kind in enumerate(typed)}
    assert sum(map(len, of.values())) == len(lines), err
    found = {path.parts[-3].partition("-")[0]: path for path in results.rglob("samples.csv") if done(path)}
    assert found["Mean"].read_bytes() == next(alone.rglob("samples.csv")).read_bytes()
    return code, of, {*found}


def done(samples: Path) -> bool:
    return '"status": "finished"' in (samples.parent / "run.json").read_text(encoding="utf-8")


def read_rows(samples: Path) -> list[dict[str, str]]:
    with samples.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def each_is_one_line(run_cli: Run, tmp_path: Path, tree: Path, kinds: Mapping[str, tuple[str, str]]) -> None:
    sources = {kind: source for kind, (source, _) in kinds.items()}
    code, lines, finished = run_beside_a_healthy_one(run_cli, tmp_path, tree, sources)
    said = {kind: found for kind, found in lines.items() if len(found) != 1 or kinds[kind][1] not in found[0]}
    assert not said, "\n".join(f"{kind}: {found}" for kind, found in said.items())
    assert code == 2 and finished == {"Mean"}


def test_a_broken_detector_is_one_line_and_the_others_finish(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    each_is_one_line(run_cli, tmp_path, tree, QUICK)


@pytest.mark.slow
def test_every_kind_of_broken_detector(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    each_is_one_line(run_cli, tmp_path, tree, KINDS)


@pytest.mark.slow
def test_what_harms_nobody_but_itself_has_its_rows(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    code, lines, finished = run_beside_a_healthy_one(run_cli, tmp_path, tree, HARMLESS)
    assert code == 0 and not any(lines.values()), lines
    assert finished == {"Mean", *(f"Broken{i}" for i in range(len(HARMLESS)))}


@pytest.mark.slow
def test_what_never_ends_is_stopped(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    code, lines, finished = run_beside_a_healthy_one(run_cli, tmp_path, tree, HANGS, "--cell-timeout", 30)
    assert code == 2 and finished == {"Mean"}
    assert all(len(found) == 1 and "took longer than 30 s (--cell-timeout)" in found[0] for found in lines.values())


def attacked(
    run_cli: Run, tmp_path: Path, tree: Path, plugin: str, sources: Mapping[str, str]
) -> tuple[int, str, dict[str, Path]]:
    """The exit code, what was said, and the rows by attack: of the control, and of attacks that somebody wrote."""
    typed = [f"{typed}-linf" for typed in written(tmp_path / "broken", sources).values()]
    attacks, results = ",".join(["noise-linf", *typed]), tmp_path / "results"
    code, _, err = run_cli("run", "--detector", plugin, "--attack", attacks, *on_tree(tree, results))
    assert "Traceback" not in err, err
    rows = {path.parent.name.partition("-")[0]: path for path in results.rglob("samples.csv") if done(path)}
    return code, err, rows


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_broken_attack_is_one_line(run_cli: Run, tmp_path: Path, tree: Path, plugin: str, kind: str) -> None:
    source, says = ATTACKS[kind]
    code, err, rows = attacked(run_cli, tmp_path, tree, plugin, {kind: source})
    assert code == 2 and says in one_line(err)
    assert {*rows} <= {"noise"}


def test_what_an_attack_does_to_what_it_was_given_changes_no_row(
    run_cli: Run, tmp_path: Path, tree: Path, plugin: str
) -> None:
    code, err, rows = attacked(run_cli, tmp_path, tree, plugin, HARMLESS_ATTACKS)
    assert code == 0, err
    tables = {attack: read_rows(path) for attack, path in rows.items()}
    control = [(row["id"], row["clean"]) for row in tables.pop("noise")]
    assert len(tables) == len(HARMLESS_ATTACKS)
    for table in tables.values():
        assert [(row["id"], row["clean"]) for row in table] == control
        assert all(row["clean"] == row["worst"] for row in table)


def test_a_timeout_is_a_number_of_seconds(run_cli: Run, tmp_path: Path, tree: Path, plugin: str) -> None:
    for text in ("0", "-3", "soon"):
        command = ("run", "--detector", plugin, "--cell-timeout", text, *on_tree(tree, tmp_path / "results"))
        code, _, err = run_cli(*command)
        assert code == 2 and f"--cell-timeout {text} must be a number of seconds above 0" in err


def test_the_environment_and_the_folder_of_the_moment_are_those_of_the_cell(
    run_cli: Run, tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server from which processes are forked is older than both."""
    source = MEAN.replace("self.power = power", "self.power = int(__import__('os').environ['POWER'])")
    (tmp_path / "here.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("POWER", "3")
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("run", "--detector", "here.py:Mean", *on_tree(tree, Path("results")))
    assert code == 0, err
    (record,) = (tmp_path / "results").rglob("run.json")
    assert '"power": 3' in record.read_text(encoding="utf-8")
    assert os.environ["POWER"] == "3"


def test_in_process_means_the_same_rows(run_cli: Run, tmp_path: Path, tree: Path, plugin: str) -> None:
    found = []
    for name, more in (("apart", ()), ("here", ("--in-process", "--force"))):
        code, _, err = run_cli("run", "--detector", plugin, *more, *on_tree(tree, tmp_path / name))
        assert code == 0, err
        found.append(next((tmp_path / name).rglob("samples.csv")).read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["attack", "data set"])
def test_what_else_ends_its_process_is_named_before_any_work(
    run_cli: Run, tmp_path: Path, tree: Path, plugin: str, kind: str
) -> None:
    (tmp_path / "ends.py").write_text("import os; os._exit(5)", encoding="utf-8")
    option = {"attack": "--attack", "data set": "--dataset"}[kind]
    command = ("run", "--detector", plugin, *on_tree(tree, tmp_path / "results"), option, tmp_path / "ends.py")
    code, _, err = run_cli(*command)
    assert code == 2 and "ends.py: it ended its process with exit status 5" in one_line(err)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command", ["check-detector", "describe"])
@pytest.mark.parametrize(("line", "says"), [("os._exit(5)", "exit status 5"), ("raise SystemExit(3)", "SystemExit: 3")])
def test_what_ends_its_process_does_not_end_the_command(
    run_cli: Run, tmp_path: Path, command: str, line: str, says: str
) -> None:
    (tmp_path / "ends.py").write_text(f"import os\n{line}\n", encoding="utf-8")
    code, _, err = run_cli(command, f"{tmp_path}/ends.py:Ends")
    assert code == 2 and "ends.py:Ends: it " in one_line(err) and says in err
