"""Archives in shards: the plan, what was heard, patience with recordings and processes that fail. No Ray in here."""

import argparse
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bulk
from earshot import files
from earshot.listening import archive, shards
from earshot.listening.archive_totals import add_up, table_of
from earshot.listening.detections import COLUMNS, Heard, joined, summary_of
from earshot.listening.on_ray import Hearing, Workers, check_address, runtime_environment
from earshot.messages import need
from earshot.prediction.predictions import Clip

pytest.importorskip("pyarrow", reason="pip install -r requirements/ray.txt")


def recordings(*names):
    return {name: Path("/archive") / name for name in names}


def heard_of(clips, unreadable=(), events=1):
    """What a network might say: so many events of a second in each clip, a minute long; some cannot be read."""
    rows = [(c.clip_id, i, i + 1.0, "wren", 0.9, 0.9, 0.8, "2026-05-01T05:00:00.000", str(c.path))
            for c in clips if c.clip_id not in unreadable for i in range(events)]  # fmt: skip
    seconds = {str(c.path): 60.0 for c in clips if c.clip_id not in unreadable}
    reasons = {str(c.path): "damaged" for c in clips if c.clip_id in unreadable}
    return Heard(pd.DataFrame(rows, columns=list(COLUMNS)), seconds, reasons)


def clips_of(*names):
    return [Clip(name, Path("/archive") / name) for name in names]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 8), st.integers(1, 100), st.integers(0, 40))
def test_every_recording_has_one_shard_for_good(sizes, files, limit, first):
    now = recordings(*(f"{i}.wav" for i in range(len(sizes))))
    some = dict(list(now.items())[:first])
    early = archive.extend_plan(None, some, sizes[:first], files, limit)
    plan = archive.extend_plan(early, now, sizes, files, limit)
    assert sorted(plan.filename) == sorted(now)
    assert plan.head(len(early)).equals(early)
    for number, rows in plan.groupby("shard"):
        assert len(rows) <= files
        assert rows["size"].sum() <= limit or len(rows) == 1
        assert not (set(rows.filename) & set(some) and set(rows.filename) - set(some)), number
    assert archive.extend_plan(plan, now, sizes, files, limit).equals(plan)


@pytest.mark.parametrize(("count", "megabytes", "shards"), [
    (19, 38, 19), (200, 4, 13), (5, 0.1, 1), (8192, 16, 256), (2, 5000, 2),
])  # fmt: skip
def test_a_small_archive_has_shards_for_many_workers(count, megabytes, shards):
    now = recordings(*(f"{i}.wav" for i in range(count)))
    plan = archive.extend_plan(None, now, [int(megabytes * 2**20)] * count)
    assert plan.shard.nunique() == shards


def test_a_plan_comes_back_with_names_that_are_no_text(tmp_path):
    odd = Path(os.fsdecode(b"/archive/\xff.wav"))
    plan = archive.extend_plan(None, archive._named([("a.wav", Path("/archive/a.wav")), ("\udcff.wav", odd)]), [1, 2])
    archive.write_plan(tmp_path, plan)
    back = archive.read_plan(tmp_path)
    assert back.equals(plan)
    (left,) = archive.pending(back, set())
    assert left == {"shard": 0, "filenames": ["a.wav", "\\xff.wav"], "paths": [b"/archive/a.wav", os.fsencode(odd)]}
    assert archive.pending(back, {0}) == []
    (tmp_path / archive.PLAN).write_text("no table")
    with pytest.raises(ValueError, match=r"plan.parquet cannot be read .*choose another --out"):
        archive.read_plan(tmp_path)
    assert archive.read_plan(tmp_path / "gone") is None


def test_names_that_become_one_text_stay_apart():
    found = archive._named([("\udcff.wav", Path("/a")), ("\\xff.wav", Path("/b"))])
    assert found == {"\\xff.wav": Path("/a"), "\\xff.wav~": Path("/b")}


def test_what_changed_since_is_said():
    plan = archive.extend_plan(None, recordings("a.wav", "b.wav"), [1, 2])
    assert archive.changes(plan, recordings("a.wav", "b.wav"), [1, 2]) == ""
    assert archive.changes(plan, recordings("b.wav", "c.wav"), [3, 4]) == (
        "since the first call 1 recording is gone (a.wav); 1 have another size (b.wav): what was heard of them "
        "stays; 1 are new"
    )


def test_folders_and_lists(tmp_path):
    for name in ("a.wav", "deep/b.flac", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = archive.read_source(tmp_path)
    assert list(found.recordings) == ["a.wav", "deep/b.flac"]
    assert "notes.txt" in found.said
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "l.txt").write_text("# an archive\n../a.wav\n\n../deep/../a.wav\n/elsewhere/c.ogg\n")
    found = archive.read_source(lists / "l.txt")
    assert list(found.recordings) == ["../a.wav", "/elsewhere/c.ogg"]
    assert found.recordings["../a.wav"].samefile(tmp_path / "a.wav")
    assert "1 recording more than once" in found.said
    assert archive.sizes_of(found.recordings) == [0, 0]
    (lists / "l.csv").write_text("path,site\nx.wav,1\n")
    assert list(archive.read_source(lists / "l.csv").recordings) == ["x.wav"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gone", None, "gone does not exist: give a folder, or a path a line"),
        ("a.wav", "", "is neither a folder nor a list"),
        ("l.txt", "# nothing\n", "lists no recording"),
        ("l.txt", "a.wav\nnotes.pdf\n", "lists what is no recording by its ending: notes.pdf"),
        ("l.csv", "file\na.wav\n", "no column 'path'"),
    ],
)
def test_sources_that_are_none(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        archive.read_source(tmp_path / name)


def test_a_shard_is_written_whole_and_heard_once(tmp_path):
    calls = []

    def hear(clips):
        calls.append([c.clip_id for c in clips])
        return heard_of(clips, unreadable=["b.wav"])

    row = shards.hear_shard(tmp_path, 7, clips_of("b.wav", "a.wav"), hear, pause=0)
    told = {k: row[k] for k in ("shard", "recordings", "unreadable", "seconds", "events")}
    assert told == {"shard": 7, "recordings": 2, "unreadable": 1, "seconds": 60.0, "events": 1}
    assert calls == [["b.wav", "a.wav"], ["b.wav"], ["b.wav"]]  # what fails is tried three times
    assert archive.heard_shards(tmp_path) == {7}
    assert shards.hear_shard(tmp_path, 7, clips_of("b.wav", "a.wav"), hear, pause=0) == row
    assert len(calls) == 3
    table = pd.read_parquet(tmp_path / "recordings")
    assert table.filename.tolist() == ["b.wav", "a.wav"]
    assert table.unreadable.tolist() == ["damaged", ""]
    assert not list((tmp_path / shards.ATTEMPTS).iterdir())


def test_a_recording_that_is_read_at_the_second_try_counts(tmp_path):
    turns = iter([["a.wav"], []])
    row = shards.hear_shard(tmp_path, 0, clips_of("a.wav", "b.wav"), lambda clips: heard_of(clips, next(turns)), 0)
    assert (row["unreadable"], row["events"]) == (0, 2)
    assert pd.read_parquet(tmp_path / "events").filename.tolist() == ["a.wav", "b.wav"]


def test_a_shard_may_hold_more_than_is_heard_at_a_time():
    heard = joined([heard_of(clips_of("a.wav", "b.wav")), heard_of(clips_of("c.wav"), ["c.wav"])])
    assert heard.events.filename.tolist() == ["a.wav", "b.wav"]
    assert (len(heard.seconds), list(heard.unreadable.values())) == (2, ["damaged"])


def test_an_error_is_one_recordings_alone(tmp_path):
    def hear(clips):
        if any(c.clip_id == "b.wav" for c in clips):
            raise IndexError("an odd\nrecording")
        return heard_of(clips)

    row = shards.hear_shard(tmp_path, 0, clips_of("a.wav", "b.wav", "c.wav"), hear, pause=0)
    assert (row["events"], row["unreadable"]) == (2, 1)
    table = pd.read_parquet(tmp_path / "recordings").set_index("filename")
    assert table.unreadable["b.wav"] == "IndexError: an odd recording"


def test_where_everything_fails_nothing_is_written_but_where_recordings_may_be_blamed(tmp_path):
    def hear(clips):
        raise RuntimeError("the device is gone")

    with pytest.raises(shards.NothingHeard, match="none of 1 recordings: RuntimeError: the device is gone"):
        shards.hear_shard(tmp_path, 0, clips_of("a.wav"), hear, pause=0)
    assert archive.heard_shards(tmp_path) == set()
    assert shards.hear_shard(tmp_path, 0, clips_of("a.wav"), hear, pause=0, blame=True)["unreadable"] == 1


class Ended(BaseException):
    """As a process does that is killed: nothing catches it."""


def test_a_recording_at_which_processes_end_is_left_out_by_the_fifth(tmp_path):
    heard = []

    def hear(clips):
        heard.append([c.clip_id for c in clips])
        if any(c.clip_id == "b.wav" for c in clips):
            raise Ended
        return heard_of(clips)

    clips = clips_of("a.wav", "b.wav", "c.wav")
    for _ in range(4):
        with pytest.raises(Ended):
            shards.hear_shard(tmp_path, 0, clips, hear, pause=0)
    assert heard == 2 * [["a.wav", "b.wav", "c.wav"]] + 2 * [["a.wav"], ["b.wav"]]
    shards.hear_shard(tmp_path, 0, clips, hear, pause=0)
    table = pd.read_parquet(tmp_path / "recordings").set_index("filename")
    assert table.unreadable.to_dict() == {"a.wav": "", "b.wav": "the process that heard it ended, 2 times", "c.wav": ""}


@pytest.mark.parametrize("place", ["written", "half-written"])
def test_a_shard_that_was_cut_is_heard_again_and_there_once(tmp_path, place, monkeypatch):
    """The end comes between the two files: events without recordings count as nothing, and are replaced."""
    passed = []

    def reached(name, half=None):
        passed.append(name)
        if passed.count(f"{place} part-000000.parquet") == 2:  # the second: recordings
            raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(files, "reached", reached)
        with pytest.raises(Ended):
            shards.hear_shard(tmp_path, 0, clips_of("a.wav"), heard_of)
    assert archive.heard_shards(tmp_path) == set()
    assert len(pd.read_parquet(tmp_path / "events")) == 1
    shards.hear_shard(tmp_path, 0, clips_of("a.wav"), heard_of)
    assert len(pd.read_parquet(tmp_path / "events")) == len(pd.read_parquet(tmp_path / "recordings")) == 1


@pytest.mark.parametrize("folder", [archive.RECORDINGS, archive.EVENTS])
@pytest.mark.parametrize("damage", ["cut", "link", "empty"])
def test_a_shard_with_a_damaged_file_is_named_and_heard_again(tmp_path, folder, damage, caplog):
    for number in (0, 1):
        shards.hear_shard(tmp_path, number, clips_of(f"{number}.wav"), heard_of)
    path = tmp_path / folder / archive.part(1)
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    path.symlink_to(tmp_path / "gone") if damage == "link" else path.write_bytes(half if damage == "cut" else b"")
    with pytest.raises(ValueError, match=rf"{folder}/part-000001.parquet cannot be read \(.*: remove it, and the same"):
        add_up(tmp_path)
    assert archive.heard_shards(tmp_path) == {0}
    assert f"{folder}/part-000001.parquet cannot be read" in caplog.text
    shards.hear_shard(tmp_path, 1, clips_of("1.wav"), heard_of)
    assert archive.heard_shards(tmp_path) == {0, 1}
    assert add_up(tmp_path).recordings == 2


def test_shards_of_nothing_have_the_columns_of_others(tmp_path):
    shards.hear_shard(tmp_path, 0, clips_of("a.wav"), lambda clips: heard_of(clips, events=0))
    shards.hear_shard(tmp_path, 1, clips_of("b.wav"), heard_of)
    shards.hear_shard(tmp_path, 2, clips_of("c.wav"), lambda clips: heard_of(clips, ["c.wav"]), pause=0)
    events = pd.read_parquet(tmp_path / "events")
    assert list(events) == list(COLUMNS)
    assert events.onset.dtype == float
    assert np.isnan(pd.read_parquet(tmp_path / "recordings").seconds[2])


def test_totals_are_those_of_all_events_together(tmp_path, monkeypatch):
    monkeypatch.setattr("earshot.listening.archive_totals.AT_A_TIME", 2)
    tables = []
    for i in range(5):
        heard = heard_of(clips_of(f"{i}.wav", f"{i}b.wav"), [f"{i}b.wav"] if i == 3 else (), events=i)
        heard = replace(heard, notes={"/archive/2.wav": "2.wav is truncated"} if i == 2 else {})
        tables.append(heard.events)
        shards.write_shard(tmp_path, i, clips_of(f"{i}.wav", f"{i}b.wav"), heard)
    totals = add_up(tmp_path)
    assert (totals.recordings, totals.unreadable, totals.odd, totals.events) == (10, 1, 1, 17)
    assert totals.hours == pytest.approx(9 / 60)
    assert totals.bytes == sum(p.stat().st_size for p in tmp_path.glob("*/part-*.parquet"))
    assert totals.by_class == {"wren": 17}
    whole = summary_of(pd.concat([table for table in tables if len(table)]))
    told = pd.read_csv(tmp_path / "summary.csv", dtype={"hour": str}, keep_default_na=False)
    pd.testing.assert_frame_equal(told, whole, check_dtype=False)
    assert pd.read_csv(tmp_path / "unreadable.csv").filename.tolist() == ["3b.wav"]
    assert pd.read_csv(tmp_path / "odd_files.csv")[["filename", "note"]].values.tolist() == [
        ["2.wav", "2.wav is truncated"]
    ]
    lines = table_of(totals, classes=0).splitlines()
    assert [line.split()[-1] for line in lines[:5]] == ["10", "1", "1", "0.15", "17"]
    assert "and 1 more classes" in lines[-1]


def test_totals_of_shards_that_an_earlier_version_wrote(tmp_path):
    shards.write_shard(tmp_path, 0, clips_of("a.wav"), heard_of(clips_of("a.wav")))
    path = tmp_path / "recordings" / archive.part(0)
    pd.read_parquet(path).drop(columns="note").to_parquet(path, index=False)
    assert (add_up(tmp_path).recordings, add_up(tmp_path).odd) == (1, 0)


def test_totals_of_nothing(tmp_path):
    shards.write_shard(tmp_path, 0, clips_of("a.wav"), heard_of(clips_of("a.wav"), events=0))
    assert add_up(tmp_path).by_class == {}
    assert (tmp_path / "summary.csv").read_text().startswith("event_label,folder,day,hour,events,")


def options(tmp_path, **changed):
    given = {"backend": "torch", "threshold": None, "min_confidence": 0.0, "workers": 0, "gpus": 0.0, "top": 0,
             "min_seconds": None, "threads": 1, "shard_files": 32, "out": tmp_path}  # fmt: skip
    return argparse.Namespace(**given | changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"backend": "onxx"}, "--backend is 'onxx'; choose one of"),
        ({"threshold": 1.5}, "--threshold must lie in 0 ... 1"),
        ({"workers": -1}, "--workers must be 0 or more"),
        ({"shard_files": 0}, "--shard-files must be 1 or more"),
        ({"gpus": float("nan")}, "--gpus must be 0 or more"),
        ({"gpus": 1.0, "backend": "onnx"}, "--gpus goes with --backend torch"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, changed, said):
    bulk.check_options(options(tmp_path))
    with pytest.raises(ValueError, match=said):
        bulk.check_options(options(tmp_path, **changed))


def test_a_folder_has_one_kind_of_settings(tmp_path):
    bulk.check_settings(options(tmp_path), {"top": 0, "post": {"threshold": 0.5}})
    bulk.check_settings(options(tmp_path), {"top": 0, "post": {"threshold": 0.5}})
    with pytest.raises(ValueError, match="begun with other settings .top 0, now 3.: choose another --out"):
        bulk.check_settings(options(tmp_path), {"top": 3, "post": {"threshold": 0.5}})
    (tmp_path / bulk.SETTINGS).unlink()
    shards.write_shard(tmp_path, 0, clips_of("a.wav"), heard_of(clips_of("a.wav")))
    with pytest.raises(ValueError, match="holds shards and no settings.json"):
        bulk.check_settings(options(tmp_path), {"top": 0})


def play(monkeypatch, *rounds):
    """Stands for Ray: each round gives these rows; notes whether recordings may be blamed."""
    asked = []

    def hear_on_ray(left, hearing, workers):
        asked.append(([s["shard"] for s in left], hearing.blame))
        for shard, error in rounds[len(asked) - 1]:
            yield {"shard": shard, "error": error}

    monkeypatch.setattr(bulk, "hear_on_ray", hear_on_ray)
    left = [{"shard": i} for i in range(6)]
    hearing = Hearing(run="r", backend="torch", int8=False, windows=False, asked=None, out="o")
    return asked, bulk.in_rounds(left, hearing, Workers())


def test_a_shard_that_is_told_twice_counts_once(monkeypatch):
    _, rows = play(monkeypatch, [(0, ""), (1, ""), (0, ""), (2, "")])
    assert [row["shard"] for row in rows] == [0, 1, 2]


def test_odd_shards_are_tried_again_and_may_blame_their_recordings_at_last(monkeypatch):
    asked, rows = play(monkeypatch, [(0, ""), (1, "odd")], [(1, "odd")], [(1, "")])
    assert [row["shard"] for row in rows] == [0, 1]
    assert asked == [([0, 1, 2, 3, 4, 5], False), ([1], False), ([1], True)]


def test_where_no_shard_can_be_heard_it_ends_early_and_says_why(monkeypatch):
    asked, rows = play(monkeypatch, [(i, "RuntimeError: no device") for i in range(6)])
    with pytest.raises(ValueError, match="4 shards could not be heard: RuntimeError: no device; what was heard is"):
        list(rows)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: .*refused"),
        ("127.0.0.1:99999", "no Ray cluster answers at 127.0.0.1:99999"),
        ("head", "--ray head is no address: give host:port"),
    ],
)
def test_a_cluster_that_is_not_there(address, said):
    with pytest.raises(ValueError, match=said):
        check_address(address)
    check_address("auto")


def test_what_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"an archive needs ray \(.*\): pip install -r .*requirements/ray.txt"):
        need("ray", "ray", "hearing an archive")


def test_a_python_below_a_folder_with_a_space_is_one_word_to_the_shell():
    """Ray hands its path to bash as it is: no worker would ever start, and nothing would say so."""
    assert "py_executable" not in runtime_environment(Workers(), "/opt/earshot/.venv/bin/python")
    found = runtime_environment(Workers(gpus=0.5), "/home/me/ear shot/.venv/bin/python")
    assert shlex.split(found["py_executable"]) == ["/home/me/ear shot/.venv/bin/python"]
    assert "CUDA_VISIBLE_DEVICES" not in found["env_vars"]
