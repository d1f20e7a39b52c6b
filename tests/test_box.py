"""The worst of a box of light and pose: images by hand, known best points, and from the command to the report."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import on_tree
from conftest import MEAN, Linear, NoisyLinear, make_tree, small_data
from stored_cells import change_rows, failed, index_of, verifier
from test_run import cell_of
from torch import Tensor

import bench
from bench import Detector, Rng, ThreatModel, UserError, evaluate, shift
from bench.core.semantic import AXES, LIGHT, MOST, NAMES, POSE, grid, share_of, transformed

Run = Callable[..., tuple[int, str, str]]
DATA = small_data(12, 11)


def picture(size: int = 32) -> Tensor:
    """(1, 3, S, S): smooth colours, neither black nor white anywhere."""
    y, x = torch.meshgrid(torch.linspace(0.2, 0.8, size), torch.linspace(0.2, 0.8, size), indexing="ij")
    return torch.stack([x, y, 0.5 * x + 0.3])[None]


def numbers(**given: float) -> Tensor:
    return torch.tensor([[given.get(name, 0.0) for name in NAMES]], dtype=torch.float64)


class Brightness(Detector):
    """score = mean brightness: the best light is at a corner of the box."""

    def fit(self, normal: object) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return x.flatten(1).mean(1)


class Blind(Brightness):
    differentiable = False

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return super().score(x.detach())


class Place(Brightness):
    """How far to the right the light lies; the best point is not among those of a grid of three."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        right = torch.linspace(-1, 1, x.shape[-1]).to(x)
        return -((x.mean((1, 2)) * right).mean(1) - 0.003).square()


def test_the_middle_of_the_box_is_the_image_itself() -> None:
    x = torch.cat([picture(), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32), torch.rand(1, 3, 32, 32)])
    assert torch.equal(transformed(x, torch.zeros(4, 6, dtype=torch.float64)), x)
    assert float((transformed(x, torch.zeros(4, 6), smooth=True) - x).abs().max()) < 1e-5


def test_by_hand() -> None:
    x = picture()
    assert torch.allclose(transformed(x, numbers(exposure=-1.0)), x / 2)
    assert torch.allclose(transformed(x, numbers(gamma=float(np.log(2)))), x**2, atol=1e-6)
    third = transformed(x, numbers(hue=120.0))  # red becomes green
    assert torch.allclose(third[:, [1, 2, 0]], x, atol=1e-5)
    grey = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.allclose(transformed(grey, numbers(hue=77.0)), grey, atol=1e-6)
    assert torch.allclose(transformed(x, numbers(right=2.0))[..., 2:], x[..., :-2], atol=1e-5)
    assert torch.allclose(transformed(x, numbers(down=-1.0))[..., :-1, :], x[..., 1:, :], atol=1e-5)
    assert torch.allclose(transformed(x, numbers(angle=90.0)), torch.rot90(x, 1, (2, 3)), atol=1e-4)


def test_an_image_does_not_depend_on_its_batch() -> None:
    x, some = torch.rand(5, 3, 16, 16), (2 * torch.rand(5, 6, dtype=torch.float64) - 1) * MOST
    together = transformed(x, some)
    assert together.min() >= 0 and together.max() <= 1
    for i in range(5):
        assert torch.equal(transformed(x[i : i + 1], some[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("axis", range(len(AXES)))
def test_the_gradient_is_that_of_the_image(axis: int) -> None:
    x, weight = picture().double(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    here = (0.3 * MOST)[None].requires_grad_()
    (slope,) = torch.autograd.grad((weight * transformed(x, here, smooth=True)).sum(), here)
    step = torch.zeros(1, 6, dtype=torch.float64)
    step[0, axis] = 1e-6
    up, down = ((weight * transformed(x, here.detach() + way * step)).sum() for way in (1, -1))
    assert float(slope[0, axis]) == pytest.approx(float(up - down) / 2e-6, rel=1e-3)


def test_at_black_the_gradient_is_finite() -> None:
    here = torch.zeros(1, 6, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(transformed(torch.zeros(1, 3, 8, 8), here, smooth=True).sum(), here)
    assert slope.isfinite().all()


def test_the_grid() -> None:
    for half in (LIGHT, POSE):
        points = grid(half, 3, 0.5)
        assert len(points) == 27 and (points == 0).all(1).any() and share_of(points).max() == 0.5
        assert (points[:, [i for i in range(6) if i not in half]] == 0).all()


@pytest.mark.parametrize("share", ["1", "0.5"])
@pytest.mark.parametrize("detector", [Brightness(), Blind()])
def test_of_mean_brightness_the_worst_light_is_a_corner(detector: Detector, share: str) -> None:
    found = shift(detector, DATA, worst=share)
    for _, row in found.iterrows():
        way = 1 if row["label"] == 0 else -1  # normal images brighter, and anomalous ones darker
        assert row["exposure"] == pytest.approx(way * float(share) * MOST[0])
        assert row["gamma"] == pytest.approx(-way * float(share) * MOST[1])
    assert (found["distance"] <= float(share) + 1e-6).all()
    assert not [check for check in found.attrs["run"]["checks"] if not check["passed"]]


@pytest.mark.parametrize("detector", [Linear(), NoisyLinear(), Brightness()])
def test_the_numbers_of_a_row_make_its_image(detector: Detector) -> None:
    found = shift(detector, DATA, worst=1, draws=4, batch_size=5)
    sign = 1 - 2 * found["label"]
    assert (sign * found["worst"] >= sign * found["grid"]).all() and (
        sign * found["grid"] >= sign * found["clean"]
    ).all()
    stored = torch.tensor(found[list(NAMES)].to_numpy())
    assert np.allclose(share_of(stored), found["distance"])
    x = transformed(DATA.test.images(range(23)), stored)
    rng = Rng.of_run(0, DATA.test.ids).for_evaluation()
    scores = bench.core.score.Score(detector).mean(x, rng, 4 if detector.randomized else 1)
    assert np.allclose(scores, found["worst"], rtol=1e-5, atol=1e-6)


def test_the_gradient_goes_where_no_grid_is() -> None:
    coarse = shift(Place(), DATA, worst=1, search={"steps": 0})
    fine = shift(Place(), DATA, worst=1)
    sign = 1 - 2 * fine["label"]
    assert (coarse["worst"] == coarse["grid"]).all() and (fine["grid"] == coarse["grid"]).all()
    normal = fine["label"] == 0
    assert ((sign * fine["worst"])[normal] > (sign * fine["grid"])[normal]).mean() > 0.5


def test_without_a_gradient_the_grid_is_all() -> None:
    found = shift(Blind(), DATA, worst=1)
    assert (found["worst"] == found["grid"]).all() and found.attrs["run"]["backwards"] == 0


def test_a_wider_box_is_no_better_for_the_detector() -> None:
    half, whole = (shift(Brightness(), DATA, worst=share).metrics for share in ("0.5", "1"))
    assert whole["worst_shift_auroc"] <= half["worst_shift_auroc"] <= half["clean_auroc"]
    assert "shifted_auroc" not in whole and "robust_auroc" not in whole and "grid_auroc" in whole


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"worst": 2}, "--worst 2 is more than the whole box"),
        ({"worst": "wide"}, "--worst wide is not a number; expected a share of the box"),
        ({"worst": 1, "search": {"points": 4}}, "points must be an odd number from 3 on, got 4"),
        ({"worst": 1, "search": {"stride": 4}}, "stride"),
        ({"search": {"points": 5}}, "give worst as well"),
    ],
)
def test_what_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        shift(Brightness(), DATA, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("attack", ["semantic", "pgd-semantic"])
def test_no_attack_on_pixels_takes_the_box(attack: str) -> None:
    with pytest.raises(UserError, match="bench shift --worst 1"):
        evaluate(Brightness(), DATA, attack)
    with pytest.raises(UserError, match="bench shift --worst 1"):
        evaluate(Brightness(), DATA, "pgd", ThreatModel("semantic", 1))


@pytest.fixture
def typed(tmp_path: Path) -> list[str]:
    make_tree(tmp_path / "images/widget", train=24)
    (tmp_path / "mine.py").write_text(MEAN)
    given = on_tree(tmp_path / "images/widget", tmp_path / "results")
    return ["shift", "--detector", f"{tmp_path}/mine.py:Mean", *map(str, given)]


def test_from_the_command_to_the_report(typed: list[str], tmp_path: Path, run_cli: Run) -> None:
    code, out, err = run_cli(*typed, "--worst", "1", "--search", "steps=5")
    assert code == 0 and "worst of the whole box of light and pose (steps=5)" in " ".join(out.split()), (out, err)
    cell = cell_of(tmp_path / "results")
    assert cell.name.startswith("shift-semantic-1")
    before = (cell / "samples.csv").read_bytes()
    assert run_cli(*typed, "--worst", "1", "--search", "steps=5")[0] == 0
    assert (cell / "samples.csv").read_bytes() == before
    assert run_cli(*typed, "--kind", "exposure")[0] == 0  # on another board
    code, out, err = run_cli("report", "--results", tmp_path / "results")
    assert code == 0 and "worst" in out, (out, err)
    board = (tmp_path / "results/LEADERBOARD.md").read_text(encoding="utf-8")
    assert board.count("### ") == 2 and "Nobody touches a pixel here" in board and "worst false alarms" in board
    with (tmp_path / "results/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    assert kinds == ["shift", "shift"]
    code, out, err = run_cli("check-run", cell, "--data-root", tmp_path / "images/widget", "--detector", typed[2])
    assert code == 0 and "pass    box rows" in out and "pass    box chance" in out and "FAIL" not in out, (out, err)


def test_a_changed_number_is_found(typed: list[str], tmp_path: Path, run_cli: Run) -> None:
    assert run_cli(*typed, "--worst", "1", "--search", "steps=2")[0] == 0
    cell, verify = cell_of(tmp_path / "results"), verifier(run_cli, tmp_path)
    code, found = verify(cell)
    assert code == 0 and not failed(found)
    options = ("--data-root", tmp_path / "images/widget", "--detector", typed[2])
    change_rows(cell, lambda rows: rows[0].update(exposure="0.01"), hide=False)
    assert failed(verify(cell)[1]) == ["rows"]
    change_rows(cell, lambda rows: rows[0].update(exposure="0.01"))
    code, out, err = run_cli("check-run", cell, *options)
    assert code == 1 and "changed box rows" in out and "now FAIL" in out, (out, err)

    def outside(rows: list[dict[str, str]]) -> None:
        rows[index_of(rows, "good")].update(angle="9.0")

    change_rows(cell, outside)
    assert "needs 1.8 of the box, and the distance says" in str(verify(cell)[1]["schema"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--worst", "1", "--kind", "line"], "leave out --kind"),
        (["--worst", "1", "--severity", "2"], "leave out --severity"),
        (["--worst", "0"], "--worst 0 must be above 0"),
        (["--search", "steps=2"], "give --worst as well"),
        (["--worst", "1", "--search", "rounds=0"], "rounds must be at least 1"),
    ],
)
def test_mistakes_are_one_line(typed: list[str], run_cli: Run, more: list[str], says: str) -> None:
    code, out, err = run_cli(*typed, *more)
    assert code == 2 and says in err and err.count("\n") == 1 and not out, (out, err)
