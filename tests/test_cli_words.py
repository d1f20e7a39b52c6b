"""The words of a command: what they ask for, and what is said of those that mean nothing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from command_line import Run, one_line
from conftest import asked_for

from bench.cli import COMMANDS
from bench.cli.attacks import RunRequest
from bench.cli.certify import CertifyRequest
from bench.cli.compare import CompareRequest
from bench.cli.entry import bench
from bench.cli.report import ReportRequest
from bench.cli.verify import VerifyRequest
from bench.core.score import GOALS
from bench.core.threat import TARGETS

DEFAULTS = RunRequest(
    detectors=("patchcore",),
    attacks=("pgd-linf",),
    eps=("2/255",),
    params={},
    attack_params={},
    draws=None,
    save_images=None,
    dataset="textures",
    categories=("all",),
    data_root=None,
    image_size=None,
    targets="both",
    goal="rank",
    seed=0,
    limit=None,
    threshold_folds=None,
    batch_size=None,
    device="auto",
    results=Path("results"),
    force=False,
    cell_timeout=None,
    in_process=False,
    workers=None,
    dry_run=False,
    executor="local",
    address=None,
    gpus_per_worker=None,
)


def test_what_is_not_typed_has_its_default() -> None:
    assert asked_for("bench run --detector patchcore", RunRequest) == DEFAULTS
    certify = asked_for("bench certify --detector patchcore", CertifyRequest)
    assert (certify.sigmas, certify.radii, certify.norm) == (None, None, "l2")
    assert (certify.samples, certify.alpha, certify.center) == (1000, 0.001, None)
    report = asked_for("bench report", ReportRequest)
    assert report == ReportRequest(
        results=Path("results"), out=None, formats=("md", "html", "csv"), filters=(), sort=""
    )
    assert asked_for("bench verify", VerifyRequest).path == Path("results")


def test_what_is_typed_is_typed() -> None:
    command = """bench run --detector a,b,a --eps 1/255,2/255 --param k=1 --param a.k=x=y --limit 8 --force
        --category brick --data-root ~/images --limit 9"""
    expected = dataclasses.replace(
        DEFAULTS, detectors=("a", "b"), eps=("1/255", "2/255"), params={"k": "1", "a.k": "x=y"}, limit=9, force=True,
        categories=("brick",), data_root=Path.home() / "images",
    )  # fmt: skip
    assert asked_for(command, RunRequest) == expected
    assert asked_for("bench compare a b a c --plot ranks.png", CompareRequest).names == ("a", "b", "c")


def test_the_choices_are_those_of_the_product() -> None:
    for name, goals in (("run", GOALS), ("certify", GOALS[:2])):
        command = bench.get_command(click.Context(bench), name)
        assert command is not None
        choices = {p.name: tuple(p.type.choices) for p in command.params if isinstance(p.type, click.Choice)}
        assert choices == {"targets": TARGETS, "goal": goals, "executor": ("local", "ray")}


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_bench_alone_shows_help(run_cli: Run, words: tuple[str, ...]) -> None:
    code, out, err = run_cli(*words)
    assert code == 0 and not err
    assert all(f"  {name} " in out for name in COMMANDS) and "..." not in out.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run_cli: Run, name: str) -> None:
    code, out, _ = run_cli(name, "--help")
    assert code == 0 and out.startswith(f"Usage: bench {name}")


def test_the_version(run_cli: Run) -> None:
    assert run_cli("--version")[:2] == (0, f"bench, version {version('adv-anomaly-bench')}\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("lst", "no command named 'lst'. Did you mean 'list'?"),
        ("--frobnicate", "no option named '--frobnicate' (bench --help)"),
        ("run", "missing option '--detector', or '--suite' (bench run --help)"),
        ("run --detectr a", "Did you mean --detector or --executor? (bench run --help)"),
        ("run --save 4", "Did you mean --save-images?"),
        ("run --detector --eps 2/255", "--detector needs a value"),
        ("run --detector", "requires an argument"),
        ("run --detector --help", "--detector needs a value"),
        ("run --detector a b", "unexpected extra argument (b)"),
        ("list", "missing argument"),
        ("list detector", "'detectors'"),
        ("compare advrad advrad", "two different detectors are needed"),
        ("compare", "two different detectors are needed"),
        ("certify --detector a --sigma 0,0.1", "--sigma 0 must be a number above 0"),
        ("certify --detector a --alpha nan", "0.001), got nan"),
        ("certify --detector a --samples 0", "--samples must be at least 1"),
        ("check-run", "missing argument 'PATH'"),
        ("submit", "missing argument 'PATH'"),
        ("check-detector autoencoder --image-size 4", "--image-size must be at least 8"),
    ],
)
def test_words_that_mean_nothing_are_one_line(run_cli: Run, words: str, says: str) -> None:
    code, out, err = run_cli(*words.split())
    assert code == 2 and not out
    assert says in one_line(err) and err.count("\n") == 1


ODD = [
    ("run", "--detector", ""), ("run", "--detector", ","), ("run", "--detector", "a", "--eps", ""),
    ("run", "--detector", "a", "--param", "="), ("run", "--detector", "a", "--param", ""),
    ("run", "--detector", "a", "--param", " =1"), ("run", "--detector", "a", "--seed", "1_0"),
    ("run", "--detector", "a", "--limit", "٣"), ("run", "--detector", "a", "--limit", "9" * 5000),
    ("run", "--detector", "ü"), ("run", "--detector", "\udcff"), ("\udcff",), ("",), ("run", "\udcff"),
    ("run", "--détecteur", "a"), ("run", "--detector", "a\nb"), ("describe", ""), ("describe", "\udcff"),
    ("list", "\udcff"), ("certify", "--detector", "a", "--sigma", "\udcff"), ("report", "--results", "\udcff"),
    ("verify", "\udcff"), ("check-run", ""), ("submit", "\udcff"), ("check-detector", "\udcff"),
    ("run", "--detector", "a", "--targets", "\udcff"), ("compare", "\udcff", "ü", "--results", "\udcff"),
]  # fmt: skip


@pytest.mark.parametrize("words", ODD)
def test_odd_words_are_one_line(
    run_cli: Run, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli(*words)
    assert code == 2 and not out
    assert one_line(err) and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def in_a_process(*words: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.cli", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_a_terminal_that_knows_ascii_alone_and_nobody_at_home(tmp_path: Path) -> None:
    bare = {"PYTHONIOENCODING": "ascii", "PATH": os.environ["PATH"]}  # no HOME
    done = in_a_process("run", "--detector", b"\xff\xc3\xbc", **bare)
    assert done.returncode == 2 and done.stderr.startswith("bench: no detector named") and done.stderr.count("\n") == 1
    described = in_a_process("describe", "textures", **bare)
    assert described.returncode == 0 and "brick" in described.stdout
    folder = tmp_path / "Flaschen für 瓶子"
    done = in_a_process("report", "--results", str(folder), **bare)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "f\\xfcr" in done.stderr


LIGHT = """
import sys, bench.cli
for words in {words!r}:
    assert bench.cli.main(words) == 0
found = {{"torch", "numpy", "pandas", "matplotlib", "anomalib"}} & set(sys.modules)
sys.exit(", ".join(found) or 0)
"""


def test_help_needs_nothing_heavy() -> None:
    words = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
    code = LIGHT.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "--attack-param" in done.stdout, done.stderr


COMPLETE = """
import atexit, sys
atexit.register(lambda: print({"torch", "numpy"} & set(sys.modules), file=sys.stderr))
from bench.cli import main
main([])
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("bench ch", {"check-detector", "check-run"}),
        ("bench run --detector pa", {"patchcore"}),
        ("bench run --detector pls,diffpure+pa", {"pls,diffpure+patchcore"}),
        ("bench run --detector ./mi", {"./mi"}),
        ("bench run --attack sq", {"square"}),
        ("bench run --dataset te", {"textures"}),
        ("bench run --goal t", {"threshold"}),
        ("bench run --save", {"--save-images"}),
        ("bench describe sta", {"standard", "standard-v3"}),
        ("bench list d", {"detectors", "datasets"}),
    ],
)
def test_completion_needs_nothing_heavy(typed: str, offered: set[str]) -> None:
    words = {"_BENCH_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE], check=False, capture_output=True, text=True, env={**os.environ, **words}
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered
    assert done.stderr == "set()\n"
