"""`bench check-run`: are the sentences that a stored cell carries still true?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted import (
    Run,
    black_box,  # noqa: F401  a fixture
    failed,
)

from bench.cells.record import read_finished, read_record, read_rows
from bench.checks import of_attack as beliefs
from bench.checks import of_detector as checks


@pytest.fixture
def stored(tree: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "power").write_text("2", encoding="utf-8")
    code, _, err = run_cli(
        "run", "--detector", f"{tmp_path}/mine.py:Mean", "--dataset", "folder", "--data-root", tree, "--image-size", 16,
        "--results", tmp_path / "results", "--param", f"power={tmp_path}/power", "--eps", "4/255",
    )  # fmt: skip
    assert code == 0, err
    yield next((tmp_path / "results").rglob("run.json")).parent


PLUGIN = '''
from pathlib import Path
import torch
from bench import Detector

class Mean(Detector):
    """Distance to the mean normal image."""

    def __init__(self, power: Path = Path("power")):
        super().__init__()
        self.power = power
        self.exponent = int(Path(power).read_text())
        self.register_buffer("mean", torch.zeros(1))

    def fit(self, normal):
        self.mean = torch.cat(list(normal)).mean(0)

    def score(self, x):
        return (x - self.mean).abs().pow(self.exponent).flatten(1).sum(1)
'''


def options(stored: Path) -> tuple[object, ...]:
    root = stored.parents[4]
    return (
        "--data-root", root / "images/widget", "--detector", f"{root}/mine.py:Mean", "--param", f"power={root}/power",
    )  # fmt: skip


def rewrite(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps(record | changes), encoding="utf-8")


def test_check_run_repeats_what_is_stored(run_cli: Run, stored: Path) -> None:
    for path in (stored, stored / "run.json", stored.parents[2]):
        code, out, err = run_cli("check-run", path, *options(stored))
        lines = out.splitlines()
        failing = failed(read_record(stored).as_json())
        assert (code, err) == (int(bool(failing)), ""), out
        assert len(lines) == 1 + len(checks.OF_A_RUN) + len(beliefs.CHECKS)
        assert all(line.startswith(("pass", "FAIL")) for line in lines), out
        # the run had more of its images and calls in hand
        other = [line.split()[1:3] for line in lines if "stored:" in line]
        assert other == [["fresh", "process:"], ["followed:", "the"]], out
        assert lines[0].startswith("pass    stored rows: 12 clean scores, scored again, differ by 0.0e+00")


def test_check_run_says_what_changed(run_cli: Run, stored: Path) -> None:
    record = read_record(stored).as_json()
    for check in record["checks"]:
        if check["name"] == "signs":
            check |= {"passed": False, "sentence": "another sentence"}
    rewrite(stored, checks=record["checks"])
    code, out, _ = run_cli("check-run", stored, *options(stored))
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("changed")]
    assert line.startswith("changed signs: ") and line.endswith("(now pass, stored FAIL: another sentence)")


def test_check_run_finds_rows_that_are_not_the_detectors(run_cli: Run, stored: Path) -> None:
    import hashlib

    rows = read_rows(stored, read_finished(stored))
    from bench.cells.rows import to_csv

    text = to_csv([row._replace(clean=row.clean * 1.01) for row in rows])
    (stored / "samples.csv").write_text(text, encoding="utf-8")
    rewrite(stored, samples_sha256=hashlib.sha256(text.encode()).hexdigest())
    code, out, _ = run_cli("check-run", stored, *options(stored))
    assert code == 1
    assert re.search("^FAIL    stored rows", out, re.M) and re.search("^changed clean", out, re.M)


def test_check_run_says_in_one_line_what_it_cannot_do(run_cli: Run, stored: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        code, out, err = run_cli("check-run", *arguments)
        assert code == 2 and not out and len(err.splitlines()) == 1, (code, out, err)
        return err

    root, (_, data, _, plugin, _, power) = stored.parents[4], options(stored)
    assert "expected a cell's folder" in refused(tmp_path / "nothing")
    assert "there is no run.json in it" in refused(root / "images")
    assert "no detector named 'Mean'" in refused(stored, "--data-root", data, "--param", power)
    without = refused(stored, "--data-root", data, "--detector", plugin)
    assert "parameter power was a file (sha256:" in without and "--param power=FILE" in without
    (root / "other").write_text("3", encoding="utf-8")
    assert "the parameters of detector Mean changed" in refused(
        stored, "--data-root", data, "--detector", plugin, "--param", f"power={root}/other"
    )
    (root / "mine.py").write_text(PLUGIN.replace(".sum(1)", ".mean(1)"), encoding="utf-8")
    assert "the code of detector Mean changed" in refused(stored, *options(stored))
    (root / "mine.py").write_text(PLUGIN, encoding="utf-8")
    rewrite(stored, status="running")
    assert "is not finished" in refused(stored, *options(stored))
    rewrite(stored, schema=99)
    assert "written by another version" in refused(stored, *options(stored))
