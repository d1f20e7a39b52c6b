"""OCR-GAN: the frequency split, the losses, the selection of channels, and a training that repeats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Killed, KilledAt, small_data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Progress, UserError
from bench.plugins import registry

KIND: Any = registry.load("detectors", "ocr-gan").target
module: Any = sys.modules[KIND.__module__]


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def fitted(progress: Progress | None = None, size: int = 64, **given: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        built = KIND(**{"steps": 2, "batch_size": 4, **given})
        built.progress = progress or Progress()
        built.fit(DataLoader(small_data(size=size).train, batch_size=8))
    return built.eval()


@pytest.mark.parametrize("size", [(64, 64), (32, 48)])
def test_the_split_is_opencvs_pyramid(size: tuple[int, int]) -> None:
    import cv2

    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    image = x[0].permute(1, 2, 0).numpy()
    low = cv2.pyrUp(cv2.pyrDown(image))
    ours = [(band[0].permute(1, 2, 0).numpy() + 1) / 2 for band in module.bands(x)]
    assert np.allclose(ours[0], low, atol=1e-5)
    assert np.allclose(ours[1], np.maximum(image - low, 0), atol=1e-5)
    assert np.abs(low - image).max() > 0.1


def test_the_split_has_its_gradient_and_fits_odd_sizes() -> None:
    x = torch.rand(1, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    assert [band.shape for band in module.bands(x)] == [x.shape, x.shape]
    assert torch.autograd.gradcheck(lambda y: torch.cat(module.bands(y)), (x,))


def test_the_score_is_the_published_sum() -> None:
    built, x = fitted(), images(3, 64)
    low, high = module.bands(x)
    again = sum(built.generator(low, high))
    image = ((low + high - again) ** 2).mean((1, 2, 3))
    feature = ((built.discriminator.feature(low + high) - built.discriminator.feature(again)) ** 2).mean((1, 2, 3))
    assert torch.allclose(built.score(x), 0.9 * image + 0.1 * feature, rtol=1e-5)
    assert torch.allclose(built.anomaly_map(x).mean((1, 2, 3)), image, rtol=1e-5)


def test_the_losses_are_the_published_ones() -> None:
    """1 adversarial + 50 L1 + 1 feature; the discriminator's three verdicts and the same feature term."""
    built = fitted()
    real, fake, augmented = (2 * images(4, 64) - 1 + shift for shift in (0.0, 0.1, 0.2))
    verdicts, feature = {}, {}
    for name, x in (("real", real), ("fake", fake), ("augmented", augmented)):
        logits, feature[name] = built.discriminator(x)
        verdicts[name] = logits.sigmoid()
    distance = ((feature["real"] - feature["fake"]) ** 2).mean()
    expected = -verdicts["fake"].log().mean() + 50 * (real - fake).abs().mean() + distance
    assert built.generator_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-4)
    verdict = sum((1 - verdicts[name]).log().mean() for name in ("fake", "augmented")) + verdicts["real"].log().mean()
    assert built.discriminator_loss(real, fake, augmented).item() == pytest.approx(
        (distance - verdict).item(), rel=1e-4
    )


def test_channels_are_selected_by_a_part_that_is_trained_and_saved() -> None:
    """The defect of the public code: a selection that is new in every call."""
    before = KIND(steps=2, batch_size=4)
    selections = [name for name in before.state_dict() if "selections" in name]
    assert len(selections) == 6 * 5  # three linear layers at each of five levels
    torch.manual_seed(3)
    start = {name: value.clone() for name, value in KIND(steps=2, batch_size=4).state_dict().items()}
    built = fitted()
    for name in selections:
        assert not torch.equal(start[name], built.state_dict()[name]), name
    x = images(2, 64)
    assert torch.equal(built.score(x), built.score(x))
    assert torch.equal(built.state_dict()[selections[0]], fitted().state_dict()[selections[0]])


def test_the_selection_shares_every_channel_between_the_branches() -> None:
    select = module.Selection(8)
    low, high = torch.rand(2, 3, 8, 5, 5).unbind(0)
    with torch.no_grad():
        summary = select.squeeze((low + high).mean((2, 3)))
        share = F.softmax(torch.stack([select.low(summary), select.high(summary)], -1), -1)[:, :, None, None]
        found = select(low, high)
    assert torch.allclose(found[0], low * share[..., 0], atol=1e-6)
    assert torch.allclose(found[0] / low + found[1] / high, torch.ones_like(low), atol=1e-4)
    assert select.squeeze.out_features == 32 and module.Selection(128).squeeze.out_features == 64


def test_a_score_depends_on_its_own_image_only() -> None:
    """Batch normalisation takes its running statistics, also where scores are far from the training images."""
    built, x = fitted(), torch.cat([images(3, 64), torch.ones(1, 3, 64, 64)])
    assert torch.allclose(built.score(x), torch.cat([built.score(image[None]) for image in x]), rtol=1e-4)
    assert not any(part.training for part in built.modules() if isinstance(part, nn.BatchNorm2d))


def test_the_augmented_image_is_the_image_but_for_a_piece_and_a_hole() -> None:
    torch.manual_seed(0)
    x = images(16, 64)
    kept = x.clone()
    augmented = module.cut_and_paste(x)
    assert torch.equal(x, kept)
    assert augmented.min() >= 0 and augmented.max() <= 1
    changed = (augmented != x).any(1).flatten(1).float().mean(1)  # share of the pixels
    assert changed.min() > 0.015 and changed.max() < 0.16
    assert ((augmented == 0).all(1).flatten(1).sum(1) >= 25).all()  # 20 of 256 pixels are 5 of 64


def test_real_and_augmented_images_have_the_same_brightness() -> None:
    """The other defect: were one split and the other not, their means would lie 1 apart."""
    x = images(8, 64)
    torch.manual_seed(0)
    real, augmented = (sum(module.bands(y)).mean() for y in (x, module.cut_and_paste(x)))
    assert abs(real - augmented) < 0.1


def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._training, "SAVE_EVERY_SECONDS", 0.0)
    whole = fitted(steps=4)
    with pytest.raises(Killed):
        fitted(KilledAt(3, tmp_path / "training.pt"), steps=4)
    assert torch.load(tmp_path / "training.pt", weights_only=True)["step"] == 2
    resumed = fitted(KilledAt(0, tmp_path / "training.pt"), steps=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_training_that_diverges_stops_with_the_step() -> None:
    with pytest.raises(UserError, match=r"diverged at step \d+ of 60: the loss is"):
        fitted(steps=60, lr=1e30)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"multiples of 32 pixels and at least 64, not 40x40; choose --image-size 64"):
        fitted(size=40)
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        KIND(batch_size=1)


def test_presets_have_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`paper`: eight levels of 64 filters to a single pixel at 256; 200 epochs of the data it is given."""
    with torch.device("meta"):
        paper = KIND(preset="paper")
    widths = [level[-2 if len(level) == 3 else -1].out_channels for level in paper.generator.low.down]
    assert widths == [64, 128, 256, 512, 512, 512, 512, 512]
    x = torch.empty(2, 3, 256, 256, device="meta")
    assert paper.generator(x, x)[0].shape == x.shape
    assert paper.discriminator(x)[1].shape == (2, 100, 1, 1)
    assert (paper.batch_size, paper.lr) == (32, 2e-4)
    taken: list[int] = []
    monkeypatch.setattr(KIND, "_train", lambda self, normal, steps: taken.append(steps))
    paper.fit(DataLoader([torch.zeros(3, 256, 256)] * 70, batch_size=8))  # type: ignore[arg-type]
    assert taken == [200 * 3]  # 70 images are three batches of 32
    assert KIND().discriminator(images(1, 64))[1].shape == (1, 100, 1, 1)
