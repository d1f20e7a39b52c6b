"""Stored images of a cell as a reader sees them: before, the perturbation, after, and what the detector made of it."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..cells.images import ImageRecord, read_image
from ..cells.result import Result

Floats = npt.NDArray[np.floating[Any]]
EDGE = (0.84, 0.15, 0.16)  # red: cividis has none
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
    """Anomaly maps before and after on one scale, the strongest bright, the anomaly outlined where a mask says where it
    is; None where the detector has none."""
    what: str
    """The scores are."""
    scores: tuple[float, float]
    ranks: tuple[int, int]
    """Among all images of the cell before and after the attack, 1 scores highest."""
    images: int


class Gallery(NamedTuple):
    """The stored images of a cell."""

    shots: list[Shot]
    notes: list[str]
    """A sentence for each that cannot be shown."""


def gallery(r: Result) -> Gallery:
    """What is stored with a cell; an image that cannot be read, or is not of its row, is not shown."""
    found = Gallery([], [])
    for entry in r.record.images:
        shot = _shot(r, entry)
        if isinstance(shot, Shot):
            found.shots.append(shot)
        else:
            found.notes.append(f"{entry.file} ({entry.id}) {shot}")
    return found


def _shot(r: Result, entry: ImageRecord) -> Shot | str:
    """The image, or what is wrong with it."""
    at = r.table.ids.index(entry.id) if entry.id in r.table.ids else None
    if at is None or r.table.anomalous[at] != entry.label:
        return "has no row of that id and label"
    arrays = read_image(r.folder, entry, r.spec.image_size)
    if isinstance(arrays, str):
        return arrays
    content = {name: array.astype(np.float64) for name, array in arrays.items()}
    moved = content["attacked"] - content["clean"]
    largest = float(np.abs(moved).max())
    factor = 0.5 / largest if largest else 1.0
    before, after = (r.table.columns[name] for name in ("clean", "worst"))
    return Shot(
        entry.id,
        "anomalous" if entry.label else "normal",
        entry.why,
        _picture(content["clean"]),
        _picture(0.5 + factor * moved),
        round(factor, 1),
        _picture(content["attacked"]),
        _maps(content["map_clean"], content["map_attacked"], content.get("mask")) if "map_clean" in content else None,
        ("Mean of the map", "Pixel AUROC of the map")[entry.label] if r.of_maps else "Score",
        (float(before[at]), float(after[at])),
        (_rank(before, at), _rank(after, at)),
        len(r.table.ids),
    )


def _rank(scores: Floats, at: int) -> int:
    return int((scores > scores[at]).sum()) + 1


def _maps(before: Floats, after: Floats, mask: Floats | None) -> tuple[str, str]:
    """(h, w) each, on one scale; mask: (H, W)."""
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    scale = high - low or 1
    edge = _outline(mask, before.shape) if mask is not None else None
    first, second = (_picture(_cividis((one - low) / scale), edge) for one in (before, after))
    return first, second


def _outline(mask: Floats, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Pixels of a map of this shape just outside the mask."""
    from scipy import ndimage

    rows, columns = (np.arange(size) * full // size for size, full in zip(shape, mask.shape, strict=True))
    inside = mask[np.ix_(rows, columns)] > 0
    return np.asarray(ndimage.binary_dilation(inside) & ~inside)


def _cividis(values: Floats) -> Floats:
    """(h, w) in [0, 1] -> (3, h, w), told apart with any colour vision."""
    import matplotlib

    return np.asarray(matplotlib.colormaps["cividis"](values)[..., :3]).transpose(2, 0, 1)


def _picture(image: Floats, edge: npt.NDArray[np.bool_] | None = None) -> str:
    """(3, H, W) in [0, 1] -> data:image/png; edge: (H, W), drawn in a colour that is on no map."""
    if edge is not None:
        image = np.where(edge, np.array(EDGE)[:, None, None], image)
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(pixels)
    times = -(-LEAST // max(picture.size))
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    content = io.BytesIO()
    picture.save(content, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
