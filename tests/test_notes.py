"""What is noticed about the images is kept with the numbers that they gave."""

from __future__ import annotations

from conftest import Linear, small_data

from bench import Data, Record, TestSet, evaluate


def warnings_of(data: Data) -> list[str]:
    found: list[str] = evaluate(Linear(), data, "noise-linf").attrs["run"]["warnings"]
    return found


def test_an_image_that_is_there_twice_is_a_warning_of_its_cell() -> None:
    data = small_data(train=80)
    first, *others = data.test.records
    again = Record("good/again", first.source)
    twice = Data("small", "one", data.image_size, data.train, TestSet([first, again, *others], data.image_size))
    (warning,) = warnings_of(twice)
    assert "twice in the test set" in warning and "good/again" in warning
    assert warnings_of(data) == []


def test_training_images_are_looked_at_once_for_any_limit() -> None:
    data = small_data()
    assert data.notes == data.limited(4).notes == ()
    assert data.limited(4).train.glances is data.train.glances
