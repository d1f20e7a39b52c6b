"""Checks of a detector's contract: what must hold before a number of it may be believed.

Each check is a function of a fitted detector and a few images; it returns a sentence and whether it passed. The
contract tests and `bench check-detector` run all of them on a toy task; every `bench run` makes those `OF_A_RUN` on the
images that it is about to judge, and keeps the sentences.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..core.bounds import sides
from ..core.check import Check
from ..core.data import Data
from ..core.detector import RANDOM_WEIGHTS, Detector
from ..core.opaque import opaque
from ..core.parameters import accepted, unkept
from ..core.plain_score import plain_score
from ..core.rng import Rng
from ..core.score import Score, where_it_failed
from ..core.threat import ThreatModel
from ..errors import UserError
from ..plugins.fitting import DetectorSpec
from ..plugins.kept_fits import SCHEMA, load, save
from ..plugins.round_trip import Forgotten
from .ball import images_of_the_ball
from .of_gradient import (
    gradient_can_be_followed,
    gradient_is_the_gradient,
    has_gradient,
    images_do_not_mix,
)
from .probe import Probe, toy_data

RUN_IMAGES = 2  # of each class, for the checks of every run
ROWS_TOLERANCE = 1e-4  # of the spread of scores: batch against single image
GPU_TOLERANCE = 1e-2  # of the spread of scores
SAME_SCORE = 0.05  # share of images
FRESH_DRAWS = 8
STANDARD_ERRORS = 6  # between two means of few draws


Examined = TypeVar("Examined")  # by a check


def at_least_usual(variances: Tensor) -> Tensor:
    """(N,), of a few draws at each image: one that is below the mean of all is too small by luck, and a difference that
    is judged by it looks too large."""
    return variances.maximum(variances.mean())


def check_detector(candidate: DetectorSpec, image_size: int | None = None) -> Iterator[Check]:
    """Fit on a toy task, then every check, one at a time.

    `candidate` should carry toy parameters (`Detector.toy_parameters`) where a full fit is long.
    """
    data = toy_data(image_size)
    try:
        detector = candidate.fitted(data)
    except Forgotten as error:
        yield Check("round trip", False, str(error))
        return
    except UserError as error:
        yield Check("fit", False, str(error))
        return
    yield Check("fit", True, f"fits {len(data.train)} images of {data.image_size} pixels")
    images = data.test.images(range(len(data.test))).to(detector.device)
    probe = Probe(detector, images, data.test.ids, data, has_gradient(detector, images, data.test.ids))
    for name, check in CHECKS.items():
        yield run_check(name, check, probe)


def checks_of_run(probe: Probe, names: Sequence[str] | None = None) -> list[Check]:
    """What is checked with every run: the fitted detector on a few of the images that it is about to judge."""
    return [run_check(name, CHECKS[name], probe) for name in names or OF_A_RUN]


def probe_of(detector: Detector, data: Data) -> Probe:
    """The images of a run's checks, and whether the detector has a gradient there."""
    some = data.test.of_each_class(RUN_IMAGES)
    images, ids = data.test.images(some).to(detector.device), [data.test.ids[i] for i in some]
    return Probe(detector, images, ids, data, has_gradient(detector, images, ids))


def run_check(name: str, check: Callable[[Examined], tuple[bool, str]], examined: Examined) -> Check:
    """One check; what stops it is a failure of its own."""
    try:
        with torch.random.fork_rng():
            return Check(name, *check(examined))
    except Exception as error:
        return stopped(name, error)


def stopped(name: str, error: Exception) -> Check:
    """A check that could not be made has failed."""
    return Check(name, False, f"could not be checked: {where_it_failed(error)}")


def parameters_are_kept(probe: Probe) -> tuple[bool, str]:
    """A run can only record what it can read back."""
    names = accepted(type(probe.detector))
    lost = unkept(probe.detector)
    if lost:
        return False, f"the constructor's argument {lost[0]!r} is not kept as an attribute, so no run can record it"
    bare = [name for name, p in names.items() if p.default is p.empty or p.annotation is p.empty]
    if bare:
        return False, f"the constructor's argument {bare[0]!r} has no default or no annotation"
    return True, f"all {len(names)} parameters can be recorded"


def scores_are_numbers(probe: Probe) -> tuple[bool, str]:
    """Finite, on black, white and random images as well."""
    size = probe.images.shape[-1]
    odd = torch.stack(
        [
            torch.zeros(3, size, size),
            torch.ones(3, size, size),
            torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)),
        ]
    ).to(probe.images)
    scores = torch.cat([probe.score().detach(), Score(probe.detector)(odd, Rng(0, ["0", "1", "2"])).detach()])
    if not scores.isfinite().all():
        return False, "the score of a black, white, random or test image is not finite"
    if probe.spread(scores) <= 1e-12:
        return False, "every image has the same score"
    return True, "scores are finite, and differ between images"


def anomalies_score_higher(probe: Probe) -> tuple[bool, str]:
    """The direction: higher is more anomalous."""
    from sklearn.metrics import roc_auc_score

    auroc = float(roc_auc_score(probe.data.test.labels, probe.score().detach().cpu().numpy()))
    if auroc > 0.5:
        return True, f"plain defects score higher than normal images (AUROC {auroc:.2f})"
    if probe.detector.unranked == RANDOM_WEIGHTS:
        return True, f"the direction cannot be judged with random weights (AUROC {auroc:.2f}); give it trained ones"
    return False, (
        f"plain defects do not score higher than normal images (AUROC {auroc:.2f}); a higher score must "
        "mean more anomalous"
    )


def rows_are_independent(probe: Probe) -> tuple[bool, str]:
    """A score depends on its own image only: not on the batch, nor on the order."""
    with torch.no_grad():
        together = probe.score()
        order = list(reversed(range(len(probe.ids))))
        reordered = probe.score(probe.images[order], order)
        alone = torch.cat([probe.score(probe.images[i : i + 1], [i]) for i in range(len(probe.ids))])
    allowed = max(ROWS_TOLERANCE * probe.spread(together), 1e-6 * float(together.abs().max()))  # float32 rounds
    for what, other in (("alone", alone), ("in another order", reordered.flip(0))):
        off = float((together - other).abs().max())
        if off > allowed:
            return False, f"an image scored {what} differs from its score in the batch by {off:.3g}"
    return True, "an image's score is the same alone, in a batch and in another order"


def randomness_is_declared(probe: Probe) -> tuple[bool, str]:
    """Deterministic, or declared `randomized` and driven by the source that is given."""
    detector = probe.detector
    with torch.no_grad():
        if not detector.randomized:
            same = bool((probe.score() == probe.score()).all())
            return same, (
                "the same image has the same score twice"
                if same
                else "two scores of the same image differ, but `randomized` is False"
            )
        repeated = bool((probe.score(seed=1) == probe.score(seed=1)).all())
        varied = not bool((probe.score(seed=1) == probe.score(seed=2)).all())
        fresh = not bool((plain_score(detector.score(probe.images)) == plain_score(detector.score(probe.images))).all())
    if not repeated:
        return False, "score(x, rng) differs between two calls with the same source: it draws from somewhere else"
    if not varied:
        return False, "`randomized` is True, but score(x, rng) is the same for different sources"
    if not fresh:
        return False, "`randomized` is True, but score(x) repeats itself: it must draw fresh noise"
    return True, "score(x) draws fresh noise, score(x, rng) repeats with its source"


def scoring_changes_nothing(probe: Probe) -> tuple[bool, str]:
    """No buffer, parameter or training flag may move when an image is scored."""
    before = copy.deepcopy(probe.detector.state_dict())
    flags = [m.training for m in probe.detector.modules()]
    probe.score()
    after = probe.detector.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    if moved:
        return False, f"scoring changes {moved[0]}"
    if flags != [m.training for m in probe.detector.modules()]:
        return False, "scoring switches a module between train and eval mode"
    return True, "scoring leaves the detector as it was"


def generators_are_left_alone(probe: Probe) -> tuple[bool, str]:
    """Scoring and its gradient may draw from a global random generator, but never set it: that freezes whatever noise
    is drawn next, in the detector or beside it. And noise is as fresh after a gradient as before."""
    detector = probe.detector
    kept = np.random.get_state(), random.getstate()
    ends = []
    try:
        for start in (1, 2):
            torch.manual_seed(start)
            np.random.seed(start)
            random.seed(start)
            point = probe.images.clone().requires_grad_(probe.differentiable)
            first = plain_score(detector.score(point))
            if first.requires_grad:
                torch.autograd.grad(first.sum(), point, allow_unused=True)
            with torch.no_grad():
                second = plain_score(detector.score(probe.images))
            ends.append(generator_states(probe.images.device))
    finally:
        np.random.set_state(kept[0])
        random.setstate(kept[1])
    reset = [name for name in ends[0] if ends[0][name] == ends[1][name]]
    if reset:
        return False, f"scoring sets the state of {reset[0]}: two different states before it are the same one after it"
    if detector.randomized and torch.equal(first.detach(), second):
        return False, "after a gradient, score(x) repeats the noise of before"
    return True, "scoring sets no random generator" + (
        ", and its noise is fresh after a gradient" if detector.randomized else ""
    )


def generator_states(device: torch.device) -> dict[str, bytes]:
    """Of every global generator, by name."""
    found = {
        "torch's random generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random generator": repr(
            [value.tobytes() if isinstance(value, np.ndarray) else value for value in np.random.get_state(legacy=True)]
        ).encode(),
        "Python's random generator": repr(random.getstate()).encode(),
    }
    if device.type == "cuda":
        found["the GPU's random generator"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return found


def harness_adds_nothing(probe: Probe) -> tuple[bool, str]:
    """The harness's score is `detector.score` called directly; of a randomized detector, in the mean over draws."""
    detector, x = probe.detector, probe.images
    with torch.no_grad():
        if not detector.randomized:
            off = float((Score(detector)(x, Rng(0, probe.ids)) - plain_score(detector.score(x))).abs().max())
            same = off <= ROWS_TOLERANCE * probe.spread(plain_score(detector.score(x)))
            return same, f"the harness's score and detector.score differ by {off:.1e} at most"
        ours = Score(detector).each(x, Rng(0, probe.ids), FRESH_DRAWS).double()
        plain = torch.stack([plain_score(detector.score(x)) for _ in range(FRESH_DRAWS)]).double()
    error = (at_least_usual(ours.var(0) + plain.var(0)) / FRESH_DRAWS).sqrt()
    off = float(((ours.mean(0) - plain.mean(0)).abs() / error.clamp_min(1e-12 * probe.spread(plain.mean(0)))).max())
    return off <= STANDARD_ERRORS, (
        f"means of {FRESH_DRAWS} draws by the harness and by detector.score differ by {off:.1f} standard errors at most"
    )


def scores_are_distinct(probe: Probe) -> tuple[bool, str]:
    """Not clamped, rounded or saturated: different images have different scores, and none is exactly 0 or 1."""
    with torch.no_grad():
        scores = probe.score().tolist()
    images = probe.images.flatten(1)
    equal = {
        i
        for i in range(len(scores))
        for j in range(len(scores))
        if i != j and scores[i] == scores[j] and not torch.equal(images[i], images[j])
    }
    ends = {i for i, value in enumerate(scores) if value in (0, 1)}
    return tie_sentence(len(equal), len(ends), len(scores))


def tie_sentence(equal: int, ends: int, total: int) -> tuple[bool, str]:
    """Whether so few of `total` scores are shared or exactly 0 or 1 that they still rank."""
    if ends >= SAME_SCORE * total:
        return False, f"{ends} of {total} scores are exactly 0 or 1: saturated; the raw score should be returned"
    if equal >= SAME_SCORE * total:
        return False, f"{equal} of {total} images share their score with another: rounded, clamped or saturated"
    return True, f"{equal} of {total} images share their score with another, {ends} have exactly 0 or 1"


def saved_and_loaded_is_the_same(probe: Probe) -> tuple[bool, str]:
    """All that was learned is in the state dict. (A fit by name is compared with what is loaded of it, see
    `plugins/round_trip`; this is of a detector that the caller has fitted.)"""
    try:
        fresh = probe.detector.rebuilt()
    except Exception as error:  # it needs more than its parameters
        return True, f"not compared: it cannot be built anew ({where_it_failed(error)})"
    with tempfile.TemporaryDirectory() as folder:
        save(probe.detector, Path(folder), {"schema": SCHEMA})
        load(fresh, Path(folder))
    fresh.to(probe.images.device).eval()
    with torch.no_grad():
        again = Score(fresh)(probe.images, Rng(0, probe.ids))
        off = float((again - probe.score()).abs().max())
    if off > 1e-6 * max(float(again.abs().max()), 1.0):
        return (
            False,
            f"after saving and loading, a score differs by {off:.3g}: something learned is not in state_dict()",
        )
    return True, "scores survive saving and loading"


def gpu_agrees(probe: Probe) -> tuple[bool, str]:
    """The same scores on CPU and GPU, within what single precision allows."""
    if not torch.cuda.is_available():
        return True, "not compared with a GPU: there is none here"
    cpu, gpu = copy.deepcopy(probe.detector).cpu(), copy.deepcopy(probe.detector).cuda()
    with torch.no_grad():
        on_cpu = Score(cpu)(probe.images.cpu(), Rng(0, probe.ids))
        on_gpu = Score(gpu)(probe.images.cuda(), Rng(0, probe.ids)).cpu()
    off = float((on_cpu - on_gpu).abs().max()) / probe.spread(on_cpu)
    return off <= GPU_TOLERANCE, f"CPU and GPU scores differ by {off:.1e} of their spread"


def maps_fit_the_image(probe: Probe) -> tuple[bool, str]:
    """(B, 1, H, W) at the size of the image, where the method has a map."""
    build = probe.detector.anomaly_map
    if build is None:
        return True, "has no anomaly map"
    with torch.no_grad():
        shape = tuple(build(probe.images).shape)
    expected = (len(probe.images), 1, *probe.images.shape[-2:])
    return shape == expected, (f"anomaly map is {shape}" + ("" if shape == expected else f", expected {expected}"))


def evidence_is_that_of_the_score(probe: Probe) -> tuple[bool, str]:
    """Attacks climb the evidence in place of the score: it must come with that score, and from the same image."""
    detector, everyone, some = probe.detector, list(range(len(probe.ids))), [len(probe.ids) - 1, 0]

    def found(x: Tensor, rows: list[int]) -> tuple[Tensor, Tensor | None]:
        rng = opaque(Rng(0, [probe.ids[i] for i in rows]))
        return detector.score_with_evidence(x, rng) if detector.randomized else detector.score_with_evidence(x)

    with torch.no_grad():
        scores, evidence = found(probe.images, everyone)
        expected = probe.score()
    off = float((scores - expected).abs().max())
    if off > 1e-6 * float(expected.abs().max()):
        return False, f"score_with_evidence gives another score than score: they differ by {off:.3g}"
    if evidence is None:
        return True, "offers no local scores"
    shape = tuple(evidence.shape)
    if len(shape) != 2 or shape[0] != len(everyone) or not evidence.is_floating_point():
        return False, f"the evidence must be floats of shape ({len(everyone)}, P), got {shape} {evidence.dtype}"
    if not evidence.isfinite().all():
        return False, "the evidence is not finite"
    x = probe.images[some].requires_grad_(probe.differentiable)
    local = found(x, some)[1]
    if local is None or local.shape != (len(some), shape[1]):
        return False, "the evidence of an image has another shape in another batch"
    off = float((local.detach() - evidence[some]).abs().max())
    if off > max(ROWS_TOLERANCE * probe.spread(evidence), 1e-6 * float(evidence.abs().max())):  # float32 rounds
        return False, f"the evidence of an image depends on the batch: it differs by {off:.3g}"
    if probe.differentiable:
        gradient = torch.autograd.grad(local.square().sum(), x, allow_unused=True)[0] if local.requires_grad else None
        if gradient is None or not gradient.isfinite().all() or bool((gradient.flatten(1).abs().amax(1) == 0).any()):
            return False, "the evidence has no finite gradient that reaches the image: attacks could not climb it"
    return True, f"the score comes with {shape[1]} local scores" + " and their gradient" * probe.differentiable


def bounds_hold(probe: Probe) -> tuple[bool, str]:
    """Where a detector bounds its own score: attacks and corners of two balls of each norm stay inside."""
    detector, radii = probe.detector, {"linf": ("1/255", "8/255"), "l2": ("0.1", "1")}
    if not detector.bounded:
        return True, "bounds its score in no norm"
    if detector.randomized:
        return False, "it draws noise, and bounds of a score that does so are none"
    score, images = Score(detector), probe.images
    count = 0
    for norm in detector.bounded:
        for radius in radii.get(norm, ("1",)):
            threat = ThreatModel(norm, radius)
            with torch.no_grad():
                found = sides(detector.bounds(images.clone(), threat), images)
            if found is None or not bool((found[0] <= found[1]).all()):  # nan is no bound
                return (
                    False,
                    f"bounds at {threat} must be (low, high), each of shape ({len(images)},) and in this order",
                )
            low, high = found
            for name, moved in [("the image", images), *images_of_the_ball(score, images, probe.ids, threat,
                                                                          probe.differentiable)]:  # fmt: skip
                with torch.no_grad():
                    scores = score(moved).double()
                if bool(((scores < low) | (scores > high)).any()):
                    return False, f"{name} at {threat} has a score outside of the bounds"
                count += len(moved)
    return True, f"{count} images of balls in {' and '.join(detector.bounded)} have scores within their bounds"


CHECKS: dict[str, Callable[[Probe], tuple[bool, str]]] = {
    "parameters": parameters_are_kept,
    "scores": scores_are_numbers,
    "direction": anomalies_score_higher,
    "rows": rows_are_independent,
    "randomness": randomness_is_declared,
    "state": scoring_changes_nothing,
    "gradient": gradient_is_the_gradient,
    "mixing": images_do_not_mix,
    "shattered": gradient_can_be_followed,
    "seeding": generators_are_left_alone,
    "plain score": harness_adds_nothing,
    "saturation": scores_are_distinct,
    "round trip": saved_and_loaded_is_the_same,
    "map": maps_fit_the_image,
    "evidence": evidence_is_that_of_the_score,
    "gpu": gpu_agrees,
    "own bounds": bounds_hold,
}
OF_A_RUN = (
    "scores", "rows", "randomness", "state", "gradient", "mixing", "shattered", "seeding", "plain score", "saturation",
)  # fmt: skip
OF_AN_OBJECT = ("round trip",)  # beside these: nobody else has compared what its caller has fitted
OF_A_CERTIFICATE = ("scores", "rows", "randomness", "state", "seeding")
