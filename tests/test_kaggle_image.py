"""Kaggle's image: its list, the wheels that a bundle needs beside it, what a dry run lets in and finds out."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import bundle as bundle_script
import scripts
import tiny_graphs
import tiny_wheels
from earshot.kaggle import dry_run, no_network, push
from earshot.kaggle.bundling import BundleSettings, build
from earshot.kaggle.image import read_image
from earshot.kaggle.wheels import check_wheels, fetch_wheels, missing, read_wheel, read_wheels
from tiny_wheels import IMAGE_TAG, write_image, write_wheel

SLUG = "some-one/my-kernel"
NEEDS = ("numpy>=1.21.6", "flatbuffers", "protobuf>=4.25.8", "packaging", 'sympy; extra == "symbolic"')


@pytest.fixture
def run(tmp_path) -> Path:
    tiny_graphs.write_graph(tmp_path / "runs" / "tiny" / "fold0" / "model.onnx")
    return tmp_path / "runs" / "tiny"


# ---- the list


def test_the_kept_list_says_what_kaggle_has_and_has_not():
    image = read_image()
    assert image.python == (3, 12)
    assert "Kaggle/docker-python" in image.source
    assert {"numpy", "pandas", "scipy", "soundfile", "soxr", "pyyaml", "onnx", "torch"} <= set(image.packages)
    assert not {"onnxruntime", "openvino", "nncf", "torchlibrosa", "audiomentations"} & set(image.packages)


def test_a_newer_list_is_read_and_what_is_none_refused(tmp_path):
    path = tmp_path / "image.txt"
    path.write_text("# python: 3.13\n# source: a kernel\nPy_YAML==6.0\ntorch @ file:///x/torch.whl\n\nnumpy==2.5.0\n")
    image = read_image(path)
    assert (image.python, image.platform) == ((3, 13), "manylinux_2_28_x86_64")
    assert image.packages == {"py-yaml": "6.0", "torch": "", "numpy": "2.5.0"}
    path.write_text("numpy==2.5.0\n")
    with pytest.raises(ValueError, match=r"needs the line '# python: 3\.12'"):
        read_image(path)
    path.write_text("# python: 3.12\n<html>\n")
    with pytest.raises(ValueError, match="line 2: '<html>' is not name==version"):
        read_image(path)
    with pytest.raises(ValueError, match="does not exist"):
        read_image(tmp_path / "none.txt")


# ---- wheels


@pytest.mark.parametrize(
    ("tag", "fits"),
    [("py3-none-any", True), (IMAGE_TAG, True), ("cp310-abi3-manylinux_2_17_x86_64", True),
     ("cp312-cp312-manylinux2014_x86_64", True), ("cp38-cp38-win_amd64", False),
     ("cp311-cp311-manylinux_2_28_x86_64", False),
     ("cp312-cp312-manylinux_2_39_x86_64", False), ("cp312-cp312-manylinux_2_28_aarch64", False),
     ("cp312-cp312-macosx_11_0_arm64", False)],
)  # fmt: skip
def test_tags(tmp_path, tag, fits):
    wheel = read_wheel(write_wheel(tmp_path, "tiny", tag=tag))
    problems = check_wheels([wheel], read_image(), [])
    assert (not problems) == fits
    if not fits:
        assert f"tiny-1.0-{tag}.whl is not for the image, which is Python 3.12" in problems[0]


def test_the_closure_of_wheels_and_image(tmp_path):
    image = read_image()
    runtime = read_wheel(write_wheel(tmp_path, "onnxruntime", "1.32.0", IMAGE_TAG, NEEDS))
    assert check_wheels([runtime], image, ["numpy", "PyYAML", "onnxruntime"]) == []
    lost = missing([], image, ["numpy", "onnxruntime"])
    assert lost == {"onnxruntime": "the kernel needs it, neither the image nor a wheel has it"}
    other = read_wheel(write_wheel(tmp_path, "other", needs=["numpy<2", "coloredlogs", "old; python_version < '3.12'"]))
    assert missing([other], image, []) == {
        "numpy<2": "other-1.0-py3-none-any.whl needs it, the image has 2.4.6",
        "coloredlogs": "other-1.0-py3-none-any.whl needs it, neither the image nor a wheel has it",
    }
    logs = read_wheel(write_wheel(tmp_path, "coloredlogs", python="<3.12"))
    problems = check_wheels([logs], image, [])
    assert problems == ["coloredlogs-1.0-py3-none-any.whl is for Python <3.12, the image has 3.12"]


def test_wheels_that_are_too_large_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("earshot.kaggle.wheels.MOST_UNPACKED", 100)
    wheel = read_wheel(write_wheel(tmp_path, "tiny", files={"tiny/__init__.py": "#" * 2000}))
    (problem,) = check_wheels([wheel], read_image(), [])
    assert "more than 0; the largest is tiny-1.0-py3-none-any.whl" in problem


def test_files_that_are_no_wheels(tmp_path):
    (tmp_path / "tiny-1-py3-none-any.whl").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="it is no zip archive"):
        read_wheels(tmp_path)
    (tmp_path / "tiny-1-py3-none-any.whl").rename(tmp_path / "tiny.whl")
    with pytest.raises(ValueError, match="its name is not name-version"):
        read_wheels(tmp_path)
    (tmp_path / "tiny.whl").unlink()
    write_wheel(tmp_path, "tiny", "1.0")
    write_wheel(tmp_path, "tiny", "2.0")
    with pytest.raises(ValueError, match="several wheels of tiny"):
        read_wheels(tmp_path)


def test_wheels_are_fetched_with_what_they_need(tmp_path):
    """pip's place is taken by one that knows two packages: what the image has is not fetched."""
    commands = []

    def pip(command, **_):
        commands.append(command)
        name = command[-1].split("==")[0]
        needs = [*NEEDS, "helper-package>=1"] if name == "onnxruntime" else []
        write_wheel(Path(command[command.index("--dest") + 1]), name.split(">")[0].replace("-", "_"), "1.32.0",
                    IMAGE_TAG if name == "onnxruntime" else "py3-none-any", needs)  # fmt: skip
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    said = []
    wheels = fetch_wheels(tmp_path / "w", read_image(), ["onnxruntime"], said.append, pip)
    assert [w.name for w in wheels] == ["helper-package", "onnxruntime"]
    assert len(commands) == 2
    words = commands[0]
    assert words[words.index("--python-version") + 1] == "3.12"
    assert "--only-binary=:all:" in words
    assert {"cp312", "abi3", "none", "manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= set(words)
    fetch_wheels(tmp_path / "w", read_image(), ["onnxruntime"], said.append, pip)
    assert len(commands) == 2, "what is there is not fetched again"

    def without(command, **_):
        return SimpleNamespace(returncode=1, stdout="", stderr="WARNING\nERROR: No matching distribution found\n")

    with pytest.raises(ValueError, match=r"pip could not fetch onnxruntime.*No matching distribution"):
        fetch_wheels(tmp_path / "x", read_image(), ["onnxruntime"], said.append, without)


# ---- the build


def test_a_build_without_what_the_image_lacks_says_how_to_get_it(run, tmp_path):
    with pytest.raises(ValueError, match=r"onnxruntime is missing.*--fetch-wheels wheels/onnx --format onnx"):
        build(BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG), tmp_path / "kernels")
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "onnxruntime", "1.32.0", "cp38-cp38-win_amd64")
    with pytest.raises(ValueError, match=r"win_amd64\.whl is not for the image"):
        build(BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, wheels=wheels), tmp_path / "kernels")
    assert not (tmp_path / "kernels" / "my-kernel" / "build").exists()
    shutil.rmtree(wheels)
    write_wheel(wheels, "onnxruntime", "1.32.0", IMAGE_TAG, NEEDS)
    built = build(
        BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, wheels=wheels), tmp_path / "kernels"
    )
    about = json.loads((built / "dataset" / "bundle.json").read_text())
    assert about["image"]["python"] == "3.12"
    assert about["prior"] == [0.1, 0.11, 0.12]


def test_the_options_of_the_script(run, tmp_path, monkeypatch, capsys):
    def fetched(folder, image, needed):
        assert needed == ["onnxruntime"]
        write_wheel(folder, "onnxruntime", "1.32.0", IMAGE_TAG, NEEDS)
        return read_wheels(folder)

    monkeypatch.setattr(bundle_script, "fetch_wheels", fetched)
    scripts.run(bundle_script, "--fetch-wheels", tmp_path / "w")
    assert f"onnxruntime-1.32.0-{IMAGE_TAG}.whl" in capsys.readouterr().out
    scripts.run(bundle_script, "--fetch-wheels", tmp_path / "w", "--runs", run, "--competition", "birdclef2026",
                "--slug", SLUG, "--root", tmp_path / "kernels")  # fmt: skip
    assert (tmp_path / "kernels" / "my-kernel" / "build" / "dataset" / f"onnxruntime-1.32.0-{IMAGE_TAG}.whl").is_file()
    for wrong in (["--runs", run, "--competition", "synth"], ["--slug", SLUG],
                  ["--slug", SLUG, "--dry-run", "--wheels", "a", "--fetch-wheels", "b"]):  # fmt: skip
        with pytest.raises(SystemExit):
            scripts.run(bundle_script, *wrong)


# ---- the dry run


def inside(folder: Path, code: str, about: dict) -> subprocess.CompletedProcess:
    """Run `code` behind the guard."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(dry_run.GUARD, folder / "sitecustomize.py")
    (folder / "guard.json").write_text(json.dumps(about))
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_only_the_image_and_the_wheels_can_be_imported(tmp_path):
    data = tmp_path / "data"
    write_wheel(data, "tiny_extra")
    image = read_image(write_image(tmp_path / "image.txt", less=("packaging",)))
    about, notes = dry_run.package_guard(data, image)
    assert "tiny_extra-1.0-py3-none-any.whl" in notes[0]
    assert {"onnxruntime", "openvino", "pytest", "packaging"} <= set(about["blocked"])
    assert not {"numpy", "pandas", "yaml", "soundfile", "_soundfile", "_cffi_backend"} & set(about["blocked"])
    ran = inside(tmp_path / "guard", "import numpy, yaml\nimport onnxruntime\n", about)
    assert "No module named 'onnxruntime' (Kaggle's image has no onnxruntime, and the bundle no wheel" in ran.stderr
    code = f"import sys, zipfile\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\n"
    code += f"zipfile.ZipFile({str(next(data.glob('*.whl')))!r}).extractall({str(tmp_path / 'lib')!r})\n"
    ran = inside(tmp_path / "guard", code + "import tiny_extra\nprint(tiny_extra.ANSWER)\n", about)
    assert ran.stdout.strip() == "42", ran.stderr


def test_a_wheel_takes_the_place_of_a_package_that_is_blocked(tmp_path):
    """The kernel unpacks it where its own path begins: then it is the wheel's, not this machine's."""
    (tmp_path / "lib" / "pytest").mkdir(parents=True)
    (tmp_path / "lib" / "pytest" / "__init__.py").write_text("MINE = 1\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\nimport pytest\nprint(pytest.MINE)\n"
    assert inside(tmp_path / "guard", code, {"blocked": {"pytest": "no"}}).stdout.strip() == "1"


def test_a_wheel_of_another_python_has_a_stand_in(tmp_path):
    data = tmp_path / "data"
    write_wheel(data, "onnxruntime", "1.0", "cp399-cp399-manylinux_2_28_x86_64",
                files={"onnxruntime/__init__.py": "raise ImportError('built for another Python')\n"})  # fmt: skip
    about, notes = dry_run.package_guard(data, read_image())
    assert about["stand_ins"] == ["onnxruntime"]
    assert any("cannot import wheels for 3.12; from here instead: onnxruntime" in note for note in notes)
    code = f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\nimport onnxruntime\n"
    code += "print(onnxruntime.__version__)\n"
    (tmp_path / "lib").mkdir()
    assert inside(tmp_path / "guard", code, about).stdout.strip()


def test_writes_outside_the_working_folder_are_found(tmp_path):
    working, elsewhere = tmp_path / "working", tmp_path / "elsewhere"
    working.mkdir()
    elsewhere.mkdir()
    (elsewhere / "old").write_text("x")
    code = f"import os\nopen({str(working / 'a')!r}, 'w').close()\nopen({str(elsewhere / 'old')!r}).close()\n"
    code += f"open({str(elsewhere / 'b')!r}, 'w').close()\nos.mkdir({str(elsewhere / 'c')!r})\n"
    code += f"os.replace({str(elsewhere / 'b')!r}, {str(working / 'b')!r})\nopen(os.devnull, 'w').close()\n"
    log = tmp_path / "log"
    ran = inside(tmp_path / "guard", code, {"working": str(working), "log": str(log)})
    assert ran.returncode == 0, ran.stderr
    assert dry_run._logged(log, tmp_path) == {"elsewhere/b", "elsewhere/c"}


def test_the_network_is_taken_away_without_namespaces(tmp_path, monkeypatch):
    real = shutil.which
    monkeypatch.setattr(dry_run.shutil, "which", lambda name: None if name == "unshare" else real(name))
    command, how = dry_run.network_blocker()
    if not command:
        pytest.skip("this system takes no filter of system calls")
    assert "seccomp" in how
    code = "import socket\nfor family in (socket.AF_INET, socket.AF_INET6):\n    try:\n        socket.socket(family)\n"
    code += "    except OSError as error:\n        print(error.errno)\nsocket.socketpair()\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}], check=True)\n"
    ran = subprocess.run([*command, sys.executable, "-c", child], capture_output=True, text=True)
    assert ran.stdout.split() == ["101", "101"], "a program that the kernel starts has no network either"


def test_no_program_writes_outside_the_working_folder(tmp_path):
    walled, how = dry_run.write_wall()
    if not walled:
        assert "no Landlock" in how
        pytest.skip("this system has no Landlock")
    (tmp_path / "working/tmp").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "log").touch()
    command = (
        "echo a > working/a; mv working/a working/tmp/b; echo c >> log; echo d > /dev/null; echo e > outside/e; "
        "mkdir outside/f; mv working/tmp/b outside/b; cat working/tmp/b"
    )
    wall = [sys.executable, dry_run.NO_WRITES, "working", "log", "--"]
    ran = subprocess.run([*wall, "sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout == "a\n", "what lies inside is written and moved"
    assert ran.stderr.count("Permission denied") == 3
    assert not list((tmp_path / "outside").iterdir())
    assert (tmp_path / "log").read_text() == "c\n"


def test_the_filter_jumps_where_it_should():
    program = no_network.filter_program("x86_64")
    assert len(program) == 8 * (11 + len(no_network.FAMILIES))
    with pytest.raises(KeyError):
        no_network.filter_program("vax")


def test_without_any_way_to_take_the_network_a_dry_run_fails_unless_accepted(run, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "onnxruntime", "1.32.0", IMAGE_TAG, NEEDS)
    built = build(
        BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, wheels=wheels), tmp_path / "kernels"
    )
    monkeypatch.setattr(dry_run, "_blocks", lambda command: False)
    with pytest.raises(ValueError, match="the network cannot be taken away here.*--accept-open-network"):
        dry_run.dry_run(built, 1.0, say=lambda text: None)
    played = []
    monkeypatch.setattr(
        dry_run, "_play", lambda *arguments, **named: played.append(arguments) or dry_run.SceneResult("", 0, 0, ())
    )
    said = []
    dry_run.dry_run(built, 1.0, say=said.append, accept_open_network=True)
    assert len(played) == 5
    assert "network: OPEN to what the kernel starts (neither namespaces nor filters of system calls)" in said


@pytest.mark.slow
def test_a_kernel_runs_with_its_own_wheel_alone(run, tmp_path):
    """The runtime of this environment is hidden; packed as a wheel into the bundle it is found there."""
    wheels = tmp_path / "wheels"
    tiny_wheels.repack(wheels, "onnxruntime")
    image = write_image(tmp_path / "image.txt")
    settings = BundleSettings(runs=(run,), competition="birdclef2026", slug=SLUG, wheels=wheels, image_packages=image)
    built = build(settings, tmp_path / "kernels")
    said = []
    results = dry_run.dry_run(built, 2.0, say=said.append, image=read_image(image))
    assert [r.problems for r in results] == [()] * 5, said
    next((built / "dataset").glob("*.whl")).unlink()
    from earshot.kernel.manifest import write_manifest

    write_manifest(built / "dataset")
    results = dry_run.dry_run(built, 2.0, say=said.append, image=read_image(image))
    assert all("needs onnxruntime, which cannot be imported here" in r.problems[0] for r in results[2:])
    assert all(r.rows for r in results[2:]), "the priors are a valid answer all the same"
    assert not any("ended with" in problem for r in results for problem in r.problems)


# ---- after a push


def test_what_kaggles_log_says_of_packages_is_explained(tmp_path):
    log = [{"stream_name": "stdout", "data": "Python 3.13, the bundle and its wheels were made for 3.12\n"},
           {"stream_name": "stderr", "data": "ModuleNotFoundError: No module named 'onnxruntime.capi'\n"},
           {"stream_name": "stdout", "data": "  FAILED: the run: no network of the bundle runs here\n"}]  # fmt: skip
    (tmp_path / "my-kernel.log").write_text(json.dumps(log))
    package, python, priors = push.explain(tmp_path)
    assert "no package that gives 'onnxruntime'" in package
    assert "--fetch-wheels" in package
    assert "Kaggle runs Python 3.13, the bundle was made for 3.12" in python
    assert "priors alone" in priors
    (tmp_path / "my-kernel.log").write_text("it ran\nPython 3.12\n")
    assert push.explain(tmp_path) == []
