"""`bench compare-scores`: do two detectors give the same images the same scores?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.exact import read_number
from ..errors import UserError
from .common import DEVICE, Request, assignments, known, option, place, say, share_out, whole

if TYPE_CHECKING:
    from ..core.data import Data
    from ..plugins.fitting import DetectorSpec

SHOWN = 5  # images
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class CompareScoresRequest(Request):
    """Two detectors and the images."""

    detectors: tuple[str, str]
    params: Mapping[str, str]
    dataset: str
    category: str | None
    data_root: Path | None
    image_size: int | None
    limit: int | None
    seed: int
    device: str
    tolerance: float

    def carry_out(self) -> int:
        """1 if an image has another score."""
        import numpy as np
        from scipy.stats import spearmanr

        from ..plugins.lookup import load_data
        from ..stats.metrics import auroc

        specs = self._specs()
        data = load_data(self.dataset, category=self.category, root=self.data_root, image_size=self.image_size).limited(
            self.limit
        )
        a, b = (np.array(_scores(spec, data, self.seed)) for spec in specs)
        spread = float(np.ptp(a)) or 1.0
        off = np.abs(a - b) / spread
        order = np.argsort(-off, kind="stable")
        for name, scores in zip(self.detectors, (a, b), strict=True):
            say(f"{name}: scores {scores.min():.6g} to {scores.max():.6g}, AUROC {auroc(data.test.labels, scores)}")
        say(f"rank correlation {spearmanr(a, b).statistic:.6f}")
        for i in order[:SHOWN]:
            say(f"{data.test.ids[i]}: {a[i]:.6g} and {b[i]:.6g}, {off[i]:.2e} of the spread apart")
        differing = int((off > self.tolerance).sum())
        verdict = f"{differing} of {len(off)} images" if differing else "no image"
        say(
            f"{'FAIL' if differing else 'pass'}: {verdict} differ{'s' * (not differing)} by more than "
            f"{self.tolerance:g} of the spread of {self.detectors[0]}'s scores"
        )
        return int(bool(differing))

    def _specs(self) -> list[DetectorSpec]:
        from ..plugins.fitting import DetectorSpec

        bare = {name: DetectorSpec(name) for name in self.detectors}
        accepted = {name: spec.accepted for name, spec in bare.items()}
        owners = [part.plugin.name for spec in bare.values() for part in spec.parts]
        shares = share_out("--param", self.params, accepted, owners)
        return [DetectorSpec(name, shares[name], self.seed, self.device) for name in self.detectors]


def _scores(spec: DetectorSpec, data: Data, seed: int) -> Sequence[float]:
    """Of all test images, as a run scores them."""
    from ..core.data import BATCH_SIZE
    from ..core.protocol import DRAWS, PROTOCOL
    from ..core.rng import Rng
    from ..core.score import Score

    detector = spec.fitted(data)
    score, found = Score(detector, spec.label), list[float]()
    draws = DRAWS[PROTOCOL] if detector.randomized else 1
    for start in range(0, len(data.test), BATCH_SIZE):
        some = range(start, min(start + BATCH_SIZE, len(data.test)))
        rng = Rng.evaluation(seed, [data.test.ids[i] for i in some])
        found += score.mean(data.test.images(some).to(detector.device), rng, draws).tolist()
    return found


def _share(_: click.Context, __: click.Parameter, text: str) -> float:
    share = read_number(text)
    if share is None or share < 0:
        raise UserError(f"--tolerance {text} must be a share of the spread of the scores, from 0 on, such as 0.001")
    return float(share)


@click.command(
    epilog="""\b
examples:
  bench compare-scores anomalib:padim exported:padim.onnx --dataset folder --data-root photos/ --category bottle \\
                       --image-size 256
"""
)
@click.argument("a", shell_complete=known("detectors"))
@click.argument("b", shell_complete=known("detectors"))
@option("--dataset", default="textures", show_default=True, metavar="NAME", shell_complete=known("datasets"))
@option("--category", metavar="C", help="needed where there are several")
@option("--data-root", type=click.Path(), callback=place, metavar="DIR", help="folder of the images")
@option("--image-size", callback=whole(), metavar="N", help="side in pixels  [default: the data set's]")
@option("--limit", callback=whole(), metavar="N", help="at most N test images")
@option("--param", "params", multiple=True, callback=assignments, metavar="K=V", help="as of run (repeatable)")
@option("--seed", default="0", show_default=True, callback=whole(), metavar="S", help="of both fits")
@option(
    "--tolerance",
    default=str(TOLERANCE),
    show_default=True,
    callback=_share,
    metavar="T",
    help="share of the spread of A's scores by which an image may differ",
)
@DEVICE
def command(a: str, b: str, **options: Any) -> CompareScoresRequest:
    """Whether two detectors score the same images alike.

    A is fitted, or loaded, as a run does it; B may be what was exported of it. Exit code 1 if an image differs.
    """
    return CompareScoresRequest(detectors=(a, b), **options)
