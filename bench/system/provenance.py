"""Where a number comes from: package versions, the commit of the code, the device."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError

PACKAGES = (
    "adv-anomaly-bench",
    "torch",
    "torchvision",
    "timm",
    "anomalib",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "pillow",
)


@functools.cache
def versions() -> dict[str, str | None]:
    """Installed versions; None where a package is absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@functools.cache
def git_state() -> dict[str, Any]:
    """The commit of the checkout that this code runs from, and whether it differs from it; None when installed."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", str(Path(__file__).name)) is not None
    commit = git("rev-parse", "HEAD") if tracked else None
    dirty = bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "dirty": dirty}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.machine()}, {torch.get_num_threads()} threads"


def float32_throughout() -> None:
    """Convolutions and matrix products of this process keep all 24 bits of float32.

    On newer GPUs torch lets cuDNN take TF32 for convolutions, which keeps 11: a score then depends on the batch that it
    is in by more than 1e-4 of the spread of scores, and is another one than on a CPU.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU; anything else as torch names it.

    What runs there from now on has float32 as on the CPU: see `float32_throughout`.

    Raises UserError for what is no device, is not here, or (`meta`) holds no numbers.
    """
    float32_throughout()
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except Exception as error:
        # of others torch says which of its parts it was built with, on a page
        why = f" ({str(error).split('. ')[0].splitlines()[0]})" if name.startswith("cuda") and str(error) else ""
        raise UserError(
            f"--device {name or repr(name)} cannot be used here{why}; expected auto, cpu or a GPU of this machine, "
            "such as cuda:0"
        ) from None
    return device
