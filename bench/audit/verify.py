"""`bench verify`: do a cell's files still say what was computed, and do its stored images get the scores it claims?

Unlike `bench check-run`, nothing is attacked, and a detector is needed only where images are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cells.images import ImageRecord, read_image
from ..cells.limits import Allowance, refuse_unreadable
from ..cells.record import DamagedRecord, read_finished
from ..cells.result import Result, metrics_of
from ..cells.rows import Row, Table, read_samples
from ..cells.schema import FinishedRecord, FitRecord, beyond_budget, radii_of, wrong_rows
from ..cells.spec import RunSpec
from ..core.data import BATCH_SIZE
from ..core.detector import Detector
from ..core.rng import Rng
from ..core.score import Score
from ..core.threat import TOLERANCE
from ..engine.localiser import Maps, MapScale, judge, truths_of
from ..engine.worker import SAME
from ..errors import UserError
from ..system.provenance import versions
from .rebuild import Overrides, Rebuilt

METRIC_TOLERANCE = 1e-9  # relative: another scikit-learn may add in another order
ROUNDING = 1e-6  # relative: a distance, added up on another device


class Verified(NamedTuple):
    """One test. `note` says what may explain a difference, `skip` what could not be looked at; neither is a failure."""

    status: Literal["pass", "FAIL", "note", "skip"]
    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.status:7} {self.name}: {self.sentence}"


def verify(folder: Path, given: Overrides, scores: bool = True, submitted: bool = False) -> Iterator[Verified]:
    """Every test of a cell, one at a time; after a failed `schema` none follows. submitted: it must state its metrics.

    Raises UserError for a cell that is not finished or was written by another version and, with `scores`, where images
    are stored whose detector cannot be built and fitted here.
    """
    try:
        record = read_finished(folder)
    except DamagedRecord as error:
        yield Verified("FAIL", "schema", str(error))
        return
    try:
        text, digest = read_samples(folder)
        table = Table.from_csv(text, folder / "samples.csv")
        if wrong := wrong_rows(table, record):
            raise UserError(wrong)
        if submitted:
            result = Result(folder, record, table)
            Allowance().take(result)
            refuse_unreadable(result)
    except UserError as error:
        yield Verified("FAIL", "schema", str(error))
        return
    rows = table.rows
    columns = 6 + len(rows[0].more)
    yield Verified("pass", "schema", f"{len(rows)} rows of {columns} columns, as run.json counts them")
    yield rows_are_those(digest, record)
    yield metrics_are_those(metrics_of(folder, record, rows), record, submitted)
    yield bounds_are_ordered(rows, record) if record.kind == "certificate" else budget_is_kept(table, record)
    rebuilt = Rebuilt(record, given)
    yield code_is_installed(rebuilt)
    if not record.images:
        yield no_images(record, scores and submitted)
        return
    yield from verify_images(folder, rebuilt, rows, scores)


def rows_are_those(digest: str, record: FinishedRecord) -> Verified:
    """The hash that the run wrote beside its rows."""
    if digest == record.samples_sha256:
        return Verified("pass", "rows", f"samples.csv is what the run wrote (sha256 {digest[:8]})")
    was = record.samples_sha256[:8]
    return Verified("FAIL", "rows", f"samples.csv was changed after the run: its sha256 is {digest[:8]}, not {was}")


def metrics_are_those(found: Mapping[str, float], record: FinishedRecord, submitted: bool = False) -> Verified:
    """Every published metric, from the rows once more; a submission without any claims nothing that could be tested."""
    stored = record.metrics or {}
    if not stored and submitted:
        return Verified(
            "FAIL", "metrics", "not recorded: a submission must state them; run the cell again with --force"
        )
    if not stored:
        return Verified("skip", "metrics", "not recorded: the cell was finished before metrics were")
    for name, value in stored.items():
        if name not in found:
            return Verified("FAIL", "metrics", f"{name} is in run.json, and the rows have none")
        if not _same(found[name], value):
            return Verified("FAIL", "metrics", f"{name} is {found[name]!r} by the rows, {value!r} in run.json")
    sentence = f"{len(stored)} metrics follow from the rows"
    if later := [name for name in found if name not in stored]:
        return Verified("note", "metrics", f"{sentence}; not recorded when the cell was finished: {', '.join(later)}")
    return Verified("pass", "metrics", sentence)


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=METRIC_TOLERANCE) or (math.isnan(a) and math.isnan(b))


def budget_is_kept(table: Table, record: FinishedRecord) -> Verified:
    """No image further than it may be moved, and none better for the detector than before."""
    if far := beyond_budget(table, record):
        return Verified("FAIL", "budget", far)
    radii, rows = radii_of(record), table.rows
    for row in rows:
        moved = (1 - 2 * row.label) * (row.worst - row.clean)
        if moved < 0 or (moved > 0 and not radii[row.label]):
            way = "better for the detector than" if moved < 0 else "another than the clean one, and nobody may move it:"
            return Verified("FAIL", "budget", f"{row.id} has a score {way} {row.clean:.6g}: {row.worst:.6g}")
    furthest, name = max(row.distance for row in rows), f"{record.spec.norm} {record.spec.eps}"
    return Verified("pass", "budget", f"no image is further than {furthest:.6g} ({name}), none gains by the attack")


def bounds_are_ordered(rows: Sequence[Row], record: FinishedRecord) -> Verified:
    """Of a certificate: every bound on its side, and `worst` the one that counts."""
    radii, threshold = radii_of(record), record.threshold.value
    for row in rows:
        if row.distance != radii[row.label]:
            return Verified("FAIL", "bounds", f"{row.id} has radius {row.distance:.6g}, not {radii[row.label]:.6g}")
        if record.spec.goal == "threshold":
            edge = math.nextafter(threshold, math.inf) if row.label else threshold
            if row.worst not in (edge, -math.inf if row.label else math.inf):
                return Verified("FAIL", "bounds", f"{row.id} has {row.worst:.6g} as its verdict, which is none")
            continue
        low, high, low_0, high_0 = (row.more[name] for name in ("low", "high", "low_0", "high_0"))
        ordered = [low, low_0, row.clean, high_0, high]
        if not all(a <= b or math.isclose(a, b, rel_tol=METRIC_TOLERANCE) for a, b in pairwise(ordered)):
            shown = ", ".join(f"{value:.6g}" for value in ordered)
            return Verified("FAIL", "bounds", f"{row.id} has bounds out of order: {shown}")
        if row.worst != (low if row.label else high):
            return Verified("FAIL", "bounds", f"{row.id} has {row.worst:.6g} in column worst, which is not its bound")
        if row.more["certified_radius"] < 0:
            return Verified("FAIL", "bounds", f"{row.id} has the radius {row.more['certified_radius']:.6g}")
    what = "verdicts are verdicts" if record.spec.goal == "threshold" else "bounds are in order"
    return Verified("pass", "bounds", f"{len(rows)} {what}")


def code_is_installed(rebuilt: Rebuilt) -> Verified:
    """What is installed here and is not what the run had: its numbers may be others here."""
    record, said = rebuilt.record, []
    for kind, name, code, here in (
        ("detector", record.spec.detector, record.detector.code, lambda: rebuilt.detector_code),
        ("attack", record.spec.attack, record.attack.code, lambda: rebuilt.attack_code),
    ):
        try:
            if here() != code:
                said.append(f"the code of {kind} {name} is not that of the run")
        except UserError as error:
            reason = str(error).partition(" Known: ")[0]
            said.append(f"the code of {kind} {name} is not compared: {reason} (--{kind} FILE:CLASS)")
    installed = versions()
    said += [
        f"{package} {installed.get(package) or 'absent'} here, {then or 'absent'} in the run"
        for package, then in record.versions.items()
        if installed.get(package) != then
    ]
    if said:
        return Verified("note", "code", "; ".join(said))
    return Verified("pass", "code", "detector, attack and package versions are those of the run")


def no_images(record: FinishedRecord, needed: bool) -> Verified:
    """Of a cell that stores none: where nothing could be compared, nothing was verified. needed: for scores."""
    if needed:
        return Verified("FAIL", "images", "none are stored, so nothing was scored again: --rerun")
    if not record.metrics:
        return Verified("FAIL", "images", "none are stored, and no metrics are recorded: nothing could be compared")
    return Verified("skip", "images", "none are stored")


class Stored(NamedTuple):
    """A stored image and its row: float (3, H, W) in [0, 1]."""

    row: Row
    clean: Tensor
    attacked: Tensor


def verify_images(folder: Path, rebuilt: Rebuilt, rows: Sequence[Row], scores: bool) -> Iterator[Verified]:
    """The stored images of a cell: what they are, that they are the data set's, and their scores."""
    stored = stored_images(folder, rebuilt, rows)
    if isinstance(stored, Verified):
        yield stored
        return
    yield Verified("pass", "images", f"{len(stored)} stored images are whole, and as far away as their rows say")
    found_here = clean_images_are_the_data(stored, rebuilt, rows)
    yield found_here
    if scores and found_here.status != "FAIL":
        yield scores_are_those(stored, rebuilt, rows)


def stored_images(folder: Path, rebuilt: Rebuilt, rows: Sequence[Row]) -> list[Stored] | Verified:
    """Those that the record names, or the failure that says which of them is not what it says."""
    by_id = {row.id: row for row in rows}
    stored: list[Stored] = []
    for image in rebuilt.record.images:
        found = _read_image(folder, image, by_id.get(image.id), rebuilt.record.spec)
        if isinstance(found, str):
            return Verified("FAIL", "images", f"{image.file} ({image.id}) {found}")
        stored.append(found)
    return stored


def _read_image(folder: Path, image: ImageRecord, row: Row | None, spec: RunSpec) -> Stored | str:
    """The image, or what is wrong with it."""
    if row is None or row.label != image.label:
        return "has no row of that id and label"
    arrays = read_image(folder, image, spec.image_size)
    if isinstance(arrays, str):
        return arrays
    found = Stored(row, torch.from_numpy(arrays["clean"]), torch.from_numpy(arrays["attacked"]))
    threat = spec.threat
    if wrong := threat.violation(found.clean[None], found.clean[None]):
        return f"has a clean image that {wrong}"
    if wrong := threat.violation(found.attacked[None], found.clean[None]):
        return f"has an attacked image that {wrong}"
    distance = threat.distance(found.attacked[None], found.clean[None]).item()
    if not math.isclose(distance, row.distance, rel_tol=ROUNDING):
        return f"is moved by {distance:.9g}, and its row says {row.distance:.9g}"
    return found


def clean_images_are_the_data(stored: Sequence[Stored], rebuilt: Rebuilt, rows: Sequence[Row]) -> Verified:
    """The stored clean images beside those of the data set that is here."""
    where = f"{rebuilt.record.spec.dataset}/{rebuilt.record.spec.category}"
    try:
        data = rebuilt.data
    except UserError as error:
        return Verified("skip", "data", f"not compared with the images of {where}: {error}")
    then = rebuilt.record.spec.dataset_version
    if data.version != then:
        return Verified("FAIL", "data", f"the run had version {then} of {where}, and here is version {data.version}")
    if not rebuilt.same_images:
        return Verified("FAIL", "data", f"the images of {where} here are not those of the run")
    if [row.id for row in rows] != data.test.ids or [row.label for row in rows] != data.test.labels:
        return Verified("FAIL", "data", f"the ids and labels of the rows are not those of {where}")
    index = {name: i for i, name in enumerate(data.test.ids)}
    for image in stored:
        off = float((image.clean - data.test.image(index[image.row.id])).abs().max())
        if off > TOLERANCE:
            return Verified("FAIL", "data", f"the clean image of {image.row.id} is {off:.3g} off that of {where}")
    return Verified("pass", "data", f"{len(stored)} clean images are those of {where}")


def scores_are_those(stored: Sequence[Stored], rebuilt: Rebuilt, rows: Sequence[Row]) -> Verified:
    """The stored images, scored again under the noise of the run: `clean` and `worst` to SAME of the spread of the
    clean scores, since another batch size changes the last bits."""
    spec, candidate = rebuilt.record.spec, rebuilt.detector
    if candidate.changed != spec.detector_parameters:
        raise UserError(f"the parameters of detector {spec.detector} are not those of the run: {candidate.changed}")
    detector = candidate.fitted(rebuilt.data)
    assert detector.origin is not None
    if rebuilt.record.map_scale is not None:
        furthest, name = _furthest_off(stored, _judged(detector, rebuilt), detector.device)
    else:
        furthest, name = _furthest_off(stored, _scored(detector, spec), detector.device)
    spread = float(np.ptp([row.clean for row in rows]))
    sentence = (
        f"{2 * len(stored)} scores, computed again, are {furthest:.1e} off at most ({name}); clean scores spread over "
        f"{spread:.4g}"
    )
    if furthest <= SAME * spread:
        return Verified("pass", "scores", sentence)
    if _weights(FitRecord.of(detector.origin.fit)) != _weights(rebuilt.record.detector.fit):
        sentence += "; the weights that were fitted here are not those of the run, which may be all there is to it"
    return Verified("FAIL", "scores", sentence)


Scorer = Callable[[Tensor, Sequence[str]], Sequence[float]]
"""What the rows of images (N, 3, H, W) with these ids say of them."""


def _scored(detector: Detector, spec: RunSpec) -> Scorer:
    score = Score(detector, spec.detector)
    draws = spec.score_draws if score.randomized else 1
    return lambda x, ids: score.mean(x, Rng.evaluation(spec.seed, ids), draws).tolist()


def _judged(detector: Detector, rebuilt: Rebuilt) -> Scorer:
    """Of a cell of maps, on the scale that it has."""
    spec, scale = rebuilt.record.spec, rebuilt.record.map_scale
    assert scale is not None
    maps = Maps(detector, spec.detector, spec.score_draws if detector.randomized else 1)
    truths, own = truths_of(rebuilt.data.test), MapScale.of(scale)

    def values(x: Tensor, ids: Sequence[str]) -> Sequence[float]:
        z = own.z(maps.of(x, Rng.evaluation(spec.seed, ids)))
        found: list[float] = judge(z, [truths[name] for name in ids], own).tolist()
        return found

    return values


def _furthest_off(stored: Sequence[Stored], scorer: Scorer, device: torch.device) -> tuple[float, str]:
    """By how much a number is not that of its row, and which."""
    furthest, name = 0.0, ""
    for start in range(0, len(stored), BATCH_SIZE):
        some = stored[start : start + BATCH_SIZE]
        for column in ("clean", "attacked"):
            x = torch.stack([getattr(image, column) for image in some]).to(device)
            for image, found in zip(some, scorer(x, [image.row.id for image in some]), strict=True):
                then = image.row.clean if column == "clean" else image.row.worst
                off = abs(found - then) if math.isfinite(found) else math.inf
                if off >= furthest:
                    furthest, name = off, f"{image.row.id}, {column}"
    return furthest, name


def _weights(fit: FitRecord | None) -> dict[str, str | None]:
    """Part -> the hash of what it was fitted to."""
    if fit is None:
        return {}
    return {name: part.model_sha256 for name, part in (fit.parts or {"": fit}).items()}
