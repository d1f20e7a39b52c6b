"""The one training loop: fixed batches per step, loss shown, resumable after a kill to the same weights."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench import Detector, UserError

SAVE_EVERY_SECONDS = 20.0
WORK_OF_A_THREAD = 1.5e11
"""Weights x pixels of a batch. Of less, a second thread gains a quarter at best on a quiet machine, and beside another
busy process a step takes 5 to 11 times as long (benchmarks/threads.py)."""


def train(
    detector: Detector,
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    normal: DataLoader[Tensor],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    ema: float | None = None,
) -> None:
    """Adam on `loss(batch) -> ()` for `steps` batches drawn with replacement, with a cosine decay to zero.

    What a step sees is fixed by the seed and the number of the step, so a training that was killed and
    resumed from `detector.progress.checkpoint` ends with the weights of one that was not. With `ema`, the network
    ends with the running mean of its weights at that decay.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    averaged = None
    if ema is not None:
        averaged = torch.optim.swa_utils.AveragedModel(
            network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        )
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    parts |= {} if averaged is None else {"averaged": averaged}

    def update(batch: Tensor) -> list[float]:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            value = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if averaged is not None:
            averaged.update_parameters(network)
        return [value.item()]

    network.train()
    repeat(detector, parts, update, normal, steps=steps, batch_size=batch_size, device=device)
    if averaged is not None:
        network.load_state_dict(averaged.module.state_dict())
    network.eval()


def repeat(
    detector: Detector,
    parts: Mapping[str, Any],
    update: Callable[[Tensor], Sequence[float]],
    normal: DataLoader[Tensor],
    *,
    steps: int,
    batch_size: int,
    device: torch.device,
) -> None:
    """`update(batch)` changes the `parts` and returns its losses, the first of which is shown, for `steps` batches.

    The loop itself: seeded step by step, saved now and then and resumed, stopped at a loss that is no number. A part
    is anything with `state_dict` and `load_state_dict`.
    """
    seed = torch.initial_seed()  # the harness seeds before `fit`
    start = _resume(detector, parts, seed)
    saved = time.monotonic()
    with as_many_threads_as_pay(detector, normal, batch_size):
        for step in range(start, steps):
            with seeded(seed + step + 1):
                losses = update(_batch(normal, batch_size).to(device, non_blocking=True))
            for loss in losses:
                if not math.isfinite(loss):
                    raise UserError(
                        f"training diverged at step {step + 1} of {steps}: the loss is {loss}; try a lower lr"
                    )
            detector.progress.update(step + 1, steps, losses[0])
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                _save(detector, parts, seed, step + 1)
                saved = time.monotonic()


@contextlib.contextmanager
def as_many_threads_as_pay(network: nn.Module, normal: DataLoader[Tensor], batch_size: int) -> Iterator[None]:
    """Inside, torch uses no more threads than there is work for. So small networks come out the same however many cores
    a machine has: another number of threads adds in another order."""
    before, pixels = torch.get_num_threads(), batch_size * normal.dataset[0].shape[-1] ** 2
    work = sum(weights.numel() for weights in network.parameters()) * pixels
    torch.set_num_threads(max(min(before, int(work / WORK_OF_A_THREAD)), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generators at `seed` inside, as they were outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for matrix products where the device computes it natively; training only, never a score."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def _batch(normal: DataLoader[Tensor], size: int) -> Tensor:
    images = normal.dataset
    chosen = torch.randint(len(images), (size,)).tolist()  # type: ignore[arg-type]
    return torch.stack([images[i] for i in chosen])


def _save(detector: Detector, parts: Mapping[str, Any], seed: int, step: int) -> None:
    if detector.progress.checkpoint is None:
        return
    state = io.BytesIO()  # torch itself says nothing useful of a full disk
    torch.save({"step": step, "seed": seed, **{name: part.state_dict() for name, part in parts.items()}}, state)
    detector.progress.keep(state.getvalue())


def _resume(detector: Detector, parts: Mapping[str, Any], seed: int) -> int:
    path = detector.progress.checkpoint
    if path is None or not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        if state["seed"] != seed:
            return 0
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot resume the training from {path} ({reason}); delete that file to train from the start"
        ) from None
