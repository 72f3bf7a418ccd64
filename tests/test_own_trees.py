"""Annotations that are no tables: ELAN's XML, AOEF of whombat, JAMS of scaper."""

import json

import pytest

from earshot.annotations.reading import kind_of, read_annotations
from earshot.competitions.mine import prepare
from own_folders import record

SLOTS = '<TIME_SLOT TIME_SLOT_ID="s1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="s2" TIME_VALUE="1200"/>'


def eaf(*tiers, units="milliseconds"):
    """A file of ELAN with a tier a name; all have one annotation, 'wren', and one without a time."""
    value = "<ANNOTATION_VALUE>wren</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
    note = '<ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="s1" TIME_SLOT_REF2="{}">' + value
    inside = "".join(f'<TIER TIER_ID="{name}">{note.format("s2")}{note.format("s3")}</TIER>' for name in tiers)
    head = f'<?xml version="1.0" encoding="UTF-8"?><ANNOTATION_DOCUMENT><HEADER TIME_UNITS="{units}"/>'
    return f'{head}<TIME_ORDER>{SLOTS}<TIME_SLOT TIME_SLOT_ID="s3"/></TIME_ORDER>{inside}</ANNOTATION_DOCUMENT>'


def aoef(**more):
    """Two recordings of 8 s: in the first a box of two tags, in a clip of the second nothing."""
    data = {
        "collection_type": "annotation_set",
        "recordings": [{"uuid": f"r{i}", "path": f"{name}.wav", "duration": 8.0} for i, name in enumerate("ab")],
        "clips": [{"uuid": f"c{i}", "recording": f"r{i}", "start_time": 0, "end_time": 8 - 2 * i} for i in (0, 1)],
        "tags": [{"id": 0, "key": "species", "value": "wren"}, {"id": 1, "key": "sex", "value": "m"}],
        "sound_events": [
            {"uuid": "s", "recording": "r0", "geometry": {"type": "BoundingBox", "coordinates": [1, 900, 2.5, 3000]}},
            {"uuid": "t", "recording": "r0", "geometry": {"type": "Polygon", "coordinates": [[[3, 9], [4, 8]]]}},
        ],
        "sound_event_annotations": [
            {"uuid": "e", "sound_event": "s", "tags": [0, 1]}, {"uuid": "f", "sound_event": "t", "tags": [0]}
        ],
        "clip_annotations": [{"clip": "c0", "sound_events": ["e", "f"]}, {"clip": "c1"}],
    }  # fmt: skip
    return json.dumps({"version": "1.1.0", "data": data | more})


def test_a_tier_of_elan(tmp_path, caplog):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.eaf").write_text(eaf("calls"))
    tables = prepare(tmp_path)
    assert tables.events.values.tolist() == [["a", 0.5, 1.2, "wren"]]
    assert tables.clips.annotated.tolist() == [1, 0]
    assert "1 annotations have no time of their own" in caplog.text
    (tmp_path / "a.eaf").write_text(eaf("calls", "notes"))
    with pytest.raises(ValueError, match="2 tiers of intervals, calls, notes: .* --tier NAME"):
        prepare(tmp_path)
    assert len(prepare(tmp_path, tier="notes").events) == 1


def test_annotations_of_whombat(tmp_path, caplog):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "set.json").write_text(aoef())
    assert kind_of(tmp_path / "set.json") == "aoef"
    tables = prepare(tmp_path)
    assert tables.events.values.tolist() == [["a", 1, 2.5, "wren"], ["a", 3, 4, "wren"]]
    assert tables.clips.annotated.tolist() == [1, 1]
    assert "of 1 recordings only clips were annotated" in caplog.text
    assert prepare(tmp_path, label_column="sex").events.event_label.tolist() == ["m"]


@pytest.mark.parametrize(
    ("more", "labels", "silent"),
    [
        ({"clip_annotations": [{"clip": "c0", "tags": [0]}, {"clip": "c1", "tags": [0]}]}, [None, 0], ()),
        ({"annotation_tasks": [{"clip": "c1", "status_badges": [{"state": "assigned"}]}]}, [1, 3], ()),
        ({"annotation_tasks": [{"clip": "c1", "status_badges": [{"state": "completed"}]}]}, [1, 3], ("b.wav",)),
    ],
)
def test_tags_of_clips_and_tasks_that_nobody_has_done(tmp_path, more, labels, silent):
    (tmp_path / "set.json").write_text(aoef(**more))
    found = read_annotations(tmp_path / "set.json")
    assert [None if onset != onset else onset for onset in found.events.onset] == labels
    assert found.silent == silent


def test_a_list_of_recordings_with_tags(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    recordings = [{"uuid": n, "path": f"{n}.wav", "tags": [i]} for i, n in enumerate("ab")]
    tags = [{"id": i, "key": "dwc:order", "value": name} for i, name in enumerate(("bat", "bird"))]
    data = {"collection_type": "dataset", "recordings": recordings, "tags": tags}
    (tmp_path / "set.json").write_text(json.dumps({"data": data}))
    assert prepare(tmp_path).clips.labels.tolist() == ["bat", "bird"]


def test_soundscapes_of_scaper(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    noise = {"time": 0.0, "duration": 8.0, "value": {"role": "background", "label": "noise"}, "confidence": 1.0}
    event = {"time": 1.25, "duration": 0.5, "value": {"role": "foreground", "label": "siren"}, "confidence": None}
    tag = {"namespace": "tag_open", "data": {"time": [0.0], "duration": [8.0], "value": ["street"], "confidence": [1]}}
    held = {"annotations": [{"namespace": "scaper", "data": [noise, event]}, tag], "sandbox": {}}
    (tmp_path / "a.jams").write_text(json.dumps(held))
    (tmp_path / "a.txt").write_text("1.250000\t1.750000\tsiren\n")  # the same as a track, which counts once
    tables = prepare(tmp_path)
    assert tables.events.values.tolist() == [["a", 1.25, 1.75, "siren"]]
    assert tables.clips.labels.tolist() == ["siren street", ""]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.eaf", "<ANNOTATION_DOC", "no ELAN file that can be read"),
        ("a.eaf", eaf("calls", units="PAL-frames"), "no ELAN file in milliseconds"),
        ("a.eaf", eaf(), "no tier of intervals"),
        ("a.json", aoef(collection_type="model_run"), "no AOEF file of annotations, but of model_run"),
        ("a.json", aoef(clips=[]), "no whole AOEF file: KeyError 'c0'"),
        ("a.json", aoef(recordings=[{"uuid": "r0", "path": "a.wav", "time_expansion": 10}]), "time_expansion of a.wav"),
        ("a.jams", '{"annotations": [{"data": [{"value": {"x": 1}}]}]}', "no JAMS file of sounds: KeyError 'label'"),
    ],
)
def test_files_that_are_damaged_or_of_something_else(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotations(tmp_path / name)
