"""The PANNs benchmark's own parts: tables in RESULTS.md, scores of runs, ONNX graphs that answer as the network."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from earshot.models import build_model

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


@pytest.fixture(scope="module")
def bench():
    import bench_panns

    return bench_panns


def test_a_table_is_added_once_and_then_replaced(bench, tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nfirst\n")
    bench.write_between("panns table", "| a |", path)
    before = path.read_text()
    assert before.startswith("# Results\n\nfirst\n\n## PANNs: table\n\n<!-- panns table -->\n| a |\n")
    path.write_text(before + "\n## Later\n")
    bench.write_between("panns table", "| b |", path)
    assert path.read_text() == before.replace("| a |", "| b |") + "\n## Later\n"
    bench.write_between("panns steps", "| c |", path)
    assert path.read_text().count("<!-- panns") == 2


def test_a_config_without_a_run_has_no_score(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bench.score("cnn14") == "-"
    assert bench.shown({"seconds": 0.5}, "seconds") == "0.50"
    assert bench.shown({"seconds": 1234.5}, "seconds") == "1,234"
    assert bench.shown({"failed": "not exported: x"}, "onnx") == "not exported: x"


def test_the_sizes_of_a_config_are_the_papers(bench):
    parameters, costs = bench.sizes("leenet11")
    assert parameters == 748_367
    assert round(costs.paper_multi_adds / 1e9, 3) == 4.741


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_answers_as_the_eager_one(bench):
    import onnxruntime

    torch.manual_seed(0)
    params = {"widths": [4, 8, 8], "pre_widths": [4, 4], "embedding": 8}
    model = build_model("wavegram_logmel_cnn14", 3, 64, params).eval()
    inputs = {"waveform": torch.randn(1, 32000), "logmel": torch.randn(1, 1, 101, 64)}
    graph = onnxruntime.InferenceSession(bench.exported(model, inputs), providers=["CPUExecutionProvider"])
    two = {name: torch.cat([value, value.flip(-1)]) for name, value in inputs.items()}
    with torch.no_grad():
        expected = model(**two)["clipwise_output"].numpy()
    found = graph.run(None, {name: value.numpy() for name, value in two.items()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
