"""export.py --push-to-hub: the model card of a run, and the hub's own client over a network that is played."""

import base64
import json
import logging
import sys

from earshot.script import run_script

import httpx2
import huggingface_hub
import pytest
import yaml
from huggingface_hub.utils._http import default_client_factory

import export
from conftest import TINY_CLASSES, write_tiny
from earshot import runs
from earshot.kaggle import hub
from earshot.kaggle.checks import check_folder
from earshot.kaggle.model_card import scores_of, without_paths
from scripts import run
from test_export import make_run

TOKEN = "hf_" + "Zq7" * 11
NAME = "ada/finches-1"


class Hub:
    """Plays huggingface.co: answers as its API does, and keeps what was asked."""

    def __init__(self):
        self.asked, self.committed, self.wrong = [], {}, {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path, body = request.url.path, request.read()
        self.asked.append((request.method, path, request.headers.get("authorization"), body))
        if path in self.wrong:
            return self.wrong[path](request)
        if path.endswith("/whoami-v2"):
            return httpx2.Response(200, json={"name": "ada", "type": "user"})
        if path.endswith("/repos/create"):
            return httpx2.Response(200, json={"url": f"https://huggingface.co/{NAME}", "id": NAME})
        if path.endswith("/validate-yaml"):
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return httpx2.Response(200, json={"errors": [], "warnings": []})
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            kept = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            return httpx2.Response(200, json={"files": kept})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"https://huggingface.co/{NAME}/commit/abc"
            return httpx2.Response(200, json={"commitUrl": address, "commitOid": "abc", "success": True})
        if path == f"/api/models/{NAME}" or "/tree/" in path:
            return httpx2.Response(200, json={"id": NAME, "sha": "abc", "siblings": [], "private": True})
        return httpx2.Response(404, json={"error": f"no such {path}"})


@pytest.fixture
def played(monkeypatch):
    """The hub, played, and a token in the environment."""
    there = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the review page sets it
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(there)))
    yield there
    huggingface_hub.set_client_factory(default_client_factory)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two folds whose scores are known; the working directory of its tests."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = make_run(write_tiny(folder), folds=(0, 1))
        for number, value in ((0, 0.5), (1, 0.7)):
            path = made / f"fold{number}" / "run.json"
            scores = {"epoch": 3, "loss": 0.1, "macro_f1": 0.25, "macro_f1_threshold": 0.4, "map": value}
            path.write_text(json.dumps(json.loads(path.read_text()) | {"scores": scores}))
    return folder


def pushed(trained, monkeypatch, *more) -> int | None:
    """export.py as its user types it -> its exit code."""
    monkeypatch.chdir(trained)
    arguments = ["--run", "runs/sed/tiny", "--no-oof", "--out", "graphs", "--push-to-hub", NAME, *more]
    try:
        run_script(lambda: run(export, *arguments))
    except SystemExit as ended:
        return ended.code
    return 0


def test_a_run_goes_up_with_its_card_and_no_token_is_said(trained, played, monkeypatch, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    assert pushed(trained, monkeypatch, "--license", "cc-by-4.0") == 0
    assert set(played.committed) == {
        "README.md", "config.yaml", "classes.csv", "fold0/model.onnx", "fold1/model.onnx",
    }  # fmt: skip
    assert played.committed["fold1/model.onnx"] == (trained / "graphs/fold1/model.onnx").read_bytes()
    assert played.committed["classes.csv"].decode().split() == ["label", *TINY_CLASSES]
    head, text = played.committed["README.md"].decode().removeprefix("---\n").split("\n---\n", 1)
    head = yaml.safe_load(head)
    assert head["license"] == "cc-by-4.0"
    assert head["library_name"] == "onnx"
    (metric, other) = head["model-index"][0]["results"][0]["metrics"]
    assert (metric["name"], metric["value"], other["value"]) == ("map", 0.6, 0.25)
    assert "| map | 0.6000 | 0.1414 | 2 |" in text
    assert "folds 0, 1, 3 classes" in text
    created = next(json.loads(body) for _, path, _, body in played.asked if path.endswith("/repos/create"))
    assert created["visibility"] == "private" if "visibility" in created else created["private"]
    assert all(key == f"Bearer {TOKEN}" for method, path, key, _ in played.asked if NAME in path or "whoami" in path)
    said = capsys.readouterr()
    assert f"{NAME}: pushed, https://huggingface.co/{NAME}/commit/abc" in said.out
    assert TOKEN not in said.out + said.err + caplog.text
    assert TOKEN.encode() not in b"".join(played.committed.values())
    assert str(trained).encode() not in b"".join(played.committed.values())


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/api/whoami-v2", (401, f"Invalid token {TOKEN}"), "HTTP 401.*hf auth"),
        (f"/api/models/{NAME}/preupload/main", (403, "You may not write"), "HTTP 403.*not write"),
        (f"/api/models/{NAME}/commit/main", (413, "too large"), "too large"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_error_without_the_token(path, answer, said, played, tmp_path, capsys):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    played.wrong[path] = lambda request: httpx2.Response(answer[0], json={"error": answer[1]}, request=request)
    with pytest.raises(ValueError, match=said) as told:
        hub.push_model(hub.connect(NAME), tmp_path, NAME)
    assert TOKEN not in str(told.value)
    assert told.value.__suppress_context__
    assert TOKEN not in "".join(capsys.readouterr())


def test_a_hub_that_is_not_there_is_one_error(played, monkeypatch):
    def unreachable(request):
        raise httpx2.ConnectError(f"no route for Bearer {TOKEN}")

    played.wrong["/api/whoami-v2"] = unreachable
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ValueError, match=f"cannot be reached for {NAME}: no route") as told:
        hub.connect(NAME)
    assert TOKEN not in str(told.value)


def test_no_token_is_said_before_the_export(trained, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert pushed(trained, monkeypatch) == 2
    assert "needs a token of the Hugging Face Hub: log in by `hf auth login`" in capsys.readouterr().err


def test_a_secret_or_a_path_of_this_machine_stays_here(played, tmp_path):
    (tmp_path / "notes.txt").write_text(f"my token {TOKEN}")
    (tmp_path / "README.md").write_text("heard in /home/ada/archive")
    with pytest.raises(
        ValueError, match=r"README.md holds the absolute path /home/ada; notes.txt holds a Hugging Face"
    ):
        hub.push_model(hub.connect(NAME), tmp_path, NAME)
    assert not played.committed


@pytest.mark.parametrize("text", [
    f"wandb.login(key='{'0a1b' * 10}')", f'{{"api_key": "{"9f" * 20}"}}', f"password {'ab01' * 10}\n",
    f'os.environ["WANDB_API_KEY"] = "{"c4d5" * 10}"', f"apiKey={'0a1b' * 10}", "wandb_v1_" + "Ab9" * 20,
    "openai: sk-" + "aB3d" * 12, "sk-proj-a_B" + "x7-" * 20, "sk-or-v1-" + "0f" * 32,
])  # fmt: skip
def test_keys_of_services_are_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config.yaml holds an? .*key"):
        check_folder(tmp_path)


@pytest.mark.parametrize("text", [
    f"commit: {'0a1b' * 10}", f'{{"key": "{"0a1b" * 16}", "weights": "{"0a" * 16}"}}', f"token {'ab12' * 16}",
    f'{{"api_key.onnx": "{"9f" * 32}"}}', f"{'0a1b' * 10}  monkey.wav", f"wandb @ git+https://a.org/w@{'0a1b' * 10}",
    f"turkey: {'0a1b' * 10}", "class sk-top-container-id-1 of sk-estimator-doc-link-fitted", f"task-{'aB3d' * 12}",
])  # fmt: skip
def test_digests_and_commits_are_no_secret(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    check_folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["finches", "ada/", "../x/y", "ada/a b", "ada/x--y", "-a/b", "ada/x.git", "a/" + "b" * 96]
)
def test_names_that_the_hub_does_not_take(name):
    hub.check_model_name(NAME)
    with pytest.raises(ValueError, match=r"--push-to-hub '.*' must be user/name"):
        hub.check_model_name(name)


def test_options_that_belong_to_a_push(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    monkeypatch.setattr(sys, "argv", ["export.py", "--run", "runs/sed/tiny", "--public"])
    with pytest.raises(ValueError, match="--public and --license are of --push-to-hub"):
        export.main()


def test_paths_of_a_config_become_names():
    given = {"data": {"root": "/home/ada/data/finch", "folds": "folds/finch.csv"}, "w": ["C:\\x\\y.npz", 3, "~/a/b"]}
    expected = {"data": {"root": "finch", "folds": "folds/finch.csv"}, "w": ["y.npz", 3, "b"]}
    assert without_paths(given) == expected
    assert without_paths(given | {"track": "csv:/home/ada/tracked.csv"}) == expected


def test_scores_that_are_no_numbers_are_left_out(trained, monkeypatch):
    monkeypatch.chdir(trained)
    one = runs.load_run("runs/sed/tiny")
    assert list(scores_of(one)) == ["map", "macro_f1"]
    path = trained / "runs/sed/tiny/fold1/run.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"scores": {"map": float("nan")}}))
    assert list(scores_of(one)) == ["macro_f1"]
    path.write_text(before)
