"""Task 1 of 2024: five outputs of one system and one meta file; 2025: a quarter of the clips, and devices."""

import pandas as pd
import pytest
import yaml

import prepare
import submit
from earshot.competitions import dcase_task1, get_competition
from earshot.competitions.dcase_parts import with_other_parts
from earshot.tables import read_table
from scripts import run
from test_dcase_task1 import download, names, predictions

LABEL = "Muster_TUX_task1_1"
SCORES = [[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.1, 0.1, 0.8]]


def split_lists(folder):
    (folder / "split_setup").mkdir()
    for share in dcase_task1.SUBSETS:
        some = pd.DataFrame({"filename": names()[0::4] + names()[1::4][: share // 40]})
        some.to_csv(folder / f"split_setup/split{share}.csv", sep="\t", index=False)


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Options of submit.py for predictions of the prepared smallest split."""
    monkeypatch.chdir(tmp_path)
    split_lists(download(tmp_path / "download"))
    run(prepare, "dcase2024_task1", "--source", "download", "--set", "subset=5", "--out", "data/tau_5")
    predictions(read_table("data/tau_5/test.csv").clip_id, SCORES).save("test.npz")
    return ["--competition", "dcase2024_task1", "--test", "data/tau_5/test.csv"]


def submitted(arguments, part, label=LABEL, out=None):
    own = ("--predictions", "test.npz", "--out", out or f"submissions/{part or 'x'}.csv", "--label", label)
    run(submit, *arguments, *own, *(("--part", part) if part else ()))


def test_five_outputs_lie_beside_one_meta_file(arguments, tmp_path, capsys):
    folder = tmp_path / "submissions" / LABEL
    for part in ("split_5", "split_25", "split_10", "split_50"):
        submitted(arguments, part)
    meta = folder / f"{LABEL}.meta.yaml"
    meta.write_text(meta.read_text().replace("'FILL IN: lastname'", "Muster"))
    with pytest.raises(ValueError, match=f"{LABEL}: 1 of 5 outputs are missing: split_100"):
        run(submit, *arguments, "--check", folder)
    submitted(arguments, "split_100")
    assert {p.name for p in folder.iterdir()} == {
        meta.name, *(f"{LABEL}.output.split_{share}.csv" for share in (5, 10, 25, 50, 100))
    }  # fmt: skip
    assert "lastname: Muster" in meta.read_text()
    capsys.readouterr()
    with pytest.raises(ValueError, match="values say FILL IN") as error:
        run(submit, *arguments, "--check", folder)
    assert "missing" not in str(error.value)
    assert capsys.readouterr().out.count("3 rows, valid for dcase2024_task1") == 5
    predictions(read_table("data/tau_5/test.csv").clip_id, SCORES[::-1]).save("test.npz")
    with pytest.raises(ValueError, match=f"{LABEL} exists already"):
        submitted(arguments, "split_5", out="submissions/other.csv")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("", "hands in 5 outputs, split_5, split_10, split_25, split_50, split_100: say which one this is"),
        ("split_7", "'split_7' is none of them"),
    ],
)
def test_which_output_it_is_must_be_said(arguments, part, said):
    with pytest.raises(ValueError, match=said):
        submitted(arguments, part)


def test_a_system_of_one_output_has_no_parts(arguments):
    single = [a.replace("dcase2024_task1", "dcase2023_task1") for a in arguments]
    (read_table("data/tau_5/test.csv")).to_csv("test.csv", index=False)
    with pytest.raises(ValueError, match="has one output: leave it out"):
        submitted([*single[:-1], "test.csv", "--classes", "data/tau_5/classes.csv"], "split_5")


def test_results_are_those_of_the_largest_split_and_of_each(tmp_path):
    challenge, meta = get_competition("dcase2024_task1").challenge, f"{LABEL}.meta.yaml"

    def text(accuracy):
        return yaml.safe_dump({"results": {"development_dataset": {"overall": {"accuracy": accuracy}}}})

    (tmp_path / meta).write_text(with_other_parts({meta: text(56.0)}, tmp_path, challenge, LABEL, "split_100")[meta])
    found = yaml.safe_load(with_other_parts({meta: text(42.0)}, tmp_path, challenge, LABEL, "split_5")[meta])
    assert found["results"]["development_dataset"] == {
        "overall": {"accuracy": 56.0},
        "split_5": {"overall": {"accuracy": 42.0}},
        "split_100": {"overall": {"accuracy": 56.0}},
    }


def test_2025_trains_on_a_quarter_and_knows_the_devices_of_the_evaluation_set(tmp_path):
    split_lists(download(tmp_path / "dev"))
    (tmp_path / "eval/evaluation_setup").mkdir(parents=True)
    listed = pd.DataFrame({"filename": ["audio/0.wav", "audio/1.wav"], "device_id": ["s1", "unknown"]})
    listed.to_csv(tmp_path / "eval/evaluation_setup/fold1_test.csv", sep="\t", index=False)
    competition = get_competition("dcase2025_task1")
    tables = competition.prepare(tmp_path / "dev", evaluation=str(tmp_path / "eval"))
    assert (tables.clips.official_fold == -1).sum() == 3  # split25.csv
    assert tables.test_clips.device.tolist() == ["s1", "unknown"]
    assert competition.challenge.parts == ()
