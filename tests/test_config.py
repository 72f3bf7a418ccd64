import dataclasses
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from earshot.config import Config, flag_meant, from_dict, from_run, load_config
from earshot.config.difference import config_difference
from earshot.config.usual_names import USUAL
from earshot.messages import Parser
from earshot.records import dotted_keys, to_dict
from earshot.runs import make_model
from earshot.sound.windows import Windowing
from earshot.stored import parse_yaml
from earshot.tasks import TASKS

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
ANSWERED: dict[str, dict] = {}  # {network, front ends and crop: its outputs}, of which many configs share each
RUNS = [p for p in CONFIGS if p.relative_to(ROOT).parts[0] in TASKS and not p.name.startswith("_")]


def test_there_are_configs():
    assert {p.parent.name for p in RUNS} >= {"sed", "tagging", "panns"}


@pytest.mark.parametrize("path", RUNS, ids=lambda p: str(p.relative_to(ROOT).with_suffix("")))
def test_every_config_loads_and_names_a_model_that_can_be_built(path):
    config = load_config(path)
    assert config.task == path.relative_to(ROOT).parts[0]
    assert path.read_text().startswith("# python src/train.py --config"), "the header says how to run it"
    from earshot.models import MODELS

    assert config.model.name in MODELS


@pytest.mark.parametrize(
    "path", [p for p in RUNS if p.parent.name != "panns"], ids=lambda p: str(p.relative_to(ROOT).with_suffix(""))
)  # configs/tagging/panns: test_panns_configs
@pytest.mark.slow
def test_every_config_is_a_network_that_answers_on_its_own_crops(path, monkeypatch):
    stand_in = SimpleNamespace(width=128, window_samples=48000)  # of files that users bring
    monkeypatch.setattr("earshot.inputs.extractor.opened", lambda record: stand_in)
    config = load_config(path)
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    network = repr((config.model, config.frontends, config.data.metadata_record, config.data.channels,
                    config.data.sample_rate, samples))  # fmt: skip
    if network not in ANSWERED:
        with torch.device("meta"):  # shapes are enough
            model = make_model(config, 3, weights_follow=True).eval()
            shapes = config.inputs(model.inputs).shapes(samples)
            ANSWERED[network] = model(**{name: torch.zeros(2, *shape) for name, shape in shapes.items()})
    assert ANSWERED[network]["clipwise_output"].shape == (2, 3)


def test_usual_names_lead_to_settings_that_there_are(tmp_path):
    known = dotted_keys(Config)
    for name, key in USUAL.items():
        assert key in known or any(key.startswith(f"{k}.") for k, kind in known.items() if kind is None), (name, key)
        assert name == key.split(".")[-1] or f"{key.rpartition('.')[0]}.{name}" not in known, f"{name} is a key itself"
    meant = {
        "epochs": "optim.epochs", "lr": "optim.lr", "arch": "model.name", "nothing": "", "schedule": "optim.schedule",
        "window-seconds": "predict.window_seconds", "channels": "data.channels", "optim.lr": "optim.lr",
        "frontends.logmel.fmin": "frontends.logmel.fmin", "optim.learning": "",
    }  # fmt: skip
    assert {name: flag_meant(name) for name in meant} == meant
    (tmp_path / "x.yaml").write_text("epochs: 3\n")
    with pytest.raises(ValueError, match=r"x.yaml: unknown key 'epochs'; did you mean optim.epochs\?$"):
        load_config(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--epochs 3", "unrecognized arguments: --epochs; settings are written without hyphens: optim.epochs=3\n"),
        ("--batch-size=8", "written without hyphens: optim.batch_size=8\n"),
        ("--lr", "written without hyphens: optim.lr=VALUE\n"),
        ("--model.params.dropout *", "written without hyphens: 'model.params.dropout=*'\n"),
        ("--sound loud", "unrecognized arguments: --sound\n"),
    ],
)
def test_a_setting_given_as_an_option_is_given_back_as_one(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
    parser = Parser(flag_meant)
    parser.add_argument("overrides", nargs="*")
    with pytest.raises(SystemExit):
        parser.parse_intermixed_args()
    assert capsys.readouterr().err.endswith(said)


def test_defaults_round_trip_through_yaml():
    config = load_config(None, ["augment.spec_augment={time_width: 64}", "predict.tta=[gain]"])
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.name=x", "unknown key 'modle.name' in override 'modle.name=x'; did you mean model.name\\?"),
        ("optim.lrr=1", "unknown key 'optim.lrr' in .*; did you mean 'optim.lr'"),
        ("optim.learning_rate=1", "unknown key 'optim.learning_rate' in .*; did you mean optim.lr\\?$"),
        ("BS=8", "unknown key 'BS' in .*; did you mean optim.batch_size\\?$"),
        ("data.n-workers=2", "did you mean data.workers\\?$"),
        ("n_mels=64", "did you mean frontends.logmel.n_mels\\?$"),
        ("optim={learning_rate: 1}", "unknown key 'optim.learning_rate'; did you mean optim.lr\\?$"),
        ("frontends.logmel.hop=320", "unknown key 'hop' in 'frontends.logmel'; did you mean 'hop_length'"),
        ("optim.epochs=two", "optim.epochs must be a whole number, got 'two'"),
        ("optim.epochs=1.5", "optim.epochs must be a whole number, got 1.5"),
        ("optim.lr=yes", "optim.lr must be a number, got True"),
        ("optim.channels_last=1", "optim.channels_last must be true or false, got 1"),
        ("optim=3", r"section 'optim' must be a mapping, got 3; its keys are optim.name, .*\(\d+ more\)"),
        ("budget=100", "got 100; its keys are budget.parameters_kb, budget.mmacs"),
        ("frontends.logmel=40", "got 40; keys are frontends.logmel.kind and the kind's"),
        ("optim.lr", "override 'optim.lr' gives no value; settings are written key=value"),
        ("data.crop=middle", "data.crop is 'middle'; choose one of random, box, full"),
        ("data.frame_margin_seconds=-0.01", r"data.frame_margin_seconds must be 0 or more, got -0.01"),
        (
            "optim.warmup_epochs=11",
            r"optim.warmup_epochs \(11.0\) is longer than training .*set optim.warmup_epochs=1$",
        ),
        ("optim={early_stop_epochs: 3, validate_every: 5}", r"early_stop_epochs \(3\) is shorter than validate_every"),
        ("predict.clip_from=max", "predict.clip_from is 'max'; choose one of clipwise, frame_max"),
        ("predict.stride_seconds=6", "is longer than the window"),
        ("data.sampler=balance", "data.sampler is 'balance'; choose one of uniform, balanced"),
        ("data.train_share=1.5", "data.train_share is 1.5: a share lies above 0 and is at most 1"),
        ("data.train_share=0", "data.train_share must be positive, got 0"),
        ("data.cache=pack", "data.cache is 'pack'; choose one of none, waveform, packed, logmel"),
        ("optim.batch_size=0", "optim.batch_size must be positive, got 0"),
        (
            "frontends.logmel.sample_rate=44100",
            r"44100 Hz, above data.sample_rate \(32000 Hz\).* set data.sample_rate=44100",
        ),
        ("frontends.logmel.channels=stereo", "data.channels is mono.*set data.channels=stereo"),
        ("frontends.logmel.kind=logmle", r"frontends\.logmel\.kind is 'logmle'; did you mean 'logmel'"),
        ("data.channels=surround", "data.channels is 'surround'; choose one of mono, stereo, mid_side"),
        ("frontends.logmel.fmax=20000", "20000"),
        ("optim.lr=[", r"override 'optim.lr=\[': the value is not valid YAML: .*is a bracket open"),
        ("data.crop_seconds=.nan", "data.crop_seconds must be a number, got nan"),
        ("seed=-1", "seed must be 0 or more, got -1"),
        (
            "frontends.logmel.kind=mfcc",
            "kind is 'mfcc'; known: logmel, waveform, metadata, pcen, gammatone, kaldi, vggish, extractor$",
        ),
        ("data.sample_rate=8000", "^frontends.logmel: log-mel fmax 14000 Hz is above the Nyquist frequency"),
    ],
)
def test_bad_values_say_what_was_wrong(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, [override])


def test_numbers_are_converted_by_declared_type():
    config = load_config(None, ["optim.lr=1e-3", "optim.epochs=7.0", "optim.weight_decay=0"])
    assert (config.optim.lr, config.optim.epochs, config.optim.weight_decay) == (1e-3, 7, 0.0)
    assert isinstance(config.optim.epochs, int)


def test_cached_logmel_cannot_augment_waveforms():
    with pytest.raises(ValueError, match="leaves no waveform to augment"):
        load_config(None, ["data.cache=logmel", "augment.batch.mixup_on=waveform"])


def test_one_base_and_no_more(tmp_path):
    (tmp_path / "_base.yaml").write_text("optim: {lr: 1e-4, epochs: 3}\n")
    (tmp_path / "a.yaml").write_text("base: _base.yaml\noptim: {epochs: 5}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    config = load_config(tmp_path / "a.yaml")
    assert (config.optim.lr, config.optim.epochs) == (1e-4, 5)
    with pytest.raises(ValueError, match="is a base and names a base itself"):
        load_config(tmp_path / "b.yaml")


def test_missing_and_broken_files(tmp_path):
    (tmp_path / "model.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="does not exist; did you mean 'model.yaml'"):
        load_config(tmp_path / "modell.yaml")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_config(tmp_path / "model.yaml")


def test_front_ends_follow_the_data_rate():
    config = load_config(None, ["data.sample_rate=16000", "frontends.logmel.fmax=7000"])
    assert config.frontends["logmel"].sample_rate == 16000


def test_difference_names_keys_and_both_values():
    a, b = to_dict(Config()), to_dict(load_config(None, ["optim.lr=0.5", "seed=7"]))
    assert config_difference(a, b) == "optim.lr: 0.001 != 0.5; seed: 1213 != 7"
    assert config_difference(a, a) == ""


@pytest.mark.parametrize(("old", "new"), [
    ("augment.mixup_alpha=0.2", "augment.mixup_alpha is now augment.batch.mixup_alpha"),
    ("augment.logmel=[{name: roll}]", "augment.logmel is now augment.batch.logmel"),
    ("augment.fmix_p=0.5", "augment.fmix_p is now augment.batch.fmix_p"),
    ("loss.gamma=1", "loss.gamma is now loss.params.gamma"),
    ("loss.label_smoothing=0.1", "loss.label_smoothing is now loss.params.label_smoothing"),
])  # fmt: skip
def test_keys_of_earlier_versions_name_the_new_ones(tmp_path, old, new):
    with pytest.raises(ValueError, match=f"{new}$"):
        load_config(None, [old])
    section, _, rest = old.partition(".")
    (tmp_path / "a.yaml").write_text(f"{section}: {{{rest.replace('=', ': ', 1)}}}\n")
    with pytest.raises(ValueError, match=f"{new}$"):
        load_config(tmp_path / "a.yaml")


def test_a_run_folder_of_an_earlier_version_is_translated():
    """Its config.yaml held every key, whether the loss took it or not, and windows of 0 seconds."""
    old = {
        "seed": 5,
        "data": {"crop_seconds": 3.0},
        "augment": {"waveform": [], "logmel": [{"name": "roll", "p": 1.0}], "mixup_on": "logmel", "mixup_alpha": 0.7},
        "loss": {"name": "focal", "frame_weight": 0.5, "label_smoothing": 0.1, "auxiliary_weight": 0.25, "gamma": 1.5,
                 "alpha": 0.25},
        "optim": {"batch_size": 8},
        "predict": {"window_seconds": 0.0, "stride_seconds": 0.0, "batch_size": 0, "tta": ["gain"]},
    }  # fmt: skip
    config = from_run(old)
    batch, loss, predict = config.augment.batch, config.loss, config.predict
    assert (batch.logmel, batch.mixup_on, batch.mixup_alpha) == (({"name": "roll", "p": 1.0},), "logmel", 0.7)
    assert (loss.name, loss.params) == ("focal", {"label_smoothing": 0.1, "gamma": 1.5, "alpha": 0.25})
    assert (predict.window_seconds, predict.stride_seconds, predict.batch_size) == (3.0, 3.0, 8)
    assert (predict.sample_rate, predict.tta, config.seed) == (32000, ("gain",), 5)
    assert from_run(to_dict(config)) == config, "and one of this version stays as it is"
    assert old["augment"]["mixup_alpha"] == 0.7, "the given values stay"


def test_another_loss_leaves_the_parameters_of_the_first_behind(tmp_path):
    base = "loss: {name: bce_clip_frame, params: {frame_weight: 2.0}, class_weights: {a: 3}}\n"
    (tmp_path / "_base.yaml").write_text(base)
    (tmp_path / "a.yaml").write_text("base: _base.yaml\nloss: {name: bce}\n")
    (tmp_path / "b.yaml").write_text("base: _base.yaml\nloss: {params: {label_smoothing: 0.1}}\n")
    assert load_config(tmp_path / "a.yaml").loss.params == load_config(tmp_path / "a.yaml").loss.class_weights == {}
    assert load_config(tmp_path / "b.yaml").loss.class_weights == {"a": 3.0}
    assert load_config(tmp_path / "b.yaml").loss.params == {"frame_weight": 2.0, "label_smoothing": 0.1}
    assert load_config(tmp_path / "b.yaml", ["loss.name=focal"]).loss.params == {}
    assert load_config(tmp_path / "b.yaml", ["loss.name=bce_clip_frame"]).loss.params["frame_weight"] == 2.0
    overrides = ["loss.name=focal", "loss.params.gamma=3"]
    assert load_config(tmp_path / "b.yaml", overrides).loss.params == {"gamma": 3}


def test_what_prediction_leaves_open_follows_training():
    config = load_config(None, ["data.sample_rate=16000", "frontends.logmel.fmax=7000", "data.crop_seconds=2.5"])
    predict = config.predict
    assert (predict.sample_rate, predict.window_samples, predict.stride_samples, predict.batch_size) == (
        16000, 40000, 40000, 32)  # fmt: skip
    with pytest.raises(ValueError, match="predict.sample_rate is 44100 Hz but data.sample_rate is 32000 Hz"):
        load_config(None, ["predict.sample_rate=44100"])


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_every_configs_loss_takes_its_parameters(path):
    from earshot.losses import build_loss

    loss = load_config(path).loss
    build_loss(loss.name, loss.params)


def documented() -> dict[str, dict[str, str]]:
    """docs/config.md: {section: {key: default as written}}; a table that says what no key means is an error."""
    tables, section = {}, None
    for line in (ROOT.parent / "docs" / "config.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.split("`")[1] if "`" in line else ""
        elif line.startswith("| `"):
            key, default, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            assert meaning, f"{section}.{key} has no meaning"
            tables.setdefault(section, {})[key.strip("`")] = default
    return tables


def test_the_docs_name_every_key_and_its_default():
    config = {
        name: getattr(Config(), name) for name in ("data", "model", "augment", "loss", "distill", "optim", "budget")
    }
    records = {"": Config(), "augment.batch": Config().augment.batch, "predict": Windowing()} | config
    records["distill.teacher"] = Config().distill.teacher
    records |= {f"augment.{name}": getattr(Config().augment, name) for name in ("background", "pseudo")}
    written = {"": "(empty)", "[]": "[]", "{}": "{}", "True": "true", "False": "false"}
    expected = {}
    for section, record in records.items():
        values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
        plain = {k: str(to_dict(v)) for k, v in values.items() if not dataclasses.is_dataclass(v) and k != "frontends"}
        expected[section] = {k: written.get(plain[k], plain[k]) if k in plain else "section" for k in values}
    assert documented() == expected


def test_what_was_parsed_is_the_callers_own():
    """The reader keeps what it read: a caller that changes its values changes nobody else's."""
    first = parse_yaml("a: {b: [1, 2]}", "x.yaml")
    first["a"]["b"].append(3)
    assert parse_yaml("a: {b: [1, 2]}", "x.yaml") == {"a": {"b": [1, 2]}}
    for _ in range(2):
        with pytest.raises(ValueError, match="y.yaml is not valid YAML"):
            parse_yaml("a: [", "y.yaml")


def test_numbers_are_as_they_are_written():
    """To YAML 1.1 012 is 10, 12:30 is 750 and 1_0 is 10: another site, another time."""
    text = "[012, 12, 12:30, 1_0, 0b1, -5, 1.5, .5, 1.0e-3, 1e-3, .inf, 007, 0x1F]"
    assert parse_yaml(text, "x") == [
        "012",
        12,
        "12:30",
        "1_0",
        "0b1",
        -5,
        1.5,
        0.5,
        0.001,
        "1e-3",
        float("inf"),
        "007",
        31,
    ]
    config = from_dict({"optim": {"epochs": "010"}, "data": {"where": parse_yaml("{site: 012}", "x")}})
    assert (config.optim.epochs, config.data.where) == (10, {"site": "012"})


def test_a_seed_that_no_generator_takes_is_refused():
    with pytest.raises(ValueError, match="seed must be at most 4294967295"):
        from_dict({"seed": 2**32})
