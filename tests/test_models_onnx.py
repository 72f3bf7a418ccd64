"""Networks of several inputs as ONNX graphs: batch and every time axis stay free, answers are PyTorch's."""

import numpy as np
import onnxruntime
import pytest
import torch

from earshot.models import build_model
from test_models import INPUTS, K, Positional

NARROW = {"widths": [4, 8, 8, 8], "attention": 8}
VGGISH = {"widths": [4, 8, 8, 8], "hidden": 16, "embedding": 12}
URBAN = {"columns": ["latitude", "longitude", "hour"], "embedding": 32, "heads": 4, "ffn": 8, "metadata_size": 8}
INSIDE = {"extractor": "vggish", "extractor_params": VGGISH}
CASES = {
    "small with context": ("cnn_small", {"widths": [4, 4, 8, 8], "embedding": 16, "dilations": [1, 4]}),
    "vggish": ("vggish", VGGISH),
    "vggish post-processed": ("vggish", VGGISH | {"postprocess": True}),
    "talnet": ("talnet", {"embedding": 32, "pooling": "att"}),
    "urban": ("urban_tagger", URBAN | {"join": "time", "branches": ["generic", "specific", "metadata"]}),
    "urban clips": ("urban_tagger", URBAN),
    "fa": ("cross_task_fa", NARROW),
    "vem": ("cross_task_vem", NARROW),
    "jrm": ("cross_task_jrm", NARROW | {"deep_widths": [4, 8, 8, 8, 8, 8, 16]} | INSIDE),
    "cmam": ("cross_task_cmam", NARROW | {"query_dim": 32}),
}
TIME = {"logmel": 2, "extractor": 1, "vggish": 1}  # the axis of each input that is time


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", [c if i < 3 else pytest.param(c, marks=pytest.mark.slow) for i, c in enumerate(CASES)])
def test_a_graph_follows_other_batches_and_lengths(case, tmp_path):
    torch.manual_seed(0)
    name, params = CASES[case]
    network = Positional(build_model(name, K, 64, params)).eval()
    inputs = network.model.inputs
    example = tuple(INPUTS[i](1, 400) for i in inputs)
    with torch.no_grad():
        count = len(network(*example))
        axes = {i: {0: "batch"} | ({TIME[i]: f"{i}_time"} if i in TIME else {}) for i in inputs}
        torch.onnx.export(
            network, example, str(tmp_path / "model.onnx"), dynamo=False, opset_version=17, input_names=list(inputs),
            dynamic_axes=axes, output_names=[f"out{n}" for n in range(count)],
        )  # fmt: skip
        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
        for batch, frames in ((1, 400), (4, 250), (2, 977)):
            tensors = tuple(INPUTS[i](batch, frames) for i in inputs)
            answers = session.run(None, {i: t.numpy() for i, t in zip(inputs, tensors)})
            for ours, expected in zip(answers, network(*tensors), strict=True):
                np.testing.assert_allclose(ours, expected.numpy(), atol=1e-4, rtol=1e-4)
