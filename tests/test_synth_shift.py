"""The hard embedded competition: the same bytes from a seed, sites apart, true rows, and tables that say who trains."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from earshot.competitions import birdclef_recordings, get_competition
from earshot.competitions.tables import write_tables
from earshot.synth import shift
from earshot.synth.sounds import SPECIES

COMPETITION = get_competition("synth_shift")
TINY = {"scale": 0.02, "seconds": 10.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shift") / "tiny"
    shift.make_shift(folder, seed=0, **TINY)
    return folder


@pytest.fixture(scope="module")
def tables(tiny):
    return COMPETITION.prepare(tiny)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def sites(names) -> set[str]:
    return {str(name).split("_")[2] for name in names}


# ---- what is made


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_bytes(tiny, tmp_path):
    shift.make_shift(tmp_path / "again", seed=0, **TINY)
    assert digests(tmp_path / "again") == digests(tiny)
    waves = [shift.focal_recording(seed, 3, "duswhi")[0][:16000] for seed in (0, 1)]
    assert not np.array_equal(*waves)
    scapes = [shift.soundscape(seed, shift.plan(0, **TINY)["test"][0])[0] for seed in (0, 1)]
    assert not np.array_equal(*scapes)


def test_a_recording_depends_on_nothing_but_seed_and_index():
    alone, row = shift.focal_recording(0, 7, "duswhi")
    shift.focal_recording(0, 3, "reequa")
    again, row_again = shift.focal_recording(0, 7, "duswhi")
    np.testing.assert_array_equal(alone, again)
    assert row == row_again


def test_two_species_are_in_no_focal_recording(tiny):
    train, taxonomy = pd.read_csv(tiny / "train.csv"), pd.read_csv(tiny / "taxonomy.csv")
    assert set(train.primary_label) == set(SPECIES)
    assert not train.secondary_labels.str.contains("bogfro|ivycri").any()
    assert set(taxonomy.primary_label) - set(train.primary_label) == {"bogfro", "ivycri"}


@pytest.mark.parametrize("seed", range(6))
def test_every_species_lives_at_labelled_and_at_test_sites(seed):
    living = shift.species_of_sites(seed)
    for group in (shift.LABELLED_AT, shift.TEST_AT, shift.UNLABELLED_AT):
        assert {code for site in group for code in living[site]} == set(shift.ALL)


def test_sites_of_the_test_are_nowhere_else():
    for seed in (0, 1):
        planned = {kind: sites(s.name for s in some) for kind, some in shift.plan(seed).items()}
        assert planned["test"] == {f"S{n:02d}" for n in shift.TEST_AT}
        assert not planned["test"] & (planned["unlabelled"] | planned["labelled"])
        assert planned["unlabelled"] & planned["labelled"] == {"S05", "S06"}
        assert len(planned["unlabelled"]) == 6


def test_some_recordists_come_often_and_record_their_favourites():
    rng, codes = np.random.default_rng(0), list(SPECIES) * 30
    who = [shift.who_records(0, code, rng) for code in codes]
    counts = pd.Series(who).value_counts()
    assert counts.iloc[0] >= 5 * counts.median()
    liked = [code in shift.recordist(0, number).favourites for code, number in zip(codes, who, strict=True)]
    assert np.mean(liked) > 2 * shift.FAVOURITES / len(SPECIES)


def test_truth_agrees_with_the_events(tiny):
    truth, events = pd.read_csv(tiny / "truth.csv"), pd.read_csv(tiny / "test_events.csv")
    for row in truth.itertuples():
        name, end = row.row_id.rsplit("_", 1)
        own = events[(events.filename == name) & (events.onset < int(end)) & (events.offset > int(end) - 5)]
        assert {c for c in shift.ALL if getattr(row, c)} == set(own.event_label), row.row_id
    assert truth.drop(columns="row_id").to_numpy().any()


def test_uploads_that_came_twice_hold_the_same_sound(tiny):
    twice = pd.read_csv(tiny / "uploaded_twice.csv")
    assert len(twice) == 1
    one, other = (soundfile.read(tiny / "train_audio" / twice[c][0])[0] for c in ("same_as", "filename"))
    assert 0 <= len(one) - len(other) < 0.7 * 16000
    one = one[len(one) - len(other) :]
    assert np.corrcoef(one, other)[0, 1] > 0.95
    assert not np.array_equal(one, other)


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", full_disk)
    with pytest.raises(OSError, match="disk full"):
        shift.make_shift(tmp_path / "shift", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_sense_of_its_options(tmp_path):
    with pytest.raises(ValueError, match="scale is 0"):
        shift.make_shift(tmp_path / "a", scale=0)
    with pytest.raises(ValueError, match="12 s are no whole rows of 5 s"):
        shift.make_shift(tmp_path / "a", seconds=12)


# ---- the tables


def test_clips_are_focal_and_grouped_by_recordist(tables):
    assert set(tables.clips.kind) == {"focal"}
    assert (tables.clips.group == tables.clips.author.str.replace(" ", "_")).all()
    assert tables.events is None
    assert list(tables.classes) == sorted(shift.ALL)


def test_validation_is_apart_with_rows_and_truth(tables):
    assert sites(tables.validation.clip_id) == {"S05", "S06", "S07", "S08"}
    assert (tables.validation.annotated.astype(int) == 1).all()
    assert tables.validation_rows.row_id.tolist() == tables.validation_truth.row_id.tolist()
    assert len(tables.validation_rows) == 2 * len(tables.validation)
    heard = tables.validation_truth.set_index("row_id")
    for event in tables.validation_events.itertuples():
        for end in range(int(event.onset) + 5, int(event.offset) + 1, 5):
            assert heard.loc[f"{event.filename}_{end}", event.event_label] == 1


def test_unlabelled_soundscapes_have_sites_and_no_labels(tables):
    assert set(tables.unlabelled.site) == {f"S{n:02d}" for n in shift.UNLABELLED_AT}
    assert "labels" not in tables.unlabelled
    assert not set(tables.unlabelled.clip_id) & {*tables.validation.clip_id, *tables.test_clips.clip_id}


def test_labelled_soundscapes_train_when_asked_to(tiny):
    found = COMPETITION.prepare(tiny, soundscapes="train")
    both = found.clips[found.clips.kind == "soundscape"]
    assert sorted(both.clip_id) == sorted(found.validation.clip_id)
    assert set(both.group) == {"site_S05", "site_S06", "site_S07", "site_S08"}
    assert set(found.events.filename) <= set(both.clip_id)
    with pytest.raises(ValueError, match="soundscapes is 'test'; choose one of validation, train"):
        COMPETITION.prepare(tiny, soundscapes="test")


def test_tables_are_written_under_their_names(tables, tmp_path, tiny):
    write_tables(tables, tmp_path / "data", "synth_shift", tiny)
    names = {p.name for p in (tmp_path / "data").iterdir()}
    assert {f"validation{part}.csv" for part in ("", "_events", "_rows", "_truth")} | {"unlabelled.csv"} <= names
    classes = pd.read_csv(tmp_path / "data" / "classes.csv")
    assert classes.set_index("label").scientific_name["bogfro"] == "Palustra sonora"
    write_tables(dataclasses.replace(tables, unlabelled=None), tmp_path / "data", "synth_shift", tiny)
    assert not (tmp_path / "data" / "unlabelled.csv").exists()


def test_another_seed_is_refused(tiny):
    with pytest.raises(ValueError, match="was not made with"):
        COMPETITION.prepare(tiny, seed=5)


# ---- the score


def test_the_truth_scores_one_and_a_constant_a_half(tables):
    truth, rows = tables.truth, tables.test[["row_id"]].reset_index(drop=True)
    perfect = truth.set_index("row_id").loc[rows.row_id].astype(float).reset_index()
    COMPETITION.validate(perfect, tables.test, tables.classes)
    assert COMPETITION.score(perfect, truth)["macro_roc_auc"] == 1
    constant = rows.assign(**dict.fromkeys(tables.classes, 0.5))
    assert COMPETITION.score(constant, truth)["macro_roc_auc"] == 0.5


def test_classes_without_positives_or_without_negatives_do_not_count():
    truth = pd.DataFrame({"row_id": ["a_5", "a_10"], "x": [1, 0], "never": [0, 0], "always": [1, 1]})
    said = pd.DataFrame({"row_id": ["a_5", "a_10"], "x": [0.9, 0.1], "never": [0.9, 0.1], "always": [0.1, 0.9]})
    assert COMPETITION.score(said, truth)["macro_roc_auc"] == 1


# ---- unlabelled soundscapes of the real years


def test_unlabelled_soundscapes_of_other_years(tmp_path):
    (tmp_path / "unlabeled_soundscapes").mkdir()
    (tmp_path / "train_soundscapes").mkdir()
    for name in ("unlabeled_soundscapes/460830.ogg", "train_soundscapes/H02_20230420_074000.ogg",
                 "train_soundscapes/BC2026_Train_0001_S08_20250606_030007.ogg"):  # fmt: skip
        (tmp_path / name).write_bytes(b"x")
    found = birdclef_recordings.unlabelled_soundscapes(tmp_path).set_index("clip_id")
    assert found.site.to_dict() == {
        "460830": "", "H02_20230420_074000": "H02", "BC2026_Train_0001_S08_20250606_030007": "S08"
    }  # fmt: skip
    (tmp_path / "train_soundscapes_labels.csv").write_text(
        "filename,start,end,primary_label\nBC2026_Train_0001_S08_20250606_030007.ogg,00:00:00,00:00:05,a\n"
    )
    assert "BC2026_Train_0001_S08_20250606_030007" not in set(
        birdclef_recordings.unlabelled_soundscapes(tmp_path).clip_id
    )
