"""DiffPure, a purifier: noises an image and runs a diffusion model back to a clean one (Nie et al. 2022).

https://arxiv.org/abs/2205.07460. The model is trained on normal images, with the network and loss of AdvRAD. Whoever
attacks meets the true gradient: noise is drawn first and replayed while each reverse step is computed again in the
backward pass, so that no step is cut and memory does not grow with the number of steps. (Published figures came in part
from reverse processes that no gradient passed through; DiffBreak, https://arxiv.org/abs/2411.16598.)
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from bench import Detector, Purifier, Rng

from ._diffusion import DIFFUSION_STEPS, PRESETS, PresetName, add_noise, denoising_loss, kept_signal, predicted_clean
from ._training import train


class DiffPure(Purifier):
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
        steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
    ):
        super().__init__(inner)
        if not 1 <= t <= DIFFUSION_STEPS:
            raise ValueError(f"t must be a diffusion step from 1 to {DIFFUSION_STEPS}, got {t}")
        if reverse_steps < 1 or runs < 1:
            raise ValueError(f"reverse_steps and runs must be at least 1, got {reverse_steps} and {runs}")
        chosen = PRESETS[preset]
        self.t, self.solver, self.reverse_steps, self.runs, self.preset = t, solver, reverse_steps, runs, preset
        self.steps = chosen.steps if steps is None else steps
        self.batch_size = chosen.batch_size if batch_size is None else batch_size
        self.lr = chosen.lr if lr is None else lr
        self.ema = chosen.ema
        self.network = chosen.network()
        self.register_buffer("kept", kept_signal(), persistent=False)  # (1000,): abar
        self.kept: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        train(
            self,
            self.network,
            lambda images: denoising_loss(self.network, self.kept, 2 * images - 1, torch.randn_like(images)),
            normal,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            ema=self.ema,
        )

    def purify(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        levels = self._levels()
        noises = [torch.randn_like(x) if rng is None else rng.normal(x) for _ in levels]
        step = self._ancestral if self.solver == "ddpm" else self._euler
        moved = add_noise(2 * x - 1, self.kept[levels[0] - 1], noises[0])
        for k, after, noise in zip(levels, [*levels[1:], 0], [*noises[1:], torch.zeros_like(x)], strict=True):
            if moved.requires_grad:
                moved = checkpoint(step, moved, k, after, noise, use_reentrant=False, preserve_rng_state=False)
            else:
                moved = step(moved, k, after, noise)
        return ((moved + 1) / 2).clamp(0, 1)

    def _levels(self) -> list[int]:
        """The diffusion steps at which the network is called, from t down."""
        count = min(self.reverse_steps, self.t)
        return [round(self.t * (count - i) / count) for i in range(count)]

    def _signal(self, k: int) -> Tensor:
        return self.kept[k - 1] if k else torch.ones_like(self.kept[0])

    def _ancestral(self, x: Tensor, k: int, after: int, noise: Tensor) -> Tensor:
        """From step k to `after`: the mean of the posterior given the predicted clean image, plus its noise.

        beta and alpha are those of the whole stride, as if the schedule had only these steps.
        """
        signal, target = self._signal(k), self._signal(after)
        alpha = signal / target
        clean = predicted_clean(self.network, x, signal, k).clamp(-1, 1)
        mean = (target.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - target) * x) / (1 - signal)
        return mean + ((1 - alpha) * (1 - target) / (1 - signal)).sqrt() * noise

    def _euler(self, x: Tensor, k: int, after: int, noise: Tensor) -> Tensor:
        """From step k to `after`: dx = -beta/2 (x + 2 score) dt + sqrt(beta) dw, backwards in time.

        The score is -noise / sqrt(1 - abar); beta dt of a stride is the fall of log abar over it.
        """
        signal = self._signal(k)
        beta = (self._signal(after) / signal).log()
        predicted = self.network(x, torch.full((len(x),), k - 1, device=x.device))
        drift: Tensor = x / 2 - predicted / (1 - signal).sqrt()
        return x + beta * drift + beta.sqrt() * noise
