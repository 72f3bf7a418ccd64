"""Each fold's thresholds from the other folds, and held-out recordings heard as if they had been recorded otherwise."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from earshot import tasks
from earshot.audits import robustness
from earshot.audits.robustness import AS_IT_IS, CHANGES, Judge
from earshot.competitions import get_competition
from earshot.ensemble.apart import choose_apart, scores_apart
from earshot.events import PostProcess
from earshot.pages import audit as audit_page
from earshot.prediction.inference import Member
from earshot.prediction.predictions import Clip, Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing

RATE, HOP, CLASSES = 8000, 80, ("vocal",)
BASE = TimeBase(RATE, HOP)
ON = [(0.30, 0.40), (0.60, 0.70)]
FINCH = get_competition("finch_vocal")
FEW = replace(FINCH, post=replace(FINCH.post, threshold=(0.02, 0.09, 0.5, 0.8)))  # values to try: the search stays fast


class LevelBackend:
    """Vocal where the level of 10-ms frames is above -23 dB: it follows the level, as a threshold on energy does."""

    inputs, pooling = ("waveform",), ""

    def __init__(self):
        from earshot.inputs.given import Waveform

        self.timebase, self.frontends = BASE, {"waveform": Waveform().resolved(RATE, "mono", "waveform")}

    def run(self, inputs):
        wave = inputs["waveform"]
        power = (wave[:, : wave.shape[1] // HOP * HOP].reshape(len(wave), -1, HOP) ** 2).mean(axis=2)
        frames = (1 / (1 + np.exp(-(10 * np.log10(power + 1e-10) + 23)))).astype(np.float32)[..., None]
        return {"clipwise_output": frames.max(axis=1), "segmentwise_output": frames}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """Six recordings of three birds (folds): tones of -20 dB at ON over a little noise; OOF, truth and members."""
    folder, rng, clips, events = tmp_path_factory.mktemp("birds"), np.random.default_rng(0), [], []
    t = np.arange(RATE) / RATE
    active = sum((t >= a) & (t < b) for a, b in ON)
    for i in range(6):
        sound = 0.141 * np.sin(2 * np.pi * 1500 * t) * active + 1e-3 * rng.standard_normal(RATE)
        soundfile.write(folder / f"b{i}.wav", sound, RATE, subtype="PCM_24")
        clips.append(Clip(f"b{i}", folder / f"b{i}.wav"))
        events += [(f"b{i}", a, b, "vocal") for a, b in ON]
    how = Windowing(sample_rate=RATE, window_seconds=1.0, keep_frames=True, batch_size=4, aggregate="max")
    member = Member(backend=LevelBackend(), windowing=how, classes=CLASSES, prior=np.array([0.5]))
    members = dict.fromkeys((0, 1, 2), member)
    by_fold = {f: clips[2 * f : 2 * f + 2] for f in members}
    oof = robustness.heard_otherwise(members, by_fold, CHANGES[0])
    table = pd.DataFrame({"clip_id": oof.clip_ids, "duration": 1.0})
    truth = Truth(np.ones((6, 1), bool), pd.DataFrame(events, columns=["filename", "onset", "offset", "event_label"]),
                  clips=table)  # fmt: skip
    return oof, truth, members, clips


@pytest.fixture(scope="module")
def judge(birds):
    """Of the recordings' own OOF: thresholds of 0.5, as the search starts with, keep this module fast."""
    posts = dict.fromkeys((0, 1, 2), PostProcess(threshold=0.5, iou_threshold=None))
    task = tasks.get_task("sed", "finch_vocal")
    return Judge(task=task, watch="frame_map", competition=FINCH, posts=posts)


@pytest.fixture(scope="module")
def heard(birds, judge):
    """Every change, heard."""
    oof, truth, members, clips = birds
    return robustness.robustness(judge, members, oof, truth, clips)


def test_a_detector_of_energy_is_found_out(heard):
    table = heard.set_index("change")
    assert table.loc[AS_IT_IS, "event_f1"] == 1.0
    assert table.loc["level -12 dB", "event_f1 falls"] > 0.9
    assert table.loc["level +6 dB", "event_f1"] == 1.0
    assert table.loc["reverberation 0.8 s, direct sound +0 dB", "event_f1 falls"] > 0.3
    assert table.frame_map.min() < 0.999
    assert list(table.index) == [change.name for change in CHANGES]
    fall, worst = robustness.largest_fall(table.reset_index(), "event_f1", "level ")
    assert (round(fall, 6), worst) == (1.0, "level -12 dB")


def test_heard_at_one_level_it_is_robust_to_it(birds, judge):
    oof, truth, members, clips = birds
    normal = {f: replace(m, windowing=replace(m.windowing, level="normalised")) for f, m in members.items()}
    levels = [c for c in CHANGES if c.name.startswith("level")]
    table = robustness.robustness(judge, normal, oof, truth, clips, all_changes=[CHANGES[0], *levels])
    assert table["event_f1 falls"].abs().max() < 0.01


def test_recordings_are_spread_over_folds_and_long_ones_left_out(birds, judge):
    oof, truth, members, clips = birds
    assert robustness.spread_over(oof, None, 3).tolist() == [0, 2, 4]
    assert robustness.spread_over(oof, [1, 1, 1e4, 1, 1, 1], 3).tolist() == [0, 3, 4]
    assert robustness.spread_over(oof, None, 100).tolist() == list(range(6))
    table = robustness.robustness(judge, members, oof, truth, clips, 3, all_changes=CHANGES[:1])
    assert table.recordings.tolist() == [3]


def test_an_unreadable_recording_is_left_out_of_scores(birds, judge, tmp_path):
    oof, truth, members, clips = birds
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    clips = [Clip("b0", tmp_path / "bad.wav"), *clips[1:]]
    table = robustness.robustness(judge, members, oof, truth, clips, all_changes=CHANGES[:1])
    assert table.event_f1.tolist() == [1.0]


def test_the_page_says_what_falls(heard):
    verdicts, table = audit_page.of_robustness(heard, "run <a>")
    (watched, _), (own, bad) = verdicts
    assert watched.startswith("run <a>: frame_map falls by at most ")
    assert bad
    assert "event_f1 falls by at most 1.000 where recordings are 12 dB louder or softer" in own
    assert "train with data.level=normalised" in own
    assert "data.level" not in audit_page.of_robustness(heard, "run <a>", "normalised")[0][1][0]
    text = audit_page.page("Audit", "now", verdicts, [table])
    assert "Recorded otherwise: run &lt;a&gt;" in text
    assert "level -12 dB" in text
    json.dumps([list(row) for row in table.rows], default=float)


def outputs(bird_peaks):
    """OOF of a clip a fold: frames of 0.9 x the bird's peak where it sings, of 0.6 x the peak elsewhere."""
    frames = []
    for peak in bird_peaks:
        one = np.full((100, 1), 0.6 * peak, np.float32)
        for a, b in ON:
            one[round(a * 100) : round(b * 100)] = 0.9 * peak
        frames.append(one)
    n = len(frames)
    oof = Predictions(np.array([f"c{i}" for i in range(n)]), CLASSES, np.array([f.max() for f in frames])[:, None],
                      np.arange(n), np.zeros(n, bool), framewise_output=tuple(frames), timebase=BASE)  # fmt: skip
    events = pd.DataFrame([(f"c{i}", a, b, "vocal") for i in range(n) for a, b in ON],
                          columns=["filename", "onset", "offset", "event_label"])  # fmt: skip
    return oof, Truth(np.ones((n, 1), bool), events)


@pytest.mark.slow
def test_no_fold_chooses_for_itself():
    """Two birds need a threshold of about 0.07 to 0.1, the last one of 0.6 to 0.9: it must not get its own."""
    oof, truth = outputs([0.12, 0.12, 1.0])
    posts = choose_apart(oof, truth, FEW.oof_score, FEW.post, steps=("threshold",))
    values = {f: v["event_f1"] for f, v in scores_apart(oof, truth, FINCH.oof_score, posts).items()}
    assert 0.07 < posts[2].threshold < 0.11
    assert values[2] == 0.0
    assert Judge.of(tasks.get_task("sed", "finch_vocal"), "frame_map", FEW, oof, truth).posts == posts


def test_one_fold_alone_has_no_others():
    oof, truth = outputs([1.0])
    with pytest.raises(ValueError, match="all of fold 0: train the other folds"):
        choose_apart(oof, truth, FINCH.oof_score, FINCH.post)


def test_a_fold_without_events_has_no_score():
    oof, truth = outputs([1.0, 1.0])
    truth = replace(truth, events=truth.events[truth.events.filename == "c0"])
    found = scores_apart(oof, truth, FINCH.oof_score, dict.fromkeys((0, 1), PostProcess(iou_threshold=None)))
    assert set(found) == {0, 1}
    assert found[1].get("event_f1", np.nan) != 1.0
