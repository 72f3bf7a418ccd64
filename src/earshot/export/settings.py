"""What an export is asked for, and what it must hold. No torch."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from earshot.messages import check_choice
from earshot.prediction.precision import FLOAT32, PRECISIONS

FLOAT_PARTS = ("head", "att_block", "fc1", "fc_audioset")  # float32 unless asked: little work, and they decide
EXPORTERS = ("legacy", "dynamo")  # torch's: that of TorchScript, and that of torch.export
AUTO = "auto"  # of precisions: bf16 where this processor multiplies in it and the gates accept it, else float32
CHOICES = (AUTO, *EXPORTERS)  # auto: legacy, and dynamo where that cannot take a network


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export and what it must hold."""

    graph_format: str = "onnx"
    _: KW_ONLY
    int8: bool = False
    precision: str = "float32"  # of prediction/precision.py, or AUTO
    together: bool = False  # all folds in one graph, stacked on axis 1 of its outputs
    max_difference: float = 3e-3  # of probabilities to PyTorch (float32)
    max_drop: float = 0.002  # of the watched score on held-out clips
    check_oof: bool = True
    oof_clips: int = 0  # held-out clips a fold to check, evenly chosen; 0: all
    calibration_clips: int = 64  # that int8 ranges are measured on
    calibrate_on: str = "held-out"  # clips of the fold (their labels say nothing to int8), or "training" clips
    float_parts: tuple[str, ...] = FLOAT_PARTS  # modules that int8 leaves in float32
    exporter: str = AUTO  # of CHOICES

    def __post_init__(self):
        check_choice("precision", self.precision, (*PRECISIONS, AUTO))
        if self.precision == FLOAT32:
            return
        asked = f"--precision {self.precision}"
        if self.graph_format != "openvino":
            raise ValueError(f"{asked} is of OpenVINO: ONNX Runtime computes in float32 on CPUs; add --format openvino")
        if self.int8:
            raise ValueError(f"{asked} and --int8 are two ways to be faster: give one of them")
        if not self.check_oof:
            raise ValueError(f"{asked} is accepted by what it scores on held-out clips: leave --no-oof out")
