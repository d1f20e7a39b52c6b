"""VisA's own layout and table: as it is downloaded, as other programs save it, and tables that are not its."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_layouts import put, read, refusal

COLUMNS = "object,split,label,image,mask\n"


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    """Its root; masks hold class numbers."""
    rows = []
    for label, count in (("Normal", 10), ("Anomaly", 5)):
        for i in range(count):
            name = f"candle/Data/Images/{label}/{i:04}.JPG"
            put(tmp_path / name)
            mask = f"candle/Data/Masks/Anomaly/{i:04}.png" if label == "Anomaly" else ""
            rows.append(["candle", "train" if label == "Normal" and i < 6 else "test", label.lower(), name, mask])
    (tmp_path / "candle/Data/Masks/Anomaly").mkdir(parents=True)
    for i in range(5):
        mask_ = np.zeros((16, 16), np.uint8)
        mask_[:4, :4] = 1 + i % 3
        Image.fromarray(mask_).save(tmp_path / f"candle/Data/Masks/Anomaly/{i:04}.png")
    (tmp_path / "split_csv").mkdir()
    with (tmp_path / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS.strip().split(","), *rows])
    return tmp_path


def test_the_official_visa_layout(visa: Path) -> None:
    data = read(visa, "visa", "candle")
    assert (len(data.train), len(data.test), sum(data.test.labels)) == (6, 9, 5)
    masks = [data.test.mask(i) for i, label in enumerate(data.test.labels) if label]
    assert [int(m.sum()) for m in masks if m is not None] == [16] * 5
    (visa / "candle/Data/Images/Normal/0000.JPG").unlink()
    assert "lists candle/Data/Images/Normal/0000.JPG, which is not below" in refusal(visa, "visa", "candle")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",test,", ",val,", "line 8 has the split 'val'; expected train or test"),
        (",anomaly,", ",defect,", "has the label 'defect'; expected normal or anomaly"),
        (",", ";", "has no column object"),
        ("object,", "category,", "has no column object"),
        ("candle,", "pcb1,", "lists no image of candle"),
        ("/0003.JPG", "/0003.\0", "0003.%00"),
        ("candle/Data/Images/Normal/0003.JPG", "", "lists no image"),
    ],
)
def test_a_table_that_is_not_visas(visa: Path, old: str, new: str, says: str) -> None:
    table = visa / "split_csv/1cls.csv"
    table.write_text(table.read_text().replace(old, new))
    assert says in refusal(visa, "visa", "candle")


@pytest.mark.parametrize("change", ["BOM", "capitals", "blanks", "CRLF", "short rows"])
def test_a_table_that_another_program_saved(visa: Path, change: str) -> None:
    table, before = visa / "split_csv/1cls.csv", read(visa, "visa", "candle")
    text = table.read_text()
    if change == "BOM":
        table.write_text("\ufeff" + text, encoding="utf-8")
    elif change == "capitals":
        table.write_text(text.replace(",normal,", ",Normal,").replace(",test,", ",TEST,"))
    elif change == "blanks":
        table.write_text(text.replace(",normal,", ", normal ,").replace(".JPG", ".JPG "))
    elif change == "CRLF":
        table.write_bytes(text.replace("\n", "\r\n").encode())
    else:
        table.write_text(text.replace(",\n", "\n"))
    data = read(visa, "visa", "candle")
    assert data.test.fingerprint == before.test.fingerprint and data.train.fingerprint == before.train.fingerprint


def test_a_table_that_is_not_text(visa: Path) -> None:
    (visa / "split_csv/1cls.csv").write_bytes(b"\xff\xfe" + COLUMNS.encode("utf-16-le"))
    assert "save it as CSV in UTF-8" in refusal(visa, "visa", "candle")
