"""Anomalous machines: names of every year, sections as classes, score files, the years' means of AUC and pAUC."""

import logging

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hmean
from sklearn.metrics import f1_score, roc_auc_score

import prepare
import submit
from earshot.competitions import dcase_task2, get_competition
from earshot.competitions.dcase_task2_scores import section_scores
from earshot.data.labels import read_classes
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table
from scripts import run

YEARS = range(2020, 2026)


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def names(year, per_part=2, machines=("ToyCar", "fan")):
    """The year's own names: training clips, and normal and anomalous test clips, of two sections."""
    found = []
    for machine in machines:
        for s in ("00", "01"):
            if year == 2020:
                found += [f"{machine}/train/normal_id_{s}_{i:08d}.wav" for i in range(3)]
                found += [
                    f"{machine}/test/{c}_id_{s}_{i:08d}.wav" for c in ("normal", "anomaly") for i in range(per_part)
                ]
                continue
            for domain in ("source", "target"):
                found.append(f"{machine}/train/section_{s}_{domain}_train_normal_0000_car_A2_spd_28V.wav")
                folder = f"{domain}_test" if year == 2021 else "test"
                tail = "" if year == 2021 else "_car_A1"
                found += [
                    f"{machine}/{folder}/section_{s}_{domain}_test_{c}_{i:04d}{tail}.wav"
                    for c in ("normal", "anomaly")
                    for i in range(per_part)
                ]
    return found


def predictions(clip_ids, score, unreadable=None, section="fan_section_00"):
    n = len(clip_ids)
    return Predictions(
        np.array(clip_ids), (section,), np.zeros((n, 1), np.float32), np.full(n, -1),
        np.zeros(n, bool) if unreadable is None else np.array(unreadable), score=np.asarray(score, np.float64),
    )  # fmt: skip


@pytest.mark.parametrize("year", YEARS)
def test_from_the_download_to_the_score_files(tmp_path, monkeypatch, capsys, year):
    monkeypatch.chdir(tmp_path)
    name = f"dcase{year}_task2"
    run(prepare, name, "--source", touch(tmp_path / "download/dev_data", *names(year)))
    data = tmp_path / "data" / name
    sections = ("id_00", "id_01") if year == 2020 else ("section_00", "section_01")
    assert read_classes(data / "classes.csv") == [f"{m}_{s}" for m in ("ToyCar", "fan") for s in sections]
    clips = read_table(data / "clips.csv")
    assert set(clips.official_fold[clips.split == "train"]) == {-1}
    assert set(clips.official_fold[clips.split == "test"]) == {0}
    test, truth = read_table(data / "test.csv"), read_table(data / "truth.csv")
    score = np.arange(len(test)) / 7 + 100 * truth.is_anomaly
    section = "fan_id_00" if year == 2020 else "fan_section_00"
    predictions(test.clip_id[::-1], score[::-1], section=section).save(tmp_path / "oof.npz")
    arguments = ("--competition", name, "--test", data / "test.csv")
    run(submit, *arguments, "--predictions", "oof.npz", "--out", "submissions/s.csv")
    files = sorted(p.name for p in (tmp_path / "submissions/s_files").glob("*.csv"))
    capsys.readouterr()
    run(submit, *arguments, "--check", *(f"submissions/s_files/{file}" for file in files))
    assert f"submissions/s_files/{files[0]}: {len(test)} rows, valid for {name}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"2 files are missing: {files[0]}, {files[1]}"):
        run(submit, *arguments, "--check", *(f"submissions/s_files/{file}" for file in files[2:]))
    part = {2020: "id_00", 2021: "section_00_source_test"}.get(year, "section_00_test")
    assert f"anomaly_score_fan_{part}.csv" in files
    assert (f"decision_result_fan_{part}.csv" in files) == (year > 2020)
    line = (tmp_path / f"submissions/s_files/anomaly_score_fan_{part}.csv").read_text().split("\n")[0]
    assert line.split(",")[0].endswith(".wav")
    result = get_competition(name).score(read_table("submissions/s.csv"), truth)
    assert result["official"] == 1
    assert result["skipped"] == 0
    assert result.get("f1", 1) == 1


@pytest.mark.parametrize(("name", "folder", "expected"), [
    ("normal_id_04_00000123.wav", "train", ("id_04", "", "id_04", 0, "")),
    ("anomaly_id_04_00000123.wav", "test", ("id_04", "", "id_04", 1, "")),
    ("id_05_00000123.wav", "test", ("id_05", "", "id_05", None, "")),
    ("section_00_source_train_normal_0000_strength_1_ambient.wav", "train",
     ("section_00", "source", "section_00_test", 0, "strength_1_ambient")),
    ("section_03_target_test_0007.wav", "target_test", ("section_03", "target", "section_03_target_test", None, "")),
    ("section_01_0007.wav", "source_test", ("section_01", "source", "section_01_source_test", None, "")),
    ("section_03_test_0007.wav", "test", ("section_03", "", "section_03_test", None, "")),
    ("section_00_0001.wav", "test", ("section_00", "", "section_00_test", None, "")),
    ("section_00_source_test_anomaly_0001_noAttribute.wav", "test", ("section_00", "source", "section_00_test", 1, "")),
    ("section_00_target_train_normal_0002_car_A2_spd_28V.wav", "train",
     ("section_00", "target", "section_00_test", 0, "car=A2 spd=28V")),
    ("section_00_target_train_0002.wav", "train", ("section_00", "target", "section_00_test", 0, "")),
])  # fmt: skip
def test_what_a_name_says(name, folder, expected):
    said = dcase_task2.parse_name(name, folder)
    assert (said["section"], said["domain"], said["part"], said["is_anomaly"], said["attributes"]) == expected


def test_odd_names_attribute_files_and_broken_downloads(tmp_path, caplog):
    with pytest.raises(ValueError, match=r"has no <machine>/train/\*\.wav"):
        dcase_task2.prepare(tmp_path)
    touch(tmp_path, "fan/test/section_00_source_test_normal_0000.wav")
    with pytest.raises(ValueError, match="has no training clip in any <machine>/train/"):
        dcase_task2.prepare(tmp_path)
    train = "fan/train/section_00_"
    touch(tmp_path, f"{train}source_train_normal_0000.wav", "fan/train/noise.wav",
          f"{train}source_train_anomaly_0001.wav", f"{train}target_train_normal_0002.wav",
          "fan/section_00_source_train_normal_0003.wav",
          "fan/train/section_00_source_train_normal_0004.flac")  # fmt: skip
    table = pd.DataFrame(
        {"file_name": ["fan/train/section_00_source_train_normal_0000.wav"], "d1p": ["f-n"], "d1v": [3]}
    )
    table.to_csv(tmp_path / "fan/attributes_00.csv", index=False)
    with caplog.at_level(logging.WARNING, "earshot"):
        clips = dcase_task2.prepare(tmp_path).clips
    assert "1 files are not named as DCASE names them and are left out: fan/train/noise.wav" in caplog.text
    assert "1 anomalous clips lie among the training clips and are left out" in caplog.text
    assert "2 recordings are no .wav in a <machine>/train/, test/, source_test/, or target_test/" in caplog.text
    assert "fan/section_00_source_train_normal_0003.wav" in caplog.text
    assert clips.attributes.tolist() == ["", "f-n=3", ""]
    assert clips.official_fold.tolist() == [0, -1, -1]


def test_machines_without_training_clips_and_unknown_conditions(tmp_path, caplog):
    """First shot: the evaluation's machine is new, and nobody says which clips are anomalous."""
    touch(tmp_path, "dev/fan/train/section_00_source_train_normal_0000.wav",
          "dev/fan/test/section_00_source_test_anomaly_0000.wav", "dev/saw/test/section_00_source_test_normal_0000.wav",
          "dev/saw/test/section_00_source_test_anomaly_0001.wav")  # fmt: skip
    with caplog.at_level(logging.WARNING, "earshot"):
        tables = dcase_task2.prepare(tmp_path)
    assert "1 sections have test clips and no training clip; they are no classes: saw_section_00 (2)" in caplog.text
    assert tables.classes == ["fan_section_00"]
    assert tables.test_clips.labels.tolist() == ["", ""]
    assert len(tables.test) == 3  # the known ones are scored all the same
    touch(tmp_path, "eval/band/test/section_00_0000.wav", "eval/band/train/section_00_source_train_normal_0000.wav")
    tables = dcase_task2.prepare(tmp_path)
    assert tables.test.clip_id.tolist() == ["band_test_section_00_0000"]
    assert tables.truth is None
    assert "band_section_00" in tables.classes


def test_outputs_become_scores_and_unseen_machines_are_scored_by_what_they_resemble(caplog):
    """Log odds of sections, no `score`: the own section's, else the surest of the machine's, else the surest of all."""
    classes = ("fan_section_00", "fan_section_01", "saw_section_00")
    test = pd.DataFrame({
        "machine": ["fan", "fan", "band"], "section": ["section_01", "section_02", "section_00"],
        "part": ["section_01_test", "section_02_test", "section_00_test"], "filename": list("abc"), "domain": "",
        "clip_id": list("abc"),
    })  # fmt: skip
    log_odds = np.array([[2, -1, 5], [2, -1, 5], [2, -1, 5]], np.float32)[::-1]
    found = Predictions(np.array(list("cba")), classes, log_odds, np.zeros(3, int), np.zeros(3, bool))
    with caplog.at_level(logging.WARNING, "earshot"):
        rows = dcase_task2.rows(found, test)
    assert rows.score.tolist() == [1, -2, -5]
    assert "2 clips are of sections that training never saw" in caplog.text
    assert "fan_section_02 (1)" in caplog.text
    dcase_task2.validate(rows, test)


def test_attribute_files_that_miss_a_clip_are_named(tmp_path, caplog):
    train = [f"fan/train/section_00_source_train_normal_000{i}_spd_{i}V.wav" for i in range(3)]
    touch(tmp_path, *train, "saw/train/section_00_source_train_normal_0000_x_1.wav")
    table = pd.DataFrame({"file_name": train[:2], "d1p": "spd", "d1v": ["7V", "8V"]})
    table.to_csv(tmp_path / "fan/attributes_00.csv", index=False)
    with caplog.at_level(logging.WARNING, "earshot"):
        clips = dcase_task2.scan(tmp_path)
    assert clips.attributes.tolist() == ["spd=7V", "spd=8V", "spd=2V", "x=1"]
    assert "1 training clips are in no attribute file; what their names say is kept: fan_section_00" in caplog.text
    assert "saw" not in caplog.text, "2021 and earlier, and some machines, have none"


def test_clips_without_a_score_and_decisions(caplog):
    test = pd.DataFrame({
        "machine": ["fan"] * 4 + ["saw"], "part": ["section_00_test"] * 3 + ["section_01_test", "section_00_test"],
        "filename": list("abcde"), "section": ["section_00"] * 3 + ["section_01", "section_00"], "domain": "",
        "clip_id": list("abcde"),
    })  # fmt: skip
    found = predictions(list("abc"), [1.0, 4.0, np.nan])
    with caplog.at_level(logging.WARNING, "earshot"):
        rows = dcase_task2.rows(found, test)
    assert "3 of 5 clips have no anomaly score and get the mean of their section: c, d, e" in caplog.text
    assert rows.score.tolist() == [1, 4, 2.5, 2.5, 2.5]
    assert rows.decision.tolist() == [0, 1, 0, 0, 0]
    decided = dcase_task2.rows(found, test, {"thresholds": {"fan_section_00": 0.5}})
    assert decided.decision.tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="have no anomaly score: predict with a run of the task asd"):
        dcase_task2.rows(Predictions(np.array(["a"]), ("x",), np.zeros((1, 1)), np.zeros(1), np.zeros(1, bool)), test)
    with pytest.raises(ValueError, match="no clip of the test has an anomaly score"):
        dcase_task2.rows(predictions(["z"], [1.0]), test)
    dcase_task2.validate(rows, test)
    get_competition("dcase2020_task2").validate(rows.drop(columns="decision"), test)
    for wrong, message in (
        (rows.assign(score=[1, 2, np.inf, 4, 5]), "score holds 1 values that are no finite number"),
        (rows.assign(decision=[0, 1, 2, 0, np.nan]), "decision is neither 0 nor 1 in 2 rows"),
        (rows.iloc[[0, 0, 2, 3, 4]], "1 clips twice: fan/section_00_test/a; 1 clips not there: fan/section_00_test/b"),
        (rows.drop(columns="decision"), "missing decision"),
    ):
        with pytest.raises(ValueError, match=message):
            dcase_task2.validate(wrong, test)


def test_read_files_says_what_is_wrong(tmp_path):
    test = pd.DataFrame({"machine": "fan", "part": "section_00_test", "filename": ["b.wav", "a.wav"]})
    scores, decisions = (tmp_path / f"{kind}_fan_section_00_test.csv" for kind in ("anomaly_score", "decision_result"))
    with pytest.raises(ValueError, match="2 files are missing: anomaly_score_fan_section_00_test.csv, decision_result"):
        dcase_task2.read_files([], test)
    decisions.write_text("a.wav,1\n")
    scores.write_text("a.wav,1.5\na.wav,2\n")
    with pytest.raises(ValueError, match="1 file is of no machine and part of the test: anomaly_score_fan_section_01"):
        dcase_task2.read_files([scores, decisions, tmp_path / "anomaly_score_fan_section_01_test.csv"], test)
    with pytest.raises(ValueError, match="anomaly_score_fan_section_00_test.csv names a.wav twice"):
        dcase_task2.read_files([scores, decisions], test)
    scores.write_text("a.wav,1.5\nb.wav,2\n")
    table = dcase_task2.read_files([decisions, scores], test)  # b has no decision
    assert table.filename.tolist() == ["b.wav", "a.wav"], "in the order of the test"
    with pytest.raises(ValueError, match="decision is neither 0 nor 1 in 1 rows"):
        dcase_task2.validate(table, test)


# ---- scores


def scored(seed, n=12):
    """Two machines, two sections, two domains, with scores; (submission, truth)."""
    rng = np.random.default_rng(seed)
    rows = [(m, s, d, a) for m in ("fan", "saw") for s in ("section_00", "section_01") for d in ("source", "target")
            for a in (0, 1) for _ in range(n)]  # fmt: skip
    truth = pd.DataFrame(rows, columns=["machine", "section", "domain", "is_anomaly"])
    truth["part"] = truth.section + "_test"
    truth["filename"] = [f"{i}.wav" for i in range(len(truth))]
    score = rng.normal(truth.is_anomaly * 0.8)
    submission = truth[["machine", "part", "filename"]].assign(score=score, decision=(score > 0.5).astype(int))
    return submission.sample(frac=1, random_state=seed), truth


def test_official_scores_are_those_of_the_published_rules():
    submission, truth = scored(0)
    both = truth.merge(submission, on=["machine", "part", "filename"])
    shared, apart, auc, pauc = [], [], [], []
    for _, clip in both.groupby(["machine", "section"]):
        for d in ("source", "target"):
            mixed = clip[(clip.domain == d) | (clip.is_anomaly == 1)]
            own = clip[clip.domain == d]
            shared.append(roc_auc_score(mixed.is_anomaly, mixed.score))
            apart += [roc_auc_score(own.is_anomaly, own.score), roc_auc_score(own.is_anomaly, own.score, max_fpr=0.1)]
        auc.append(roc_auc_score(clip.is_anomaly, clip.score))
        pauc.append(roc_auc_score(clip.is_anomaly, clip.score, max_fpr=0.1))
    new = get_competition("dcase2023_task2").score(submission, truth)
    assert new["official"] == pytest.approx(hmean([*shared, *pauc]), abs=1e-12)
    assert new["auc_source"] == pytest.approx(hmean(shared[::2]), abs=1e-12)
    assert new["auc_fan"] == pytest.approx(hmean(shared[:4]), abs=1e-12)
    assert new["pauc_arithmetic"] == pytest.approx(np.mean(pauc), abs=1e-12)
    f1 = [f1_score(c.is_anomaly, c.decision) for _, c in both.groupby(["machine", "section", "domain"])]
    assert new["f1"] == pytest.approx(np.mean(f1), abs=1e-12)
    assert get_competition("dcase2021_task2").score(submission, truth)["official"] == pytest.approx(
        hmean(apart), abs=1e-12
    )
    old = get_competition("dcase2020_task2").score(submission, truth)
    assert old["official"] == pytest.approx((np.mean(auc) + np.mean(pauc)) / 2, abs=1e-12)
    assert old["auc_harmonic"] == pytest.approx(hmean(auc), abs=1e-12)


@pytest.mark.parametrize("year", YEARS)
def test_a_section_without_anomalies_is_left_out_and_named(year, caplog):
    submission, truth = scored(1)
    lost = (truth.machine == "saw") & (truth.section == "section_01") & (truth.is_anomaly == 1)
    kept = truth[~lost]
    submission = submission[submission.filename.isin(kept.filename)]
    with caplog.at_level(logging.WARNING, "earshot"):
        result = get_competition(f"dcase{year}_task2").score(submission, kept)
    assert "lack normal or anomalous clips and have no AUC: saw section_01" in caplog.text
    assert result["skipped"] == {2020: 2, 2021: 4}.get(year, 3)
    rest = truth[(truth.machine != "saw") | (truth.section != "section_01")]
    without = get_competition(f"dcase{year}_task2").score(submission[submission.filename.isin(rest.filename)], rest)
    assert {**result, "skipped": 0, "f1": 0} == pytest.approx({**without, "f1": 0})
    normal = kept[kept.is_anomaly == 0]
    submission = submission[submission.filename.isin(normal.filename)]
    with pytest.raises(ValueError, match="no section has both normal and anomalous clips"):
        get_competition(f"dcase{year}_task2").score(submission, normal)


def test_truth_without_domains_is_scored_as_a_whole():
    submission, truth = scored(2)
    table = section_scores(submission, truth.assign(domain=np.nan), "shared")
    assert set(table.domain) == {"both"}
    assert len(table) == 4
    with pytest.raises(ValueError, match="mode is 'mean': choose one of plain, domain, shared"):
        section_scores(submission, truth, "mean")
    with pytest.raises(ValueError, match="does not answer the clips of this truth: 1 clips not there"):
        section_scores(submission.iloc[1:], truth)
