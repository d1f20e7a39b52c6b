"""Suites: one file that says detectors, images, attacks, certificates and seeds, and what of all that is left out.

The file is a TOML document whose keys are named as the options of `bench run` and `bench certify`: docs/suites.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import resources
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from ..cells.base import first_problem
from ..core.score import Goal
from ..core.threat import Targets
from ..errors import UserError, unknown
from ..system import files
from .attacks import Planned, RunRequest
from .certify import CertifyRequest
from .grid import ALL, GridRequest, categories_of, detectors_of, elsewhere
from .jobs import Chosen, Job
from .shift import PUBLISHED, Asked, ShiftRequest
from .work import WorkRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from ..harness.process import Failure
    from .progress import Bars

CERTIFICATE, SHIFT = "certificate", "shift"
"""What `include` and `exclude` call them in place of an attack."""


def _text(value: Any) -> Any:
    """As it is typed after `--param k=`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, (int, float)) else value


def _texts(values: Any) -> Any:
    return {key: _text(value) for key, value in values.items()} if isinstance(values, dict) else values


def _several(value: Any) -> Any:
    """One is a list of one."""
    return [_text(one) for one in value] if isinstance(value, list) else [_text(value)]


Params = Annotated[dict[str, str], BeforeValidator(_texts)]
Several = Annotated[list[str], BeforeValidator(_several), Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.replace("_", "-"), frozen=True)


class Images(_Table):
    """A data set."""

    name: str
    categories: Several = [ALL]
    root: str | None = None
    image_size: PositiveInt | None = None


class Tested(_Table):
    """A detector."""

    name: str
    params: Params = {}


class Attacking(_Table):
    """An attack in balls of these sizes."""

    name: str
    eps: Several
    params: Params = {}


class Certifying(_Table):
    """A certificate in balls of these radii; where the detector is smoothed, for every sigma."""

    norm: str = "l2"
    sigma: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    radius: Several
    samples: PositiveInt = 1000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    params: Params = {}


class Shifting(_Table):
    """Shifts of light and lens, where nobody attacks."""

    kinds: Several = [PUBLISHED]
    severities: Annotated[list[int], Field(min_length=1)] | None = None


class Which(_Table):
    """Cells by name; `*` stands for anything. What is not said is every one."""

    detector: str = "*"
    dataset: str = "*"
    category: str = "*"
    attack: str = "*"

    def meets(self, detector: str, dataset: str, category: str, attack: str) -> bool:
        pairs = ((detector, self.detector), (dataset, self.dataset), (category, self.category), (attack, self.attack))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)


class Suite(_Table):
    """A whole file."""

    title: str = ""
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    limit: PositiveInt | None = None
    draws: PositiveInt | None = None
    threshold_folds: Annotated[int, Field(ge=2)] | None = None
    targets: Targets = "both"
    goal: Goal = "rank"
    data: Annotated[list[Images], Field(min_length=1)]
    detectors: Annotated[list[Tested], Field(min_length=1)]
    attacks: list[Attacking] = []
    certificates: list[Certifying] = []
    shifts: list[Shifting] = []
    include: list[Which] = []
    """Where there are any: only cells that meet one of them."""
    exclude: list[Which] = []

    def wants(self, detector: str, dataset: str, category: str, attack: str) -> bool:
        """Whether it has this cell."""
        cell = (detector, dataset, category, attack)
        included = not self.include or any(which.meets(*cell) for which in self.include)
        return included and not any(which.meets(*cell) for which in self.exclude)


def read(name: str) -> Suite:
    """A file, or one of those that are shipped by its name. Raises UserError in one line."""
    path = _path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        suite = Suite.model_validate(content)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not suite.attacks and not suite.certificates and not suite.shifts:
        raise UserError(f"{path} asks for nothing: give it [[attacks]], [[certificates]] or [[shifts]]")
    return suite


def _path(name: str) -> Path:
    shipped = (Path(str(file)) for file in resources.files("bench.suites").iterdir())
    there = {path.stem: path for path in shipped if path.suffix == ".toml"}
    if name in there:
        return there[name]
    path = files.at_home(name)
    if not path.is_file() and path.suffix != ".toml":
        raise unknown("suite", name, there)
    return path


class Part(NamedTuple):
    """What is asked of one detector on one data set by one command."""

    tested: Tested
    seed: int
    request: GridRequest
    planned: Sequence[Any]


class _Known:
    """Detectors that have been built once; those that cannot be used are failures."""

    def __init__(self, bars: Bars):
        self.bars = bars
        self.failures: dict[str, Failure] = {}
        self._found: dict[Any, Chosen] = {}

    def chosen(self, request: GridRequest) -> Chosen | None:
        """None of one that cannot be used."""
        key = (type(request), request.detectors, tuple(request.params.items()))
        if key not in self._found:
            (self._found[key],) = detectors_of(request, request.typed(), self.bars)
        found = self._found[key]
        if found.failure:
            self.failures[found.name] = found.failure
            return None
        return found


@dataclass(frozen=True, kw_only=True)
class SuiteRequest(WorkRequest):
    """All cells of a suite. `data_root` is of data sets whose root the suite does not say: DIR/NAME, or DIR itself."""

    name: str
    """Of a file, or of one that is shipped."""
    save_images: int | None

    @cached_property
    def suite(self) -> Suite:
        return read(self.name)

    @property
    def title(self) -> str:
        return f"suite {self.name}"

    def look(self) -> None:
        _ = self.suite

    def jobs(self, bars: Bars) -> tuple[list[Job], list[Failure]]:
        """Cells of one detector on one category in one job, and jobs of one category next to each other."""
        known = _Known(bars)
        found: list[Job] = []
        for images in self.suite.data:
            parts = [
                part
                for seed in self.suite.seeds
                for tested in self.suite.detectors
                for part in self._parts(images, tested, seed)
            ]
            first = [part for part in parts if (part.tested, part.seed) == (parts[0].tested, parts[0].seed)]
            categories, *_ = [categories_of(part.request, part.planned) for part in first]  # all balls are looked at
            for category, part in product(categories, parts):
                name = part.tested.name
                some = [p for p in part.planned if self.suite.wants(name, images.name, category, _attack_of(p))]
                chosen = known.chosen(part.request) if some else None
                if chosen is not None:
                    found.append(Job(part.request, chosen, category, some))
        if not found and not known.failures:
            raise UserError("the suite has no cells: its [[include]] and [[exclude]] leave none")
        return found, list(known.failures.values())

    def _parts(self, images: Images, tested: Tested, seed: int) -> Iterator[Part]:
        """Of one detector on one data set: its attacks together, then its certificates and shifts."""
        common = self._common(images, tested, seed)
        if self.suite.attacks:
            yield Part(tested, seed, self._attacked(self.suite.attacks[0], tested, common), self._planned)
        for (
            certificate
        ) in self.suite.certificates:  # in another norm than l2, those of detectors that have bounds there
            bounded = CertifyRequest(
                **common,
                params={**tested.params, **certificate.params},
                sigmas=None if certificate.sigma is None else tuple(certificate.sigma),
                radii=tuple(certificate.radius),
                norm=certificate.norm,
                samples=certificate.samples,
                alpha=certificate.alpha,
                center=None,
            )
            if bounded.are_there:
                yield Part(tested, seed, bounded, bounded.planned())
        for shift in self.suite.shifts:
            levels = None if shift.severities is None else tuple(map(str, shift.severities))
            shifted = ShiftRequest(
                **{**common, "targets": "both", "goal": "rank"},
                params=tested.params,
                kinds=tuple(shift.kinds),
                severities=levels,
                draws=self.suite.draws,
            )
            yield Part(tested, seed, shifted, shifted.planned())

    @cached_property
    def _planned(self) -> list[Planned]:
        """Every attack in every ball, the smaller ones first: the same on all images, of all detectors and seeds."""
        images, tested = self.suite.data[0], self.suite.detectors[0]
        common = self._common(images, tested, self.suite.seeds[0])
        planned = [one for attack in self.suite.attacks for one in self._attacked(attack, tested, common).planned()]
        return sorted(planned, key=lambda one: one.threat.eps)

    def _attacked(self, attack: Attacking, tested: Tested, common: Mapping[str, Any]) -> RunRequest:
        return RunRequest(
            **common,
            params=tested.params,
            attacks=(attack.name,),
            eps=tuple(attack.eps),
            attack_params=attack.params,
            draws=self.suite.draws,
            save_images=self.save_images,
        )

    def _common(self, images: Images, tested: Tested, seed: int) -> dict[str, Any]:
        """Of the requests of one detector on one data set."""
        return {field.name: getattr(self, field.name) for field in fields(WorkRequest)} | {
            "detectors": (tested.name,),
            "dataset": images.name,
            "categories": tuple(images.categories),
            "data_root": self._root(images),
            "image_size": images.image_size,
            "targets": self.suite.targets,
            "goal": self.suite.goal,
            "seed": seed,
            "limit": self.suite.limit,
            "threshold_folds": self.suite.threshold_folds,
        }

    def _root(self, images: Images) -> Path | None:
        if images.root is not None:
            return files.at_home(images.root)
        return self._given.get(images.name)

    @cached_property
    def _given(self) -> dict[str, Path]:
        """By data set, what `data_root` is to those that take one and whose root the suite does not say."""
        from ..plugins import registry
        from ..plugins.lookup import root_below, takes_root

        found: dict[str, Path] = {}
        if self.data_root is None:
            return found
        others = {}
        for images in self.suite.data:
            name = images.name
            if images.root is not None:
                others[name] = "has its root in the file"
            elif elsewhere(self, name, takes_root, name) if registry.is_foreign("datasets", name) else takes_root(name):
                found[name] = root_below(self.data_root, name)
            else:
                others[name] = "is built in"
        if not found:
            why = ", ".join(f"{name} {what}" for name, what in others.items())
            raise UserError(f"--data-root {self.data_root} is for no data set of the suite: {why}")
        return found


def _attack_of(planned: Any) -> str:
    if isinstance(planned, Planned):
        return planned.name
    return SHIFT if isinstance(planned, Asked) else CERTIFICATE


KEPT = {"save_images", *(field.name for field in fields(WorkRequest))}
"""Options of `bench run` that a suite does not say."""


def request_of(name: str, options: Mapping[str, Any], typed: Mapping[str, str]) -> SuiteRequest:
    """typed: of every option that was given, its name and how it is written; what the file says is not said twice."""
    for option, word in typed.items():
        if option not in KEPT:
            raise UserError(f"{word} is for the suite to say: put it into the file, or leave out --suite")
    return SuiteRequest(name=name, **{option: options[option] for option in KEPT})
