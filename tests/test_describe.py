"""describe.py's figures and pictures, predict.py's inputs, submit.py's errors."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import describe
import predict
import submit
from earshot.config import load_config
from earshot.pictures import folds as fold_pictures
from earshot.prediction.predictions import Predictions
from scripts import run


def test_describe_says_what_a_config_costs(tiny, capsys):
    few = ("frontends.logmel.n_mels=40", "frontends.logmel.n_fft=64")
    run(describe, "--config", tiny, "--clips", "2", *few, draw=True)
    out = capsys.readouterr().out
    assert "model cnn_small, 3 classes, reads logmel" in out
    assert re.search(r"multiply-accumulates [\d,]+ for 1 s, and [\d,]+ of the front end", out)
    assert re.search(r"PANNs' \"multi-adds\" [\d,]+ for 10 s", out)
    assert "101 frames x 40 mels, a frame every 10 ms, an output every 40 ms" in out
    assert "WARNING" in out, "33 bins cannot fill 40 mel bands"
    assert "hold no FFT bin" in out
    picture = imread("runs/describe/tiny.png")
    assert picture.std() > 0.05, "the picture is not blank"


def test_describe_without_data_needs_the_number_of_classes(tiny, capsys):
    with pytest.raises(ValueError, match="give --classes"):
        run(describe, "--config", tiny, "data.root=nowhere")
    run(describe, "--config", tiny, "--classes", "7", "data.root=nowhere")
    assert "7 classes" in capsys.readouterr().out


def test_pictures_are_drawn_also_of_little(tmp_path):
    fold_pictures.learning_curves([{"epoch": 0, "loss": 1.0}], "map", tmp_path / "curves.png")
    outputs = np.array([[0.2, 0.8], [0.4, 0.3]])
    found = Predictions(np.array(["x", "y"]), ("a", "b"), outputs, np.zeros(2), np.zeros(2, bool))
    fold_pictures.class_scores(found, np.array([[True, False], [False, False]]), tmp_path / "classes.png")
    for path in tmp_path.glob("*.png"):
        assert imread(path).std() > 0.05, path
    assert len(list(tmp_path.iterdir())) == 2


def test_predict_takes_tables_and_folders(tiny, tmp_path):
    table = predict.find_clips(Path("data/test_clips.csv"), None)
    assert [c.clip_id for c in table] == ["t0", "t1", "t2"]
    assert table[0].path.is_file()
    folder = predict.find_clips(Path("source"), None)
    assert len(folder) == 27
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no recording .*wav"):
        predict.find_clips(tmp_path / "empty", None)
    (tmp_path / "source" / "c1.flac").write_bytes(b"")
    both = predict.find_clips(Path("source"), None)
    assert {"c1.flac", "c1.wav", "c2"} <= {c.clip_id for c in both}, "two files of one name keep their endings"
    pd.DataFrame({"clip_id": [], "path": []}).to_csv("none.csv", index=False)
    with pytest.raises(ValueError, match="lists no clips"):
        predict.find_clips(Path("none.csv"), None)


def test_submit_names_what_is_wrong(tiny):
    n = 3
    found = Predictions(np.array(["t0", "t1", "t2"]), ("low", "mid", "high"), np.zeros((n, 3)), np.full(n, -1),
                        np.zeros(n, bool))  # fmt: skip
    found.save("test.npz")
    common = ("--competition", "birdcall", "--predictions", "test.npz", "--out", "s.csv", "--test")
    with pytest.raises(ValueError, match="framewise"):
        run(submit, *common, "data/test.csv")
    with pytest.raises(ValueError, match="unknown competition 'birdcal'; did you mean 'birdcall'"):
        run(submit, "--competition", "birdcal", *common[2:], "data/test.csv")
    test = pd.read_csv("data/test.csv")
    for name, table in {
        "zero": test.iloc[:0], "twice": pd.concat([test, test.iloc[:1]]), "site": test.assign(site="site_9"),
    }.items():  # fmt: skip
        table.to_csv(f"{name}.csv", index=False)
        with pytest.raises(ValueError, match="row|site"):
            run(submit, *common, f"{name}.csv")
    assert not Path("s.csv").exists()
    assert not Path("submissions").exists()
    broken = test[["row_id"]].assign(birds="loww")
    broken.to_csv("broken.csv", index=False)
    with pytest.raises(ValueError, match="loww"):
        run(submit, "--check", "broken.csv", "--competition", "birdcall", "--test", "data/test.csv", "--classes",
            "data/classes.csv")  # fmt: skip


@pytest.mark.slow
def test_the_gallery_shows_every_augmentation(tiny, capsys):
    run(describe, "--config", tiny, "--gallery", "1", draw=True)
    assert "FMix mask, FMix, mixup, SpecAugment, SpecAugment++ zero" in capsys.readouterr().out
    assert imread("runs/describe/tiny_gallery.png").std() > 0.05
    plus = "augment.spec_augment_pp={scheme: cutting, layers: [input, stages]}"
    run(describe, "--config", tiny, "--clips", "2", plus, "augment.spec_augment={}")
    with pytest.raises(ValueError, match="both act on the input"):
        load_config(tiny, [plus])
