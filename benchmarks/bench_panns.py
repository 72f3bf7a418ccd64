"""PANNs: parity with the published code, a training step of each network, and the table of all configs.

python benchmarks/bench_panns.py --parity --record    # networks of the reference folder whose every value agrees
python benchmarks/bench_panns.py --steps --record     # seconds and peak memory of a step, two memory layouts; hours
python benchmarks/bench_panns.py --table --record     # configs/tagging/panns/*: costs, clips/s eager and by ONNX

--record writes results.json and the tables of RESULTS.md; --networks and --batch make a run small. Each measurement is
a process of its own, with the threads of OMP_NUM_THREADS; a GPU is used for the steps where there is one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

from results import record

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
CONFIGS = ROOT / "configs" / "tagging" / "panns"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
REFERENCE = Path(os.environ.get("EARSHOT_REFERENCE", ROOT.parent / "shared" / "reference"))
FIFTEEN = (
    "cnn6", "cnn10", "cnn14", "resnet22", "resnet38", "resnet54", "mobilenet_v1", "mobilenet_v2", "dainet19",
    "leenet11", "leenet24", "res1dnet31", "res1dnet51", "wavegram_cnn14", "wavegram_logmel_cnn14",
)  # fmt: skip
CLASSES = 527
SECONDS = 10


def main():
    options = parse_args()
    os.chdir(ROOT)
    if options.one:
        print(json.dumps(ONE[options.one](options)))
        return
    if options.parity:
        report_parity(options)
    if options.steps:
        report_steps(options)
    if options.table:
        report_table(options)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--record", action="store_true", help="write results.json and RESULTS.md")
    parser.add_argument("--networks", nargs="+", help="config stems (default: the fifteen; with --table: all)")
    parser.add_argument("--batch", type=int, default=32, help="clips a training step (default: the paper's 32)")
    parser.add_argument("--one", choices=("step", "speed"), help=argparse.SUPPRESS)
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.parity or options.steps or options.table or options.one):
        parser.error("say what to measure: --parity, --steps or --table")
    for stem in options.networks or ():
        if not (CONFIGS / f"{stem}.yaml").is_file():
            parser.error(f"{CONFIGS / stem}.yaml does not exist")
    return options


LAYOUTS = ("contiguous", "channels_last")


# parity


def report_parity(options):
    """Every network of the reference folder by name; those with outputs are the count."""
    from reference_panns import panns_checks

    if not (REFERENCE / "panns").is_dir():
        sys.exit(f"error: no reference values at {REFERENCE} (set EARSHOT_REFERENCE)")
    with_outputs = set(json.loads((REFERENCE / "panns" / "outputs.json").read_text()))
    agreed = 0
    for name, check in panns_checks(REFERENCE).items():
        what = "names, shapes, sizes and outputs" if name in with_outputs else "names, shapes and sizes"
        try:
            check()
            agreed += name in with_outputs
            print(f"{name}: {what} agree", flush=True)
        except AssertionError as error:
            print(f"{name}: {error}", flush=True)
    total = len(with_outputs - {"_meta", "_helpers"})
    print(f"{agreed} of {total} networks with outputs agree in every value")
    if options.record:
        unit = f"networks of {total} whose every recorded value agrees"
        record("panns_networks_in_parity", agreed, unit, "python benchmarks/bench_panns.py --parity --record")


# training steps


def report_steps(options):
    """One line a network: seconds and memory of a step in both layouts."""
    lines = [f"| network | contiguous, s | channels_last, s | contiguous, MB | channels_last, MB |\n{'|---' * 5}|"]
    print(lines[0])
    for stem in options.networks or FIFTEEN:
        found = {layout: one(["step", "--layout", layout], stem, options) for layout in LAYOUTS}
        cells = [shown(found[layout], key) for key in ("seconds", "peak_mb") for layout in LAYOUTS]
        lines.append(f"| {stem} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        measured = {layout: r for layout, r in found.items() if "seconds" in r}
        if options.record and measured:
            best = min(measured, key=lambda layout: measured[layout]["seconds"])
            unit = f"s, batch {options.batch} x {SECONDS} s, {best}, {measured[best]['device']}"
            command = f"python benchmarks/bench_panns.py --steps --batch {options.batch} --record"
            record(f"step_seconds_{stem}", round(measured[best]["seconds"], 2), unit, command)
    if options.record:
        title = (
            f"A training step, batch {options.batch} x {SECONDS} s: log-mel, forward, backward, Adam; process peak\n\n"
        )
        write_between("panns steps", title + "\n".join(lines))


def measure_step(options) -> dict:
    """Seconds of one training step after a small one that loads what is loaded once; peak memory."""
    import torch

    from earshot.inputs.torch_front_ends import FrontEnds

    config, model = network(options.networks[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(model.dead_parameters)))
    front_ends = FrontEnds(config.inputs(model.inputs)).to(device)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step(batch: int):
        waveform = torch.randn(batch, SECONDS * config.data.sample_rate, device=device) * 0.1
        target = (torch.rand(batch, CLASSES, device=device) < 0.01).float()
        clip = model(**front_ends({"waveform": waveform}))["clipwise_output"]
        torch.nn.functional.binary_cross_entropy(clip, target).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    step(min(2, options.batch))
    started = time.perf_counter()
    step(options.batch)
    seconds = time.perf_counter() - started
    used = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mb()
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {"seconds": seconds, "peak_mb": used, "device": where}


# the table


def report_table(options):
    """Every config: sizes, both counts, speed on the CPU, and the score of its run where there is one."""
    head = "| config | parameters | paper's multi-adds, G | true MACs, G | eager, clips/s | ONNX, clips/s | mAP |"
    lines = [f"{head}\n{'|---' * 7}|"]
    print(lines[0])
    stems = options.networks or sorted(p.stem for p in CONFIGS.glob("*.yaml") if not p.name.startswith("_"))
    for stem in stems:
        parameters, costs = sizes(stem)
        speed = one(["speed"], stem, options)
        counts = f"{parameters:,} | {costs.paper_multi_adds / 1e9:.3f} | {costs.macs / 1e9:.3f}"
        lines.append(f"| {stem} | {counts} | {shown(speed, 'eager')} | {shown(speed, 'onnx')} | {score(stem)} |")
        print(lines[-1], flush=True)
    if options.record:
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        title = f"All PANNs on {SECONDS}-s clips, one at a time, front end left out, OMP_NUM_THREADS={threads}\n\n"
        write_between("panns table", title + "\n".join(lines))


def sizes(stem: str):
    """(parameters, Costs of 10 s) of a config, without values."""
    import torch

    from earshot.models.counting import count

    with torch.device("meta"):
        config, model = network(stem)
    costs = count(model, config.inputs(model.inputs), SECONDS * config.data.sample_rate)
    return sum(p.numel() for p in model.parameters()), costs


def measure_speed(options) -> dict:
    """Clips/s of the network on ready inputs, batch 1: eager and by ONNX Runtime; an export that fails is named."""
    import onnxruntime
    import torch

    from earshot.inputs.torch_front_ends import FrontEnds

    config, model = network(options.networks[0])
    model.eval()
    waveform = torch.randn(1, SECONDS * config.data.sample_rate, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        inputs = FrontEnds(config.inputs(model.inputs))({"waveform": waveform})
        eager, expected = clips_per_second(lambda: model(**inputs)["clipwise_output"].numpy())
    inputs = {name: value.clone() for name, value in inputs.items()}
    try:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        graph = onnxruntime.InferenceSession(exported(model, inputs), settings, providers=["CPUExecutionProvider"])
        fed = {name: value.numpy() for name, value in inputs.items()}
        onnx, answer = clips_per_second(lambda: graph.run(None, fed)[0])
    except Exception as error:  # whatever the exporter or the runtime cannot do is part of the table
        return {"eager": eager, "failed": f"not exported: {str(error).splitlines()[0][:60]}"}
    difference = abs(answer - expected).max()
    if difference > 1e-4:
        return {"eager": eager, "failed": f"exported, but differs by {difference:.1e}"}
    return {"eager": eager, "onnx": onnx}


def exported(model, inputs: dict) -> bytes:
    """ONNX graph of `clipwise_output`, batch axis free."""
    import torch

    class Clipwise(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            return self.model(**dict(zip(inputs, values, strict=True)))["clipwise_output"]

    buffer, axes = io.BytesIO(), {name: {0: "batch"} for name in (*inputs, "clipwise_output")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        torch.onnx.export(
            Clipwise().eval(), tuple(inputs.values()), buffer, input_names=list(inputs), dynamo=False,
            output_names=["clipwise_output"], dynamic_axes=axes,
        )  # fmt: skip
    return buffer.getvalue()


def clips_per_second(run, seconds: float = 2.0):
    """(clips/s by the fastest of at least three runs within `seconds`, its answer), after a first run."""
    answer, times = run(), []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        answer = run()
        times.append(time.perf_counter() - started)
    return 1 / min(times), answer


def score(stem: str) -> str:
    """mAP of the held-out clips, mean of the trained folds of runs/tagging/<stem>; '-' where none is."""
    from earshot import runs

    folder = Path("runs/tagging") / stem
    if not folder.is_dir():
        return "-"
    found = [fold.about.get("scores", {}).get("map") for fold in runs.load_run(folder).folds]
    found = [value for value in found if value is not None]
    return f"{sum(found) / len(found):.3f}" if found else "-"


# shared


def network(stem: str):
    """(Config, untrained network of 527 classes) of a config."""
    from earshot import runs
    from earshot.config import load_config

    config = load_config(CONFIGS / f"{stem}.yaml")
    return config, runs.make_model(config, CLASSES, weights_follow=True)


def one(what: list[str], stem: str, options) -> dict:
    """One measurement in a process of its own -> its figures, or why there are none."""
    command = [sys.executable, __file__, "--one", *what, "--networks", stem, "--batch", str(options.batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": f"not measured: {lines[-1][:80] if lines else f'exit {done.returncode}'}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def shown(found: dict, key: str) -> str:
    if key not in found:
        return found.get("failed", "not measured")
    return f"{found[key]:,.0f}" if found[key] >= 100 else f"{found[key]:.2f}"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_between(name: str, text: str, path: Path = RESULTS):
    """Replace what stands between this table's markers in RESULTS.md; without them they are added at its end."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text()
    block = f"{first}\n{text}\n{last}"
    if first in old and last in old:
        before, rest = old.split(first, 1)
        new = before + block + rest.split(last, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n## PANNs: {name.removeprefix('panns ')}\n\n{block}\n"
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(new)
    os.replace(partial, path)


ONE = {"step": measure_step, "speed": measure_speed}


if __name__ == "__main__":
    main()
