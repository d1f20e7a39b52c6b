"""`bench verify` on stored images: they are whole, the data set's, and have the scores of their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored_cells import Run, Verify, cell, change_rows, failed, index_of, record_of, rewrite, verifier


@pytest.fixture
def verified(run_cli: Run, ran: Path) -> Verify:
    return verifier(run_cli, ran)


def rewrite_image(folder: Path, **change: Callable[[np.ndarray], np.ndarray]) -> str:
    """Change arrays of the first stored image, and its hash in run.json; the id of its row."""
    record = record_of(folder)
    entry = record["images"][0]
    path = folder / entry["file"]
    with np.load(path) as arrays:
        found = dict(arrays)
    np.savez(path, **{name: change.get(name, lambda array: array)(found.get(name)) for name in {*found, *change}})
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(entry["id"])


def test_stored_images_that_are_not_what_their_row_says(published: Path, verified: Verify) -> None:
    folder = cell(published)

    def first(change: Callable[[np.ndarray], np.ndarray]) -> tuple[int, str]:
        rewrite_image(folder, attacked=change)
        code, found = verified(folder)
        assert "scores" not in found
        return code, found["images"]

    with np.load(folder / record_of(folder)["images"][0]["file"]) as arrays:
        clean, attacked = arrays["clean"], arrays["attacked"]
    assert "expected float32 (3, 16, 16)" in first(lambda a: a.astype(np.float64))[1]
    assert "expected float32 (3, 16, 16)" in first(lambda a: attacked[:, :8])[1]
    assert "not finite" in first(lambda a: np.full_like(attacked, np.nan))[1]
    assert "leaves the pixel range" in first(lambda a: attacked + 2)[1]
    assert "more than the budget" in first(lambda a: np.clip(attacked + 0.1, 0, 1))[1]
    code, line = first(lambda a: clean + (attacked - clean) / 2)
    assert code == 1 and line.startswith("FAIL") and "is moved by" in line and "and its row says" in line


def test_stored_files_that_are_damaged(published: Path, verified: Verify) -> None:
    folder = cell(published)
    rewrite_image(folder, other=lambda a: np.zeros(3))
    assert "holds the arrays attacked, clean, other" in verified(folder)[1]["images"]
    path = folder / record_of(folder)["images"][0]["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its sha256 is not the one in run.json" in verified(folder)[1]["images"]
    for damaged in (content[: len(content) // 2], b"", b"\x80\x04N."):
        path.write_bytes(damaged)
        digest = hashlib.sha256(damaged).hexdigest()
        rewrite(folder, lambda record, digest=digest: record["images"][0].update(sha256=digest))  # type: ignore[misc]
        assert "is not a whole npz file" in verified(folder)[1]["images"]
    path.unlink()
    code, found = verified(folder)
    assert code == 1 and "cannot be read" in found["images"]


def test_an_image_of_the_right_distance_that_is_not_the_attack(published: Path, verified: Verify) -> None:
    """The mirror image of the perturbation: as far away, and its score is another."""
    folder = cell(published)
    with np.load(folder / record_of(folder)["images"][0]["file"]) as arrays:
        clean = arrays["clean"]
        mirrored = clean - (arrays["attacked"] - clean)
    name = rewrite_image(folder, attacked=lambda array: mirrored)
    distance = float(np.abs(mirrored.astype(np.float64) - clean.astype(np.float64)).max())

    def change(rows: list[dict[str, str]]) -> None:
        rows[index_of(rows, name)]["distance"] = repr(distance)

    change_rows(folder, change)
    code, found = verified(folder)
    assert code == 1 and failed(found) == ["scores"] and f"({name}, attacked)" in found["scores"]
    assert verified(folder, "--no-scores")[0] == 0


def test_a_clean_image_that_is_not_of_the_data_set(published: Path, verified: Verify) -> None:
    folder = cell(published)
    rewrite_image(folder, clean=lambda a: a[..., ::-1], attacked=lambda a: a[..., ::-1])
    code, found = verified(folder)
    assert code == 1 and failed(found) == ["data"] and "scores" not in found


def test_without_the_data_set_scores_cannot_be_had(published: Path, run_cli: Run, ran: Path, tmp_path: Path) -> None:
    detector = ("--detector", f"{ran}/mine.py:Mean")
    for more in ((), ("--data-root", tmp_path / "nowhere")):
        code, out, err = run_cli("verify", cell(published), *detector, *more)
        assert code == 2 and len(err.splitlines()) == 1 and "skip    data: " in out
        code, out, err = run_cli("verify", cell(published), *detector, *more, "--no-scores")
        assert (code, err) == (0, "") and "pass    images: " in out
