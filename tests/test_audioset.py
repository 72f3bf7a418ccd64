"""AudioSet: the published lists, audio as files or HDF5, missing clips, the official split, a run from end to end."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import make_folds
import prepare
import train
from earshot.competitions import audioset, get_competition
from earshot.data.labels import read_clips
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from scripts import run

RATE = 8000
LABELS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/m/04rlf,"Music"\n'
HEAD = "# Segments csv\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
LISTS = {
    "balanced_train": ["--PJHxphWEs", "-0RWZT-miFs"],
    "unbalanced_train": ["---1_cCGK4M", "Y0aBcDeFgHi"],
    "eval": ["-0xzrMun0Rs", "007PrFhzWq8"],
}
MIDS = {"-0RWZT-miFs": "/m/09x0r,/m/05zppz", "Y0aBcDeFgHi": "/m/04rlf"}


def write_lists(folder: Path, lists=None, mids=MIDS, **changes):
    """The four tables; `changes`: other text for one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "class_labels_indices.csv").write_text(changes.get("labels", LABELS))
    for name, ids in (lists or LISTS).items():
        lines = "".join(f'{i}, 30.000, 40.000, "{mids.get(i, "/m/09x0r")}"\n' for i in ids)
        (folder / f"{name}_segments.csv").write_text(changes.get(name, HEAD + lines))


def touch(*paths: Path):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_hdf5(path: Path, names: list[str], waveform: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["audio_name"] = np.array(names, "S20")
        file["waveform"] = waveform
        file["target"] = np.zeros((len(names), 3), bool)
        file.attrs["sample_rate"] = np.int32(RATE)


def test_the_published_lists_and_several_layouts(tmp_path):
    write_lists(tmp_path / "metadata")
    audios = tmp_path / "audios"
    touch(
        audios / "balanced_train_segments/Y--PJHxphWEs.wav",
        audios / "balanced_train_segments/-0RWZT-miFs_30.000_40.000.flac",
        audios / "unbalanced_train_segments/unbalanced_train_segments_part00/Y---1_cCGK4M.wav",
        audios / "unbalanced_train_segments/Y0aBcDeFgHi.m4a",  # a format that libsndfile cannot read
        audios / "eval_segments/007PrFhzWq8.ogg",
        audios / "eval_segments/Ysomebodyelse.wav",
    )
    tables = audioset.prepare(tmp_path)
    clips = tables.clips.set_index("clip_id")
    assert clips.path.to_dict() == {
        "--PJHxphWEs": "audios/balanced_train_segments/Y--PJHxphWEs.wav",
        "-0RWZT-miFs": "audios/balanced_train_segments/-0RWZT-miFs_30.000_40.000.flac",
        "---1_cCGK4M": "audios/unbalanced_train_segments/unbalanced_train_segments_part00/Y---1_cCGK4M.wav",
        "007PrFhzWq8": "audios/eval_segments/007PrFhzWq8.ogg",
    }
    assert clips.labels["-0RWZT-miFs"] == "Speech Male_speech,_man_speaking"
    assert clips.official_fold.to_dict() == {
        "--PJHxphWEs": -1, "-0RWZT-miFs": -1, "---1_cCGK4M": -1, "007PrFhzWq8": 0,
    }  # fmt: skip
    assert sorted(tables.missing) == [
        ("-0xzrMun0Rs", "audios/eval_segments/Y-0xzrMun0Rs.wav"),
        ("Y0aBcDeFgHi", "audios/unbalanced_train_segments/YY0aBcDeFgHi.wav"),
    ]
    assert tables.classes == ["Speech", "Male_speech,_man_speaking", "Music"]
    assert tables.class_columns.mid.tolist() == ["/m/09x0r", "/m/05zppz", "/m/04rlf"]
    assert set(get_competition("audioset_balanced").prepare(tmp_path).clips.part) == {"balanced", "eval"}


def test_hdf5_rows_and_files_side_by_side(tmp_path):
    write_lists(tmp_path)
    write_hdf5(tmp_path / "hdf5s/eval.h5", ["Y-0xzrMun0Rs.wav", "Y007PrFhzWq8.wav"], np.zeros((2, 80), np.int16))
    write_hdf5(tmp_path / "hdf5s/unbalanced_train/part00.h5", ["YY0aBcDeFgHi.wav"], np.zeros((1, 80), np.int16))
    touch(tmp_path / "audios/Y007PrFhzWq8.wav")
    with h5py.File(tmp_path / "hdf5s/indexes.h5", "w") as file:
        file["target"] = np.zeros(3)
    tables = audioset.prepare(tmp_path)
    assert dict(zip(tables.clips.clip_id, tables.clips.path, strict=True)) == {
        "Y0aBcDeFgHi": "hdf5s/unbalanced_train/part00.h5#0",
        "-0xzrMun0Rs": "hdf5s/eval.h5#0",
        "007PrFhzWq8": "audios/Y007PrFhzWq8.wav",
    }
    assert len(tables.missing) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval": HEAD + 'a, 0, 10, "/m/09x0r,/m/xyz"\n'}, "label '/m/xyz' is not in class_labels_indices.csv"),
        ({"eval": HEAD + "a, 0, 10,\n"}, "clip 'a' has no label; its lines must be YTID"),
        ({"eval": HEAD}, "eval_segments.csv lists no segment"),
        ({"labels": LABELS.replace("2,", "3,")}, "must number the 3 classes from 0"),
        ({"labels": LABELS.replace("Music", "Speech")}, "names a class twice: Speech"),
        ({"labels": "index,mid\n"}, "no column 'display_name'"),
    ],
)
def test_broken_lists_say_what_is_wrong(tmp_path, changes, message):
    write_lists(tmp_path, **changes)
    touch(tmp_path / "Y--PJHxphWEs.wav")
    with pytest.raises(ValueError, match=message):
        audioset.prepare(tmp_path)


def test_a_folder_that_is_not_audioset(tmp_path):
    write_lists(tmp_path / "one")
    with pytest.raises(ValueError, match=r"holds no audio of the 6 clips .*/Y007PrFhzWq8\.wav nor HDF5"):
        audioset.prepare(tmp_path / "one")
    (tmp_path / "one/unbalanced_train_segments.csv").unlink()
    with pytest.raises(ValueError, match=r"does not hold unbalanced_train_segments\.csv; its CSV files: balanced_tr"):
        audioset.prepare(tmp_path / "one")
    write_lists(tmp_path / "two")
    with (tmp_path / "two/class_labels_indices.csv").open("a") as file:
        file.write("\n")  # of copies that are the same, one is read
    with pytest.raises(ValueError, match=r"holds several class_labels_indices\.csv: one/.*, two/"):
        audioset.prepare(tmp_path)
    with pytest.raises(ValueError, match="unknown subset 'ballanced'; did you mean 'balanced'"):
        audioset.prepare(tmp_path, "ballanced")


def test_rows_and_scores_of_the_evaluation_clips():
    classes = ("a", "b")
    output = np.array([[0.9, 0.2], [0.1, 0.8], [0.6, 0.7]], np.float32)
    found = Predictions(np.array(["x", "y", "z"]), classes, output, np.zeros(3, int), np.zeros(3, bool))
    test = pd.DataFrame({"clip_id": ["z", "x", "y"]})
    truth = pd.DataFrame({"clip_id": ["x", "y", "z"], "labels": ["a", "a", "b"]})
    submission = audioset.rows(found, test)
    audioset.validate(submission, test, classes)
    # class a: x, z, y by score, positives x and y: AP (1 + 2/3) / 2, AUC 1/2; class b: y, z, x: AP 1/2, AUC 1/2
    assert audioset.score(submission, truth) == pytest.approx(
        {"map": (5 / 6 + 1 / 2) / 2, "macro_auc": 0.5, "d_prime": 0}
    )
    with pytest.raises(ValueError, match="clip_id not there"):
        audioset.validate(submission.iloc[1:], test, classes)
    with pytest.raises(ValueError, match="2 clips, the truth 3"):
        audioset.score(submission.iloc[1:], truth)


# ---- from the download to OOF scores


CONFIG = f"""
task: tagging
data:
  {{competition: audioset, root: data/audioset, folds: folds.csv, sample_rate: {RATE}, crop_seconds: 1.0, crop: full,
   cache: packed, pack_seconds: 1.0, sampler: balanced, train_share: 0.9}}
frontends:
  logmel: {{n_fft: 256, hop_length: 80, n_mels: 16, fmin: 50, fmax: 4000}}
model:
  name: cnn_small
  params: {{widths: [8, 8], blocks: [1, 1], time_strides: [2, 2], freq_strides: [2, 2], embedding: 16}}
augment: {{batch: {{mixup_on: logmel, mixup_alpha: 1.0, mixup_per_clip: true}}}}
optim: {{name: adam, lr: 1.0e-2, weight_decay: 0, epochs: 8, batch_size: 8, validate_every: 4}}
"""


def write_download(folder: Path, hdf5: bool) -> dict[str, list[str]]:
    """40 clips of tones: 28 train, 12 evaluation; one of each list is gone; 'Music' has three training clips."""
    rng, t = np.random.default_rng(0), np.arange(RATE) / RATE
    ids = [f"{i:011d}" for i in range(40)]
    lists = {"balanced_train": ids[:8], "unbalanced_train": ids[8:28], "eval": ids[28:]}
    music = {*ids[:2], ids[10], *ids[28:33]}
    mids = {i: "/m/04rlf" if i in music else "/m/09x0r" for i in ids}
    write_lists(folder, lists, mids)
    for part, members in lists.items():
        heard = members[:-1]
        pitch = [3000 if i in music else 400 for i in heard]
        sounds = 0.3 * np.sin(2 * np.pi * np.outer(pitch, t)) + 0.05 * rng.standard_normal((len(heard), RATE))
        if hdf5:
            write_hdf5(folder / f"hdf5s/{part}.h5", [f"Y{i}.wav" for i in heard], np.int16(sounds * 32767))
        else:
            for clip_id, sound in zip(heard, sounds, strict=True):
                audio.write(folder / f"audios/{part}_segments/Y{clip_id}.wav", sound, RATE)
    return lists


@pytest.mark.slow
@pytest.mark.parametrize("hdf5", [False, True])
def test_from_the_lists_to_scores(tmp_path, monkeypatch, capsys, hdf5):
    monkeypatch.chdir(tmp_path)
    write_download(tmp_path / "download", hdf5)
    pack = ["--resample", RATE, "--pack", 1] * hdf5  # else the store is made at first use
    run(prepare, "audioset", "--source", "download", *pack)
    assert "missing (missing.csv): 3 files" in capsys.readouterr().out
    clips = read_clips("data/audioset/clips.csv")
    assert len(clips) == 37
    assert clips.path.str.contains("#").all() == hdf5
    run(make_folds, "--clips", "data/audioset/clips.csv", "--out", "folds.csv")
    assert "fold -1: 26 clips train in every fold" in capsys.readouterr().out
    Path("tiny.yaml").write_text(CONFIG)
    run(train, "--config", "tiny.yaml", "--fold", "all")
    said = capsys.readouterr().out
    assert "fold 0: 23 of 26 training clips (data.train_share 0.9)" in said
    assert "no turn, for 1 class: Male_speech,_man_speaking" in said
    oof = Predictions.load("runs/tagging/tiny/oof.npz")
    assert sorted(oof.clip_ids) == sorted(clips.clip_id[clips.official_fold == 0])
    truth = clips.set_index("clip_id").labels[oof.clip_ids] == "Music"
    music = oof.clipwise_output[:, 2]
    assert music[truth].min() > music[~truth].max(), "its three clips had every second turn"
