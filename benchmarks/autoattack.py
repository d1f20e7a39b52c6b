"""What plain AutoAttack says of a detector's AUROC, and what it misses: the numbers of docs/autoattack.md.

python benchmarks/autoattack.py [--detector autoencoder] [--category brick] [--eps 2/255] [--limit 40] [--queries 1000]
"""

from __future__ import annotations

import argparse

import pandas as pd
from sklearn.metrics import roc_auc_score

import bench

PLAIN, CONTINUED = "autoattack", "autoattack then apgd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="autoencoder")
    parser.add_argument("--category", default="brick")
    parser.add_argument("--norm", default="linf")
    parser.add_argument("--eps", default="2/255")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()

    data = bench.load_data("textures", category=options.category)
    threat = bench.ThreatModel(options.norm, options.eps)
    rows = bench.evaluate(
        options.detector, data, "autoattack", threat, attack_params={"queries": options.queries}, limit=options.limit
    )
    tau = rows.attrs["run"]["threshold"]["value"]
    anomalous = rows.label == 1

    def line(what: str, scores: pd.Series[float]) -> None:
        right = (scores > tau) == anomalous
        unmoved = int((scores == rows.clean).sum())
        print(
            f"{what:22}  AUROC {roc_auc_score(rows.label, scores):.3f}  accuracy {right.mean():.3f}  unmoved {unmoved}"
        )

    wrong = int(((rows.clean > tau) != anomalous).sum())
    robust = int((rows.broken == 0).sum())
    print(f"{options.detector} on {data.category}, {threat}, {len(rows)} images, {int(anomalous.sum())} anomalous")
    print(f"{wrong} wrong at the threshold from the start, {len(rows) - wrong - robust} broken, {robust} not broken")
    line("clean", rows.clean)
    line(PLAIN, rows[PLAIN])
    line(CONTINUED, rows[CONTINUED])
    apgd = bench.evaluate(options.detector, data, "apgd", threat, limit=options.limit)
    line("apgd alone", apgd.worst)
    for name, frame in ((f"{PLAIN} and what goes on", rows), ("apgd", apgd)):
        record = frame.attrs["run"]
        print(
            f"{name}: {record['forwards']} forward and {record['backwards']} backward passes, {record['seconds']:.0f} s"
        )


if __name__ == "__main__":
    main()
