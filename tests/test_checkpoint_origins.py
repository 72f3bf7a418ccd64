"""Files of networks that say nothing of themselves: the folder of a fold says what they are."""

from dataclasses import replace

import pytest

from earshot.prediction.origin import Origin, TableDigests, weights_origin, write_origin
from earshot.training.origins import check_start


def test_a_checkpoint_is_of_the_fold_whose_folder_it_lies_in(tmp_path):
    """It says nothing of itself as safetensors do: without its folder it would pass for published weights."""
    tables = TableDigests(folds="f" * 32, classes="c" * 32, clips="d" * 32)
    other = Origin(run="sed/x", fold=1, tables=tables)
    write_origin(tmp_path, other)
    for name in ("last.ckpt", "copy.pth"):
        (tmp_path / name).write_bytes(b"a pickle, which nobody opens here")
        assert weights_origin(tmp_path / name) == other
        with pytest.raises(ValueError, match=r"train this fold alone with that of the same fold: --fold 0 frontends.a"):
            check_start(tmp_path / name, replace(other, fold=0), "frontends.a.weights")
    with pytest.raises(ValueError, match=r"fold\{fold\} in the path"):
        check_start(tmp_path / "last.ckpt", replace(other, fold=0))
    away = tmp_path / "published"
    away.mkdir()
    (away / "cnn14.pth").write_bytes(b"of other authors")
    assert weights_origin(away / "cnn14.pth") is None
    assert weights_origin(tmp_path / "gone.ckpt") is None
