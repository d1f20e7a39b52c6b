"""Backbones that timm does not have, and weights from files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from bench import UserError
from bench.plugins import registry

features: Any = importlib.import_module(
    f"{registry.load('detectors', 'patchcore').target.__module__.rpartition('.')[0]}._features"
)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def images(size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def bottleneck(x: Tensor, state: dict[str, Tensor], block: str, first: int) -> Tensor:
    """A block of the published ResNet-50 from its weights: the first 1x1 convolution has the stride `first`."""

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{block}.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(y, mean, var, weight, bias, eps=1e-5)

    y = norm(F.conv2d(x, state[f"{block}.conv1.weight"], stride=first), "bn1").relu()
    y = norm(F.conv2d(y, state[f"{block}.conv2.weight"], padding=1), "bn2").relu()
    y = norm(F.conv2d(y, state[f"{block}.conv3.weight"]), "bn3")
    if f"{block}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=first)
        mean, var, weight, bias = (
            state[f"{block}.downsample.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, var, weight, bias, eps=1e-5)
    return (x + y).relu()


def published_resnet50(x: Tensor, state: dict[str, Tensor]) -> list[Tensor]:
    x = F.conv2d((x - MEAN) / STD, state["conv1.weight"], stride=2, padding=3)
    mean, var, weight, bias = (state[f"bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    x = F.max_pool2d(F.batch_norm(x, mean, var, weight, bias, eps=1e-5).relu(), 3, stride=2, padding=1)
    maps = []
    for layer, blocks in ((1, 3), (2, 4), (3, 6)):
        for block in range(blocks):
            x = bottleneck(x, state, f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1)
        maps.append(x)
    return maps


def keras_state() -> dict[str, Tensor]:
    """Random weights, with running statistics that matter, under the names of timm's resnet50 up to layer 3."""
    import timm

    torch.manual_seed(0)
    state: dict[str, Tensor] = timm.create_model("resnet50", features_only=True, out_indices=(3,)).state_dict()
    for name, value in state.items():
        if name.endswith(("running_var", "bn3.weight")):  # timm starts with a last scale of zero: no branch would count
            value.uniform_(0.5, 1.5)
    return state


@pytest.mark.parametrize("layers", [(1, 2, 3), (2,), (3,)])
def test_the_published_resnet50_halves_in_the_first_convolution(layers: tuple[int, ...]) -> None:
    """Against a construction from the weights alone; timm's network with the same weights gives other features."""
    state = keras_state()
    ours = features.Backbone("resnet50_v1", layers)
    ours._load_state(state, "the test")
    timms = features.Backbone("resnet50", layers)
    timms._load_state(state, "the test")
    expected = published_resnet50(images(), state)
    for layer, mine, other in zip(layers, ours(images()), timms(images()), strict=True):
        assert torch.allclose(mine, expected[layer - 1], atol=1e-4, rtol=1e-4)
        if layer > 1:  # up to there the two networks are one
            assert (mine - other).abs().mean() > 0.05 * mine.abs().mean()
        else:
            assert torch.equal(mine, other)


def test_half_precision_weights_become_single(tmp_path: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in keras_state().items()}
    path = tmp_path / "resnet50_v1_to_layer3.fp16.safetensors"
    save_file(state, path)
    assert features.backbone_name(None, path) == "resnet50_v1"
    ours = features.Backbone("resnet50_v1", (2, 3))
    ours.load_weights(path)
    loaded = ours.model.state_dict()
    assert {value.dtype for value in loaded.values() if value.is_floating_point()} == {torch.float32}
    assert torch.equal(loaded["layer3.5.conv3.weight"], state["layer3.5.conv3.weight"].float())
    assert ours(images())[0].dtype == torch.float32


def test_squeezenet_is_torchvisions(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    whole = torchvision.models.squeezenet1_1(weights=None).eval()
    path = tmp_path / "squeezenet1_1.safetensors"
    save_file(whole.state_dict(), path)
    assert features.backbone_name(None, path) == "squeezenet1_1"
    ours = features.Backbone("squeezenet1_1", (1, 2, 3))
    ours.load_weights(path)
    outputs: dict[int, Tensor] = {}
    for index in (4, 7, 12):
        whole.features[index].register_forward_hook(lambda _m, _i, out, index=index: outputs.__setitem__(index, out))
    whole((images(128) - MEAN) / STD)
    maps = ours(images(128))
    assert [m.shape[1] for m in maps] == [128, 256, 512]
    assert [m.shape[2] for m in maps] == [31, 15, 7]  # about 1/4, 1/8 and 1/16
    for mine, theirs in zip(maps, outputs.values(), strict=True):
        assert torch.equal(mine, theirs)
    (second,) = features.Backbone("squeezenet1_1", (2,))(images())
    assert second.shape[1] == 256


@pytest.mark.parametrize("name", ["resnet50_v1", "squeezenet1_1"])
def test_layers_that_do_not_exist_are_refused(name: str) -> None:
    for layers in ((4,), (2, 4), (0,)):
        with pytest.raises(UserError, match=rf"{name} has layers 1, 2 and 3, not "):
            features.Backbone(name, layers)
    assert features.last_layer(name) == 3


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "cifar_resnet18"])
def test_the_last_layer_exists_and_is_the_last(name: str) -> None:
    last = features.last_layer(name)
    assert len(features.Backbone(name, (last,))(images())) == 1
    with pytest.raises(UserError, match="cannot give layers"):
        features.Backbone(name, (last + 1,))


@pytest.mark.parametrize(
    ("name", "lacks"), [("resnet50_v1", "conv1.weight"), ("squeezenet1_1", "features.0.weight"), ("resnet18", "conv1")]
)
def test_weights_of_another_network_are_named(tmp_path: Path, name: str, lacks: str) -> None:
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError) as caught:
        features.Backbone(name, (2, 3)).load_weights(tmp_path / "other.safetensors")
    assert f"does not fit {name}: it lacks {lacks}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_there_is_no_download_for_the_published_resnet50() -> None:
    with pytest.raises(UserError, match=r"resnet50_v1 cannot be downloaded.*--param weights=PATH"):
        features.Backbone("resnet50_v1", (2,)).load_weights("hub")


def test_an_unreachable_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def offline(**_: object) -> None:
        raise OSError("no route to host")

    backbone = features.Backbone("squeezenet1_1", (2,))
    monkeypatch.setattr(torchvision.models, "squeezenet1_1", offline)
    monkeypatch.setattr(features, "_unreachable", {})
    with pytest.raises(UserError, match=r"no route to host.*download\.pytorch\.org"):
        backbone.load_weights("hub")


def test_an_unknown_backbone_names_those_outside_timm() -> None:
    with pytest.raises(UserError, match=r"timm has no model 'resnet5'.*resnet50_v1, squeezenet1_1"):
        features.backbone_name("resnet5", "hub")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mobilenetv2_100.safetensors", "mobilenetv2_100"),
        ("resnet50_v1_to_layer3.fp16.safetensors", "resnet50_v1"),
        ("squeezenet1_1.safetensors", "squeezenet1_1"),
    ],
)
def test_real_weights_are_recognised_and_loaded(file: str, name: str) -> None:
    """Trained features: the channels of normalised images differ from those of random weights, and are sparse."""
    path = shared("weights", file)
    assert features.backbone_name(None, path) == name
    backbone = features.Backbone(name, (2, 3))
    backbone.load_weights(path)
    state, loaded = load_file(path), backbone.model.state_dict()
    assert loaded and all(torch.equal(value, state[key].to(value.dtype)) for key, value in loaded.items())
    for maps in backbone(images()):
        assert maps.dtype == torch.float32 and maps.isfinite().all() and maps.std() > 1e-3
    x = images().double().requires_grad_(True)
    backbone.double()(x)[1].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
