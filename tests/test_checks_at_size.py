"""Writers and checks of submissions: as many rows, as much work; and the text of wide tables is that of pandas."""

import time

import numpy as np
import pandas as pd
import pytest

import fuzz_folders
from earshot.competitions import birdclef_rows, get_competition
from earshot.competitions.number_text import is_number_table
from earshot.competitions.tables import write_checked, write_csv
from earshot.kernel.answers import KernelBlend
from earshot.kernel.hidden_test import KernelTest, all_rules
from earshot.prediction.predictions import Clip
from earshot.tables import read_table

GROWTH = 8  # times the recordings; a check that looks at all rows for each row takes 64 times as long
ALLOWED = 24  # times as long: caches and the collector make linear work grow a little faster than the rows


def work(competition: str, n: int, tmp_path) -> float:
    """CPU seconds of rows, writing and checking for `n` recordings of a minute; the least of three."""
    rules, record = all_rules()[competition], get_competition(competition)
    classes = fuzz_folders.classes_of(competition)
    names = [rules.clip_id(f"rec{i}_site") for i in range(n)]
    table = rules.make([(name, 60.0) for name in names], classes, tmp_path)
    test = KernelTest(
        table=table, clips=tuple(Clip(name, tmp_path / name) for name in names), seconds=np.full(n, 60.0), problems={}
    )
    prior = np.full(len(classes), 0.1, np.float32)
    times = []
    for _ in range(3):
        began = time.process_time()
        found = KernelBlend(test, classes, prior).fallback()
        made = record.rows(found, test.table, None)
        write_checked(made, tmp_path / "s.csv", lambda written: record.validate(written, test.table, list(classes)))
        times.append(time.process_time() - began)
    return min(times)


QUICK = ("birdclef2023", "freesound2019", "rfcx", "synth")  # the others are tried in the slow part


@pytest.mark.parametrize(
    "competition", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in all_rules()]
)
def test_work_grows_as_the_rows_do(competition, tmp_path):
    few = work(competition, 30, tmp_path)
    many = work(competition, 30 * GROWTH, tmp_path)
    assert many < ALLOWED * few, f"{GROWTH} times the recordings took {many / few:.0f} times as long"


class Counted(pd.Series):
    """A column that counts how often it is gone through."""

    walks = 0

    def __iter__(self):
        Counted.walks += 1
        return super().__iter__()


def test_the_test_table_is_gone_through_once_whatever_its_length():
    names = [f"r{i}_{end}" for i in range(50) for end in (5, 10)]
    Counted.walks = 0
    assert birdclef_rows.off_grid(pd.Series([*names, "r0_7"]), Counted(names)) == [
        "1 row_id do not end on a multiple of 5 s: r0_7"
    ]
    assert Counted.walks == 1


def test_rows_are_found_for_each_recording_whatever_their_order(tmp_path):
    """Rows of recordings mixed up: each gets its own frames."""
    classes, names = ("a", "b"), ["x", "y"]
    table = pd.DataFrame({"row_id": ["y_10", "x_5", "y_5", "x_10"]})
    test = KernelTest(
        table=table, clips=tuple(Clip(n, tmp_path / n) for n in names), seconds=np.full(2, 10.0), problems={}
    )
    blend = KernelBlend(test, classes, np.zeros(2))
    found = blend.fallback()
    frames = tuple(np.stack([np.r_[np.full(6, v), np.full(4, v + 0.1)]] * 2, axis=1) for v in (0.1, 0.5))
    object.__setattr__(found, "framewise_output", frames)
    rows = birdclef_rows.rows(found, table)
    np.testing.assert_allclose(rows.a, [0.6, 0.1, 0.5, 0.2])


NAMES = ["plain", "com,ma", 'quo"te', "new\nline", "", "ünï", " padded ", "tab\there", "7"]


def test_the_text_of_a_wide_table_is_that_of_pandas(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((len(NAMES), 12)) * 10.0 ** rng.integers(-300, 300, (len(NAMES), 12))
    values[0, :4] = 0.0, -0.0, 1.0, 1e22
    values[3] = values[2]
    table = pd.concat([pd.DataFrame({"row_id": NAMES}), pd.DataFrame(values).add_prefix("c,")], axis=1)
    assert is_number_table(table)
    write_csv(table, tmp_path / "fast.csv")
    table.to_csv(tmp_path / "pandas.csv", index=False, lineterminator="\n")
    fast, slow = (read_table(tmp_path / f"{name}.csv") for name in ("fast", "pandas"))
    pd.testing.assert_frame_equal(fast, slow, check_exact=True)
    exact = pd.read_csv(
        tmp_path / "fast.csv", dtype={"row_id": str}, keep_default_na=False, float_precision="round_trip"
    )
    pd.testing.assert_frame_equal(exact, table, check_exact=True)
    plain = table.drop(index=[1, 2, 3, 7]).rename(columns=lambda c: c.replace(",", ""))
    write_csv(plain, tmp_path / "fast.csv")
    plain.to_csv(tmp_path / "pandas.csv", index=False, lineterminator="\n")
    assert (tmp_path / "fast.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()


def test_tables_that_are_not_wide_numbers_are_left_to_pandas():
    wide = pd.DataFrame({"row_id": ["a", "b"]} | {f"c{i}": [0.1, 0.2] for i in range(9)})
    assert is_number_table(wide)
    assert not is_number_table(wide.iloc[:0])
    assert not is_number_table(wide.iloc[:, :5])
    assert not is_number_table(wide.assign(c3=["x", "y"]))
    assert not is_number_table(wide.assign(c3=[0.1, np.nan]))
    assert not is_number_table(wide.astype({"c3": np.float32}))


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("earshot.competitions.tables.write_number_table", full)
    wide = pd.DataFrame({"row_id": ["a", "b"]} | {f"c{i}": [0.1, 0.2] for i in range(9)})
    with pytest.raises(OSError, match="(?i)no space left"):
        write_csv(wide, tmp_path / "s.csv")
    assert list(tmp_path.iterdir()) == []
