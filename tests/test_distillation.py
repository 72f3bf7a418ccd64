"""Teachers: what they say of a crop, who may answer for whom, the loss that follows them, and training with them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import soundfile
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

import train
from earshot import losses, runs
from earshot.augment.mixing import mix_batch
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.ensemble import lineage
from earshot.inputs.teacher import Distill, Teacher
from earshot.models.cnn import CnnSED
from earshot.prediction.origin import Origin
from earshot.prediction.predictions import Predictions
from earshot.training.lessons import check_unseen, mode_of, prepare_lessons, told
from earshot.training.unlabelled import not_held_out, read_unlabelled, with_left_out, with_unlabelled
from scripts import run

RATE, SIZE = 4000, 2000  # the teacher hears half seconds at 4 kHz
LABELS = "high\nsomething else\nlow\n"  # in its own order; it does not know `mid`


def teacher_file(path="teacher.onnx", outputs=("scores", "embedding")):
    """(B, S) -> embedding: levels of the window and its halves; scores: 0, 9 and the level, for its three classes."""
    weights = np.zeros((SIZE, 3), np.float32)
    weights[:, 0], weights[: SIZE // 2, 1], weights[SIZE // 2 :, 2] = 1 / SIZE, 2 / SIZE, 2 / SIZE
    to_scores = np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]], np.float32)
    nodes = [
        helper.make_node("Abs", ["sound"], ["level"]),
        helper.make_node("MatMul", ["level", "weights"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "to_scores"], ["raw"]),
        helper.make_node("Add", ["raw", "bias"], ["scores"]),
    ]
    tensor, bias = helper.make_tensor_value_info, np.array([0, 9, 0], np.float32)
    constants = {"weights": weights, "to_scores": to_scores, "bias": bias}
    graph = helper.make_graph(
        nodes, "teacher", [tensor("sound", TensorProto.FLOAT, ["batch", SIZE])],
        [tensor(name, TensorProto.FLOAT, ["batch", 3]) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    Path("labels.txt").write_text(LABELS)
    return str(path)


def teacher(**changed):
    known = {"file": "teacher.onnx", "sample_rate": RATE, "output": "embedding", "logits": "scores",
             "labels": "labels.txt", "stride_seconds": 0.25}  # fmt: skip
    return Teacher(**(known | changed))


def lessons_of(config, how, fold=0):
    config = replace(config, distill=how)
    data = load_data(config.data)
    clips, _ = data.split(fold, config.data.folds)
    return prepare_lessons(config, fold, clips, data.classes, Path("cache"), None)


@pytest.fixture
def taught(tiny):
    """The tiny competition and a teacher's file."""
    teacher_file()
    return load_config(tiny)


# ---- what a teacher says


def test_a_crop_hears_the_windows_that_lie_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher_file()
    record = teacher()
    assert [record.count(n) for n in (500, 2000, 2999, 3000, 4000)] == [1, 1, 1, 2, 3]
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)  # 3 of the embedding, 3 logits
    found = record.taken(rows, 1, 4000)
    np.testing.assert_array_equal(found, [*rows[1:4, :3].mean(axis=0), *rows[1:4, 3:].max(axis=0)])
    np.testing.assert_array_equal(record.taken(rows, 9, 2000), rows[3])


@pytest.mark.parametrize("outputs", [("scores", "embedding"), ("embedding", "scores")])
def test_outputs_are_taken_by_name_and_classes_by_theirs(taught, outputs):
    teacher_file(outputs=outputs)
    _, lessons = lessons_of(taught, Distill(teacher=teacher()))
    assert lessons.place.tolist() == [2, -1, 0]  # our low, mid, high
    clip = load_data(taught.data).clips.clip_id[0]
    said = lessons.of_crop(clip, 0.0, 1.0)
    rows = lessons.rows[clip]
    np.testing.assert_allclose(said["teacher_embedding"], rows[:3, :3].mean(0) / np.linalg.norm(rows[:3, :3].mean(0)))
    np.testing.assert_array_equal(said["teacher_known"], [1, 0, 1])
    level = 1 / (1 + np.exp(-rows[:3, 0].max()))
    np.testing.assert_allclose(said["teacher_answer"], [level, 0, 0.5], rtol=1e-6)
    assert "answers for 2 of 3 classes (weight 1), not in its vocabulary: mid" in told(lessons, TINY)


TINY = ("low", "mid", "high")


def test_softmax_answers_sum_to_one_over_the_known_classes(taught):
    _, lessons = lessons_of(taught, Distill(teacher=teacher(), answers="softmax", temperature=2.0))
    said = lessons.of_crop("c0", 0.0, 1.0)["teacher_answer"]
    level = np.exp(lessons.rows["c0"][:3, 0].max() / 2)
    np.testing.assert_allclose(said, [level / (1 + level), 0, 1 / (1 + level)], rtol=1e-6)


def test_teachers_that_do_not_fit_say_why(taught):
    Path("short.txt").write_text("low\nhigh\n")
    Path("other.txt").write_text("Speech\nDog\nCat\n")
    cases = [
        ({"logits": "score"}, "has no output 'score'; did you mean 'scores'"),
        ({"sample_rate": 8000, "window_seconds": 0.5}, "takes 2000 samples, which are 0.25 s at 8000 Hz.*sample_rate"),
        ({"labels": "short.txt"}, r"answers for 3 classes, but short\.txt names 2: it is another network's list"),
        ({"labels": "other.txt"}, "none of the 3 classes .* is among the 3 of other.txt"),
        ({"labels": "lables.txt"}, "lables.txt does not exist; did you mean 'labels.txt'"),
    ]
    for changed, message in cases:
        with pytest.raises(ValueError, match=message):
            lessons_of(taught, Distill(teacher=teacher(**changed)))
    with pytest.raises(ValueError, match="got logits 'scores' and labels ''"):
        teacher(labels="")
    with pytest.raises(ValueError, match="neither an embedding nor answers are taken"):
        lessons_of(taught, Distill(teacher=teacher(logits="", labels=""), embedding_weight=0))


# ---- settings


def test_weights_fall_and_end():
    strengths = [
        [Distill(predictions=("x",), schedule=s, off_epochs=2).strength(e, 6) for e in range(6)]
        for s in ("constant", "linear", "cosine")
    ]
    np.testing.assert_allclose(strengths[0], [1, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(strengths[1], [1, 0.75, 0.5, 0.25, 0, 0])
    np.testing.assert_allclose(strengths[2], [1, 0.853553, 0.5, 0.146447, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("set_to", "message"), [
    (["distill.unlabelled=x"], "distill.unlabelled recordings need a teacher"),
    (["distill.teacher.run=r", "distill.unlabelled=left_out"], "every clip trains with its labels; let data.clips"),
    (["distill.predictions=[a.npz]", "distill.teacher.run=r"], "teacher and predictions both answer"),
    (["distill.predictions=[a.npz]", "distill.off_epochs=3"], r"distill.off_epochs \(3\) leaves no epoch"),
    (["distill.predictions=[a.npz]", "distill.answer_weight=-1"], "distill.answer_weight must be 0 or more"),
    (["distill.predictions=[a.npz]", "distill.answer_weight=0", "distill.embedding_weight=0"], "are both 0"),
    (["distill.predictions=[a.npz]", "distill.schedule=sine"], "schedule is 'sine'"),
    (["distill.predictions=[a.npz]", "distill.temperature=0"], "temperature must be positive"),
])  # fmt: skip
def test_settings_that_make_no_sense(tiny, set_to, message):
    with pytest.raises(ValueError, match=message):
        load_config(tiny, set_to)


# ---- unlabelled recordings


def test_unlabelled_recordings_are_drawn_while_somebody_teaches(taught):
    rng = np.random.default_rng(0)
    Path("wild").mkdir()
    for name in ("a", "b"):
        soundfile.write(f"wild/{name}.wav", 0.1 * rng.standard_normal(24000), 8000)
    how = Distill(teacher=teacher(), unlabelled="wild", unlabelled_share=0.5, off_epochs=1)
    data, lessons = lessons_of(taught, how)
    assert data.clips.clip_id.tolist()[-2:] == ["a", "b"]
    assert not data.mask[-2:].any()
    assert (lessons.n_labelled, lessons.draws) == (15, 8)
    orders = [lessons.order(np.arange(15), 3, epoch) for epoch in (0, 0, 1, 2)]
    np.testing.assert_array_equal(orders[0], orders[1])
    for order in orders[:3]:
        assert sorted(order[order < 15]) == list(range(15))
        assert ((order == 15) | (order == 16)).sum() == 8
    assert sorted(orders[3][:15]) == list(range(15))
    assert orders[3].max() < 15  # nobody teaches any more
    assert len(lessons.of_crop("b", 1.0, 1.0)["teacher_embedding"]) == 3


def test_unlabelled_folders_and_tables_that_hold_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no recording"):
        read_unlabelled(str(tmp_path / "empty"))
    (tmp_path / "u.csv").write_text("clip_id,path\n")
    with pytest.raises(ValueError, match="lists no recording"):
        read_unlabelled(str(tmp_path / "u.csv"))


def test_a_tables_paths_lie_below_its_data_sets_source(tiny, tmp_path):
    Path("data/unlabelled.csv").write_text("clip_id,path\na,wild/a.wav\n")
    assert read_unlabelled("data/unlabelled.csv").path.tolist() == [str(tmp_path / "source" / "wild" / "a.wav")]
    Path("mine.csv").write_text(f"clip_id,path\na,wild/a.wav\nb,{tmp_path}/b.wav\n")
    assert read_unlabelled("mine.csv").path.tolist() == [str(tmp_path / "wild" / "a.wav"), str(tmp_path / "b.wav")]


def test_training_clips_that_are_left_out_come_without_their_labels(taught):
    how = Distill(teacher=teacher(), unlabelled="left_out", unlabelled_share=2.0)
    config = replace(taught, distill=how, data=replace(taught.data, clips_per_class=2))
    everything, held_out = load_data(config.data).split(0, config.data.folds)
    few = everything.limit(2, config.seed)
    data, lessons = prepare_lessons(config, 0, few, TINY, Path("cache"), None)
    n = len(few.clips)
    assert lessons.n_labelled == n < len(everything.clips)
    assert data.clips.clip_id.tolist()[:n] == few.clips.clip_id.tolist()
    assert set(data.clips.clip_id) == set(everything.clips.clip_id)
    assert not set(data.clips.clip_id) & set(held_out.clips.clip_id)
    assert not data.mask[n:].any()
    assert not data.target[n:].any(), "their labels are unknown"
    assert lessons.draws == 2 * n
    assert len(lessons.of_crop(data.clips.clip_id.iloc[-1], 0.0, 1.0)["teacher_embedding"]) == 3
    with pytest.raises(ValueError, match="all 15 clips of fold 0 train with their labels"):
        with_left_out(everything, everything.clips, 0)


def test_labelled_clips_are_no_unlabelled_recordings(taught):
    data = load_data(taught.data)
    held_out = data.clips[data.clips.fold == 0]
    table = pd.DataFrame({"clip_id": ["x", "y"], "path": [str(data.source / held_out.path.iloc[0]), "/elsewhere.wav"]})
    with pytest.raises(ValueError, match=r"1 recordings of distill.unlabelled are labelled clips of the data set: x"):
        with_unlabelled(data.take(data.clips.fold != 0), table)


def test_labelled_clips_are_found_through_links_and_in_the_validation_set(taught):
    data = load_data(taught.data)
    Path("wild").mkdir()
    Path("wild/link.wav").symlink_to((data.source / data.clips[data.clips.fold == 0].path.iloc[0]).resolve())
    how = Distill(teacher=teacher(), unlabelled="wild")
    with pytest.raises(ValueError, match=r"1 recordings of distill.unlabelled are labelled clips .*: link"):
        lessons_of(taught, how)
    Path("wild/link.wav").unlink()
    soundfile.write("wild/v.wav", np.full(24000, 0.1), 8000)
    Path("data/validation.csv").write_text(f"clip_id,path\nv0,{Path('wild/v.wav').absolute()}\n")
    with pytest.raises(ValueError, match=r"are labelled clips of the data set: v;.* those of validation.csv"):
        lessons_of(taught, how)


def test_a_fold_does_not_hear_recordings_of_the_groups_that_it_holds_out(taught, caplog):
    data = load_data(taught.data)
    clips = data.clips.assign(group=np.where(data.clips.fold == 0, "pond", "ridge"))
    table = pd.DataFrame({"clip_id": ["a", "b"], "path": ["/pond/a.wav", "/b.wav"]})  # the folder says the group
    joined, _ = with_unlabelled(data.take(data.clips.fold != 0), table, clips, fold=0)
    assert set(joined.clips.clip_id) & {"a", "b"} == {"b"}
    assert "1 of the 2 recordings of distill.unlabelled are of groups that fold 0 holds out (a)" in caplog.text
    assert len(not_held_out(table.assign(group=["pond", "x"]), clips, 1)) == 2
    with pytest.raises(ValueError, match="fold 0 holds out clips of the same groups as all of a"):
        not_held_out(table[:1].assign(group="pond"), clips, 0)


# ---- an ensemble's answers


def answers(data, **changed):
    target = np.clip(data.target.astype(np.float32), 0.1, 0.9)
    known = {"clip_ids": data.clips.clip_id.to_numpy(), "classes": tuple(data.classes), "clipwise_output": target,
             "fold": data.clips.fold.to_numpy(), "unreadable": np.zeros(len(target), bool)}  # fmt: skip
    return Predictions(**(known | changed))


def test_answers_of_an_oof_in_another_class_order(taught):
    data = load_data(taught.data)
    found = answers(data)
    order = [2, 0, 1]
    other = replace(
        found, classes=tuple(found.classes[i] for i in order), clipwise_output=found.clipwise_output[:, order]
    )
    other.save("oof.npz")
    _, lessons = lessons_of(taught, Distill(predictions=("oof.npz",)))
    for clip, p in zip(found.clip_ids[:5], found.clipwise_output[:5], strict=True):
        np.testing.assert_allclose(lessons.of_crop(clip, 0.0, 1.0)["teacher_answer"], p, rtol=1e-5)


def test_answers_of_members_that_heard_the_clip_are_refused(taught):
    data = load_data(taught.data)
    clips = data.take(data.clips.fold != 0)
    check_unseen(answers(data), clips, len(clips.clips), ["oof.npz"], None)
    with pytest.raises(ValueError, match="answers for 15 labelled clips by members that learned"):
        check_unseen(answers(data, fold=np.full(24, -1)), clips, len(clips.clips), ["test.npz"], None)
    moved = data.clips.fold.to_numpy().copy()
    moved[moved == 1] = 2
    with pytest.raises(ValueError, match="made with other folds than this run's: 9 clips were held out elsewhere"):
        check_unseen(answers(data, fold=moved), clips, len(clips.clips), ["oof.npz"], None)
    with pytest.raises(ValueError, match="answers of none of these clips"):
        check_unseen(answers(data).take([0]), clips.take(np.arange(5, 9)), 4, ["oof.npz"], None)


def test_predictions_of_all_folds_for_unlabelled_recordings_are_not_isolated(taught):
    data, fold0 = load_data(taught.data), Origin(run="sed/a", fold=0, tables=load_data(taught.data).digests)
    found = answers(data, origins=(fold0, replace(fold0, fold=1)))
    found.save("oof.npz")
    apart = replace(found, clip_ids=np.array([f"u{i}" for i in range(24)]), origins=(fold0,), fold=np.full(24, -1))
    apart.save("fold0.npz")
    replace(apart, origins=found.origins).save("all.npz")
    assert mode_of(["oof.npz"], ["u1"], fold0) == mode_of(["oof.npz", "fold0.npz"], ["u1"], fold0) == "honest"
    assert mode_of(["oof.npz", "fold0.npz"], ["u1"], replace(fold0, fold=1)) == "heard"
    assert mode_of(["oof.npz", "all.npz"], ["u1"], fold0) == "heard"
    assert mode_of(["oof.npz", "all.npz"], [], fold0) == "honest"
    older = {"distill": {"predictions": {"oof.npz": "1", "all.npz": "2"}, "unlabelled": 3}}
    assert lineage.entries(older) == [{"trained_on": "distill", "mode": "heard"}]


# ---- the loss


def test_cosine_distance_and_soft_answers_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    wanted = torch.tensor([[3.0, 0.0], [0.0, -1.0], [0.0, 0.0]])  # the last one is of nothing
    assert losses.cosine_distance(a, wanted) == pytest.approx(1.0)
    out = {"logit": torch.tensor([[2.0, -1.0, 5.0]])}
    answer, known = torch.tensor([[0.8, 0.3, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    p = 1 / (1 + np.exp(-np.array([1.0, -0.5])))
    expected = -np.mean([0.8 * np.log(p[0]) + 0.2 * np.log(1 - p[0]), 0.3 * np.log(p[1]) + 0.7 * np.log(1 - p[1])])
    assert losses.soft_answers(out, answer, known, temperature=2.0).item() == pytest.approx(4 * expected, rel=1e-5)
    answer = torch.tensor([[0.75, 0.25, 0.0]])
    logs = np.array([2.0, -1.0]) - np.log(np.exp(2.0) + np.exp(-1.0))
    found = losses.soft_answers(out, answer, known, kind="softmax").item()
    assert found == pytest.approx(-(0.75 * logs[0] + 0.25 * logs[1]), rel=1e-5)


def test_mixing_mixes_what_the_teacher_said():
    batch = {"clip_id": ["a", "b"], "target": torch.eye(2), "mask": torch.ones(2, 2), "x": torch.eye(2),
             "teacher_answer": torch.eye(2), "teacher_known": torch.tensor([[1.0, 1.0], [1.0, 0.0]])}  # fmt: skip
    out = mix_batch(batch, ("x",), 0.75, torch.tensor([1, 0]))
    torch.testing.assert_close(out["teacher_answer"], torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    torch.testing.assert_close(out["teacher_known"], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


# ---- training


TEACHER = "{file: teacher.onnx, sample_rate: 4000, output: embedding, logits: scores, labels: labels.txt}"


@pytest.mark.slow
def test_a_taught_run_goes_on_where_it_stopped_and_leaves_no_trace_of_the_teacher(taught, tiny, capsys, monkeypatch):
    Path("wild").mkdir()
    soundfile.write("wild/a.wav", 0.1 * np.random.default_rng(0).standard_normal(24000), 8000)
    more = (f"distill.teacher={TEACHER}", "distill.unlabelled=wild", "distill.off_epochs=1", "optim.select=last")
    run(train, "--config", tiny, "--fold", "0", "--name", "whole", *more)
    said = capsys.readouterr().out
    assert "taught by teacher.onnx: its embedding of 3 (weight 1) and answers for 2 of 3 classes" in said
    assert "15 crops of 1 unlabelled recordings an epoch; the last 1 epoch without it" in said
    whole = runs.FoldRun(Path("runs/sed/whole/fold0"))
    assert whole.about["distill"]["not_in_vocabulary"] == ["mid"]
    assert not [name for name in load_file(whole.folder / "best.safetensors") if "projection" in name]
    runs.load_model(whole)

    written = train.write_checkpoint

    def dying(t):
        written(t)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_checkpoint", dying)
        with pytest.raises(KeyboardInterrupt):
            run(train, "--config", tiny, "--fold", "0", "--name", "stopped", *more)
    run(train, "--config", tiny, "--fold", "0", "--name", "stopped", "--resume", *more)
    one, other = (load_file(f"runs/sed/{name}/fold0/best.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_teacher_changes_what_is_learned(taught, tiny):
    losses_of = {}
    for name, more in {"alone": (), "taught": (f"distill.teacher={TEACHER}",)}.items():
        run(train, "--config", tiny, "--fold", "0", "--name", name, "optim.epochs=1", *more)
        losses_of[name] = pd.read_csv(f"runs/sed/{name}/fold0/log.csv").loss[0]
    assert losses_of["taught"] > losses_of["alone"] + 0.1


def test_a_network_without_an_embedding_is_refused(taught, tiny, monkeypatch):
    forward = CnnSED.forward
    monkeypatch.setattr(
        CnnSED, "forward", lambda self, logmel: {k: v for k, v in forward(self, logmel).items() if k != "embedding"}
    )
    with pytest.raises(ValueError, match="cnn_small gives no embedding to be taught"):
        run(train, "--config", tiny, "--fold", "0", f"distill.teacher={TEACHER}")
    assert not Path("runs/sed/tiny/fold0").exists()


def test_an_own_run_teaches_by_its_own_class_names(taught, tiny):
    run(train, "--config", tiny, "--fold", "0", "--name", "big", "optim.epochs=1")
    how = Distill(teacher=Teacher(run="runs/sed/big/fold{fold}", stride_seconds=0.5))
    _, lessons = lessons_of(taught, how)
    assert lessons.place.tolist() == [0, 1, 2]
    assert lessons.teacher.sample_rate == 8000, "that of the run's own config"
    assert lessons.embedding_width == 16
    with pytest.raises(
        ValueError, match=r"teacher runs/sed/big/fold0 hears 8000 Hz, its sample_rate says 4000 Hz: set"
    ):
        lessons_of(taught, Distill(teacher=replace(how.teacher, sample_rate=4000)))
    assert json.loads(Path("runs/sed/big/fold0/run.json").read_text()).get("distill") is None
