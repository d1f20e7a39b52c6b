"""A model in a file, as it goes to the line: ONNX, OpenVINO or TorchScript. Nothing is fitted.

`exported:model.onnx` and `exported:onnx` with `file=model.onnx` mean the same. What anomalib exports is read as it is:
its files resize and normalise by themselves, take images in [0, 1], and give `pred_score` and `anomaly_map`. The scores
are those of the file, with whatever normalisation it holds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng, UserError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
SCORE, MAP = "pred_score", "anomaly_map"


class Exported(Detector):
    """Score = what the file gives for an image: an output of one number, or a pooled map.

    file: the model. output: name of the output that is the score; left out, `pred_score`, or the only one of one number
    an image. pool: how an output that is a map becomes a score. inputs: what the file expects, images in [0, 1] or
    normalised as for ImageNet. resize: images of another size than the file takes are resized to it, bilinearly with
    antialiasing; else they are refused.
    """

    needs = "file"
    differentiable = False

    def __init__(
        self,
        *,
        file: Path | None = None,
        output: str = "",
        pool: Literal["max", "mean"] = "max",
        inputs: Literal["unit", "imagenet"] = "unit",
        resize: bool = False,
    ):
        super().__init__()
        if file is None:
            raise ValueError("give the model as file=PATH, or as exported:PATH")
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
        self.file, self.output, self.pool, self.inputs, self.resize = file, output, pool, inputs, resize
        self._opened: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A session is opened anew in every process, and by every copy."""
        return self.__dict__ | {"_opened": None}

    def fit(self, normal: DataLoader[Tensor]) -> None:
        """Nothing to learn; what runs the file is started, so that no score has to."""
        self._open()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        self._open()
        return super().load_state_dict(state_dict, strict, assign)

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        found = self._outputs(x)
        name = self._score_name(found)
        values = found[name].reshape(len(x), -1)
        if values.shape[1] == 1:
            return values[:, 0]
        return values.amax(1) if self.pool == "max" else values.mean(1)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W), at the size of x."""
        found = self._outputs(x)
        if MAP not in found or found[MAP].ndim not in (3, 4):
            raise UserError(f"{self.file.name} has no output {MAP}, but {_said(found)}")
        maps = found[MAP]
        maps = maps[:, None] if maps.ndim == 3 else maps
        return F.interpolate(maps, x.shape[2:], mode="bilinear", align_corners=False)

    def _score_name(self, found: Mapping[str, Tensor]) -> str:
        if self.output:
            if self.output not in found:
                raise UserError(f"{self.file.name} has no output {self.output!r}, but {_said(found)}")
            return self.output
        numbers = [name for name, value in found.items() if value[0].numel() == 1]
        if SCORE in numbers or len(numbers) == 1:
            return SCORE if SCORE in numbers else numbers[0]
        which = "none of them is one number an image" if not numbers else "several of them are one number an image"
        raise UserError(
            f"{self.file.name} has the outputs {_said(found)}: {which}; name the score with --param output=NAME (a map "
            "is pooled)"
        )

    def _outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Every output by name, its first axis the images, in single precision on the device of x."""
        self._open()
        batch, _, height, width = self._shape()
        if height is not None and width is not None and tuple(x.shape[2:]) != (height, width):
            if not self.resize:
                raise UserError(
                    f"{self.file.name} takes images of {height} x {width} pixels, and these have {x.shape[2]} x "
                    f"{x.shape[3]}: give --image-size {height}, or --param resize=true"
                )
            x = F.interpolate(x, (height, width), mode="bilinear", antialias=True, align_corners=False)
        if self.inputs == "imagenet":
            mean, deviation = (torch.tensor(values).view(3, 1, 1).to(x) for values in (MEAN, DEVIATION))
            x = (x - mean) / deviation
        parts = [(len(some), self._run(some)) for some in x.split(batch or len(x))]
        found = {
            name: torch.cat([_by_image(part[name]) for _, part in parts])
            for name in parts[0][1]
            if all(_is_by_image(part[name], count) for count, part in parts)
        }
        if not found:
            raise UserError(f"no output of {self.file.name} has one entry an image")
        return {name: value.to(x.device, torch.float32) for name, value in found.items()}

    @abstractmethod
    def _open(self) -> None:
        """Once."""

    @abstractmethod
    def _shape(self) -> Sequence[int | None]:
        """(N, 3, H, W) that the file takes; None: any."""

    @abstractmethod
    def _run(self, x: Tensor) -> dict[str, Tensor]:
        """Its outputs of these images."""


class Onnx(Exported):
    """An ONNX file, run by onnxruntime on the CPU. It has no gradient: square and transfer attack it."""

    def _open(self) -> None:
        if self._opened is not None:
            return
        try:
            import onnxruntime
        except ImportError:
            raise UserError("exported:onnx needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = onnxruntime.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UserError(
                f"{self.file} is no ONNX model that onnxruntime can open ({type(error).__name__})"
            ) from None
        given = session.get_inputs()
        if len(given) != 1 or len(given[0].shape) != 4:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in given)
            raise UserError(f"{self.file.name} takes {shapes}; expected one input of images (N, 3, H, W)")
        self._opened = session

    def _shape(self) -> Sequence[int | None]:
        shape = self._opened.get_inputs()[0].shape
        return [side if isinstance(side, int) and side > 0 else None for side in shape]

    def _run(self, x: Tensor) -> dict[str, Tensor]:
        names = [one.name for one in self._opened.get_outputs()]
        values = self._opened.run(names, {self._opened.get_inputs()[0].name: x.detach().float().cpu().numpy()})
        return {name: torch.as_tensor(value) for name, value in zip(names, values, strict=True)}


class OpenVino(Exported):
    """An OpenVINO model (model.xml, with model.bin beside it), on the CPU. It has no gradient."""

    def _open(self) -> None:
        if self._opened is not None:
            return
        try:
            import openvino
        except ImportError:
            raise UserError("exported:openvino needs openvino: pip install openvino") from None
        try:
            self._opened = openvino.Core().compile_model(str(self.file), "CPU")
        except Exception as error:
            raise UserError(f"{self.file} is no model that OpenVINO can open ({type(error).__name__})") from None

    def _shape(self) -> Sequence[int | None]:
        shape = self._opened.input(0).get_partial_shape()
        return [None if side.is_dynamic else int(side.get_length()) for side in shape]

    def _run(self, x: Tensor) -> dict[str, Tensor]:
        found = self._opened([x.detach().float().cpu().numpy()])
        return {_name_of(port, i): torch.as_tensor(found[port]) for i, port in enumerate(self._opened.outputs)}


class TorchScript(Exported):
    """A TorchScript file. Its gradient is followed where it has one."""

    differentiable = True

    def _open(self) -> None:
        if self._opened is None:
            try:
                self._opened = torch.jit.load(str(self.file), map_location="cpu").eval()
            except Exception as error:
                raise UserError(f"{self.file} is no TorchScript file ({type(error).__name__})") from None
            for parameter in self._opened.parameters():
                parameter.requires_grad_(False)

    def __setattr__(self, name: str, value: Any) -> None:
        """What is opened is no part of the state dict: the file is a parameter."""
        if name == "_opened":
            object.__setattr__(self, name, value)
        else:
            nn.Module.__setattr__(self, name, value)

    def _shape(self) -> Sequence[int | None]:
        return (None, 3, None, None)

    def _run(self, x: Tensor) -> dict[str, Tensor]:
        found = self._opened(x)
        if isinstance(found, Tensor):
            return {"output": found}
        if hasattr(found, "_asdict"):
            found = found._asdict()
        pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
        return {str(name): value for name, value in pairs if isinstance(value, Tensor)}


def _is_by_image(value: Tensor, count: int) -> bool:
    return value.shape[:1] == (count,) or (count == 1 and value.ndim == 0)


def _by_image(value: Tensor) -> Tensor:
    """Its first axis the images."""
    return value.reshape(1) if value.ndim == 0 else value


def _name_of(port: Any, number: int) -> str:
    names = sorted(port.get_names())
    return names[0] if names else str(number)


def _said(found: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in found.items())


MEMBERS = {"onnx": Onnx, "openvino": OpenVino, "torchscript": TorchScript}
