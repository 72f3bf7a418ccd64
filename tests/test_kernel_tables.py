"""Hidden tests whose table is damaged, or differs from the folder: which rows are answered, and what is heard."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from earshot.competitions import get_competition
from earshot.events import PostProcess
from earshot.kernel.answers import KernelBlend
from earshot.kernel.hidden_test import find_test, get_rules
from earshot.kernel.runner import write_submission
from earshot.tables import read_table
from fuzz_folders import RULES, classes_of

STEMS = ("1_SNE_20200101", "2_COL_20200102", "3_SSW_20200103")


@pytest.fixture(params=list(RULES))
def hidden(request, tmp_path):
    """(competition, folder of three recordings of 10 s, its right table)."""
    competition = request.param
    rules = get_rules(competition)
    folder = tmp_path / rules.folder
    folder.mkdir()
    for stem in STEMS:
        soundfile.write(folder / f"{stem}.wav", 0.1 * np.ones(10000), 1000)
    table = rules.make([(rules.clip_id(s), 10.0) for s in STEMS], classes_of(competition), tmp_path)
    return competition, folder, table


def answered(hidden, table: pd.DataFrame | str):
    """The test beside this table, and the names of the rows of a submission that the competition takes for it."""
    competition, folder, _ = hidden
    rules, classes = get_rules(competition), classes_of(competition)
    path = folder.parent / rules.table
    if isinstance(table, str):
        path.write_text(table)
    else:
        table.to_csv(path, index=False)
    test = find_test(competition, folder, classes)
    found = KernelBlend(test, classes, np.full(len(classes), 0.1)).fallback()
    out = folder.parent / "submission.csv"
    write_submission(get_competition(competition), test, found, PostProcess(), out)
    return test, read_table(out)[rules.key].astype(str).tolist()


def heard(test) -> set[str]:
    return {clip.path.stem for clip in test.clips if clip.clip_id not in test.problems}


def names_of(hidden) -> list[str]:
    return hidden[2][get_rules(hidden[0]).key].tolist()


def test_rows_that_come_twice_or_have_no_name_are_answered_once(hidden):
    table, key = hidden[2], get_rules(hidden[0]).key
    blank = table.iloc[:1].assign(**{key: ""})
    test, names = answered(hidden, pd.concat([table.iloc[::-1], table.iloc[1:3], blank]))
    assert names == names_of(hidden)[::-1], "the table's rows, in its order"
    assert heard(test) == set(STEMS)
    assert any("come again" in note for note in test.notes)
    assert any(f"1 rows have no {key}" in note for note in test.notes)


def test_recordings_that_the_table_names_otherwise_are_heard(hidden):
    competition, folder, table = hidden
    rules = get_rules(competition)
    if len(table.columns) > 1 or competition in ("birdclef2021", "birdclef2022"):
        column = next(c for c in table.columns if c in ("audio_id", "file_id"))
        old, new = table[column], "test/" + table[column].str.lower() + ".OGG"
        if competition == "birdclef2021":  # no place for an ending within the names of its rows
            column, old, new = "site", table.site, table.site.str.lower()
        table = table.assign(**{column: new})
        table[rules.key] = [k.replace(a, b) for k, a, b in zip(table[rules.key], old, new, strict=True)]
    elif rules.key == "row_id":
        table = pd.DataFrame({"row_id": table.row_id.str.replace(r"_(\d+)$", r".ogg_\1", regex=True)})
    else:
        table = pd.DataFrame({rules.key: [f"{Path(name).stem}.flac" for name in table[rules.key]]})
    test, names = answered((competition, folder, table), table)
    assert names == table[rules.key].tolist(), "as the table spells them"
    assert heard(test) == set(STEMS)
    assert not test.unheard


def test_recordings_that_are_not_there_keep_their_rows(hidden):
    _, folder, table = hidden
    (folder / f"{STEMS[1]}.wav").unlink()
    test, names = answered(hidden, table)
    assert names == names_of(hidden)
    assert heard(test) == {STEMS[0], STEMS[2]}
    assert any("1 recordings of" in note and "are not there" in note for note in test.notes)


def test_the_names_of_rows_count_where_other_columns_are_lost_or_wrong(hidden):
    competition, _, table = hidden
    key = get_rules(competition).key
    for damaged in (table[[key]], table.assign(Usage="Public"), table.iloc[:, ::-1]):
        test, names = answered(hidden, damaged)
        assert names == names_of(hidden)
        assert heard(test) == set(STEMS)
    for column in set(table.columns) & {"audio_id", "file_id", "site", "bird"}:
        _, names = answered(hidden, table.assign(**{column: "x"}))
        assert names == names_of(hidden)


def test_an_empty_table_or_none_leaves_the_rows_of_the_recordings(hidden):
    for text in ("", ",".join(hidden[2].columns) + "\n", "\x00\x01\x02"):
        test, names = answered(hidden, text)
        assert names == names_of(hidden)
        assert heard(test) == set(STEMS)


def test_a_table_of_other_recordings(hidden):
    """A sample is that of the download then; a test table is what is scored, and nothing of it can be heard."""
    competition, folder, _ = hidden
    rules = get_rules(competition)
    other = rules.make([(rules.clip_id("9_SNE_20210101"), 10.0)], classes_of(competition), folder.parent)
    test, names = answered(hidden, other)
    assert names == (names_of(hidden) if rules.sample else other[rules.key].tolist())
    assert test.unheard == (not rules.sample)


@pytest.mark.parametrize("competition", ["birdclef2026", "birdclef2021", "birdcall"])
def test_rows_that_a_hidden_table_lacks(competition, tmp_path):
    rules = get_rules(competition)
    (folder := tmp_path / rules.folder).mkdir()
    for stem in STEMS:
        soundfile.write(folder / f"{stem}.wav", np.zeros(60000), 1000)
    table = rules.make([(rules.clip_id(s), 60.0) for s in STEMS], classes_of(competition), tmp_path)
    lacking = table.drop(index=[4, 20])
    test, names = answered((competition, folder, table), lacking)
    added = table[rules.key][[4, 20]].tolist() if rules.sample else []  # a sample may be older than the test
    assert names == lacking[rules.key].tolist() + added
    assert heard(test) == set(STEMS)
    if rules.sample:
        _, names = answered((competition, folder, table), table.iloc[:3])
        assert names == table[rules.key].tolist(), "that of the download, which names the first rows"


def test_an_index_in_front_of_a_sample_is_no_column(tmp_path):
    rules = get_rules("birdclef2026")
    (folder := tmp_path / rules.folder).mkdir()
    pd.DataFrame({"row_id": ["x_5"], "high": [0.5], "other": 0.5}).to_csv(tmp_path / rules.table)
    assert find_test("birdclef2026", folder, ("high",)).columns == ("row_id", "high", "other")


def test_recordings_of_which_none_can_be_read_are_said(tmp_path):
    """A commit has no recordings, which is no failure; a hidden test of empty files is one."""
    (folder := tmp_path / get_rules("birdclef2026").folder).mkdir()
    assert not find_test("birdclef2026", folder, ("high",)).unheard
    (folder / "a.ogg").write_bytes(b"")
    assert find_test("birdclef2026", folder, ("high",)).unheard
    soundfile.write(folder / "b.wav", np.zeros(5000), 1000)
    assert not find_test("birdclef2026", folder, ("high",)).unheard
