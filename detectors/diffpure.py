"""DiffPure, a purifier: noises an image and runs a diffusion model back to a clean one (Nie et al. 2022).

https://arxiv.org/abs/2205.07460. The model is trained on normal images, with the network and loss of AdvRAD. Whoever
attacks meets the true gradient: noise is drawn first and replayed while each reverse step is computed again in the
backward pass, so that no step is cut and memory does not grow with the number of steps. (Published figures came in part
from reverse processes that no gradient passed through; DiffBreak, https://arxiv.org/abs/2411.16598.)
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from bench import Detector, Purifier, Rng

from ._diffusion import (
    DIFFUSION_STEPS,
    DiffusionDetector,
    PresetName,
    add_noise,
    ancestral_step,
    predicted_clean,
    spaced_steps,
)


class DiffPure(DiffusionDetector, Purifier):
    """Purified image = reverse diffusion from step t, started at the image with the noise of step t.

    t: diffusion step of 1000; 100 is the published choice for linf 8/255 on CIFAR-10, 150 for 4/255 on ImageNet.
    solver: `ddpm` takes ancestral steps (Ho et al. 2020, equation 7), `sde` Euler-Maruyama steps of the reverse
    variance-preserving SDE (their equation 6).
    reverse_steps: network calls from t to 0, evenly spaced; t of them is one per diffusion step, as published.
    runs: purifications whose scores are averaged.
    preset: of the network, as AdvRAD's. steps, batch_size, lr: of its training; the preset's where not given.
    """

    level = "t"
    scoring_parameters = frozenset({"t", "solver", "reverse_steps", "runs"})
    toy_parameters: ClassVar = {"steps": 60, "batch_size": 16, "reverse_steps": 3}

    def __init__(
        self,
        inner: Detector,
        *,
        t: int = 100,
        solver: Literal["ddpm", "sde"] = "ddpm",
        reverse_steps: int = 5,
        runs: int = 1,
        preset: PresetName = "small",
        steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
    ):
        super().__init__(inner)
        if not 1 <= t <= DIFFUSION_STEPS:
            raise ValueError(f"t must be a diffusion step from 1 to {DIFFUSION_STEPS}, got {t}")
        if reverse_steps < 1 or runs < 1:
            raise ValueError(f"reverse_steps and runs must be at least 1, got {reverse_steps} and {runs}")
        self.t, self.solver, self.reverse_steps, self.runs = t, solver, reverse_steps, runs
        self._set_up(preset, steps, batch_size, lr)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self._train_diffusion(normal)

    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        stops = spaced_steps(self.t, min(self.reverse_steps, self.t))
        noises = [torch.randn_like(x) if rng is None else rng.normal(x) for _ in stops[1:]]
        step = self._ancestral if self.solver == "ddpm" else self._euler
        moved = add_noise(2 * x - 1, self.alpha_bar[self.t - 1], noises[0])
        for k, after, noise in zip(stops[:-1], stops[1:], [*noises[1:], torch.zeros_like(x)], strict=True):
            if moved.requires_grad:
                moved = checkpoint(step, moved, k, after, noise, use_reentrant=False, preserve_rng_state=False)
            else:
                moved = step(moved, k, after, noise)
        return ((moved + 1) / 2).clamp(0, 1)

    def _signal(self, k: int) -> Tensor:
        return self.alpha_bar[k - 1] if k else torch.ones_like(self.alpha_bar[0])

    def _ancestral(self, x: Tensor, k: int, after: int, noise: Tensor) -> Tensor:
        """From step k to `after`, with a predicted clean image inside the pixel range."""
        clean = predicted_clean(self.network, x, self._signal(k), k).clamp(-1, 1)
        return ancestral_step(x, clean, self._signal(k), self._signal(after), noise)

    def _euler(self, x: Tensor, k: int, after: int, noise: Tensor) -> Tensor:
        """From step k to `after`: dx = -beta/2 (x + 2 score) dt + sqrt(beta) dw, backwards in time.

        The score is -noise / sqrt(1 - alpha_bar); beta dt of a stride is the fall of log alpha_bar over it.
        """
        signal = self._signal(k)
        beta = (self._signal(after) / signal).log()
        predicted = self.network(x, torch.full((len(x),), k - 1, device=x.device))
        drift: Tensor = x / 2 - predicted / (1 - signal).sqrt()
        return x + beta * drift + beta.sqrt() * noise
