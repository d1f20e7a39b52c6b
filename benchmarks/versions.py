"""Whether this version of the standard evaluation is as strong as the one before: both on the same images.

    python benchmarks/versions.py --data-root DIR [--cells autoencoder-brick,...] [--limit 40] [--results versions]

DIR holds the categories of the real cells (folders in the layout of MVTec AD); a cell without its folder is left out,
and said. Transfer is left out of both: it fits other detectors and moves no score here. Against detectors that draw
noise the version before asks its black box for few queries, since each takes the draws of a score. What is there is not
run again. Printed is a markdown table: robust AUROC of both, and their forward + backward passes an image.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import bench

HERE = Path(__file__).resolve().parent
BOTH = ("standard", "standard-v3")
FEW = 10  # queries of the black box of standard-v3, where a score takes many draws


class Cell(NamedTuple):
    detector: str
    category: str
    ball: str
    params: Mapping[str, str] = MappingProxyType({})
    size: int = 64
    noisy: bool = False

    @property
    def name(self) -> str:
        return f"{self.detector.partition(':')[2] or self.detector}-{self.category}".lower()


SMALL = {"steps": "600"}
CELLS = (
    Cell("autoencoder", "brick", "linf 2/255"),
    Cell("autoencoder", "mvtec_bottle", "linf 2/255"),
    Cell("autoencoder", "kolektor_sdd", "l2 0.2"),
    Cell("patchcore", "mvtec_toothbrush", "linf 0.25/255", {"weights": "mobilenetv2_100"}),
    Cell("ocr-gan", "brick", "linf 0.5/255", {"steps": "300"}),
    Cell("anomalib:padim", "mvtec_bottle", "linf 0.25/255", {"weights": "mobilenetv2_100"}),
    Cell("pls", "mvtec_bottle", "linf 2/255"),
    Cell("adv-autoencoder", "grass", "linf 2/255", SMALL),
    Cell(f"{HERE / 'nearest.py'}:Nearest", "mvtec_bottle", "linf 2/255"),
    Cell(f"{HERE / 'nearest.py'}:Nearest", "aws_cookie", "l2 0.5"),
    Cell("smoothed+autoencoder", "brick", "linf 2/255", {"smoothed.n": "5"}, 32, True),
    Cell("diffpure+autoencoder", "brick", "linf 2/255", {"diffpure.steps": "600"}, 32, True),
    Cell("advrad", "mvtec_toothbrush", "linf 2/255", SMALL, 64, True),
    Cell("advrad", "brick", "l2 0.5", SMALL, 32, True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder of the real categories")
    parser.add_argument("--weights", type=Path, help="folder of NAME.safetensors, where a cell names a backbone")
    parser.add_argument("--cells", default=",".join(cell.name for cell in CELLS))
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--results", default="versions")
    options = parser.parse_args()
    wanted = options.cells.split(",")
    rows = []
    for cell in (cell for cell in CELLS if cell.name in wanted):
        if found := measured(cell, options):
            rows.append(found)
            print(f"| {' | '.join(found)} |", flush=True)
    print("\n| detector | category | ball | px | robust, now | before | passes, now | before |\n|" + " --- |" * 8)
    for row in rows:
        print(f"| {' | '.join(row)} |")


def measured(cell: Cell, options: argparse.Namespace) -> list[str] | None:
    """Both evaluations of a cell."""
    builtin = "_" not in cell.category
    if not builtin and not (options.data_root and (options.data_root / cell.category).is_dir()):
        print(f"left out: {cell.name}, whose images are not in --data-root")
        return None
    params = dict(cell.params)
    if "weights" in params:
        path = options.weights and options.weights / f"{params['weights']}.safetensors"
        if not path or not path.is_file():
            print(f"left out: {cell.name}, whose weights are not in --weights")
            return None
        params["weights"] = str(path)
    root = None if builtin else options.data_root
    data = bench.load_data("textures" if builtin else "folder", category=cell.category, root=root, image_size=cell.size)
    norm = cell.ball.partition(" ")[0]
    robust, passes = [], []
    for attack in BOTH:
        given: dict[str, object] = {"transfer": False}
        if cell.noisy and attack != BOTH[0]:
            given["queries"] = FEW
        rows = bench.evaluate(
            cell.detector,
            data,
            f"{attack}-{norm}",
            cell.ball,
            params=params,
            attack_params=given,
            limit=options.limit,
            results=options.results,
        )
        record, count = rows.attrs["run"], len(rows)
        metrics = rows.metrics
        robust.append(f"{metrics['robust_auroc']:.3f}")
        passes.append(f"{math.ceil((record['forwards'] + record['backwards']) / count):,}")
    return [cell.name.rsplit("-", 1)[0], cell.category, cell.ball, str(cell.size), *robust, *passes]


if __name__ == "__main__":
    main()
