"""What a detector shares with everybody in its process, and must leave as it was."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError


class _Shared(NamedTuple):
    """Settings that every number of the process depends on."""

    dtype: torch.dtype
    gradients: bool
    deterministic: bool

    @classmethod
    def now(cls) -> _Shared:
        return cls(torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())

    def restore(self) -> None:
        torch.set_default_dtype(self.dtype)
        torch.set_grad_enabled(self.gradients)
        torch.use_deterministic_algorithms(self.deterministic)


REMEDIES = (
    "torch's default dtype: give tensors a dtype of their own",
    "torch's gradient mode: say `with torch.no_grad():`",
    "torch's deterministic mode: set it back",
)
"""What was changed, and what to do; in the order of `_Shared`."""


@contextlib.contextmanager
def left_as_it_was(name: str, where: str, x: Tensor | None = None) -> Iterator[None]:
    """Raises UserError if the code within changes torch's settings, which are put back, or the images `x`.

    name: whose code it is, with its kind.
    A process that is forked within, and gets to the end, ends there: its twin does the rest.
    """
    before, here = _Shared.now(), os.getpid()
    version = None if x is None or x.is_inference() else x._version
    try:
        yield
    finally:
        if os.getpid() != here:
            os._exit(1)
        after = _Shared.now()
        if after != before:
            before.restore()
    for old, new, remedy in zip(before, after, REMEDIES, strict=True):
        if old != new:
            raise UserError(f"{name} changes in {where} {remedy}")
    if x is not None and version is not None and x._version != version:
        raise UserError(f"{name} changes in {where} the images that it was given: let it work on a copy")
