"""The recipes of docs/extending.md: their code is run as it stands there; a run trains by all of them and exports."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import test_models
import train
from earshot import competitions, losses, models, runs, tasks
from earshot.augment import spectrogram
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from pages import ROOT, blocks
from scripts import run

PAGE = (ROOT / "docs" / "extending.md").read_text()
LINE = re.compile(r'one line of \w+: "(\w+)": (.+)')
KNOWN = {  # file of a recipe -> its module and what makes it known
    "losses.py": (losses, losses.LOSSES),
    "metrics/clips.py": (clip_metrics, None),
    "tasks.py": (tasks, tasks.TASKS),
    "augment/spectrogram.py": (spectrogram, spectrogram.LOGMEL_AUGMENTS),
}


def recipe(path: str) -> str:
    """The block of the page whose first line names that file of the package."""
    (found,) = (b for b in blocks(PAGE, "python") if b.splitlines()[0] == f"# src/earshot/{path}")
    return found


@pytest.fixture
def added(monkeypatch) -> dict[str, str]:
    """All recipes done, {file: name}: functions in their modules, lines in their dicts, the score in score_clips."""
    names = {}
    for path, (module, known) in KNOWN.items():
        space = dict(vars(module))
        exec(recipe(path), space)
        for name in set(space) - set(vars(module)) - {"__builtins__"}:
            monkeypatch.setattr(module, name, space[name], raising=False)
        if known is not None:
            name, value = LINE.search(recipe(path)).groups()
            monkeypatch.setitem(known, name, eval(value, space))
            names[path] = name
    own = types.ModuleType("own_cnn")
    exec(recipe("models/own_cnn.py"), vars(own))
    name, value = LINE.search(recipe("models/own_cnn.py")).groups()
    monkeypatch.setitem(models.MODELS, name, eval(value, {"own_cnn": own}))
    line, before = recipe("tasks.py, score_clips"), tasks.score_clips

    def score_clips(predictions, truth):
        space = {"result": before(predictions, truth), "target": truth.target, "scores": predictions.clipwise_output}
        exec(line, vars(tasks) | space)
        return space["result"]

    monkeypatch.setattr(tasks, "score_clips", score_clips)
    return names | {"models": name}


def test_the_network_keeps_the_contract(added):
    """What `pytest tests/test_models.py -k own_cnn` would ask."""
    own = {"own_cnn": models.build_model(added["models"], test_models.K, test_models.F, {"width": 4})}
    for batch, frames in ((2, 101), (1, 5), (2, 1)):
        test_models.test_outputs_have_the_contracts_keys_shapes_and_range(own, "own_cnn", batch, frames)
    test_models.test_evaluation_is_deterministic_and_clips_do_not_see_each_other(own, "own_cnn")
    test_models.test_a_gradient_reaches_every_parameter_but_the_declared_dead_ones(own, "own_cnn")
    test_models.test_training_takes_one_clip_and_spec_augment_acts_there_only(own, "own_cnn")
    test_models.test_autocast_leaves_probabilities_in_float32(own, "own_cnn")
    assert own["own_cnn"].dead_parameters == ()


def test_the_loss_is_a_weighted_bce(added):
    loss = losses.build_loss(added["losses.py"], {"absent_weight": 0.5})
    out = {"logit": torch.tensor([[0.0, 2.0]])}
    found = loss(out, {"target": torch.tensor([[1.0, 0.0]])})
    present, absent = np.log(2), np.log1p(np.exp(2.0))
    assert float(found) == pytest.approx((present + 0.5 * absent) / 1.5)
    masked = loss(out, {"target": torch.tensor([[1.0, 0.0]]), "mask": torch.tensor([[1.0, 0.0]])})
    assert float(masked) == pytest.approx(present)


def test_the_metric_by_hand(added):
    truth = np.array([[1, 0, 0, 0], [0, 0, 0, 1]])
    scores = np.array([[0.5, 0.9, 0.8, 0.7], [0.1, 0.2, 0.3, 0.4]])
    assert [clip_metrics.hit_at(truth, scores, n) for n in (1, 3, 4)] == [0.5, 0.5, 1.0]


def test_the_augmentation_silences_low_bins(added):
    spec = [{"name": added["augment/spectrogram.py"], "p": 1.0, "max_share": 0.5}]
    logmel = torch.rand(3, 1, 5, 10)
    (out,), _ = spectrogram.apply_logmel(spec, [logmel], None, torch.Generator().manual_seed(0))
    least = logmel.amin(dim=(1, 2, 3), keepdim=True).expand_as(logmel)
    cut = (out == least) & (logmel != least)
    assert cut.any()
    assert not cut[..., 5:].any()
    assert torch.equal(out[~cut], logmel[~cut])


def test_all_of_it_in_one_run(tiny, added):
    run(train, "--config", tiny, "--fold", "0", "model={name: own_cnn, params: {width: 4}}", "optim.epochs=1",
        "loss={name: bce_present, params: {absent_weight: 0.2}}", "watch=hit_at_3",
        "augment.batch.logmel=[{name: low_cut, p: 0.5, max_share: 0.2}]")  # fmt: skip
    fold = runs.FoldRun(Path("runs/sed/tiny/fold0"))
    assert fold.about["scores"]["hit_at_3"] == 1.0, "there are three classes"
    run(export, "--run", "runs/sed/tiny", "--max-drop", "0.01")
    assert (fold.folder / "model.onnx").is_file()


def test_the_competition_from_download_to_a_checked_submission(tmp_path, monkeypatch):
    (code,) = [b for b in blocks((ROOT / "docs" / "competitions.md").read_text(), "python") if "EDITIONS" in b]
    name, family = LINE.search(code).group(1), re.match(r"# src/earshot/competitions/(\w+)\.py", code)[1]
    module = types.ModuleType(family)
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, f"earshot.competitions.{family}", module)
    monkeypatch.setitem(competitions.COMPETITIONS, name, family)
    lines = [f"{d}_{who}.wav,{d},{who},{'test' if who == 'c' else 'train'}" for d in (0, 1, 2) for who in "abc"]
    (tmp_path / "meta.csv").write_text("\n".join(["filename,label,speaker,split", *lines]) + "\n")
    tables = competitions.get_competition(name).prepare(tmp_path)
    assert tables.classes == ["0", "1", "2"]
    assert (len(tables.clips), len(tables.test_clips)) == (6, 3)
    found = Predictions(np.array(["2_c", "0_c", "1_c"]), ("0", "1", "2"), np.eye(3)[[2, 0, 0]], np.full(3, -1),
                        np.zeros(3, bool))  # fmt: skip
    submission = module.rows(found, tables.test)
    assert submission.digit.tolist() == ["0", "0", "2"]
    module.validate(submission, tables.test, tables.classes)
    assert module.score(submission, tables.truth) == {"accuracy": pytest.approx(2 / 3)}
    with pytest.raises(ValueError, match="column digit"):
        module.validate(submission.assign(digit="9"), tables.test, tables.classes)


@pytest.mark.parametrize(("family", "said"), [
    ("nowhere", "'digits' is in earshot.competitions.nowhere, which is no file"),
    ("gtzan", r"'digits' is in earshot.competitions.gtzan, whose EDITIONS has no such name; known: gtzan"),
])  # fmt: skip
def test_a_competition_whose_line_leads_nowhere(monkeypatch, family, said):
    monkeypatch.setitem(competitions.COMPETITIONS, "digits", family)
    with pytest.raises(ValueError, match=said):
        competitions.get_competition("digits")


def test_the_task_in_a_run(tiny, added):
    run(train, "--config", tiny, "--fold", "0", "task=choices", "loss={name: bce}", "optim.epochs=1")
    found = runs.FoldRun(Path("runs/choices/tiny/fold0")).about["scores"]
    assert found["hit_at_3"] == 1.0
    assert 0 <= found["accuracy"] <= 1
