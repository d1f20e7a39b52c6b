"""Published data sets as they are downloaded: trees of that layout, and what is missing or strange in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_layouts import put, read, refusal


def mask(path: Path, marked: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:4, :4] = 255 * marked
    Image.fromarray(pixels).save(path)


@pytest.fixture
def ad2(tmp_path: Path) -> Path:
    for i in range(6):
        put(tmp_path / f"can/train/good/{i:03}_regular.png")
    for i in range(2):
        put(tmp_path / f"can/validation/good/{i:03}_regular.png")
    for light in ("regular", "overexposed", "shift_1"):
        for i in range(3):
            put(tmp_path / f"can/test_public/good/{i:03}_{light}.png")
            put(tmp_path / f"can/test_public/bad/{i:03}_{light}.png")
            mask(tmp_path / f"can/test_public/ground_truth/bad/{i:03}_{light}_mask.png")
    put(tmp_path / "can/test_private/000_mixed.png")
    return tmp_path


def test_mvtec_ad_2(ad2: Path) -> None:
    data = read(ad2, "mvtec-ad-2", "can")
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (8, 18, 9)
    assert all((data.test.mask(i) is not None) == bool(label) for i, label in enumerate(data.test.labels))
    one = read(ad2, "mvtec-ad-2", "can-shift_1")
    assert (len(one.train), len(one.test)) == (8, 6) and all(name.endswith("shift_1") for name in one.test.ids)
    assert "no category of mvtec-ad-2 (can), which is the light, named 'dark'" in refusal(ad2, "mvtec-ad-2", "can-dark")
    assert "no category of mvtec-ad-2 named 'bottle'" in refusal(ad2, "mvtec-ad-2", "bottle")
    assert "there is no" in refusal(ad2, "mvtec-ad-2", "rice")
    assert "--dataset mvtec-ad-2" in refusal(ad2, "folder")


def test_mvtec_loco(tmp_path: Path) -> None:
    root = tmp_path / "pushpins"
    for i in range(5):
        put(root / f"train/good/{i:03}.png")
        put(root / f"validation/good/{i:03}.png")
        put(root / f"test/good/{i:03}.png")
        put(root / f"test/logical_anomalies/{i:03}.png")
        put(root / f"test/structural_anomalies/{i:03}.png")
        for kind in ("logical_anomalies", "structural_anomalies"):
            mask(root / f"ground_truth/{kind}/{i:03}/000.png")
    mask(root / "ground_truth/logical_anomalies/000/001.png")
    data = read(tmp_path, "mvtec-loco", "pushpins")
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (10, 15, 10)
    assert not any("not read" in note for note in data.notes)
    assert all((data.test.mask(i) is not None) == bool(label) for i, label in enumerate(data.test.labels))


def test_mpdd(tmp_path: Path) -> None:
    for i in range(5):
        put(tmp_path / f"tubes/train/good/{i:03}.png")
        put(tmp_path / f"tubes/test/good/{i:03}.png")
        put(tmp_path / f"tubes/test/anomalous/{i:03}.png")
        mask(tmp_path / f"tubes/ground_truth/anomalous/{i:03}_mask.png")
    data = read(tmp_path, "mpdd", "tubes")
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (5, 10, 5)
    assert "category of mpdd" in refusal(tmp_path, "mpdd", "bottle")


def test_kolektor_sdd2(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("test", 6)):
        for i in range(count):
            put(tmp_path / f"{split}/{i:05}.png")
            mask(tmp_path / f"{split}/{i:05}_GT.png", marked=i % 3 == 0)
    data = read(tmp_path, "kolektor-sdd2")
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (5, 6, 2)
    assert any("3 anomalous training images" in note for note in data.notes)
    (tmp_path / "test/00004_GT.png").unlink()
    assert "00004.png has no mask 00004_GT.png" in refusal(tmp_path, "kolektor-sdd2")


@pytest.fixture
def real_iad(tmp_path: Path) -> Path:
    table: dict[str, object] = {"meta": {"prefix": "usb/", "normal_class": "OK", "pre_transform": None}}
    for split, kinds in (("train", ("OK",)), ("test", ("OK", "QS"))):
        entries = []
        for kind in kinds:
            for i in range(5):
                name = f"{'OK' if kind == 'OK' else f'NG/{kind}'}/S{i:04}/usb_{split}_{i}_{kind}_C1.jpg"
                put(tmp_path / "realiad_256/usb" / name)
                at = None if kind == "OK" else name.replace(".jpg", "_mask.png")
                if at:
                    mask(tmp_path / "realiad_256/usb" / at)
                entries.append({"category": "usb", "anomaly_class": kind, "image_path": name, "mask_path": at})
        table[split] = entries
    for place in ("realiad_jsons/usb.json", "realiad_jsons/realiad_jsons_sv/usb.json"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(table))
    return tmp_path


@pytest.mark.parametrize("category", ["usb", "usb-sv"])
def test_real_iad(real_iad: Path, category: str) -> None:
    data = read(real_iad, "real-iad", category)
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (5, 10, 5)
    assert all((data.test.mask(i) is not None) == bool(label) for i, label in enumerate(data.test.labels))


def test_real_iad_that_is_not_whole(real_iad: Path) -> None:
    assert "category of real-iad (usb), which is `sv` or nothing," in refusal(real_iad, "real-iad", "usb-top")
    assert "there is no" in refusal(real_iad, "real-iad", "zipper")
    path = real_iad / "realiad_jsons/usb.json"
    table = json.loads(path.read_text())
    (real_iad / "realiad_256/usb" / table["test"][0]["image_path"]).unlink()
    assert "the table lists OK/S0000/usb_test_0_OK_C1.jpg, which is not below" in refusal(real_iad, "real-iad", "usb")
    path.write_text(json.dumps({"train": []}))
    assert "is not that of Real-IAD: 'meta' is not there" in refusal(real_iad, "real-iad", "usb")
    path.write_text("{")
    assert "cannot read" in refusal(real_iad, "real-iad", "usb")
