"""Stored images of a cell as a reader sees them: before, the perturbation, after, and what the detector made of it."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from .cells import Result
from .errors import UserError

Floats = npt.NDArray[np.floating[Any]]
LEAST = 96  # pixels along a side, below which a picture is enlarged


class Shot(NamedTuple):
    """One image. Pictures are data addresses of PNGs."""

    id: str
    label: str
    why: str
    clean: str
    perturbation: str
    """0 is mid-grey; `factor` times as strong as it is."""
    factor: float
    attacked: str
    maps: tuple[str, str] | None
    """Anomaly maps before and after on one scale, the strongest bright; None where the detector has none."""
    scores: tuple[float, float]
    ranks: tuple[int, int]
    """Among all images of the cell before and after the attack, 1 scores highest."""
    images: int


def shots(r: Result) -> list[Shot]:
    """The images that are stored with a cell; raises UserError for one that cannot be read."""
    return [_shot(r, entry) for entry in r.record.get("images", ())]


def _shot(r: Result, entry: dict[str, Any]) -> Shot:
    path = r.folder / entry["file"]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        clean, attacked = content["clean"], content["attacked"]
    except (OSError, ValueError, KeyError, EOFError):
        raise UserError(f"{path} cannot be read, and run.json of its cell names it: run the cell again") from None
    moved = attacked - clean
    largest = float(np.abs(moved).max())
    factor = 0.5 / largest if largest else 1.0
    maps = None
    if "map_clean" in content:
        before, after = content["map_clean"], content["map_attacked"]
        low, high = min(before.min(), after.min()), max(before.max(), after.max())
        maps = tuple(_picture(_cividis((m - low) / (high - low or 1))) for m in (before, after))
    at = r.table.ids.index(entry["id"])
    columns = [r.table.columns[name] for name in ("clean", "worst")]
    return Shot(
        entry["id"],
        "anomalous" if entry["label"] else "normal",
        entry["why"],
        _picture(clean),
        _picture(0.5 + factor * moved),
        round(factor, 1),
        _picture(attacked),
        maps,  # type: ignore[arg-type]
        tuple(float(c[at]) for c in columns),  # type: ignore[arg-type]
        tuple(int((c > c[at]).sum()) + 1 for c in columns),  # type: ignore[arg-type]
        len(r.table.ids),
    )


def _cividis(values: Floats) -> Floats:
    """(h, w) in [0, 1] -> (3, h, w), told apart with any colour vision."""
    import matplotlib

    return np.asarray(matplotlib.colormaps["cividis"](values)[..., :3]).transpose(2, 0, 1)


def _picture(image: Floats) -> str:
    """(3, H, W) in [0, 1] -> data:image/png."""
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(pixels)
    times = -(-LEAST // max(picture.size))
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    content = io.BytesIO()
    picture.save(content, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
