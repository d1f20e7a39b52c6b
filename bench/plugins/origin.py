"""How a detector came to be: by name and fitted, built by the caller, or put around another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from ..core import parameters
from ..core.detector import Detector, Origin, Wrapper
from . import sources


def around(outer: Origin, inner: Origin) -> Origin:
    """The origin of outer+inner."""

    def under(origin: Origin, record: Mapping[str, Any]) -> dict[str, Any]:
        return dict(record) if "+" in origin.name else {f"{origin.name}.{k}": v for k, v in record.items()}

    return Origin(
        f"{outer.name}+{inner.name}",
        hashlib.sha256((outer.code + inner.code).encode()).hexdigest(),
        under(outer, outer.parameters) | under(inner, inner.parameters),
        under(outer, outer.changed) | under(inner, inner.changed),
        _together({o.name: o.fit for o in (outer, inner) if o.fit}),
    )


def _together(fits: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The record of a detector's fit; of several parts, with their seconds added and each part's own record."""
    if len(fits) <= 1:
        return next(iter(fits.values()), None)
    seconds = round(sum(fit["seconds"] for fit in fits.values()), 1)
    return {"seconds": seconds, "images": next(iter(fits.values()))["images"], "parts": dict(fits)}


NOTEBOOK = "notebook:"
"""How the code of a class without a file begins: it is what can be seen of it, without what it is closed over."""


def weights_of(detector: Detector) -> str:
    """sha256 of the state dict: which object of its class this is."""
    state = hashlib.sha256()
    for name, value in sorted(detector.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def origin_of(detector: Detector) -> Origin:
    """Of a detector that the caller built, and of what it is wrapped around."""
    if detector.origin is not None:
        return detector.origin
    try:
        code = sources.of_class(type(detector)).sha256
    except (OSError, TypeError):  # defined in a notebook
        code = NOTEBOOK + sources.of_definitions(type(detector))
    record = detector.parameters_record
    changed = parameters.identity(parameters.changed(type(detector), record))
    own = Origin(type(detector).__name__, code, parameters.identity(record), changed)
    return around(own, origin_of(detector.inner)) if isinstance(detector, Wrapper) else own
