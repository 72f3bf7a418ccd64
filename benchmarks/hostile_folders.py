"""Folders and tables as people's disks have them: each check makes one under `at` and raises unless all is right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from hostile_audio import coded, flac_total

from earshot.augment.waveform import apply, build_waveform_augment
from earshot.competitions.tables import Tables, find_files
from earshot.data.event_checks import checked_events
from earshot.data.folds import make_folds, read_folds
from earshot.data.labels import annotated_clips, clip_targets, read_classes, read_clips
from earshot.sound.folder import list_recordings
from earshot.tables import read_table

WAV = coded("WAV")


def put(at: Path, *names, data: bytes = WAV):
    for name in names:
        target = Path(os.fsdecode(os.fsencode(at) + b"/" + name)) if isinstance(name, bytes) else at / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def listing(make: Callable[[Path], None], ids: list[str], reasons: dict[str, str]) -> Callable[[Path], None]:
    """A check: what `make` puts into a folder is listed under these ids, and left out for these reasons."""

    def check(at: Path):
        (at / "root").mkdir()
        make(at / "root")
        found = list_recordings(at / "root")
        assert sorted(found.ids()) == sorted(ids), f"ids are {found.ids()}"
        told = {p.relative_to(at / "root").as_posix(): text for p, text in found.left_out.items()}
        assert set(told) == set(reasons), f"left out are {told}"
        for name, part in reasons.items():
            assert part in told[name], f"{name}: {told[name]}"
        assert bool(found.said()) == bool(reasons)

    return check


def link(*pairs) -> Callable[[Path], None]:
    """Two recordings, and links: (name, target)."""

    def make(root: Path):
        put(root, "a.wav", "2023/b.wav")
        put(root.parent, "store/c.wav", "mine.wav")
        for name, target in pairs:
            os.symlink(target, root / name)

    return make


def noise(make: Callable[[Path], None], heard: int, name: str = "AddBackgroundNoise") -> Callable[[Path], None]:
    """A check: of an augmentation's folder `heard` files are mixed in; 0: it is refused when it is built."""

    def check(at: Path):
        make(at)
        spec = [{"name": name, "ir_path" if "Impulse" in name else "sounds_path": str(at), "p": 1.0}]
        if not heard:
            refused(lambda: build_waveform_augment(spec), "names no recording that can be read")
            return
        augment = build_waveform_augment(spec)
        transform = augment.transforms[0]
        files = getattr(transform, "ir_files", None) or transform.sound_file_paths
        assert len(files) == heard, f"heard are {files}"
        sound = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
        for seed in range(8):
            assert np.isfinite(apply(augment, sound, 16000, np.random.default_rng(seed))).all()

    return check


def refused(call: Callable, pattern: str):
    """Raise unless `call` raises a ValueError that says so."""
    told = None
    try:
        call()
    except ValueError as error:
        told = str(error)
    assert told is not None, f"not refused, expected '{pattern}'"
    assert re.search(pattern, told), f"refused by '{told}', which does not say '{pattern}'"


def pipe(root: Path):
    put(root, "a.wav")
    os.mkfifo(root / "p.wav")


def damaged_noise(root: Path):
    put(root, "good.wav")
    put(root, "page.wav", data=b"<html>404 Not Found</html>")
    put(root, "empty.flac", data=b"")


def flat_folder(at: Path):
    put(at, "a.ogg", "a.wav", "b.OGG", "deep/c.ogg")
    os.mkfifo(at / "p.ogg")
    assert find_files(at) == {"a": "a.ogg", "b": "b.OGG"}


FOLDERS: dict[str, Callable[[Path], None]] = {
    "link up": listing(link(("2023/all", "..")), ["a", "2023/b"], {"2023/all": "read already"}),
    "link to itself": listing(link(("2023/me", ".")), ["a", "2023/b"], {"2023/me": "read already"}),
    "link above": listing(link(("up", "..")), ["a", "2023/b"], {"up": "a folder above"}),
    "link to the root": listing(link(("all", "/")), ["a", "2023/b"], {"all": "a folder above"}),
    "two links up": listing(link(("x", "2023"), ("2023/y", "..")), ["a", "2023/b"],
                            {"x": "read already", "2023/y": "read already"}),
    "link to a store": listing(link(("s", "../store")), ["a", "2023/b", "s/c"], {}),
    "two links to a store": listing(link(("s", "../store"), ("t", "../store")), ["a", "2023/b", "s/c"],
                                    {"t": "read already"}),
    "link to a file": listing(link(("c.wav", "../mine.wav")), ["a", "2023/b", "c"], {}),
    "link to a file of the folder": listing(link(("c.wav", "a.wav")), ["a", "2023/b"], {"c.wav": "read already"}),
    "link to nothing": listing(link(("c.wav", "gone.wav")), ["a", "2023/b"], {"c.wav": "a link to nothing"}),
    "link to its own name": listing(link(("c.wav", "c.wav")), ["a", "2023/b"], {"c.wav": "leads nowhere"}),
    "pipe": listing(pipe, ["a"], {"p.wav": "a pipe"}),
    "device": listing(link(("z.wav", "/dev/zero")), ["a", "2023/b"], {"z.wav": "device"}),
    "endings in any case": listing(lambda r: put(r, "a.WAV", "b.Flac", "c.OGG", "d.Mp3"), ["a", "b", "c", "d"], {}),
    "formats of others": listing(lambda r: put(r, "a.wav", "b.m4a", "c.WMA", "d.aac"), ["a"],
                                 {"b.m4a": "convert", "c.WMA": "convert", "d.aac": "convert"}),
    "formats of others alone": listing(lambda r: put(r, "b.m4a"), [], {"b.m4a": "convert"}),
    "tables and pictures": listing(lambda r: put(r, "a.wav", "notes.txt", "x.csv", "y.jpg", "README"), ["a"],
                                   {"notes.txt": "no recording", "x.csv": "no recording", "y.jpg": "no recording",
                                    "README": "no ending"}),
    "hidden files": listing(lambda r: put(r, "a.wav", "._a.wav", ".DS_Store", ".git/b.wav"), ["a"], {}),
    "two of one name": listing(lambda r: put(r, "a.wav", "a.flac"), ["a.wav", "a.flac"], {}),
    "one name in two folders": listing(lambda r: put(r, "x/a.wav", "y/a.wav", "a.wav"), ["x/a", "y/a", "a"], {}),
    "names that are no text": listing(lambda r: put(r, b"b\xff.wav", b"\xe4.wav"), ["b\\xff", "\\xe4"], {}),
    "dots in names": listing(lambda r: put(r, "a.b.c.wav", "..x.wav"), ["a.b.c"], {}),
    "folder with a recording's name": listing(lambda r: put(r, "a.wav/b.wav"), ["a.wav/b"], {}),
    "empty": listing(lambda r: None, [], {}),
    "none": lambda at: refused(lambda: list_recordings(at / "gone"), "is not a folder"),
    "file for a folder": lambda at: (put(at, "a.wav"), refused(lambda: list_recordings(at / "a.wav"), "is not a")),
    "a download's flat folder": flat_folder,
    "noise with damaged files": noise(damaged_noise, 1),
    "short noises with damaged files": noise(damaged_noise, 1, "AddShortNoises"),
    "impulse responses with damaged files": noise(damaged_noise, 1, "ApplyImpulseResponse"),
    "noise with a pipe": noise(pipe, 1),
    "noise with a loop": noise(lambda at: (put(at, "a.wav"), os.symlink(".", at / "again")), 1),
    "noise of other formats": noise(lambda at: put(at, "a.m4a"), 0),
    "noise damaged alone": noise(lambda at: put(at, "a.wav", data=b"RIFF"), 0),
    "noise of a long header": noise(lambda at: put(at, "a.flac", data=flac_total(2**35)()), 1),
    "noise of a name that is no text": noise(lambda at: put(at, b"\xff.wav"), 1),
    "noise that is nothing": noise(lambda at: None, 0),
}  # fmt: skip


# ---- tables


def table(text: str | bytes, read: Callable[[Path], object], right) -> Callable[[Path], None]:
    """A check: a table of this text is refused with the message `right` (a str), or read so that `right(...)` holds."""

    def check(at: Path):
        path = at / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if isinstance(right, str):
            refused(lambda: read(path), right)
        else:
            found = read(path)
            assert right(found), f"read as {found}"

    return check


def ids(*expected) -> Callable:
    return lambda clips: clips.clip_id.tolist() == list(expected)


def targets_of(labels: str) -> Callable[[Path], None]:
    """A check: a label that is no class is an error that names it."""

    def check(at: Path):
        clips = pd.DataFrame({"clip_id": ["x"], "path": ["x.wav"], "labels": [labels]})
        refused(lambda: clip_targets(clips, ["wren", "owl"]), re.escape(labels.split()[-1]))

    return check


def folds_of(text: str, message: str) -> Callable[[Path], None]:
    clips = pd.DataFrame({"clip_id": ["x", "y"], "path": ["x.wav", "y.wav"], "labels": ["wren", "owl"]})
    return table(text, lambda path: read_folds(path, clips), message)


def reserved(name: str) -> Callable[[Path], None]:
    """A check: what says silence, or nothing, is refused as a class where a competition is prepared."""
    return lambda at: refused(lambda: Tables(clips=CLIPS.assign(labels="wren"), classes=["wren", name]), name)


def groups_of(text: str) -> Callable[[Path], None]:
    """A check: clips without an author stay with their own group, x with y, when folds are made by author."""

    def check(at: Path):
        (at / "clips.csv").write_text(text)
        folds = make_folds(read_clips(at / "clips.csv"), 2, 0, "author").set_index("clip_id").fold
        assert folds["x"] == folds["y"] != folds["z"], f"folds are {folds.to_dict()}"

    return check


CLIPS = pd.DataFrame({"clip_id": ["x", "y"], "path": ["x.wav", "y.wav"], "duration": [10.0, np.nan]})
EVENTS = "filename,onset,offset,event_label\n"


def events_of(rows: str, right, said: str | None = None) -> Callable[[Path], None]:
    """A check: these events of a 10-s recording x and of y, of unknown length, are refused with the message `right`, or
    become the [onset, offset] of `right` with a word that matches `said` (None: nothing is said)."""

    def check(at: Path):
        (at / "events.csv").write_text(EVENTS + rows)
        read = read_table(at / "events.csv", ("filename", "onset", "offset", "event_label"))
        if isinstance(right, str):
            refused(lambda: checked_events(read, CLIPS, "events.csv", ["wren", "owl"]), right)
            return
        found, told = checked_events(read, CLIPS, "events.csv", ["wren", "owl"])
        assert found[["onset", "offset"]].to_numpy().tolist() == right, f"became {found}"
        assert bool(told) == bool(said), f"said {told}"
        assert not said or re.search(said, "; ".join(told)), f"said {told}, not '{said}'"

    return check


def annotated(text: str, right) -> Callable[[Path], None]:
    """A check: the column `annotated` of clips x (with an event) and y (without) means `right`, or is refused by it."""
    events = pd.DataFrame({"filename": ["x"], "onset": [0.0], "offset": [1.0], "event_label": ["wren"]})
    return table(text, lambda path: annotated_clips(read_clips(path), events, path),
                 right if isinstance(right, str) else lambda found: found.tolist() == right)  # fmt: skip


TABLES: dict[str, Callable[[Path], None]] = {
    "ids that look like numbers": table("clip_id,path\n007,a\n1e5,b\n0x1,c\n", read_clips, ids("007", "1e5", "0x1")),
    "ids that look like nothing": table("clip_id,path\nNA,a\nnan,b\nNone,c\n", read_clips, ids("NA", "nan", "None")),
    "ids that look like truth": table("clip_id,path\nTrue,a\nFALSE,b\n", read_clips, ids("True", "FALSE")),
    "ids in other letters": table("clip_id,path\nübergrößen,a\n鳥,b\n", read_clips, ids("übergrößen", "鳥")),
    "ids with commas and lines": table('clip_id,path\n"a,b",a\n"c\nd",b\n', read_clips, ids("a,b", "c\nd")),
    "a byte order mark": table("\ufeffclip_id,path\nx,a\n", read_clips, ids("x")),
    "lines of Windows": table("clip_id,path\r\nx,a\r\n", read_clips, ids("x")),
    "no line end": table("clip_id,path\nx,a", read_clips, ids("x")),
    "no column of ids": table("id,path\nx,a\n", read_clips, "has no column 'clip_id'"),
    "semicolons": table("clip_id;path\nx;a\n", read_clips, ids("x")),
    "a clip twice": table("clip_id,path\nx,a\nx,b\n", read_clips, "lists 1 clip twice: x"),
    "no byte": table("", read_clips, "is not a CSV table"),
    "Latin-1": table("clip_id,path\nvögel,a\n".encode("latin-1"), read_clips, ids("vögel")),
    "UTF-16": table("clip_id,path\nx,a\n".encode("utf-16"), read_clips, ids("x")),
    "a row too long": table("clip_id,path\nx,a\ny,b,c,d\n", read_clips, "is not a CSV table"),
    "an open quote": table('clip_id,path\n"x,a\n', read_clips, "is not a CSV table"),
    "rubbish": table(np.random.default_rng(0).bytes(3000), read_clips, "is not a CSV table|has no column"),
    "none": lambda at: refused(lambda: read_clips(at / "gone.csv"), "does not exist"),
    "a folder": lambda at: refused(lambda: read_clips(at), "does not exist|is a folder"),
    "a class twice": table("label\nwren\nwren\n", read_classes, "names a class twice: wren"),
    "a class with a space": table("label\nwood wren\n", read_classes, "cannot be a class name"),
    "an empty class": table('label\nwren\n""\n', read_classes, "cannot be a class name"),
    "no class": table("label\n", read_classes, "names no class"),
    "classes that look like nothing": table("label\nNA\nnan\n", read_classes, lambda c: c == ["NA", "nan"]),
    "a label of no class": targets_of("wren crow"),
    "a fold of no clip": folds_of("clip_id,group,fold\nx,x,0\ny,y,1\nz,z,0\n", "z"),
    "a clip of no fold": folds_of("clip_id,group,fold\nx,x,0\n", "y"),
    "a fold that is no number": folds_of("clip_id,group,fold\nx,x,a\ny,y,1\n", "fold"),
    "a clip in two folds": folds_of("clip_id,group,fold\nx,x,0\nx,x,1\ny,y,1\n", "x"),
    "an event past the end": events_of(
        "x,2,12,wren\n", [[2, 10]], r"reach past the end .* cut there: x \(wren, 2 to 12"
    ),
    "an event after the end": events_of("x,11,12,wren\nx,1,2,owl\n", [[1, 2]], "begin after the end .* left out"),
    "an event past a rounded end": events_of("x,2,10.04,wren\n", [[2, 10]]),
    "an event past an unknown end": events_of("y,2,1e4,wren\n", [[2, 1e4]]),
    "an event before the beginning": events_of("x,-1,2,wren\n", [[0, 2]], "begin before .* cut there"),
    "an event of no length": events_of("x,3,3,wren\nx,3,4,owl\n", [[3, 4]], "have no length and are left out"),
    "an event that ends before it begins": events_of("x,4,3,wren\n", r"1 of 1 events end before they begin: x \(wren"),
    "an event of no recording": events_of("z,3,4,wren\nx,3,4,wren\n", [[3, 4]], "of no recording .* left out: z"),
    "an event without a time": events_of("x,,4,wren\n", "no number of seconds"),
    "an event by the clock": events_of("x,00:00:01,00:00:02,wren\n", "no number of seconds"),
    "an event without an end": events_of("x,1,inf,wren\n", "no number of seconds"),
    "an event of no class": events_of("x,1,2,wrn\n", "labels that are no class: wrn; did you mean 'wren'"),
    "an event of nocall": events_of("x,1,2,nocall\n", "labels that are no class: nocall"),
    "no event": events_of("", []),
    "silence that is said": annotated("clip_id,path,annotated\nx,x,1\ny,y,1\n", [True, True]),
    "rows that are a part": annotated("clip_id,path,annotated\nx,x,0\ny,y,\n", [False, False]),
    "nothing said of silence": annotated("clip_id,path\nx,x\ny,y\n", [True, False]),
    "annotated as a word": annotated("clip_id,path,annotated\nx,x,True\ny,y,FALSE\n", [True, False]),
    "annotated by chance": annotated("clip_id,path,annotated\nx,x,0.5\ny,y,1\n", "`annotated` is 1, 0 or empty"),
    "nocall as a class": reserved("nocall"),
    "no bird as a class": reserved("NaN"),
    "groups without a name": groups_of("clip_id,path,labels,author,group\nx,x,wren,,s\ny,y,owl,,s\nz,z,owl,bo,z\n"),
    "folds without a column": folds_of("clip_id,fold\nx,0\ny,1\n", "group"),
}
