"""Fold tables: what folds share, reading and counting them, errors."""

import numpy as np
import pandas as pd
import pytest

import make_folds as script
from earshot.competitions import rfcx
from earshot.competitions.tables import write_csv
from earshot.config import load_config
from earshot.data.folds import audit, fold_table, make_folds, missing_classes, read_folds, select_fold
from earshot.data.inside import folds_inside
from earshot.data.kept_folds import keep_folds
from earshot.data.prepared import load_data
from earshot.data.stale_folds import stale_folds
from scripts import run
from test_folds import table


def test_audit_finds_what_folds_share():
    clips = table(["a"] * 6, group=["p", "p", "q", "q", "r", "s"], content_hash=["x", "y", "z", "x", "", ""])
    folds = pd.DataFrame({"clip_id": clips.clip_id, "group": clips.group, "fold": [0, 1, 0, 0, 1, 0]})
    found = audit(clips, folds)
    assert found.values.tolist() == [["group", "p", "0 1", "c0000 c0001", 4]]
    folds["fold"] = [0, 0, 0, 1, 1, 0]
    assert audit(clips, folds).values.tolist() == [
        ["content_hash", "x", "0 1", "c0000 c0003", 3],
        ["group", "q", "0 1", "c0002 c0003", 4],
    ]
    nothing = audit(clips.drop(columns="content_hash"), folds, ["content_hash"])
    assert len(nothing) == 0
    assert nothing.columns.tolist() == ["column", "value", "folds", "clips", "of"]
    assert audit(clips.assign(official_fold=7), folds.assign(official_fold=8)).column.tolist() == [
        "content_hash", "group",
    ]  # fmt: skip


def test_clips_that_stay_keep_their_folds_when_others_come_and_go(tmp_path, capsys):
    clips = table(["a", "b"] * 8, group=[f"site{i // 2}" for i in range(16)])
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    before = make_folds(clips, 3)
    write_csv(before, old)
    sites = ["site0", "x", "x", "y", "z", "z"]
    more = table(["a", "b", "b", "a", "c", "c"], group=sites).assign(clip_id=[f"n{i}" for i in range(6)])
    season = pd.concat([clips.drop(index=3), more], ignore_index=True).assign(path="a.wav")
    write_csv(season, tmp_path / "clips.csv")
    run(script, "--clips", tmp_path / "clips.csv", "--keep", old, "--out", new)
    assert f"15 clips stay in the folds of {old}, 6 are new, 1 gone" in capsys.readouterr().out
    kept = read_folds(new, season).set_index("clip_id")
    staying = before[before.clip_id != clips.clip_id[3]].set_index("clip_id").fold
    pd.testing.assert_series_equal(kept.fold[staying.index], staying)
    assert kept.fold["n0"] == staying[clips.clip_id[0]], "with its site"
    assert kept.groupby("group").fold.nunique().eq(1).all()
    assert kept.fold.value_counts().max() - kept.fold.value_counts().min() <= 2
    own = keep_folds(season, old, own_fold=True).set_index("clip_id").fold
    assert own[["n1", "n3", "n4"]].tolist() == [3, 5, 4], "x, y and z, the largest first"
    with pytest.raises(ValueError, match="misses 6 of 21 clips: .*--keep .*old.csv leaves all other clips"):
        read_folds(old, season)
    with pytest.raises(ValueError, match="has 1 groups in several folds, which cannot be kept: all"):
        keep_folds(season.assign(group="all"), old)
    with pytest.raises(ValueError, match="has none of these clips"):
        keep_folds(more, old)
    write_csv(before.assign(fold=-1), old)
    with pytest.raises(ValueError, match="holds none of these clips out"):
        keep_folds(season, old)


def test_fold_table_counts_every_label_once():
    clips = table(["a b", "a a", "b", ""])
    folds = pd.DataFrame({"clip_id": clips.clip_id, "fold": [0, 0, 1, 1]})
    counts = fold_table(clips, folds, ["b", "a", "zzz"])
    assert counts.index.tolist() == ["b", "a", "zzz"]
    assert counts.to_numpy().tolist() == [[1, 1], [2, 0], [0, 0]]
    assert missing_classes(counts) == {0: ["zzz"], 1: ["a", "zzz"]}
    with_empty = fold_table(clips, folds.assign(fold=[0, 0, 1, 2]))
    assert with_empty.index.tolist() == ["a", "b"]
    assert with_empty[2].tolist() == [0, 0], "a fold of clips without labels is there too"


def test_read_folds_checks_the_table(tmp_path):
    clips = table(["a"] * 3)
    path = tmp_path / "folds.csv"

    def read(text):
        path.write_text("clip_id,group,fold\n" + text)
        return read_folds(path, clips)

    assert read("c0002,g,0\nc0001,g,1\nc0000,g,0\n").fold.tolist() == [0, 1, 0]
    decimals = read("c0002,g,0.0\nc0001,g,1.0\nc0000,g,2.0\n").fold  # as pandas writes a column with gaps
    assert (decimals.tolist(), decimals.dtype.kind) == ([2, 1, 0], "i")
    for text, message in (
        ("c0000,g,0\nc0000,g,1\nc0001,g,0\nc0002,g,0\n", "lists 1 clip twice: c0000"),
        ("c0000,g,0\n", "misses 2 of 3 clips: c0001, c0002; make another"),
        ("c0000,g,0\nc0001,g,0\nc0002,g,0\nc9,g,0\n", "names 1 clips that are not in the clip table: c9"),
        ("c0000,g,0\nc0001,g,0.5\nc0002,g,0\n", r"whole numbers from 0, .*, got '0\.5'"),
        ("c0000,g,0\nc0001,g,-2\nc0002,g,0\n", "from 0, or -1 for clips that always train, got '-2'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(text)
    path.write_text("clip_id,group,folds\n")
    with pytest.raises(ValueError, match="no column 'fold'; did you mean 'folds'"):
        read_folds(path, clips)
    with pytest.raises(ValueError, match=r"does not exist; did you mean 'folds\.csv'"):
        read_folds(tmp_path / "fold.csv", clips)


def test_select_fold_holds_one_out_or_says_which_there_are():
    folds = pd.DataFrame({"clip_id": list("abcde"), "fold": range(5)})
    assert select_fold(folds, 3).tolist() == [False, False, False, True, False]
    with pytest.raises(ValueError, match=r"fold 5 is not in folds/birds.csv \(folds: 0-4\)"):
        select_fold(folds, 5, "folds/birds.csv")
    with pytest.raises(ValueError, match=r"fold 1 is not in the fold table \(folds: 0\)"):
        select_fold(folds.assign(fold=[0, 0, -1, 0, 0]), 1)
    with pytest.raises(ValueError, match=r"\(folds: 0, 2, 3\)"):
        select_fold(folds.assign(fold=[0, 0, 2, 3, -1]), 1)
    with pytest.raises(ValueError, match=r"holds out none of the 5 clips .* by data\.where"):
        select_fold(folds.assign(fold=-1), 0)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="the clip table has no column 'labels'"):
        make_folds(table(["a"] * 9).drop(columns="labels"))
    with pytest.raises(ValueError, match="the clip table has no column 'official_fold'"):
        make_folds(table(["a"] * 9), method="official")
    with pytest.raises(ValueError, match="every clip is of one group, and two folds need .* another --group"):
        make_folds(table(["a"] * 9, ["x"] * 9), k=2)
    with pytest.raises(ValueError, match="unknown fold method 'random'"):
        make_folds(table(["a"] * 9), method="random")
    with pytest.raises(ValueError, match="2 groups cannot fill 5 folds; take --k 2"):
        make_folds(table(["a"] * 9, ["x"] * 5 + ["y"] * 4))
    with pytest.raises(ValueError, match="k must be at least 2 folds, got 1"):
        make_folds(table(["a"] * 9), k=1)
    with pytest.raises(ValueError, match="the clip table has no column 'sites'; did you mean 'site'"):
        make_folds(table(["a"] * 9, site="x"), group="sites")
    with pytest.raises(ValueError, match="no column 'first_label'"):
        make_folds(table(["a"] * 9), method=rfcx.source_folds)


def test_an_empty_group_falls_back_to_the_tables_own():
    """Soundscapes have a site and no author: folds by author keep a site together; stray spaces are no other author."""
    clips = pd.DataFrame({
        "clip_id": [f"c{i}" for i in range(12)], "labels": "a",
        "group": [f"r{i}" for i in range(6)] + ["site_S08"] * 4 + ["", "x"],
        "author": ["one", "one ", " one", "two", "t  wo", "t wo"] + [""] * 4 + [None, ""],
    })  # fmt: skip
    groups = make_folds(clips, 3, group="author").set_index("clip_id").group
    assert groups[[f"c{i}" for i in range(6)]].tolist() == ["one", "one", "one", "two", "t wo", "t wo"]
    assert set(groups[["c6", "c7", "c8", "c9"]]) == {"site_S08"}
    assert groups["c10"] == "c10"
    assert groups["c11"] == "x"


def test_audit_speaks_of_sites_recordists_and_the_tables_own_groups():
    clips = pd.DataFrame({
        "clip_id": list("abcdef"), "labels": "x", "group": ["g", "g", "", "h", "i", "j"],
        "site": ["S1", "", "S1", "", "", ""], "author": ["A ", "B", "A", "Unknown", "unknown", "C"],
    })  # fmt: skip
    folds = pd.DataFrame({"clip_id": list("abcdef"), "group": list("abcdef"), "fold": [0, 1, 1, 0, 1, 0]})
    found = audit(clips, folds)
    assert found[["column", "value", "folds", "clips"]].values.tolist() == [
        ["group", "g", "0 1", "a b"], ["site", "S1", "0 1", "a c"], ["author", "A", "0 1", "a c"],
    ]  # fmt: skip


def test_each_group_takes_no_number_of_folds(tmp_path, capsys):
    table(["a"] * 4, group=["p", "p", "q", "r"], path="x.wav").to_csv(tmp_path / "clips.csv", index=False)
    command = ("--clips", tmp_path / "clips.csv", "--out", tmp_path / "folds.csv", "--method", "each_group")
    with pytest.raises(ValueError, match="--k 3: --method each_group makes as many folds as there are groups"):
        run(script, *command, "--k", "3")
    run(script, *command)
    assert "-> 3 folds (each_group)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "without", "message"),
    [(4, ["labels"], r"clips.csv has no column 'labels'"), (0, [], "the clip table lists no clip, and two folds")],
)
def test_tables_that_cannot_be_split_leave_no_folds(tmp_path, rows, without, message):
    clips = table(["a"] * 4, path="x.wav").drop(columns=without).head(rows)
    clips.to_csv(tmp_path / "clips.csv", index=False)
    with pytest.raises(ValueError, match=message):
        run(script, "--clips", tmp_path / "clips.csv", "--out", tmp_path / "folds.csv", "--k", "2")
    assert [p.name for p in tmp_path.iterdir()] == ["clips.csv"]


def test_groups_that_a_fold_table_was_made_without_are_found():
    """Data that were prepared again with groups; what was asked for keeps other groups, or the published way."""
    clips = table(["a"] * 12, group=["p", "q", "r", ""] * 3, site=[f"s{i}" for i in range(6)] * 2)
    before = make_folds(clips.drop(columns="group"), 3, seed=1)
    stale = stale_folds(clips, before)
    assert [row[0] for row in stale.torn] == ["p", "q", "r"]
    said = stale.say("data/my set/clips.csv", "folds/g.csv")
    assert said.startswith(
        "3 of 3 groups of data/my set/clips.csv lie in several folds of folds/g.csv, which was made "
    )
    assert f"such as p (folds {stale.torn[0][1].replace(' ', ', ')})" in said
    assert said.endswith("make_folds.py --clips 'data/my set/clips.csv' --out folds/g.csv --k 3 --force")
    for group in (None, "site", "none"):
        assert not stale_folds(clips, make_folds(clips, 3, group=group)).torn
    published = make_folds(clips.drop(columns="group"), 3, method="table_order")
    assert not stale_folds(clips, published).torn, "parted as published"
    assert not stale_folds(clips.drop(columns="group"), before).torn
    official = make_folds(clips.drop(columns="group").assign(official_fold=[0, 1, 2] * 4))
    assert not stale_folds(clips, official).torn, "an official split may part them, known to it or not"
    other = clips.assign(group=[f"g{i // 2}" for i in range(12)])
    stale = stale_folds(other, make_folds(clips, 3).assign(fold=[0, 1] * 6))
    assert len(stale.torn) == 6, "groups that are others now"
    assert stale_folds(clips, make_folds(clips, 3)).say("", "") == ""


def test_folds_say_what_they_were_asked_to_keep_together(tmp_path):
    """So that a former `group` that is still a column of the clip table is told from one that was asked for."""
    clips = table(["a"] * 12, group=[f"s{i}" for i in range(6)] * 2, site=[f"s{i}" for i in range(6)] * 2)
    former = make_folds(clips, 3)
    assert list(former.columns) == ["clip_id", "group", "fold"], "by `group`, as ever: the table is as it was"
    now = clips.assign(group=["p", "q", "r"] * 4)
    said = stale_folds(now, former).say("c.csv", "f.csv")
    assert said.startswith("3 of 3 groups of c.csv lie in several folds of f.csv")
    assert "(it keeps those of site; if that is meant, --group site has it say so)" in said
    asked = make_folds(now, 3, group="site")
    assert set(asked.grouped_by) == {"site"}
    assert (asked.fold == former.fold).all(), "the same folds"
    write_csv(asked, tmp_path / "f.csv")
    assert not stale_folds(now, read_folds(tmp_path / "f.csv", now)).torn
    moved = now.assign(site=now.group)
    said = stale_folds(moved, asked).say("c.csv", "f.csv")
    assert said.startswith("3 of 3 groups by site of c.csv lie in several folds")
    assert said.endswith("make_folds.py --clips c.csv --out f.csv --group site --k 3 --force")
    assert stale_folds(now.drop(columns="site"), asked).torn, "the column asked for has gone"


def test_groups_are_looked_at_of_the_clips_that_are_taken(tiny):
    """Groups that only others of the clip table are of say nothing of a run on a part (data.where)."""
    table = pd.read_csv("data/clips.csv")
    half = np.arange(len(table)) % 2
    table.assign(machine=np.where(half, "fan", "pump"), group=np.where(half, table.clip_id, "g")).to_csv(
        "data/clips.csv", index=False
    )
    said = {m: load_data(load_config(tiny, [f"data.where={{machine: {m}}}"]).data).stale_folds for m in ("fan", "pump")}
    assert said["fan"] == ""
    assert said["pump"].startswith("1 of 1 groups of ")
    assert load_data(load_config(tiny).data).stale_folds


def test_folds_inside_a_fold_keep_what_the_folds_outside_were_asked_to_keep():
    clips = table(["a"] * 12, group=["p", "q", "r"] * 4)
    folds = make_folds(clips, 3, group="none").assign(fold=[-1, 0, 1, 2] * 3)
    inside = clips.assign(group=folds.group, fold=folds.fold, grouped_by=folds.grouped_by)[folds.fold != 0]
    inner = folds_inside(inside, 2, 42, None, "auto")
    assert list(inner.grouped_by) == ["none"] * 9
    assert not stale_folds(clips.take(inside.index).reset_index(drop=True), inner).torn


def test_groups_larger_than_a_fold_and_those_that_differ_in_case_are_named(tmp_path, capsys):
    owners = ["Bob"] * 14 + ["ann", "Ann", "BOB", "x", "y", "z"]
    write_csv(table(["a", "b"] * 10, group=owners).assign(path="a.wav"), tmp_path / "clips.csv")
    run(script, "--clips", tmp_path / "clips.csv", "--out", tmp_path / "folds.csv", "--k", 3)
    said = capsys.readouterr().out
    assert "group Bob holds 14 of 20 clips, and an even fold 6: when it is held out, 6 clips train at most" in said
    folds = pd.DataFrame({"group": ["ann", "Ann", "p", "q"], "fold": [0, 0, 1, 1]})
    assert script.doubtful_groups(folds, "grouped") == [], "both in one fold, and all of a size"
    said = script.doubtful_groups(folds.assign(fold=[0, 1, 1, 0]), "official")
    assert [line.partition(";")[0] for line in said] == [
        "groups that differ in case alone are in several folds: Ann/ann"
    ]
