"""What happens to images without an adversary: a lamp that ages, a lens out of focus, a camera that moved.

Two sets. The *published* one is that of work on anomaly detection under distribution shift (ADShift, Cao et al. 2023,
https://arxiv.org/abs/2303.13845): four corruptions of ImageNet-C (Hendrycks & Dietterich 2019,
https://arxiv.org/abs/1903.12261) with its parameters, on the pixels of the file, 8 bits deep, before anything is
resized; results are cut to whole grey levels as the reference implementation does. The *line* set is what an inspection
line meets, on images as the detector is given them, in parts of their side. Whatever is random is drawn from the
image's own source.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError, unknown
from .decode import Pixels
from .images import to_tensor
from .rng import Rng

SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED_SEVERITY = 3
Floats = npt.NDArray[np.float64]


class Condition(NamedTuple):
    """A kind of shift at a severity."""

    kind: str
    severity: int

    @property
    def name(self) -> str:
        """Its column."""
        return f"{self.kind}_{self.severity}"


# The published set: pixels (H, W, 3) in [0, 1] -> the same. The parameter is that of ImageNet-C, by severity.


def brightness(x: Floats, amount: float, rng: Rng) -> Floats:
    """The value of HSV is raised; hue and saturation stay."""
    value = x.max(-1, keepdims=True)
    raised = np.clip(value + amount, 0, 1)
    return np.where(value > 0, x * np.divide(raised, value, out=np.zeros_like(value), where=value > 0), raised)


def contrast(x: Floats, factor: float, rng: Rng) -> Floats:
    """Towards the mean of each colour."""
    mean = x.mean((0, 1), keepdims=True)
    return np.clip((x - mean) * factor + mean, 0, 1)


def defocus_blur(x: Floats, radius_and_alias: tuple[int, float], rng: Rng) -> Floats:
    """A disk, whose edge is softened."""
    from scipy import ndimage

    radius, alias = radius_and_alias
    reach = max(radius, 8)
    soft = 1 if radius <= 8 else 2
    place = np.arange(-reach, reach + 1)
    disk = (place[:, None] ** 2 + place[None] ** 2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.arange(-soft, soft + 1) ** 2) / (2 * alias**2))
    kernel = disk / disk.sum()
    for axis in (0, 1):
        kernel = ndimage.convolve1d(kernel, taps / taps.sum(), axis, mode="mirror")
    return np.clip(np.stack([ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(3)], -1), 0, 1)


def gaussian_noise(x: Floats, deviation: float, rng: Rng) -> Floats:
    noise = rng.normal(torch.empty(1, *x.shape)).numpy()[0]
    return np.clip(x + deviation * noise, 0, 1)


PUBLISHED: dict[str, tuple[Callable[[Floats, Any, Rng], Floats], Sequence[Any]]] = {
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "defocus_blur": (defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
}


# The line's set: an image (3, S, S) in [0, 1] -> the same, which is clamped to [0, 1] and rounded to 8 bits.


def exposure(x: Tensor, stops: float, rng: Rng) -> Tensor:
    """Longer or shorter, by so many stops."""
    return x * 2.0 ** (_either(rng) * stops)


def gamma(x: Tensor, log_exponent: float, rng: Rng) -> Tensor:
    return x ** math.exp(_either(rng) * log_exponent)


def white_balance(x: Tensor, amount: float, rng: Rng) -> Tensor:
    """Warmer or colder: red is multiplied by exp(amount), blue divided by it, or the other way round."""
    gain = math.exp(_either(rng) * amount)
    return x * torch.tensor([gain, 1.0, 1 / gain]).view(3, 1, 1).to(x)


def vignette(x: Tensor, amount: float, rng: Rng) -> Tensor:
    """Darker by so much in the corners, with the square of the distance from the middle."""
    place = torch.linspace(-1, 1, x.shape[-1]).to(x)
    return x * (1 - amount * (place[:, None].square() + place[None].square()) / 2)


def defocus(x: Tensor, radius: float, rng: Rng) -> Tensor:
    """A disk of this radius, in parts of the side."""
    radius *= x.shape[-1]
    place = _places(math.ceil(radius), x)
    distance = (place[:, None].square() + place[None].square()).sqrt()
    return _blurred(x, (radius + 0.5 - distance).clamp(0, 1))


def motion_blur(x: Tensor, length: float, rng: Rng) -> Tensor:
    """A line of this length, in parts of the side, in any direction."""
    length = max(length * x.shape[-1], 1e-3)
    angle = math.pi * _uniform(rng)
    place = _places(math.ceil(length / 2), x)
    along = place[None] * math.cos(angle) + place[:, None] * math.sin(angle)
    across = place[None] * math.sin(angle) - place[:, None] * math.cos(angle)
    return _blurred(x, (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1))


def sensor_noise(x: Tensor, amount: float, rng: Rng) -> Tensor:
    """Of photons and of reading: variance amount^2 * (x + 1/4)."""
    return x + amount * (x + 0.25).sqrt() * rng.normal(x[None])[0]


def jpeg(x: Tensor, quality: float, rng: Rng) -> Tensor:
    from PIL import Image

    content = io.BytesIO()
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(content, "JPEG", quality=int(quality))
    with Image.open(content) as image:
        found = np.asarray(image.convert("RGB"))
    return torch.from_numpy(found.copy()).permute(2, 0, 1).to(x) / 255


def translation(x: Tensor, length: float, rng: Rng) -> Tensor:
    """By this much in any direction, in parts of the side; the edge is repeated."""
    angle = 2 * math.pi * _uniform(rng)
    return _moved(x, 0.0, 2 * length * math.cos(angle), 2 * length * math.sin(angle))


def rotation(x: Tensor, degrees: float, rng: Rng) -> Tensor:
    """One way or the other; the edge is repeated."""
    return _moved(x, math.radians(_either(rng) * degrees), 0.0, 0.0)


LINE: dict[str, tuple[Callable[[Tensor, float, Rng], Tensor], Sequence[float]]] = {
    "exposure": (exposure, (0.1, 0.2, 0.35, 0.5, 0.75)),
    "gamma": (gamma, (0.08, 0.16, 0.25, 0.37, 0.5)),
    "white-balance": (white_balance, (0.02, 0.04, 0.07, 0.11, 0.16)),
    "vignette": (vignette, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "defocus": (defocus, (0.004, 0.008, 0.012, 0.018, 0.025)),
    "motion-blur": (motion_blur, (0.01, 0.02, 0.03, 0.045, 0.06)),
    "sensor-noise": (sensor_noise, (0.01, 0.02, 0.035, 0.055, 0.08)),
    "jpeg": (jpeg, (90, 75, 60, 40, 20)),
    "translation": (translation, (0.005, 0.01, 0.02, 0.03, 0.05)),
    "rotation": (rotation, (0.5, 1.0, 2.0, 3.5, 5.0)),
}
SETS = {"published": tuple(PUBLISHED), "line": tuple(LINE)}


def kinds_of(names: Sequence[str]) -> tuple[str, ...]:
    """Kinds, and sets of them by name, each kind once. Raises UserError for what is none."""
    found: list[str] = []
    for name in names:
        if name not in SETS and name not in PUBLISHED and name not in LINE:
            raise unknown("kind of shift", name, [*SETS, *PUBLISHED, *LINE])
        found += SETS.get(name, (name,))
    return tuple(dict.fromkeys(found))


def label(kinds: Sequence[str], severities: Sequence[int]) -> str:
    """As tables name them: `published, severity 3`."""
    sets = [name for name, own in SETS.items() if set(own) <= set(kinds)]
    rest = [kind for kind in kinds if not any(kind in SETS[name] for name in sets)]
    levels = "1 to 5" if tuple(severities) == SEVERITIES else ", ".join(map(str, severities))
    return f"{', '.join([*sets, *rest])}, severity {levels}"


def severities_of(numbers: Sequence[int]) -> tuple[int, ...]:
    """Each once. Raises UserError for what is none."""
    for number in numbers:
        if number not in SEVERITIES:
            raise UserError(f"--severity {number}: severities are 1 to 5")
    return tuple(sorted(set(numbers)))


def shifted(pixels: Pixels, clean: Tensor, condition: Condition, rng: Rng) -> Tensor:
    """The image (3, S, S) under a condition: from the pixels of its file, or as the detector is given it (`clean`).

    rng: the source of this image alone.
    """
    source = rng.child("shift", condition.kind)  # the same draws at every severity
    if condition.kind in PUBLISHED:
        change, amounts = PUBLISHED[condition.kind]
        levels = change(_eight_bits(pixels) / 255, amounts[condition.severity - 1], source) * 255
        return to_tensor(levels.astype(np.uint8), clean.shape[-1])
    move, parameters = LINE[condition.kind]
    found = move(clean, parameters[condition.severity - 1], source)
    return (found.clamp(0, 1) * 255).round() / 255


def _eight_bits(pixels: Pixels) -> Floats:
    """(H, W[, 3 or 4]) uint8 or uint16 -> (H, W, 3), 0 to 255."""
    whole = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, -1)
    scale = 257 if pixels.dtype == np.uint16 else 1
    return np.asarray(whole[..., :3] // scale, dtype=np.float64)


def _either(rng: Rng) -> int:
    return 1 if _uniform(rng) < 0.5 else -1


def _uniform(rng: Rng) -> float:
    return float(rng.uniform(torch.empty(1, 1)))


def _places(reach: int, like: Tensor) -> Tensor:
    return torch.arange(-reach, reach + 1, device=like.device).to(like)


def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
    reach = kernel.shape[-1] // 2
    padded = F.pad(x[None], (reach,) * 4, mode="replicate")
    weights = (kernel / kernel.sum())[None, None].expand(3, 1, -1, -1)
    return F.conv2d(padded, weights, groups=3)[0]


def _moved(x: Tensor, angle: float, right: float, down: float) -> Tensor:
    """right, down: in halves of the side."""
    cos, sin = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[[cos, -sin, -right], [sin, cos, -down]]]).to(x)
    grid = F.affine_grid(theta, [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
