"""Folds: the invariants that a CV rests on, for every kind of table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import StratifiedKFold

from earshot.data import group_folds
from earshot.data.folds import (
    choose_method,
    fold_table,
    make_folds,
    missing_classes,
    rare_classes,
    read_folds,
    select_fold,
)
from earshot.data.group_folds import assign, refine, repair


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
    for group in (None, "none"):
        groups = pd.factorize(make_folds(clips, 5, group=group).group)[0]
        pd.testing.assert_frame_equal(rare_classes(clips, 5, group, groups), rare_classes(clips, 5, group))
    assert rare_classes(clips, 4).label.tolist() == ["d", "c"], "b has a group for each of 4 folds"
    assert rare_classes(clips, 10).label.tolist() == ["d", "c", "b"], "a has a group for each of 10"
    assert rare_classes(clips, 11).label.tolist() == ["d", "c", "b", "a"]
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


@pytest.mark.parametrize("folds", [[1.5, 2, 3, 1], ["a", "b", "a", "b"], [1, None, 2, 1], [4, 4, 4, 4]])
def test_official_folds_that_are_none_are_refused(folds):
    with pytest.raises(ValueError, match="official_fold"):
        make_folds(table(["a"] * 4, official_fold=folds))


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
    """The readable twin of what `refine` lowers."""
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
    before = assign(held, sizes, 3, seed)
    after = refine(held, sizes, before, 3, passes=1000)
    best = imbalance(held, sizes, after, 3)
    assert best <= imbalance(held, sizes, before, 3) + 1e-9
    for g in range(15):
        for f in range(3):
            moved = after.copy()
            moved[g] = f
            assert imbalance(held, sizes, moved, 3) >= best - 1e-6


def slow_refinement(held, sizes, fold, k, passes=10) -> list[int]:
    """The readable twin of `refine`, one group after the other."""
    held = np.column_stack([held, sizes]).astype(float)
    wanted, weight = held.sum(axis=0) / k, 1 / np.maximum(held.sum(axis=0), 1)
    weight[-1] *= 2
    surplus = np.stack([held[fold == f].sum(axis=0) for f in range(k)]) - wanted
    fold = fold.tolist()
    for _ in range(passes):
        before = fold.copy()
        for g, row in enumerate(held):
            without = surplus.copy()
            without[fold[g]] -= row
            cost = ((2 * without + row) * row * weight).sum(axis=1)
            if cost.min() < cost[fold[g]] - 1e-9:
                fold[g] = int(cost.argmin())
                without[fold[g]] += row
                surplus = without
        if fold == before:
            break
    return fold


@pytest.mark.parametrize("block", [1, 200, 1 << 16])
@given(seed=st.integers(0, 10_000))
def test_groups_compared_at_once_move_as_one_after_the_other(block, seed):
    rng = np.random.default_rng(seed)
    n, n_classes, k = rng.integers(5, 120), rng.integers(1, 12), rng.integers(2, 7)
    held = rng.integers(0, 5, (n, n_classes)) * (rng.random((n, n_classes)) < rng.random())
    held[held.sum(axis=1) == 0, 0] = 1
    sizes, fold = held.max(axis=1) + rng.integers(0, 3, n), rng.integers(0, k, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_folds, "LARGEST_BLOCK", block)
        assert refine(held, sizes, fold, k).tolist() == slow_refinement(held, sizes, fold, k)


def test_repair_moves_the_smallest_group_and_robs_no_fold():
    held = np.array([[5, 0], [1, 0], [3, 3], [0, 2], [0, 2]])
    fold = np.array([0, 0, 0, 1, 1])
    repaired = repair(held, fold, 2)  # class 0 is absent from fold 1, class 1 is in both
    assert repaired.tolist() == [0, 1, 0, 1, 1]
    assert repair(held, np.array([0, 1, 0, 1, 1]), 2).tolist() == [0, 1, 0, 1, 1]


def test_repair_helps_classes_of_exactly_as_many_groups_as_folds_and_no_rarer_ones():
    three = np.array([[1], [1], [1], [0], [0]])
    assert sorted(repair(three, np.array([0, 0, 0, 1, 2]), 3)[:3]) == [0, 1, 2]
    two = np.array([[1], [1], [0], [0], [0]])
    assert repair(two, np.array([0, 0, 0, 1, 2]), 3).tolist() == [0, 0, 0, 1, 2]


def slow_assignment(held, sizes, k, seed) -> list[int]:
    """The readable twin of `assign`, everything counted anew for each group."""
    order = np.random.default_rng(seed).permutation(len(held)).tolist()
    fold: dict[int, int] = {}

    def left(c):
        return sum(held[g][c] for g in order if g not in fold)

    def place(f, c):  # smaller is better
        inside = [g for g in fold if fold[g] == f]
        wanted = sum(held[:, c]) / k - sum(held[g][c] for g in inside)
        clips_wanted = sum(sizes) / k - sum(sizes[g] for g in inside)
        return -wanted, -clips_wanted, len(inside), f

    while remaining := [c for c in range(held.shape[1]) if left(c)]:
        c = min(remaining, key=left)
        members = [g for g in order if g not in fold and held[g][c]]
        for g in sorted(members, key=lambda g: -held[g][c]):
            fold[g] = min(range(k), key=lambda f: place(f, c))
    return [fold[g] for g in range(len(held))]


def slow_repair(held, fold, k) -> list[int]:
    """The readable twin of `repair`."""
    fold, classes = list(fold), range(held.shape[1])
    groups = {c: [g for g in range(len(held)) if held[g][c]] for c in classes}
    enough = [c for c in classes if len(groups[c]) >= k]

    def beside(g, c):  # groups of the class in this group's fold, itself among them
        return sum(fold[other] == fold[g] for other in groups[c])

    for c in sorted(enough, key=lambda c: len(groups[c])):
        for f in range(k):
            if any(fold[g] == f for g in groups[c]):
                continue
            movable = [g for g in groups[c] if all(beside(g, d) > 1 for d in enough if held[g][d])]
            if movable:
                fold[min(movable, key=lambda g: (-beside(g, c), sum(held[g]), g))] = f
    return fold


@st.composite
def grouped_counts(draw):
    """(groups, classes) counts, small enough for ties; (groups,) clips; k whose parts are exact in floats."""
    n_groups, n_classes = draw(st.integers(4, 12)), draw(st.integers(1, 3))
    held = draw(arrays(np.int64, (n_groups, n_classes), elements=st.sampled_from([0, 0, 1, 1, 2])))
    held[held.sum(axis=1) == 0, 0] = 1
    sizes = held.max(axis=1) + draw(arrays(np.int64, n_groups, elements=st.integers(0, 1)))
    return held, sizes, draw(st.sampled_from([2, 4]))


@settings(max_examples=150)  # ties of three kinds are rare
@given(grouped_counts(), st.integers(0, 20))
def test_groups_are_assigned_as_the_slow_way_does(case, seed):
    held, sizes, k = case
    assert assign(held, sizes, k, seed).tolist() == slow_assignment(held, sizes, k, seed)


@given(grouped_counts(), st.randoms(use_true_random=False))
def test_folds_are_repaired_as_the_slow_way_does(case, random):
    held, _, k = case
    fold = np.array([min(random.randrange(k), random.randrange(k)) for _ in held])  # the last folds miss classes
    before = fold.copy()
    assert repair(held, fold, k).tolist() == slow_repair(held, fold, k)
    assert (fold == before).all(), "the folds that came are left alone"


def test_repair_takes_no_class_from_a_fold_unless_it_is_too_rare_anyway():
    """Class 0 misses fold 1; its smaller group is all that fold 0 has of class 1, which has groups for both folds."""
    held = np.array([[1, 1], [5, 0], [0, 3]])
    assert repair(held, np.array([0, 0, 1]), 2).tolist() == [0, 1, 1]
    assert repair(held[:2], np.array([0, 0]), 2).tolist() == [1, 0], "one group alone cannot be in both folds"


def test_greedy_assignment_by_hand():
    """Of one class: the largest first, each to the fold that wants most; at a tie to the one that wants most clips."""
    held = np.array([[5], [4], [3], [2], [1]])
    assert assign(held, np.array([5, 9, 3, 2, 1]), 2, seed=0).tolist() == [0, 1, 1, 0, 0]
    assert assign(held, np.array([9, 4, 3, 2, 1]), 2, seed=0).tolist() == [0, 1, 1, 0, 1]
    # after three groups both folds want as much of class 0 and of all clips: the one of fewer groups gets the last
    equal = np.array([[1, 0], [2, 2], [1, 2], [1, 0]])
    assert assign(equal, np.array([2, 4, 2, 2]), 2, seed=0).tolist() == [0, 1, 0, 1]
    rare_first = np.array([[4, 0], [1, 0], [1, 0], [1, 0], [1, 1], [0, 1]])  # class 1 parts the last two, then class 0
    fold = assign(rare_first, rare_first.sum(axis=1), 2, seed=0)
    assert fold[4] != fold[5]
    assert rare_first[fold == fold[0]].sum(axis=0).tolist() in ([4, 0], [4, 1])


def test_multilabel_is_the_packages_iterative_stratification_on_sorted_ids():
    clips = simulated(120, 3, multilabel=True)
    clips.loc[::9, "labels"] = ""
    columns = [clips.labels.str.split().map(lambda names, c=c: c in names) for c in ("k00", "k01", "k02")]
    truth = np.column_stack([clips.labels == "", *columns]).astype(int)
    expected = np.full(120, -1)
    splitter = MultilabelStratifiedKFold(4, shuffle=True, random_state=7)
    for fold, (_, valid) in enumerate(splitter.split(truth, truth)):
        expected[valid] = fold
    found = make_folds(clips.iloc[::-1], 4, seed=7)
    np.testing.assert_array_equal(found.fold, expected)


def test_a_method_of_ones_own_gets_sorted_clips_k_and_seed():
    clips = table(["a", "b", "c"], site=["x", "x", "y"])
    got = []

    def own(clips, k, seed):
        got.append((clips.clip_id.tolist(), clips.columns.tolist(), k, seed))
        return np.array([2, 0, 1])

    folds = make_folds(clips.iloc[::-1], 7, seed=9, group="site", method=own)  # it may ask for more folds than groups
    assert got == [(["c0000", "c0001", "c0002"], ["clip_id", "labels", "site"], 7, 9)]
    assert folds.fold.tolist() == [2, 0, 1]
    assert folds.group.tolist() == ["x", "x", "y"]


def test_each_group_is_a_fold_of_its_own():
    """Leave one source out, in the order of their names; too many sources are an error that says what to do."""
    clips = pd.DataFrame({"clip_id": list("abcdef"), "labels": "x", "bird": ["k", "g", "k", "b", "g", "k"]})
    folds = make_folds(clips, group="bird", method="each_group").set_index("clip_id")
    assert folds.fold.to_dict() == {"a": 2, "b": 1, "c": 2, "d": 0, "e": 1, "f": 2}
    assert folds.group["d"] == "b"
    with pytest.raises(ValueError, match="makes a fold of every group, and there are 1 "):
        make_folds(clips.assign(bird="k"), group="bird", method="each_group")
    for some, group in ((clips, None), (clips, "none"), (clips.assign(bird=" "), "bird")):
        with pytest.raises(ValueError, match="there are no groups: name a column of the clip table by --group"):
            make_folds(some, group=group, method="each_group")
    with pytest.raises(ValueError, match="2 of 6 clips have none in bird: b, d; fill it in"):
        make_folds(clips.assign(bird=["k", "", "k", None, "g", "g"]), group="bird", method="each_group")


@pytest.mark.parametrize("odd", ["", "of  g 1", None])
def test_categorical_groups_make_the_same_folds(odd):
    names = [f"of g{i * 7 % 12}" for i in range(40)]
    clips = pd.DataFrame({"clip_id": [f"c{i:02d}" for i in range(40)], "labels": ["a", "b"] * 20, "group": names})
    if odd is not None:
        clips.loc[[3, 8], "group"] = odd
    other = clips.assign(group=pd.Categorical(clips.group, categories=sorted(set(clips.group), reverse=True)))
    made, expected = make_folds(other, 3), make_folds(clips, 3)
    assert isinstance(made.group.dtype, pd.CategoricalDtype) == (odd is None)
    pd.testing.assert_frame_equal(made.astype({"group": object}), expected)
