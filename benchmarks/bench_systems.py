"""Which published networks agree with the reference numbers in every value, and which published systems are open.

python benchmarks/bench_systems.py --record

Parity is a share: of every case that the reference folder holds (EARSHOT_REFERENCE), how many pass their check (a case
with one value off counts as 0). TALNet has a case for every pooling, VGGish one. A system is open where docs/systems.md
says so, names a config that is not there, or names none of the configs that its row of SYSTEMS, below, asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from results import record

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
REFERENCE = Path(os.environ.get("EARSHOT_REFERENCE", ROOT.parent / "shared" / "reference"))
COMMAND = "python benchmarks/bench_systems.py --record"
SYSTEMS = {  # of the five sources: what the row of docs/systems.md begins with -> configs that it takes (globs)
    "Birdcall SED, PANNs Cnn14": ("sed/birdcall_cnn14_att",),
    "Rainforest SED": ("sed/rfcx_b0",),
    "PANNs, fifteen AudioSet taggers": ("tagging/panns/cnn14", "tagging/panns/wavegram_logmel_cnn14"),
    "PANNs transfer": tuple(
        f"tagging/transfer/{data}_{mode}_cnn14"
        for data in ("esc50", "dcase2019_task1", "dcase2018_task2", "msos", "gtzan", "ravdess")
        for mode in ("scratch", "finetune", "freeze_l1", "freeze_l3")
    ),
    "SE-Trans across": ("scenes/dcase_se_trans_fmix", "ust/dcase_se_trans_fmix", "asd/dcase_se_trans_fmix"),
    "Cross-task pre-training": ("scenes/*fa*", "scenes/*vem*", "scenes/*jrm*", "scenes/*cmam*"),
    "Low-complexity separable": ("scenes/dcase2022_separable", "scenes/dcase2022_baseline"),
    "Urban sound tagging with metadata": ("ust/*system1*", "ust/*system2*", "ust/*system3*"),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write results.json")
    options = parser.parse_args()
    if not REFERENCE.is_dir():
        sys.exit(f"error: no reference values at {REFERENCE} (set EARSHOT_REFERENCE)")
    figures = {"talnet_vggish_in_parity": share(talnet_and_vggish()), "panns_parity_share": share(panns())}
    still = open_systems((ROOT / "docs" / "systems.md").read_text(), ROOT / "configs")
    for name, why in still.items():
        print(f"open: {name}: {why}")
    for name, value in figures.items():
        print(f"{name} {value}")
    print(f"systems_open {len(still)}")
    if options.record:
        for name, value in figures.items():
            record(name, value, "share of cases whose every recorded value agrees", COMMAND)
        record("systems_open", len(still), f"of {len(SYSTEMS)} published systems", COMMAND)


def share(checks: dict) -> float:
    """{name: check that raises AssertionError} -> the share that passes, each said."""
    passed = 0
    for name, check in checks.items():
        try:
            check()
            passed += 1
            print(f"{name}: agrees", flush=True)
        except AssertionError as error:
            print(f"{name}: {error}", flush=True)
    return passed / len(checks) if checks else 0.0


def panns() -> dict:
    """Every network of the reference folder that has outputs."""
    from reference_panns import panns_checks

    outputs = json.loads((REFERENCE / "panns" / "outputs.json").read_text())
    return {name: check for name, check in panns_checks(REFERENCE).items() if name in outputs}


def talnet_and_vggish() -> dict:
    """VGGish as a whole, and each of TALNet's cases by the check of all, of a folder that holds that case alone."""
    from reference_networks import check_talnet, check_vggish

    reference = json.loads((REFERENCE / "talnet.json").read_text())

    def of_case(name: str):
        with tempfile.TemporaryDirectory() as folder:
            for file in ("fill.py", "fill_vectors.json"):
                (Path(folder) / file).write_bytes((REFERENCE / file).read_bytes())
            one = reference | {"cases": {name: reference["cases"][name]}}
            (Path(folder) / "talnet.json").write_text(json.dumps(one))
            check_talnet(Path(folder))

    checks = {f"talnet {name}": lambda name=name: of_case(name) for name in reference["cases"]}
    return checks | {"vggish": lambda: check_vggish(REFERENCE)}


def open_systems(page: str, configs: Path) -> dict[str, str]:
    """The page of systems and the folder of configs -> {system: why it counts as open}."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    found = {}
    for system, wanted in SYSTEMS.items():
        row = next((row for row in rows if row[0].startswith(system)), None)
        if row is None:
            found[system] = "docs/systems.md has no row of it"
            continue
        named = [name for name in re.findall(r"`([^`]+)`", row[1]) if "/" in name]
        absent = [name for name in (*named, *wanted) if not list(configs.glob(f"{name}.yaml"))]
        if re.search(r"\bopen\b", " ".join(row[:3])):
            found[system] = f"its row says so: {row[2]}"
        elif absent:
            found[system] = f"no config {', '.join(absent)}"
    return found


if __name__ == "__main__":
    main()
