"""Pictures of the PANNs paper: cost by family (Fig. 5), the quality of labels (Fig. 12)."""

import numpy as np
import pandas as pd
import pytest

import report
from earshot.competitions.audioset import read_quality
from earshot.pictures import runs as run_pictures


def test_families_by_name():
    names = {
        "cnn14": "cnn", "cnn6": "cnn", "cnn14_att": "cnn", "resnet38": "resnet", "res1dnet31": "res1dnet",
        "mobilenet_v1": "mobilenet", "dainet19": "dainet", "leenet24": "leenet", "wavegram_cnn14": "wavegram",
        "wavegram_logmel_cnn14": "wavegram", "timm_sed": "timm",
    }  # fmt: skip
    assert {name: report.family_of(name) for name in names} == names


def test_runs_of_a_family_have_one_colour(tmp_path, monkeypatch):
    points = [("a", 1e9, 0.3), ("b", 3e9, 0.4), ("c", 2e9, 0.35)]
    drawn = {}
    monkeypatch.setattr(run_pictures, "_save", lambda figure, path: drawn.setdefault("axis", figure.axes[0]))
    run_pictures.score_by_cost(points, "map", "10", tmp_path / "x.png", ["cnn", "resnet", "cnn"])
    dots = {dot.get_label(): dot for dot in drawn["axis"].collections}
    assert {name: len(dot.get_offsets()) for name, dot in dots.items()} == {"cnn": 2, "resnet": 1}
    assert [text.get_text() for text in drawn["axis"].get_legend().get_texts()] == ["cnn", "resnet"]


@pytest.mark.parametrize("header", ["", "label_id,num_rated,num_true\n", "# mid, rated, true\n"])
def test_quality_of_labels(tmp_path, header):
    (tmp_path / "qa_true_counts.csv").write_text(f"{header}/m/a,10,9\n/m/b,0,0\n/t/c, 8, 2\n")
    assert read_quality(tmp_path / "qa_true_counts.csv") == {"/m/a": 0.9, "/t/c": 0.25}
    pd.DataFrame({"label": ["Dog", "Bat", "Cow"], "mid": ["/m/a", "/m/b", "/t/c"]}).to_csv(
        tmp_path / "classes.csv", index=False
    )
    quality = report.label_quality(tmp_path / "qa_true_counts.csv", tmp_path / "classes.csv")
    assert quality == {"Dog": 0.9, "Cow": 0.25}


def test_broken_quality_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist; it is AudioSet's qa_true_counts.csv"):
        read_quality(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("/m/a,10,9\n/m/b,3,4\n")
    with pytest.raises(ValueError, match="line 2 is no 'mid, num_rated, num_true': /m/b,3,4"):
        read_quality(tmp_path / "x.csv")


def test_classes_by_clips_precision_and_quality(tmp_path, monkeypatch):
    table = pd.DataFrame({"label": ["a", "b", "c"], "train_clips": [5, 500, 50], "average_precision": [0.2, 0.9, 0.5]})
    drawn, save = {}, run_pictures._save
    monkeypatch.setattr(
        run_pictures, "_save", lambda figure, path: (drawn.setdefault("axes", figure.axes), save(figure, path))
    )
    run_pictures.class_quality({"cnn14": table}, {"b": 0.7, "c": 0.4}, tmp_path / "q.png")
    assert (tmp_path / "q.png").stat().st_size > 10_000
    precision, counts = drawn["axes"]
    np.testing.assert_allclose(precision.lines[0].get_ydata(), [0.9, 0.5, 0.2])
    assert [round(bar.get_height()) for bar in counts.patches] == [500, 50, 5]
    dots = {dot.get_label(): dot.get_offsets() for dot in precision.collections}
    assert dots["never rated"].tolist() == [[2, 0]]
    assert np.asarray(dots["label quality"])[:2, 1].tolist() == [0.7, 0.4]
