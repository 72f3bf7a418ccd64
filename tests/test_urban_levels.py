"""Two label levels at once: what is unknown, which classes train, scores of both levels, splits, times and places."""

import numpy as np
import pandas as pd
import pytest
import torch

import make_folds
import prepare
import submit
from earshot import losses, tasks
from earshot.competitions import get_competition, sonyc_ust
from earshot.config import DataConfig
from earshot.data.answers import answers_of, read_truth
from earshot.data.labels import clip_targets
from earshot.data.prepared import load_data
from earshot.events import PostProcess
from earshot.metrics import urban as urban_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tables import read_table
from scripts import run
from test_sonyc_ust import download, released  # noqa: F401

FINE = ["1-1_small", "1-2_large", "1-X_engine", "3-1_impact", "8-1_dog-barking"]
COARSE = ["1_engine", "3_non-machinery-impact", "8_dog"]
NAMES = [*COARSE, *FINE]
WHEN = {"week": 23, "day": 3, "hour": 14, "latitude": 40.72, "longitude": -73.99}

# split, sensor, file, annotator, then the fine and the coarse presences
ROWS = [
    ("train", 1, "01_1.wav", 5, 1, 0, 0, 0, 0, 1, 0, 0),
    ("train", 1, "01_2.wav", 5, 0, 0, 1, 0, 0, 1, 0, 0),  # an engine of unknown size
    ("train", 2, "02_1.wav", 5, 1, 0, 1, 0, 0, 1, 0, 0),  # a small one, and one of unknown size
    *(("train", 2, "02_2.wav", who, who == 5, who == 6, 0, 0, 0, who < 7, 0, 0) for who in (5, 6, 7)),
    ("train", 2, "02_3.wav", 5, 0, 0, 0, 1, 0, 0, 1, 0),
    ("validate", 3, "03_1.wav", 5, 0, 0, 0, 0, 1, 0, 0, 1),
    ("validate", 3, "03_2.wav", 0, 0, 1, 0, 0, 0, 1, 0, 0),
    ("validate", 3, "03_3.wav", 0, 0, 0, 1, 0, 1, 1, 0, 1),
    ("validate", 4, "04_1.wav", 0, 0, 0, 0, 1, 0, 0, 1, 0),
]


def annotations(rows=ROWS, **columns) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*sonyc_ust.COLUMNS, *(f"{t}_presence" for t in (*FINE, *COARSE))])
    table[[f"{t}_presence" for t in NAMES]] = table[[f"{t}_presence" for t in NAMES]].astype(int)
    return table.assign(**(WHEN | columns))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """data/joint and folds.csv of the rows above, crowd clips held out."""
    folder = tmp_path_factory.mktemp("joint")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        download(folder, annotations())
        run(prepare, "sonyc_ust_joint", "--source", folder, "--out", "data/joint")
        run(make_folds, "--clips", "data/joint/clips.csv", "--out", "folds.csv")
    return folder


def data_of(prepared, **changed) -> DataConfig:
    return DataConfig(
        competition="sonyc_ust_joint", root=str(prepared / "data/joint"), folds=str(prepared / "folds.csv"),
        keep_unlabelled=True, **changed,
    )  # fmt: skip


def test_what_nobody_can_tell_is_unknown():
    clips = sonyc_ust.clip_table(annotations(), "joint").set_index("clip_id")
    assert clips.labels["01_2"] == "1_engine 1-X_engine"
    unknown = clips.unknown_labels.to_dict()
    assert unknown["01_1"] == ""  # a small one, and nothing else
    assert unknown["01_2"] == "1-1_small 1-2_large"
    assert unknown["02_1"] == "1-2_large"  # the small one was heard
    assert clips.labels["02_2"] == "1_engine"  # two of three heard an engine, no two the same
    assert unknown["02_2"] == "1-1_small 1-2_large"
    assert unknown["02_3"] == unknown["03_1"] == ""


def test_the_mask_and_the_levels(prepared):
    whole = load_data(data_of(prepared))
    assert whole.classes == NAMES
    assert read_table(prepared / "data/joint/classes.csv").level.tolist() == [
        "coarse", "coarse", "coarse", "fine", "fine", "incomplete", "fine", "fine",
    ]  # fmt: skip
    at = whole.clips.clip_id.tolist().index("01_2")
    assert whole.target[at].tolist() == [1, 0, 0, 0, 0, 1, 0, 0]
    assert whole.mask[at].tolist() == [1, 1, 1, 0, 0, 1, 1, 1]
    assert load_data(data_of(prepared, mask_unknown=False)).mask.all()
    some = load_data(data_of(prepared, levels=("coarse", "fine")))
    assert some.classes == [n for n in NAMES if n != "1-X_engine"]
    assert some.target[at].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert some.mask[at].tolist() == [1, 1, 1, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="data.levels: no class has the level 'course'; did you mean 'coarse'"):
        load_data(data_of(prepared, levels=("course",)))


def test_a_label_wins_over_unknown_and_a_wrong_name_is_an_error():
    clips = pd.DataFrame({"clip_id": ["a"], "labels": ["x"], "unknown_labels": ["x y"]})
    target, mask = clip_targets(clips, ["x", "y"])
    assert (target.tolist(), mask.tolist()) == ([[1, 0]], [[1, 0]])
    with pytest.raises(ValueError, match="clip 'a' has the label 'y'"):
        clip_targets(clips, ["x"])
    assert clip_targets(clips, ["x"], left_out=["y"])[1].tolist() == [[1]]


def found_of(clip_ids, classes, scores) -> Predictions:
    n = len(clip_ids)
    return Predictions(
        np.array(clip_ids), tuple(classes), np.asarray(scores, np.float32), np.zeros(n, int), np.zeros(n, bool)
    )


def test_both_levels_are_scored_from_the_annotations_also_without_the_x(prepared):
    """31 outputs: a fine tag where the truth has an X is no mistake, as in the public evaluation of the whole truth."""
    held_out = load_data(data_of(prepared, levels=("coarse", "fine"))).split(0, "folds.csv")[1]
    held_out = held_out.take(held_out.clips.is_verified.to_numpy() == 1)
    classes = held_out.classes
    scores = np.random.default_rng(0).random((len(held_out.clips), len(classes)))
    scores[held_out.clips.clip_id.tolist().index("03_3"), classes.index("1-1_small")] = 0.97
    found, truth = found_of(held_out.clips.clip_id, classes, scores), answers_of(held_out)
    got = tasks.get_task("ust", "sonyc_ust_joint").score(found, truth)
    whole = read_table(prepared / "data/joint/truth.csv").set_index("audio_filename")
    whole = whole.loc[[f"{c}.wav" for c in found.clip_ids]]
    said = pd.DataFrame(found.clipwise_output.astype(float), columns=classes)
    for level in ("coarse", "fine"):
        expected = urban_metrics.evaluate(whole, said, level)
        for name in ("macro_auprc", "micro_auprc", "micro_f1"):
            assert got[f"{level}_{name}"] == pytest.approx(expected[name]), (level, name)
    assert got["macro_auprc"] == got["coarse_macro_auprc"]
    assert {"auprc_1_engine", "auprc_8_dog"} <= set(got)
    blind = tasks.get_task("ust").score(found, Truth(truth.target))
    assert blind["fine_micro_auprc"] < got["fine_micro_auprc"], "without the X the small engine counts as a mistake"
    again = read_truth(found, prepared / "data/joint/clips.csv")
    np.testing.assert_array_equal(again.target, truth.target)


def test_verified_clips_have_scores_of_their_own(prepared):
    held_out = load_data(data_of(prepared)).split(0, "folds.csv")[1]
    assert len(held_out.clips) == 4
    scores = np.random.default_rng(1).random((4, len(NAMES)))
    found, truth = found_of(held_out.clips.clip_id, NAMES, scores), answers_of(held_out)
    got = tasks.TASKS["ust"].score(found, truth)
    only = held_out.clips.is_verified.to_numpy() == 1
    alone = tasks.TASKS["ust"].score(found.take(only), truth.take(only))
    assert got["verified_fine_macro_auprc"] == alone["fine_macro_auprc"] != got["fine_macro_auprc"]
    assert not any(name.startswith("verified_") for name in alone)


def test_what_becomes_of_the_crowds_validate_clips(tmp_path, caplog):
    folder = download(tmp_path, annotations())
    fold_of = {
        how: get_competition("sonyc_ust_joint").prepare(folder, crowd=how).clips.set_index("clip_id").official_fold
        for how in sonyc_ust.CROWD
    }
    assert fold_of["held_out"]["03_1"] == 0
    assert fold_of["train"]["03_1"] == -1
    assert "03_1" not in fold_of["left_out"]
    assert all(of["03_2"] == of["03_3"] == of["04_1"] == 0 for of in fold_of.values())
    assert "1 validate clips that nobody verified are trained on, together with the sensors" in caplog.text
    download(tmp_path, annotations([row for row in ROWS if row[3] != 0]))
    with pytest.raises(ValueError, match="crowd=train would leave nothing held out"):
        sonyc_ust.prepare(folder, crowd="train")


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("hour", 25, "hour must be a whole number from 0 to 23; 1 clips have another: 01_2: 25"),
        ("week", 0, "week must be a whole number from 1 to 53; 1 clips have another: 01_2: 0"),
        ("day", 2.5, "day must be a whole number from 0 to 6; 1 clips have another: 01_2: 2.5"),
        ("latitude", None, "latitude must be from -90 to 90; 1 clips have another: 01_2: nothing"),
    ],
)
def test_impossible_times_and_places_are_named_at_prepare(tmp_path, caplog, column, value, text):
    table = annotations()
    table[column] = table[column].astype(object)
    table.loc[1, column] = value
    folder = download(tmp_path, table)
    with pytest.raises(ValueError, match=text):
        sonyc_ust.prepare(folder, level="joint")
    clips = sonyc_ust.prepare(folder, level="joint", metadata="gaps").clips.set_index("clip_id")
    assert clips[column].isna().to_dict() == {c: c == "01_2" for c in clips.index}
    assert text in caplog.text


def test_a_submission_drops_the_x_and_can_be_made_consistent(prepared, monkeypatch, capsys):
    monkeypatch.chdir(prepared)
    test = read_table("data/joint/test.csv")
    scores = np.random.default_rng(2).random((len(test), len(NAMES)))
    found = found_of(test.clip_id, NAMES, scores)
    found.save("found.npz")
    (prepared / "post.yaml").write_text("coarse_from: fine\n")
    arguments = ("--competition", "sonyc_ust_joint", "--test", "data/joint/test.csv", "--predictions", "found.npz")
    run(submit, *arguments, "--truth", "data/joint/truth.csv", "--out", "plain.csv")
    assert "fine_macro_auprc" in capsys.readouterr().out
    run(submit, *arguments, "--post", "post.yaml", "--out", "consistent.csv")
    plain, consistent = read_table("plain.csv"), read_table("consistent.csv")
    assert plain.columns.tolist() == ["audio_filename", *COARSE, *(n for n in FINE if "-X" not in n)]
    np.testing.assert_allclose(plain["1_engine"], scores[:, 0], rtol=1e-6)
    np.testing.assert_allclose(consistent["1_engine"], scores[:, [0, 3, 4, 5]].max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(consistent["8-1_dog-barking"], scores[:, 7], rtol=1e-6)
    truth = read_truth(found, prepared / "data/joint/clips.csv")
    official = get_competition("sonyc_ust_joint")
    of_oof = official.oof_score.of(found, truth, PostProcess(coarse_from="fine"))
    assert of_oof == pytest.approx(official.score(consistent, read_table("data/joint/truth.csv")))


def test_the_loss_of_two_levels():
    out = {"logit": torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]])}
    batch = {
        "target": torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        "mask": torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
    }
    entry = losses.elementwise_bce(out["logit"], batch["target"], True)
    coarse, fine = (entry[0, 0] + entry[1, 0]) / 2, (entry[0, 2] + entry[1, 1]) / 2
    loss = losses.build_loss("coarse_fine", {"coarse": 1, "coarse_weight": 0.5, "fine_weight": 3})
    torch.testing.assert_close(loss(out, batch), 0.5 * coarse + 3 * fine)
    both = losses.coarse_fine(out, batch, coarse=2)
    torch.testing.assert_close(losses.coarse_fine(out, batch), both)  # of three classes the last is fine
    with pytest.raises(ValueError, match="loss.params.coarse is 3: the first so many classes"):
        losses.coarse_fine(out, batch, coarse=3)


def test_both_levels_of_the_2019_release(released):  # noqa: F811
    """Of the verified clips the coarse columns are the maximum of the fine ones, but for 72 with machinery that is no
    kind of it; an X masks its own group alone."""
    table = read_table(released / "annotations_v1.csv", sonyc_ust.COLUMNS)
    clips = sonyc_ust.clip_table(table, "joint", votes="any")
    names = sonyc_ust.tags_of(table, "joint")
    assert (len(names), [sonyc_ust.level_of(n) for n in names].count("fine")) == (37, 23)
    heard = pd.DataFrame({n: clips.labels.str.split().map(lambda labels, n=n: n in labels) for n in names})
    fine = [n for n in names if sonyc_ust.level_of(n) != "coarse"]
    coarse = urban_metrics.coarse_truth(heard[fine].astype(int))
    verified = (clips.is_verified == 1).to_numpy()
    own = heard[list(sonyc_ust.COARSE)].to_numpy()
    differ = (coarse.to_numpy()[verified] != own[verified]).sum(axis=0)
    assert differ.tolist() == [0, 72, 0, 0, 0, 0, 0, 0]
    with_x = heard["1-X_engine-of-uncertain-size"]
    assert with_x.sum() > 100
    for labels, unknown in zip(clips.labels[with_x], clips.unknown_labels[with_x], strict=True):
        group = {n for n in fine if n.startswith("1-") and "-X" not in n}
        assert set(unknown.split()) & group == group - set(labels.split())
