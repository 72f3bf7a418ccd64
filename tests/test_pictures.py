"""Pictures are written whole, are not blank, and show what they say."""

import matplotlib.image
import numpy as np
import pytest
import soundfile

from earshot.pictures import folds as fold_pictures
from earshot.pictures import sounds as sound_pictures
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tasks import draw_confusion


def looked_at(path) -> np.ndarray:
    """(H, W, 3) of a written PNG, after the checks that hold for every picture."""
    image = matplotlib.image.imread(path)[..., :3]
    assert image.std() > 0.02, "the picture is blank"
    assert min(image.shape[:2]) > 100
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"
    return image


def share_of(image: np.ndarray, colour, tolerance: float = 0.1) -> float:
    """Share of the pixels that have about this colour."""
    return float((np.abs(image - np.array(colour)).max(axis=-1) < tolerance).mean())


GREEN, BLUE = (0.17, 0.63, 0.17), (0.12, 0.47, 0.71)  # matplotlib's tab:green, tab:blue


def test_learning_curves(tmp_path):
    log = [{"epoch": e, "loss": 1 / (1 + e)} | ({"map": 0.1 * e} if e % 2 else {}) for e in range(6)]
    fold_pictures.learning_curves(log, "map", tmp_path / "curves.png")
    image = looked_at(tmp_path / "curves.png")
    assert share_of(image, BLUE) > 0.0005
    assert share_of(image, GREEN) > 0.0005


def test_curves_count_epochs_as_the_terminal_does_and_know_that_a_loss_is_better_low(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(fold_pictures, "_save", lambda figure, path: drawn.append(figure))
    log = [{"epoch": e, "loss": 1.0, "log_loss": value} for e, value in enumerate((0.9, 0.4, 0.6))]
    fold_pictures.learning_curves(log, "log_loss", tmp_path / "curves.png")
    axes = drawn[0].axes
    assert [list(axis.lines[0].get_xdata()) for axis in axes] == [[1, 2, 3], [1, 2, 3]]
    assert "best 0.400" in axes[1].get_title()


def test_learning_curves_before_the_first_score(tmp_path):
    fold_pictures.learning_curves([{"epoch": 0, "loss": 0.5}], "map", tmp_path / "curves.png")
    assert share_of(looked_at(tmp_path / "curves.png"), GREEN) == 0


def predictions(scores: np.ndarray, unreadable=()) -> Predictions:
    n, k = scores.shape
    bad = np.isin(np.arange(n), list(unreadable))
    classes = tuple(f"species{i:03d}" for i in range(k))
    return Predictions(np.arange(n).astype(str), classes, scores.astype(np.float32), np.zeros(n), bad)


def test_class_scores_draw_perfect_and_wrong_classes(tmp_path):
    target = np.eye(4, dtype=bool)[np.arange(12) % 4]
    fold_pictures.class_scores(predictions(target * 0.9), target, tmp_path / "right.png")
    right = share_of(looked_at(tmp_path / "right.png"), GREEN)
    (tmp_path / "w").mkdir()
    fold_pictures.class_scores(predictions(0.9 - target * 0.8), target, tmp_path / "w" / "wrong.png")
    assert right > 2 * share_of(looked_at(tmp_path / "w" / "wrong.png"), GREEN) > 0, "bars are as long as the score"


def test_class_scores_of_hundreds_of_classes_stay_readable(tmp_path):
    target = np.eye(264, dtype=bool)[np.arange(528) % 264]
    fold_pictures.class_scores(
        predictions(np.random.default_rng(0).random(target.shape)), target, tmp_path / "many.png"
    )
    assert looked_at(tmp_path / "many.png").shape[0] < 2500, "at most 60 classes"


def test_class_scores_leave_out_the_unreadable_and_may_have_nothing_to_draw(tmp_path):
    target = np.eye(2, dtype=bool)
    fold_pictures.class_scores(predictions(target * 1.0, unreadable=(0, 1)), target, tmp_path / "none.png")
    fold_pictures.class_scores(predictions(target * 1.0), np.zeros((2, 2), bool), tmp_path / "none.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3, 5])
def test_logmel_sheets(tmp_path, count):
    rng = np.random.default_rng(0)
    images = [(f"clip {i}", rng.normal(-40, 10, (100, 32)).astype(np.float32)) for i in range(count)]
    sound_pictures.logmels(images, 0.01, tmp_path / "sheet.png")
    image = looked_at(tmp_path / "sheet.png")
    rows = -(-count // 3)
    assert image.shape[0] == pytest.approx(rows * 2.4 * 110, rel=0.15)


def test_logmels_put_time_to_the_right_and_frequency_up(tmp_path):
    """A loud spot late and high is bright in the upper right quarter."""
    logmel = np.full((100, 40), -80, np.float32)
    logmel[75:95, 30:38] = 0
    sound_pictures.logmels([("spot", logmel)], 0.01, tmp_path / "spot.png", columns=1)
    image = looked_at(tmp_path / "spot.png")
    bright = np.argwhere(share_bright(image))
    height, width = image.shape[:2]
    assert bright[:, 0].mean() < 0.5 * height
    assert bright[:, 1].mean() > 0.5 * width


def share_bright(image: np.ndarray) -> np.ndarray:
    """The brightest yellow of the colour map, apart from white paper."""
    return (image[..., 0] > 0.95) & (image[..., 1] > 0.9) & (image[..., 2] < 0.85)


def test_silent_logmels_can_be_drawn(tmp_path):
    sound_pictures.logmels([("silence", np.full((50, 16), -100, np.float32))], 0.01, tmp_path / "silence.png")
    looked_at(tmp_path / "silence.png")


def tone(path, hertz=1000, seconds=20):
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(seconds * 8000) / 8000), 8000)
    return path


def event_map(sound, true, classes=("a", "b", "c"), frames=None):
    frames = true * 0.9 if frames is None else frames
    return sound_pictures.EventMap(title="$x^$", sound=sound, frames=frames, step=0.1, true=true, labels=("b",),
                                   classes=classes)  # fmt: skip


def test_an_event_map_shows_the_sound_above_prediction_above_truth(tmp_path):
    true = np.zeros((200, 3), bool)
    true[50:150, 1] = True
    (tmp_path / "in").mkdir()
    sound = tone(tmp_path / "in/a.wav")
    (tmp_path / "out").mkdir()
    sound_pictures.event_maps([event_map(sound, true)], tmp_path / "out/s.png")
    image = looked_at(tmp_path / "out/s.png")
    yellow, violet = (0.99, 0.91, 0.14), (0.27, 0.0, 0.33)  # both ends of viridis
    assert share_of(image, yellow) > 0.01
    assert share_of(image, violet) > 0.2
    cells = np.argwhere(np.abs(image - np.array(yellow)).max(axis=-1) < 0.1)
    per_row = np.bincount(cells[:, 0])
    # not smeared: the rows of a cell are all as wide as the event, half of the recording
    assert (per_row > 0.9 * per_row.max()).sum() > 0.9 * (per_row > 0.1 * per_row.max()).sum()


def test_an_event_map_of_many_classes_has_the_rows_that_matter(tmp_path):
    classes = tuple(f"c{i}" for i in range(264))
    frames = np.full((100, 264), 0.01)
    frames[10:20, 200] = 0.8
    true = np.zeros((100, 264), bool)
    true[30:40, 7] = True
    assert event_map(tmp_path / "x.wav", true, classes, frames).rows == [7, 200]
    assert event_map(tmp_path / "x.wav", None, classes, np.zeros((9, 264))).rows == [0], "one at least"


def test_a_long_recording_is_shown_where_the_most_is_going_on(tmp_path):
    true = np.zeros((6000, 1), bool)
    true[4000:4100] = True
    one = event_map(tmp_path / "x.wav", true, ("a",))
    assert one.start <= 400 <= 410 <= one.start + sound_pictures.LONGEST
    assert event_map(tmp_path / "x.wav", true[:500], ("a",)).start == 0


def test_recordings_that_cannot_be_read_are_left_out_of_event_maps(tmp_path):
    sound_pictures.event_maps([event_map(tmp_path / "gone.wav", np.ones((20, 3), bool))], tmp_path / "s.png")
    assert not (tmp_path / "s.png").exists()


def test_frequencies_stand_where_their_bands_are_and_apart():
    _, axes = fold_pictures._figure(4, 3)
    hertz = np.array([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0])
    sound_pictures.hertz_ticks(axes[0, 0], hertz)
    ticks = dict(zip([t.get_text() for t in axes[0, 0].get_yticklabels()], axes[0, 0].get_yticks(), strict=True))
    assert ticks == pytest.approx({"100": 0, "200": 1, "500": 2.25, "1k": 3.25, "2k": 4.25})


def test_epochs_are_whole_numbers(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(fold_pictures, "_save", lambda figure, path: kept.append(figure))
    fold_pictures.learning_curves([{"epoch": e, "loss": 1.0, "map": 0.1} for e in range(3)], "map", tmp_path / "c.png")
    kept[0].draw_without_rendering()
    assert all(float(t).is_integer() for axis in kept[0].axes for t in axis.get_xticks())


def test_confusion_of_one_label_a_clip(tmp_path):
    target = np.eye(3, dtype=bool)[np.arange(30) % 3]
    draw_confusion(predictions(target * 0.9), Truth(target), tmp_path / "confusion.png")
    blue = share_of(looked_at(tmp_path / "confusion.png"), (0.03, 0.19, 0.42))
    assert blue > 0.08, "the diagonal"
    (tmp_path / "several").mkdir()
    target[0, :2] = True
    draw_confusion(predictions(target * 0.9), Truth(target), tmp_path / "several/confusion.png")
    assert not list((tmp_path / "several").iterdir())


def test_confusion_of_hundreds_of_classes_shows_the_most_confused(tmp_path):
    target = np.eye(264, dtype=bool)[np.arange(528) % 264]
    scores = np.roll(target, 1, axis=1) * 1.0
    fold_pictures.confusion(predictions(scores), target, tmp_path / "many.png")
    assert looked_at(tmp_path / "many.png").shape[0] < 2500
