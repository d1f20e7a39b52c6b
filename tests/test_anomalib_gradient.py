"""`uncut`: a forward pass of the library anomalib keeps its values, and gets the gradient that it cuts."""

from __future__ import annotations

import threading

import pytest
import torch
from conftest import module
from torch import Tensor, nn
from torch.nn import functional as F

gradient = module("_anomalib_gradient")
uncut = gradient.uncut


def leaf(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_(True)


def derivative(value: Tensor, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value.sum(), x)
    return found


def test_no_grad_and_detach_cut_nothing() -> None:
    @torch.no_grad()
    def library(x: Tensor) -> Tensor:
        with torch.no_grad():
            doubled = (2 * x).detach()
        return doubled * x

    x = leaf(3)
    assert not library(x).requires_grad
    with uncut(x.dtype):
        value = library(x)
    torch.testing.assert_close(derivative(value, x), 4 * x)


def test_a_caller_who_wants_no_gradient_gets_none() -> None:
    x = leaf(3)
    with torch.no_grad(), uncut(x.dtype):
        assert not (x * x).requires_grad
        with torch.enable_grad():
            assert not (x * x).requires_grad


def test_another_thread_is_not_touched() -> None:
    x, found = leaf(3), []

    def beside() -> None:
        with torch.no_grad():
            found.append((2 * x).requires_grad)
        found.append(x.detach().requires_grad)

    with uncut(x.dtype):
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
    assert found == [False, False]


def test_an_error_leaves_nothing_behind() -> None:
    x = leaf(3)
    with pytest.raises(ValueError, match="luck"), uncut(x.dtype), torch.no_grad():
        raise ValueError("out of luck")
    assert (2 * x).requires_grad and not x.detach().requires_grad
    with torch.no_grad():
        assert not (2 * x).requires_grad


def test_a_root_has_a_value_and_a_gradient_where_rounding_took_a_square_to_0_or_below() -> None:
    x = torch.tensor([-1e-7, 0.0, 4.0], requires_grad=True)
    with uncut(x.dtype):
        roots = x.sqrt() + torch.sqrt(x)
    torch.testing.assert_close(roots, torch.tensor([2e-6, 2e-6, 4.0]))
    torch.testing.assert_close(derivative(roots, x), torch.tensor([0.0, 0.0, 0.5]))


def test_what_is_written_into_a_part_of_a_tensor_keeps_its_gradient() -> None:
    x = leaf(4)
    with uncut(x.dtype):
        best = torch.full((5,), 0.5)
        torch.maximum(best[:4], x, out=best[:4])
        torch.maximum(best[1:], x, out=best[1:])
    shifted = torch.tensor([[*x.tolist(), 0.0], [0.0, *x.tolist()]]).amax(0).clamp_min(0.5)
    torch.testing.assert_close(best.detach(), shifted)
    assert bool((derivative(best, x)[x > 0.5] > 0).all())


def test_double_precision_reaches_tensors_that_the_library_makes() -> None:
    x = leaf(3).detach().double().requires_grad_(True)
    with uncut(x.dtype):
        total = torch.zeros(3)
        total += x / 3
        assert torch.arange(3).dtype == torch.long and torch.zeros(3, dtype=torch.float32).dtype == torch.float32
    assert torch.equal(total, x / 3)


def test_a_blur_is_the_same_by_one_dimension_at_a_time() -> None:
    x = leaf(2, 1, 20, 20)
    line = torch.exp(-torch.arange(-4.0, 5).square() / 8)
    kernel = (line[:, None] * line / line.sum() ** 2)[None, None]
    with uncut(x.dtype):
        blurred = F.conv2d(x, kernel, groups=1, padding=0, stride=1)
    torch.testing.assert_close(blurred, F.conv2d(x, kernel))
    torch.testing.assert_close(derivative(blurred, x), derivative(F.conv2d(x, kernel), x))


@pytest.mark.parametrize("padding", [0, 2])
def test_a_convolution_of_a_network_is_what_it_was(padding: int) -> None:
    layer, x = nn.Conv2d(1, 1, 5, stride=2, padding=padding), leaf(2, 1, 20, 20)
    other = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    with uncut(x.dtype):
        found, loose = layer(x), F.conv2d(x, other)
    torch.testing.assert_close(found, layer(x))
    torch.testing.assert_close(loose, F.conv2d(x, other))


def test_a_call_inside_a_model_is_overheard_and_then_forgotten() -> None:
    inner = nn.Linear(2, 3)
    model = nn.Sequential(nn.Identity(), inner, nn.Sigmoid())
    x = leaf(4, 2)
    with gradient.overheard(inner) as calls:
        model(x)
    (call,) = calls
    assert call.given[0] is x
    torch.testing.assert_close(call.made, inner(x))
    assert len(calls) == 1
