"""What a terminal and a notebook show: results, boards, what became of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from conftest import respec
from made_up import moved, random_scores, scored
from rich.console import Console

from bench.analysis.boards import boards
from bench.cells.reader import Results
from bench.cells.schema import CheckRecord
from bench.report.terminal import rich_table, run_table


def test_results_show_themselves() -> None:
    cell = moved("a<b", checks=[{"name": "gradient", "passed": False, "sentence": "no & never"}])
    found = Results([cell, moved("c")], ["unfinished: d"], [])
    console = Console(width=200)
    for shown, texts in (
        (cell, ["a<b", str(cell.metrics["robust_auroc"].estimate()), "no & never", "not ranked"]),
        (found, ["2 finished cells", "a<b (not ranked)", f"{cell.metrics['clean_auroc'].value:.3f}", "unfinished: d"]),
    ):
        html = shown._repr_html_()
        with console.capture() as captured:
            console.print(shown)
        for text in texts:
            assert text in captured.get()
            assert text.replace("&", "&amp;").replace("<", "&lt;") in html


def test_results_fit_a_screen() -> None:
    checks = [{"name": f"check {i}", "passed": True, "sentence": "all is well"} for i in range(14)]
    cells = [moved(f"detector_{i}", checks=checks, parts=["apgd"], apgd=random_scores(1)) for i in range(60)]
    found = Results(cells, [f"unfinished: {i}" for i in range(40)], ["left out: x"])
    console = Console(width=80)
    for shown, texts in (
        (found, ["60 finished cells", "detector_11", "and 48 more", "left out: x"]),
        (cells[0], ["robust_auroc", "apgd_auroc", "all 14 checks passed"]),
    ):
        with console.capture() as captured:
            console.print(shown)
        lines = captured.get().splitlines()
        assert len(lines) <= 36 and max(map(len, lines)) <= 80
        assert all(text in captured.get() for text in texts)


HARD = "bold] a[b=5] [/x] [nan, 1] :smile:"
"""What Rich's markup would swallow, take for a style, or refuse."""


def test_terminals_show_names_as_they_are(tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    cells = [scored(random_scores(0), name, category) for name in (f"[{HARD}", "b") for category in (HARD, "two")]
    for r in cells:
        respec(r, attack=f"worst {HARD}", dataset=f"d {HARD}")
    cells[0].checks.append(CheckRecord(name="gradient", passed=False, sentence=HARD))
    found = Results(cells, [f"note {HARD}"], [f"damaged {HARD}"])
    console = Console(width=400)
    with console.capture() as captured:
        console.print(found, cells[0], *map(rich_table, boards(cells)))
    for text in (f"[{HARD} (not ranked)", f"worst {HARD}", f"note {HARD}", f"damaged {HARD}", f"failed: {HARD}"):
        assert text in captured.get()
    monkeypatch.setattr("bench.report.write.write_report", lambda *_: (found, [Path("/[red]out")]))
    monkeypatch.setattr("bench.cells.reader.read_results", lambda *_: found)
    monkeypatch.setattr("bench.cells.bracket.broken_brackets", lambda _: [f"violation {HARD}"])
    code, out, err = run_cli("report", "--results", tmp_path)
    assert code == 1, err
    for text in (f"worst {HARD}", f"note {HARD}", f"damaged {HARD}", f"impossible: violation {HARD}", "/[red]out"):
        assert text in out
    code, out, err = run_cli("compare", f"[{HARD}", "b", "--results", tmp_path)
    assert code == 0 and f"[{HARD} - b" in out and f"worst {HARD}, linf 2/255 (mean of 2)" in out, err


def printed(*shown: object, width: int = 80) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(*shown)
    return captured.get().splitlines()


def test_the_table_of_a_run_says_once_what_its_rows_share() -> None:
    cells = [moved(name, category) for name in ("a", "b") for category in ("one", "two")]
    cells[2].checks.append(CheckRecord(name="gradient", passed=False, sentence="points elsewhere"))
    above, heads, _, first, second, why = printed(run_table(cells))
    assert above == "d, 8 px, pgd, linf 2/255, mean of 2, AUROC"
    assert heads.split() == ["detector", "clean", "robust", "passes"]
    mean = np.mean([r.metrics["robust_auroc"].value for r in cells[:2]])
    assert first.split() == ["a", f"{cells[0].metrics['clean_auroc'].value:.3f}", f"{mean:.3f}", "2"]
    assert second.startswith("b (1)") and why == "(1) not ranked: gradient check failed: points elsewhere"


def test_the_table_of_a_run_has_columns_for_what_differs() -> None:
    cells = [moved("a", eps="1/255"), moved("a", eps="2/255"), moved("a", goal="threshold", draws=3)]
    above, heads, _, *rows = printed(run_table(cells))
    assert above == "d, 8 px, one" and heads.split()[:4] == ["detector", "attack", "eps", "metric"]
    assert [row.split()[-5] for row in rows if "linf" in row] == ["1/255", "2/255", "2/255"]
    assert [row.split()[-4] for row in rows if "linf" in row] == ["AUROC", "AUROC", "acc."]
    certified = moved("a", kind="certificate", low_0=random_scores(1), high_0=random_scores(1))
    assert "certified" in printed(run_table([certified]))[1]


def test_the_table_of_a_run_fits_80_columns() -> None:
    settings = {f"part_{i}.parameter": i for i in range(6)}
    cells = [
        moved("diffpure+patchcore", category, eps, detector_parameters=settings, attack_parameters=settings, goal=goal)
        for category, goal, eps in (("one", "rank", "1/255"), ("one", "threshold", "2/255"), ("two", "rank", "1/255"))
    ]
    lines = printed(run_table(cells))
    assert max(map(len, lines)) <= 80 and any(line.rstrip().endswith("passes") for line in lines)
