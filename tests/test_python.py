"""What a notebook calls: arguments as on the command line, results that show what they came to, and true modules."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Linear, NoisyLinear, small_data
from torch import Tensor, nn

from bench import Data, Rng, ThreatModel, UserError, certify, evaluate, fit_or_load, load_results, read_results
from bench.plugins import registry
from bench.plugins.fitting import DetectorSpec
from bench.stats.metrics import points


def test_an_evaluation_that_is_not_kept_has_its_metrics(data: Data, tmp_path: Path) -> None:
    alone, kept = evaluate(Linear(), data), evaluate(Linear(), data, results=tmp_path)
    assert alone.metrics == kept.metrics == alone.attrs["metrics"] == kept.attrs["run"]["metrics"]
    for column in ("clean", "robust"):
        scores = alone["worst" if column == "robust" else "clean"].to_numpy()
        assert alone.metrics[f"{column}_auroc"] == points(scores, alone.label.to_numpy(bool))["auroc"]
    (row,) = load_results(tmp_path).to_dict("records")
    assert all(row[name] == value for name, value in kept.metrics.items())
    read = evaluate(Linear(), data, results=tmp_path)  # a finished cell
    assert read.metrics == kept.metrics
    assert certify(Linear(), data, 0.1, samples=40, alpha=0.2).metrics["certified_auroc"] <= 1


def test_an_evaluation_shows_what_it_came_to_above_a_few_of_its_rows() -> None:
    found = evaluate(Linear(), small_data(normal=40, anomalous=40), eps="8/255")
    first, second, *table = repr(found).splitlines()
    assert first == "Linear, pgd-linf 8/255 on small/one"
    assert f"clean AUROC {found.metrics['clean_auroc']:.3f}, robust AUROC {found.metrics['robust_auroc']:.3f}" in second
    assert len(table) < 16 and "80 rows" in table[-1]
    html = found._repr_html_()
    assert "<table" in html and "robust AUROC" in html and html.count("<tr") < 16
    attacked = found[found.label == 1]
    assert type(attacked) is pd.DataFrame and "robust AUROC" not in repr(attacked)
    assert attacked.attrs["metrics"] == found.metrics


def test_an_evaluation_says_that_it_is_not_ranked(data: Data) -> None:
    class Random(Linear):
        unranked = "random weights"

    assert "not ranked: random weights" in repr(evaluate(Random(), data))


@pytest.mark.parametrize(
    ("attack", "given", "means"),
    [
        ("pgd", {"threat": "4/255"}, ("linf", "4/255")),
        ("pgd-l2", {"threat": "0.5"}, ("l2", "0.5")),
        ("pgd-l2", {"threat": 0.5}, ("l2", "0.5")),
        ("pgd-l2", {"threat": "l2 0.5"}, ("l2", "0.5")),
        ("pgd", {"threat": "l1 3"}, ("l1", "3")),
        ("pgd-l2", {"eps": 1}, ("l2", "1")),
        ("pgd", {"eps": Fraction(2, 255)}, ("linf", "2/255")),
        ("pgd", {"eps": 2 / 255}, ("linf", "2/255")),
        ("pgd", {"eps": np.float64(0.5 / 255)}, ("linf", "0.5/255")),
        ("pgd-l2", {"eps": 0.1234567}, ("l2", "0.1234567")),
        ("ddn", {"eps": 0.5}, ("l2", "0.5")),
        ("pgd", {}, ("linf", "2/255")),
        ("pgd", {"threat": ThreatModel("l2", 0.5)}, ("l2", "0.5")),
    ],
)
def test_a_threat_model_may_be_text_or_a_number(
    data: Data, attack: str, given: dict[str, Any], means: tuple[str, str]
) -> None:
    spec = evaluate(Linear(), data, attack, attack_params={"steps": 1}, **given).attrs["run"]["spec"]
    assert (spec["norm"], spec["eps"]) == means


@pytest.mark.parametrize(
    ("attack", "given", "says"),
    [
        ("pgd", {"threat": "2/x"}, "is not a number"),
        ("pgd", {"threat": "linf"}, "is not a number"),
        ("pgd", {"threat": "l7 2"}, "is not a number"),
        ("pgd", {"threat": True}, 'threat is True; expected "2/255", "linf 2/255", a number'),
        ("pgd", {"eps": [1]}, r'eps is \[1\]; expected "2/255"'),
        ("pgd-l2", {"threat": "linf 2/255"}, "attack pgd-l2 is in l2, but the threat model is in linf"),
        ("pgd", {"threat": "2/255", "eps": "2/255"}, "as threat or as eps, not both"),
        ("pgd", {"params": {"seed": 1}}, "params are of a detector that is given by its name"),
    ],
)
def test_what_is_no_threat_model_is_said_in_one_line(data: Data, attack: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        evaluate(Linear(), data, attack, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [load_results, lambda *given: pd.DataFrame(read_results(*given).results)])
def test_a_filter_is_one_text_or_several(read: Any, data: Data, tmp_path: Path) -> None:
    for eps in ("2/255", "4/255"):
        evaluate(Linear(), data, eps=eps, results=tmp_path)
    assert len(read(tmp_path, "detector=Linear")) == 2
    assert len(read(tmp_path, "detector=Linear,eps=4/255")) == 1
    assert len(read(tmp_path, ["eps=4/255", "eps=2/255"])) == 2
    with pytest.raises(UserError, match="fits no finished cell"):
        read(tmp_path, "detector=Other")


def test_parameters_are_given_in_one_way(data: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mapping, with values or text, in every function; keywords are the older way of one of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = {"steps": "2", "width": 8}
    one, other = fit_or_load("autoencoder", data, params=given), fit_or_load("autoencoder", data, steps=2, width="8")
    assert one.origin == other.origin
    rows = evaluate("autoencoder", data, attack_params={"steps": "1"}, params=given)
    assert one.origin is not None and rows.attrs["run"]["detector"]["fit"] == one.origin.fit
    bounds = certify("autoencoder", data, 0.1, samples=40, alpha=0.2, params={"steps": 2, "autoencoder.width": 8})
    assert bounds.attrs["run"]["detector"]["parameters"]["autoencoder.width"] == 8
    with pytest.raises(UserError, match="steps is given twice"):
        fit_or_load("autoencoder", data, params={"steps": 2}, steps=3)


@pytest.mark.parametrize("value", [3, "3", (3,), [3], np.int64(3)])
def test_one_layer_is_a_list_of_one(value: object) -> None:
    spec = DetectorSpec("patchcore", {"layers": value})
    assert spec.values["patchcore"] == {"layers": (3,)}


@pytest.mark.parametrize("kind", [Linear, NoisyLinear])
def test_a_detector_is_a_module_whose_call_is_its_score(kind: type[Linear]) -> None:
    """As libraries of attacks and of explanations take one."""
    detector: nn.Module = kind()
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    source = Rng(0, ["a", "b"])
    assert torch.equal(detector(x, source), kind().score(x, Rng(0, ["a", "b"])))
    found: Tensor = detector(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert found.shape == (2,) and gradient.shape == x.shape and gradient.abs().sum() > 0
    assert nn.Sequential(detector, nn.Sigmoid())(x).shape == (2,)
    seen: list[int] = []
    detector.register_forward_hook(lambda *_: seen.append(1))
    detector(x)
    assert seen == [1]


def test_a_wrapper_is_a_module_as_well() -> None:
    smoothed = registry.load("detectors", "smoothed").target(Linear(), n=3)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    found = smoothed(x, Rng(0, ["a", "b"]))
    assert torch.equal(found, smoothed.score(x, Rng(0, ["a", "b"])))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.abs().sum() > 0
