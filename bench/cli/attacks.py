"""What `bench run` asks for: attacks on detectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .common import share_out
from .grid import GridRequest, elsewhere
from .jobs import Plan

if TYPE_CHECKING:
    from ..core.data import Data
    from ..core.progress import Progress, Tell
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec


@dataclass(frozen=True, kw_only=True)
class RunRequest(GridRequest):
    """Attacks on detectors."""

    attacks: tuple[str, ...]
    eps: tuple[str, ...]
    attack_params: Mapping[str, str]
    draws: int | None
    save_images: int | None

    @property
    def only_reads(self) -> bool:
        return super().only_reads and self.save_images is None

    @property
    def title(self) -> str:
        return f"{', '.join(self.attacks)} on {self.dataset}"

    def planned(self) -> list[Planned]:
        if not _foreign(self):
            return planned_attacks(self)
        planned: list[Planned] = elsewhere(self, ", ".join(self.attacks), planned_attacks, self)
        return planned

    def threats(self, planned: Sequence[Planned]) -> list[ThreatModel]:
        return [attack.threat for attack in planned]

    def specs(self, name: str, given: Mapping[str, str], progress: Progress, tell: Tell) -> list[DetectorSpec]:
        from ..plugins.fitting import DetectorSpec

        return [DetectorSpec(name, given, self.seed, self.device, progress, tell)]

    def cells(self, bed: Data, spec: DetectorSpec, planned: Sequence[Planned]) -> Iterator[Plan]:
        from ..harness.evaluate import planned as planned_cell

        for attack in planned:
            sweep = [other.threat for other in planned if attack.is_in_the_sweep_of(other)]
            yield (
                f"{spec.label} on {bed.category}: {attack.label}",
                partial(
                    planned_cell,
                    spec,
                    bed,
                    attack.name,
                    attack.threat,
                    attack_params=attack.params,
                    results=self.results,
                    seed=self.seed,
                    limit=self.limit,
                    threshold_folds=self.threshold_folds,
                    draws=self.draws,
                    goal=self.goal,
                    smaller=[ball for ball in sweep if ball.eps < attack.threat.eps],
                    keep_images=any(ball.eps > attack.threat.eps for ball in sweep),
                    save_images=self.save_images,
                    in_process=self.in_process,
                ),
            )


class Planned(NamedTuple):
    """An attack in one ball."""

    name: str
    params: Mapping[str, str]
    threat: ThreatModel

    @property
    def label(self) -> str:
        return f"{self.name.removesuffix(f'-{self.threat.norm}')} {self.threat}"

    def is_in_the_sweep_of(self, other: Planned) -> bool:
        """The same attack, in a ball of the same norm."""
        return (self.name, self.params, self.threat.norm) == (other.name, other.params, other.threat.norm)


def _foreign(request: RunRequest) -> bool:
    """Whether an attack is not ours, or a parameter of one names what is not."""
    from ..plugins import registry

    named = [*request.attacks, *request.attack_params.values()]
    return any(registry.is_foreign("attacks", name) or ".py" in name for name in named)


def planned_attacks(request: RunRequest) -> list[Planned]:
    """Every attack in every ball, the smaller ones first: a larger ball starts from the smaller one's result."""
    from ..core.threat import ThreatModel
    from ..plugins.lookup import make_attack

    shares = _attack_params(request)
    planned = []
    for name in request.attacks:
        norm = make_attack(name, shares[name])[1]
        planned += [Planned(name, shares[name], ThreatModel(norm or "linf", e, request.targets)) for e in request.eps]
    return sorted(planned, key=lambda attack: attack.threat.eps)


def _attack_params(request: RunRequest) -> dict[str, dict[str, str]]:
    """Attack as typed -> its parameters; `square.queries=500` is of square alone, and wins over `queries=500`."""
    from ..core import parameters
    from ..plugins.lookup import find_attack

    owners = {name: find_attack(name)[0] for name in request.attacks}
    accepted = {
        name: {text for k in parameters.accepted(plugin.target) for text in (k, f"{plugin.name}.{k}")}
        for name, plugin in owners.items()
    }
    shares = share_out("--attack-param", request.attack_params, accepted, [p.name for p in owners.values()])
    return {
        name: {key.rpartition(".")[2]: value for key, value in sorted(share.items(), key=lambda item: "." in item[0])}
        for name, share in shares.items()
    }
