"""Reading CSV tables as people and programs write them: ids stay text, whatever ends lines or separates columns."""

import pytest

from earshot.tables import is_text_column, read_table

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
