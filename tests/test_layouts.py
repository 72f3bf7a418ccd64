"""Real tables of competitions: what prepare, folds and submissions make of them; with training in the slow part.

A folder that nobody described in real_tables.py fails; without the shared data the tests skip.
"""

import pandas as pd
import pytest

import make_folds
import prepare
import submit
from earshot.competitions import get_competition
from earshot.data.dataset import read_dataset
from earshot.data.folds import read_folds
from earshot.data.labels import read_classes
from earshot.data.stale_folds import stale_folds
from earshot.tables import read_table
from real_tables import (
    FOLDER,
    LAYOUTS,
    check_submission,
    check_tables,
    fold_arguments,
    folders,
    made_predictions,
    make_download,
    prepare_arguments,
    run_chain,
)
from scripts import run

NO_FOLDER = pytest.param("", marks=pytest.mark.skip(f"no real tables at {FOLDER} (set EARSHOT_SHARED)"))
ALIKE = ("birdclef2022", "birdclef2024", "birdclef2025", "audioset_redistributed")  # others like them are fast
every_folder = pytest.mark.parametrize("name", folders() or [NO_FOLDER])


def described(name: str):
    assert name in LAYOUTS, f"{FOLDER / name} is new: say in tests/real_tables.py what it must become"
    return LAYOUTS[name]


@pytest.mark.skipif(not folders(), reason=f"no real tables at {FOLDER} (set EARSHOT_SHARED)")
def test_every_description_has_its_folder():
    assert set(LAYOUTS) == set(folders())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in folders()] or [NO_FOLDER]
)
def test_tables_folds_and_submission(name, tmp_path, monkeypatch):
    layout = described(name)
    monkeypatch.chdir(tmp_path)
    source = make_download(name, tmp_path / "download", layout.hidden, quick=True)
    data = tmp_path / "data"
    run(prepare, *prepare_arguments(name, source, data))
    run(make_folds, *fold_arguments(name, data, tmp_path / "folds.csv"))
    check_tables(name, data, tmp_path / "folds.csv")
    own = read_table(data / "clips.csv")
    assert not stale_folds(own, read_folds(tmp_path / "folds.csv", own)).torn, "folds that were made of these clips"
    assert read_dataset(data)["task"] == get_competition(layout.competition).task
    clips = heard = read_table(data / "clips.csv")
    if layout.test_clips is not None:
        heard = read_table(data / "test_clips.csv")
    assert all((source / layout.inside / path).is_file() for path in (*clips.path, *heard.path))
    made_predictions(heard, read_classes(data / "classes.csv"), layout.task).save(tmp_path / "test.npz")
    out = tmp_path / ("s.tsv" if layout.competition == "dcase_task4" else "s.csv")
    arguments = ("--competition", layout.competition, "--test", data / "test.csv")
    run(submit, *arguments, "--predictions", tmp_path / "test.npz", "--out", out)
    run(submit, *arguments, "--check", out)
    check_submission(name, source, read_table(out))
    if layout.perfect is not None:
        truth = read_table(data / "truth.csv")
        assert get_competition(layout.competition).score(truth, truth) == pytest.approx(layout.perfect)


def whole(name: str, tmp_path, **options):
    """The tables of one folder, made now; the test skips where it is not there."""
    if name not in folders():
        pytest.skip(f"no real tables of {name} at {FOLDER} (set EARSHOT_SHARED)")
    source = make_download(name, tmp_path / name, LAYOUTS[name].hidden, quick=True)
    return source, get_competition(LAYOUTS[name].competition).prepare(source / LAYOUTS[name].inside, **options)


def test_ids_stay_text(tmp_path):
    """Recordings whose ids look like numbers: 055088446 keeps its zero, 163e86660 is no infinity."""
    _, tables = whole("rfcx", tmp_path)
    raw = pd.concat([pd.read_csv(tmp_path / "rfcx" / t, dtype=str) for t in ("train_tp.csv", "train_fp.csv")])
    odd = set(raw.recording_id[raw.recording_id.str.fullmatch(r"\d+(e\d+)?")])
    assert "055088446" in odd
    assert odd <= set(tables.clips.clip_id)
    assert odd <= set(tables.events.filename)
    tables.clips.to_csv(tmp_path / "clips.csv", index=False)
    assert odd <= set(read_table(tmp_path / "clips.csv").clip_id)


def test_folds_of_the_whole_rainforest_table(tmp_path):
    """Rows of train_tp.csv a fold, as its source counts them; only where all 1,216 rows of the table are there."""
    path = FOLDER / "rfcx" / "train_tp.csv"
    boxes = read_table(path) if path.is_file() else pd.DataFrame()
    if len(boxes) != 1216:
        pytest.skip(f"{path} is not the whole table: {len(boxes)} of 1216 rows")
    _, tables = whole("rfcx", tmp_path)
    folds = make_folds.make_folds(tables.clips, method=get_competition("rfcx").fold_methods["rfcx"])
    fold = boxes.recording_id.map(folds.set_index("clip_id").fold)
    assert fold.value_counts().sort_index().tolist() == [241, 237, 246, 249, 243]


def test_desed_counts_every_recording_once(tmp_path):
    """validation.tsv is the union of two tables; seven of fourteen evaluation recordings are silent."""
    _, tables = whole("dcase_task4", tmp_path)
    raw = pd.read_csv(FOLDER / "dcase_task4/metadata/validation/validation.tsv", sep="\t")
    validation = tables.clips[tables.clips.split == "validation"]
    assert sorted(validation.filename) == sorted(raw.filename.unique())
    assert len(tables.events) == raw.onset.notna().sum()
    silent = validation[validation.labels == ""]
    assert sorted(silent.filename) == sorted(raw.filename[raw.onset.isna()])
    assert (silent.annotated == 1).all()
    listed = pd.read_csv(FOLDER / "dcase_task4/metadata/eval/public_meta.tsv", sep="\t")
    assert sorted(tables.test.filename) == sorted(listed.filename)
    assert tables.test.set_index("filename").duration["sdHVFACi42A_16_27.wav"] == 11
    assert tables.truth.filename.nunique() == 7


@pytest.mark.parametrize("name", ["dcase2021_task2", "dcase2023_task2", "dcase2024_task2"])
def test_machines_have_the_published_truth(name, tmp_path):
    """The evaluator's tables give conditions and domains; a perfect score ranks every anomaly above every normal."""
    source, tables = whole(name, tmp_path)
    said = "\n".join(p.read_text() for p in source.rglob("ground_truth_*.csv"))
    anomalies = said.count("anomaly") if name != "dcase2021_task2" else said.count(",1")
    copies = 2 if name == "dcase2024_task2" else 1  # AirCompressor's rows say it twice
    assert tables.truth.is_anomaly.sum() == {"dcase2024_task2": 4}.get(name, anomalies // copies)
    assert set(tables.test.domain) == ({"source"} if name == "dcase2021_task2" else {""})
    submission = tables.truth[["machine", "part", "filename"]].assign(score=tables.truth.is_anomaly, decision=0)
    scores = get_competition(name).score(submission, tables.truth)
    assert scores[next(key for key in scores if "auc" in key)] == 1
    if name == "dcase2023_task2":  # names without folder and .wav in ToyDrone's table
        drone = tables.clips[(tables.clips.machine == "ToyDrone") & (tables.clips.split == "train")]
        assert set(drone.attributes) >= {"car=B2 speed=2 mic=1", "car=C1 speed=1 mic=2"}


def test_labels_of_2026_count_once(tmp_path):
    """Every row of the soundscapes' labels is there twice; species are numbers, letters, or both."""
    _, tables = whole("birdclef2026", tmp_path)
    raw = pd.read_csv(FOLDER / "birdclef2026/train_soundscapes_labels.csv", dtype=str)
    assert raw.duplicated().sum() == len(raw) / 2
    rows = raw.drop_duplicates().primary_label.str.split(";").explode()
    seconds = tables.events.offset - tables.events.onset
    assert seconds.sum() == 5 * len(rows)
    soundscapes = tables.clips[tables.clips.kind == "soundscape"]
    assert len(soundscapes) == raw.filename.nunique()
    assert set(" ".join(soundscapes.labels).split()) == set(rows)


def test_recordists_with_stray_spaces_are_one(tmp_path):
    _, tables = whole("birdclef2022", tmp_path)
    authors = tables.clips.author
    assert (authors != authors.str.strip()).any()
    folds = make_folds.make_folds(tables.clips, 2, group="author")
    assert folds.group.nunique() == authors.str.strip().nunique()


def wrapped(source):
    """One more folder of the same name around everything."""
    aside = source.rename(source.with_name("aside"))
    source.mkdir()
    aside.rename(source / source.name)


def capitals(source):
    for path in recordings(source):
        path.rename(path.with_suffix(path.suffix.upper()))


def converted(source):
    for path in recordings(source):
        path.rename(path.with_suffix(".wav"))


def nested(source):
    """In each folder of recordings one more of its own name, as archives of folders unpack."""
    for path in recordings(source):
        inner = path.parent / path.parent.name
        inner.mkdir(exist_ok=True)
        path.rename(inner / path.name)


def from_windows(source):
    """A byte order mark, Windows line ends, and the last two rows of training tables once more."""
    for path in [*source.rglob("*.csv"), *source.rglob("*.tsv")]:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        others = ("sample", "test", "vocabulary", "class_labels", "ground_truth", "evaluate")
        again = [] if any(word in path.name for word in others) else lines[-2:]
        path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines + again) + b"\r\n")


def recordings(source):
    return [p for p in sorted(source.rglob("*")) if p.suffix.lower() in (".wav", ".ogg", ".flac", ".mp3")]


QUICK = ("dcase2023_task2", "rfcx")  # the others are tried in the slow part


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in folders()] or [NO_FOLDER]
)
def test_rearranged_downloads_become_the_same_tables(name, tmp_path):
    """However a copy arranges and writes a download: the same clips, labels, events and test."""
    layout, seen = described(name), {}
    for arrange in (None, wrapped, capitals, converted, nested, from_windows):
        source = make_download(name, tmp_path / str(arrange and arrange.__name__), layout.hidden, quick=True)
        if arrange is not None:
            arrange(source)
        given = source / layout.inside if arrange is not wrapped else source
        if arrange is wrapped and layout.inside:
            given = source / source.name / layout.inside
        options = {}
        for option in layout.options[1::2]:
            key, value = option.format(given.parent).split("=")
            options[key] = True if value == "true" else value
        tables = get_competition(layout.competition).prepare(given, **options)
        test = None if tables.test is None else tables.test.iloc[:, 0].tolist()
        events = None if tables.events is None else tables.events.filename.tolist()
        seen[arrange] = (tables.clips.clip_id.tolist(), tables.clips.labels.tolist(), tables.classes, events, test,
                         len(tables.missing))  # fmt: skip
        assert len(test or []) == layout.test
        assert list(seen[arrange]) == list(seen[None]), arrange


@pytest.mark.slow
@every_folder
def test_from_the_download_to_a_checked_submission(name, tmp_path, monkeypatch):
    described(name)
    monkeypatch.chdir(tmp_path)
    run_chain(name, tmp_path)
