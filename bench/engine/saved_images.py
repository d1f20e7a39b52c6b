"""Adversarial images beside the rows of a cell: chosen by the rows, not rounded, with their anomaly maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cells.images import ImageRecord
from ..cells.record import SAVED
from ..cells.rows import Row
from ..cells.schema import Record
from ..core.opaque import opaque
from ..core.score import where_it_failed
from ..core.threat import ThreatModel
from ..errors import UserError
from ..system import arrays, files
from ..system.files import file_sha256
from .localiser import Localiser
from .worker import SAME, Worker

Work = Worker | Localiser
MOST_MOVED, HARDEST = "most moved", "hardest"
GONE = "not in the cache (deleted, or attacked before they were asked for)"
OTHER = "not those that the rows were computed from"


class Saved(NamedTuple):
    """What the record says of the images that were written."""

    images: list[ImageRecord]
    warnings: list[str]


def refuse_less_than_one(count: int | None) -> None:
    """UserError for a number of images that is none; None asks for none."""
    if count is not None and count < 1:
        raise UserError(f"--save-images must be at least 1, got {count}")


def chosen(rows: Sequence[Row], threat: ThreatModel, count: int) -> dict[str, str]:
    """id -> why, normal images first: of each class that the threat model attacks, the `count` whose score moved most
    (one that did not move is none of them) and the `count` hardest, whose clean score is nearest the wrong side."""
    reasons: dict[str, list[str]] = {}
    for label in (0, 1):
        if not bool(threat.controls(torch.tensor([label]))):
            continue
        sign = 1 - 2 * label
        own = sorted((row for row in rows if row.label == label), key=lambda row: -sign * (row.worst - row.clean))
        for row in [row for row in own if row.worst != row.clean][:count]:
            reasons.setdefault(row.id, []).append(MOST_MOVED)
        for row in sorted(own, key=lambda row: -sign * row.clean)[:count]:
            reasons.setdefault(row.id, []).append(HARDEST)
    return {name: ", ".join(why) for name, why in reasons.items()}


def what_is_missing(folder: Path, rows: Sequence[Row], record: Record, threat: ThreatModel, count: int) -> str | None:
    """A sentence if a finished cell lacks images that `count` asks for."""
    there = {image.id for image in record.images if (folder / image.file).is_file()}
    wanted = chosen(rows, threat, count)
    have = len(there & wanted.keys())
    if have == len(wanted):
        return None
    found = f"with {have} of the {len(wanted)} images" if have else "without the images"
    return f"{folder}: finished {found} that --save-images {count} asks for; --force runs it again"


def save(folder: Path, worker: Work, rows: Sequence[Row], count: int) -> Saved:
    """Write the chosen images of a cell below its folder, one file each, whole or not at all.

    An image is written only if it lies in the ball and its score, computed again, is that of its row. Others are
    said in a warning, and so is a map that cannot be computed.
    """
    position = {row.id: i for i, row in enumerate(rows)}
    tolerance = SAME * float(np.ptp([row.clean for row in rows]))  # its last digits depend on the batch
    wanted = chosen(rows, worker.spec.threat, count)
    images: list[ImageRecord] = []
    missing, no_maps = Counter[str](), ""
    for name, why in wanted.items():
        index = position[name]
        clean = worker.data.test.image(index).to(worker.prepared.device)
        attacked = worker.warm_starts.get(name, clean)
        if attacked is None or not _is_of_row(worker, index, rows[index], clean, attacked, tolerance):
            missing[GONE if attacked is None else OTHER] += 1
            continue
        kept = {"clean": clean, "attacked": attacked}
        if (mask := worker.data.test.mask(index)) is not None:
            kept["mask"] = mask[0]
        try:
            kept |= _maps(worker, index, clean, attacked)
        except Exception as error:  # of a plug-in; the images are worth keeping without
            no_maps = where_it_failed(error)
        file = f"{SAVED}/{files.digest(name)}.npz"
        arrays.write_arrays(folder / file, {key: array.float().cpu().numpy() for key, array in kept.items()})
        images.append(
            ImageRecord(
                id=name, label=1 if rows[index].label else 0, why=why, file=file, sha256=file_sha256(folder / file)
            )
        )
    warnings = []
    if missing:
        reasons = "; ".join(f"{n} {reason}" for reason, n in missing.items())
        lost = sum(missing.values())
        warnings.append(f"{lost} of the {len(wanted)} images of --save-images {count} are missing: {reasons}")
    if no_maps:
        warnings.append(f"saved images are without anomaly maps: {no_maps}")
    return Saved(images, warnings)


def _is_of_row(worker: Work, index: int, row: Row, clean: Tensor, attacked: Tensor, tolerance: float) -> bool:
    """Whether the image lies in the ball, and has the score that was noted: the cache may hold another run's."""
    inside = worker.spec.threat.violation(attacked[None], clean[None]) is None
    return inside and abs(worker.noted(index, attacked) - row.worst) <= tolerance


def _maps(worker: Work, index: int, clean: Tensor, attacked: Tensor) -> dict[str, Tensor]:
    """(h, w) each, none where the detector has no map; of a randomized one the mean over the draws that its score is
    the mean of."""
    detector = worker.prepared.detector
    build = detector.anomaly_map
    if build is None:
        return {}
    maps = {}
    for name, image in (("map_clean", clean), ("map_attacked", attacked)):
        noise = (opaque(worker.rng([index]).for_evaluation()),) if detector.randomized else ()
        with torch.no_grad():
            found = torch.stack([build(image[None], *noise) for _ in range(worker.draws)]).mean(0)
        if found.ndim != 4 or found.shape[:2] != (1, 1):
            raise ValueError(f"anomaly_map is {tuple(found.shape)}, expected (1, 1, H, W)")
        maps[name] = found[0, 0]
    return maps
