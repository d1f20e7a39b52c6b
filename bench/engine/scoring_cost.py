"""What a score costs whoever uses the detector: time an image, alone and in a batch, memory, and size."""

from __future__ import annotations

import time
from statistics import median

import torch
from torch import Tensor

from ..cells.schema import ScoringRecord
from ..core.detector import Detector
from ..core.rng import Rng
from ..core.score import Score
from ..system.memory import PeakMemory, free_memory

BATCHES = (1, 32)
TIMED = 5  # calls, after one that is not
ENOUGH = 1.0  # seconds: no further call is timed beyond
TOO_LONG = 2.0  # seconds of one image, from which on no batch is tried


def scoring_cost(detector: Detector, name: str, image_size: int) -> ScoringRecord:
    """Of random images; of a detector that draws noise, one draw. Medians, on the device and with the threads that the
    run has."""
    score = Score(detector, name)
    images = torch.rand(BATCHES[-1], 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    images = images.to(detector.device)
    memory = PeakMemory(detector.device)
    before = memory.mebibytes()
    alone = _seconds(score, images[:1])
    together = _together(score, images) if alone < TOO_LONG else None
    peak = memory.mebibytes()
    return ScoringRecord(
        ms_1=float(f"{1000 * alone:.3g}"),
        ms_32=None if together is None else float(f"{1000 * together:.3g}"),
        memory=None if peak is None or before is None else max(peak - before, 0),
        disk=sum(tensor.numel() * tensor.element_size() for tensor in detector.state_dict().values()),
    )


def _together(score: Score, images: Tensor) -> float | None:
    """Seconds an image; None where there is too little memory for all of them."""
    try:
        return _seconds(score, images) / len(images)
    except torch.OutOfMemoryError:
        free_memory()
        return None


def _seconds(score: Score, x: Tensor) -> float:
    rng = Rng(0, [str(i) for i in range(len(x))])
    found: list[float] = []
    while len(found) <= TIMED and sum(found) < ENOUGH:
        started = time.perf_counter()
        with torch.no_grad():
            score(x, rng).sum().item()  # waits for a GPU
        found.append(time.perf_counter() - started)
    return median(found[1:] or found)
