"""Tables of a prepared folder that lack a column or a meaning: one error that names them, and no traceback."""

import numpy as np
import pandas as pd
import pytest

import train
from earshot.competitions import get_competition
from earshot.config import load_config
from earshot.data.answers import read_truth
from earshot.data.prepared import load_data
from earshot.ensemble.oof import oof_when_complete
from earshot.prediction.predictions import Predictions
from earshot.tasks import get_task
from scripts import run


def change(path, **columns):
    pd.read_csv(path, dtype=str).assign(**columns).to_csv(path, index=False)


def no_predictions() -> Predictions:
    return Predictions(np.array([], str), ("low",), np.zeros((0, 1), np.float32), np.zeros(0, int), np.zeros(0, bool))


def test_clips_without_labels_are_refused_by_training_and_by_truth(tiny):
    clips = tiny.parent / "data" / "clips.csv"
    pd.read_csv(clips).drop(columns="labels").to_csv(clips, index=False)
    for keep in ("true", "false"):
        with pytest.raises(ValueError, match="clips.csv has no column 'labels'"):
            load_data(load_config(tiny, [f"data.keep_unlabelled={keep}"]).data)
    none = no_predictions()
    with pytest.raises(ValueError, match="clips.csv has no column 'labels'"):
        read_truth(none, clips)


def test_a_statement_about_events_that_is_no_number_is_named(tiny):
    change(tiny.parent / "data" / "events.csv", is_negative="yes")
    with pytest.raises(ValueError, match="is_negative of events is 0, 1 or empty, but 'yes' in "):
        load_data(load_config(tiny).data).clip_events(["c0"])


def test_folds_that_hold_nothing_out_have_no_oof(tiny):
    change(tiny.parent / "folds.csv", fold="-1")
    config = load_config(tiny)
    with pytest.raises(ValueError, match=r"no clip of the fold table is held out \(every fold is -1\)"):
        oof_when_complete(tiny.parent / "runs", load_data(config.data), get_task("sed", "birdcall"))
    with pytest.raises(ValueError, match="held out"):
        run(train, "--config", tiny, "--fold", "all")


def test_a_test_table_of_another_competition_is_refused():
    none = no_predictions()
    with pytest.raises(ValueError, match="the test table has no column 'clip_id'"):
        get_competition("dcase_task4").rows(none, pd.DataFrame({"row_id": ["a"]}), None)
