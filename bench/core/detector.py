"""What a detector is: learn from normal images, then give every image one number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .parameters import accepted
from .plain_score import plain_score
from .progress import Progress
from .rng import Rng

if TYPE_CHECKING:
    from .data import Data
    from .threat import ThreatModel

RANDOM_WEIGHTS = "random weights"
"""Why a detector whose backbone was not trained is not ranked."""


class Hints(NamedTuple):
    """What a detector tells those who attack it, so that no attack fails for a reason that its author knows."""

    bpda: bool = False
    """It passes a block to `bpda` whose backward pass an attack may replace by the identity."""

    objectives: tuple[str, ...] = ()
    """Objectives of `apgd` that reach furthest on this detector; they are tried beside the usual ones."""

    starts: Callable[[Tensor, Tensor], Tensor] | None = None
    """(images, sign) -> images from which an attack may start; they are projected into the ball."""


class Origin(NamedTuple):
    """How a detector came to be what it is, for the record of a run."""

    name: str
    code: str
    """sha256 of the plug-in's code."""
    parameters: dict[str, Any]
    """Every parameter with the value used; a file is its sha256."""
    changed: dict[str, Any]
    """Those that were given and differ from the defaults."""
    fit: dict[str, Any] | None = None
    """Of a fit that is kept: sha256 of the checkpoint, seconds, number of images."""


class Detector(nn.Module, ABC):
    """An anomaly detector: images are float (B, 3, H, W) in [0, 1], a higher score is more anomalous.

    The constructor's arguments are the detector's parameters: each has a default and an annotation, and is kept
    as an attribute of the same name, so that a run can record it. Resizing and normalisation happen inside
    `score`, so that eps is measured on the pixels. Whatever `fit` learns is in `state_dict()`: in parameters and
    buffers, whose shapes may change in `fit`.
    """

    differentiable: bool = True
    """False: `score` has no useful gradient, and only attacks that need none are offered; unless it is found to have
    one."""

    randomized: bool = False
    """True: `score(x)` draws fresh noise, `score(x, rng)` draws from the source it is given, by `normal`, `uniform`,
    `rows` and `child`, which is all that it has. Attacks then average over draws, and reported scores are means over
    draws."""

    unranked: str = ""
    """Why a leaderboard must not rank this detector (`random weights`), or empty."""

    needs: ClassVar[str] = ""
    """What a user must have: `weights` (a download or a file), `GPU` (where a CPU would take days)."""

    minimum_images: ClassVar[int] = 2
    """Fewest normal images from which `fit` can learn anything."""

    scoring_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that change `score` and not `fit`: a change of them fits nothing again."""

    noise_parameter: ClassVar[str] = ""
    """The parameter that is the sigma of the Gaussian noise on the images; `bench certify --sigma` sets it."""

    toy_parameters: ClassVar[Mapping[str, Any]] = {}
    """Parameters with which `fit` takes seconds; `bench check-detector` and the contract tests use them."""

    anomaly_map: Callable[..., Tensor] | None = None
    """A method anomaly_map(x) -> (B, 1, H, W) at the size of x, higher is more anomalous, where there is one; that of a
    randomized detector is called as anomaly_map(x, rng)."""

    bounded: ClassVar[tuple[str, ...]] = ()
    """Norms of the balls over which `bounds` bounds the score."""

    progress: Progress = Progress()
    """Set by the harness before `fit`."""

    origin: Origin | None = None
    """Set by the harness: how this detector came to be."""

    @abstractmethod
    def fit(self, normal: DataLoader[Tensor]) -> None:
        """Learn from batches (B, 3, H, W) of normal images.

        torch's global generator is seeded by the harness before this call, so a fit repeats.
        """

    @abstractmethod
    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,): one score per image, from that image alone, differentiable in x.

        A detector that is not `randomized` may leave `rng` out of its signature.
        """

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """`detector(x)` is its score: what takes a torch module takes a detector."""
        found: Tensor = plain_score(self.score(x, rng) if self.randomized else self.score(x))
        return found

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        """The score (B,), and from the same forward pass the local scores (B, P) that it is pooled from.

        P are patches, pixels or draws, higher is more anomalous, differentiable in x. A score that is their maximum
        has the gradient of one of them; attacks that see all of them reach further. None: there are none, or the
        score is their mean, whose gradient already sees all.
        """
        return plain_score(self.score(x, rng) if self.randomized else self.score(x)), None

    def bounds(self, x: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (low, high), each (B,): `score` of an image of the ball around x is never below or above.

        Proved, for every image within `threat.radius` in `threat.norm` of x and in [0, 1], and for the score as it is
        computed, rounding included. Only of norms in `bounded`, and of a detector that draws no noise.
        """
        raise NotImplementedError

    def attack_hints(self) -> Hints:
        """What an adaptive attack on this detector should know."""
        return Hints()

    @property
    def parameters_record(self) -> dict[str, Any]:
        """The constructor's arguments with the values this detector uses."""
        return {name: getattr(self, name) for name in accepted(type(self))}

    @property
    def device(self) -> torch.device:
        """Where its tensors are; the CPU if it has none."""
        return next((t.device for t in (*self.parameters(), *self.buffers())), torch.device("cpu"))

    def rebuilt(self) -> Detector:
        """A new detector with the same parameters, not fitted."""
        return type(self)(**self.parameters_record)

    def learned(self) -> dict[str, Tensor]:
        """What `fit` learns, as it is saved: the state dict."""
        return dict(self.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, but a buffer takes the shape it was saved with: memory banks grow in `fit`."""
        buffers = dict(self.named_buffers())
        for name, value in state_dict.items():
            if name in buffers and buffers[name].shape != value.shape:
                buffers[name].data = buffers[name].new_empty(value.shape)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


class Wrapper(Detector):
    """A detector around another: `outer+inner` on the command line, `Outer(inner, ...)` in Python.

    The first argument of the constructor is the fitted inner detector. `fit` learns the outer part, from normal
    images alone and never from `inner`: an outer part that was fitted once serves every inner detector.
    """

    wraps: ClassVar[bool] = True

    def __init__(self, inner: Detector):
        super().__init__()
        self.inner = inner
        self.differentiable, self.randomized, self.unranked = inner.differentiable, inner.randomized, inner.unranked

    def fit(self, normal: DataLoader[Tensor]) -> None:
        """Nothing to learn, unless a subclass says otherwise."""

    @classmethod
    def inner_data(cls, data: Data, values: Mapping[str, Any]) -> Data:
        """What the inner detector is fitted on, where the parameters of this part have these values."""
        return data

    def train(self, mode: bool = True) -> Wrapper:
        """The inner detector is fitted, and stays in eval mode."""
        super().train(mode)
        self.inner.eval()
        return self

    def attack_hints(self) -> Hints:
        return self.inner.attack_hints()

    def inner_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        """The inner detector's score (B,) and evidence."""
        return self.inner.score_with_evidence(x, rng) if self.inner.randomized else self.inner.score_with_evidence(x)

    def inner_score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B,): the inner detector's, with noise from `rng` if it draws any."""
        found: Tensor = plain_score(self.inner.score(x, rng) if self.inner.randomized else self.inner.score(x))
        return found

    def rebuilt(self) -> Wrapper:
        """A new outer part around the same inner detector."""
        return type(self)(self.inner, **self.parameters_record)

    def learned(self) -> dict[str, Tensor]:
        """The state dict without the inner detector's, which is kept with that detector."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("inner.")}


def parts_of(detector: Detector) -> Iterator[Detector]:
    """Outermost first; the last is around nothing."""
    yield detector
    if isinstance(detector, Wrapper):
        yield from parts_of(detector.inner)


class Purifier(Wrapper):
    """Cleans an image before the inner detector scores it: score(x) = inner.score(purify(x)).

    A score is the mean over `runs` purifications, each with its own noise.
    """

    level: ClassVar[str] = ""
    """The parameter, a number, that says how strongly an image is purified; `bench report` plots AUROC over it."""

    runs: int = 1

    def __init__(self, inner: Detector):
        super().__init__(inner)
        self.randomized = True

    @abstractmethod
    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same, purified; differentiable in x, noise drawn from `rng`."""

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return torch.stack([self.inner_score(self._purified(x, rng), rng) for _ in range(self.runs)]).mean(0)

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor | None]:
        scores, evidence = zip(
            *(self.inner_with_evidence(self._purified(x, rng), rng) for _ in range(self.runs)), strict=True
        )
        mean = None if any(e is None for e in evidence) else torch.stack(evidence).mean(0)
        return torch.stack(scores).mean(0), mean

    def attack_hints(self) -> Hints:
        return self.inner.attack_hints()._replace(bpda=True)

    def _purified(self, x: Tensor, rng: Rng | None) -> Tensor:
        return bpda(lambda image: self.purify(image, rng), x)


_identity_backward = ContextVar("_identity_backward", default=False)


def bpda(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """block(x), of the shape of x; inside `identity_backward` the gradient passes it as if it were the identity.

    For a step of a detector whose gradient is cut, useless or misleading (backward pass differentiable
    approximation, Athalye et al. 2018, https://arxiv.org/abs/1802.00420). Elsewhere it is block(x) and nothing else.
    """
    if not _identity_backward.get():
        return block(x)
    with torch.no_grad():
        value = block(x)
    return value + (x - x.detach())  # what is added is exactly 0, and has the gradient of x


@contextmanager
def identity_backward() -> Iterator[None]:
    """Within, every block that a detector passes to `bpda` has the identity for its backward pass."""
    token = _identity_backward.set(True)
    try:
        yield
    finally:
        _identity_backward.reset(token)
