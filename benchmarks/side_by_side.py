"""Our attacks beside the field's attack libraries: same detector, images, norm, eps and number of passes.

    python benchmarks/side_by_side.py --detectors autoencoder --categories brick --limit 24 --out side_by_side

Every row runs in a process of its own, so that its peak memory is its own, and is appended to OUT.jsonl when it is
done; a row that is there is not run again. At the end OUT.md and OUT.csv are written, the best peer of each cell and
our margins are printed, and the exit status is 1 where `standard` is above the best peer by more than 0.005, or `apgd`
by more than 0.01. benchmarks/README.md says how to install the libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import comparison
import torch
from comparison import CONTROL, OURS, Row
from peers import CONTROL as NOISE
from peers import PEERS, Peer, PeerAttack
from sklearn.metrics import roc_auc_score
from torch import Tensor

import bench
from bench import Attack, Attacked, Context, Data, Rng, Score, ThreatModel, UserError
from bench.cells.rows import Row as ImageRow
from bench.cells.spec import RunSpec
from bench.core.parameters import parse_assignments
from bench.core.protocol import PROTOCOL
from bench.core.threat import eps_text
from bench.engine.worker import Prepared, Worker
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec
from bench.plugins.lookup import make_attack
from bench.system.memory import PeakMemory, keep_freed_memory

THREATS = "linf:2/255,l2:0.2,l2:0.5"


def main() -> int:
    options = arguments()
    if options.row:
        Path(options.result).write_text(json.dumps(run_row(json.loads(options.row))), encoding="utf-8")
        return 0
    out = Path(options.out)
    path = out.with_name(out.name + ".jsonl")
    try:
        wanted = list(planned(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    kept = comparison.read(path)
    present = {comparison.key(row) for row in kept if row["status"] == "done" or not options.again}
    todo = [row for row in wanted if comparison.key(row) not in present]
    print(f"{len(wanted)} rows, {len(wanted) - len(todo)} of them are in {path}", flush=True)
    for i, row in enumerate(todo):
        row = in_own_process(row)
        comparison.append(path, row)
        told = f"AUROC {row['auroc']:.4f}, {row['seconds']:.1f} s" if row["status"] == "done" else row["reason"]
        what = f"{row['detector']} {row['category']} {row['norm']} {row['eps']} {row['library']} {row['attack']}"
        print(f"[{i + 1}/{len(todo)}] {what}: {told}", flush=True)
    names = {comparison.key(row) for row in wanted}
    rows = [row for row in comparison.read(path) if comparison.key(row) in names]
    out.with_name(out.name + ".md").write_text(
        f"{comparison.overview(rows)}\n{comparison.markdown(rows)}", encoding="utf-8"
    )
    out.with_name(out.name + ".csv").write_text(comparison.as_csv(rows), encoding="utf-8")
    print(comparison.overview(rows))
    sentences, good = comparison.verdict(rows)
    print("\n".join(sentences))
    return 0 if good else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", default="autoencoder", help="names, comma-separated")
    parser.add_argument("--param", action="append", default=[], metavar="K=V", help="of the detectors that have it")
    parser.add_argument("--dataset", default="textures")
    parser.add_argument("--data-root")
    parser.add_argument("--categories", default="brick")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--ours", default="pgd", help="our attacks, e.g. apgd,standard,pgd:restarts=2; empty for none")
    parser.add_argument("--peers", default="all", help=f"of {', '.join(PEERS)}; empty for none")
    parser.add_argument("--threats", default=THREATS, help=f"norm:eps, comma-separated; by default {THREATS}")
    parser.add_argument("--limit", type=int, help="test images, by default all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--passes", type=int, default=40, help="forward + backward passes per image (and draw)")
    parser.add_argument("--draws", type=int, default=8, help="per step, where a detector is randomized")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--repeats", type=int, default=1, help="seeds of attack and scoring on one fitted detector; AUROC is their mean"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="side_by_side", help="OUT.jsonl, OUT.md and OUT.csv are written")
    parser.add_argument("--again", action="store_true", help="run rows that failed before once more")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    return parser.parse_args()


def planned(options: argparse.Namespace) -> Iterator[Row]:
    """The rows that the options ask for, noise first in every cell."""
    given = parse_assignments(options.param)
    unused = set(given)
    peers = chosen_peers(options.peers)
    reader = registry.load("datasets", options.dataset).target
    image_size = options.image_size or reader.IMAGE_SIZE
    for name in _listed(options.detectors):
        accepted = DetectorSpec(name).accepted
        params = {k: v for k, v in given.items() if k in accepted}
        unused -= set(params)
        candidate = DetectorSpec(name, params)
        for category in _listed(options.categories):
            for threat in map(parse_threat, _listed(options.threats)):
                cell: Row = {
                    "detector": candidate.label,
                    "detector_parameters": candidate.changed,
                    "detector_code": candidate.code[:16],
                    "dataset": options.dataset,
                    "category": category,
                    "image_size": image_size,
                    "dataset_version": getattr(reader, "VERSION", 1),
                    "protocol": PROTOCOL,
                    "limit": options.limit,
                    "batch_size": options.batch_size,
                    "seed": options.seed,
                    "repeats": options.repeats,
                    "passes": options.passes,
                    "draws": options.draws,
                    "norm": threat.norm,
                    "eps": eps_text(threat.eps),
                    "given": params,
                    "name": name,
                    "data_root": options.data_root,
                    "device": options.device,
                }
                yield {**cell, "library": CONTROL, "attack": NOISE.name, "version": None}
                for text in _listed(options.ours):
                    yield {**cell, "library": OURS, "attack": text, "version": our_attack(text, cell)[1][:16]}
                for peer in (p for p in peers if threat.norm in p.norms):
                    yield {**cell, "library": peer.package, "attack": peer.name, "version": peer.version}
    if unused:
        raise UserError(f"no detector of this run has the parameter {', '.join(sorted(unused))}")


def chosen_peers(text: str) -> list[Peer]:
    names = list(PEERS) if text == "all" else _listed(text)
    for name in names:
        if name not in PEERS:
            raise UserError(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
    return [PEERS[name] for name in names]


def parse_threat(text: str) -> ThreatModel:
    norm, _, eps = text.partition(":")
    return ThreatModel(norm, eps)


def our_attack(text: str, cell: Row) -> tuple[Any, str]:
    """`apgd:restarts=2` -> the attack and the hash of its code. Its steps are the passes, unless given or `standard`,
    whose budget is its definition; its draws are the run's."""
    name, *rest = text.split(":")
    given = parse_assignments(rest)
    _, _, attack, code = make_attack(name)
    known: set[str] = {f.name for f in fields(attack)} if is_dataclass(attack) else set()
    same = {"draws": cell["draws"]} | ({} if name.startswith("standard") else {"steps": cell["passes"]})
    same = {k: str(v) for k, v in same.items() if k in known and k not in given}
    return make_attack(name, same | given)[2], code


def in_own_process(row: Row) -> Row:
    """The row with its result; where the process fails, with the reason."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--row", json.dumps(row), "--result", str(result)]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode == 0 and result.exists():
            found: Row = json.loads(result.read_text(encoding="utf-8"))
            return found
    last = (run.stdout.strip().splitlines() or ["no output"])[-1]
    return {**row, "status": "failed", "reason": f"exit status {run.returncode}: {last}"}


def run_row(row: Row) -> Row:
    keep_freed_memory()
    try:
        return {**row, "status": "done", **measured(row)}
    except UserError as error:
        return {**row, "status": "failed", "reason": str(error)}


class Measured(Attack):
    """An attack whose seconds and passes are counted apart from those of the evaluation."""

    knows_noise = False  # no peer has that column

    def __init__(self, attack: Attack):
        self.attack = attack
        self.seconds, self.forwards, self.backwards = 0.0, 0, 0

    def prepare(self, context: Context) -> None:
        self.attack.prepare(context)
        self.parts, self.numbers = self.attack.parts, self.attack.numbers

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor | Attacked:
        before, started = (score.forwards, score.backwards), _clock(x)
        result: Tensor | Attacked = self.attack(score, x, sign, threat, rng)
        self.seconds += _clock(x) - started
        self.forwards += score.forwards - before[0]
        self.backwards += score.backwards - before[1]
        return result


def measured(row: Row) -> dict[str, Any]:
    """Attacks all images as the harness does: verified, scored with the harness's own draws, never worse than clean."""
    attack = attack_of(row)
    data = bench.load_data(
        row["dataset"], category=row["category"], root=row["data_root"], image_size=row["image_size"]
    ).limited(row["limit"])
    candidate = DetectorSpec(row["name"], row["given"], seed=row["seed"], device=row["device"])
    detector = candidate.fitted(data)
    assert detector.origin is not None
    ready = Prepared(detector, detector.origin, candidate.threshold(data), [], detector.device)
    counted = Measured(attack)
    warm_up(attack, data, ready)
    memory = PeakMemory(detector.device)
    before = memory.mebibytes()
    repeats = [attacked(row, seed, data, ready, counted) for seed in range(row["seed"], row["seed"] + row["repeats"])]
    peak, images = memory.mebibytes(), len(data.test)
    labels = data.test.labels
    aurocs = [float(roc_auc_score(labels, [r.worst for r in results])) for results in repeats]
    gains = {
        label: [(1 - 2 * label) * (r.worst - r.clean) for results in repeats for r in results if r.label == label]
        for label in (0, 1)
    }
    return {
        "images": images,
        "clean_auroc": float(roc_auc_score(labels, [r.clean for r in repeats[0]])),
        "auroc": sum(aurocs) / len(aurocs),
        "aurocs": aurocs,
        "gain_normal": sum(gains[0]) / len(gains[0]),
        "gain_anomalous": sum(gains[1]) / len(gains[1]),
        "forwards": counted.forwards / images / len(repeats),
        "backwards": counted.backwards / images / len(repeats),
        "seconds": round(counted.seconds / len(repeats), 3),
        "peak_memory": peak,
        "added_memory": None if peak is None or before is None else peak - before,
        "overstep": max(attack.overstep, default=0.0) if isinstance(attack, PeerAttack) else 0.0,
        "threads": torch.get_num_threads(),
    }


def attacked(row: Row, seed: int, data: Data, ready: Prepared, attack: Measured) -> list[ImageRow]:
    threat = ThreatModel(row["norm"], row["eps"])
    spec = RunSpec(
        detector=row["name"], detector_parameters=row["detector_parameters"], attack=row["attack"],
        attack_parameters={}, norm=threat.norm, eps=eps_text(threat.eps), targets="both", dataset=data.name,
        category=data.category, image_size=data.image_size, seed=seed, limit=row["limit"], draws=None, goal="rank",
        dataset_version=data.version, protocol=PROTOCOL,
    )  # fmt: skip
    worker = Worker(spec, data, ready, attack)
    results = []
    for start in range(0, len(data.test), row["batch_size"]):
        results += worker.batch(range(start, min(start + row["batch_size"], len(data.test))))
    return results


def attack_of(row: Row) -> Any:
    if row["library"] == OURS:
        return our_attack(row["attack"], row)[0]
    peer = NOISE
    if row["library"] != CONTROL:
        peer = next(p for p in PEERS.values() if (p.package, p.name) == (row["library"], row["attack"]))
    missing = peer.missing()
    if missing:
        raise UserError(missing)
    return PeerAttack(peer, row["passes"], row["draws"])


def warm_up(attack: Any, data: Data, ready: Prepared) -> None:
    """What libraries and torch prepare when they are first used is not timed: one pass, and two of a peer, on an image
    of each class."""
    labels = data.test.labels
    pair = [labels.index(0), labels.index(1)]
    x, score = data.test.images(pair).to(ready.device), Score(ready.detector)
    point = x.clone().requires_grad_(True)
    value = score(point)
    if value.requires_grad:
        torch.autograd.grad(value.sum(), point)
    if isinstance(attack, PeerAttack):
        short = replace(attack, passes=2, overstep=[])
        with contextlib.suppress(Exception):  # what is wrong is said when it counts
            short(score, x, torch.tensor([1.0, -1.0]).to(x), ThreatModel("l2", "0.2"), Rng(0, ["normal", "anomalous"]))


def _clock(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
