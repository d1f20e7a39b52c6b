"""How a member of the family anomalib is parametrised, built and trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anomalib_members import MEMBERS, images, member, normal_loader
from conftest import module, shared
from torch.utils.data import DataLoader

from bench import Progress, UserError, load_data


def test_the_annotated_attributes_are_the_parameters() -> None:
    assert list(MEMBERS["dfm"]().parameters_record) == ["backbone", "weights", "layer", "pooling", "variance", "resize"]
    assert MEMBERS["padim"]("resnet34", features=3).parameters_record["backbone"] == "resnet34"
    assert MEMBERS["efficient_ad"]("medium").model_size == "medium"
    for given in (("resnet34", "random"), ("resnet34", "random", (1,))):
        with pytest.raises(TypeError, match="positional"):  # only the first needs no name
            MEMBERS["padim"](*given)


def test_a_backbone_that_is_not_named_is_the_librarys() -> None:
    backbones = [MEMBERS[name]().backbone for name in ("stfpm", "dfm", "cfa", "rad")]
    assert backbones == ["resnet18", "resnet50", "wide_resnet50_2", "vit_base_patch16_dinov3"]


def test_random_weights_are_not_ranked() -> None:
    assert member("stfpm").unranked == member("csflow").unranked == "random weights"
    assert not MEMBERS["stfpm"]().unranked and not MEMBERS["draem"]().unranked


class Noted(Progress):
    def __init__(self) -> None:
        self.calls: list[tuple[int, int, float | None]] = []

    def update(self, step: int, total: int, loss: float | None = None) -> None:
        self.calls.append((step, total, loss))


def test_training_shows_its_loss_and_keeps_its_number_of_steps() -> None:
    detector = member("stfpm", steps=5, batch_size=8)
    detector.progress = Noted()
    detector.fit(normal_loader())
    assert [call[:2] for call in detector.progress.calls] == [(i, 5) for i in range(1, 6)]
    assert all(call[2] is not None and call[2] > 0 for call in detector.progress.calls)


def test_training_is_silent_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    member("cfa", steps=2).fit(normal_loader())
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_fit_repeats_and_leaves_the_generators_of_others_alone() -> None:
    import numpy as np

    np.random.seed(5)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        detector = member("fastflow", steps=2)
        detector.fit(normal_loader())
        states.append(detector.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_a_training_that_diverges_stops() -> None:
    detector = member("stfpm", steps=3)
    images = [torch.full((3, 64, 64), float("nan"))] * 8
    with pytest.raises(UserError, match="diverged at step 1 of 3: the loss is nan"):
        detector.fit(DataLoader(images, batch_size=8))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("reverse_distillation", 48, "multiples of 32, at least 32, not 48x48"), ("dinomaly", 60, "multiples of 14")],
)
def test_a_size_that_a_model_cannot_take_is_refused(name: str, size: int, message: str) -> None:
    detector = member(name, resize=None)
    with pytest.raises(UserError, match=message):
        detector.fit(normal_loader(4, size))


def test_images_are_resized_inside() -> None:
    detector = member("padim", resize=32)
    detector.fit(normal_loader(size=64))
    x = images()
    assert detector.anomaly_map(x).shape == (4, 1, 64, 64)
    (gradient,) = torch.autograd.grad(detector.score(x.requires_grad_(True)).sum(), x)
    assert gradient.shape == x.shape and float(gradient.abs().amax()) > 0


def test_weights_from_a_file_reach_the_model() -> None:
    path = shared("weights", "mobilenetv2_100.safetensors")
    features = module("_features")
    detector = member("stfpm", backbone=None, weights=path, steps=1)
    detector.fit(normal_loader())
    assert detector.backbone == "mobilenetv2_100" and not detector.unranked
    expected = features.read_weights(path)["conv_stem.weight"]
    state = detector.state_dict()
    assert torch.equal(state["model.teacher_model.feature_extractor.model.conv_stem.weight"], expected)
    assert not torch.equal(state["model.student_model.feature_extractor.conv_stem.weight"], expected)


def test_padim_finds_the_defects_of_real_bottles() -> None:
    from sklearn.metrics import roc_auc_score

    path = shared("weights", "mobilenetv2_100.safetensors")
    data = load_data("folder", root=shared("data"), category="mvtec_bottle", image_size=64)
    train, _ = data.train.split(0)
    detector = MEMBERS["padim"](weights=path)
    detector.fit(DataLoader(train, batch_size=32))
    with torch.no_grad():
        scores = detector.score(data.test.images(range(len(data.test))))
    assert roc_auc_score(data.test.labels, scores.numpy()) > 0.95


def test_a_version_without_a_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MEMBERS["padim"], "source", ("perfection", "Perfection"))
    with pytest.raises(UserError, match=r"anomalib 2\.\d+\.\d+ has no model perfection .*; pip install 'anomalib>=2.7"):
        member("padim").fit(normal_loader(4))
    with pytest.raises(UserError, match="has no model"):
        module("_anomalib_library").part_of("anomalib.models.image.padim.lightning_model", "Nothing")


def test_bad_parameters_are_refused() -> None:
    for name, given in (
        ("dfkde", {"scaling": "none"}),
        ("anomaly_dino", {"backbone": "vit_small_patch16_224"}),
        ("anomaly_dino", {"coreset": 2.0}),
        ("uninet", {"backbone": "resnet18"}),
        ("general_ad", {"top": 0}),
        ("mh_patchcore", {"variance": 1.0}),
        ("rad", {"backbone": "resnet18"}),
    ):
        with pytest.raises(ValueError, match=f"{next(iter(given))} must be"):
            member(name, **given)
    with pytest.raises(UserError, match="choose fewer components"):
        member("dfkde", components=6).fit(normal_loader(4))
    with pytest.raises(UserError, match="narrower than pooling=40"):
        member("fre", pooling=40).fit(normal_loader(4))
    with pytest.raises(ValueError, match="backbone must be one of resnet18"):
        member("reverse_distillation", backbone="mobilenetv2_100")
    with pytest.raises(ValueError, match="condition must be a multiple of 4"):
        member("cflow", condition=6)
    with pytest.raises(UserError, match="fewer than fibers=100000"):
        member("cflow", fibers=100000).fit(normal_loader(4))
    with pytest.raises(UserError, match="less than pooling=40"):
        member("dfm", pooling=40).fit(normal_loader(4))
