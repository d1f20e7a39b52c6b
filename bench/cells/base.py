"""What every part of run.json has in common: strict types, and one sentence for the first thing that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, WithJsonSchema

from ..core.norms import NORMS, SEMANTIC, budget_of
from ..errors import unknown

if TYPE_CHECKING:
    Json = Any
else:
    Json = JsonValue

Parameters = dict[str, Json]
"""Name -> value; a file is its `sha256:...`, see `core.parameters.identity`."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
MOST = 10**15
Count = Annotated[int, Field(ge=0, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]


def _no_folder(name: str) -> str:
    if not name or not set(name).isdisjoint("/\\"):
        raise ValueError("it must be a name, not a path")
    return name


def _no_path(name: str) -> str:
    if ".py" in name:
        raise ValueError("it must be a name, not a path")  # whose code would be run
    return _no_folder(name)


def _of_the_table(norm: str) -> str:
    if budget_of(norm) is None:
        raise ValueError(str(unknown("norm", norm, NORMS)))
    return norm


NormName = Annotated[str, AfterValidator(_of_the_table), WithJsonSchema({"enum": [*NORMS, SEMANTIC]})]
Name = Annotated[str, AfterValidator(_no_path)]
"""Of what is installed: never a file that a stranger's record could have us import."""
Category = Annotated[str, AfterValidator(_no_folder)]


class Part(BaseModel):
    """A part of run.json. What a file has beside the fields is for people: nothing reads it."""

    model_config = ConfigDict(strict=True, protected_namespaces=(), use_attribute_docstrings=True)

    def as_json(self) -> dict[str, Any]:
        """As it is written: what was never set, because it came later or is not known yet, is left out."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def first_problem(error: ValidationError) -> str:
    """`detector.fit.seconds: field required`"""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(repr(part)[1:-1] if isinstance(part, str) else str(part) for part in first["loc"])  # on one line
    return f"{where}: {message[:1].lower()}{message[1:]}"
