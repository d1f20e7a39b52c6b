"""The side-by-side in benchmarks/: its bridges on a score whose best attack is known, its table and its verdict."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import Detector, Rng, Score, ThreatModel

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = [
    "torchattacks:pgd", "torchattacks:apgd", "torchattacks:square", "foolbox:pgd", "foolbox:ddn", "foolbox:fmn",
    "art:pgd", "art:square", "secmlt:pgd", "pyautoattack:apgd-ce", "pyautoattack:fab", "pyautoattack:square",
]  # fmt: skip
QUERY_ONLY = "square"
SIZE = 20  # Square in l2 starts from 5 x 5 tiles, which must not be smaller than a few pixels


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def peers() -> Any:
    return importlib.import_module("peers")


@pytest.fixture(scope="module")
def comparison() -> Any:
    return importlib.import_module("comparison")


class Plane(Detector):
    """score = <w, x>; randomized, if so asked, with that as its expectation."""

    def __init__(self, noisy: bool = False):
        super().__init__()
        self.randomized = noisy
        self.w = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def fit(self, normal: object) -> None:
        pass

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        w = self.w.to(x)
        if self.randomized:
            w = w + 0.3 * (torch.randn_like(x) if rng is None else rng.normal(x))
        return (x * w).flatten(1).sum(1)


def images() -> tuple[Tensor, Tensor, Rng]:
    """Far enough from the pixel range that no eps of the tests meets it."""
    x = 0.3 + 0.4 * torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([1.0, -1.0, 1.0, -1.0]), Rng(0, ["a", "b", "c", "d"])


def optimum(detector: Plane, threat: ThreatModel) -> float:
    w = detector.w.flatten()
    return float(threat.radius * (w.abs().sum() if threat.norm == "linf" else w.norm()))


def usable(peers: Any, name: str, norm: str) -> Any:
    peer = peers.PEERS[name]
    if norm not in peer.norms:
        pytest.skip(f"{name} has no {norm}")
    if peer.missing():
        pytest.skip(peer.missing())
    return peer


def gains(peers: Any, peer: Any, detector: Plane, threat: ThreatModel) -> tuple[Tensor, Tensor, Score, Any]:
    x, sign, rng = images()
    score = Score(detector)
    attack = peers.PeerAttack(peer, passes=30, draws=3)
    x_adv = attack(score, x, sign, threat, rng)
    assert threat.violation(x_adv, x) is None
    w = detector.w
    return sign * ((x_adv - x) * w).flatten(1).sum(1), sign, score, attack


def test_every_peer_is_tested(peers: Any) -> None:
    assert {*NAMES, "torchattacks:autoattack"} == set(peers.PEERS)


@pytest.mark.parametrize("norm, eps", [("linf", "4/255"), ("l2", "0.3")])
@pytest.mark.parametrize("name", NAMES)
def test_a_bridge_reaches_the_optimum_of_a_linear_score(peers: Any, name: str, norm: str, eps: str) -> None:
    peer, threat, detector = usable(peers, name, norm), ThreatModel(norm, eps), Plane()
    gain, _, score, _ = gains(peers, peer, detector, threat)
    if peer.name == QUERY_ONLY:
        length = threat.radius * SIZE * 3**0.5 if norm == "linf" else threat.radius  # of random noise of this size
        assert gain.min() > length * detector.w.square().mean().sqrt()  # one standard deviation of what noise gains
        assert score.backwards == 0
    else:
        assert gain.min() > 0.95 * optimum(detector, threat)
        assert score.backwards <= 30 * len(gain)
    assert gain.max() <= optimum(detector, threat) * (1 + 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_bridge_averages_over_the_draws_of_a_randomized_score(peers: Any, name: str) -> None:
    norm = "l2" if name == "foolbox:ddn" else "linf"
    threat, detector = ThreatModel(norm, "4/255" if norm == "linf" else "0.3"), Plane(noisy=True)
    gain, _, score, _ = gains(peers, usable(peers, name, norm), detector, threat)
    if not name.endswith(QUERY_ONLY):  # whose few queries drown in the noise of this score
        assert gain.min() > 0.5 * optimum(detector, threat)
    assert score.forwards % (3 * len(gain)) == 0


def test_a_row_can_be_repeated(peers: Any) -> None:
    threat = ThreatModel("linf", "4/255")
    peer = usable(peers, "pyautoattack:square", "linf")
    first, second = (gains(peers, peer, Plane(), threat)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_what_oversteps_is_projected_and_told(peers: Any) -> None:
    far = peers.Peer("", "torch", "far", lambda problem: problem.x + 0.1)
    _, _, _, attack = gains(peers, far, Plane(), ThreatModel("linf", "4/255"))
    assert attack.overstep == [pytest.approx(0.1 - 4 / 255, abs=1e-6)]


def test_a_view_refuses_a_part_of_its_batch(peers: Any) -> None:
    x, sign, _ = images()
    problem = peers.Problem(Score(Plane()), x, sign, ThreatModel("linf", "4/255"), 10, 1)
    view = problem.at_clean_score()
    assert view(x).shape == (4, 2)
    with pytest.raises(ValueError, match="split the batch"):
        view(x[:2])


def row(library: str, attack: str, auroc: float | None = None, **more: Any) -> dict[str, Any]:
    known = {"detector": "autoencoder", "dataset": "textures", "category": "brick", "image_size": 64, "norm": "linf"}
    result = {"auroc": auroc, "gain_normal": 1.0, "gain_anomalous": 1.0, "forwards": 41.0, "backwards": 40.0}
    known |= {"passes": 40, "draws": 4, "clean_auroc": 0.95}
    spent = {"seconds": 2.0, "images": 10, "peak_memory": 500, "added_memory": 10, "overstep": 0.0}
    return {**known, "eps": "2/255", "library": library, "attack": attack, "status": "done", **result, **spent, **more}


CONTROL: dict[str, Any] = {"library": "control", "attack": "noise", "auroc": 0.9}
CONTROL |= {"gain_normal": 0.1, "gain_anomalous": 0.1}


@pytest.mark.parametrize(
    "attack, auroc, kept",
    [
        ("standard", 0.204, True), ("standard-linf", 0.206, False), ("standard", 0.1, True),
        ("apgd", 0.209, True), ("apgd-linf:restarts=2", 0.211, False), ("pgd", 0.9, True),
    ],
)  # fmt: skip
def test_the_verdict_compares_with_the_best_peer(comparison: Any, attack: str, auroc: float, kept: bool) -> None:
    rows = [row("foolbox", "pgd", 0.3), row("secml-torch", "pgd", 0.2), row("bench", attack, auroc), row(**CONTROL)]
    sentences, good = comparison.verdict(rows)
    assert good is kept
    assert "best peer secml-torch pgd 0.2000" in sentences[0]
    assert f"margin {auroc - 0.2:+.4f}" in sentences[1]
    assert ("FAILS" in sentences[1]) is not kept


def test_a_peer_that_is_not_better_than_noise_is_not_compared(comparison: Any) -> None:
    idle = row("torchattacks", "pgd", 0.0, gain_normal=0.1, gain_anomalous=0.05)
    rows = [row(**CONTROL), idle, row("foolbox", "pgd", 0.3), row("bench", "apgd", 0.3)]
    (margin,) = comparison.margins(rows)
    assert margin.peer["library"] == "foolbox" and not margin.fails
    assert "does nothing on normal and anomalous images" in comparison.markdown(rows)


def test_a_peer_that_moves_one_class_is_compared_and_says_so(comparison: Any) -> None:
    rows = [row(**CONTROL), row("foolbox", "ddn", 0.1, gain_anomalous=0.05), row("bench", "apgd", 0.3)]
    (margin,) = comparison.margins(rows)
    assert margin.peer["attack"] == "ddn" and margin.fails
    assert "does nothing on anomalous images" in comparison.markdown(rows)


def test_cells_are_compared_on_their_own(comparison: Any) -> None:
    rows = [row("foolbox", "pgd", 0.0, eps="4/255"), row("foolbox", "pgd", 0.3), row("bench", "apgd", 0.3)]
    assert comparison.verdict(rows)[1]
    assert len(comparison.cells(rows)) == 2


def test_the_overview_has_a_line_for_each_cell(comparison: Any) -> None:
    failed = {**row("torchattacks", "autoattack"), "status": "failed", "reason": "IndexError"}
    idle = row("torchattacks", "pgd", 0.1, gain_normal=0.1, gain_anomalous=0.05)
    drawn = {"eps": "4/255", "backwards": 160.0, "repeats": 3}
    rows = [
        *[row(**CONTROL), failed, idle, row("foolbox", "pgd", 0.3), row("bench", "apgd", 0.25)],
        *[row("secml-torch", "pgd", 0.2), row("bench", "pgd", 0.5, **drawn), row("foolbox", "pgd", 0.4, **drawn)],
    ]
    head, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in comparison.overview(rows).splitlines()
    ]
    first, second = (dict(zip(head, line, strict=True)) for line in lines)
    assert (first["noise"], first["apgd"], first["pgd"]) == ("0.900", "0.250", "")
    assert (first["best peer"], first["the others"]) == ("0.200 secml-torch pgd", "0.300 foolbox pgd")
    assert (second["passes"], second["images"], second["norm eps"]) == ("40 x 4 draws", "10, 3 seeds", "linf 4/255")
    assert (second["pgd"], second["best peer"], second["the others"]) == ("0.500", "0.400 foolbox pgd", "")


def test_a_peer_that_failed_says_why_in_the_table(comparison: Any) -> None:
    failed = {**row("torchattacks", "autoattack"), "status": "failed", "reason": "IndexError: index -3 | of 2"}
    text = comparison.markdown([failed, row("foolbox", "pgd", 0.3)])
    lines = text.splitlines()
    assert "IndexError: index -3 / of 2" in lines[-1]
    assert {line.count("|") for line in lines} == {len(comparison.COLUMNS) + 1}
    assert comparison.as_csv([failed]).count("\n") == 2


def test_rows_are_kept_by_line_and_found_again(comparison: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    first, second = row("foolbox", "pgd", 0.3), row("foolbox", "ddn", 0.4)
    comparison.append(path, first)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(second)[:40])  # the process was killed here
    comparison.append(path, second)
    assert comparison.read(path) == [first, second]
    assert comparison.key(first) != comparison.key(second)
    assert comparison.key({**first, "auroc": 0.1, "seconds": 9.0}) == comparison.key(first)
    assert comparison.key({**first, "passes": 20}) != comparison.key(first)


def test_of_rows_with_one_key_the_last_counts(comparison: Any) -> None:
    (members,) = comparison.cells([row("foolbox", "pgd", 0.3), row("foolbox", "pgd", 0.2)]).values()
    assert [member["auroc"] for member in members] == [0.2]


@pytest.mark.slow
def test_a_finished_row_is_not_run_again(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "side_by_side.py"), "--param", "steps=20", "--param", "width=4"]
    command += ["--ours", "pgd", "--peers", "", "--threats", "linf:2/255", "--limit", "4", "--passes", "2"]
    command += ["--out", str(tmp_path / "table")]
    first, second = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stdout + first.stderr
    assert "2 rows, 0 of them" in first.stdout and "2 rows, 2 of them" in second.stdout
    assert "no peer to compare with" in second.stdout
    header, noise, pgd = (tmp_path / "table.csv").read_text().splitlines()
    assert header.startswith("detector,data,norm,eps,library,attack,auroc")
    assert {noise.split(",")[4], pgd.split(",")[4]} == {"control", "bench"}
