"""`bench verify --rerun`: how a cell is run again, and by whom."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import NoisyLinear, asked_for, made_record, small_data
from lying import Forged, Honest, make_honest
from stored_cells import Run, change_rows, rewrite

from bench import Row, ThreatModel, UserError
from bench.audit.attacked_again import attacked_again, choose
from bench.cells.record import read_finished, read_rows
from bench.cells.reproduction import path_beside
from bench.cells.result import metrics_of
from bench.cells.schema import FitRecord
from bench.cli.verify import VerifyRequest
from bench.engine.worker import Worker
from bench.harness.subject import DetectorUnderTest
from bench.plugins import kept_fits
from bench.plugins.lookup import make_attack


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return make_honest(tmp_path_factory.mktemp("honest"), kinds=("attacked",))


@pytest.fixture
def theirs(honest: Honest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In somebody else's folder, whose cache has nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "results").mkdir()
    return Path(shutil.copy(honest.zip_of("attacked"), tmp_path / "results"))


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in one of its own, which takes longer."""
    monkeypatch.setattr("bench.audit.reproduce.ask", lambda function, *given, patience: function(*given))


def test_what_a_detector_breaks_is_its_own_process(
    theirs: Path, honest: Honest, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run_cli("verify", theirs, "--rerun", *honest.options)
    assert (code, err) == (0, "") and f"reproduced: written to {path_beside(theirs)}" in out
    before = path_beside(theirs).read_bytes()
    text = (honest.root / "mine.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text("import os\n" + text.replace("return (self", "os._exit(3); return (self"))
    given = ("--data-root", honest.root / "images/widget", "--detector", f"{tmp_path}/mine.py:Spots")
    code, out, err = run_cli("verify", theirs, "--rerun", "--other-versions", *given)
    assert code == 1 and "FAIL    rerun: it ended its process with exit status 3" in out and not err
    assert path_beside(theirs).read_bytes() == before


def test_our_own_cells_are_run_again_and_nothing_is_written(
    honest: Honest, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(honest.root / "cache"))
    before = sorted(honest.root.rglob("*"))
    code, out, _ = run_cli("verify", honest.root / "attacked", "--rerun", "--seed", 5, *honest.options)
    assert code == 0 and "pass    weights: the same after a fit here" in out and out.endswith("--seed 5\n")
    assert sorted(honest.root.rglob("*")) == before


def test_the_seed_of_a_rerun_is_not_known_before(
    theirs: Path, honest: Honest, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    seeds = []
    for _ in range(2):
        assert run_cli("verify", theirs, "--rerun", "--images", 4, *honest.options)[0] == 0
        seeds.append(json.loads(path_beside(theirs).read_text(encoding="utf-8"))["seed"])
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("option", ["--images 8", "--seed 1", "--refit", "--other-versions", "--cell-timeout 9"])
def test_options_of_a_rerun_alone(option: str) -> None:
    assert asked_for(f"bench verify a.zip --rerun {option}", VerifyRequest).rerun
    with pytest.raises(UserError, match=f"{option.split()[0]} is of --rerun"):
        asked_for(f"bench verify a.zip {option}", VerifyRequest)
    with pytest.raises(UserError, match="leave out --no-scores"):
        asked_for("bench verify a.zip --rerun --no-scores", VerifyRequest)


# --- detectors that draw noise, and cells that begin at a smaller ball


@pytest.mark.parametrize("ball", ["4_255", "8_255"])
def test_a_detector_that_draws_noise(
    published: Path, ran: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, ball: str
) -> None:
    in_this_process(monkeypatch)
    (folder,) = published.rglob(f"Noisy*/pgd-linf-{ball}")
    options = ("--data-root", ran / "images/widget", "--detector", f"{ran}/mine.py:Noisy", "--images", 8)
    code, out, err = run_cli("verify", folder, "--rerun", *options)
    assert code == 0, out + err

    def ease(rows: list[dict[str, str]]) -> None:
        for row in rows:
            for name in ("worst", "worst_draw", "known_noise", "rounded"):
                row[name] = repr(0.5 * (float(row[name]) + float(row["clean"])))

    change_rows(folder, ease)
    found = read_finished(folder)
    rewrite(folder, lambda record: record.update(metrics=metrics_of(folder, found, read_rows(folder, found))))
    code, out, _ = run_cli("verify", folder, "--rerun", *options)
    assert code == 1 and "FAIL    attack" in out, out


# --- which images


def rows(normal: int, anomalous: int) -> list[Row]:
    labels = [0] * normal + [1] * anomalous
    return [Row(f"{label}/{i}", label, 0.1 * i, 0.2 * i, 0.0, 0.0) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("normal", "anomalous", "count", "of_each"),
    [(20, 20, 8, (4, 4)), (3, 20, 8, (3, 5)), (20, 1, 8, (7, 1)), (4, 4, 100, (4, 4))],
)
def test_images_are_of_both_classes(normal: int, anomalous: int, count: int, of_each: tuple[int, int]) -> None:
    some = choose(rows(normal, anomalous), made_record().spec, count, seed=1)
    found = Counter(i >= normal for i in some)
    assert (found[False], found[True]) == of_each and len(set(some)) == len(some)


def test_images_are_those_of_the_seed_and_of_all_ranks() -> None:
    spec, many = made_record().spec, rows(40, 40)
    chosen = [choose(many, spec, 8, seed) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    for some in chosen:
        assert [i // 10 for i in some] == list(range(8))  # one of each quarter of each class


def test_only_images_that_the_adversary_moves_are_attacked_again() -> None:
    spec = made_record(spec={"targets": "anomalous"}).spec
    assert all(i >= 20 for i in choose(rows(20, 20), spec, 8, seed=1))
    assert any(i < 20 for i in choose(rows(20, 20), spec, 8, seed=1, both=True))


# --- weights


def test_weights_are_named_by_the_part_that_learned_them() -> None:
    def fit(digest: str) -> dict[str, object]:
        return {"model_sha256": digest * 64, "seconds": 1.0, "images": 4}

    one = FitRecord.of(fit("a"))
    assert one is not None and one.hashes == {"": "a" * 64}
    parts = {"x": fit("a"), "y+z": {"seconds": 2.0, "images": 4, "parts": {"y": fit("b"), "z": fit("c")}}}
    several = FitRecord.of({"seconds": 3.0, "images": 4, "parts": parts})
    assert several is not None
    assert several.hashes == {"x": "a" * 64, "y": "b" * 64, "z": "c" * 64}


def test_a_fit_says_how_many_threads_it_had(theirs: Path, honest: Honest, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    record = Forged.of(theirs).record["detector"]["fit"]
    assert record["threads"] == torch.get_num_threads()
    monkeypatch.setenv("XDG_CACHE_HOME", str(honest.root / "cache"))
    found = kept_fits.find({record["model_sha256"], "0" * 64})
    assert list(found) == [record["model_sha256"]] and found[record["model_sha256"]].suffix == ".safetensors"


def test_weights_that_are_not_here_are_not_submitted(
    honest: Honest, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    code, _, err = run_cli("submit", honest.root / "attacked", "--out", tmp_path / "a.zip")
    assert code == 2 and "--without-weights" in err and not (tmp_path / "a.zip").exists()
    code, out, _ = run_cli("submit", honest.root / "attacked", "--out", tmp_path / "a.zip", "--without-weights")
    assert code == 0 and "(1 cell, " in out
    assert not any("weights" in name for name in Forged.of(tmp_path / "a.zip").others)


# --- check-run


def test_checks_of_a_submission(theirs: Path, honest: Honest, run_cli: Run) -> None:
    code, out, err = run_cli("check-run", theirs, *honest.options)
    assert (code, err) == (0, "") and "FAIL" not in out
    forged = Forged.of(theirs)
    forged.record["checks"] = [check for check in forged.record["checks"] if check["name"] != "signs"]
    code, out, _ = run_cli("check-run", forged.save(theirs.parent / "other.zip"), *honest.options)
    (line,) = (line for line in out.splitlines() if line.startswith("FAIL"))
    assert code == 1 and line.startswith("FAIL    signs: ") and line.endswith("(not stored)")


def test_the_noise_of_a_score_is_known_whether_or_not_its_image_was_attacked() -> None:
    data, subject = small_data(), DetectorUnderTest(NoisyLinear(), 0)
    attack = make_attack("pgd-linf", {"steps": 2})[2]
    spec = subject.spec("pgd", attack, ThreatModel("linf", "8/255", "normal"), data, None, "rank")
    prepared, some = subject.prepared(data), [0, 1, len(data.test) - 1]
    rows = Worker(spec, data, prepared, attack).batch(range(len(data.test)))
    again = attacked_again(spec, data, prepared, attack, rows, some)
    assert [row.label for row in again.now] == [0, 0, 1] and abs(again.eased).max() < 1e-4
    assert again.error.tolist() == pytest.approx([rows[i].more["worst_se"] for i in some], rel=1e-3)
    assert again.error.min() > 0
