"""Reading CSV tables as people and programs write them: ids stay text, whatever ends lines or separates columns."""

import pandas as pd
import pytest

from earshot import tables
from earshot.competitions.tables import classes_of_sample
from earshot.tables import is_text_column, read_table, with_numbers

ODD = ["007", "1e5", "163e86660", "NA", "nan", "True", "1.0", "0x1F", "-0", "inf"]


@pytest.mark.parametrize("column", ["clip_id", "recording_id", "freesound_id", "id", "ebird_code", "common_name",
                                    "wav file", "author", "recordist", "FileName", "session_label"])  # fmt: skip
def test_ids_of_any_column_stay_text(tmp_path, column):
    path = tmp_path / "t.csv"
    path.write_text(f"{column},value\n" + "".join(f"{name},1\n" for name in ODD))
    table = read_table(path)
    assert table[column].tolist() == ODD
    assert table.value.tolist() == [1] * len(ODD)


def test_numbers_stay_numbers():
    for column in ("duration", "onset", "latitude", "fold", "mid", "valid", "tide", "target", "Accordion"):
        assert not is_text_column(column)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("ending", "separator"), [("csv", ","), ("tsv", "\t"), ("csv", "\t"), ("csv", ";"), ("TSV", "\t")]
)
def test_every_way_to_write_a_table(tmp_path, end, mark, ending, separator):
    path = tmp_path / f"t.{ending}"
    lines = [
        separator.join((" filename", '"value" ')),
        separator.join(('"a b.wav"', "1.5")),
        separator.join(("007", "")),
    ]
    path.write_bytes((mark + end.join(lines) + end).encode())
    table = read_table(path, ("filename", "value"))
    assert table.filename.tolist() == ["a b.wav", "007"]
    assert table.value[0] == 1.5
    assert table.value.isna().tolist() == [False, True]


def test_texts_among_numbers_are_named_with_their_row():
    table = pd.DataFrame({"a": ["1", "2.5"], "b": ["1", ""], "c": [1, 2]})
    assert with_numbers(table, ("a", "c"), "t.csv").a.tolist() == [1.0, 2.5]
    assert with_numbers(table, ("c",), "t.csv").c.dtype == table.c.dtype, "whole numbers stay whole"
    with pytest.raises(ValueError, match=r"t.csv: column 'b' holds '' in row 2, expected a number \(1 of 2 rows\)"):
        with_numbers(table, ("a", "b"), "t.csv")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda s: s.reset_index(), "first column is 'index', expected 'row_id'"),
        (lambda s: s.assign(Usage="Public"), "column 'Usage' holds no probabilities"),
        (lambda s: s.assign(n=[3, 4]), "column 'n' holds no probabilities"),
        (lambda s: s.assign(**{"Unnamed: 3": 0}), "'Unnamed: 3'"),
        (lambda s: pd.concat([s, s]), "2 row_id come twice"),
    ],
)
def test_what_was_added_to_a_sample_submission_is_no_class(changed, message):
    sample = pd.DataFrame({"row_id": ["x_5", "x_10"], "Red fox": [0.5, 0.5], "wren": [0, 1]})
    assert classes_of_sample(sample, "row_id", "s.csv") == ["Red_fox", "wren"]
    assert classes_of_sample(sample.iloc[:0], "row_id", "s.csv") == ["Red_fox", "wren"]
    with pytest.raises(ValueError, match=message):
        classes_of_sample(changed(sample), "row_id", "s.csv")


TALL = {
    "texts and numbers": "clip_id,label,value\n" + "".join(f"c{i:03d},{'ab'[i % 2]},{i}\n" for i in range(23)),
    "texts below numbers": "clip_id,value\n" + "".join(f"c{i},{i}\n" for i in range(20)) + "c20,x\n",
    "fractions below whole numbers": "clip_id,value\n" + "".join(f"c{i},{i}\n" for i in range(20)) + "c20,0.5\n",
    "nothing below truth": "clip_id,value\n" + "".join(f"c{i},True\n" for i in range(20)) + "c20,\n",
    "beyond signed numbers": f"clip_id,value\n1,1\n2,2\n3,3\n4,4\n5,{2**63 + 7}\n",
    "empty lines": "clip_id,value\n" + "a,1\n\n" * 9,
    "ends within a row": "clip_id,value,more\n" + "a,1\n" * 9 + "a,1,2\n",
    "lines in quotes": "clip_id,value\n" + '"a\nb",2\n' * 9,
    "no row": "clip_id,value\n",
}


@pytest.mark.parametrize("text", TALL.values(), ids=TALL)
def test_a_table_read_in_parts_is_the_one_read_at_once(tmp_path, monkeypatch, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    at_once = read_table(path)
    monkeypatch.setattr(tables, "PART", 4)
    pd.testing.assert_frame_equal(read_table(path), at_once)


@pytest.mark.parametrize("row", ["a,1,2", '"a,1'])
def test_a_row_that_is_none_is_named_however_far_down(tmp_path, monkeypatch, row):
    path = tmp_path / "t.csv"
    path.write_text("clip_id,value\n" + "a,1\n" * 30 + f"{row}\n")
    with pytest.raises(ValueError, match="is not a CSV table") as at_once:
        read_table(path)
    monkeypatch.setattr(tables, "PART", 4)
    with pytest.raises(ValueError, match="is not a CSV table") as in_parts:
        read_table(path)
    assert str(in_parts.value) == str(at_once.value)


def test_a_table_that_is_not_there_is_missed_beside_a_few_of_its_folder(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02d}_of_many.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"xyz.csv does not exist; known: 00_of.*, 07_of_many.csv, ... \(22 mo"):
        read_table(tmp_path / "xyz.csv")
    with pytest.raises(ValueError, match=r"07_of_man.csv does not exist; did you mean '07_of_many.csv'\?$"):
        read_table(tmp_path / "07_of_man.csv")
