"""Labels, groups and folds of one's own recordings by what their names say (--names)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.competitions.mine import prepare
from earshot.competitions.own.names import pattern_of
from own_folders import events_of
from own_folders import record as record_of


def record(folder, *names):
    record_of(folder, *names, seconds=1.0)


@pytest.mark.parametrize(
    ("template", "names", "labels", "group", "groups"),
    [
        ("{actor}_{sentence}_{label}_{level}", ("1001_DFA_ANG_XX", "1002_IEO_SAD_HI"), "ANG SAD", "actor", "1001 1002"),
        ("{who:2}{text:3}{label:1}{version}", ("03a01Fa", "08b09Wb"), "F W", "who", "03 08"),
        ("{label...}-{city}-{}-{}-{device}", ("street_traffic-oslo-1-2-a", "metro-station-lyon-3-4-b"),
         "metro-station street_traffic", "city", "lyon oslo"),
        ("{label}_id_{machine}_{}", ("normal_id_00_00000001", "abnormal_id_02_00000001"), "abnormal normal", "machine",
         "00 02"),
        ("{site}/{label} {}", ("north/wren 1", "south/robin 1"), "robin wren", "site", "north south"),
        ("{label}({}).{take}", ("crow(a).1", "rook(b).2"), "crow rook", "take", "1 2"),
    ],
)  # fmt: skip
def test_fields_of_names_are_labels_and_columns(tmp_path, template, names, labels, group, groups):
    record(tmp_path, *(f"{name}.wav" for name in names))
    tables = prepare(tmp_path, names=template, group_column=group)
    assert sorted(tables.clips.labels) == labels.split()
    assert sorted(tables.clips.group) == sorted(tables.clips[group]) == groups.split()
    assert len(tables.clips.columns) == len(set(tables.clips.columns))


def test_a_name_that_could_be_read_in_two_ways_says_nothing_and_is_named(tmp_path, said):
    record(tmp_path, "wren_1.wav", "robin_2.wav", "song_thrush_3.wav")
    clips = prepare(tmp_path, names="{label}_{take}").clips.set_index("clip_id")
    assert dict(clips.labels) == {"wren_1": "wren", "robin_2": "robin", "song_thrush_3": ""}
    assert (
        "another form than {label}_{take}, or of it in two ways, say nothing (1 of 3): song_thrush_3.wav" in said.text
    )
    whole = prepare(tmp_path, names="{label...}_{take}").clips.set_index("clip_id")
    assert whole.labels["song_thrush_3"] == "song_thrush"


def test_two_fields_that_may_hold_anything_say_what_has_one_reading(tmp_path):
    record(tmp_path, "wren_1.wav", "song_thrush_3.wav")
    labels = prepare(tmp_path, names="{label...}_{take...}").clips.set_index("clip_id").labels
    assert dict(labels) == {"wren_1": "wren", "song_thrush_3": ""}


def test_a_field_that_a_list_says_already_is_refused(tmp_path):
    record(tmp_path, "x/a_train.wav", "x/b_test.wav", "y/c_train.wav", "y/d_test.wav")
    (tmp_path / "train.txt").write_text("x/a_train.wav\ny/c_train.wav\n")
    (tmp_path / "test.txt").write_text("x/b_test.wav\ny/d_test.wav\n")
    with pytest.raises(ValueError, match="a field split, and a table, list or folder says that already"):
        prepare(tmp_path, names="{take}_{split}")


def test_names_add_groups_folds_and_splits_to_other_labels(tmp_path, said):
    record(tmp_path, "yes/ann_1_train.wav", "yes/bob_2_test.wav", "no/ann_1_train.wav", "no/cid_2_train.wav")
    tables = prepare(tmp_path, names="{speaker}_{fold}_{split}", group_column="speaker", fold_column="fold")
    assert list(tables.clips.labels) == ["no", "no", "yes"]
    assert list(tables.clips.group) == ["ann", "cid", "ann"]
    assert list(tables.clips.official_fold) == [1, 2, 1]
    assert list(tables.test_clips.labels) == ["yes"]
    assert "names say speaker: ann (2), bob (1), cid (1)" in said.text


def test_fields_stand_beside_annotations(tmp_path):
    record(tmp_path, "north_a.wav", "south_b.wav")
    for name in ("north_a", "south_b"):
        (tmp_path / f"{name}.txt").write_text("0.1\t0.5\twren\n")
    tables = prepare(tmp_path, names="{site}_{}", group_column="site")
    assert list(tables.clips.group) == ["north", "south"]
    assert events_of(tables) == [["north_a", 0.1, 0.5, "wren"], ["south_b", 0.1, 0.5, "wren"]]


def test_lists_of_a_split_hold_for_labels_by_name_too_and_another_field_may_be_the_label(tmp_path):
    record(tmp_path, "a_x.wav", "b_y.wav", "c_x.wav", "d_y.wav")
    (tmp_path / "test_list.txt").write_text("c_x.wav\nd_y.wav\n")
    tables = prepare(tmp_path, names="{take}_{sound}", label_column="sound")
    assert list(tables.clips.labels) == list(tables.test_clips.labels) == ["x", "y"]


def test_several_labels_in_a_name(tmp_path):
    record(tmp_path, "wren+robin_1.wav", "wren_2.wav")
    tables = prepare(tmp_path, names="{label}_{}", label_separator="+")
    assert list(tables.clips.labels) == ["robin wren", "wren"]


@pytest.mark.parametrize(
    ("template", "told", "message"),
    [
        ("label_take", {}, "names no field"),
        ("{label}{take}", {}, "nothing between {label} and {take}"),
        ("{label}_{label}", {}, "has label twice"),
        ("{label}_{path}", {}, "path is a column of our own"),
        ("{label...}{take}", {}, "nothing between {label...} and {take}"),
        ("{label_{take}", {}, "a brace that is no field's"),
        ("{label}_{call-type}", {}, "a brace that is no field's"),
        ("{1}_{label}", {}, "1 is no name of a column"),
        (
            "{label}-{take}",
            {},
            "in one way alone; without their endings they are robin_2",
        ),
        ("{label}_{}", {"table": "t.csv"}, "--table would say nothing"),
        ("{label}_{}", {"tier": "birds"}, "--tier would say nothing"),
    ],
)
def test_a_template_that_cannot_be_is_refused(tmp_path, template, told, message):
    record(tmp_path, "wren_1.wav", "robin_2.wav")
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare(tmp_path, names=template, **told)


def test_a_field_called_as_a_column_of_the_table_is_refused(tmp_path):
    record(tmp_path, "a_1.wav", "b_2.wav")
    (tmp_path / "labels.csv").write_text("file,label,site\na_1.wav,x,n\nb_2.wav,y,s\n")
    with pytest.raises(ValueError, match="a field site, and a table, list or folder says that already"):
        prepare(tmp_path, names="{site}_{}")


@given(st.lists(st.text("ab1 .-", min_size=1, max_size=5), min_size=1, max_size=5))
def test_what_is_joined_by_a_text_that_no_field_holds_is_parted_again(values):
    template = "__".join(f"{{f{i}}}" for i in range(len(values)))
    assert list(pattern_of(template).fullmatch("__".join(values)).groups()) == values
