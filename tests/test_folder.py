"""A folder is what is in it: each recording once, everything else with a reason, and nothing that waits or crashes."""

import os

import numpy as np
import pytest
import soundfile

from earshot.competitions.tables import find_files
from earshot.files import walk
from earshot.sound import audio
from earshot.sound.folder import by_reason, list_recordings, printable


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def listed(root) -> list[str]:
    return [p.relative_to(root).as_posix() for p in list_recordings(root).files]


def reasons(root) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): reason for p, reason in list_recordings(root).left_out.items()}


def test_endings_in_any_case_at_any_depth(tmp_path):
    touch(tmp_path, "b/x.WAV", "a.ogg", "c/d/z.Flac", "b/._x.wav", ".hidden/y.wav", "e.Mp3")
    assert listed(tmp_path) == ["a.ogg", "b/x.WAV", "c/d/z.Flac", "e.Mp3"]
    assert reasons(tmp_path) == {}


def test_what_is_no_recording_is_named_with_its_reason(tmp_path):
    touch(tmp_path, "a.wav", "notes.txt", "noext", "song.m4a", "old.WMA", "x.gsm")
    os.mkfifo(tmp_path / "pipe.wav")
    found = reasons(tmp_path)
    assert listed(tmp_path) == ["a.wav"]
    assert found["notes.txt"] == "no recording by its ending, '.txt'"
    assert found["noext"] == "it has no ending"
    assert found["song.m4a"].startswith("a format that nothing here decodes, .m4a: convert it")
    assert found["old.WMA"].startswith("a format that nothing here decodes, .wma")
    assert found["pipe.wav"] == "a pipe, socket or device, not a file"
    text = list_recordings(tmp_path).said()
    assert text.startswith("6 files in ")
    assert text.endswith("and 2 more")


@pytest.mark.parametrize("target", ["..", ".", "root", "../..", "/"])
def test_links_that_loop_list_each_recording_once(tmp_path, target):
    root = tmp_path / "root"
    touch(root, "a.wav", "2023/b.wav")
    touch(tmp_path, "of_somebody_else.wav")
    os.symlink(root if target == "root" else target, root / "2023/all")
    assert listed(root) == ["2023/b.wav", "a.wav"]
    reason = reasons(root)["2023/all"]
    if target in ("/", "../.."):
        assert reason == "a link to a folder above"
    else:
        assert reason.startswith("a link to ")
        assert reason.endswith("which is read already")


def test_links_out_of_the_folder_are_followed_once(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    touch(store, "x.wav", "deep/y.wav")
    touch(root, "z.wav")
    os.symlink(store, root / "first")
    os.symlink(store, root / "second")
    os.symlink(store / "x.wav", root / "again.wav")
    os.symlink(tmp_path / "gone.wav", root / "dangling.wav")
    os.symlink("self.wav", root / "self.wav")
    os.symlink(root / "z.wav", root / "a_link.wav")
    found = list_recordings(root)
    assert len({os.path.realpath(p) for p in found.files}) == len(found.files) == 3
    assert root / "z.wav" in found.files, "a file's own name comes before a link to it"
    assert reasons(root)["dangling.wav"] == "a link to nothing"
    assert reasons(root)["self.wav"].startswith("a link that leads nowhere")
    assert len(found.left_out) == 5, "a link to z.wav, one of the two to store, and x.wav under one of its two names"


def test_a_folder_reached_by_a_link_may_itself_hold_a_loop(tmp_path):
    touch(tmp_path, "root/a.wav", "store/b.wav")
    os.symlink(tmp_path / "store", tmp_path / "root/store")
    os.symlink(tmp_path / "root", tmp_path / "store/root")
    assert listed(tmp_path / "root") == ["a.wav", "store/b.wav"]


def test_names_that_are_no_text_are_listed_read_and_printable(tmp_path):
    audio.write(tmp_path / "a.wav", np.full(800, 0.5), 8000)
    os.rename(tmp_path / "a.wav", os.fsdecode(os.fsencode(tmp_path) + b"/b\xff\xe4.wav"))
    found = list_recordings(tmp_path)
    assert found.ids() == ["b\\xff\\xe4"]
    assert audio.info(found.files[0]).n_samples == 800
    os.truncate(found.files[0], 0)
    with pytest.raises(audio.UnreadableAudio) as caught:
        audio.info(found.files[0])
    str(caught.value).encode()
    assert printable("plain ü") == "plain ü"
    printable("\ud800").encode()


def test_two_files_of_one_name_keep_their_endings(tmp_path):
    touch(tmp_path, "bird.wav", "bird.flac", "sub/bird.wav", "owl.wav", "bird.wav.ogg")
    ids = dict(zip(listed(tmp_path), list_recordings(tmp_path).ids(), strict=True))
    assert ids["owl.wav"] == "owl"
    assert ids["sub/bird.wav"] == "sub/bird"
    assert ids["bird.flac"] == "bird.flac"
    assert len(set(ids.values())) == 5
    name = os.fsdecode(b"bird\xff.wav")
    touch(tmp_path, name, "bird\\xff.wav")
    ids = list_recordings(tmp_path).ids()
    assert len(set(ids)) == len(ids) == 7


def test_pipes_sockets_devices_and_loops_are_unreadable_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    os.symlink("/dev/null", tmp_path / "null.wav")
    os.symlink("loop.wav", tmp_path / "loop.wav")
    for name, reason in (("pipe", "is a pipe"), ("null", "is a device"), ("loop", "cannot be opened: Too many levels")):
        for call in (audio.info, lambda path: audio.load(path, 8000)):
            with pytest.raises(audio.UnreadableAudio, match=reason):
                call(tmp_path / f"{name}.wav")


def test_find_files_of_a_download(tmp_path, caplog):
    touch(tmp_path, "a.ogg", "a.wav", "b.OGG", "._c.ogg", "list.txt", "deep/d.ogg")
    os.mkfifo(tmp_path / "pipe.ogg")
    assert find_files(tmp_path) == {"a": "a.ogg", "b": "b.OGG"}
    assert "3 files in" in caplog.text
    assert "a.wav (it has the name of a.ogg)" in caplog.text
    assert find_files(tmp_path / "nowhere") == {}


def test_walk_goes_through_each_folder_once(tmp_path):
    touch(tmp_path, "a.pth", "deep/er/b.pth")
    for i in range(3):  # without a memory of folders: 3 links to the power of 40 levels
        os.symlink("..", tmp_path / f"deep/up{i}")
    names = [(p.relative_to(tmp_path).as_posix(), n) for p, n in walk(tmp_path)]
    assert names == [(".", ["a.pth"]), ("deep", []), ("deep/er", ["b.pth"])]


def test_deleted_recordings_are_none(tmp_path):
    for folder in ("wren", "$RECYCLE.BIN/S-1-5", "@eaDir/a.wav", "__MACOSX", "#recycle"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.wav").write_bytes(b"RIFF")
    found = list_recordings(tmp_path)
    assert [path.parent.name for path in found.files] == ["wren"]
    assert len([path for path, reason in found.left_out.items() if "system's own" in reason]) == 4


def test_the_commonest_reasons_are_told_first_and_all_files_counted(tmp_path):
    touch(tmp_path, "a.wav", "x/a.gsm", "x/b.GSM", "c.txt", "d.pdf", "e.m4a", "f.g722", "noending")
    text = by_reason(list_recordings(tmp_path).left_out)
    assert text.startswith("2 such as a.gsm (a format that nothing here decodes, .gsm: convert it, say with ffmpeg); ")
    assert text.count("; ") == 4
    assert text.endswith("; and 2 more")


@pytest.mark.parametrize(("ending", "kind"), [(".aifc", "AIFF"), (".snd", "AU"), (".rf64", "RF64")])
def test_other_endings_of_formats_that_are_decoded(tmp_path, ending, kind):
    soundfile.write(tmp_path / f"a{ending}", np.full(800, 0.25), 8000, format=kind)
    assert listed(tmp_path) == [f"a{ending}"]
    assert audio.load(tmp_path / f"a{ending}", 8000).shape == (800,)


def test_caches_are_no_recordings(tmp_path):
    """`data.cache_folder` may name a folder of recordings: their copies would be more of them, in other folds."""
    key = "0123456789abcdef"
    touch(tmp_path, "a.wav", f"c/own-1/{key}/a.flac", f"c/{'f' * 16}/b.wav")
    touch(tmp_path, *(f"c/own-1/{key}/{name}" for name in ("params.json", "index.csv")))
    (tmp_path / "link").symlink_to(tmp_path / f"c/own-1/{key}")
    assert listed(tmp_path) == ["a.wav", f"c/{'f' * 16}/b.wav"]
    assert reasons(tmp_path) == dict.fromkeys((f"c/own-1/{key}", "link"), "a cache, of copies of recordings")
    assert listed(tmp_path / f"c/own-1/{key}") == ["a.flac"]
