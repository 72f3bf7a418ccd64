"""Graphs for bfloat16: which processors compute in it, what takes its place elsewhere, what an export must hold."""

import json
import logging

import numpy as np
import pytest

import export
import predict
import run_kernel
from conftest import write_tiny
from earshot.export import graph as graph_export
from earshot.export.settings import ExportSettings
from earshot.kernel.bundle import open_bundle
from earshot.kernel.speed import in_float32, reopened, simulate
from earshot.prediction import precision
from earshot.prediction.backends import open_graph
from earshot.prediction.graphs import members_of, windows_a_call
from earshot.prediction.precision import has_units
from earshot.prediction.predictions import Predictions
from earshot.sound.windows import Windowing
from scripts import run
from test_export import make_run
from tiny_graphs import CLASSES, MELS, about, write_bundle, write_graph

HERE = has_units(precision.CPUINFO.read_text() if precision.CPUINFO.is_file() else "")
needs_bf16 = pytest.mark.skipif(not HERE, reason="this processor does not multiply in bf16")
OUTPUTS = ["clipwise_output", "segmentwise_output"]


@pytest.fixture(autouse=True)
def fresh():
    """What is said once a process is said in each test."""
    precision._say_lacking.cache_clear()


@pytest.fixture
def lacking(monkeypatch):
    """A processor without bfloat16."""
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(graph_export, "multiplies_bf16", lambda: False)


@pytest.fixture
def graph(tmp_path):
    """A graph whose gates accepted bfloat16."""
    path = write_graph(tmp_path / "model.onnx", layers=4)
    return graph_export.to_openvino(path, about(outputs=OUTPUTS, precision="bf16"))


def heard(batch: int = 3) -> dict[str, np.ndarray]:
    return {"logmel": np.random.default_rng(batch).normal(-20, 10, (batch, 1, 101, MELS)).astype(np.float32)}


@pytest.mark.parametrize(("cpuinfo", "expected"), [
    ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
    ("flags : avx2 amx_bf16 amx_tile\nprocessor : 1\nflags : avx2\n", True),
    ("flags : fpu avx2 avx512f avx512_vnni\n", False),
    ("Features : fp asimd bf16\n", True),
    ("Features : fp asimd\n", False),
    ("bogomips : 4000\n", True),
    ("", True),
])  # fmt: skip
def test_units_that_multiply_in_bfloat16(cpuinfo, expected):
    assert has_units(cpuinfo) is expected


def test_without_the_units_answers_are_those_of_float32_and_one_line_says_so(graph, lacking, caplog):
    with caplog.at_level(logging.WARNING, "earshot"):
        first, second = open_graph(graph), open_graph(graph)
    assert [first.precision, second.precision] == ["float32", "float32"]
    (line,) = caplog.messages
    assert "are computed in float32: this processor does not multiply in bf16" in line
    plain = open_graph(graph, precision="float32").run(heard())
    for name, values in first.run(heard()).items():
        np.testing.assert_array_equal(values, plain[name])


@needs_bf16
def test_with_the_units_answers_are_near_and_not_the_same(graph):
    half, plain = open_graph(graph), open_graph(graph, precision="float32")
    assert (half.precision, plain.precision) == ("bf16", "float32")
    found, expected = half.run(heard())["clipwise_output"], plain.run(heard())["clipwise_output"]
    assert 0 < np.abs(found - expected).max() < 0.05


def test_a_graph_of_before_is_float32(tmp_path):
    assert open_graph(write_graph(tmp_path / "model.onnx")).precision == "float32"


@pytest.mark.parametrize(("seconds", "windows"), [(2.5, 4), (5, 4), (8, 1), (10, 1), (30, 1)])
def test_windows_a_call_where_numbers_are_half_as_long(seconds, windows):
    assert windows_a_call(Windowing(sample_rate=32000, window_seconds=seconds), "bf16") == windows


@pytest.mark.parametrize(("changes", "message"), [
    ({"precision": "bf61"}, r"precision .*'bf61'.*bf16"),
    ({"precision": "bf16"}, r"--precision bf16 is of OpenVINO: .*; add --format openvino"),
    ({"precision": "auto", "graph_format": "openvino", "int8": True}, r"--precision auto and --int8 are two ways"),
    ({"precision": "bf16", "graph_format": "openvino", "check_oof": False}, r"held-out clips: leave --no-oof out"),
])  # fmt: skip
def test_exports_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        ExportSettings(**changes)


def test_decisions_by_hand():
    def answers(*rows):
        n = len(rows)
        return Predictions(
            clip_ids=np.array([f"c{i}" for i in range(n)]), classes=("a", "b"), fold=np.zeros(n, int),
            clipwise_output=np.array(rows, np.float32), unreadable=np.zeros(n, bool),
        )  # fmt: skip

    before = answers([0.9, 0.1], [0.6, 0.55], [0.2, 0.3])
    after = answers([0.8, 0.1], [0.54, 0.58], [0.3, 0.25])
    found = graph_export.decisions(before, after)
    assert found.pop("largest_difference") == pytest.approx(0.1)
    assert found == {"clips": 3, "other_first_class": 2, "other_classes": 0}
    assert graph_export.decisions(before, answers([0.9, 0.6], [0.4, 0.6], [0.2, 0.3]))["other_classes"] == 2


# exports


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The tiny competition, a fold of an untrained network."""
    folder = tmp_path_factory.mktemp("precision")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run(write_tiny(folder))
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    for left in made.glob("runs/sed/tiny/fold0/model*"):
        left.unlink()
    return made / "runs/sed/tiny"


def report_of(here) -> dict:
    return json.loads((here / "fold0/model.xml.json").read_text())


OPENVINO = ("--format", "openvino", "--max-drop", "0.05")


@needs_bf16
def test_what_passes_in_bfloat16_is_computed_in_it(here, capsys):
    run(export, "--run", here, *OPENVINO, "--precision", "bf16")
    assert "model.xml: bf16, " in capsys.readouterr().out
    report = report_of(here)
    assert report["precision"] == "bf16"
    assert report["oof"]["decisions"]["clips"] == report["oof"]["clips"]
    assert 0 < max(v for row in report["parity"] for v in row["max_difference"].values()) < 0.1
    assert open_graph(here / "fold0/model.xml").about["precision"] == "bf16"
    run(predict, "--run", here, "--clips", "data/test_clips.csv", "--backend", "openvino")
    half = Predictions.load(here / "test.npz").clipwise_output
    run(predict, "--run", here, "--clips", "data/test_clips.csv")
    np.testing.assert_allclose(half, Predictions.load(here / "test.npz").clipwise_output, atol=0.05)


def test_auto_takes_float32_where_bfloat16_loses_too_much(here, monkeypatch, caplog):
    check = graph_export._check_oof

    def losing(path, *others):
        if open_graph(path).about["precision"] == "bf16":
            raise ValueError("the graph scores less")
        return check(path, *others)

    monkeypatch.setattr(graph_export, "_check_oof", losing)
    monkeypatch.setattr(graph_export, "multiplies_bf16", lambda: True)
    with caplog.at_level(logging.WARNING, "earshot"):
        run(export, "--run", here, *OPENVINO, "--precision", "auto")
    assert "in float32, for bf16 does not pass: the graph scores less" in caplog.messages
    assert report_of(here)["precision"] == "float32"
    assert open_graph(here / "fold0/model.xml").about["precision"] == "float32"
    (here / "fold0/model.xml").unlink()
    with pytest.raises(ValueError, match="the graph scores less"):
        run(export, "--run", here, *OPENVINO, "--precision", "bf16")
    assert not (here / "fold0/model.xml").exists()


def test_without_the_units_auto_is_float32_and_bfloat16_is_refused(here, lacking, caplog):
    with pytest.raises(ValueError, match=r"--precision bf16: this processor does not multiply in it .* auto"):
        run(export, "--run", here, *OPENVINO, "--precision", "bf16")
    with caplog.at_level(logging.WARNING, "earshot"):
        run(export, "--run", here, *OPENVINO, "--precision", "auto")
    assert "in float32: this processor does not multiply in bf16" in caplog.messages
    assert report_of(here)["precision"] == "float32"


# kernels


@pytest.fixture
def bundle(tmp_path):
    """A bundle of one graph for bfloat16."""
    from earshot.kernel.manifest import write_manifest

    folder = write_bundle(tmp_path / "bundle", folds=1)
    graph_export.to_openvino(folder / "tiny_fold0.onnx", about(outputs=OUTPUTS, precision="bf16"))
    (folder / "tiny_fold0.onnx").unlink()
    text = (folder / "bundle.json").read_text().replace("tiny_fold0.onnx", "tiny_fold0.xml")
    (folder / "bundle.json").write_text(text)
    write_manifest(folder)
    return open_bundle(folder, "birdclef2026")


@needs_bf16
def test_a_kernel_is_planned_in_float32(bundle, monkeypatch, capsys):
    (network,) = bundle.networks
    assert network.precision == "bf16"
    assert in_float32(network).precision == "float32"
    measured = []
    monkeypatch.setattr("earshot.kernel.speed.measure", lambda networks, path: measured.extend(networks) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulate(bundle.networks, 2, 5.0, 4)
    assert [n.precision for n in measured] == ["float32"]
    monkeypatch.setattr(run_kernel, "simulate", lambda *_: {"stages": {}, "minutes": 1.0, "cpu_seconds": 60.0})
    run_kernel.print_simulation(bundle, (2, 5.0), 4)
    assert "(graphs for bf16 in float32, since the kernel's processor may not multiply in bf16)" in (
        capsys.readouterr().out
    )


def test_a_network_opened_again_hears_with_the_same_files(bundle):
    (network,) = bundle.networks
    network.backend.frontends = frontends = network.backend.frontends.with_files({})
    again = reopened(network, 2)
    assert again.backend is not network.backend
    assert again.backend.frontends is frontends
    assert (again.backend.threads, again.precision) == (2, network.precision)
    assert tuple(again.members[0].classes) == CLASSES
    assert members_of(again.backend)[0].windowing.batch_size == again.windowing.batch_size
