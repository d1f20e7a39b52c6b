"""Images that somebody else has made: scored as what they are, or refused with the name of the first that is wrong."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Linear, small_data
from PIL import Image
from test_run import cell_of

from bench import Data, UserError, evaluate
from bench.cells.record import read_finished

EPS = 8 / 255


@pytest.fixture
def data() -> Data:
    return small_data()


def moved(data: Data, index: int, eps: float = EPS) -> np.ndarray:
    """The best attack on `Linear`, which has a closed form."""
    image, sign = data.test.image(index), 1 - 2 * data.test.labels[index]
    return (image + eps * sign * Linear().weight.sign()).clamp(0, 1).numpy()


def write(data: Data, folder: Path, eps: float = EPS, suffix: str = ".npy") -> Path:
    for i, name in enumerate(data.test.ids):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npy":
            np.save(path, moved(data, i, eps))
        else:
            pixels = (moved(data, i, eps) * 255).round().astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(pixels).save(path)
    return folder


def run(data: Data, images: Path, **more: object) -> dict[str, float]:
    given = {"images": str(images), "name": "theirs"}
    return evaluate(Linear(), data, "given-linf", EPS, attack_params=given, **more).metrics  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_theirs_is_what_it_is(data: Data, tmp_path: Path, suffix: str) -> None:
    found = run(data, write(data, tmp_path / "theirs", suffix=suffix), results=tmp_path / "results")
    ours = evaluate(Linear(), data, "pgd-linf", EPS)
    assert found["robust_auroc"] == pytest.approx(ours.metrics["robust_auroc"])
    record = read_finished(cell_of(tmp_path / "results"))
    assert record.attack.parameters["images"].startswith("sha256:") and record.attack.sources["theirs"]["images"] == 15
    assert record.spec.attack == "given" and record.spec.attack_parameters["name"] == "theirs"


def test_an_archive_holds_the_same(data: Data, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "theirs")
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
        for path in sorted(folder.rglob("*.npy")):
            archive.write(path, path.relative_to(folder).as_posix())
    assert run(data, tmp_path / "theirs.zip") == run(data, folder)


def test_images_that_are_missing_are_left_as_they_are(data: Data, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "theirs")
    (folder / f"{data.test.ids[0]}.npy").unlink()
    found = evaluate(Linear(), data, "given-linf", EPS, attack_params={"images": str(folder), "name": "theirs"})
    assert found["distance"][0] == 0 and found["worst"][0] == found["clean"][0] and (found["distance"][1:] > 0).all()


def test_what_is_wrong_is_named(data: Data, tmp_path: Path) -> None:
    far = write(data, tmp_path / "far", 2 * EPS)
    with pytest.raises(
        UserError, match=r"far: good/0 is 0\.06\d+ away in linf, more than the budget .* others of this"
    ):
        run(data, far)
    folder = write(data, tmp_path / "theirs")
    np.save(folder / "good/0.npy", np.zeros((3, 4, 4)))
    with pytest.raises(UserError, match=r"good/0.npy is \(3, 4, 4\); expected \(3, 8, 8\)"):
        run(data, folder)
    np.save(folder / "good/0.npy", np.full((3, 8, 8), np.nan))
    with pytest.raises(UserError, match="good/0.npy holds values that are not finite"):
        run(data, folder)
    np.save(folder / "good/0.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(UserError, match="good/0.npy holds uint8; expected floats"):
        run(data, folder)
    (folder / "good/0.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="good/0.npy is no array of NumPy"):
        run(data, folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds none of the 15 test images, such as good/0.npy"):
        run(data, tmp_path / "empty")
    (tmp_path / "no.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot read .*no.zip"):
        run(data, tmp_path / "no.zip")


def test_it_is_said_what_is_not_said(run_cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    words = ["run", "--detector", "autoencoder", "--attack", "given-linf"]
    code, _, err = run_cli(*words)
    assert code == 2 and "images must name a folder or a zip archive" in err
    code, _, err = run_cli(*words, "--attack-param", f"images={tmp_path}")
    assert code == 2 and "name must say who made the images" in err
    code, _, err = run_cli(*words, "--attack-param", "images=nowhere", "--attack-param", "name=theirs")
    assert code == 2 and "there is no nowhere" in err
