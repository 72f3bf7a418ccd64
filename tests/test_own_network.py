"""Own networks as extractors: a stand-in that hears windows and answers with what is asked for."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from earshot.inputs.extractor import Extractor
from earshot.prediction import extractors
from earshot.prediction.extractors import OwnNetwork, open_graph_file, own_network
from earshot.sound.windows import Windowing

WINDOWS = Windowing(sample_rate=100, window_seconds=0.5, batch_size=2)


class FrontEnds(dict):
    """Two views of a window: itself and its double."""

    def hear(self, window):
        return {"wave": window, "double": 2 * window}

    def silence(self, n_samples):
        return self.hear(np.zeros(n_samples, np.float32))


class Backend:
    """Answers with the first sample and the sum of what it is given; logit is p's log odds where it has one."""

    def __init__(self, inputs=("wave", "double"), outputs=("embedding", "logit", "clipwise_output"), sounds=True):
        self.inputs, self.outputs, self.shapes = inputs, outputs, []
        self.frontends = FrontEnds({name: SimpleNamespace(sounds=sounds) for name in inputs})

    def run(self, inputs):
        assert tuple(inputs) == self.inputs
        self.shapes.append({name: values.shape for name, values in inputs.items()})
        first = inputs[self.inputs[0]]
        embedding = np.stack([v[:, 0] for v in inputs.values()] + [first.sum(axis=1)], axis=1)
        p = np.full((len(first), 2), [0.25, 1.0])
        known = {"embedding": embedding, "logit": np.full((len(first), 2), 3.0), "clipwise_output": p}
        return {name: known[name] for name in self.outputs}


def record(**changed) -> Extractor:
    """Made past the checks of a file that is there."""
    made = object.__new__(Extractor)
    values = {"sample_rate": 100, "file": "net.onnx", "window_seconds": 0.0, "parts": ("embedding",)} | changed
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def test_windows_are_heard_and_answered_in_one_call():
    backend = Backend()
    network = OwnNetwork(backend, 3, "d")
    found = network.embed(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    assert found.tolist() == [[1, 2, 6], [4, 8, 15]]
    assert backend.shapes == [{"wave": (2, 3), "double": (2, 3)}]
    both = replace(network, parts=("logit", "embedding"), widths=(2, 3))
    assert both.embed(np.ones((1, 3), np.float32)).tolist() == [[3, 3, 1, 2, 3]]
    assert (both.width, network.width) == (5, 0)


def test_log_odds_stand_in_for_a_logit_that_is_not_given():
    network = OwnNetwork(Backend(outputs=("clipwise_output",)), 3, "d", parts=("logit",))
    found = network.embed(np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(found, [[np.log(1 / 3), np.log((1 - 1e-6) / 1e-6)]], rtol=1e-6)
    low = network.taken({"clipwise_output": np.array([[0.0, 0.5]])})
    np.testing.assert_allclose(low[0], [[-np.log((1 - 1e-6) / 1e-6), 0]], rtol=1e-6)
    given = network.taken({"clipwise_output": np.zeros((1, 2)), "logit": np.array([[7.0, 8.0]])})
    assert given[0].tolist() == [[7, 8]]


def test_a_network_is_opened_by_hearing_silence():
    backend = Backend()
    network = own_network(record(), backend, WINDOWS, "d1", "net", ["a", "b"])
    assert (network.window_samples, network.digest, network.classes) == (50, "d1", ("a", "b"))
    assert (network.parts, network.widths, network.width) == (("embedding",), (3,), 3)
    assert backend.shapes == [{"wave": (1, 50), "double": (1, 50)}]
    other = own_network(record(window_seconds=0.25, parts=("embedding", "logit")), Backend(), WINDOWS, "", "net")
    assert (other.window_samples, other.widths, other.classes) == (25, (3, 2), ())


def test_what_cannot_be_an_extractor_is_named():
    with pytest.raises(ValueError, match="extractor net hears 200 Hz, its sample_rate says 100 Hz"):
        own_network(record(), Backend(), replace(WINDOWS, sample_rate=200), "", "net")
    with pytest.raises(ValueError, match="^extractor net takes wave, double besides the sound"):
        own_network(record(), Backend(sounds=False), WINDOWS, "", "net")
    with pytest.raises(ValueError, match="^extractor net hears two channels"):
        own_network(record(), Backend(), replace(WINDOWS, n_channels=2), "", "net")
    silent = Backend(outputs=("logit", "clipwise_output"))
    with pytest.raises(ValueError, match="^extractor net answers with logit, clipwise_output, but with no embedding"):
        own_network(record(), silent, WINDOWS, "", "net")
    assert own_network(record(parts=("logit",)), silent, WINDOWS, "", "net").widths == (2,)


def test_a_graph_file_is_an_extractor_of_one_fold(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"graph")
    about = {"stacked": False, "windowing": {"sample_rate": 100, "window_seconds": 0.5}, "classes": ["a"]}
    opened = []

    def open_graph(name):
        opened.append(name)
        backend = Backend()
        backend.about = about
        return backend

    monkeypatch.setattr(extractors, "open_graph", open_graph)
    network = open_graph_file(record(file=str(path)))
    assert opened == [str(path)]
    assert network.digest == "eef93e1d14482804", "sha256 of the file, its first 16 digits"
    assert (network.window_samples, network.classes, network.widths) == (50, ("a",), (3,))
    with pytest.raises(ValueError, match=f"extractor {path} hears 100 Hz"):
        open_graph_file(record(file=str(path), sample_rate=50))
    about["stacked"] = True
    with pytest.raises(ValueError, match=f"^{path} holds several folds"):
        open_graph_file(record(file=str(path)))
