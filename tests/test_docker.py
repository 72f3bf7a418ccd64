"""The Dockerfile: what it copies, installs and starts is there; built where a Docker daemon is at hand."""

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def instructions() -> list[tuple[str, str, str]]:
    """(stage, instruction, rest of the line) of the Dockerfile, lines joined where they are continued."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    found, stage = [], ""
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            if word == "FROM":
                stage = rest.split(" AS ")[1]
            found.append((stage, word, rest))
    return found


def of(word: str) -> list[tuple[str, str]]:
    return [(stage, rest) for stage, name, rest in instructions() if name == word]


def test_there_is_a_stage_for_cpus_and_one_for_gpus():
    stages = {}
    for stage, rest in of("FROM"):
        image = rest.split(" AS ")[0]
        assert image in stages or re.fullmatch(r"python:3\.1[1-9]-slim-\w+", image), f"{image} is no pinned image"
        stages[stage] = image
    assert stages["cpu"] == stages["gpu"] == "base"
    for stage in ("cpu", "gpu"):
        assert (stage, "earshot") in of("USER")
        (started,) = [json.loads(rest) for where, rest in of("CMD") if where == stage]
        assert (ROOT / started[0]).is_file()
    assert [stage for stage, rest in of("RUN") if "--torch-backend cpu" in rest] == ["cpu"]


def copied() -> list[str]:
    found = []
    for stage, rest in of("COPY"):
        words = [word for word in rest.split() if not word.startswith("--")]
        if "--from=" in rest:
            assert (stage, words) == ("gpu", ["/earshot", "/earshot"])
        else:
            found += words[:-1]
    return found


def test_what_it_copies_is_in_the_checkout_and_let_through():
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in copied():
        assert (ROOT / name).exists(), name
        assert name.rstrip("/") in let_through, f".dockerignore keeps {name} out"
    assert {name.rstrip("/") for name in copied()} == set(let_through)
    assert "src/" in copied()


def test_data_runs_and_secrets_stay_out():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    for name in ("data", "runs", ".venv", ".git", ".env", "wandb"):
        assert not any(fnmatch(name, line[1:]) for line in lines if line.startswith("!"))


def test_what_it_installs_is_there():
    named = {name for _, rest in of("RUN") for name in re.findall(r"requirements/([\w$]+)\.txt", rest)}
    assert named == {"train", "$extra"}
    (extras,) = [rest for _, rest in of("ARG")]
    assert all((ROOT / f"requirements/{name}.txt").is_file() for name in re.findall(r"[a-z]+", extras.split("=")[1]))
    page = (ROOT / "docs/installing.md").read_text()
    for asked in re.findall(r'--build-arg EXTRAS="([\w ]+)"', page):
        assert all((ROOT / f"requirements/{name}.txt").is_file() for name in asked.split())
    assert set(re.findall(r"docker build --target (\w+)", page)) <= {stage for stage, _ in of("FROM")}


@pytest.mark.slow
def test_it_builds_and_runs():
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon at hand")
    (image,) = {rest.split(" AS ")[0] for stage, rest in of("FROM") if stage == "base"}
    if subprocess.run(["docker", "pull", "-q", image], capture_output=True).returncode:
        pytest.skip(f"{image} cannot be fetched")
    built = ["docker", "build", "--target", "cpu", "--build-arg", "EXTRAS=", "-q", str(ROOT)]
    name = subprocess.run(built, check=True, capture_output=True, text=True).stdout.strip()
    said = subprocess.run(["docker", "run", "--rm", name, "src/train.py", "--help"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "--fold" in said.stdout
