"""`bench verify` on certificates: bounds are on their sides, and in order."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from stored_cells import Run, Verify, change_rows, record_of, verifier


@pytest.fixture
def verified(run_cli: Run, ran: Path) -> Verify:
    return verifier(run_cli, ran)


@pytest.fixture(scope="module")
def certified(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bench.cli import main

    results = tmp_path_factory.mktemp("certified")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ran)
        for goal in ("rank", "threshold"):
            code = main([
                "certify", "--detector", "mine.py:Mean", "--dataset", "folder", "--data-root", "images/widget",
                "--image-size", "16", "--radius", "0.05", "--samples", "150", "--alpha", "0.05", "--goal", goal,
                "--results", str(results),
            ])  # fmt: skip
            assert code == 0
    return results


def test_certificates_are_verified_too(
    certified: Path, run_cli: Run, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran)
    code, out, err = run_cli("verify", certified, "--detector", "smoothed+mine.py:Mean")
    assert (code, err) == (0, ""), out
    assert "pass    bounds: 12 bounds are in order" in out and "pass    bounds: 12 verdicts are verdicts" in out
    assert out.count("pass    metrics: ") == out.count("pass    code: ") == 2


def test_bounds_that_cannot_be(certified: Path, run_cli: Run, tmp_path: Path) -> None:
    import shutil

    def bounds(goal: str, **change: str) -> str:
        shutil.rmtree(tmp_path / "changed", ignore_errors=True)
        (source,) = (p.parent for p in certified.rglob("run.json") if record_of(p.parent)["spec"]["goal"] == goal)
        folder = Path(shutil.copytree(source, tmp_path / "changed"))
        change_rows(folder, lambda rows: rows[0].update(change))
        code, out, _ = run_cli("verify", folder)
        assert code == 1
        (line,) = [line for line in out.splitlines() if " bounds: " in line]
        return line

    assert "out of order" in bounds("rank", low="1000.0")
    assert "which is not its bound" in bounds("rank", worst="1000.0")
    assert "has radius 0.1, not 0.05" in bounds("rank", distance="0.1")
    assert "has the radius -1" in bounds("rank", certified_radius="-1.0")
    assert "which is none" in bounds("threshold", worst=repr(math.pi))
