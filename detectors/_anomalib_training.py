"""Training by the library's Engine: our images, our number of steps, our progress, and no files that stay."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import Progress, UserError

from ._anomalib_library import part_of


def train(module: Any, loader: DataLoader[Any], steps: int | None, progress: Progress, device: torch.device) -> None:
    """The library's Engine on the loader's batches, without validation or labels; steps None: one pass.

    The loss of every batch is shown, and must be a number.
    """
    lightning = importlib.import_module("lightning.pytorch")
    module.pre_processor = module.post_processor = module.evaluator = module.visualizer = None
    with tempfile.TemporaryDirectory() as folder:
        engine = part_of("anomalib.engine", "Engine")(
            callbacks=[_watch(lightning.Callback, progress, len(loader) if steps is None else steps)],
            logger=False,
            default_root_dir=folder,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            **_limit(module, len(loader), steps),
        )
        engine._setup_anomalib_callbacks = lambda: None  # it would write checkpoints and time stamps
        try:
            engine.fit(module, datamodule=_datamodule(lightning.LightningDataModule, loader))
        except SystemExit:  # how Lightning passes an interrupt on
            raise KeyboardInterrupt from None


def _limit(module: Any, batches: int, steps: int | None) -> dict[str, int]:
    if steps is None:
        return {"max_epochs": 1}
    if not module.automatic_optimization:  # Lightning counts each call of the optimiser, not the batches
        return {"max_epochs": -(-steps // batches)}
    return {"max_steps": steps, "max_epochs": -1}


def _watch(base: type, progress: Progress, total: int) -> Any:
    """Shows the loss of every batch, and stops at the first that is no number, or after `total` batches."""

    class Watch(base):  # type: ignore[misc]
        step = 0

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.step += 1
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            value = float(loss) if loss is not None else 0.0
            if value != value or abs(value) == float("inf"):
                raise UserError(
                    f"training diverged at step {self.step} of {total}: the loss is {value}; try fewer steps or "
                    "other weights"
                )
            progress.update(min(self.step, total), total, value)
            trainer.should_stop |= self.step >= total

    return Watch()


def _datamodule(base: type, loader: DataLoader[Any]) -> Any:
    class Images(base):  # type: ignore[misc]
        name, category, train_batch_size = "images", "", loader.batch_size

        def train_dataloader(self) -> DataLoader[Any]:
            return loader

    return Images()


class Items(Dataset[Any]):
    """Normal images (3, H, W) as anomalib's items, each prepared as the model takes it (as a batch of one)."""

    def __init__(self, images: Any, prepare: Callable[[Tensor], Tensor]):
        self.images, self.prepare = images, prepare
        self.item = part_of("anomalib.data", "ImageItem")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        with torch.no_grad():
            prepared = self.prepare(self.images[index][None])[0].cpu()
        return self.item(image=prepared, gt_label=torch.tensor(0))


def batches(items: Items, batch_size: int, *, shuffle: bool = True, drop_last: bool = False) -> DataLoader[Any]:
    """In anomalib's batches; the last one is dropped only where there is another."""
    collate = part_of("anomalib.data", "ImageBatch").collate
    drop_last &= len(items) > batch_size
    return DataLoader(items, batch_size=batch_size, shuffle=shuffle, collate_fn=collate, drop_last=drop_last)


def per_step(module: Any, anew: Callable[[Any], Any] | None = None) -> None:
    """The schedule of the learning rate counts steps, as the papers have it; the library lets it count epochs.

    It is the library's own, or what `anew` makes for the optimiser.
    """
    configure = module.configure_optimizers

    def configured() -> Any:
        given = configure()
        optimizer, schedule = (
            (given["optimizer"], given["lr_scheduler"]) if isinstance(given, dict) else (given[0][0], given[1][0])
        )
        schedule = anew(optimizer) if anew else schedule["scheduler"] if isinstance(schedule, dict) else schedule
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module.configure_optimizers = configured
