"""Stored images as the page shows them, and what is said of those that it cannot show."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.cells import images
from bench.cells.reader import Results, find_cells
from bench.cells.result import Result
from bench.report.gallery import LEAST, gallery
from bench.report.page import page

Arrays = dict[str, np.ndarray]


@pytest.fixture
def cell(published: Path) -> Result:
    """Three stored images of 16 pixels."""
    (found,) = (r for r in find_cells(published).results if r.record.images and r.spec.detector == "Mean")
    return found


def store(r: Result, arrays: Arrays | bytes, index: int = 0) -> None:
    """Other content for a stored image, with its hash."""
    entry = r.record.images[index]
    path = r.folder / entry.file
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez(path, **arrays)  # type: ignore[arg-type]
    entry.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()


def stored(r: Result, index: int = 0) -> Arrays:
    with np.load(r.folder / r.record.images[index].file) as arrays:
        return dict(arrays)


def pixels(address: str) -> np.ndarray:
    """(H, W, 3), as stored: without the enlargement."""
    kind, _, content = address.partition(",")
    assert kind == "data:image/png;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert max(found.shape) >= LEAST
    return found[:: found.shape[0] // 16, :: found.shape[1] // 16]


def test_a_shot_is_the_stored_image_and_its_row(cell: Result) -> None:
    shots, notes = gallery(cell)
    assert not notes and len(shots) == 3
    for index, shot in enumerate(shots):
        arrays, row = stored(cell, index), next(row for row in cell.table.rows if row.id == shot.id)
        for name, address in (("clean", shot.clean), ("attacked", shot.attacked)):
            expected = (arrays[name].astype(float) * 255).round().astype(np.uint8).transpose(1, 2, 0)
            assert np.array_equal(pixels(address), expected)
        assert shot.scores == (row.clean, row.worst) and shot.maps is None
        assert shot.label == ("anomalous" if row.label else "normal") and shot.images == 12
        for rank, name in zip(shot.ranks, ("clean", "worst"), strict=True):
            assert sorted(cell.table.columns[name], reverse=True)[rank - 1] == getattr(row, name)


def test_the_perturbation_is_enlarged_to_the_whole_range_and_says_by_how_much(cell: Result) -> None:
    arrays = stored(cell)
    moved = arrays["attacked"] - arrays["clean"]
    shot = gallery(cell).shots[0]
    assert shot.factor == pytest.approx(0.5 / np.abs(moved).max(), abs=0.05)
    shown = pixels(shot.perturbation).astype(float) / 255
    assert np.abs(shown - 0.5).max() == pytest.approx(0.5, abs=0.01)
    assert np.allclose(shown, 0.5 + moved.transpose(1, 2, 0) * 0.5 / np.abs(moved).max(), atol=0.01)
    store(cell, {"clean": arrays["clean"], "attacked": arrays["clean"]})
    still = gallery(cell).shots[0]
    assert still.factor == 1 and set(pixels(still.perturbation).flat) == {128}


def test_maps_are_on_one_scale(cell: Result) -> None:
    before, after = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.float32)
    before[3, 4], after[3, 4], after[8, 9] = 1, 2, 1
    store(cell, stored(cell) | {"map_clean": before, "map_attacked": after})
    maps = gallery(cell).shots[0].maps
    assert maps is not None
    first, second = (pixels(address) for address in maps)
    assert np.array_equal(first[3, 4], second[8, 9]) and np.array_equal(first[0, 0], second[0, 0])
    assert not np.array_equal(first[3, 4], second[3, 4])
    assert second[3, 4].sum() == max(second.sum(-1).max(), first.sum(-1).max())


def archived(**content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in content.items():
            archive.writestr(f"{name}.npy", text)
    return file.getvalue()


def flipped(r: Result) -> bytes:
    """Compressed content that is none."""
    content = bytearray((r.folder / r.record.images[0].file).read_bytes())
    content[len(content) // 3 : len(content) // 3 + 64] = b"\xff" * 64
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda r: b"", "is not a whole npz file"),
        (lambda r: b"PK\x03\x04 no zip", "is not a whole npz file"),
        (flipped, "is not a whole npz file"),
        (lambda r: archived(clean=b"no array", attacked=b""), "is not a whole npz file"),
        (lambda r: {"clean": stored(r)["clean"]}, "holds the arrays clean; expected attacked, clean"),
        (lambda r: stored(r) | {"map_clean": np.zeros((4, 4))}, "holds the arrays attacked, clean, map_clean"),
        (lambda r: stored(r) | {"map_clean": np.zeros((4, 4)), "map_attacked": np.zeros(16)}, "expected two maps"),
        (lambda r: stored(r) | {"map_clean": np.zeros((0, 4)), "map_attacked": np.zeros((0, 4))}, "expected two maps"),
        (lambda r: stored(r) | {"attacked": np.full((3, 16, 16), np.nan, np.float32)}, "are not finite"),
        (lambda r: stored(r) | {"attacked": stored(r)["attacked"][:, :8]}, "expected float32 (3, 16, 16)"),
    ],
)
def test_an_image_that_is_damaged_is_a_note(
    cell: Result, content: Callable[[Result], Arrays | bytes], says: str
) -> None:
    store(cell, content(cell))
    shots, (note,) = gallery(cell)
    assert len(shots) == 2 and says in note
    entry = cell.record.images[0]
    assert note.startswith(f"{entry.file} ({entry.id}) ")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "nobody"}, "has no row of that id and label"),
        ({"label": 0}, "has no row of that id and label"),
        ({"sha256": "0" * 64}, "was changed after the run"),
        ({"file": "images/0123456789abcdef.npz"}, "cannot be read: No such file"),
    ],
)
def test_an_entry_that_names_another_image_is_a_note(cell: Result, change: dict[str, Any], says: str) -> None:
    entry = cell.record.images[0]
    assert entry.label == 1
    for name, value in change.items():
        setattr(entry, name, value)
    shots, (note,) = gallery(cell)
    assert len(shots) == 2 and says in note


def test_nothing_outside_the_cell_is_opened(cell: Result, tmp_path: Path) -> None:
    entry = cell.record.images[0]
    outside = (cell.folder / entry.file).rename(tmp_path / "0123456789abcdef.npz")
    for file in (str(outside), os.path.relpath(outside, cell.folder), f"images/../{outside.name}"):
        entry.file = file
        shots, (note,) = gallery(cell)
        assert len(shots) == 2 and "is not read: images lie in images/ of their cell" in note


def test_an_image_that_would_fill_the_memory_is_a_note(cell: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    store(cell, archived(clean=b"\0" * 1_000_000, attacked=b""))
    packed = (cell.folder / cell.record.images[0].file).stat().st_size
    for limit, says in ((999_999, "is not a whole npz file"), (packed - 1, "is larger than")):
        monkeypatch.setattr(images, "IMAGE_BYTES", limit)
        notes = gallery(cell).notes
        assert says in notes[0]


def test_the_page_shows_the_images_and_says_what_it_cannot_show(cell: Result) -> None:
    store(cell, b"no zip", 1)
    other = replace(cell, folder=cell.folder.parent / "other", record=cell.record.model_copy(update={"images": []}))
    text = page(Results([cell, other], [], []))
    (packed,) = re.findall(r'<script type="application/gzip" id="data">([^<]*)</script>', text)
    shown, without = json.loads(gzip.decompress(base64.b64decode(packed)))["cells"]
    shots, (note,) = gallery(cell)
    assert f"Not shown: {note}" in unescape(shown)
    for shot in shots:
        assert f"<h3>{shot.id}</h3>" in shown and shot.clean in shown and shot.perturbation in shown
        assert f"perturbation × {shot.factor}" in shown  # noqa: RUF001
        assert f"rank {shot.ranks[0]} → {shot.ranks[1]}" in shown
    assert "<h2>Images</h2>" not in without and "Not shown" not in without
