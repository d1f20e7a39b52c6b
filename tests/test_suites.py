"""Suites: what a file asks for is what is run, and what is wrong with it is said before any work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, one_line, read, rows_of, suite_on_two

from bench.cli.entry import parse
from bench.cli.jobs import Job
from bench.cli.progress import Bars
from bench.cli.suite import Suite, SuiteRequest
from bench.cli.suite import read as read_suite
from bench.core.progress import Progress
from bench.system import locks

pytestmark = pytest.mark.usefixtures("own_cache")

SUITE = """
seeds = [0, 1]
limit = 6

[[data]]
name = "folder"
root = {root!r}
image-size = 16

[[detectors]]
name = {plugin!r}

[[detectors]]
name = "autoencoder"
params = {{ steps = 3 }}

[[attacks]]
name = "pgd-linf"
eps = ["1/255", 0.01]
params = {{ steps = 2 }}

[[attacks]]
name = "noise-l2"
eps = [0.5]

[[certificates]]
sigma = [0.25]
radius = [0.1]
samples = 100
alpha = 0.5

[[exclude]]
detector = "autoencoder"
attack = "certificate"

[[exclude]]
category = "bolt"
attack = "noise-*"
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return suite_on_two(tmp_path, SUITE)


def cells_of(results: Path) -> set[tuple[Any, ...]]:
    specs = [read(path)["spec"] for path in results.rglob("run.json")]
    return {(s["seed"], s["category"], s["detector"], s["attack"], s["norm"], s["eps"]) for s in specs}


def test_a_suite_is_the_cells_that_its_file_says(run_cli: Run, suite: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    code, out, err = run_cli("run", "--suite", suite, "--results", results, "--dry-run")
    assert code == 0 and not results.exists() and "24 cells: 24 to do" in out, err
    code, out, err = run_cli("run", "--suite", suite, "--results", results, "--workers", 2)
    assert code == 0 and "24 finished cells" in out, err
    tried: list[tuple[str, ...]] = [("pgd", "linf", "1/255"), ("pgd", "linf", "0.01"), ("noise", "l2", "0.5")]
    attacks = {
        (seed, category, detector, *attack)
        for seed in (0, 1)
        for category in ("nut", "bolt")
        for detector in ("Mean", "autoencoder")
        for attack in tried
        if not (category == "bolt" and attack[0] == "noise")
    }
    smoothed = {(s, c, "smoothed+Mean", "certificate", "l2", "0.1") for s in (0, 1) for c in ("nut", "bolt")}
    found = cells_of(results)
    assert {cell for cell in found if "smoothed" not in cell[2]} == attacks
    assert {(*cell[:3], "certificate", *cell[4:]) for cell in found if "smoothed" in cell[2]} == smoothed
    rows = rows_of(results)
    assert run_cli("run", "--suite", suite, "--results", results)[0] == 0
    assert rows == rows_of(results)
    code, out, err = run_cli("run", "--suite", suite, "--results", results, "--dry-run")
    assert code == 0 and "24 cells: 24 finished" in out, err


def test_what_is_left_is_estimated_by_what_is_there(run_cli: Run, suite: Path, tmp_path: Path) -> None:
    results, text = tmp_path / "results", suite.read_text()
    first = suite.with_name("first.toml")
    first.write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    assert run_cli("run", "--suite", first, "--results", results)[0] == 0
    records = [read(path) for path in results.rglob("run.json")]
    spent = sum(record["forwards"] + record["backwards"] for record in records)
    code, out, err = run_cli("run", "--suite", suite, "--results", results, "--dry-run")
    assert code == 0 and "12 finished, 12 to do" in out, err
    left = sum(int(number.replace(",", "")) for number in re.findall(r" ([\d,]+) +[\d.]+ *$", out, re.M))
    assert left == pytest.approx(spent, rel=0.2)  # another seed of the same cells
    assert "minutes of work" in out and re.search(r"up to [0-9,]+ MiB in each process", out)
    record = next(path for path in results.rglob("run.json") if "autoencoder" in str(path))
    record.write_text(record.read_text().replace('"code": "', '"code": "0'))
    assert "changed, needs --force" in run_cli("run", "--suite", suite, "--results", results, "--dry-run")[1]


def test_two_tables_of_one_attack_are_two_sweeps(run_cli: Run, suite: Path, tmp_path: Path) -> None:
    """A larger ball starts from the smaller one of its own table, as in a run without the other table."""
    one = '[[attacks]]\nname = "pgd-linf"\neps = ["1/255", "4/255"]\nparams = { steps = 1 }\n'
    other = '[[attacks]]\nname = "pgd-linf"\neps = ["2/255"]\nparams = { steps = 9 }\n'
    head = suite.read_text().partition("[[attacks]]")[0].replace("seeds = [0, 1]", "seeds = [0]")
    found = {}
    for name, tables in (("alone", one), ("both", other + one)):
        suite.write_text(head + tables)
        assert run_cli("run", "--suite", suite, "--results", tmp_path / name)[0] == 0
        found[name] = rows_of(tmp_path / name)
    assert len(found["alone"]) == 8 and len(found["both"]) == 12
    assert found["alone"].items() <= found["both"].items()
    records = [read(path) for path in (tmp_path / "both").rglob("run.json")]
    smaller = {(r["spec"]["eps"], r.get("smaller_ball") is not None) for r in records}
    assert smaller == {("1/255", False), ("4/255", True), ("2/255", False)}


def test_what_no_record_tells_is_not_guessed(run_cli: Run, suite: Path, tmp_path: Path) -> None:
    """Another detector may draw noise, and take many times as many passes."""
    results, text = tmp_path / "results", suite.read_text()
    first = suite.with_name("first.toml")
    first.write_text(text + '\n[[exclude]]\ndetector = "autoencoder"\n')
    assert run_cli("run", "--suite", first, "--results", results)[0] == 0
    code, out, err = run_cli("run", "--suite", suite, "--results", results, "--dry-run")
    assert code == 0 and "14 finished, 10 to do" in out and "of 10 cells no record" in out, err
    assert all(line.split()[-2:] == ["?", "?"] for line in out.splitlines() if "to do " in line)


def test_a_cell_that_another_process_has_is_running_before_its_first_row(
    run_cli: Run, suite: Path, tmp_path: Path
) -> None:
    command = ("run", "--suite", suite, "--results", tmp_path / "results", "--dry-run")
    cell, data, *_ = next(
        plan for _, plan in next(iter(jobs_of(suite, tmp_path / "results"))).plans(Progress(), print)
    )()
    assert cell.folder is not None
    with locks.alone(cell.folder, "tests", print):
        # the lock is this process's own: a new handle of it is refused like another process's
        assert cell.state(data).works
        assert "1 running" in run_cli(*command)[1]
    assert not cell.state(data).works


def jobs_of(suite: Path, results: Path) -> list[Job]:
    request = parse(["run", "--suite", str(suite), "--results", str(results)])
    assert isinstance(request, SuiteRequest)
    return request.jobs(Bars())[0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("limit = 6", "limits = 6", "limits: extra inputs"),
        ("limit = 6", "limit = 0", "limit: input should be greater than 0"),
        ("limit = 6", "limit = ", "no TOML file"),
        ("seeds = [0, 1]", "seeds = []", "seeds: list should have at least 1"),
        ('name = "autoencoder"', 'name = "autoencodr"', "autoencodr"),
        ("{ steps = 3 }", "{ stepz = 3 }", "stepz"),
        ("{ steps = 3 }", "{ steps = -1 }", "steps"),
        ("{ steps = 2 }", "{ step = 2 }", "step"),
        ('name = "pgd-linf"', 'name = "pdg-linf"', "pdg"),
        ('"1/255"', '"1/0"', "1/0"),
        ("radius = [0.1]", "radius = [-1]", "-1"),
        ("image-size = 16", "image-size = 4", "at least 8 pixels"),
        ('name = "folder"', 'name = "foldr"', "foldr"),
        ('category = "bolt"\nattack = "noise-*"', 'attack = "*"\n[[exclude]]\ndetector="*"', "no cells"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    run_cli: Run, suite: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in suite.read_text()
    suite.write_text(suite.read_text().replace(old, new))
    code, _, err = run_cli("run", "--suite", suite, "--results", tmp_path / "results")
    assert code == 2 and says in one_line(err)
    assert not (tmp_path / "results").exists()


def test_a_suite_and_its_options(run_cli: Run, suite: Path, tmp_path: Path) -> None:
    for words, says in (
        (("--suite", suite, "--detector", "pls"), "--detector is for the suite to say"),
        (("--suite", suite, "--attack", "pgd-linf"), "--attack is for the suite to say"),
        (("--suite", suite, "--param", "k=2"), "--param is for the suite to say"),
        (("--suite", "smok"), "smoke"),
        (("--suite", tmp_path / "none.toml"), "none.toml"),
        ((), "--suite"),
    ):
        code, _, err = run_cli("run", *words)
        assert code == 2 and says in one_line(err), err


SHIPPED = sorted(path.stem for path in (Path(__file__).resolve().parents[1] / "suites").glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_suites_are_read(name: str) -> None:
    suite = read_suite(name)
    assert isinstance(suite, Suite) and suite.title.split(":")[0] in (name, "leaderboard")


def test_the_leaderboard_is_of_one_choice_of_images_and_detectors() -> None:
    """Its parts share fits and clean scores: a detector that is spelt otherwise in one of them would be another row."""
    whole = read_suite("leaderboard")
    for name in (name for name in SHIPPED if name.startswith("leaderboard-")):
        part = read_suite(name)
        assert {tested.model_dump_json() for tested in part.detectors} <= {
            tested.model_dump_json() for tested in whole.detectors
        }, name
        for images in part.data:
            (same,) = (other for other in whole.data if other.name == images.name)
            assert images.image_size == same.image_size and (
                images.categories == same.categories or set(images.categories) <= {"mvtec_bottle", "brick"}
            ), name


def test_every_name_of_the_shipped_suites_can_be_used(run_cli: Run, tmp_path: Path) -> None:
    for name in ("smoke", "standard"):
        code, out, err = run_cli("run", "--suite", name, "--dry-run", "--results", tmp_path / "results")
        assert code == 0 and "to do" in out, err
    tested = read_suite("paper").detectors
    given = [f"{one.name}.{key}={value}" for one in tested for key, value in one.params.items()]
    names = ",".join(one.name for one in tested)
    command = ("run", "--dry-run", "--detector", names, "--param", "weights=random", "--category", "brick")
    words = [word for param in given if "+" not in param for word in ("--param", param)]
    code, out, err = run_cli(*command, *words, "--results", tmp_path / "results")
    assert code == 0 and f"{len(tested)} to do" in out, err


def test_the_documented_suite_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/suites.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    (tmp_path / "example.toml").write_text(example)
    assert read_suite(str(tmp_path / "example.toml")).detectors[1].params["diffpure.t"] == "50"


def test_a_suite_of_shifts(run_cli: Run, tmp_path: Path) -> None:
    text = SUITE[: SUITE.index("[[attacks]]")] + '[[shifts]]\nkinds = ["gamma"]\nseverities = [1, 2]\n'
    suite = suite_on_two(tmp_path, text + '\n[[exclude]]\ncategory = "bolt"\nattack = "shift"\n')
    code, out, err = run_cli("run", "--suite", suite, "--results", tmp_path / "results")
    assert code == 0 and "4 finished cells" in out, (out, err)
    assert {cell[3] for cell in cells_of(tmp_path / "results")} == {"shift"}
    assert {cell[1] for cell in cells_of(tmp_path / "results")} == {"nut"}
    suite.write_text(suite.read_text().replace('"gamma"', '"fog"'))
    assert "no kind of shift named 'fog'" in one_line(
        run_cli("run", "--suite", suite, "--results", tmp_path / "other")[2]
    )


BESIDE_BUILT_IN = """
limit = 4

[[data]]
name = "textures"
categories = ["brick"]
image-size = 16

[[data]]
name = "folder"
image-size = 16

[[detectors]]
name = {plugin!r}

[[attacks]]
name = "noise-linf"
eps = ["1/255"]
"""


@pytest.mark.parametrize("below", [".", "folder"])
def test_a_data_root_is_of_the_data_sets_that_take_one(run_cli: Run, tmp_path: Path, below: str) -> None:
    suite, results = suite_on_two(tmp_path, BESIDE_BUILT_IN), tmp_path / "results"
    root = tmp_path / "images"
    (root / below).parent.mkdir(exist_ok=True)
    (tmp_path / "tree").rename(root / below)
    code, out, err = run_cli("run", "--suite", suite, "--data-root", root, "--results", results, "--save-images", 1)
    assert code == 0 and "3 finished cells" in out, err
    assert {cell[1] for cell in cells_of(results)} == {"brick", "nut", "bolt"}
    again = ("--data-root", root, "--detector", f"{tmp_path}/mine.py:Mean", "--no-scores")
    code, out, err = run_cli("verify", results, *again)
    assert code == 0 and out.count("pass    data:") == 3, (out, err)


def test_a_data_root_that_no_data_set_takes(run_cli: Run, tmp_path: Path) -> None:
    """A data set of a file says itself that it is built in; it is asked elsewhere."""
    suite = suite_on_two(tmp_path, BESIDE_BUILT_IN)
    (tmp_path / "dots.py").write_text(
        "from bench.datasets.textures import IMAGE_SIZE, categories, load\nTAKES_ROOT = False\n"
    )
    said = suite.read_text().replace('name = "folder"', f'name = "{tmp_path}/dots.py"\ncategories = ["grass"]')
    suite.write_text(said)
    command = ("run", "--suite", suite, "--results", tmp_path / "results")
    code, _, err = run_cli(*command, "--data-root", tmp_path)
    assert code == 2 and "--data-root" in one_line(err) and "no data set of the suite" in one_line(err)
    assert run_cli(*command, "--dry-run")[0] == 0
    suite.write_text(said.replace(f'"{tmp_path}/dots.py"', f'"folder"\nroot = "{tmp_path}/tree"'))
    code, _, err = run_cli(*command, "--data-root", tmp_path)
    assert code == 2 and "textures is built in, folder has its root in the file" in one_line(err)


def test_a_kept_fit_is_timed_where_no_record_tells(run_cli: Run, suite: Path, tmp_path: Path) -> None:
    """Passes of cells whose attack says what it spends; what is not fitted stays unknown."""
    only = suite.read_text() + '\n[[exclude]]\ndetector = "*Mean"\n\n[[exclude]]\nattack = "noise-*"\n'
    suite.write_text(only.replace("seeds = [0, 1]", "seeds = [0]"))
    command = ("run", "--suite", suite, "--results")
    code, out, err = run_cli(*command, tmp_path / "before", "--dry-run")
    assert code == 0 and "4 to do" in out and "of 4 cells no record" in out and "no fit is kept" in out, err
    assert run_cli(*command, tmp_path / "results")[0] == 0
    records = [read(path) for path in (tmp_path / "results").rglob("run.json")]
    spent = sum(record["forwards"] + record["backwards"] for record in records)
    code, out, err = run_cli(*command, tmp_path / "other", "--dry-run")
    assert code == 0 and "4 cells by a few timed passes" in out and "no record" not in out, (out, err)
    told = sum(int(number.replace(",", "")) for number in re.findall(r" ([\d,]+) +[\d.]+ *$", out, re.M))
    assert told == pytest.approx(spent, rel=0.5) and not (tmp_path / "other").exists()
