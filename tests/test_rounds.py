"""Choosing windows, the share of them in training, and whole schedules."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import describe
import pseudo_label
import run_rounds
import train
from conftest import write_tiny
from earshot.augment.mixing import partners_apart
from earshot.augment.pipeline import augment_batch
from earshot.augment.pseudo import PseudoMixing
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.data.pseudo import Manifest, PseudoLabels
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.prediction.origin import TableDigests
from earshot.processes import children
from earshot.rounds.choosing import Candidates, Choice, choose
from earshot.rounds.judging import decide, judge
from earshot.rounds.plan import Honest, read_plan, steps_of
from earshot.training.examples import TrainingClips, collate
from earshot.training.pseudo import PseudoWindows, labelled_soundscapes, mass_cap, told
from scripts import run

OVER = ("augment.pseudo.how=mix", "augment.pseudo.first=1", "augment.pseudo.last=1", "augment.pseudo.max_mass=0")

# ---- choosing


def found(n: int = 40, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, n).round(2)
    return Candidates(
        confidence=confidence, top=rng.integers(0, 4, n), recording=np.arange(n) // 5, site=rng.integers(-1, 3, n),
        mass=rng.uniform(0.5, 2, n),
    )  # fmt: skip


def slow_choice(c: Candidates, asked: Choice, labels: float) -> list[int]:
    """The readable way: ask each window in turn."""
    place = [sum((c.confidence[j], -j) > (c.confidence[i], -i) and c.top[j] == c.top[i] for j in range(len(c)))
             for i in range(len(c))]  # fmt: skip
    place = place if asked.order == "classes" else [0] * len(c)
    taken, mass = [], 0.0
    for i in sorted(range(len(c)), key=lambda i: (place[i], -c.confidence[i], i)):
        full = False
        for values, most in ((c.top, asked.per_class), (c.site, asked.per_site), (c.recording, asked.per_recording)):
            full |= bool(most) and values[i] >= 0 and sum(values[j] == values[i] for j in taken) >= most
        if not full and (not asked.mass or mass + c.mass[i] <= asked.mass * labels):
            taken.append(i)
            mass += c.mass[i]
    return taken


@given(
    st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.sampled_from([0, 0.5, 1.0]),
    st.sampled_from(["classes", "surest"]),
)  # fmt: skip
def test_the_choice_is_that_of_the_readable_way(seed, per_class, per_site, per_recording, mass, order):
    asked = Choice(per_class=per_class, per_site=per_site, per_recording=per_recording, mass=mass, order=order)
    c = found(seed=seed)
    assert choose(c, asked, 20.0).tolist() == slow_choice(c, asked, 20.0)


def test_classes_take_turns_so_that_a_common_one_does_not_take_all():
    c = Candidates(confidence=np.array([0.9] * 9 + [0.6]), top=np.array([0] * 9 + [1]), recording=np.arange(10),
                   site=np.full(10, -1), mass=np.ones(10))  # fmt: skip
    assert choose(c, Choice(mass=1), 2).tolist() == [0, 9]
    assert choose(c, Choice(mass=1, order="surest"), 2).tolist() == [0, 1]
    none = Candidates(**{k: v[:0] for k, v in vars(c).items()})
    assert choose(none, Choice(), 2).tolist() == []


def test_targets():
    p = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(Choice(power=2).targets(p), [0.01, 0.25, 0.81], rtol=1e-6)
    np.testing.assert_allclose(Choice(floor=0.3).targets(p), [0, 0.5, 0.9], rtol=1e-6)
    assert Choice(hard=0.5).targets(p).tolist() == [0, 1, 1]


# ---- the share in training


def test_the_ramp():
    record = PseudoMixing(first=0.2, last=0.6, off_epochs=1)
    assert [round(record.probability(e, 6), 3) for e in range(6)] == [0.2, 0.3, 0.4, 0.5, 0.6, 0.0]
    held = PseudoMixing(first=0.0, last=0.5, ramp_epochs=2)
    assert [held.probability(e, 5) for e in range(5)] == [0, 0.25, 0.5, 0.5, 0.5]
    for wrong, said in (
        ({"how": "x"}, "how is 'x'"),
        ({"last": 2}, "last is a probability, got 2"),
        ({"gain_db": (3, -3)}, "gain_db must be two levels"),
        ({"weight": 0}, "weight must be"),
    ):
        with pytest.raises(ValueError, match=said):
            PseudoMixing(**wrong)


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return root, write_tiny(root)


def windows_of(root, target, n=8) -> tuple[Manifest, PseudoLabels]:
    """Windows of the test recording t2 (class high) that are said to be `target`."""
    manifest = Manifest(
        mode="isolated", classes=("low", "mid", "high"), window_seconds=1.0, source=str(root / "source"),
        folds_table="folds.csv", tables=TableDigests(folds="", classes="", clips=""), teachers={}, masses={},
    )  # fmt: skip
    windows = PseudoLabels(
        clip_ids=np.array(["t2"] * n), paths=np.array(["t2.wav"] * n), starts=np.arange(n) / 2.0,
        target=np.tile(np.array(target, np.float16), (n, 1)), confidence=np.ones(n), keys=np.array(["clip t2"] * n),
    )  # fmt: skip
    return manifest, windows


def clips_with(root, config_path, target, *settings, annotated=None):
    """Training clips of fold 0 with windows of `target`, and the config."""
    config = load_config(config_path, [f"data.root={root}/data", *settings])
    data, _ = load_data(config.data).split(0, config.data.folds)
    if annotated is not None:
        data = replace(data, clips=data.clips.assign(annotated=annotated))
    manifest, windows = windows_of(root, target)
    data = replace(data, pseudo=windows, pseudo_manifest=manifest)
    heard = config.inputs(("logmel",))
    return TrainingClips(data, config.data, heard, config.seed, pseudo=PseudoWindows(data, config, heard, root)), config


def test_as_often_as_the_ramp_says_an_example_is_a_window(tiny_data):
    clips, _ = clips_with(*tiny_data, (0, 0, 1), "augment.pseudo.first=0", "augment.pseudo.last=0.4",
                          "augment.pseudo.max_mass=0", "augment.pseudo.weight=0.5", "optim.epochs=2")  # fmt: skip
    drawn = [[clips[(epoch, i, r)] for i in range(15) for r in range(4)] for epoch in (0, 1)]
    share = [np.mean(["@" in str(e["clip_id"]) for e in some]) for some in drawn]
    assert share[0] == 0
    assert 0.25 < share[1] < 0.55
    window = next(e for e in drawn[1] if "@" in str(e["clip_id"]))
    assert (window["target"].tolist(), window["weight"], window["soundscape"]) == ([0, 0, 1], 0.5, 2)
    again = clips[(1, 3, 2)]
    for key, value in clips[(1, 3, 2)].items():
        np.testing.assert_array_equal(value, again[key])
    plain, _ = clips_with(*tiny_data, (0, 0, 1), "augment.pseudo.first=0", "augment.pseudo.last=0")
    alone = TrainingClips(plain.prepared, plain.data, plain.inputs, plain.seed)
    for i in range(5):
        np.testing.assert_array_equal(plain[(1, i)]["waveform"], alone[(1, i)]["waveform"])
    batch = collate(drawn[1][:8])
    assert batch["weight"].dtype == torch.float32


def test_a_window_over_a_clip_adds_its_sound_and_its_classes(tiny_data):
    clips, _ = clips_with(*tiny_data, (0, 0, 0.75), *OVER, "augment.pseudo.gain_db=[0,0]")
    alone = TrainingClips(clips.prepared, clips.data, clips.inputs, clips.seed)
    low = clips.prepared.clips.index[clips.prepared.clips.labels == "low"][0]
    both, own = clips[(0, low)], alone[(0, low)]
    np.testing.assert_allclose(both["target"], [1, 0, 0.75])
    spectrum = [np.abs(np.fft.rfft(x["waveform"])) for x in (own, both)]
    assert spectrum[1][3000] > 20 * spectrum[0][3000], "the tone of t2, 3 kHz, is heard"
    assert spectrum[1][300] == pytest.approx(spectrum[0][300], rel=0.05), "the clip's own stays"


def test_pseudo_labels_never_outweigh_labels(tiny_data):
    clips, _ = clips_with(*tiny_data, (1, 1, 1), "augment.pseudo.first=0.9", "augment.pseudo.last=0.9")
    assert clips.pseudo.cap == pytest.approx(0.25), "three labels a window against one a clip: 3 p = 1 - p"
    assert clips.pseudo.probability(0) == pytest.approx(0.25)
    assert "held at 0.25 so that pseudo-labels weigh at most 1 x the labels" in told(clips.pseudo)
    target, data = clips.pseudo.target, clips.prepared
    assert mass_cap(PseudoMixing(max_mass=0), target, data) == 1
    assert mass_cap(PseudoMixing(how="mix"), target, data) == pytest.approx(1 / 3)


def test_labelled_soundscapes_stay_apart_unless_asked(tiny_data):
    scapes = np.arange(15) % 2
    clips, config = clips_with(*tiny_data, (0, 0, 1), *OVER, annotated=scapes)
    kinds = [int(clips[(0, i)]["soundscape"]) for i in range(6)]
    assert kinds == [2, 1, 2, 1, 2, 1], "no window over a labelled soundscape"
    assert "7 labelled soundscapes are never on one example with them" in told(clips.pseudo)
    asked, _ = clips_with(*tiny_data, (0, 0, 1), *OVER, "augment.pseudo.with_soundscapes=true", annotated=scapes)
    assert all(int(asked[(0, i)]["soundscape"]) == 0 for i in range(6))
    assert asked[(0, 1)]["target"][2] == 1
    record = PseudoMixing(soundscapes={"labels": "low"})
    assert labelled_soundscapes(clips.prepared.clips, record).sum() == (clips.prepared.clips.labels == "low").sum()
    with pytest.raises(ValueError, match="names column 'kind', which clips.csv has not"):
        labelled_soundscapes(clips.prepared.clips, PseudoMixing(soundscapes={"kind": "x"}))
    batch = collate([clips[(0, i)] for i in range(6)])
    for mixing in ({"mixup_on": "waveform"}, {"mixup_on": "logmel"}, {"fmix_p": 1.0}):
        front_ends = FrontEnds(config.inputs(("logmel",)))
        augment = replace(config.augment.batch, **{"mixup_on": "none", "mixup_alpha": 1.0} | mixing)
        for seed in range(5):
            out = augment_batch(dict(batch), front_ends, augment, torch.Generator().manual_seed(seed))
            scape = out["target"][1::2]
            own = batch["target"][1::2]
            assert not ((scape[:, 2] > 0) & (own[:, 2] == 0)).any() or (out["soundscape"][1::2] == 1).all()
            assert set(out["soundscape"].tolist()) <= {1, 2}


@given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.integers(0, 1000))
def test_partners_of_the_other_kind_are_none(kinds, seed):
    kinds = torch.tensor(kinds)
    index = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    kept = partners_apart(index, kinds)
    assert not ((kinds * kinds[kept]) == 2).any()
    fine = (kinds * kinds[index]) != 2
    assert torch.equal(kept[fine], index[fine])
    assert torch.equal(partners_apart(index, None), index)


# ---- schedules


def test_a_schedule_stops_where_nothing_is_gained():
    assert decide([0.5], Honest()) == (0, False)
    assert decide([0.5, 0.6], Honest()) == (1, False)
    assert decide([0.5, 0.6, 0.6], Honest()) == (1, True)
    assert decide([0.5, 0.51], Honest(min_gain=0.02)) == (0, True)
    assert decide([0.5, 0.4, 0.6], Honest(patience=2)) == (2, False)


def test_a_score_that_is_none_is_never_the_best():
    nan = float("nan")
    assert decide([nan, 0.5, 0.6], Honest()) == (2, False)
    assert decide([0.5, nan], Honest()) == (0, True)
    assert decide([nan, 0.5], Honest()) == (1, False)
    with pytest.raises(ValueError, match="the honest score is nan, nan, which decides nothing"):
        decide([nan, nan], Honest())


def test_every_schedule_can_be_read():
    paths = sorted((Path(__file__).parents[1] / "configs" / "rounds").glob("*.yaml"))
    assert paths
    for path in paths:
        plan = read_plan(path)
        for number in range(1, plan.rounds + 1):
            plan.choice(number)
        load_config(path.parents[2] / plan.student.config, plan.student.set)


def test_wrong_schedules_are_refused(tmp_path, monkeypatch, capsys):
    root = write_tiny(tmp_path).parent
    monkeypatch.chdir(root)
    good = {"teacher": {"config": "tiny.yaml"}, "student": {"config": "tiny.yaml"}, "unlabelled": "scapes"}
    for changed, said in (
        ({"rounds": 0}, "rounds must be 1 to 20"),
        ({"teacher": {"config": "tiny.yaml", "runs": ["runs/sed/a"]}}, "teacher needs a config to train, or runs"),
        ({"labels": {"min_confidense": 0.4}}, "did you mean 'min_confidence'"),
        ({"each": [{"power": -1}]}, "power must be above 0"),
        ({"student": {"config": "tiny.yaml", "set": ["data.pseudo=x"]}}, "the schedule itself says"),
        ({"roundz": 2}, "did you mean 'rounds'"),
    ):
        Path("plan.yaml").write_text(yaml.safe_dump(good | changed))
        with pytest.raises(ValueError, match=said):
            read_plan(Path("plan.yaml"))
    pd.read_csv("folds.csv").to_csv("other.csv", index=False)
    Path("plan.yaml").write_text(
        yaml.safe_dump(good | {"teacher": {"config": "tiny.yaml", "set": ["data.folds=other.csv"]}})
    )
    with pytest.raises(ValueError, match=r"the folds of teacher tiny.yaml are those of other.csv and those of the "
                       r"student those of .*folds.csv"):  # fmt: skip
        steps_of(read_plan(Path("plan.yaml")), "plan")
    deaf = {"config": "tiny.yaml", "set": ["augment.pseudo.off_epochs=2", "optim.epochs=2"]}
    Path("plan.yaml").write_text(yaml.safe_dump(good | {"student": deaf}))
    with pytest.raises(
        ValueError, match=r"off_epochs \(2\) leaves no epoch of optim.epochs \(2\) to the pseudo-labels"
    ):
        steps_of(read_plan(Path("plan.yaml")), "plan")
    Path("plan.yaml").write_text(yaml.safe_dump(good))
    with pytest.raises(ValueError, match="unlabelled scapes does not exist"):
        run(run_rounds, "plan.yaml")
    Path("scapes").mkdir()
    wrong = {"config": "tiny.yaml", "set": ["data.pseudo_labels=x"]}
    for teacher, said in ((wrong, "unknown key"), ({**wrong, "set": ["loss.name=bc"]}, "did you mean 'bce'")):
        Path("plan.yaml").write_text(yaml.safe_dump(good | {"teacher": teacher}))
        with pytest.raises(ValueError, match=said):
            run(run_rounds, "plan.yaml", "--check")
    Path("plan.yaml").write_text(yaml.safe_dump(good))
    run(run_rounds, "plan.yaml", "--check")
    assert capsys.readouterr().out.splitlines()[1:2] == [
        "round 1: runs/sed/plan-round1, tiny.yaml, with labels of scapes by runs/sed/plan-round0"
    ]
    assert not Path("runs").exists()
    names = [str(step.run) for step in steps_of(read_plan(Path("plan.yaml")), "p")]
    assert names == ["runs/sed/p-round0", "runs/sed/p-round1", "runs/sed/p-round2"]


def test_the_honest_split_may_be_a_validation_set(tmp_path, monkeypatch):
    """validation.csv and its rows, by the competition's score; the folds' own values beside it."""
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(train, "--config", "tiny.yaml", "--fold", "0", "--name", "t", "optim.epochs=1")
    config, honest = load_config("tiny.yaml"), Honest(split="validation")
    with pytest.raises(ValueError, match=r"data has no validation.csv .* set honest.split to oof"):
        judge(Path("runs/sed/t"), config, honest)
    for name, other in (("test_clips", "validation"), ("test", "validation_rows")):
        Path(f"data/{other}.csv").write_text(Path(f"data/{name}.csv").read_text())
    rows = pd.read_csv("data/test.csv")
    pd.DataFrame({"row_id": rows.row_id, "birds": "nocall"}).to_csv("data/validation_truth.csv", index=False)
    found = judge(Path("runs/sed/t"), config, honest)
    assert (found.score, list(found.of_folds)) == ("row_micro_f1", [0])
    assert found.value == found.of_folds[0]
    with pytest.raises(ValueError, match="honest.score 'auk' is no score of these clips"):
        judge(Path("runs/sed/t"), config, Honest(split="validation", score="auk"))
    with pytest.raises(ValueError, match="where chooses among the held-out clips"):
        Honest(split="validation", where={"a": "b"})


@pytest.mark.slow
def test_a_schedule_from_nothing_and_after_a_kill(tmp_path, monkeypatch, capsys):
    """Two rounds by one command; killed in the second's training, the same command goes on to the same figures."""
    from test_pseudo_label import write_unlabelled

    root = write_tiny(tmp_path).parent
    monkeypatch.chdir(root)
    write_unlabelled(root / "scapes")
    settings = ["loss.name=bce", "predict.keep_frames=false", "optim.ema_decay=0", "optim.epochs=2"]
    plan = {
        "teacher": {"config": "tiny.yaml", "set": settings}, "student": {"config": "tiny.yaml", "set": settings},
        "unlabelled": "scapes/unlabelled.csv", "folds": [0, 1], "labels": {"min_confidence": 0.2, "per_site": 6},
        "honest": {"score": "map", "patience": 5},
    }  # fmt: skip
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    called = []

    def here(command, check=False):
        called.append(Path(command[1]).stem)
        if len(called) == 5:
            raise KeyboardInterrupt
        run({"train": train, "pseudo_label": pseudo_label}[called[-1]], *command[2:])

    monkeypatch.setattr(children, "run", here)
    with pytest.raises(KeyboardInterrupt):
        run(run_rounds, "plan.yaml")
    first = pd.read_csv("runs/rounds/plan.csv")
    assert first["round"].tolist() == [0, 1]
    run(run_rounds, "plan.yaml", "--only-table")
    assert len(pd.read_csv("runs/rounds/plan.csv")) == 2
    run(run_rounds, "plan.yaml")
    assert called[:4] == ["train", "pseudo_label", "train", "pseudo_label"]
    assert called[5:] == ["train", "train", "train"], "labels that are there are kept; finished folds too"
    table = pd.read_csv("runs/rounds/plan.csv")
    assert table["round"].tolist() == [0, 1, 2]
    assert table.value[:2].tolist() == first.value.tolist(), "what was finished is kept"
    about = json.loads(Path("runs/rounds/plan.json").read_text())
    assert about["best"] == f"runs/sed/plan-round{table.value.idxmax()}"
    assert json.loads(Path("runs/sed/plan-round2/fold0/run.json").read_text())["pseudo"]["by"] == "sed/plan-round1"
    run(describe, "--config", "tiny.yaml", "data.pseudo=data/rounds/plan/round2")
    out = capsys.readouterr().out
    assert "pseudo-labels data/rounds/plan/round2: replace, probability 0.20 to 0.50, weight 1, isolated" in out
    changed = plan | {"labels": {"min_confidence": 0.3}}
    Path("plan.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(ValueError, match="round1 was chosen by other settings than this schedule's round 1"):
        run(run_rounds, "plan.yaml")
