"""Bundles: what is in them, what may not be, the kernel and its notebook, Kaggle's own client, the dry run."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bundle as bundle_script
import scripts
import tiny_graphs
import tiny_wheels
from earshot.competitions import family_module
from earshot.kaggle import dry_run, push, sources
from earshot.kaggle.bundling import BundleSettings, build
from earshot.kaggle.checks import check_folder
from earshot.kaggle.sources import SRC, needed_modules, write_sources
from earshot.kernel import speed as kernel_speed
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import all_rules

RULES = all_rules()

pytestmark = pytest.mark.usefixtures("image_with_runtimes")

SLUG = "some-one/my-kernel"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with the graphs of two folds."""
    folder = tmp_path / "runs" / "sed" / "tiny"
    for fold in range(2):
        tiny_graphs.write_graph(folder / f"fold{fold}" / "model.onnx", fold=fold)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, image_with_runtimes) -> Path:
    """A build of two folds; tests leave it as it is."""
    root = tmp_path_factory.mktemp("made")
    for fold in range(2):
        tiny_graphs.write_graph(root / "tiny" / f"fold{fold}" / "model.onnx", fold=fold)
    return build(BundleSettings(runs=(root / "tiny",), competition="birdclef2026", slug=SLUG), root / "kernels")


@pytest.fixture
def built(made, tmp_path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(made, tmp_path / "kernels" / "my-kernel" / "build"))


def test_a_bundle_holds_what_a_kernel_needs_in_one_flat_folder(built):
    names = sorted(p.name for p in (built / "dataset").iterdir())
    assert names == [
        "bundle.json", "classes.csv", "dataset-metadata.json", "earshot.pyz", "manifest.json", "packages.txt",
        "sed-tiny_fold0.onnx", "sed-tiny_fold1.onnx",
    ]  # fmt: skip
    opened = open_bundle(built / "dataset", "birdclef2026")
    assert [n.weight for n in opened.networks] == [0.5, 0.5], "a run weighs 1, whatever it has of folds"
    packages = dict(line.split("==") for line in (built / "dataset" / "packages.txt").read_text().split())
    assert {"numpy", "pandas", "scipy", "soundfile", "soxr", "onnxruntime"} <= set(packages)
    assert not {"torch", "timm"} & set(packages)


def test_the_same_sources_give_the_same_bytes(made, tmp_path):
    write_sources(tmp_path / "a.pyz", "birdclef2026")
    assert (tmp_path / "a.pyz").read_bytes() == (made / "dataset" / "earshot.pyz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pyz") as archive:
        assert {"__main__.py", "earshot/competitions/birdclef.py"} <= set(archive.namelist())


@pytest.mark.parametrize("competition", list(RULES))
def test_sources_of_every_competition_import_no_torch(competition):
    modules = needed_modules(competition)
    assert SRC / f"{family_module(competition).replace('.', '/')}.py" in modules
    assert not {"setup.py", "runs.py", "models", "torch_logmel.py"} & {m.name for m in modules}
    assert not set(sources.HEAVY) & {name for m in modules for name in sources._outside(m)}


@pytest.mark.slow
def test_sources_run_by_themselves(built, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, str(built / "dataset" / "earshot.pyz"), "--help"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "--test-folder" in ran.stdout


def test_a_build_replaces_only_a_build(run, tmp_path, built):
    settings = BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG)
    assert build(settings, tmp_path / "kernels") == built
    other = tmp_path / "kernels" / "other-name" / "build"
    other.mkdir(parents=True)
    (other / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="is no build of this command"):
        build(BundleSettings(runs=(run,), competition="birdclef2026", slug="u/other-name"), tmp_path / "kernels")
    assert [p.name for p in other.parent.iterdir()] == ["build"], "nothing half made is left"


def test_runs_that_do_not_fit_together(run, tmp_path):
    other = tmp_path / "runs" / "sed" / "other"
    tiny_graphs.write_graph(other / "fold0" / "model.onnx", ("a", "b"), run="sed/other")
    with pytest.raises(ValueError, match="sed/tiny and run sed/other cannot be blended: their classes differ"):
        build(BundleSettings(runs=(run, other), competition="birdclef2026", slug=SLUG), tmp_path / "kernels")
    with pytest.raises(ValueError, match="named twice"):
        build(BundleSettings(runs=(run, run), competition="birdclef2026", slug=SLUG), tmp_path / "kernels")
    with pytest.raises(ValueError, match="2 runs need as many positive --weights"):
        build(
            BundleSettings(runs=(run, run), competition="birdclef2026", slug=SLUG, weights=(1.0,)), tmp_path / "kernels"
        )
    with pytest.raises(ValueError, match=r"no kernel answers 'mine'; .*Name the one whose .*src/submit\.py writes the"):
        build(BundleSettings(runs=(run,), competition="mine", slug=SLUG), tmp_path / "kernels")
    with pytest.raises(ValueError, match="unknown test-time augmentation 'shift'"):
        build(BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, tta=("shift",)), tmp_path / "kernels")
    with pytest.raises(ValueError, match="tta 'tempo' moves events in time: .* Leave it out"):
        build(BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, tta=("tempo",)), tmp_path / "kernels")
    assert not (tmp_path / "kernels" / "my-kernel" / "build").exists()


def test_wheels_are_copied_and_nothing_else(run, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    settings = BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, wheels=wheels)
    with pytest.raises(ValueError, match=r"holds no \.whl file"):
        build(settings, tmp_path / "kernels")
    tiny_wheels.write_wheel(wheels, "tiny", "1")
    (wheels / "notes.txt").write_text("x")
    folder = build(settings, tmp_path / "kernels") / "dataset"
    assert [p.name for p in folder.glob("*.whl")] == ["tiny-1-py3-none-any.whl"]
    assert "tiny-1-py3-none-any.whl" in json.loads((folder / "manifest.json").read_text())
    assert not (folder / "notes.txt").exists()
    (wheels / "kaggle.json").write_text("{}")
    with pytest.raises(ValueError, match=r"kaggle\.json looks like a secret"):
        build(settings, tmp_path / "kernels")


SECRETS = {
    ".env": "X=1", "kaggle.json": "{}", "server.pem": "x", "id_rsa": "x", ".netrc": "x", "my_credentials.txt": "x",
    "a.yaml": "WANDB_API_KEY=0123456789", "b.json": '{"username": "u", "key": "%s"}' % ("ab12" * 8),
    "c.txt": "-----BEGIN RSA PRIVATE KEY-----", "d.py": "token = 'hf_" + "a" * 34 + "'", "e.txt": "ghp_" + "b" * 36,
    "f.txt": "AKIA" + "C" * 16,
}  # fmt: skip


@pytest.mark.parametrize("name", list(SECRETS))
def test_secrets_are_refused(tmp_path, name):
    (tmp_path / name).write_text(SECRETS[name])
    with pytest.raises(ValueError, match=re.escape(name)):
        check_folder(tmp_path)


@pytest.mark.parametrize("text", ["/home/me/x.csv", "see /Users/me/audio", "path: '/root/runs'", "C:\\Users\\me\\x",
                                  "/tmp/abc", "/mnt/disk/birds"])  # fmt: skip
def test_absolute_paths_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="absolute path"):
        check_folder(tmp_path)
    (tmp_path / "a.json").write_bytes(b"\x00" * (1 << 20) + b" " + text.encode() + b"\xff" * 300)
    with pytest.raises(ValueError, match="absolute path"):
        check_folder(tmp_path)


def test_paths_that_anyone_has_are_no_secret(tmp_path):
    (tmp_path / "kernel.py").write_text('"/kaggle/input" https://a.org/home/x /usr/bin/env a/home/b ../data/x ~/x')
    check_folder(tmp_path)
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="link is a link to elsewhere"):
        check_folder(tmp_path)


def test_a_path_in_a_graph_is_found(run, tmp_path):
    tiny_graphs.write_graph(run / "fold1" / "model.onnx", fold=1, commit="/home/someone/repository")
    with pytest.raises(ValueError, match=r"sed-tiny_fold1\.onnx holds the absolute path /home/someone"):
        build(BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG), tmp_path / "kernels")


# ---- Kaggle's client


class Requests:
    """Stands for the network below Kaggle's client: keeps what is sent, answers like the service."""

    def __init__(self, exists: bool):
        self.exists, self.sent = exists, []
        self.datasets = SimpleNamespace(dataset_api_client=self)
        self.kernels = SimpleNamespace(kernels_api_client=self)
        self.states = ["QUEUED", "RUNNING", "COMPLETE"]

    def get_dataset_status(self, request):
        from requests import Response
        from requests.exceptions import HTTPError

        if not self.exists:
            response = Response()
            response.status_code = 404
            raise HTTPError("404", response=response)
        return SimpleNamespace(status=SimpleNamespace(name="READY"))

    def _keep(self, request, **answer):
        self.sent.append(request)
        self.exists = True
        return SimpleNamespace(error="", status="ok", **answer)

    def create_dataset(self, request):
        return self._keep(request)

    def create_dataset_version(self, request):
        return self._keep(request)

    def save_kernel(self, request):
        return self._keep(request, version_number=1)

    def get_kernel_session_status(self, request):
        return SimpleNamespace(status=SimpleNamespace(name=self.states.pop(0)))

    def list_kernel_session_output(self, request):
        return SimpleNamespace(files=[], log="it ran", next_page_token="")


@pytest.fixture
def client(monkeypatch):
    """Kaggle's client without a token and without a network: (exists) -> (client, Requests, uploaded names)."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    module = pytest.importorskip("kaggle.api.kaggle_api_extended")

    def make(exists: bool):
        api, requests, uploaded = module.KaggleApi(), Requests(exists), []
        api.config_values = {api.CONFIG_NAME_USER: "some-one"}

        @contextmanager
        def connection(*_, **__):
            yield requests

        monkeypatch.setattr(api, "build_kaggle_client", connection)
        monkeypatch.setattr(api, "_upload_blob", lambda path, *_, **__: uploaded.append(Path(path).name) or "token")
        return api, requests, uploaded

    return make


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True], ids=["new", "version"])
@pytest.mark.parametrize("kind", ["notebook", "script"])
def test_kaggles_own_client_takes_both_folders(run, tmp_path, client, exists, kind, capsys):
    built = build(BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, kind=kind), tmp_path / "kernels")
    api, requests, uploaded = client(exists)
    said, slept = [], []
    assert push.push(built, "first", api, say=said.append, sleep=slept.append) == "complete"
    assert set(uploaded) == {p.name for p in (built / "dataset").iterdir()} - {"dataset-metadata.json"}
    dataset, kernel = requests.sent
    assert type(dataset).__name__ == ("ApiCreateDatasetVersionRequest" if exists else "ApiCreateDatasetRequest")
    assert kernel.slug == SLUG
    assert kernel.kernel_type == kind
    assert (kernel.enable_internet, kernel.enable_gpu, kernel.is_private) == (False, False, True)
    assert kernel.dataset_data_sources == ["some-one/my-kernel-files"]
    assert kernel.competition_data_sources == ["birdclef-2026"]
    assert "does not resolve" not in capsys.readouterr().out, "the title gives the slug"
    assert (built / "output" / "my-kernel.log").read_text() == "it ran"
    assert len(slept) == 2


def test_a_kernel_that_fails_on_kaggle_is_an_error(built, client):
    api, requests, _ = client(True)
    requests.states = ["ERROR"]
    with pytest.raises(ValueError, match="ended as 'error'"):
        push.push(built, "x", api, say=lambda text: None, sleep=lambda s: None)


def test_nothing_secret_is_pushed(built, client):
    api, _, uploaded = client(True)
    (built / "dataset" / "kaggle.json").write_text("{}")
    with pytest.raises(ValueError, match=r"kaggle\.json looks like a secret"):
        push.push(built, "x", api, say=print)
    assert uploaded == []


def test_a_missing_token_or_client_is_explained(monkeypatch, tmp_path):
    module = pytest.importorskip("kaggle.api.kaggle_api_extended")

    def no_token(self):
        raise SystemExit(1)

    monkeypatch.setattr(module.KaggleApi, "authenticate", no_token)
    with pytest.raises(ValueError, match="found no token.*KAGGLE_API_TOKEN"):
        push.connect()
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(ValueError, match=r"pip install -r .*requirements/kaggle.txt"):
        push.connect()


# ---- as Kaggle would run it


def test_the_guard_refuses_network_and_torch(tmp_path):
    shutil.copyfile(dry_run.GUARD, tmp_path / "sitecustomize.py")
    code = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept OSError as e:\n    print(e)\n"
    code += "try:\n    import torch\nexcept ImportError as e:\n    print(e)\n"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ran.stdout.splitlines() == ["no network: this is a dry run", "a kernel imports no torch"]


def export_untrained(root: Path, graph_format: str) -> Path:
    """A run of one fold of a small network of random weights, exported by the real exporter."""
    import torch

    from earshot import files, runs
    from earshot.config import from_dict
    from earshot.export.graph import ExportSettings, export_run
    from earshot.sound.timebase import TimeBase

    params = {"widths": [8, 8], "blocks": [1, 1], "time_strides": [2, 2], "freq_strides": [2, 2], "embedding": 16}
    front_end = {"n_fft": 256, "hop_length": 80, "n_mels": 16, "fmin": 50, "fmax": 4000}
    config = from_dict({
        "data": {"sample_rate": 8000, "crop_seconds": 1.0}, "frontends": {"logmel": front_end},
        "model": {"name": "cnn_small", "params": params},
        "predict": {"window_seconds": 1.0, "stride_seconds": 1.0, "aggregate": "max", "keep_frames": True},
    })  # fmt: skip
    torch.manual_seed(0)
    model = runs.make_model(config, 3).eval()
    fold = runs.create_fold(root / "sed" / "small" / "fold0", config, resume=False)
    about = runs.describe_run(config, 0, list(tiny_graphs.CLASSES), np.full(3, 0.1), TimeBase(8000, 80, model.pool))
    runs.save_weights(fold.folder / "best.safetensors", model, about | {"finished": True})
    files.write_text(fold.folder / "run.json", json.dumps(about | {"finished": True}))
    export_run(
        runs.load_run(fold.folder.parent),
        ExportSettings(graph_format=graph_format, check_oof=False),
        say=lambda text: None,
    )
    return fold.folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("graph_format", ["onnx", "openvino"])
def test_what_the_exporter_makes_can_be_bundled(tmp_path, graph_format):
    run = export_untrained(tmp_path / "runs", graph_format)
    built = build(
        BundleSettings(runs=(run,), competition="synth", slug=SLUG, graph_format=graph_format), tmp_path / "kernels"
    )
    (network,) = open_bundle(built / "dataset").networks
    answer = network.backend.run(kernel_speed.one_window(network))
    assert answer["clipwise_output"].shape == (1, 3)
    assert ("openvino" if graph_format == "openvino" else "onnxruntime") in (
        (built / "dataset" / "packages.txt").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("competition", ["synth", "birdclef2026"])
def test_dry_run(run, tmp_path, competition, capsys):
    """The whole command: build, then all scenes; the report says what happened. synth: what the exporter made."""
    if competition == "synth":
        run = export_untrained(tmp_path / "exported", "onnx")
    tiny_wheels.write_wheel(tmp_path, "tiny", "1")
    scripts.run(
        bundle_script, "--runs", run, "--competition", competition, "--slug", SLUG, "--root", tmp_path / "kernels",
        "--dry-run", "--dry-minutes", 2, "--tta", "time_shift", "--wheels", tmp_path,
    )  # fmt: skip
    text = capsys.readouterr().out
    assert text.count("valid, ") == 5
    scenes = json.loads((tmp_path / "kernels" / "my-kernel" / "build" / "dry_run.json").read_text())
    assert [s["problems"] for s in scenes] == [[], [], [], [], []]
    assert [s["rows"] for s in scenes[:3]] == [2, 0, 7]
    assert scenes[3]["rows"] > scenes[2]["rows"] == scenes[4]["rows"]


@pytest.mark.slow
def test_a_dry_run_sees_a_kernel_that_misbehaves(built):
    """A kernel that opens the network, writes to its input, or leaves no submission does not pass."""
    kernel = built / "kernel" / "kernel.py"
    kernel.write_text(
        "import os, pathlib\nfolder = pathlib.Path(os.environ['KAGGLE_INPUT'])\n"
        "os.chmod(folder / 'my-kernel-files', 0o755)\n(folder / 'my-kernel-files' / 'x').write_text('x')\n"
    )
    results = dry_run.dry_run(built, 1.0, say=lambda text: None)
    assert all("there is no submission.csv" in r.problems for r in results)
    assert all(
        any("wrote outside the working folder: input/my-kernel-files, input/my-kernel-files/x" in p for p in r.problems)
        for r in results
    )
    kernel.write_text("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')\n")
    (first, *_) = dry_run.dry_run(built, 1.0, say=lambda text: None)
    assert "ended with 1" in first.problems[0]
