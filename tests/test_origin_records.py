"""Origins as records: how they are compared, told, written and read back; no network, no run."""

import hashlib
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from earshot.prediction import origin as of
from earshot.prediction.origin import Origin, TableDigests

TABLES = TableDigests(folds="f" * 32, classes="c" * 32, clips="k" * 32)
ONE = Origin(run="sed/a", fold=1, tables=TABLES, weights="w" * 32)


def test_a_digest_is_of_the_lines_in_their_order():
    assert of.digest(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()[:32]
    assert of.digest(["b", "a"]) != of.digest(["a", "b"]) != of.digest(["ab"])
    assert of.short("0123456789abcdef") == "0123456789"


def test_tables_that_differ_are_named_with_both_digests():
    other = replace(TABLES, folds="g" * 32, clips="l" * 32, targets="t")
    assert of.tables_differ(TABLES, TABLES) == ""
    assert of.tables_differ(TABLES, other) == (
        f"fold table {'f' * 10} against {'g' * 10}; clip table {'k' * 10} against {'l' * 10}"
    )
    assert of.tables_differ(TABLES, other, ["classes"]) == ""
    assert of.tables_differ(TABLES, other, ["clips"]) == f"clip table {'k' * 10} against {'l' * 10}"
    assert of.tables_differ(replace(TABLES, targets=""), other, ["targets"]) == "soft targets none against t"
    assert of.tables_differ(other, replace(TABLES, targets=""), ["targets"]) == "soft targets t against none"
    assert of.tables_differ(other, TABLES, ["targets"]) == of.tables_differ(TABLES, other, ["targets"]) == ""


def test_origins_differ_in_run_fold_tables_or_weights():
    assert (
        of.differ(ONE, ONE)
        == of.differ(ONE, replace(ONE, weights=""))
        == of.differ(replace(ONE, weights=""), ONE)
        == ""
    )
    assert of.differ(ONE, replace(ONE, fold=2)) == "run sed/a fold 1 against run sed/a fold 2"
    assert of.differ(ONE, replace(ONE, run="sed/b")) == "run sed/a fold 1 against run sed/b fold 1"
    assert of.differ(ONE, replace(ONE, weights="v" * 32)) == f"weights {'w' * 10} against {'v' * 10}"
    soft = replace(ONE, tables=replace(TABLES, targets="s"))
    assert of.differ(soft, replace(ONE, tables=replace(TABLES, targets="t"))) == "soft targets s against t"
    all_of_it = replace(ONE, fold=3, weights="v", tables=replace(TABLES, classes="d"))
    assert of.differ(ONE, all_of_it).split("; ") == [
        "run sed/a fold 1 against run sed/a fold 3", f"class list {'c' * 10} against d",
        f"weights {'w' * 10} against v",
    ]  # fmt: skip


def test_what_is_of_another_origin_names_both_sides():
    two = replace(ONE, fold=2)
    of.check_same("a", ONE, "b", ONE, "mend it")
    of.check_same("a", None, "b", two, "mend it")
    of.check_same("a", ONE, "b", None, "mend it")
    with pytest.raises(
        ValueError, match="^a does not belong to b: run sed/a fold 1 against run sed/a fold 2; mend it$"
    ):
        of.check_same("a", ONE, "b", two, "mend it")


def test_predictions_are_of_every_known_fold_and_of_no_other():
    zero, two = replace(ONE, fold=0, weights="x"), replace(ONE, fold=2)
    of.check_among("p", [ONE, zero], "r", [zero, ONE], "again")
    with pytest.raises(
        ValueError, match="^p is of run sed/a fold 1 and lacks run sed/a fold 0, run sed/a fold 2 of r; again$"
    ):
        of.check_among("p", [ONE], "r", [zero, ONE, two], "again")
    with pytest.raises(
        ValueError, match="^p does not belong to r: run sed/a fold 2 against run sed/a fold 0.*; again$"
    ):
        of.check_among("p", [ONE, two], "r", [zero, ONE], "again")
    with pytest.raises(ValueError, match="^p does not belong to r: weights v against x; again$"):
        of.check_among("p", [ONE, replace(zero, weights="v")], "r", [ONE, zero], "again")
    other = replace(ONE, run="sed/b")
    of.check_among("p", [other, ONE], "r", [ONE, other], "again")


def test_what_carries_no_origin_is_said_once(caplog):
    of.say_unchecked.cache_clear()
    with caplog.at_level(logging.WARNING, "earshot"):
        for what in ("runs/x", "runs/y", "runs/x"):
            of.say_unchecked(what)
    assert [record.args[0] for record in caplog.records] == ["runs/x", "runs/y"]
    of.say_unchecked.cache_clear()


def test_an_origin_is_written_and_read(tmp_path):
    assert of.read_origin(tmp_path) is None
    of.write_origin(str(tmp_path), ONE)
    text = (tmp_path / "origin.json").read_text()
    assert of.read_origin(str(tmp_path)) == replace(ONE, weights=""), "training goes on: of no certain weights"
    assert text.startswith('{\n "run": "sed/a"')
    assert text.endswith("}\n")
    assert of.parse_origin(of.as_text([ONE])[0], "here") == ONE
    assert [json.loads(t)["fold"] for t in of.as_text([ONE, replace(ONE, fold=0)])] == [1, 0]
    for damaged in ("{", "[]", '{"run": "sed/a"}', '{"runs": 1}'):
        with pytest.raises(ValueError, match="^here says of no run and fold where it comes from: .*here"):
            of.parse_origin(damaged, "here")
    (tmp_path / "origin.json").write_text("{}")
    with pytest.raises(ValueError, match=f"^{tmp_path / 'origin.json'} says of no run and fold"):
        of.read_origin(tmp_path)


def weights(path, metadata):
    save_file({"w": np.zeros(1, np.float32)}, path, metadata=metadata)
    return path


def test_weights_say_what_they_are(tmp_path):
    about = {"origin": json.loads(of.as_text([ONE])[0]), "fold": 1}
    told = weights(tmp_path / "told", {"earshot": json.dumps(about), "format": "pt"})
    assert of.weights_about(told) == about
    assert of.weights_origin(told) == ONE
    for name, metadata in (("bare", None), ("other", {"format": "pt"}), ("list", {"earshot": "[1]"}),
                           ("broken", {"earshot": "{"}), ("none", {"earshot": '{"origin": null}'})):  # fmt: skip
        path = weights(tmp_path / name, metadata)
        assert of.weights_about(path) == ({"origin": None} if name == "none" else {})
        assert of.weights_origin(path) is None
    (tmp_path / "junk").write_bytes(b"junk")
    assert (
        of.weights_about(tmp_path / "junk") == of.weights_about(tmp_path / "absent") == of.weights_about(tmp_path) == {}
    )
    wrong = weights(tmp_path / "wrong", {"earshot": '{"origin": {"run": "sed/a"}}'})
    with pytest.raises(ValueError, match=f"^{wrong} says of no run and fold"):
        of.weights_origin(wrong)


def test_a_digest_of_tensors_is_of_names_types_shapes_and_bytes():
    a, b = torch.arange(4, dtype=torch.float32), torch.zeros(0)
    state = {"b": b, "a": a}
    digest = of.weights_digest(state)
    expected = hashlib.sha256(b"a torch.float32 (4,)\n" + a.numpy().tobytes() + b"b torch.float32 (0,)\n").hexdigest()[
        :32
    ]
    assert digest == expected
    assert of.weights_digest({"a": a.clone().requires_grad_(), "b": b}) == digest, "in any order, trained or not"
    assert of.weights_digest({"a": torch.arange(8, dtype=torch.float32)[::2] / 2, "b": b}) == digest, (
        "values, not memory"
    )
    for other in ({"a": a.reshape(2, 2)}, {"a": a.double()}, {"a": a + 1}, {"c": a}):
        assert of.weights_digest(other | {"b": b}) != digest
    assert of.weights_digest({"n": torch.tensor(3)}) != of.weights_digest({"n": torch.tensor(4)})
