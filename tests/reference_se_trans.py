"""Checks of SE-Trans, coordinate attention, FMix and the optimisers against the numbers of other people's code.

Each function takes the reference folder and checks every case, field, statistic and trajectory of its file by name; an
entry that nobody knows is an AssertionError.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from earshot.augment.mixing import sample_fmix_mask
from earshot.models import build_model
from earshot.models.separable import CoordinateAttention
from earshot.optim import Lookahead, Ralamb
from reference_panns import TOLERANCE, _load_fill, _near, _near_sum

DEAD = "encoder_layer."  # the authors' template, which no output depends on


def _known(name: str) -> bool:
    """Whether the README allows to leave a field of this name out."""
    return name.endswith(("note", "_sensitivity")) or name.startswith("dead_") or "_numpy" in name


def _only(name: str, entry: dict, known: set[str]):
    unknown = {k for k in entry if k not in known and not _known(k)}
    assert not unknown, f"{name}: no check for {sorted(unknown)}"


def _input(text: str) -> torch.Tensor:
    """'default_rng(5).standard_normal((2,1,500,40)) float32' -> the tensor."""
    seed, shape = re.fullmatch(r"default_rng\((\d+)\)\.standard_normal\(\(([\d, ]+)\)\) float32", text).groups()
    size = tuple(int(n) for n in shape.split(","))
    return torch.from_numpy(np.random.default_rng(int(seed)).standard_normal(size).astype(np.float32))


def _shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items()}


# SE-Trans


def check_se_trans(folder: Path):
    reference, fill = json.loads((folder / "se_trans.json").read_text()), _load_fill(folder)
    _only("se_trans.json", reference, {"_meta", "cases", "code_vs_paper"})
    for name, case in reference["cases"].items():
        where = f"se_trans.json {name}"
        rules = {k for k in case if k.startswith("rule_")}
        _only(where, case, {"args", "input", "params", "params_used", "keys"} | rules)
        model = _se_trans(where, case["args"])
        _check_parameters(where, model, case)
        for rule in rules:
            fill.fill_(model, rule.removeprefix("rule_"))
            _check_se_trans_rule(f"{where} {rule}", model, _input(case["input"]), case[rule])


def _se_trans(where: str, args: dict) -> torch.nn.Module:
    names = {"nhead": "heads", "dim_feedforward": "ffn", "n_layers": "layers", "dropout": "dropout"}
    _only(f"{where} args", args, {*names, "frames", "bins", "class_num"})
    params = {names[k]: v for k, v in args.items() if k in names}
    return build_model("se_trans", args["class_num"], args["bins"], params).eval()


def _check_parameters(where: str, model: torch.nn.Module, case: dict):
    """Ours leaves out the dead template, which is one more encoder layer."""
    ours = sum(p.numel() for p in model.parameters())
    template = sum(p.numel() for p in model.encoder.layers[0].parameters())
    assert ours == case.get("params_used", ours), f"{where}: {ours} parameters, expected {case['params_used']}"
    for field, value in case["params"].items():
        assert field in ("trainable", "all"), f"{where} params: no check for {field}"
        assert ours + template == value, f"{where} params {field}: {ours + template}, expected {value}"
    if "keys" in case:
        theirs = {key: shape for key, shape in case["keys"] if not key.startswith(DEAD)}
        assert _shapes(model) == theirs, f"{where} keys: {set(_shapes(model).items() ^ theirs.items())}"


def _check_se_trans_rule(where: str, model: torch.nn.Module, x: torch.Tensor, expected: dict):
    _only(where, expected, {"logits", "intermediates", "float64_diff", "fastpath_vs_slow"})
    modules, seen = dict(model.named_modules()), {}
    hooks = []
    for key in expected["intermediates"]:
        assert key in modules, f"{where}: ours has no module '{key}'"
        hooks.append(modules[key].register_forward_hook(lambda _, __, out, key=key: seen.__setitem__(key, out)))
    with torch.no_grad():
        logit = model(logmel=x)["logit"]
    for hook in hooks:
        hook.remove()
    tolerance = max(TOLERANCE, 4 * expected["float64_diff"])
    _near(f"{where} logits", logit, expected["logits"], tolerance)
    for key, values in expected["intermediates"].items():
        name = f"{where} {key}"
        _only(name, values, {"shape", "stride", "sample", "absmean"})
        ours = seen[key]
        if list(ours.shape) != values["shape"]:
            ours = ours.transpose(0, 1)  # theirs has the steps before the batch
        assert list(ours.shape) == values["shape"], f"{name}: {list(ours.shape)}, expected {values['shape']}"
        size = len(values["sample"])
        _near(f"{name} sample", ours.flatten()[:: values["stride"]][:size], values["sample"], tolerance)
        mean = ours.double().abs().mean()
        _near(f"{name} absmean", mean, values["absmean"], max(tolerance, 1e-6 * values["absmean"]))


# coordinate attention


def check_coordinate_attention(folder: Path):
    reference, fill = json.loads((folder / "coordinate_attention.json").read_text()), _load_fill(folder)
    _only("coordinate_attention.json", reference, {"_meta", "cases"})
    for name, case in reference["cases"].items():
        where = f"coordinate_attention.json {name}"
        rules = {k for k in case if k.startswith("rule_")}
        _only(where, case, {"args", "input", "params", "keys"} | rules)
        _only(f"{where} args", case["args"], {"inp", "oup", "reduction"})
        block = CoordinateAttention(*(case["args"][k] for k in ("inp", "oup", "reduction"))).eval()
        assert sum(p.numel() for p in block.parameters()) == case["params"], f"{where}: other number of parameters"
        assert _shapes(block) == dict(map(tuple, case["keys"])), f"{where}: other keys {_shapes(block)}"
        for rule in rules:
            fill.fill_(block, rule.removeprefix("rule_"))
            with torch.no_grad():
                _check_attention(f"{where} {rule}", block(_input(case["input"])), case[rule])


def _check_attention(where: str, out: torch.Tensor, expected: dict):
    _only(where, expected, {"out_shape", "first16", "stride_sample", "sum", "float64_diff"})
    tolerance = max(TOLERANCE, 4 * expected["float64_diff"])
    flat = out.flatten()
    assert list(out.shape) == expected["out_shape"], f"{where}: {list(out.shape)}, expected {expected['out_shape']}"
    _near(f"{where} first16", flat[:16], expected["first16"], tolerance)
    _near(f"{where} stride_sample", flat[:: len(flat) // 64][:64], expected["stride_sample"], tolerance)
    _near_sum(f"{where} sum", flat.double().sum(), expected["sum"], tolerance, len(flat))


# FMix


def check_fmix(folder: Path):
    """Mean transitions and components of 200 masks within 15 % of a reading of the paper like ours."""
    reference = json.loads((folder / "fmix.json").read_text())
    for section, sizes in reference.items():
        if section == "_meta":
            continue
        found = re.fullmatch(r"statistics_lam([\d.]+)_(\d+)masks", section)
        assert found, f"fmix.json: no check for section '{section}'"
        for size, readings in sizes.items():
            _only(f"fmix.json {section} {size}", readings, {"published_code", "own_reading_of_paper"})
            shape = tuple(int(n) for n in size.split("x"))
            ours = _mask_statistics(shape, float(found[1]))
            for field, value in readings["own_reading_of_paper"].items():
                name = f"fmix.json {section} {size} {field}"
                assert field in ours, f"{name}: no check for this field"
                mean, error = ours[field]
                # 200 masks of theirs and more of ours: what chance alone explains is allowed too
                allowed = max(0.15 * abs(value["mean"]), 4 * error)
                assert abs(mean - value["mean"]) <= allowed, f"{name}: ours {mean:.4f}, expected {value['mean']:.4f}"


def _mask_statistics(shape: tuple[int, int], lam: float, count: int = 200) -> dict[str, tuple[float, float]]:
    """name -> (mean over `count` masks, standard error of a mean of 200)."""
    generator, rows = torch.Generator().manual_seed(0), []
    for _ in range(count):
        mask = sample_fmix_mask(generator, shape, lam, decay=3.0).numpy()
        assert abs(mask.mean() - lam) * mask.size <= 1
        rows.append((
            np.abs(np.diff(mask.astype(int), axis=0)).sum() / shape[1],
            np.abs(np.diff(mask.astype(int), axis=1)).sum() / shape[0],
            ndimage.label(mask)[1],
            ndimage.label(~mask)[1],
        ))  # fmt: skip
    names = ("transitions_axis0_per_col", "transitions_axis1_per_row", "components_of_1", "components_of_0")
    columns = np.array(rows, float).T
    return {n: (float(c.mean()), float(c.std() / np.sqrt(200))) for n, c in zip(names, columns, strict=True)}


# optimisers


def check_optimizers(folder: Path):
    reference = json.loads((folder / "optimizers.json").read_text())
    _only("optimizers.json", reference, {"_meta", "trajectories"})
    a, b = (torch.tensor(reference["_meta"][k]).reshape(8, -1) for k in ("A", "B"))
    for name, trajectory in reference["trajectories"].items():
        where = f"optimizers.json {name}"
        _only(where, trajectory, {"init", "steps"})
        assert set(trajectory["init"]) == {"W", "b"}, f"{where}: unknown tensors {sorted(trajectory['init'])}"
        w = torch.tensor(trajectory["init"]["W"]).reshape(4, 3).requires_grad_()
        bias = torch.tensor(trajectory["init"]["b"]).requires_grad_()
        optimizer = _optimizer(where, name, trajectory["note"], [w, bias])
        for number, step in enumerate(trajectory["steps"], start=1):
            _only(f"{where} step", step, {"step", "loss_before", "W", "b", "trust_W", "trust_b", "weight_norm_W"})
            assert step["step"] == number, f"{where}: step {step['step']} where {number} was due"
            loss = ((a @ w + bias - b) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for field, ours in (("loss_before", loss), ("W", w.flatten()), ("b", bias)):
                _near(f"{where} step {number} {field}", ours.detach(), step[field], TOLERANCE)


def _optimizer(where: str, name: str, note: str, parameters: list) -> torch.optim.Optimizer:
    """The optimiser that a trajectory's name and note describe; what neither says has its usual value."""
    known = {"ralamb": Ralamb, "radam": torch.optim.RAdam, "sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    text = f"{name} {note}".lower()
    kind = name.lower().split("_")[0]
    inner = {"rangerlars": "ralamb", "over9000": "ralamb", "ranger": "radam"}.get(kind, kind)
    if kind == "lookahead":
        inner = next((k for k in known if re.search(rf"(^|[^a-z]){k}([^a-z]|$)", text)), None)
    assert inner in known, f"{where}: no check for optimiser '{kind}'"
    options = {"lr": _number(text, "lr", 1e-3)}
    if inner != "sgd":
        options["weight_decay"] = _number(text, "(?:wd|weight_decay)", 0.0)
    betas = re.search(r"betas ?=?\(?([\d.]+)[/, ]+([\d.]+)", text)
    if betas and inner != "sgd":
        options["betas"] = tuple(float(v) for v in betas.groups())
    optimizer = known[inner](parameters, **options)
    if inner == kind:
        return optimizer
    return Lookahead(optimizer, int(_number(text, "k", 6)), _number(text, "(?:alpha|a)", 0.5))


def _number(text: str, key: str, default: float) -> float:
    """The number behind a key, as in 'lr1e-2', 'lr=.1', 'wd 0', 'k5'."""
    found = re.search(rf"(?<![a-z]){key} ?=? ?(\d*\.?\d+(?:e-?\d+)?)", text)
    return float(found[1]) if found else default
