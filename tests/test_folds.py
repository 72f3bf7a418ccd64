"""Folds: the invariants that a CV rests on, for every kind of table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from earshot.competitions import rfcx
from earshot.data.folds import (
    _assign_groups,
    _refine,
    _repair,
    audit,
    choose_method,
    fold_table,
    make_folds,
    missing_classes,
    rare_classes,
    read_folds,
    select_fold,
)


def table(labels, group=None, **columns) -> pd.DataFrame:
    clips = pd.DataFrame({"clip_id": [f"c{i:04d}" for i in range(len(labels))], "labels": labels, **columns})
    return clips if group is None else clips.assign(group=group)


def simulated(n=600, n_classes=12, n_groups=None, multilabel=False, seed=0) -> pd.DataFrame:
    """Classes of uneven frequency, groups of uneven size."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(n_classes, 0.7))
    labels = [f"k{c:02d}" for c in rng.choice(n_classes, n, p=share)]
    if multilabel:
        more = [f" k{c:02d}" * (rng.random() < 0.5) for c in rng.choice(n_classes, n)]
        labels = [a + b for a, b in zip(labels, more)]
    group = None if n_groups is None else (n_groups * rng.random(n) ** 1.5).astype(int).astype(str)
    return table(labels, group)


@st.composite
def clip_tables(draw):
    n = draw(st.integers(6, 40))
    names = st.lists(st.sampled_from("abcde"), min_size=0, max_size=draw(st.sampled_from([1, 3])))
    labels = [" ".join(draw(names)) for _ in range(n)]
    group = [str(draw(st.integers(0, 12))) for _ in range(n)] if draw(st.booleans()) else None
    return table(labels, group)


@given(clip_tables(), st.integers(2, 5), st.integers(0, 3), st.randoms())
def test_every_clip_once_no_group_split_any_row_order(clips, k, seed, random):
    if len(set(clips.get("group", clips.clip_id))) < k:
        with pytest.raises(ValueError, match="groups cannot fill"):
            make_folds(clips, k, seed)
        return
    folds = make_folds(clips, k, seed)
    assert folds.clip_id.tolist() == sorted(clips.clip_id)
    assert set(folds.fold) <= set(range(k))
    assert (folds.groupby("group").fold.nunique() == 1).all()
    order = list(range(len(clips)))
    random.shuffle(order)
    again = make_folds(clips.iloc[order], k, seed)
    assert folds.to_csv(index=False) == again.to_csv(index=False)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("n_groups", [None, 150])
def test_class_shares_are_near_one_kth(n_groups, multilabel):
    for seed in range(3):
        clips = simulated(n_groups=n_groups, multilabel=multilabel, seed=seed)
        folds = make_folds(clips, 5)
        counts = fold_table(clips, folds)
        frequent = counts[counts.sum(axis=1) >= 50]
        shares = frequent.div(frequent.sum(axis=1), axis=0).to_numpy()
        assert np.abs(shares - 0.2).max() < (0.04 if n_groups is None else 0.08)
        sizes = np.bincount(folds.fold) / len(folds)
        assert np.abs(sizes - 0.2).max() < 0.02


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("n_groups", [None, 60])
def test_a_class_with_enough_groups_misses_no_fold(n_groups, multilabel):
    for seed in range(6):
        clips = simulated(300, 20, n_groups, multilabel, seed)
        missing = missing_classes(fold_table(clips, make_folds(clips, 5)))
        rare = set(rare_classes(clips, 5).label)
        assert {name for names in missing.values() for name in names} <= rare


def test_rare_classes_are_named_with_their_counts():
    clips = table(
        ["a"] * 10 + ["b"] * 4 + ["c c"] * 3 + ["d"], group=[str(i) for i in range(14)] + ["x", "x", "y", "z"]
    )
    rare = rare_classes(clips, 5)
    assert rare.to_dict("list") == {"label": ["d", "c", "b"], "clips": [1, 3, 4], "groups": [1, 2, 4]}
    assert rare_classes(clips, 5, group="none").groups.tolist() == [1, 3, 4]
    missing = missing_classes(fold_table(clips, make_folds(clips, 5)))
    assert sum("d" in names for names in missing.values()) == 4
    assert not any("a" in names for names in missing.values())


def test_all_classes_rare_still_gives_even_folds():
    clips = table(list("aabbccddee"))
    folds = make_folds(clips, 5)
    assert np.bincount(folds.fold).tolist() == [2, 2, 2, 2, 2]
    assert (fold_table(clips, folds).to_numpy() <= 1).all()


def test_clips_without_labels_are_spread():
    clips = table(["a"] * 20 + [""] * 10)
    folds = make_folds(clips, 5).set_index("clip_id").fold
    assert np.bincount(folds[clips.clip_id[clips.labels == ""]]).tolist() == [2, 2, 2, 2, 2]


def test_stratified_is_scikit_learns_on_sorted_ids():
    clips = simulated(200, 4)
    expected = np.full(200, -1)
    for fold, (_, valid) in enumerate(StratifiedKFold(5, shuffle=True, random_state=7).split(clips, clips.labels)):
        expected[valid] = fold
    np.testing.assert_array_equal(make_folds(clips, 5, seed=7).fold, expected)


def test_the_method_follows_from_the_data():
    single = table(["a", "b"] * 10)
    assert choose_method(single) == "stratified"
    assert choose_method(table(["a b", "b"] * 10)) == "multilabel"
    grouped = single.assign(group="g" + single.index.astype(str).str[0])
    assert choose_method(grouped) == "grouped"
    assert choose_method(grouped, "none") == "stratified"
    assert choose_method(single.assign(official_fold=1)) == "official"
    assert choose_method(single.assign(official_fold=1, site=["x", "y"] * 10), "site") == "grouped"


def test_official_folds_are_ranks_and_keep_their_numbers():
    folds = make_folds(table(["a"] * 4, official_fold=[7, 3, 3, 9], group=["p", "", "q", "q"]))
    assert folds.fold.tolist() == [1, 0, 0, 2]
    assert folds.official_fold.tolist() == [7, 3, 3, 9]
    assert folds.group.tolist() == ["p", "c0001", "q", "q"]  # an empty group is a clip alone


def test_an_official_training_set_is_in_every_fold_and_never_held_out(tmp_path):
    clips = table(["a"] * 5, official_fold=[-1, 4, 2, -1, 2])
    folds = make_folds(clips)
    assert folds.fold.tolist() == [-1, 1, 0, -1, 0]
    folds.to_csv(tmp_path / "folds.csv", index=False)
    again = read_folds(tmp_path / "folds.csv", clips)
    assert select_fold(again, 0).tolist() == [False, False, True, False, True]
    with pytest.raises(ValueError, match=r"fold -1 is not in .* \(folds: 0-1\)"):
        select_fold(again, -1)


def test_seeds_differ_and_repeat():
    clips = simulated(100, 4, 30)
    assert make_folds(clips, seed=1).equals(make_folds(clips, seed=1))
    assert not make_folds(clips, seed=1).equals(make_folds(clips, seed=2))


def imbalance(held, sizes, fold, k) -> float:
    """The readable twin of what `_refine` lowers."""
    total = 0.0
    for column, weight in [*((held[:, c], 1) for c in range(held.shape[1])), (sizes, 2)]:
        for f in range(k):
            total += weight * (column[fold == f].sum() - column.sum() / k) ** 2 / max(column.sum(), 1)
    return total


@given(st.integers(0, 1000))
def test_refine_ends_where_no_single_move_helps(seed):
    rng = np.random.default_rng(seed)
    held = rng.integers(0, 4, (15, 3)) * rng.integers(0, 2, (15, 3))
    held[held.sum(axis=1) == 0, 0] = 1  # every group is of some class (that of the clips without labels, if none)
    sizes = held.max(axis=1) + 1
    before = _assign_groups(held, sizes, 3, seed)
    after = _refine(held, sizes, before, 3, passes=1000)
    best = imbalance(held, sizes, after, 3)
    assert best <= imbalance(held, sizes, before, 3) + 1e-9
    for g in range(15):
        for f in range(3):
            moved = after.copy()
            moved[g] = f
            assert imbalance(held, sizes, moved, 3) >= best - 1e-6


def test_repair_moves_the_smallest_group_and_robs_no_fold():
    held = np.array([[5, 0], [1, 0], [3, 3], [0, 2], [0, 2]])
    fold = np.array([0, 0, 0, 1, 1])
    repaired = _repair(held, fold, 2)  # class 0 is absent from fold 1, class 1 is in both
    assert repaired.tolist() == [0, 1, 0, 1, 1]
    assert _repair(held, np.array([0, 1, 0, 1, 1]), 2).tolist() == [0, 1, 0, 1, 1]


def test_greedy_assignment_by_hand():
    """Class 1 (2 clips) is rarer and goes first; then the big group of class 0, the small ones opposite it."""
    held = np.array([[4, 0], [1, 0], [1, 0], [1, 0], [1, 1], [0, 1]])
    fold = _assign_groups(held, held.sum(axis=1), 2, seed=0)
    assert fold[4] != fold[5]
    assert held[fold == fold[0]].sum(axis=0).tolist() in ([4, 0], [4, 1])


def test_audit_finds_what_folds_share():
    clips = table(["a"] * 6, group=["p", "p", "q", "q", "r", "s"], content_hash=["x", "y", "z", "x", "", ""])
    folds = pd.DataFrame({"clip_id": clips.clip_id, "group": clips.group, "fold": [0, 1, 0, 0, 1, 0]})
    found = audit(clips, folds)
    assert found.values.tolist() == [["group", "p", "0 1", "c0000 c0001"]]
    folds["fold"] = [0, 0, 0, 1, 1, 0]
    assert audit(clips, folds).values.tolist() == [
        ["content_hash", "x", "0 1", "c0000 c0003"],
        ["group", "q", "0 1", "c0002 c0003"],
    ]
    assert len(audit(clips.drop(columns="content_hash"), folds, ["content_hash"])) == 0


def test_fold_table_counts_every_label_once():
    clips = table(["a b", "a a", "b", ""])
    folds = pd.DataFrame({"clip_id": clips.clip_id, "fold": [0, 0, 1, 1]})
    counts = fold_table(clips, folds, ["b", "a", "zzz"])
    assert counts.index.tolist() == ["b", "a", "zzz"]
    assert counts.to_numpy().tolist() == [[1, 1], [2, 0], [0, 0]]
    assert missing_classes(counts) == {0: ["zzz"], 1: ["a", "zzz"]}


def test_read_folds_checks_the_table(tmp_path):
    clips = table(["a"] * 3)
    path = tmp_path / "folds.csv"

    def read(text):
        path.write_text("clip_id,group,fold\n" + text)
        return read_folds(path, clips)

    assert read("c0002,g,0\nc0001,g,1\nc0000,g,0\n").fold.tolist() == [0, 1, 0]
    for text, message in (
        ("c0000,g,0\nc0000,g,1\nc0001,g,0\nc0002,g,0\n", "lists 1 clips twice: c0000"),
        ("c0000,g,0\n", "misses 2 of 3 clips: c0001, c0002; make it again"),
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


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="unknown fold method 'random'"):
        make_folds(table(["a"] * 9), method="random")
    with pytest.raises(ValueError, match="2 groups cannot fill 5 folds; take --k 2"):
        make_folds(table(["a"] * 9, ["x"] * 5 + ["y"] * 4))
    with pytest.raises(ValueError, match="k must be at least 2 folds, got 1"):
        make_folds(table(["a"] * 9), k=1)
    with pytest.raises(ValueError, match="no column 'sites'; did you mean 'site'"):
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
