"""From a batch of images to the rows of a cell: scored, attacked, verified, scored again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..cells.rows import Row
from ..cells.schema import ScoringRecord
from ..cells.spec import RunSpec
from ..core.attack import Attack, Attacked, Context, Trace, Tried
from ..core.check import Check
from ..core.data import Data
from ..core.detector import Detector, Origin
from ..core.manners import left_as_it_was
from ..core.rng import Rng, probe_lot
from ..core.score import Passes, Score, Settled, where_it_failed
from ..core.threat import ThreatModel
from ..core.threshold import Threshold
from ..errors import UserError
from .clean_scores import CleanScores
from .warm_starts import WarmStarts
from .witness import Witness

PROBE_IMAGES = 4  # of each class, scored before the work
SMALLER = "smaller ball"
"""Among the candidates of an attack: what a smaller eps of the same sweep has shown."""

NO_GRADIENT = (
    "the score of {detector} has no gradient (no_grad, detach or NumPy inside score), which attack {attack} follows: "
    "let it through, or say `differentiable = False` in the class and attack with square-linf"
)


class Afresh(NamedTuple):
    """Scores of images by a twin of the detector that has not seen the run."""

    scores: Tensor
    """(draws, N), on the CPU."""
    where: str
    """How the twin was made."""
    suspect: str = ""
    """What it does with a file in which it may remember images, after "it"; empty if nothing was seen."""


class Elsewhere(Protocol):
    """Scores images with such a twin."""

    def __call__(self, images: Tensor, names: Sequence[str], draws: int) -> Afresh:
        """Of images (N, 3, H, W), under `draws` draws of noise with these names. Raises what the detector raises."""


class Prepared(NamedTuple):
    """What a run needs once it is clear that it has to run."""

    detector: Detector
    origin: Origin
    threshold: Threshold
    checks: Sequence[Check]
    device: torch.device
    gradient: bool | None = None
    """Whether its score was found to have a gradient that leads somewhere; None: nobody has looked."""
    elsewhere: Elsewhere | None = None
    clean: MutableMapping[Hashable, Tensor] | None = None
    """What cells of this detector have found of the test images as they are, for the next ones: `CleanScores`, and
    certified radii; None: nobody shares them."""

    scoring: MutableMapping[int, ScoringRecord] | None = None
    """What a score costs, by the side of an image, as far as another cell has measured it; None: nobody shares it."""

    @property
    def differentiable(self) -> bool:
        """What was found, else what the detector declares."""
        return self.detector.differentiable if self.gradient is None else self.gradient


class Work(Protocol):
    """Makes the rows of a cell."""

    prepared: Prepared
    score: Score
    beforehand: Passes
    """What was spent before the first batch, and belongs to the attack."""

    def probe(self) -> None:
        """Refuses, before the work, what would be refused after it."""

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """The rows of these test images."""


class Attacker(ABC):
    """What they share who attack the images of a cell, its scores or its maps."""

    def __init__(
        self, spec: RunSpec, data: Data, prepared: Prepared, attack: Attack, warm_starts: WarmStarts | None = None
    ):
        self.spec, self.data, self.prepared, self.attack = spec, data, prepared, attack
        self.warm_starts = warm_starts or WarmStarts()
        self.draws = spec.score_draws if prepared.detector.randomized else 1

    def rng(self, indices: Sequence[int]) -> Rng:
        """What the run draws for these test images."""
        return Rng.of_run(self.spec.seed, [self.data.test.records[i].id for i in indices])

    def noted(self, index: int, image: Tensor) -> float:
        """What the row of a test image says of this one (3, H, W), in its stead."""
        return float(self.judged(image[None], self.rng([index]).for_evaluation()))

    @abstractmethod
    def judged(self, images: Tensor, rng: Rng) -> Tensor:
        """(B,): what a row says of each of the images (B, 3, H, W), in the stead of those that the source names."""

    def returned(self, score: Score, x: Tensor, sign: Tensor, rng: Rng, more: Mapping[str, Any]) -> object:
        """What the attack returns; nobody has verified it."""
        try:
            with left_as_it_was(f"attack {self.spec.attack}", "its call"):
                return self.attack(score, x.clone(), sign.clone(), self.spec.threat, rng, **more)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UserError(self._why(error, x, rng)) from error

    def _why(self, error: Exception, x: Tensor, rng: Rng) -> str:
        """What an attack that fails at these images tells."""
        return f"attack {self.spec.attack} failed: {where_it_failed(error)}"


class Worker(Attacker):
    """Scores and attacks batches of one cell."""

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        prepared: Prepared,
        attack: Attack,
        warm_starts: WarmStarts | None = None,
        tell: Callable[[str], None] = lambda message: None,
        clean: Sequence[float] | None = None,
        survey: bool = True,
    ):
        """clean: scores of all test images, if somebody has them. survey: False leaves out the attack's."""
        super().__init__(spec, data, prepared, attack, warm_starts)
        threshold = prepared.threshold.value if prepared.threshold.held_out else None
        self.score = Score(prepared.detector, spec.detector, threshold, spec.goal, prepared.differentiable)
        if spec.goal == "threshold":
            self.score.needed_threshold("--goal threshold")
        wants_gradient = attack.needs_gradient if attack.knows_noise is None else attack.knows_noise
        self.gradient = prepared.differentiable and wants_gradient
        attack.prepare(Context(data, spec.detector, self.score, spec.seed, tell))
        self._clean = CleanScores(data.test, self._each_of, (spec.seed, self.draws), prepared.clean)
        self.witness = Witness(spec.seed, len(data.test))
        if attack.settles and spec.goal == "rank":
            self.score.settled = self._settled(clean, threshold)
        self.tried = self._survey() if survey and attack.surveyed else None
        self.beforehand = self.score.passes
        self.parts, self.numbers = attack.parts, attack.numbers
        # of a randomized detector an attack meets lucky draws, whose maximum is not what it has reached
        self.budget = attack.budget if attack.takes_trace and not self.score.randomized else None

    def _settled(self, clean: Sequence[float] | None, threshold: float | None) -> Settled | None:
        """Beyond what an image can flip no pair; None where there is one class."""
        labels = torch.tensor(self.data.test.labels)
        if len(set(self.data.test.labels)) < 2:
            return None
        if clean is None:
            return Settled.of(self._clean.of(range(len(labels))).mean(0).cpu(), labels, threshold)
        return Settled.of(torch.tensor(clean), labels, threshold)

    def _survey(self) -> Tried | None:
        """The attack looks at a few images that it may move, chosen by lot."""
        seed, test = self.spec.seed, self.data.test
        controlled = self.spec.threat.controls(torch.tensor(test.labels)).tolist()
        some: list[int] = []
        for label in (0, 1):
            own = [i for i, (y, may) in enumerate(zip(test.labels, controlled, strict=True)) if y == label and may]
            some += sorted(own, key=lambda i: probe_lot(seed, f"survey\t{test.ids[i]}"))[: self.attack.surveyed]
        if not some:
            return None
        x = test.images(some).to(self.prepared.device)
        sign = torch.tensor([1.0 - 2 * test.labels[i] for i in some]).to(x)
        names, labels = [test.ids[i] for i in some], [test.labels[i] for i in some]
        with self.witness.watching(self.score, names, labels):
            return self.attack.survey(self.score, x, sign, self.spec.threat, self.rng(some).for_attack())

    def _each_of(self, indices: Sequence[int]) -> Tensor:
        """(draws, B): the scores of these clean images, whose mean is reported. Rows count them."""
        images, before = self.data.test.images(indices).to(self.prepared.device), self.score.forwards
        found = self.score.each(images, self.rng(indices).for_evaluation(), self.draws)
        self.score.passes.forwards = before
        return found

    def probe(self) -> None:
        """A score that is not finite, or the same for every image, is refused before the work, not after."""
        some = self.data.test.of_each_class(PROBE_IMAGES)
        x = self.data.test.images(some).to(self.prepared.device)
        rng = self.rng(some)
        scores = self._finite(self.score.mean(x, rng, 1), some, "clean")
        refuse_constant(self.spec.detector, scores.tolist(), f"{len(some)} different images")

    def batch(self, indices: Sequence[int]) -> list[Row]:
        """Rows of these test images. `worst` is never better for the detector than `clean`, or than what a smaller
        eps of the same sweep has shown: doing less is always allowed."""
        x = self.data.test.images(indices).to(self.prepared.device)
        labels = torch.tensor([self.data.test.labels[i] for i in indices], device=x.device)
        sign = 1.0 - 2.0 * labels.to(x.dtype)
        draws = self._clean.of(indices)
        self.score.passes.forwards += draws.numel()  # also where another cell, or another row, has made them
        columns = self._unmoved(indices, x, sign, draws)
        chosen = self.spec.threat.controls(labels).nonzero().flatten()
        if len(chosen):
            mine = [indices[i] for i in chosen.tolist()]
            for name, values in self._attack(mine, x[chosen], sign[chosen], draws[:, chosen]).items():
                columns[name][chosen] = values.to(columns[name])
        records = [self.data.test.records[index] for index in indices]
        table = {name: values.tolist() for name, values in columns.items()}
        more = [name for name in columns if name not in Row._fields]
        return [
            Row(r.id, r.label, clean, worst, distance, rounded, {name: table[name][i] for name in more})
            for i, (r, clean, worst, distance, rounded) in enumerate(
                zip(records, table["clean"], table["worst"], table["distance"], table["rounded"], strict=True)
            )
        ]

    def _unmoved(self, indices: Sequence[int], x: Tensor, sign: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """All columns, each (B,), of images that nobody attacks; `draws` (N, B) are their scores."""
        clean = self._finite(draws.mean(0), indices, "clean")
        columns = {"clean": clean, "worst": clean.clone(), "rounded": clean.clone()}
        columns["distance"] = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for part in (*self.parts, *(Trace(self.budget).columns if self.budget else ())):
            columns[part] = clean.clone()
        for number in self.numbers:
            columns[number] = torch.full_like(columns["distance"], torch.nan)
        if self.score.randomized:
            columns |= self._of_draws(draws, draws)
            columns["worst_draw"] = sign * (sign * draws).amax(0)
            if self.gradient:
                columns["known_noise"] = self.score.with_known_noise().mean(x, self.rng(indices), 1)
        return columns

    @staticmethod
    def _of_draws(clean: Tensor, worst: Tensor) -> dict[str, Tensor]:
        """Standard errors of the mean scores, from the single ones (N, B); none of a single draw."""
        if len(clean) < 2:
            return {}
        return {name: each.std(0) / len(each) ** 0.5 for name, each in (("clean_se", clean), ("worst_se", worst))}

    def _attack(self, mine: Sequence[int], x: Tensor, sign: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """Columns of images that the adversary controls; `draws` (N, B) are the scores of the clean images."""
        rng, clean = self.rng(mine), draws.mean(0)
        ids = [self.data.test.ids[i] for i in mine]
        smaller = self.warm_starts.smaller(ids, x)
        trace = Trace(self.budget) if self.budget else None
        with self.witness.watching(self.score, ids, [self.data.test.labels[i] for i in mine]):
            attacked = self.attacked(self.score, x, sign, rng.for_attack(), smaller, trace)
        images = dict(attacked.images)
        if smaller is not None:
            images[SMALLER] = smaller
        after = {name: self.score.each(image, rng.for_evaluation(), self.draws) for name, image in images.items()}
        means = {name: self._finite(each.mean(0), mine, "attacked") for name, each in after.items()}
        best, rows = self._best(images, means, sign, rng), torch.arange(len(x), device=x.device)
        value = torch.stack(list(means.values()))[best, rows]
        moved = sign * value > sign * clean
        x_adv = torch.where(moved[:, None, None, None], torch.stack(list(images.values()))[best, rows], x)
        self.warm_starts.put(ids, x_adv)
        self.witness.put(mine, x_adv, self.data.test)
        rounded = self.score.mean((x_adv * 255).round() / 255, rng.for_evaluation(), self.draws)
        columns = {
            "worst": torch.where(moved, value, clean),
            "distance": self.spec.threat.distance(x_adv, x),
            "rounded": self._finite(rounded, mine, "rounded"),
        }
        reached = {name: sign * means[name] for name in self.parts}
        if trace is not None:
            reached |= dict(zip(trace.columns, trace.best, strict=True))
        columns |= {name: sign * torch.maximum(gained, sign * clean) for name, gained in reached.items()}
        if self.score.randomized:
            each = torch.stack(list(after.values()))[best, :, rows].mT  # (N, B)
            columns |= self._of_draws(draws, torch.where(moved, each, draws))
            columns["worst_draw"] = sign * torch.maximum((sign * each).amax(0), (sign * draws).amax(0))
            if self.gradient:
                columns["known_noise"] = self._with_known_noise(x, sign, rng, x_adv)
        return columns | dict(attacked.columns)

    def _best(self, images: dict[str, Tensor], means: dict[str, Tensor], sign: Tensor, rng: Rng) -> Tensor:
        """(B,): which candidate; of a randomized detector by draws of their own, so that none wins by luck. On the
        reported draws a smaller eps may come out ahead of what was chosen, and is taken then."""
        chosen = means
        if self.score.randomized and len(images) > 1:
            chosen = {name: self.score.mean(image, rng.for_choice(), self.draws) for name, image in images.items()}
        best = torch.stack([sign * values for values in chosen.values()]).argmax(0)
        if SMALLER not in images:
            return best
        value = torch.stack(list(means.values()))[best, torch.arange(len(best), device=best.device)]
        return torch.where(sign * means[SMALLER] > sign * value, list(images).index(SMALLER), best)

    def _with_known_noise(self, x: Tensor, sign: Tensor, rng: Rng, x_adv: Tensor) -> Tensor:
        """Scores under one draw that the adversary knows; never better for the detector than doing nothing."""
        known = self.score.with_known_noise()
        attacked = self.attacked(known, x, sign, rng.for_attack_on_known_noise(), x_adv)
        with torch.no_grad():
            found = [sign * known(image, rng) for image in (x, x_adv, *attacked.images.values())]
        return sign * torch.stack(found).amax(0)

    def attacked(
        self, score: Score, x: Tensor, sign: Tensor, rng: Rng, starts: Tensor | None, trace: Trace | None = None
    ) -> Attacked:
        """The attack's images, after the threat model has verified them."""
        name = self.spec.attack
        more: dict[str, Any] = {"starts": starts} if starts is not None and self.attack.takes_starts else {}
        more |= {"trace": trace} if trace is not None else {}
        found = self.returned(score, x, sign, rng, more)
        parts: Mapping[str, object] = found.images if isinstance(found, Attacked) else {name: found}
        images = verified(parts, name, self.spec.threat, x)
        if trace is not None and len(trace.best) < len(trace.passes):
            raise UserError(f"attack {name} takes a trace and does not keep it to its last pass")
        return Attacked(images, found.columns if isinstance(found, Attacked) else {})

    def _why(self, error: Exception, x: Tensor, rng: Rng) -> str:
        if self._has_no_gradient(x, rng):
            return NO_GRADIENT.format(detector=self.spec.detector, attack=self.spec.attack)
        return super()._why(error, x, rng)

    def _has_no_gradient(self, x: Tensor, rng: Rng) -> bool:
        """The detector says that it is differentiable, and no gradient reaches the image."""
        if not (self.prepared.differentiable and self.attack.needs_gradient):
            return False
        with torch.enable_grad():
            found = self.score.with_evidence(x.detach().clone().requires_grad_(), rng)
        return not any(part is not None and part.requires_grad for part in found)

    def judged(self, images: Tensor, rng: Rng) -> Tensor:
        return self.score.mean(images, rng, self.draws)

    def _finite(self, scores: Tensor, indices: Sequence[int], what: str) -> Tensor:
        return finite(scores, self.spec.detector, [self.data.test.ids[i] for i in indices], what)


def verified(images: Mapping[str, object], attack: str, threat: ThreatModel, x: Tensor) -> dict[str, Tensor]:
    """What an attack returned instead of x (B, 3, H, W), by part; UserError where it is none, or leaves the ball."""
    found = {}
    for part, image in images.items():
        if not isinstance(image, Tensor):
            raise UserError(
                f"attack {attack} must return images as a tensor {tuple(x.shape)}, or bench.Attacked, got "
                f"{type(image).__name__}"
            )
        found[part] = image.detach().to(x)
    for image in found.values():
        if wrong := threat.violation(image, x):
            raise UserError(f"attack {attack} broke the rules: an image {wrong}; the run is refused")
    return found


def finite(scores: Tensor, detector: str, ids: Sequence[str], what: str) -> Tensor:
    """The scores (B,) of these images; a UserError, which says `what` they are of, if one is none."""
    for name, value in zip(ids, scores.tolist(), strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"detector {detector} gives the {what} image {name} the score {value}; scores must be finite"
            )
    return scores


def refuse_constant(detector: str, scores: Sequence[float], images: str) -> None:
    """A UserError if these `images` have one and the same score."""
    if len(set(scores)) == 1:
        raise UserError(
            f"detector {detector} gives {images} the same score {scores[0]:g}: a constant score ranks nothing"
        )


SAME = 1e-4  # of the spread of clean scores: two scorings of one image
