"""Folders of pseudo-labels and kept answers that are not what they should be: refused, and never taken for others."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from earshot import files
from earshot.data import pseudo
from earshot.data.pseudo import read_manifest, read_windows
from earshot.data.unlabelled import with_groups
from earshot.rounds import hearing


def test_answers_of_other_sounds_are_never_reused(tmp_path):
    """The same names in another folder, a file that was replaced, and shards that outlived asked.json."""
    table = pd.DataFrame({"clip_id": ["a", "gone"], "path": ["a.wav", "gone.wav"]})
    teachers = SimpleNamespace(origins={}, windowing=SimpleNamespace(window_seconds=1.0))
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.wav").write_bytes(b"sound")
        os.utime(tmp_path / place / "a.wav", ns=(1, 1))
    (tmp_path / "link").symlink_to(tmp_path / "here")
    answers = tmp_path / "out/answers"
    hearing.begin(answers, teachers, table, tmp_path / "here", 64)
    hearing.begin(answers, teachers, table, tmp_path / "link", 64)
    with pytest.raises(ValueError, match=r"with other audio_root: .* or remove the folder"):
        hearing.begin(answers, teachers, table, tmp_path / "there", 64)
    for content, time in ((b"another", 1), (b"tones", 2)):
        (tmp_path / "here/a.wav").write_bytes(content)
        os.utime(tmp_path / "here/a.wav", ns=(time, time))
        with pytest.raises(ValueError, match="with other recordings: "):
            hearing.begin(answers, teachers, table, tmp_path / "here", 64)
    hearing.shard_file(answers, 0).touch()
    (answers / hearing.ASKED).unlink()
    with pytest.raises(ValueError, match=r"holds answers and no asked.json that says whose: remove the folder"):
        hearing.begin(answers, teachers, table, tmp_path / "there", 64)


def test_a_kill_while_answers_are_removed_leaves_none_of_them(tmp_path, monkeypatch):
    answers = tmp_path / "out/answers"
    answers.mkdir(parents=True)
    hearing.shard_file(answers, 0).touch()

    def killed(folder, ignore_errors=False):
        if not ignore_errors:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            files.remove_folder(answers)
    assert not answers.exists()
    answers.mkdir()
    files.remove_folder(answers)
    assert not answers.exists()


MANIFEST = {
    "mode": "isolated", "classes": ["x", "y"], "window_seconds": 1.0, "source": "source", "folds_table": "folds.csv",
    "tables": {"folds": "f", "classes": "c", "clips": "d"}, "masses": {"0": [1.0, 2.0]},
    "teachers": {"0": [{"run": "sed/t", "fold": 0, "tables": {"folds": "f", "classes": "c", "clips": "d"}}]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"window_seconds": "x"}, "has 'x' as 'window_seconds'"),
        ({"window_seconds": True}, "has 'True' as 'window_seconds'"),
        ({"window_seconds": float("nan")}, "has nan as 'window_seconds', which must be above 0"),
        ({"window_seconds": 1e9}, "has 1000000000.0 as 'window_seconds'"),
        ({"window_seconds": 0}, "has 0 as 'window_seconds'"),
        ({"source": 5}, "has '5' as 'source'"),
        ({"source": "a\0"}, "as 'source', which is no folder"),
        ({"lineage": ["x"]}, r"has \['x'\] as 'lineage'"),
        ({"classes": [["a"], None, 3]}, "as 'classes', which are no names"),
        ({"classes": []}, "as 'classes', which are no names"),
        ({"classes": ["x", "y", "x"]}, r"names classes twice \(x\)"),
        ({"masses": {"0": [1.0]}}, "as 'masses' of fold 0"),
        ({"masses": {"0": [1.0, float("inf")]}}, "as 'masses' of fold 0"),
        ({"masses": {}}, "has None as 'masses' of fold 0"),
        ({"teachers": {"00": MANIFEST["teachers"]["0"]}}, "names no teachers for '00'"),
        ({"teachers": {"0": [3]}}, "must be a mapping"),
        ({"tables": []}, r"has '\[\]' as 'tables'"),
        ({"commit": None}, "has 'None' as 'commit'"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, wrong, said):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST))
    assert read_manifest(tmp_path).window_seconds == 1
    path.write_text(json.dumps(MANIFEST | wrong))
    with pytest.raises(ValueError, match=rf"manifest.json.* {said}"):
        read_manifest(tmp_path)


def test_teachers_of_other_classes_are_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    with pytest.raises(ValueError, match=r"manifest.json names the classes x, y, of which this run has none \(z\)"):
        pseudo.read_pseudo(tmp_path, 0, None, "", held_out=None, labelled=None, source="", classes=("z",))


def test_files_that_are_none_are_refused(tmp_path):
    good = pseudo.PseudoLabels(
        clip_ids=np.array(["a"]), paths=np.array(["a.wav"]), starts=np.zeros(1), target=np.ones((1, 2), np.float16),
        confidence=np.ones(1), keys=np.array(["clip a a"]),
    )  # fmt: skip
    with pytest.raises(ValueError, match="targets must lie in 0 to 1"):
        dataclasses.replace(good, target=np.full((1, 2), 2, np.float16))
    with pytest.raises(ValueError, match="starts must be seconds from 0"):
        dataclasses.replace(good, starts=np.array([-1.0]))
    for start in (1e300, np.inf, np.nan):
        with pytest.raises(ValueError, match="starts must be seconds from 0"):
            dataclasses.replace(good, starts=np.array([start]))
    with pytest.raises(ValueError, match="paths is of"):
        dataclasses.replace(good, paths=np.array(["a", "b"]))
    target, mask = good.aligned(("x", "y"), ("y", "z"))
    assert (target.tolist(), mask.tolist()) == ([[1, 0]], [[1, 0]]), "a class that no teacher has is masked"
    (tmp_path / "fold0.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="fold0.npz is not a file of pseudo-labels"):
        read_windows(tmp_path, 0)


def test_recordings_take_the_groups_that_folds_keep_whole(tmp_path):
    clips = pd.DataFrame({"clip_id": ["a", "ridge/b", "c"], "path": ["pond/a.wav", "ridge/b.wav", "ridge/c.wav"]})
    clips["group"] = ["pond", "ridge", "ridge"]
    names = ["pond/a.wav", "ridge/b.wav", "pond/new.wav", "elsewhere/c.wav", "bridge/d.wav"]
    table = pd.DataFrame({"clip_id": ["pond/a", "ridge/b", "new", "d", "e"], "path": names})
    groups = ["pond", "ridge", "pond", "", ""]
    for root in (tmp_path, tmp_path / "copy"):  # the same files, and copies of them
        assert with_groups(table, root, clips, tmp_path).group.tolist() == groups
        absolute = table.assign(path=[str(root / name) for name in names])
        assert with_groups(absolute, root, clips, tmp_path).group.tolist() == groups
    for other in (clips.drop(columns="group"), clips.assign(group=clips.clip_id)):
        assert with_groups(table, tmp_path, other, tmp_path) is table
    own = table.assign(group="mine")
    assert with_groups(own, tmp_path, clips, tmp_path) is own
