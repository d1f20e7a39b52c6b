"""AnoDDPM and its noise: the formulas, the frequencies and the way back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import module, small_data
from torch import Tensor
from torch.utils.data import DataLoader

from bench import Rng
from bench.plugins import registry


def detector(**given: Any) -> Any:
    return registry.load("detectors", "anoddpm").target(**given)


# Simplex noise


def in_plane(skewed: Tensor) -> Tensor:
    """(..., 2) lattice coordinates -> the plane."""
    return skewed - skewed.sum(-1, keepdim=True) * (3 - math.sqrt(3)) / 6


def test_simplex_noise_is_the_sum_over_all_vertices() -> None:
    """The kernel of a vertex ends where the triangles around it do: looking up three vertices loses nothing."""
    torch.manual_seed(0)
    angles = 2 * math.pi * torch.rand(1, 2, 9, 9, dtype=torch.float64)
    points = 1 + 5 * torch.rand(1, 2, 20, 20, dtype=torch.float64)
    found = module("_simplex").lattice_noise(angles, points)
    vertices = torch.cartesian_prod(torch.arange(9.0, dtype=torch.float64), torch.arange(9.0, dtype=torch.float64))
    offset = in_plane(points[0].flatten(1).mT)[:, None] - in_plane(vertices)  # (400, 81, 2)
    kernel = (0.5 - offset.square().sum(-1)).clamp_min(0) ** 4
    for channel in range(2):
        angle = angles[0, channel].flatten()
        gradient = torch.stack([angle.cos(), angle.sin()], -1)
        expected = (kernel * (offset * gradient).sum(-1)).sum(1)
        assert torch.allclose(found[0, channel].flatten(), expected, atol=1e-12)
    assert found.abs().max() > 1e-3


def test_the_lattice_is_one_of_equal_triangles() -> None:
    """Every vertex has six neighbours at the same distance, and each has the stated area of the plane."""
    simplex = module("_simplex")
    near = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 0], [0, -1], [-1, -1]], dtype=torch.float64)
    assert torch.allclose(in_plane(near).norm(dim=1), torch.full((6,), math.sqrt(2 / 3), dtype=torch.float64))
    assert torch.linalg.det(in_plane(near[:2])).abs().item() == pytest.approx(simplex.AREA)
    there_and_back = (1 + 2 * simplex.SKEW) * (1 - 2 * simplex.UNSKEW)
    assert there_and_back == pytest.approx(1)


def test_simplex_noise_is_continuous_with_its_slope() -> None:
    """Along a line that crosses many triangles, no step is larger than the distance allows."""
    torch.manual_seed(0)
    angles = 2 * math.pi * torch.rand(1, 1, 12, 12, dtype=torch.float64)
    along = torch.linspace(0, 8, 200_001, dtype=torch.float64)
    line = torch.stack([1 + along, 1.3 + 0.7 * along])[None, :, None]
    noise = module("_simplex").lattice_noise(angles, line)[0, 0, 0]
    slope = noise.diff() / (along[1] - along[0])
    assert slope.abs().max() < 3 * 0.5**4 * 1.3  # three kernels of slope (1/2)^4 at most, a line of speed 1.3
    assert slope.diff().abs().max() < 3e-4  # no kink either
    assert noise.std() > 1e-3


@pytest.mark.parametrize("octaves", [1, 6])
def test_simplex_noise_has_zero_mean_and_unit_variance_at_every_pixel(octaves: int) -> None:
    torch.manual_seed(0)
    noise = module("_simplex").simplex_noise(torch.zeros(6000, 1, 6, 6), octaves=octaves)
    assert noise.mean(0).abs().max() < 0.06
    assert (noise.var(0) - 1).abs().max() < 0.09  # a fixed lattice would have 0 at its vertices
    assert noise.isfinite().all() and noise.abs().max() < 6


def test_octaves_have_the_power_of_their_persistence() -> None:
    """Low frequencies far above white noise, high ones below; fewer low ones from a shorter wavelength."""

    def low_share(noise: Tensor) -> float:
        power = torch.fft.fft2(noise).abs().square().mean((0, 1))
        frequency = torch.fft.fftfreq(64).abs()
        radius = (frequency[:, None].square() + frequency.square()).sqrt()
        return float(power[radius < 1 / 16].sum() / power.sum())

    torch.manual_seed(0)
    like = torch.zeros(64, 1, 64, 64)
    build = module("_simplex").simplex_noise
    white, octaves, short = (
        low_share(noise) for noise in (torch.randn_like(like), build(like), build(like, wavelength=4.0, octaves=2))
    )
    assert white == pytest.approx(math.pi / 256, rel=0.3)  # the area of that disc
    assert octaves > 0.5 > 10 * short
    single = [build(like, octaves=1, wavelength=w) for w in (64.0, 32.0, 16.0, 8.0)]
    assert sorted((low_share(n) for n in single), reverse=True) == [low_share(n) for n in single]


def test_simplex_noise_belongs_to_its_image() -> None:
    build = module("_simplex").simplex_noise
    x = torch.zeros(3, 3, 20, 28)
    together = build(x, Rng(0, ["a", "b", "c"]).uniform)
    assert torch.equal(together, build(x, Rng(0, ["a", "b", "c"]).uniform))
    assert torch.allclose(together[1:2], build(x[:1], Rng(0, ["b"]).uniform), atol=1e-5)
    assert torch.allclose(together.flip(0), build(x, Rng(0, ["c", "b", "a"]).uniform), atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1
    channels = together.flatten(2)[0]
    assert torch.corrcoef(channels).fill_diagonal_(0).abs().max() < 0.999
    double = build(x.double(), Rng(0, ["a", "b", "c"]).uniform)
    assert double.dtype == torch.float64
    assert torch.allclose(together.double(), double, atol=1e-4)


# The way back


def built(**given: Any) -> Any:
    made = detector(steps=2, batch_size=4, **given)
    made.fit(DataLoader(small_data(size=16).train, batch_size=8))
    return made.eval()


@pytest.mark.parametrize("reverse_steps", [1, 4])
def test_a_perfect_network_brings_the_image_back(reverse_steps: int) -> None:
    """With the noise that really is in x_k as prediction, whatever is added on the way is removed again."""
    anoddpm = built(reverse_steps=reverse_steps)
    x = torch.rand(2, 3, 16, 16) * 2 - 1

    def oracle(noised: Tensor, step: Tensor) -> Tensor:
        alpha_bar = anoddpm.alpha_bar[step][:, None, None, None]
        return (noised - alpha_bar.sqrt() * x) / (1 - alpha_bar).sqrt()

    anoddpm.network.forward = oracle
    noises = [torch.randn_like(x) for _ in range(reverse_steps)]
    assert torch.allclose(anoddpm._reconstruct(x, noises), x, atol=1e-4)


def test_one_step_back_draws_from_the_posterior() -> None:
    """If x_k has its distribution given the clean image, so has x_s: mean sqrt(a) x, variance 1 - a, a: alpha_bar."""
    anoddpm = built()
    torch.manual_seed(0)
    x, alpha_bar = torch.full((400, 3, 16, 16), 0.6), anoddpm.alpha_bar
    anoddpm.network.forward = lambda noised, step: (noised - alpha_bar[199].sqrt() * x) / (1 - alpha_bar[199]).sqrt()
    noised = alpha_bar[199].sqrt() * x + (1 - alpha_bar[199]).sqrt() * torch.randn_like(x)
    earlier = anoddpm._denoise(noised, 200, 80, torch.randn_like(x))
    assert earlier.mean().item() == pytest.approx(float(alpha_bar[79].sqrt() * 0.6), abs=3e-3)
    assert earlier.var().item() == pytest.approx(float(1 - alpha_bar[79]), rel=0.02)


def test_the_steps_back_are_evenly_spaced_and_all_t_where_asked() -> None:
    for t, reverse_steps, expected in (
        (250, 5, [250, 200, 150, 100, 50]),
        (7, 7, [7, 6, 5, 4, 3, 2, 1]),
        (250, 1, [250]),
    ):
        anoddpm = built(t=t, reverse_steps=reverse_steps)
        seen: list[int] = []
        honest = anoddpm.network.forward
        anoddpm.network.forward = lambda x, step, seen=seen, honest=honest: (
            seen.append(int(step[0]) + 1),
            honest(x, step),
        )[1]
        with torch.no_grad():
            anoddpm.score(torch.rand(1, 3, 16, 16))
        assert seen == expected


def test_checkpointing_changes_neither_score_nor_gradient() -> None:
    anoddpm = built(reverse_steps=3)
    for parameter in anoddpm.network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # the last layer starts at 0: it would ignore its input
    x, ids = torch.rand(2, 3, 16, 16), ["a", "b"]

    def plain(images: Tensor) -> Tensor:
        rng = Rng(0, ids)
        noises = [module("_simplex").simplex_noise(images, rng.uniform) for _ in range(3)]
        alpha_bar, noised = anoddpm.alpha_bar, 2 * images - 1
        noised = alpha_bar[249].sqrt() * noised + (1 - alpha_bar[249]).sqrt() * noises[0]
        for step, after, noise in ((250, 167, noises[1]), (167, 83, noises[2]), (83, 0, None)):
            noised = anoddpm._denoise(noised, step, after, noise)
        error = (images - (noised + 1) / 2).square().mean(1, keepdim=True)
        smooth: Tensor = module("_autoencoder").smoothed(error)
        return smooth.flatten(1).amax(1)

    results = []
    for score in (plain, lambda images: anoddpm.score(images, Rng(0, ids))):
        point = x.clone().requires_grad_(True)
        value = score(point)
        results.append((value.detach(), torch.autograd.grad(value.sum(), point)[0]))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


def test_impossible_steps_are_refused() -> None:
    for given in ({"t": 0}, {"t": 1001}, {"t": 5, "reverse_steps": 6}, {"reverse_steps": 0}):
        with pytest.raises(ValueError, match=list(given)[-1]):
            detector(**given)
