"""Models in files: scored as what they were made from, or refused in one line that says what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import small_data
from torch import Tensor, nn

from bench import Data, UserError, evaluate, fit_or_load
from bench.core.parameters import identity
from bench.plugins.fitting import DetectorSpec

Run = Callable[..., tuple[int, str, str]]


class Net(nn.Module):
    """A map, and its smooth maximum; as anomalib names them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(self.layer.weight.shape, generator=torch.Generator().manual_seed(0)))
            nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        anomaly_map = self.layer(x).abs().sum(1, keepdim=True)
        return anomaly_map.flatten(1).logsumexp(1), anomaly_map


class MapAlone(Net):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[1]


@pytest.fixture
def data() -> Data:
    return small_data()


def scripted(folder: Path, net: nn.Module, name: str = "model.pt") -> Path:
    torch.jit.trace(net.eval(), torch.rand(2, 3, 8, 8)).save(folder / name)
    return folder / name


def as_onnx(folder: Path, net: nn.Module, images: int | None = None) -> Path:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    axes = {name: {0: "n"} for name in ("image", "pred_score", "anomaly_map")} if images is None else None
    path = folder / "model.onnx"
    torch.onnx.export(net.eval(), (torch.rand(images or 2, 3, 8, 8),), str(path), input_names=["image"],
                      output_names=["pred_score", "anomaly_map"], dynamic_axes=axes, dynamo=False)  # fmt: skip
    return path


def test_a_torchscript_file_is_what_it_was_made_from(data: Data, tmp_path: Path) -> None:
    net = Net()
    detector = fit_or_load(f"exported:{scripted(tmp_path, net)}", data)
    images = data.test.images(range(6))
    assert torch.allclose(detector.score(images), net(images)[0], rtol=1e-5)
    found = evaluate(f"exported:{tmp_path}/model.pt", data, "pgd-linf", "32/255", attack_params={"steps": 5})
    assert found.metrics["robust_auroc"] < found.metrics["clean_auroc"]  # its gradient is followed
    record = found.attrs["run"]
    assert record["spec"]["detector"] == "exported:torchscript"
    assert record["detector"]["parameters"]["file"].startswith("sha256:")
    failed = [check for check in record["checks"] if not check["passed"] and check["name"] != "steps"]
    assert not failed, failed


@pytest.mark.parametrize("images", [None, 1])
def test_an_onnx_file_is_what_it_was_made_from(data: Data, tmp_path: Path, images: int | None) -> None:
    net = Net()
    path = as_onnx(tmp_path, net, images)
    detector = fit_or_load(f"exported:{path}", data)
    x = data.test.images(range(6))
    assert torch.allclose(detector.score(x), net(x)[0], rtol=1e-4)
    assert detector.anomaly_map is not None and torch.allclose(detector.anomaly_map(x), net(x)[1], rtol=1e-3)
    with pytest.raises(UserError, match="not differentiable and pgd follows the gradient"):
        evaluate(f"exported:{path}", data, "pgd-linf")
    assert len(evaluate(f"exported:{path}", data, "square-linf", attack_params={"queries": 5})) == len(data.test)
    other = small_data(size=16)
    with pytest.raises(UserError, match=r"takes images of 8 x 8 pixels, and these have 16 x 16: give --image-size 8"):
        evaluate(f"exported:{path}", other, "noise-linf")
    assert evaluate(f"exported:{path}", other, "noise-linf", params={"resize": True}).metrics["clean_auroc"] >= 0


def test_an_output_is_named_where_it_is_not_plain(data: Data, tmp_path: Path) -> None:
    path = scripted(tmp_path, MapAlone())
    with pytest.raises(
        UserError, match=r"has the outputs output \(\d+, 1, 8, 8\): none of them is one number an image"
    ):
        evaluate(f"exported:{path}", data, "noise-linf")
    for pool in ("max", "mean"):
        found = fit_or_load(f"exported:{path}", data, output="output", pool=pool)
        images = data.test.images(range(3))
        expected = MapAlone()(images).flatten(1)
        assert torch.allclose(found.score(images), expected.amax(1) if pool == "max" else expected.mean(1), rtol=1e-5)
    with pytest.raises(UserError, match="has no output 'score', but output"):
        evaluate(f"exported:{path}", data, "noise-linf", params={"output": "score"})


@pytest.mark.parametrize(
    ("graph", "weights"),
    [("m.xml", "m.bin"), ("m.onnx", "m.onnx.data"), ("m.onnx", "m.onnx_data")],
)
def test_weights_beside_a_graph_belong_to_it(tmp_path: Path, graph: str, weights: str) -> None:
    """A model that was trained again has the same graph, and its cells are not those of the first."""
    (tmp_path / graph).write_bytes(b"graph")
    alone = identity(tmp_path / graph)
    (tmp_path / weights).write_bytes(b"weights")
    first = identity(tmp_path / graph)
    (tmp_path / weights).write_bytes(b"others")
    assert len({alone, first, identity(tmp_path / graph)}) == 3
    (tmp_path / "another.bin").write_bytes(b"")
    (tmp_path / weights).write_bytes(b"weights")
    assert identity(tmp_path / graph) == first


def test_files_that_are_none(data: Data, tmp_path: Path) -> None:
    for name, says in (
        ("exported:nowhere.pt", "there is no file nowhere.pt"),
        ("exported:model.bin", "expected a file whose name ends in .onnx, .xml, .pt, .ts"),
        ("exported:torchscript", "give the model as file=PATH, or as exported:PATH"),
    ):
        with pytest.raises(UserError, match=says):
            DetectorSpec(name).build()
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises(UserError, match="is no TorchScript file"):
        fit_or_load(f"exported:{tmp_path}/model.pt", data)


def test_a_wrapper_goes_before_a_file(data: Data, tmp_path: Path) -> None:
    spec = DetectorSpec(f"smoothed+exported:{scripted(tmp_path, Net())}", {"smoothed.n": "3"})
    assert spec.label == "smoothed+exported:torchscript" and spec.fitted(data).randomized


def test_two_detectors_are_compared_image_by_image(
    tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    same, other = scripted(tmp_path, Net()), Net()
    with torch.no_grad():
        other.layer.weight.mul_(1.5)
    scripted(tmp_path, other, "other.pt")
    bed = ["--category", "brick", "--image-size", "8", "--limit", "8"]
    code, out, err = run_cli("compare-scores", f"exported:{same}", f"exported:{same}", *bed)
    assert code == 0 and "pass: no image differs by more than 0.001" in out and "rank correlation 1.000000" in out, err
    code, out, err = run_cli("compare-scores", f"exported:{same}", f"exported:{tmp_path}/other.pt", *bed)
    assert code == 1 and "FAIL: 8 of 8 images differ by more than 0.001" in out, (out, err)
    code, out, err = run_cli("compare-scores", "autoencoder", "nowhere", *bed)
    assert code == 2 and "no detector named 'nowhere'" in err
    code, out, err = run_cli("compare-scores", "autoencoder", "pls", *bed, "--tolerance", "-1")
    assert code == 2 and "--tolerance -1 must be a share" in err
