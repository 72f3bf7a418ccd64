"""src/new.py: a config that works, fitted to other data."""

import dataclasses
import re
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from earshot.competitions.tables import Tables
from earshot.config import from_dict, load_config, read_values
from earshot.messages import command_line
from earshot.sound.logmel import empty_mel_bands
from earshot.training import fitting as fitting
from earshot.training.fitting import Data, fit_batch, fitted

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
import new  # noqa: E402
import prepare  # noqa: E402


def data(labels=("a", "b"), seconds=5.0, rate=32000, events=None, task="tagging"):
    clips = pd.DataFrame({"clip_id": [str(i) for i in range(len(labels))], "labels": labels})
    clips = clips.assign(duration=seconds, sample_rate=rate)
    return Data(name="mine", competition="mine", task=task, root="data/mine", folds="folds/mine.csv", clips=clips,
                events=events)  # fmt: skip


def like(name):
    return read_values(ROOT / "configs" / f"{name}.yaml")


def test_low_rates_and_short_clips_are_followed():
    values, notes = fitted(like("tagging/esc10_cnn"), data(seconds=1.5, rate=16000))
    config = from_dict(values)
    assert (config.data.sample_rate, config.data.crop_seconds, config.predict.window_seconds) == (16000, 1.5, 1.5)
    assert config.frontends["logmel"].fmax == 8000
    assert config.augment.batch.logmel[-1]["time_width"] == 8, "25 frames of 5 s, of 1.5 s so much less"
    assert len(notes) == 5
    assert notes[0] == "data.sample_rate=16000: the recordings have no more"
    mixed = data(seconds=1.5, rate=16000)
    mixed.clips.loc[1:, "sample_rate"] = 22050
    _, notes = fitted(like("tagging/esc10_cnn"), mixed)
    assert notes[0] == "data.sample_rate=16000: a tenth of the recordings have no more"


@pytest.mark.parametrize(("name", "rate", "told"), [
    ("sed/finch_vocal", 44100, "500 to 12000 Hz alone, as in that config, and the recordings go to 22050 Hz"),
    ("sed/finch_vocal", 16000, "500 to 8000 Hz alone, as in that config, and the recordings go to 8000 Hz"),
    ("sed/birdcall_b0", 96000, "50 to 14000 Hz alone, as in that config, and the recordings go to 48000 Hz"),
    ("sed/birdcall_b0", 44100, ""), ("tagging/panns/wavegram_cnn14", 32000, ""),
])  # fmt: skip
def test_a_band_that_was_chosen_for_other_sounds_is_said(name, rate, told):
    events = pd.DataFrame({"filename": ["0"], "onset": [0.1], "offset": [0.2], "event_label": ["x"]})
    kind = {"events": events, "task": "sed"} if name.startswith("sed") else {}
    _, notes = fitted(like(name), data(seconds=5.0, rate=rate, **kind))
    said = [note for note in notes if " alone, as in that config" in note]
    assert len(said) == bool(told)
    assert not told or said[0].startswith(f"frontends.logmel hears {told}")


@pytest.mark.parametrize(
    ("name", "rate", "lengths"),
    [
        ("tagging/esc10_cnn", 16000, (512, 0, 320)),
        ("tagging/esc10_cnn_small", 8000, (512, 0, 160)),
        ("sed/finch_birds", 8000, (256, 0, 40)),  # 128, the nearest, leaves mel bands without a bin
        ("tagging/panns/cnn14", 8000, (256, 0, 80)),
        ("scenes/cross_task_fa", 22050, (1024, 551, 331)),
    ],
)
def test_frames_last_as_long_at_a_lower_rate(name, rate, lengths):
    """20-ms frames stay 20-ms frames, windows hold them, and no mel band is left without a bin."""
    old = from_dict(like(name))
    before = old.frontends["logmel"]
    values, notes = fitted(like(name), data(rate=rate))
    record = from_dict(values).frontends["logmel"]
    assert (record.n_fft, record.win_length, record.hop_length) == lengths
    times = record.hop_length / rate, before.hop_length / old.data.sample_rate
    assert times[0] == pytest.approx(times[1], rel=0.01)
    assert not empty_mel_bands(dataclasses.replace(record, sample_rate=rate))
    assert any(f"hop_length={record.hop_length}: frames of" in note for note in notes)


def test_outputs_further_apart_than_short_events_are_said():
    times = {"filename": "0", "onset": np.arange(5.0), "event_label": "a", "is_negative": [0, 0, 0, 0, 1]}
    short = pd.DataFrame(times | {"offset": np.arange(5.0) + [0.08, 0.08, 0.08, 2, 2]})
    for name, said in (("sed/synth_cnn", ["cnn_small answers every 160 ms, and half of the events last 80 ms"]),
                       ("sed/finch_vocal", [])):  # fmt: skip
        values, _ = fitted(like(name), data(events=short, task="sed"))
        assert [note.split(" at most")[0] for note in fitting.step_note(values, 2, short)] == said
    values, _ = fitted(like("sed/synth_cnn"), data(events=short, task="sed"))
    assert not fitting.step_note(values, 2, short.assign(offset=short.onset + 0.32))


@pytest.mark.parametrize(("seconds", "name"), [(0.319, "sed/finch_vocal"), (0.32, "sed/synth_cnn")])
def test_the_next_command_follows_the_length_of_the_events(seconds, name):
    clips = pd.DataFrame({"clip_id": ["0"], "path": ["0.wav"], "labels": ["a"]})
    events = pd.DataFrame({"filename": ["0"], "onset": [0.0], "offset": [seconds], "event_label": ["a"]})
    tables = Tables(clips=clips, classes=["a"], events=events)
    assert prepare.next_command(Path("data/mine"), "mine_events", tables).endswith(f"--like {name}")


def test_long_clips_are_cropped_anywhere():
    values, _ = fitted(like("tagging/esc10_cnn"), data(seconds=60.0))
    config = from_dict(values)
    assert (config.data.crop, config.data.crop_seconds, config.predict.stride_seconds) == ("random", 5.0, 2.5)


def test_events_train_frames_and_without_them_their_keys_go():
    events = pd.DataFrame({"filename": ["0"], "onset": [0.0], "offset": [1.0], "event_label": ["a"]})
    config = from_dict(fitted(like("sed/synth_cnn"), data(events=events, task="sed"))[0])
    assert (config.data.targets, config.data.frame_targets, config.predict.keep_frames) == ("events", True, True)
    config = from_dict(fitted(like("sed/finch_vocal"), data())[0])
    assert (config.task, config.data.targets, config.data.frame_targets) == ("tagging", "labels", False)


def test_hearings_that_move_events_go_where_frames_are_kept():
    events = pd.DataFrame({"filename": ["0"], "onset": [0.0], "offset": [1.0], "event_label": ["a"]})
    often = {**like("sed/synth_cnn"), "predict": {"tta": ["roll_half", "gain", "tempo"]}}
    values, notes = fitted(often, data(events=events, task="sed"))
    assert from_dict(values).predict.tta == ("gain",)
    assert any("predict.tta without roll_half, tempo" in note for note in notes)
    assert from_dict(fitted(often, data())[0]).predict.tta == ("roll_half", "gain", "tempo")


def test_one_class_in_every_recording_is_watched_by_its_events():
    events = pd.DataFrame({"filename": ["0", "1"], "onset": 0.0, "offset": 1.0, "event_label": "a"})
    one, two = (data(labels=labels, events=events, task="sed") for labels in (("a", "a"), ("a", "b")))
    assert from_dict(fitted(like("sed/synth_cnn"), one)[0]).watch == "event_f1"
    assert from_dict(fitted(like("sed/synth_cnn"), two)[0]).watch == "", "mAP can be had"
    most = data(labels=("a b", "a b", "a"), events=events, task="sed")
    values, notes = fitted(like("sed/synth_cnn"), most)
    assert from_dict(values).watch == "frame_map", "any answer has a mAP of 0.83 or more"
    assert any("a class is in 83 % of the recordings" in note for note in notes)


def test_a_loss_for_one_label_refuses_several():
    with pytest.raises(ValueError, match="exactly one label a clip .* 1 of 2 clips have none or several: 1. Take"):
        fitted(like("tagging/esc10_cnn"), data(labels=("a", "a b")))


def test_clips_without_a_label_do_not_count_unless_they_are_silent():
    unknown = data(labels=("a", "", "b"))
    assert from_dict(fitted(like("tagging/esc10_cnn"), unknown)[0]).loss.name == "cross_entropy"
    silent = dataclasses.replace(unknown, clips=unknown.clips.assign(annotated=[1, 1, 1]))
    with pytest.raises(ValueError, match="1 of 3 clips have none"):
        fitted(like("tagging/esc10_cnn"), silent)


@pytest.mark.parametrize("name", ["tagging/esc10_cnn", "sed/synth_cnn"])
def test_one_class_alone_is_refused(name):
    with pytest.raises(ValueError, match="one class alone, a, .* nothing to tell apart"):
        fitted(like(name), data(labels=("a", "a", "")))


def test_a_front_end_of_one_rate_keeps_it():
    values, _ = fitted(like("tagging/vggish"), data(seconds=1.0, rate=8000))
    assert from_dict(values).data.sample_rate == 16000


def test_events_ask_for_a_network_with_frames():
    events = pd.DataFrame({"filename": ["0"], "onset": [0.0], "offset": [1.0], "event_label": ["a"]})
    values, _ = fitted(like("ust/cnn5"), data(seconds=1.0, rate=8000, events=events, task="sed"))
    with pytest.raises(ValueError, match="cnn5 answers for whole clips alone"):
        fit_batch(values, 2, 100)


def test_a_batch_leaves_steps_in_an_epoch_and_fits_the_memory(monkeypatch):
    values, _ = fitted(like("sed/synth_cnn"), data(seconds=1.0))
    monkeypatch.setattr(fitting, "clip_memory", lambda *_: 100e6)
    monkeypatch.setattr(fitting, "free_memory", lambda _: 10e9)
    assert fit_batch(values, 2, 1000)[0]["optim"]["batch_size"] == 8
    assert fit_batch(values, 2, 1000)[1][0].startswith("optim.batch_size=8 stays: a clip takes 100 MB")
    assert fit_batch(values, 2, 1000)[0]["optim"]["epochs"] == values["optim"]["epochs"]
    few, notes = fit_batch(values, 2, 20)
    assert few["optim"]["batch_size"] == 2
    assert few["optim"]["epochs"] == 60
    assert notes[0].startswith("optim.batch_size=2, not 8: 20 clips train a fold (a clip takes")
    assert any("20 clips are 10 steps an epoch" in note for note in notes)
    assert fit_batch(values, 2, 2)[0]["optim"]["epochs"] == 200
    monkeypatch.setattr(fitting, "free_memory", lambda _: 1e9)
    less, notes = fit_batch(values, 2, 1000)
    assert less["optim"]["batch_size"] == 4
    assert notes[0] == "optim.batch_size=4, not 8: a clip takes 100 MB in training, 1.0 GB are free"
    monkeypatch.setattr(fitting, "free_memory", lambda _: 0.3e9)
    with pytest.raises(ValueError, match="one clip takes 0.1 GB in training and 0.3 GB are free"):
        fit_batch(values, 2, 1000)


def test_whatever_counts_epochs_is_lengthened_with_them_and_none_is_shortened(monkeypatch):
    monkeypatch.setattr(fitting, "clip_memory", lambda *_: 100e6)
    monkeypatch.setattr(fitting, "free_memory", lambda _: 10e9)
    values, _ = fitted(like("sed/synth_cnn"), data(seconds=1.0))
    own = {"epochs": 30, "batch_size": 2, "warmup_epochs": 1.5, "early_stop_epochs": 5, "unfreeze_epochs": 2}
    values["optim"] |= own | {"swa_epochs": 3, "ema_decay": 0.0, "validate_every": 1}
    longer, notes = fit_batch(values, 2, 20)
    optim = from_dict(longer).optim
    assert (optim.epochs, optim.warmup_epochs, optim.early_stop_epochs) == (60, 3.0, 10)
    assert (optim.unfreeze_epochs, optim.swa_epochs) == (4, 6)
    assert "optim.early_stop_epochs=10: 5 of 30 epochs" in notes
    values["optim"] |= {"epochs": 300}
    assert fit_batch(values, 2, 2)[0]["optim"]["epochs"] == 300, "more than is ever asked for"
    values["optim"] |= {"epochs": 40, "accumulate": 5}
    assert fit_batch(values, 2, 20)[0]["optim"]["epochs"] == 200, "two steps an epoch"


def options(**given):
    return Namespace(**{"name": "mine2", "folds": None, "k": None} | given)


def test_a_second_config_takes_the_folds_of_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folds").mkdir()
    clips = pd.DataFrame({"clip_id": [f"c{i:02d}" for i in range(20)], "labels": ["a", "b"] * 10})
    path, first, told = new.find_folds(options(name="mine"), Path("data/mine"), clips)
    assert (path, told) == (Path("folds/mine.csv"), "folds: 5 (stratified) -> folds/mine.csv")
    assert not path.exists(), "what comes after may be an error"
    first.to_csv(path, index=False)
    assert new.find_folds(options(), Path("mine!"), clips)[0] == path, "as prepare.py calls these data"
    path, second, told = new.find_folds(options(), Path("data/mine"), clips)
    assert path == Path("folds/mine.csv")
    assert told.startswith("folds: folds/mine.csv, as it is, so that this run can be blended with others on it")
    pd.testing.assert_frame_equal(first, second)
    path, folds, _ = new.find_folds(options(k=4), Path("data/mine"), clips)
    assert (path, folds.fold.nunique()) == (Path("folds/mine2.csv"), 4)
    folds.to_csv(path, index=False)
    with pytest.raises(ValueError, match="--k 3: folds/mine2.csv is there and has 4 folds"):
        new.find_folds(options(k=3), Path("data/mine"), clips)
    assert new.find_folds(options(), Path("data/mine"), clips)[0] == Path("folds/mine2.csv"), "its own goes before"
    path, _, told = new.find_folds(options(name="mine3"), Path("data/mine"), clips.head(10))
    assert path == Path("folds/mine3.csv")
    assert "not those of the data: folds/mine.csv names 10 clips that are not" in told


def test_a_number_of_folds_that_cannot_be_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = pd.DataFrame({"clip_id": [f"c{i:02d}" for i in range(20)], "labels": ["a", "b"] * 10})
    official, three = clips.assign(official_fold=[1, 2] * 10), clips.assign(group=(["p", "q", "r"] * 7)[:20])
    for k, table, said in (
        (4, official, "folds: 2 (official) -> folds/mine2.csv, not --k 4: the table has its own"),
        (2, official, "folds: 2 (official) -> folds/mine2.csv"),
        (4, three, "folds: 3 (grouped) -> folds/mine2.csv, not --k 4: there are 3 groups"),
    ):
        assert new.find_folds(options(k=k), Path("data/mine"), table)[2] == said
    with pytest.raises(ValueError, match="k must be at least 2 folds, got 0"):
        new.find_folds(options(k=0), Path("data/mine"), clips)


def test_folds_of_before_the_groups_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = pd.DataFrame({"clip_id": [f"c{i:02d}" for i in range(20)], "labels": ["a", "b"] * 10})
    Path("folds").mkdir()
    new.find_folds(options(name="g"), Path("data/g"), clips)[1].to_csv("folds/g.csv", index=False)
    _, _, told = new.find_folds(options(name="g"), Path("data/g"), clips.assign(group=["p", "q"] * 10))
    assert told.startswith("folds: folds/g.csv, as it is\nwarning: 2 of 2 groups of data/g/clips.csv lie in several ")
    words = ["--clips", "data/g/clips.csv", "--out", "folds/g.csv", "--k", 2, "--force"]
    assert told.endswith(command_line("make_folds", *words))


def test_only_clips_that_say_something_count_as_training():
    clips = pd.DataFrame({"clip_id": list("abcdef"), "labels": ["x", "", "", "y", "", "x"]})
    clips["annotated"] = list("110001")  # b is silent
    folds = pd.DataFrame({"clip_id": list("abcdef"), "fold": [0, 0, 0, 0, 1, 1]})
    assert new.count_training({"data": {"targets": "events"}}, clips, folds, None) == 3
    assert new.count_training({"data": {"keep_unlabelled": True}}, clips, folds, None) == 4


def test_configs_of_the_repository_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    like = new.find_config("tagging/esc10_cnn")
    assert like == ROOT / "configs/tagging/esc10_cnn.yaml"
    assert new.place_of(like, "mine") == Path("configs/tagging/mine.yaml"), "the repository stays as it is"
    assert new.place_of(Path("own/a.yaml"), "mine") == Path("own/mine.yaml")
    with pytest.raises(ValueError, match="did you mean 'tagging/esc10_cnn'"):
        new.find_config("tagging/esc10_cn")
    with pytest.raises(ValueError, match="configs/tagging/esc10_cnn.yaml does not exist; .*; the repository has /"):
        load_config("configs/tagging/esc10_cnn.yaml")


@pytest.mark.parametrize(("name", "gone"), [
    ("esc50_few_labels", {"data.clips_per_class", "distill"}), ("esc50_small_longer", {"model.weights", "distill"}),
    ("esc50_taught", {"distill"}), ("esc50_distilled", set()),
])  # fmt: skip
def test_nothing_of_runs_on_other_data_is_taken_over(name, gone):
    values, notes = fitted(like(f"tagging/{name}"), data())
    assert {note.split(" is left out")[0] for note in notes if " is left out" in note} == gone
    assert ("distill" in values) == ("distill" not in gone), "BirdNET's file teaches anybody"
    config = from_dict(values)
    assert not config.data.clips_per_class
    assert not config.model.weights


@pytest.mark.slow
def test_from_a_folder_to_a_config_in_two_commands(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name in ("wren", "robin"):
        for i in range(6):
            (tmp_path / "rec" / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "rec" / name / f"{i}.wav", 0.1 * rng.normal(size=8000), 8000)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/sed").mkdir(parents=True)
    for name in ("_base", "synth_cnn"):
        (tmp_path / f"configs/sed/{name}.yaml").write_text((ROOT / f"configs/sed/{name}.yaml").read_text())

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script.__file__, *arguments])
        script.main()
        return capsys.readouterr().out

    following = re.search(r"next: python .*src/new.py'? (.*)", run(prepare, "mine", "--source", "rec"))[1].split()
    assert following == ["mine", "--like", "tagging/esc10_cnn"], "as README has it: data/mine goes without saying"
    out = run(new, "mine", "--like", "sed/synth_cnn")
    assert f"next: {command_line('train', '--config', 'configs/sed/mine.yaml', '--fold', 'all')}" in out
    config = load_config("configs/sed/mine.yaml")
    assert (config.data.sample_rate, config.optim.batch_size, config.task) == (8000, 2, "tagging")
    assert pd.read_csv("folds/mine.csv").fold.nunique() == 5
    assert next(iter(yaml.safe_load(Path("configs/sed/mine.yaml").read_text()))) == "task"
    with pytest.raises(ValueError, match="is there already"):
        run(new, "mine", "--like", "sed/synth_cnn")
    with pytest.raises(ValueError, match="did you mean 'sed/synth_cnn'"):
        run(new, "mine2", "--like", "sed/synth_cn")
    with pytest.raises(ValueError, match="data/other/clips.csv does not exist"):
        run(new, "other", "--like", "sed/synth_cnn")
