"""Images that somebody else has made: verified, scored, and entered as an attack of its own name.

Whoever finds an image that moves a score further than ours shows it here, as RobustBench takes new evaluations: it is
not the method that counts but the image, which must lie in the ball.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench import Attack, Context, Rng, Score, ThreatModel, UserError
from bench.core.decode import decode
from bench.core.norms import NORMS

SUFFIXES = (".npy", ".png")
SHOWN = 3  # names in an error


@dataclass(frozen=True)
class Given(Attack):
    """The images of a folder or a zip archive, by the ids of the test images: `good/000.npy` or `good/000.png`.

    images: the folder or the archive. A `.npy` holds float (3, H, W) in [0, 1], at the size that the detector is given;
    a `.png` is 8 bits deep, and its rounding counts against eps. An image that is not there is left as it is.
    name: of whoever made them, or how; a column of the board.
    """

    norms = NORMS
    needs_gradient = False

    images: Path | None = None
    name: str = ""

    sources: dict[str, Any] = field(default_factory=dict, init=False, compare=False)
    """Hash of the images, for the record."""
    _found: dict[str, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.images is None:
            raise ValueError("images must name a folder or a zip archive of attacked images: images=FOLDER")
        if not self.name:
            raise ValueError("name must say who made the images, or how: name=their-attack")
        if not self.images.exists():
            raise ValueError(f"there is no {self.images}")

    def prepare(self, context: Context) -> None:
        """Reads the images of all test images."""
        place, size = self.images, context.data.image_size
        assert place is not None
        total = hashlib.sha256()
        for name in context.data.test.ids:
            content, suffix = _content(place, name)
            if content is None:
                continue
            total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
            self._found[name] = _image(content, suffix, name, size)
        if not self._found:
            first = ", ".join(f"{name}{SUFFIXES[0]}" for name in context.data.test.ids[:SHOWN])
            raise UserError(f"{self.images} holds none of the {len(context.data.test)} test images, such as {first}")
        if missing := len(context.data.test) - len(self._found):
            context.tell(
                f"{missing} of {len(context.data.test)} test images are not in {self.images}: left as they are"
            )
        self.sources[self.name] = {"sha256": total.hexdigest(), "images": len(self._found)}

    def __call__(self, score: Score, x: Tensor, sign: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """The given images, in place of x (B, 3, H, W)."""
        images = torch.stack([self._found.get(name, x[i].cpu()) for i, name in enumerate(rng.ids)]).to(x)
        wrong = [
            f"{name} {why}"
            for i, name in enumerate(rng.ids)
            if (why := threat.violation(images[i : i + 1], x[i : i + 1])) is not None
        ]
        if wrong:
            more = f", and {len(wrong) - 1} others of this batch" if len(wrong) > 1 else ""
            raise UserError(f"{self.images}: {wrong[0]}{more}")
        return images


def _content(place: Path, name: str) -> tuple[bytes | None, str]:
    """The bytes of an image and how its name ends; None where there is none."""
    try:
        if place.is_dir():
            found = [place / f"{name}{suffix}" for suffix in SUFFIXES if (place / f"{name}{suffix}").is_file()]
            return (found[0].read_bytes(), found[0].suffix) if found else (None, "")
        with zipfile.ZipFile(place) as archive:
            for suffix in SUFFIXES:
                if f"{name}{suffix}" in archive.namelist():
                    return archive.read(f"{name}{suffix}"), suffix
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {place}: {error}") from None
    return None, ""


def _image(content: bytes, suffix: str, name: str, size: int) -> Tensor:
    """float (3, size, size) in [0, 1]."""
    pixels = _array(content, name) if suffix == ".npy" else _pixels(content, name)
    if pixels.shape != (3, size, size):
        raise UserError(f"{name}{suffix} is {pixels.shape}; expected (3, {size}, {size})")
    if not np.isfinite(pixels).all():
        raise UserError(f"{name}{suffix} holds values that are not finite")
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))


def _array(content: bytes, name: str) -> npt.NDArray[Any]:
    import io

    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{name}.npy is no array of NumPy ({error})") from None
    if not isinstance(found, np.ndarray) or not np.issubdtype(found.dtype, np.floating):
        raise UserError(f"{name}.npy holds {getattr(found, 'dtype', type(found).__name__)}; expected floats in [0, 1]")
    return found


def _pixels(content: bytes, name: str) -> npt.NDArray[Any]:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(content)
        file.flush()
        pixels = decode(Path(file.name))
    whole = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, -1)
    if whole.dtype != np.uint8:
        raise UserError(f"{name}.png is not 8 bits deep")
    return whole[..., :3].transpose(2, 0, 1).astype(np.float32) / 255
