"""Anomaly maps under attack: images whose maps point elsewhere, and where the pixels of their maps lie.

Pixels are compared on one scale, z = (map - mean) / deviation of held-out normal pixels; above the alarm level, their
99.9 % quantile, a pixel counts as anomalous. One loss fits no metric of segmentation, and the strongest attacks on
dense prediction are ensembles of losses (Croce, Singh & Hein 2024, https://arxiv.org/abs/2306.12941): so the attack
is run with each of LOSSES, and an image is judged by what a metric is made of, the pixel AUROC of its own map where it
is anomalous, and the mean of its map where it is normal. What the adversary does to one image never depends on the
others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cells.pixels import to_text
from ..cells.rows import Row
from ..cells.schema import MAP_COLUMNS, MapScaleRecord
from ..cells.spec import RunSpec
from ..core.attack import NOTHING, Attack, Context
from ..core.data import BATCH_SIZE, Data, TestSet
from ..core.detector import Detector, Hints
from ..core.manners import left_as_it_was
from ..core.opaque import opaque
from ..core.rng import Rng
from ..core.score import Passes, Score, where_it_failed
from ..errors import UserError
from ..stats.pixels import BINS
from .warm_starts import WarmStarts
from .worker import SMALLER, Attacker, Prepared, verified

QUANTILE = 0.999  # of held-out normal pixels: the alarm level
REACH = 8.0  # of asinh(z - alarm), beyond which pixels lie in the outermost bins
SMALLEST_DEVIATION = 1e-12
SOFT, SHARP = 1.0, 0.1  # temperatures, in deviations of normal pixels
BEST_MET = "met"


class Truth(NamedTuple):
    """Of an image: what its map should show."""

    label: int
    mask: Tensor
    """bool (H, W)"""
    covered: Tensor
    """(H, W): of each pixel of a region, 1 over the pixels of the region; 0 in the background."""


def truths_of(test: TestSet) -> dict[str, Truth]:
    """By id. Raises UserError for anomalous images that no mask marks."""
    from scipy import ndimage

    found, without = {}, []
    for i, record in enumerate(test.records):
        shape = (test.image_size, test.image_size)
        mask = test.mask(i) if record.label else None
        marked = torch.zeros(shape, dtype=torch.bool) if mask is None else mask[0]
        if record.label and not marked.any():
            without.append(record.id)
        regions, count = ndimage.label(marked.numpy(), structure=np.ones((3, 3)))
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        shares = np.where(regions > 0, 1 / np.maximum(sizes, 1)[regions], 0.0)
        found[record.id] = Truth(int(record.label), marked, torch.from_numpy(shares))
    if without:
        anomalous = sum(test.labels)
        raise UserError(
            f"--goal map needs the mask of every anomalous test image: {len(without)} of {anomalous} have none "
            f"(such as {without[0]})"
        )
    return found


class MapScale(NamedTuple):
    """From the map of a detector to z."""

    mean: float
    deviation: float
    alarm: float
    """In z."""
    images: int

    @classmethod
    def of(cls, record: MapScaleRecord) -> MapScale:
        """As a cell has it."""
        return cls(record.mean, record.deviation, record.alarm, record.held_out)

    @property
    def record(self) -> MapScaleRecord:
        return MapScaleRecord(mean=self.mean, deviation=self.deviation, alarm=self.alarm, held_out=self.images)

    def z(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, H, W)"""
        return (maps[:, 0] - self.mean) / self.deviation

    def bins(self, z: Tensor) -> Tensor:
        """Of each pixel; the alarm level is the edge below bin BINS / 2."""
        width = 2 * REACH / BINS
        place = torch.ceil(torch.asinh(z.double() - self.alarm) / width) + BINS // 2 - 1
        return place.clamp(0, BINS - 1).long()


class Maps:
    """The anomaly maps of a detector, on the scale of its held-out normal images."""

    def __init__(self, detector: Detector, name: str, draws: int):
        self.detector, self.name, self.draws = detector, name, draws
        self.passes = Passes()

    def of(self, x: Tensor, rng: Rng) -> Tensor:
        """(B, 1, H, W) of images x (B, 3, H, W), the mean over draws; no gradient."""
        with torch.no_grad():
            drawn = [asked(self.detector, self.name, x, rng) for _ in range(self.draws)]
        self.passes.forwards += len(x) * self.draws
        found = torch.stack(drawn).mean(0)
        if not found.isfinite().all():
            raise UserError(f"detector {self.name}: its anomaly map holds values that are not finite")
        return found

    def scale(self, data: Data, seed: int) -> MapScale:
        """Of the normal images that the detector was not fitted on."""
        _, held = data.train.split(seed)
        if not len(held):
            raise UserError("--goal map needs held-out normal images, which set the scale of the maps; there are none")
        found = []
        for start in range(0, len(held), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(held)))
            rng = Rng.held_out(seed, [held.records[i].id for i in rows])
            found.append(self.of(held.images(rows).to(self.detector.device), rng).cpu().double().numpy().ravel())
        pixels = np.concatenate(found)
        mean, deviation = float(pixels.mean()), float(pixels.std())
        if deviation < SMALLEST_DEVIATION * max(abs(mean), 1.0):
            raise UserError(f"detector {self.name}: the pixels of its maps of normal images are all {mean:g}")
        return MapScale(mean, deviation, float(np.quantile((pixels - mean) / deviation, QUANTILE)), len(held))


def raw_map(detector: Detector, name: str, x: Tensor, rng: Rng | None) -> Tensor:
    """As the detector gives it, after its shape and type are verified."""
    build = detector.anomaly_map
    if build is None:
        raise UserError(f"detector {name} has no anomaly map (anomaly_map), which --goal map attacks")
    found = build(x, opaque(rng)) if detector.randomized else build(x)
    if not isinstance(found, Tensor) or found.shape != (len(x), 1, *x.shape[2:]) or not found.is_floating_point():
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"detector {name}: its anomaly map is {what} for images {tuple(x.shape)}; expected a float tensor "
            f"{(len(x), 1, *x.shape[2:])}"
        )
    return found


def asked(detector: Detector, name: str, x: Tensor, rng: Rng | None) -> Tensor:
    """As `raw_map`; a UserError of whatever the detector raises."""
    try:
        with left_as_it_was(f"detector {name}", "anomaly_map", x):
            return raw_map(detector, name, x, rng)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a plug-in may raise anything
        raise UserError(f"detector {name} failed in anomaly_map: {where_it_failed(error)}") from error


# What the attack follows at an image, to be raised: from z (B, H, W), masks (B, H, W), and the alarm level.
Loss = Callable[[Tensor, Tensor, float], Tensor]


def margin(z: Tensor, mask: Tensor, alarm: float) -> Tensor:
    """(B,): mean of the background above mean of the mask (the loss of PatchGuard, Nafez et al. 2025,
    https://arxiv.org/abs/2506.09237)."""
    return _mean(z, ~mask) - _mean(z, mask)


def cover(z: Tensor, mask: Tensor, alarm: float) -> Tensor:
    """(B,): the highest of the background, smoothly, and every pixel of the mask below the alarm level."""
    highest = SOFT * (z.masked_fill(mask, -torch.inf) / SOFT).flatten(1).logsumexp(1)
    return highest + _mean(SOFT * F.softplus((alarm - z) / SOFT), mask)


def _decisions(z: Tensor, mask: Tensor, alarm: float, temperature: float) -> Tensor:
    """(B,): share of the background above the alarm level and share of the mask below, smoothly."""
    above = torch.sigmoid((z - alarm) / temperature)
    return _mean(above, ~mask) + _mean(1 - above, mask)


soft_decisions: Loss = functools.partial(_decisions, temperature=SOFT)
sharp_decisions: Loss = functools.partial(_decisions, temperature=SHARP)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """(B,): over the pixels (B, H, W) that `where` names; 0 of none."""
    return (values * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)


class MapScore(Score):
    """sign * loss of an anomaly map, in place of a score: an attack that raises sign * score raises the loss."""

    method = "anomaly_map"

    def __init__(self, score: Score, truths: Mapping[str, Truth], scale: MapScale, loss: Loss):
        super().__init__(score.detector, score.name, None, "rank", score.differentiable)
        self.passes = score.passes
        self.truths, self.scale, self.loss = truths, scale, loss
        self.met: dict[str, tuple[float, Tensor]] = {}
        """Of each image, sign * what it is judged by, and the image that has the most of it; of a detector that draws
        no noise, as the largest of noisy values is a lucky one."""

    @property
    def hints(self) -> Hints:
        """Those of the score are about the score, but for blocks to go around."""
        return Hints(bpda=self.detector.attack_hints().bpda)

    def _found(self, x: Tensor, rng: Rng | None, wanted: bool) -> object:
        if rng is None:
            raise ValueError("the score of a map needs the source that names the images")
        z = self.scale.z(raw_map(self.detector, self.name, x, rng))
        some = [self.truths[name] for name in rng.ids]
        mask = torch.stack([truth.mask for truth in some]).to(x.device)
        sign = torch.tensor([1.0 - 2 * truth.label for truth in some]).to(z)
        if not self.detector.randomized:
            self._keep(x, z, rng.ids, sign)
        scores = (sign * self.loss(z, mask, self.scale.alarm)).to(x.dtype)
        return (scores, None) if wanted else scores

    @torch.no_grad()
    def _keep(self, x: Tensor, z: Tensor, ids: Sequence[str], sign: Tensor) -> None:
        judged = judge(z, [self.truths[name] for name in ids], self.scale)
        for i, (name, value) in enumerate(zip(ids, (sign * judged).tolist(), strict=True)):
            if math.isfinite(value) and value > self.met.get(name, (-math.inf,))[0]:
                self.met[name] = (value, x[i].detach().clone())


def judge(z: Tensor, truths: Sequence[Truth], scale: MapScale) -> Tensor:
    """(B,) in double precision: of an anomalous image the pixel AUROC of its own map, of a normal one the mean of its
    map; the adversary wants the first low, and the second high. (Normal images judged by the 99.9 % quantile of their
    maps moved pooled pixel AUROC and AUPRO less: docs/localisation.md.)"""
    counts = histograms(z, [(~truth.mask, truth.mask) for truth in truths], scale)
    background, inside = counts[:, 0], counts[:, 1]
    below = background.cumsum(1) - background / 2
    auroc = (inside * below).sum(1) / (inside.sum(1) * background.sum(1)).clamp_min(1)
    mean = z.flatten(1).double().mean(1)
    return torch.where(torch.tensor([truth.label == 1 for truth in truths], device=z.device), auroc, mean)


def histograms(z: Tensor, weights: Sequence[Sequence[Tensor]], scale: MapScale) -> Tensor:
    """(B, A, BINS) of maps z (B, H, W): for each of A weights (H, W) of an image, what lies in each bin."""
    bins = scale.bins(z).flatten(1)
    each = torch.stack([torch.stack([one.double() for one in own]) for own in weights]).to(z.device).flatten(2)
    found = torch.zeros(*each.shape[:2], BINS, dtype=torch.float64, device=z.device)
    return found.scatter_add_(2, bins[:, None].expand_as(each), each)


LOSSES: dict[str, Loss] = {"margin": margin, "cover": cover, "decisions": sharp_decisions}
"""By the name of their column. That of decisions is followed softly before."""


class Localiser(Attacker):
    """Attacks the anomaly maps of batches of one cell, and makes rows of what they come to."""

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        prepared: Prepared,
        attack: Attack,
        warm_starts: WarmStarts | None = None,
        tell: Callable[[str], None] = lambda message: None,
        scale: MapScale | None = None,
        transfer: bool = True,
    ):
        """scale: if somebody knows it. transfer: False leaves out the attack on the image score."""
        super().__init__(spec, data, prepared, attack, warm_starts)
        self.truths = truths_of(data.test)
        self.score = Score(prepared.detector, spec.detector, differentiable=prepared.differentiable)
        self.maps = Maps(prepared.detector, spec.detector, self.draws)
        self.maps.passes = self.score.passes
        self.scale = self.maps.scale(data, spec.seed) if scale is None else scale
        self.transfer = transfer
        attack.prepare(Context(data, spec.detector, self.score, spec.seed, tell))
        self.beforehand = Passes(self.score.forwards, self.score.backwards)

    def probe(self) -> None:
        """A map that is none, or has no gradient that the attack could follow, is refused before the work."""
        some = self.data.test.of_each_class(1)[:1]
        x, rng = self.data.test.images(some).to(self.prepared.device), self.rng(some)
        self.maps.of(x, rng.for_evaluation())
        if self.attack.needs_gradient and not map_has_gradient(self.prepared.detector, self.spec.detector, x, rng):
            raise UserError(
                f"the anomaly map of {self.spec.detector} has no gradient, which {self.spec.attack} follows; attacks "
                "that need none: square-linf, noise-linf"
            )

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these test images: clean and worst are what each map is judged by."""
        self.maps.passes = self.score.passes  # the cell counts anew from its first batch on
        x = self.data.test.images(indices).to(self.prepared.device)
        records = [self.data.test.records[i] for i in indices]
        rng, truths = self.rng(indices), [self.truths[record.id] for record in records]
        sign = torch.tensor([1.0 - 2 * truth.label for truth in truths], device=x.device)
        clean = self.scale.z(self.maps.of(x, rng.for_evaluation()))
        worst, moved = {"worst": clean.clone(), "transfer": clean.clone()}, x.clone()
        before = judge(clean, truths, self.scale)
        numbers = {name: before.clone() for name in ("clean", "worst", "rounded", "transfer", *LOSSES)}
        chosen = self.spec.threat.controls(torch.tensor([truth.label for truth in truths])).nonzero().flatten().tolist()
        if chosen:
            mine = [indices[i] for i in chosen]
            made = self._attack(mine, x[chosen], sign[chosen].to(x.dtype), clean[chosen], before[chosen])
            for name, image in made.z.items():
                worst[name][chosen] = image
            for name, values in made.numbers.items():
                numbers[name][chosen] = values
            moved[chosen] = made.images
        distance = self.spec.threat.distance(moved, x)
        self.warm_starts.put([record.id for record in records], moved)
        maps = zip(MAP_COLUMNS, (clean, *worst.values()), strict=True)
        texts = {column: self._texts(z, truths) for column, z in maps}
        table = {name: values.tolist() for name, values in numbers.items()}
        return [
            Row(
                record.id, record.label, table["clean"][i], table["worst"][i], float(distance[i]), table["rounded"][i],
                {name: table[name][i] for name in ("transfer", *LOSSES)},
                {column: own[i] for column, own in texts.items()},
            )
            for i, record in enumerate(records)
        ]  # fmt: skip

    def _texts(self, z: Tensor, truths: Sequence[Truth]) -> list[str]:
        counts = histograms(z, [(~t.mask, t.mask, t.covered) for t in truths], self.scale).cpu().numpy()
        return [to_text(*(own if truth.label else own[:1])) for own, truth in zip(counts, truths, strict=True)]

    def _attack(self, mine: Sequence[int], x: Tensor, sign: Tensor, clean: Tensor, before: Tensor) -> Made:
        """Images that the adversary controls; clean: their maps as they are, z (B, H, W), and what these are judged by
        before (B,)."""
        rng = self.rng(mine)
        truths = [self.truths[name] for name in rng.ids]
        images = self._candidates(x, sign, rng)
        z = {name: self.scale.z(self.maps.of(image, rng.for_evaluation())) for name, image in images.items()}
        judged = {name: judge(maps, truths, self.scale) for name, maps in z.items()}
        by = judged
        if self.prepared.detector.randomized:  # by draws of their own, so that none wins by luck
            by = {name: self.judged(image, rng.for_choice()) for name, image in images.items()}
        rows = torch.arange(len(x), device=x.device)
        best = torch.stack([sign * values for values in by.values()]).argmax(0)
        value = torch.stack(list(judged.values()))[best, rows]
        better = sign * value > sign * before
        worst = torch.where(better[:, None, None], torch.stack(list(z.values()))[best, rows], clean)
        moved = torch.where(better[:, None, None, None], torch.stack(list(images.values()))[best, rows], x)
        rounded = self.judged((moved * 255).round() / 255, rng.for_evaluation())
        numbers = {name: sign * torch.maximum(sign * judged[name], sign * before) for name in LOSSES}
        numbers |= {
            "worst": torch.where(better, value, before),
            "rounded": rounded,
            "transfer": judged.get("transfer", before),
        }
        return Made(moved, {"worst": worst, "transfer": z.get("transfer", clean)}, numbers)

    def _candidates(self, x: Tensor, sign: Tensor, rng: Rng) -> dict[str, Tensor]:
        """What the attack makes with each loss, the best that it met on its way, and what it makes of the score."""
        found: dict[str, Tensor] = {}
        met: dict[str, tuple[float, Tensor]] = {}
        for name, loss in LOSSES.items():
            source, starts = rng.for_attack().child(name), None
            if loss is sharp_decisions and self.attack.takes_starts:
                starts = self._made(soft_decisions, x, sign, source.child("softly"), met)
            found[name] = self._made(loss, x, sign, source, met, starts)
        if (smaller := self.warm_starts.smaller(rng.ids, x)) is not None:
            found[SMALLER] = self.spec.threat.project(smaller, x)
        if met:
            best = torch.stack([met[name][1] if name in met else x[i] for i, name in enumerate(rng.ids)])
            found[BEST_MET] = self.spec.threat.project(best, x)
        if self.transfer and not (self.attack.needs_gradient and not self.prepared.differentiable):
            found["transfer"] = self._images(self.score, x, sign, rng.for_attack())
        return found

    def _made(
        self,
        loss: Loss,
        x: Tensor,
        sign: Tensor,
        rng: Rng,
        met: dict[str, tuple[float, Tensor]],
        starts: Tensor | None = None,
    ) -> Tensor:
        """The attack's images with one loss; `met` takes the best that it met."""
        score = MapScore(self.score, self.truths, self.scale, loss)
        image = self._images(score, x, sign, rng, {} if starts is None else {"starts": starts})
        for name, one in score.met.items():
            met[name] = max(met.get(name, one), one, key=lambda pair: pair[0])
        return image

    def _images(self, score: Score, x: Tensor, sign: Tensor, rng: Rng, more: Mapping[str, Any] = NOTHING) -> Tensor:
        """The attack's, after the threat model has verified them."""
        name = self.spec.attack
        return verified({name: self.returned(score, x, sign, rng, more)}, name, self.spec.threat, x)[name]

    def judged(self, images: Tensor, rng: Rng) -> Tensor:
        return judge(self.scale.z(self.maps.of(images, rng)), [self.truths[name] for name in rng.ids], self.scale)


class Made(NamedTuple):
    """Of attacked images."""

    images: Tensor
    z: dict[str, Tensor]
    """Maps (B, H, W): `worst` and `transfer`."""
    numbers: dict[str, Tensor]
    """(B,) by column."""


def map_has_gradient(detector: Detector, name: str, x: Tensor, rng: Rng) -> bool:
    """Whether the map of these images depends on them, as far as autograd sees."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        found = asked(detector, name, point, rng)
        if not found.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(found.sum(), point, allow_unused=True)
    return gradient is not None and bool((gradient != 0).any())
