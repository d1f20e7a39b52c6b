"""Fits: what they depend on, how they are kept, and that two of them do not meet."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Linear, small_data
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.utils.data import DataLoader

from bench import UserError, evaluate, fit_or_load, load_data
from bench.core.detector import Detector
from bench.core.progress import Monitor
from bench.plugins import kept_fits, registry
from bench.plugins.fitting import DetectorSpec
from bench.system.cache import cache_folder

TINY: dict[str, Any] = {
    "diffpure.steps": 3,
    "diffpure.batch_size": 4,
    "diffpure.reverse_steps": 2,
    "autoencoder.steps": 3,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Drawn(Detector):
    """What it learns is drawn from torch's global generator, slowly."""

    meet = threading.Barrier(2)

    def __init__(self, number: int = 0):
        super().__init__()
        self.number = number
        self.register_buffer("drawn", torch.zeros(20))
        self.drawn: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        try:
            self.meet.wait(0.3)  # if two could be here at once, they would
        except threading.BrokenBarrierError:
            self.meet.reset()
        for i in range(20):
            self.drawn[i] = torch.rand(())

    def score(self, x: Tensor, rng: object = None) -> Tensor:
        return x.flatten(1).sum(1)


def test_fits_of_two_threads_draw_what_each_draws_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's generator is one for the whole process."""
    monkeypatch.setattr(registry, "load", lambda kind, name: registry.Plugin(name, Drawn, "code"))
    data = small_data()
    found: dict[int, Any] = {}

    def fit(number: int) -> None:
        found[number] = DetectorSpec("drawn", {"number": number}, device="cpu").fitted(data)

    fit(0)
    threads = [threading.Thread(target=fit, args=[number]) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = [found[number].get_buffer("drawn") for number in range(3)]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("name", ["autoencoder", "advrad", "ocr-gan"])
def test_a_small_network_is_trained_to_the_same_weights_on_any_number_of_cores(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = load_data("textures", category="brick", image_size=64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(threads)))
            torch.set_num_threads(threads)
            found.append(fit_or_load(name, data, params={"steps": 2}).state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    one, two = found
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_every_part_is_fitted_once_and_shared() -> None:
    data = small_data(size=16)

    def fits() -> set[str]:
        return {p.parent.name for p in cache_folder().rglob("fit.json")}

    alone = fit_or_load("autoencoder", data, steps=3)
    first = fits()
    purified = fit_or_load("diffpure+autoencoder", data, params=TINY)
    second = fits()
    assert first < second and len(second) == 2
    fit_or_load("diffpure+autoencoder", data, params={**TINY, "t": 30, "solver": "sde"})  # these only change the score
    fit_or_load("smoothed+diffpure+autoencoder", data, params=TINY)
    assert fits() == second
    assert purified.origin is not None and purified.origin.fit is not None
    assert set(purified.origin.fit["parts"]) == {"diffpure", "autoencoder"}
    assert purified.origin.parameters["autoencoder.steps"] == 3 and purified.origin.parameters["diffpure.t"] == 100
    for name, value in alone.state_dict().items():
        assert torch.equal(value, purified.state_dict()[f"inner.{name}"])


class Normed(Linear):
    """BatchNorm learns nothing from one image, and raises."""

    def fit(self, normal: object) -> None:
        assert isinstance(normal, DataLoader)
        norm = torch.nn.BatchNorm1d(3 * 8 * 8)
        for images in normal:
            norm(images.flatten(1))


@pytest.mark.parametrize("images", [4, 44, 53, 84])
def test_no_batch_of_a_fit_is_a_single_image(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 44 and 84 images 33 and 64 are fitted on, of 53 it is 40: a batch holds 32 of them, or 31."""
    monkeypatch.setattr(registry, "load", lambda _, name: registry.Plugin(name, Normed, "code"))
    assert fit_or_load("mine", small_data(train=images), device="cpu").origin is not None


def test_a_fit_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.load("detectors", "autoencoder").target
    monkeypatch.setattr(kind, "fit", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="detector autoencoder failed in fit: ZeroDivisionError"):
        fit_or_load("autoencoder", small_data())
    assert not (cache_folder() / "fitted").exists()


def test_where_a_fit_is_kept_depends_on_all_that_it_depends_on() -> None:
    data = small_data(size=16)
    places = {
        kept_fits.folder_of("autoencoder", data, {"code": code, "seed": seed}) for code in "ab" for seed in (0, 1)
    }
    assert len(places) == 4 and {place.parent.name for place in places} == {"small-one-16px"}


def test_sentences_that_nobody_asked_for_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Monitor().tell("100 % of it")
    DetectorSpec("autoencoder").tell("waiting")
    assert [record.getMessage() for record in caplog.records] == ["100 % of it", "waiting"]
    assert {record.name for record in caplog.records} == {"bench"}


def test_a_detector_that_the_caller_built_says_what_it_is() -> None:
    from bench.plugins.origin import origin_of

    origin = origin_of(Linear(3))
    assert (origin.name, origin.parameters, origin.changed, origin.fit) == ("Linear", {"seed": 3}, {"seed": 3}, None)
    assert len(origin.code) == 64


class Plain(Detector):
    """Keeps what it learned where no state dict sees it, as a wrapper around another library does."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(1)

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.mean = torch.cat(list(normal)).mean(0)

    def score(self, x: Tensor, rng: object = None) -> Tensor:
        return (x - self.mean).abs().flatten(1).sum(1)


class Grown(Plain):
    """Its state dict has a name after the fit that a new one does not know."""

    def fit(self, normal: DataLoader[Tensor]) -> None:
        del self.mean
        self.register_buffer("mean", torch.cat(list(normal)).mean(0))


class Half(Plain):
    """What it is asked to keep comes back in another precision."""

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.sharp = torch.cat(list(normal)).mean(0)

    def learned(self) -> dict[str, Tensor]:
        return {"mean": self.sharp.half()}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> None:
        self.sharp = state_dict["mean"].float()

    def score(self, x: Tensor, rng: object = None) -> Tensor:
        return (x - self.sharp).abs().flatten(1).sum(1)


class Wrapped(Plain):
    """Around a model of a library, which no state dict has; it says so when it is to score."""

    def fit(self, normal: DataLoader[Tensor]) -> None:
        self.model = NearestNeighbors(n_neighbors=1).fit(torch.cat(list(normal)).flatten(1).numpy())

    def score(self, x: Tensor, rng: object = None) -> Tensor:
        return torch.from_numpy(self.model.kneighbors(x.flatten(1).numpy())[0][:, 0]).float()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Wrapped, "is not in its state dict: loaded again, it cannot score .*no attribute 'model'"),
        (Plain, "has learned something that is not in its state dict"),
        (Grown, "cannot take back what its fit has learned"),
        (Half, "has learned something that is not in its state dict"),
    ],
)
def test_a_detector_that_would_be_another_one_in_the_next_process_is_refused(
    kind: type[Detector], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every time: what is kept of such a fit would give wrong numbers."""
    monkeypatch.setattr(registry, "load", lambda _, name: registry.Plugin(name, kind, "code"))
    for _ in range(2):
        with pytest.raises(UserError, match=says) as caught:
            fit_or_load("mine", small_data(), device="cpu")
        assert "register_buffer" in str(caught.value) and "\n" not in str(caught.value)
    assert not list(cache_folder().rglob("fit.json"))


class Told(Plain):
    """The plain attribute of `Plain`, given and taken back."""

    def learned(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> None:
        self.mean = state_dict["mean"] + 0.0
        self.loaded = True


def test_the_process_that_fits_scores_what_the_next_one_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load", lambda _, name: registry.Plugin(name, Told, "code"))
    data = small_data()
    first, second = (fit_or_load("mine", data, device="cpu") for _ in range(2))
    x = data.test.images(range(4))
    assert first.loaded and first.score(x).unique().numel() == 4
    assert torch.equal(first.score(x), second.score(x))


def test_the_round_trip_of_a_callers_object_is_a_check_of_its_run() -> None:
    data = small_data()
    for kind, passes in ((Plain, False), (Told, True)):
        detector = kind()
        detector.fit(DataLoader(data.train, batch_size=8))
        checks = {check["name"]: check["passed"] for check in evaluate(detector, data).attrs["run"]["checks"]}
        assert checks["round trip"] is passes
