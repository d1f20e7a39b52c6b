"""The library's forward pass with its gradient: what cuts the gradient is switched off while a score is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ._features import root

_ROOTS = (torch.sqrt, Tensor.sqrt)
_MAKERS = (torch.tensor, torch.ones, torch.zeros, torch.empty, torch.full, torch.linspace, torch.arange)


class uncut(TorchFunctionMode):  # noqa: N801, read as a verb: `with uncut(x.dtype)`
    """Within, and in this thread alone, `torch.no_grad` and `detach` do nothing: a score keeps its whole gradient.

    Where the caller records no gradient, none is recorded here either. The values are those of the library, but for
    rounding and for roots: one is at least 1e-6, so that its gradient is a number at 0, and its value where rounding
    has made a squared distance negative. What the library does in single precision is done in `dtype`, what it writes
    into a given tensor (`out=`, which autograd refuses) keeps its gradient, and a blur takes one dimension at a time.

    `torch.inference_mode` is out of its reach. A straight-through estimator needs its detach: never run one in here,
    nor `bench.bpda`.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch._C._set_grad_enabled:  # how no_grad comes and goes
            return None
        if function is Tensor.detach:
            return args[0]
        if function in _ROOTS:
            return root(args[0])
        if function in _MAKERS and "dtype" not in kwargs:
            made = function(*args, **kwargs)
            return made.to(self.dtype) if made.is_floating_point() else made
        if (out := kwargs.pop("out", None)) is not None:
            return out.copy_(function(*(a.clone() if isinstance(a, Tensor) else a for a in args), **kwargs))
        if function is torch.conv2d and len(args) == 2 and args[1].shape[:2] == (1, 1) and not kwargs.get("padding"):
            return _blurred(*args)
        return function(*args, **kwargs)


def _blurred(maps: Tensor, kernel: Tensor) -> Tensor:
    """Maps of one channel, convolved by a Gaussian kernel: by its two factors, which is several times as fast."""
    kernel = kernel.to(maps.dtype)
    down, right = kernel.sum(3, keepdim=True), kernel.sum(2, keepdim=True) / kernel.sum()
    if not torch.allclose(down * right, kernel, rtol=1e-4, atol=1e-8):  # another kernel
        return F.conv2d(maps, kernel)
    return F.conv2d(F.conv2d(maps, right), down)


class Call(NamedTuple):
    """What a module was given, by position, and what it made of it."""

    given: tuple[Any, ...]
    made: Any


@contextmanager
def overheard(module: nn.Module) -> Iterator[list[Call]]:
    """The calls of a module while this is open, in their order."""
    calls: list[Call] = []

    def note(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        calls.append(Call(given, made))

    handle = module.register_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()
