"""Our functions against values computed with other people's public code (a folder of numbers, not part of Earshot).

The folder is EARSHOT_REFERENCE, or shared/reference beside the checkout; without it everything here skips, visibly.
Every network, case, section and trajectory found there is checked; an entry that nobody knows fails.
"""

import os
from pathlib import Path

import pytest

from reference_birdcall import check_birdcall
from reference_frontend import check_frontend, check_ust_frontend
from reference_metrics import check_asd, check_lwlrap, check_sed, check_sonyc
from reference_networks import check_talnet, check_vggish
from reference_panns import FAMILY, check_panns_helpers, panns_checks
from reference_se_trans import check_coordinate_attention, check_fmix, check_optimizers, check_se_trans

FOLDER = Path(os.environ.get("EARSHOT_REFERENCE", Path(__file__).resolve().parents[2] / "shared" / "reference"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no reference values at {FOLDER} (set EARSHOT_REFERENCE)")

CHECKS = {
    "birdcall": check_birdcall,
    "frontend.json": check_frontend,
    "ust.json": check_ust_frontend,
    "metrics/lwlrap.json": check_lwlrap,
    "metrics/sed.json": check_sed,
    "metrics/asd.json": check_asd,
    "metrics/sonyc.json": check_sonyc,
    "se_trans.json": check_se_trans,
    "coordinate_attention.json": check_coordinate_attention,
    "fmix.json": check_fmix,
    "optimizers.json": check_optimizers,
    "talnet.json": check_talnet,
    "vggish.json": check_vggish,
}
READ_BY_OTHERS = {"README.md", "fill.py", "fill_vectors.json", "metrics/asd_scores.csv", "metrics/lwlrap_inputs.npz"}


# seconds of convolutions; tests/test_panns_configs.py holds their sizes to the paper's
SLOW_PANNS = ("Cnn6", "Cnn10", "Cnn14", "Cnn14_DecisionLevelMax", "LeeNet11", "MobileNetV1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW_PANNS)) for n in FAMILY])
def test_panns(name):
    panns_checks(FOLDER)[name]()


def test_panns_helpers():
    check_panns_helpers(FOLDER)
    assert set(panns_checks(FOLDER)) == set(FAMILY)


SLOW_CHECKS = ("fmix.json", "vggish.json")  # tests/test_vggish.py holds the small parts


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW_CHECKS)) for n in CHECKS])
def test_reference(name):
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in {FOLDER}")
    CHECKS[name](FOLDER)


def test_every_file_is_known():
    known = set(CHECKS) | READ_BY_OTHERS
    folders = ("birdcall/", "panns/", "metrics/sed/", "metrics/sonyc/")
    found = {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    unknown = {f for f in found if f not in known and not f.startswith(folders)}
    assert not unknown, f"files that no check reads: {sorted(unknown)}"
