"""From a download of the published layout to a checked submission, through every script, with the published configs.

The recordings are seconds of tones at 8 kHz; the networks are tiny. Nothing else differs from what a competitor types.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import make_folds
import predict
import prepare
import submit
import train
from earshot import runs
from earshot.models import build_model
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.sound.logmel import log_mel
from scripts import run

ROOT = Path(__file__).parents[1]
RATE = 8000
TINY = (
    f"data.sample_rate={RATE}",
    "data.workers=0",
    "frontends.logmel={n_fft: 256, hop_length: 80, n_mels: 16, fmin: 50, fmax: 4000}",
    "model={name: cnn_small, params: {widths: [8, 8], blocks: [1, 1], time_strides: [2, 2], freq_strides: [2, 2], "
    "embedding: 16}}",
    "augment.spec_augment={time_width: 8, time_stripes: 1, freq_width: 2, freq_stripes: 1}",
    "optim.lr=1e-2", "optim.batch_size=4", "optim.validate_every=100", "optim.select=last", "optim.warmup_epochs=0",
)  # fmt: skip
SPECIES = {"aldfly": 400, "ameavo": 1000, "amebit": 2200}  # Hz


def tones(rng, seconds: float, *parts) -> np.ndarray:
    """Quiet noise with (Hz, onset, offset) tones in it."""
    t = np.arange(round(seconds * RATE)) / RATE
    waveform = 0.02 * rng.standard_normal(len(t))
    for hertz, onset, offset in parts:
        waveform += 0.3 * np.sin(2 * np.pi * hertz * t) * ((t >= onset) & (t < offset))
    return waveform.astype(np.float32)


def write(path: Path, waveform: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, RATE)


# ---- birdcall


def birdcall_download(folder: Path, clips_a_species: int = 8):
    """train.csv and train_audio, test.csv and test_audio: mp3 files; one test recording is damaged, one silent."""
    rng, rows = np.random.default_rng(0), []
    for s, (code, hertz) in enumerate(SPECIES.items()):
        for i in range(clips_a_species):
            name, seconds = f"XC{s}{i:02d}.mp3", 1.5 + i % 4 / 2
            write(folder / "train_audio" / code / name, tones(rng, seconds, (hertz, 0.5, seconds - 0.5)))
            rows.append((code, name, f"Genus {code}_{code}", "[]", seconds, f"recordist {i % 3}", f"{s}{i:02d}"))
    columns = ["ebird_code", "filename", "primary_label", "secondary_labels", "duration", "recordist", "xc_id"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "train.csv", index=False)
    low, mid, high = SPECIES.values()
    tests = {
        ("site_1", "r1", 30): [(low, 1, 4), (high, 12, 14)],  # as long as a window: the source hears one more
        ("site_2", "r2", 10): [(mid, 3, 7)],  # one event in both rows
        ("site_3", "r3", 7): [(mid, 1, 3), (high, 4, 6)],
        ("site_1", "quiet", 10): [],
        ("site_2", "broken", 10): [],
    }
    table = []
    for (site, audio_id, seconds), parts in tests.items():
        write(folder / "test_audio" / f"{audio_id}.mp3", tones(rng, seconds, *parts))
        ends = [None] if site == "site_3" else range(5, seconds + 1, 5)
        table += [(site, f"{site}_{audio_id}" + (f"_{e}" if e else ""), e, audio_id) for e in ends]
    (folder / "test_audio" / "broken.mp3").write_bytes(b"this is no sound")
    pd.DataFrame(table, columns=["site", "row_id", "seconds", "audio_id"]).to_csv(folder / "test.csv", index=False)


BIRDCALL_ROWS = {
    "site_1_r1_5": "aldfly", "site_1_r1_10": "nocall", "site_1_r1_15": "amebit", "site_1_r1_20": "nocall",
    "site_1_r1_25": "nocall", "site_1_r1_30": "nocall", "site_2_r2_5": "ameavo", "site_2_r2_10": "ameavo",
    "site_3_r3": "ameavo amebit", "site_1_quiet_5": "nocall", "site_1_quiet_10": "nocall",
    "site_2_broken_5": "nocall", "site_2_broken_10": "nocall",
}  # fmt: skip
BIRDCALL = ("--competition", "birdcall", "--test", "data/birdcall/test.csv")
BIRDCALL_NPZ = ("--predictions", "runs/sed/birdcall_cnn14_att/test.npz")


@pytest.fixture(scope="module")
def birdcall_folder(tmp_path_factory):
    """A folder in which the birdcall competition was prepared, trained on two folds and predicted."""
    folder = tmp_path_factory.mktemp("birdcall")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        birdcall_download(Path("download"))
        run(prepare, "birdcall", "--source", "download")
        run(make_folds, "--clips", "data/birdcall/clips.csv", "--out", "folds/birdcall.csv", "--k", "2")
        run(train, "--config", ROOT / "configs/sed/birdcall_cnn14_att.yaml", "--fold", "all", *TINY,
            "data.crop_seconds=3", "loss.name=bce_clip_frame", "optim.epochs=20")  # fmt: skip
        ask = ("--run", "runs/sed/birdcall_cnn14_att", "--clips", "data/birdcall/test_clips.csv")
        run(predict, *ask, "--tta", "time_shift")
        run(predict, *ask, "--extra-window", "--out", "strict.npz")
    return folder


@pytest.fixture
def birdcall(birdcall_folder, monkeypatch) -> Path:
    """The working directory is that folder."""
    monkeypatch.chdir(birdcall_folder)
    return birdcall_folder


@pytest.mark.parametrize("post", ["birdcall", "birdcall_strict"])
def test_birdcall_from_the_download_to_a_checked_submission(birdcall, capsys, caplog, post):
    out = f"submissions/{post}.csv"
    with caplog.at_level(logging.WARNING, "earshot"):
        npz = BIRDCALL_NPZ if post == "birdcall" else ("--predictions", "strict.npz")
        run(submit, *BIRDCALL, *npz, "--post", ROOT / f"configs/post/{post}.yaml", "--out", out)
    assert "1 recordings have no prediction and are nocall: broken" in caplog.text
    run(submit, *BIRDCALL, "--check", out)
    assert f"{out}: 13 rows, valid for birdcall" in capsys.readouterr().out
    rows = pd.read_csv(out)
    assert rows.row_id.tolist() == pd.read_csv("data/birdcall/test.csv").row_id.tolist()
    assert dict(zip(rows.row_id, rows.birds, strict=True)) == BIRDCALL_ROWS


def test_birdcall_where_nothing_calls(birdcall, tmp_path):
    """A threshold that nothing reaches: every row says nocall, by both sets of rules, and that is valid."""
    for strict in ("true", "false"):
        (tmp_path / "post.yaml").write_text(f"{{threshold: 1.0, iou_threshold: 0.4, strict: {strict}}}")
        out = tmp_path / f"{strict}.csv"
        run(submit, *BIRDCALL, *BIRDCALL_NPZ, "--post", tmp_path / "post.yaml", "--out", out)
        assert set(pd.read_csv(out).birds) == {"nocall"}
        run(submit, *BIRDCALL, "--check", out, *BIRDCALL_NPZ)


def test_birdcall_listings_and_log(birdcall):
    assert pd.read_csv("data/birdcall/unreadable.csv").clip_id.tolist() == ["broken"]
    listed = pd.read_csv("runs/sed/birdcall_cnn14_att/test_unreadable.csv")
    assert listed.clip_id.tolist() == ["broken"]
    found = Predictions.load("runs/sed/birdcall_cnn14_att/test.npz")
    assert found.clip_ids[found.unreadable].tolist() == ["broken"]
    lengths = dict(zip(found.clip_ids, map(len, found.framewise_output), strict=True))
    assert (lengths["r1"], lengths["r2"]) == (751, 251), "30 s and 10 s, on cells of 40 ms"
    strict = Predictions.load("strict.npz")
    lengths = dict(zip(strict.clip_ids, map(len, strict.framewise_output), strict=True))
    assert (lengths["r1"], lengths["r2"]) == (1500, 750), "30 s and the extra window of padding; one window"
    oof = Predictions.load("runs/sed/birdcall_cnn14_att/oof.npz")
    assert oof.framewise_output is None, "predict.oof_frames=false"
    assert oof.clip_ids.tolist() == pd.read_csv("data/birdcall/clips.csv").clip_id.tolist()


@pytest.mark.slow
def test_birdcall_starts_from_audioset_weights_or_says_where_it_looked(birdcall, capsys, monkeypatch, tmp_path):
    """The published network, narrow, from a checkpoint of 527 classes: all but the attention block comes over."""
    narrow = {"widths": [4] * 6, "embedding": 8}
    arguments = ["--config", ROOT / "configs/sed/birdcall_cnn14_att.yaml", "--fold", "0"]
    arguments += [o for o in TINY if not o.startswith(("model=", "optim.lr=", "optim.epochs="))]
    arguments += [f"model.params={narrow}", "optim.epochs=1"]
    arguments += ["optim.lr=1e-9", "data.crop_seconds=3", "frontends.logmel.n_mels=32"]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with pytest.raises(ValueError, match=r"'Cnn14_DecisionLevelAtt_mAP0.425.pth' not found: no such path, nor below "
                       rf"/kaggle/input, {tmp_path}.*; to train from random weights: model.weights="):  # fmt: skip
        run(train, *arguments, "--name", "narrow")
    published = build_model("cnn14_att", 527, 32, narrow)
    torch.save({"model": published.state_dict()}, "Cnn14_DecisionLevelAtt_mAP0.425.pth")
    run(train, *arguments, "--name", "narrow")
    assert "dropped att_block." in capsys.readouterr().out
    started = runs.load_model(runs.load_run("runs/sed/narrow").folds[0])
    torch.testing.assert_close(started.conv_block6.conv2.weight, published.conv_block6.conv2.weight, atol=1e-6, rtol=0)
    assert started.att_block.cla.weight.shape == (3, 8, 1)
    run(train, *arguments, "--name", "random", "model.weights=")


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.iloc[:0], "the test table has no rows, so there is nothing to predict"),
    (lambda t: pd.concat([t, t.iloc[:1]]), "1 row_ids come twice: site_1_r1_5"),
    (lambda t: t.replace("site_3", "site_4"), "unknown sites site_4; known: site_1, site_2, site_3"),
    (lambda t: t.drop(columns="seconds"), "has no column 'seconds'"),
])  # fmt: skip
def test_birdcall_test_tables_that_do_not_work(birdcall, tmp_path, change, message):
    table = change(pd.read_csv("data/birdcall/test.csv"))
    table.to_csv(tmp_path / "test.csv", index=False)
    arguments = ["--competition", "birdcall", "--test", tmp_path / "test.csv", *BIRDCALL_NPZ]
    with pytest.raises(ValueError, match=message):
        run(submit, *arguments, "--out", tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
    table.to_csv("download/test.csv", index=False)
    with pytest.raises(ValueError, match=message):
        run(prepare, "birdcall", "--source", "download", "--out", tmp_path / "data")


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r.iloc[1:], "1 row_ids are missing: site_1_r1_5"),
    (lambda r: pd.concat([r, r.iloc[:1]]), "1 row_ids come twice: site_1_r1_5"),
    (lambda r: r.replace("site_3_r3", "site_3_r4"), "1 row_ids are not in the test table: site_3_r4"),
    (lambda r: r.iloc[::-1], "row_ids are in another order than the test table"),
    (lambda r: r.replace("nocall", ""), r"8 rows are empty \(write nocall\)"),
    (lambda r: r.replace("aldfly", "aldfly nocall"), "1 row mixes nocall with labels: aldfly nocall"),
    (lambda r: r.replace("ameavo amebit", "amebit ameavo"), "1 row is not sorted: amebit ameavo"),
    (lambda r: r.replace("aldfly", "wren"), r"1 row names unknown labels \(wren\): wren"),
    (lambda r: r.assign(id=1), "columns are row_id, birds, id, expected row_id, birds in this order"),
])  # fmt: skip
def test_a_broken_birdcall_submission_is_refused(birdcall, tmp_path, change, message):
    good = pd.DataFrame({"row_id": list(BIRDCALL_ROWS), "birds": list(BIRDCALL_ROWS.values())})
    change(good).to_csv(tmp_path / "broken.csv", index=False)
    with pytest.raises(ValueError, match=f"the submission is not valid: .*{message}"):
        run(submit, *BIRDCALL, "--check", tmp_path / "broken.csv", "--classes", "data/birdcall/classes.csv")


def test_predictions_that_do_not_fit_the_competition(birdcall, tmp_path):
    found = Predictions.load("runs/sed/birdcall_cnn14_att/test.npz")
    foreign, clipwise = tmp_path / "foreign.npz", tmp_path / "clipwise.npz"
    replace(found, classes=("wren", "crow", "jay")).save(foreign)
    replace(found, framewise_output=None, timebase=None).save(clipwise)
    with pytest.raises(ValueError, match=r"of 3 classes that are not birdcall's \(wren, crow, jay;"):
        run(submit, *BIRDCALL, "--predictions", foreign, "--out", tmp_path / "out" / "foreign.csv")
    assert not list((tmp_path / "out").glob("*")), "what is refused leaves no file, not even a temporary one"
    with pytest.raises(ValueError, match="rows of 5 s need framewise outputs, and these predictions have none"):
        run(submit, *BIRDCALL, "--predictions", clipwise, "--out", tmp_path / "x.csv")
    with pytest.raises(ValueError, match="unknown competition 'birdcal'; did you mean 'birdcall'"):
        run(submit, "--competition", "birdcal", *BIRDCALL[2:], *BIRDCALL_NPZ, "--out", tmp_path / "x.csv")
    with pytest.raises(ValueError, match="test.csv was prepared for the competition birdcall, not for rfcx"):
        run(submit, "--competition", "rfcx", *BIRDCALL[2:], *BIRDCALL_NPZ, "--out", tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"gone.npz do not exist; make them with src/ensemble.py .* or src/predict.py"):
        run(submit, *BIRDCALL, "--predictions", "gone.npz", "--out", tmp_path / "x.csv")


# ---- rainforest


RFCX_SPECIES = {0: 400, 5: 1000, 23: 2200}  # species_id: Hz


def rfcx_download(folder: Path, a_species: int = 6):
    """train_tp.csv, train_fp.csv, sample_submission.csv and flac files of 4 s; one test recording is damaged."""
    rng, tp, fp = np.random.default_rng(0), [], []
    for species, hertz in RFCX_SPECIES.items():
        for i in range(a_species):
            name, other = f"r{species:02d}{i}", 0 if species else 23
            parts = [(species, hertz, i % 3, 2.0 + i % 3)]
            if i == 0:  # two species in one recording
                parts.append((other, RFCX_SPECIES[other], 1.0, 3.0))
            tp += [(name, s, 1, on, h - 100, off, h + 100) for s, h, on, off in parts]
            fp.append((name if i == 1 else f"f{species:02d}{i}", other, 1, 3.0, 100, 4.0, 4000))
            write(folder / "train" / f"{name}.flac", tones(rng, 4, *(p[1:] for p in parts)))
            write(folder / "train" / f"f{species:02d}{i}.flac", tones(rng, 4))
    columns = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
    pd.DataFrame(tp, columns=columns).to_csv(folder / "train_tp.csv", index=False)
    pd.DataFrame(fp, columns=columns).to_csv(folder / "train_fp.csv", index=False)
    low, mid, high = RFCX_SPECIES.values()
    tests = {"t1": [(low, 1, 2)], "t2": [(mid, 0, 1), (high, 2, 4)], "broken": [], "t3": [(high, 3, 4)]}
    for name, parts in tests.items():
        write(folder / "test" / f"{name}.flac", tones(rng, 4, *parts))
    (folder / "test" / "broken.flac").write_bytes(b"fLaC and nothing else")
    sample = pd.DataFrame(0, index=range(len(tests)), columns=[f"s{i}" for i in range(24)])
    sample.insert(0, "recording_id", list(tests))
    sample.to_csv(folder / "sample_submission.csv", index=False)


RFCX = ("--competition", "rfcx", "--test", "data/rfcx/test.csv")
RFCX_TINY = (  # windows start between frames, as the published 5 s at 48 kHz with a hop of 512 do
    *TINY, "optim.early_stop_epochs=0", "data.crop_seconds=2", "predict.window_seconds=2",
    "predict.stride_seconds=1.005",
)  # fmt: skip


@pytest.fixture(scope="module")
def rfcx_folder(tmp_path_factory):
    """A folder in which the rainforest competition was prepared, trained on two folds and predicted."""
    folder = tmp_path_factory.mktemp("rfcx")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rfcx_download(Path("download"))
        run(prepare, "rfcx", "--source", "download")
        run(make_folds, "--clips", "data/rfcx/clips.csv", "--out", "folds/rfcx.csv", "--k", "2", "--method", "rfcx")
        run(train, "--config", ROOT / "configs/sed/rfcx_b0.yaml", "--fold", "all", *RFCX_TINY, "optim.epochs=6")
        run(predict, "--run", "runs/sed/rfcx_b0", "--clips", "data/rfcx/test_clips.csv")
    return folder


@pytest.fixture
def rfcx(rfcx_folder, monkeypatch) -> Path:
    monkeypatch.chdir(rfcx_folder)
    return rfcx_folder


@pytest.mark.slow
def test_rfcx_from_the_download_to_a_checked_submission(rfcx, capsys, caplog):
    out = ("--out", "submissions/rfcx.csv")
    with caplog.at_level(logging.WARNING, "earshot"):
        run(submit, *RFCX, "--predictions", "runs/sed/rfcx_b0/test.npz", *out)
    assert "1 of 4 recordings have no prediction (missing or unreadable)" in caplog.text
    run(submit, *RFCX, "--check", out[1], "--classes", "data/rfcx/classes.csv")
    assert "submissions/rfcx.csv: 4 rows, valid for rfcx" in capsys.readouterr().out
    rows = pd.read_csv(out[1], index_col="recording_id")
    assert rows.columns.tolist() == [f"s{i}" for i in range(24)]
    assert rows.index.tolist() == ["t1", "t2", "broken", "t3"]
    np.testing.assert_allclose(rows.loc["broken"], rows.drop("broken").mean(), rtol=1e-5)
    found = Predictions.load("runs/sed/rfcx_b0/test.npz")
    assert found.clip_ids[found.unreadable].tolist() == ["broken"]
    np.testing.assert_allclose(rows.loc["t2"], found.clipwise_output[found.clip_ids.tolist().index("t2")], rtol=1e-6)


@pytest.mark.slow
def test_rfcx_sums_the_frame_maxima_of_windows(rfcx):
    """A recording of 4 s by hand: three windows of 2 s, each by itself, both folds averaged."""
    trained = runs.load_run("runs/sed/rfcx_b0")
    waveform = np.pad(audio.load("download/test/t2.flac", RATE), (0, 80))
    windows = np.stack([waveform[start : start + 2 * RATE] for start in (0, 8040, 16080)])
    logmels = torch.from_numpy(log_mel(windows, trained.config.frontends["logmel"]))[:, None]
    sums = []
    for fold in trained.folds:
        with torch.inference_mode():
            sums.append(runs.load_model(fold)(logmels)["framewise_output"].amax(dim=1).sum(dim=0).numpy())
    found = Predictions.load("runs/sed/rfcx_b0/test.npz").aligned(["t2"])
    np.testing.assert_allclose(found.clipwise_output[0], np.mean(sums, axis=0), rtol=1e-4)


def test_rfcx_logs_both_scores_and_keeps_recordings_whole(rfcx):
    log = pd.read_csv("runs/sed/rfcx_b0/fold0/log.csv")
    assert log.loss.iloc[-1] < 0.7 * log.loss.iloc[0]
    logs = [pd.read_csv(f"runs/sed/rfcx_b0/fold{k}/log.csv").iloc[-1] for k in (0, 1)]
    for name in ("lwlrap", "crop_lwlrap"):
        assert np.mean([last[name] for last in logs]) > 0.3, "chance among 24 species is 0.16"
    oof = Predictions.load("runs/sed/rfcx_b0/oof.npz")
    labelled = [f"r{species:02d}{i}" for species in RFCX_SPECIES for i in range(6)]
    assert sorted(oof.clip_ids) == labelled, "no recording of false positives alone"
    folds = pd.read_csv("folds/rfcx.csv")
    assert len(folds) == 18 + 15, "recordings of false positives alone have a fold too"


def test_rfcx_false_positives_train_and_validate(rfcx, capsys):
    run(train, "--config", ROOT / "configs/sed/rfcx_b0_hop480.yaml", "--fold", "0", *RFCX_TINY, "optim.epochs=1")
    said = capsys.readouterr().out
    folds = pd.read_csv("folds/rfcx.csv")
    assert f"{(folds.fold != 0).sum()} clips train, {(folds.fold == 0).sum()} held out" in said
    log = pd.read_csv("runs/sed/rfcx_b0_hop480/fold0/log.csv")
    assert {"lwlrap", "crop_lwlrap"} <= set(log.columns)


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r.drop(columns="s7"), "columns are not recording_id, s0.*: missing s7, unknown none"),
    (lambda r: r.iloc[1:], "1 recording_id not there: t1"),
    (lambda r: pd.concat([r, r.iloc[:1]]), "1 recording_id twice: t1"),
    (lambda r: r.iloc[::-1], "recording_id is in another order than the test table"),
    (lambda r: r.assign(s3=np.nan), "column s3 holds 4 values that are no finite number"),
])  # fmt: skip
def test_a_broken_rfcx_submission_is_refused(rfcx, tmp_path, change, message):
    change(pd.read_csv("download/sample_submission.csv")).to_csv(tmp_path / "broken.csv", index=False)
    with pytest.raises(ValueError, match=f"submission is not valid: .*{message}"):
        run(submit, *RFCX, "--check", tmp_path / "broken.csv", "--classes", "data/rfcx/classes.csv")


@pytest.mark.slow
def test_rfcx_with_its_own_network(rfcx):
    """EfficientNet-B0 as in the config, untrained weights, one epoch."""
    keep = [o for o in RFCX_TINY if not o.startswith("model=")]
    run(train, "--config", ROOT / "configs/sed/rfcx_b0.yaml", "--fold", "0", "--name", "b0", *keep,
        "model.params.pretrained=false", "optim.epochs=1")  # fmt: skip
    assert np.isfinite(pd.read_csv("runs/sed/b0/fold0/log.csv").loss).all()
    with pytest.raises(ValueError, match=r"tf_efficientnet_b0.ns_jft_in1k' are not in the cache .*pretrained: false"):
        run(train, "--config", ROOT / "configs/sed/rfcx_b0.yaml", "--fold", "1", "--name", "b0", *keep)
