"""Every check is explained, in the docs as in the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from planted import Run

from bench.cells import bracket
from bench.checks import of_attack as beliefs
from bench.checks import of_detector as checks
from bench.checks.explanations import CELL, CERTIFICATE, DETECTOR, EXPLAINED, MAPS, SHIFTS, markdown
from bench.checks.of_certificate import CHECKS as CERTIFICATE_CHECKS
from bench.checks.of_map import CHECKS as MAP_CHECKS

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "checks.md").read_text(encoding="utf-8")


def test_every_check_is_explained_once_and_in_the_docs() -> None:
    assert {"fit", *checks.CHECKS} == set(DETECTOR)
    assert list(beliefs.CHECKS) == list(CELL)
    assert [*CERTIFICATE_CHECKS, bracket.CHECK] == list(CERTIFICATE)
    assert list(MAP_CHECKS) == list(MAPS)
    assert len(EXPLAINED) == len(DETECTOR) + len(CELL) + len(CERTIFICATE) + len(MAPS) + len(SHIFTS)
    assert re.findall(r"^### (.+)$", DOCS, re.M) == list(EXPLAINED)
    assert all(markdown(part) in DOCS for part in (DETECTOR, CELL, CERTIFICATE, MAPS, SHIFTS))
    assert all(part.strip() for explained in EXPLAINED.values() for part in explained)


def test_every_pitfall_has_an_answer_that_exists() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (checked|by design|not covered): (.+?) \|$", DOCS, re.M)
    assert [int(number) for number, *_ in rows] == list(range(1, 41))
    tests = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    for _, _, kind, answer in rows:
        named = re.findall(r"`([^`]+)`", answer)
        if kind == "checked":
            assert any(name in EXPLAINED or name.partition("::")[0] in tests for name in named), answer
        for name in named:
            file, _, test = name.partition("::")
            if file.endswith(".py"):
                assert f"def {test}(" in tests[file], name


def test_checks_are_listed(run_cli: Run) -> None:
    code, out, _ = run_cli("list", "checks")
    assert code == 0 and all(f"\n{name}\n  raised if" in f"\n{out}" for name in EXPLAINED)
    code, out, _ = run_cli("list", "checks", "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)] == list(EXPLAINED)
