"""The embedded scenes, urban tags and machines: what is generated, its tables, budgets and choices of clips."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

import train
from earshot import tasks
from earshot.competitions import get_competition, synth
from earshot.config import DataConfig, load_config
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.prediction.predictions import Predictions
from earshot.synth import tasks as synth_tasks
from scripts import run

SMALL = {
    "scenes": lambda seed: synth_tasks.scenes(seed, train=3, held_out=2),
    "ust": lambda seed: synth_tasks.urban(seed, train=12, held_out=6),
    "asd": lambda seed: synth_tasks.machines(seed, source=2, target=1, test=1),
}


def make_small(patch: pytest.MonkeyPatch):
    patch.setattr(synth_tasks, "KINDS", SMALL)
    patch.setattr(synth_tasks, "SCENES", {k: synth_tasks.SCENES[k] for k in ("bus", "park", "tram")})


@pytest.fixture
def small(monkeypatch):
    """A few clips of each class, three scenes."""
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a small download of each kind, made by seed 0."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        for kind in SMALL:
            synth_tasks.make_task(kind, folder / kind, 0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small, made, tmp_path, kind):
    one = made / kind
    for folder, seed in (("again", 0), ("other", 1)):
        synth_tasks.make_task(kind, tmp_path / folder, seed)
    files = sorted(p.relative_to(one) for p in one.rglob("*.*") if p.is_file())
    assert all((one / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    first = files[0] if files[0].suffix == ".flac" else files[1]
    assert (one / first).read_bytes() != (tmp_path / "other" / first).read_bytes()
    meta = pd.read_csv(one / "meta.csv")
    for path in meta.path:
        wave, rate = soundfile.read(one / path)
        assert rate == 16000
        assert np.isfinite(wave).all()
        assert 0.001 < np.sqrt(np.mean(wave**2)) < 0.2
        assert np.abs(wave).max() <= 0.96
    with pytest.raises(ValueError, match="exists and is not empty"):
        synth_tasks.make_task(kind, one)


def test_what_is_held_out_was_not_heard_in_training(small, made):
    scenes = get_competition("synth_scenes").prepare(made / "scenes").clips
    held_out = scenes.official_fold == synth_tasks.HELD_OUT
    assert not set(scenes.city[held_out]) & set(scenes.city[~held_out])
    assert not {"s1", "s2"} & set(scenes.device[~held_out])
    assert {"s1"} <= set(scenes.device[held_out])
    urban = get_competition("synth_ust").prepare(made / "ust").clips
    held_out = urban.official_fold == synth_tasks.HELD_OUT
    assert not set(urban.sensor[held_out]) & set(urban.sensor[~held_out])
    machines = get_competition("synth_asd").prepare(made / "asd").clips
    held_out = machines.official_fold == synth_tasks.HELD_OUT
    assert (machines.condition[~held_out] == "normal").all()
    assert set(machines.condition[held_out]) == {"normal", "anomaly"}
    assert (machines.fault.notna() == (machines.condition == "anomaly")).all()
    with pytest.raises(ValueError, match="was not made with"):
        get_competition("synth_scenes").prepare(made / "asd")
    with pytest.raises(ValueError, match="was not made with"):
        get_competition("synth_scenes").prepare(made / "scenes", seed=5)


@pytest.mark.parametrize("kind", SMALL)
def test_rows_are_valid_and_a_perfect_submission_scores_1(small, made, kind):
    competition = get_competition(f"synth_{kind}")
    tables = competition.prepare(made / kind)
    truth = tables.truth
    target = np.array([[c in str(labels).split() for c in tables.classes] for labels in truth.labels], np.float32)
    if kind == "asd":  # sure of its own section where it is normal
        normal = (truth.condition == "normal").to_numpy()[:, None]
        output = np.where(target > 0, np.where(normal, 3.0, -3.0), 0.0).astype(np.float32)
    else:
        output = target * 0.98 + 0.01 * (1 - target)
    n = len(truth)
    found = Predictions(truth.clip_id.to_numpy(str), tuple(tables.classes), output, np.zeros(n, int), np.zeros(n, bool))
    submission = competition.rows(found, tables.test, None)
    competition.validate(submission, tables.test, tables.classes)
    scores = competition.score(submission, truth)
    if kind == "ust":  # the points (R 0, P 0) and (R 1, P 0) are part of the public evaluation's curve
        assert scores["micro_f1"] == 1.0
        assert scores["macro_auprc"] >= target.any(axis=0).mean() / 2
    else:
        assert next(iter(scores.values())) == 1.0
    assert tasks.get_task(kind).watch == next(iter(scores))
    with pytest.raises(ValueError, match="not there"):
        competition.validate(submission[1:], tables.test, tables.classes)
    with pytest.raises(ValueError, match=r"the truth|not in index|KeyError"):
        competition.score(submission.assign(clip_id="x"), truth) if kind != "asd" else synth.truth_and_scores(
            submission, truth[1:], "asd"
        )


TINY = """
task: KIND
data: {competition: synth_KIND, root: data/KIND, folds: data/KIND/folds.csv, sample_rate: 16000, crop_seconds: 2.016,
       keep_unlabelled: true}
frontends: {logmel: {n_fft: 512, hop_length: 512, n_mels: 16, fmin: 50, fmax: 8000}}
model: {name: se_trans, params: {widths: [4, 8], heads: 2, activation: ACTIVATION}}
augment: {batch: {fmix_p: 1.0}, spec_augment_pp: {layers: [SE_block1]}}
loss: {name: LOSS}
optim: {name: ralamb, lookahead: 2, epochs: 1, batch_size: 8}
predict: PREDICT
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_every_task_runs_from_nothing_by_one_command(small, tmp_path, monkeypatch, capsys, kind):
    """Data, folds, training, score and pictures; the generator in this process, so that it is the small one."""
    monkeypatch.chdir(tmp_path)
    import make_folds
    import prepare

    def here(command, check):
        script = {"prepare": prepare, "make_folds": make_folds}[command[1].stem]
        run(script, *command[2:])

    monkeypatch.setattr(train, "children", SimpleNamespace(run=here))
    multi = kind == "ust"
    text = TINY.replace("KIND", kind).replace("LOSS", "bce" if multi else "cross_entropy")
    text = text.replace("ACTIVATION", "sigmoid" if multi else "softmax")
    text = text.replace("PREDICT", "{clip_from: log_odds, stride_seconds: 0.256}" if kind == "asd" else "{}")
    (tmp_path / "tiny.yaml").write_text(text)
    run(train, "--config", "tiny.yaml")
    out, watch = capsys.readouterr().out, tasks.get_task(kind).watch
    fold = tmp_path / "runs" / kind / "tiny" / "fold0"
    found = Predictions.load(fold / "oof.npz")
    data = load_data(load_config(tmp_path / "tiny.yaml").data)
    assert len(found) == (data.clips.fold == 0).sum()
    expected = tasks.score_readable(tasks.get_task(kind), found, truth_of(found, data))[watch]
    assert f"{watch} {expected:.4f}" in out, "the score that is printed is that of the OOF on disk"
    for name in tasks.get_task(kind).pictures:
        assert (fold / name).is_file()
        assert (fold.parent / name).is_file()
    if kind == "ust":
        assert (data.clips.labels.fillna("") == "").any(), "clips without a tag say that no class is there"
        dropped = load_data(load_config(tmp_path / "tiny.yaml", ["data.keep_unlabelled=false"]).data)
        assert len(dropped.clips) < len(data.clips)
    if kind == "asd":
        config = load_config(tmp_path / "tiny.yaml", ["data.where={machine: fan}"])
        chosen = load_data(config.data)
        assert chosen.classes == [f"fan_section_0{i}" for i in range(3)]
        assert set(chosen.clips.machine) == {"fan"}
        assert chosen.target.shape == (len(chosen.clips), 3)
        for where, message in (("{machin: fan}", "did you mean 'machine'"), ("{machine: fann}", "did you mean 'fan'")):
            with pytest.raises(ValueError, match=message):
                load_data(load_config(tmp_path / "tiny.yaml", [f"data.where={where}"]).data)


@pytest.mark.slow
def test_training_refuses_a_network_over_its_budget(tiny):
    assert load_config(tiny).budget.mmacs == 0
    with pytest.raises(ValueError, match=r"over its budget: .* kB .* \(limit 0.5\), .* \(limit 100\)"):
        run(train, "--config", tiny, "budget.parameters_kb=0.5", "budget.mmacs=100")
    with pytest.raises(ValueError, match=r"over its budget: .* \(limit 0\), .* \(limit 0.001\)"):
        run(train, "--config", tiny, "budget.mmacs=0.001")
    run(train, "--config", tiny, "budget.mmacs=100", "budget.parameters_kb=100", "optim.epochs=1")


def test_default_data_config_chooses_everything():
    assert DataConfig().where == {}
    assert not DataConfig().keep_unlabelled
