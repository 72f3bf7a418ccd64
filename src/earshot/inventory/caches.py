"""The caches that data sets keep (data/caches.py): all can be made again, so that cleaning may take any of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from earshot import files
from earshot.config import Config
from earshot.config.sections import DataConfig
from earshot.data.caches import picture_settings, waveform_settings
from earshot.data.packed import packed_settings
from earshot.inputs.record import CHANNELS
from earshot.inventory.trained import Found
from earshot.messages import few, plural
from earshot.processes.lock import in_somebodys_turn, is_held, owned_since
from earshot.runs import FoldRun
from earshot.stored import read_json

KEY = re.compile(r"[0-9a-f]{16}|\.[0-9a-f]{16}\.part")  # the second: a packing that was stopped, and would go on
TOLD = ("n_fft", "hop_length", "n_mels", "fmin", "fmax", "channels", "level", "extension", "segment_samples", "width")


@dataclass(frozen=True)
class Cache:
    """A folder of a data set's caches, what it holds, and who wants it."""

    folder: Path
    size: int  # bytes
    what: str
    used_by: tuple[str, ...] = ()  # runs whose settings ask for one like it
    stays: str = ""  # why it may not go

    def say(self) -> str:
        """What it is and who asks for it, for people."""
        return f"{self.what}; {self.asked_for() or 'no run here asks for one like it'}"

    def asked_for(self) -> str:
        """Say who asks for such a cache, and what was compared: settings, not whether recordings changed since.

        '' where nobody does.
        """
        if not self.used_by:
            return ""
        compared = "embeddings of some network" if self.what.startswith("embedding ") else "these settings"
        return f"{compared} are what {few(self.used_by, 3)} ask{'s' * (len(self.used_by) == 1)} for"


def caches_of(found: Sequence[Found], everything: Sequence[Found]) -> Iterator[Cache]:
    """Find the caches of these runs' data, and say what they are, who uses them, and which may not go.

    Where all runs are meant, the data sets below data/ that no run names count too, but not links, behind which others
    may work. A data set that a running run reads keeps its caches, and so does what any process of this machine reads.
    """
    known = {run.name: configs_of(run) for run in everything}
    at = {place: config.data for run in found for config in known[run.name] for place in places(config.data)}
    if len(found) == len(everything):
        elsewhere = {config.data.cache_folder for configs in known.values() for config in configs} | {""}
        for root in (path for path in Path("data").glob("*") if path.is_dir() and not path.is_symlink()):
            for folder in elsewhere:
                data = DataConfig(root=str(root), cache_folder=folder)
                at |= {place: data for place in places(data) if place not in at and not place.is_symlink()}
    reads: dict[Path, dict[str, list[Config]]] = {}
    for name, configs in known.items():
        for config in configs:
            for place in places(config.data):
                reads.setdefault(place.resolve(), {}).setdefault(name, []).append(config)
    run_now = [run for run in everything if run.state == "running"]
    beginning = next(
        (f"{run.name} is beginning, and may read it" for run in run_now if begins(run) or not known[run.name]), ""
    )
    for folder, place in {place.resolve(): place for place in sorted(at)}.items():
        readers = reads.get(folder, {})
        running = next((f"{run.name} is running" for run in run_now if run.name in readers), beginning)
        asked = {name: [_asked(config) for config in configs] for name, configs in readers.items()}
        for path in sorted(place.glob("*")):
            if KEY.fullmatch(path.name) and not path.is_symlink() and (cache := _cache_at(path, asked, running)):
                yield cache


def _cache_at(path: Path, asked: dict[str, list[dict]], running: str) -> Cache | None:
    """The cache in a folder that is named as one; None where it is none of ours.

    asked: settings that each run asks caches of this place for; running: why all of them stay, '' where they need not.
    """
    if path.name.startswith("."):
        packing = in_somebodys_turn(path.with_name(f"{path.name.removesuffix('.part')}.lock"))
        stays = running or "it is being packed" * packing
        return Cache(path, _size(path), "a packing that was stopped, which would go on", stays=stays)
    if not (path / "params.json").is_file():
        return None
    about = _about(path / "params.json")
    if not (_is_ours(about) or (path / "index.csv").is_file()):
        return None
    users = tuple(name for name, some in asked.items() if about and any(_is_asked(about, s) for s in some))
    return Cache(
        path, _size(path), _what(path, about), users, running or "a process reads it" * is_held(path / "params.json")
    )


def places(data: DataConfig) -> tuple[Path, ...]:
    """Where the caches of a data set are: in it, where it cannot be written in cache/<its name> of this folder, and
    where its `cache_folder` says."""
    root = Path(data.root)
    inside = replace(data, cache_folder="").caches
    return tuple(dict.fromkeys((inside, Path("cache", root.absolute().name), data.caches)))


def configs_of(run: Found) -> list[Config]:
    """The configs of a run's folds, different ones alone: each fold may keep its caches elsewhere."""
    found = []
    for folder in files.fold_folders(run.folder):
        try:
            config = FoldRun(folder).config
        except (ValueError, OSError):  # none yet, or a damaged one, as the list of runs says
            continue
        if config not in found:
            found.append(config)
    return found


def begins(run: Found) -> bool:
    """Whether a fold of it is being set up: it makes caches then, and writes its config once it has them all."""
    for folder in files.fold_folders(run.folder):
        config, since = folder / "config.yaml", owned_since(folder)
        if since and not (config.is_file() and config.stat().st_mtime >= since):
            return True
    return False


def asked_by(config: Config) -> list[dict]:
    """Settings of the caches that a run of this config reads, as their params.json says them; of embeddings the kind.

    Which network computes embeddings is not looked at: it may not be here any more. ValueError where the inputs cannot
    be made.
    """
    data, inputs, asked = config.data, config.inputs(), []
    if data.cache == "waveform":
        asked.append(waveform_settings(data.sample_rate, n_channels=inputs.n_channels))
    elif data.cache == "packed":
        asked.append(packed_settings(data.sample_rate, data.pack_seconds, CHANNELS[data.channels]))
    elif data.cache == "logmel":
        for record in (inputs[name] for name in inputs.of(picture=True) if inputs[name].cuttable):
            asked.append(picture_settings(record, data.sample_rate, n_channels=inputs.n_channels, level=data.level))
    if data.cache == "embedding" or inputs.of(of_clip=True) or config.distill.acts:
        asked.append({"kind": "embedding"})
    return json.loads(json.dumps(asked))


def _asked(config: Config) -> list[dict] | None:
    """As `asked_by`; None where nobody can tell, as of an extractor that is gone."""
    try:
        return asked_by(config)
    except ValueError:
        return None


def _is_asked(about: dict, asked: Sequence[dict] | None) -> bool:
    """Whether a cache is one of those that are asked for, or may be."""
    if asked is None:
        return True
    settings = {name: value for name, value in about.items() if name != "format"}
    return any(settings == each or (each == {"kind": "embedding"} == {"kind": about.get("kind")}) for each in asked)


def _size(folder: Path) -> int:
    return sum((parent / name).lstat().st_size for parent, names in files.walk(folder) for name in names)


def _about(params: Path) -> dict:
    """What a cache says of itself; {} of a damaged one."""
    try:
        return read_json(params, "description")
    except ValueError:
        return {}


def _is_ours(about: dict) -> bool:
    """Whether a description is one of a cache, and not of what another program keeps under such a name."""
    return isinstance(about.get("kind"), str) and isinstance(about.get("format"), int)


def _what(cache: Path, about: dict) -> str:
    """What a cache holds: its kind, rate, clips, day and the settings that people know."""
    if not about:
        return "a damaged cache"
    rate = about.get("sample_rate")
    clips = _lines(cache / "index.csv") - 1
    told = about | (about.get("params") if isinstance(about.get("params"), dict) else {})
    day = datetime.fromtimestamp((cache / "params.json").stat().st_mtime).strftime("%Y-%m-%d")
    words = [f"{about.get('kind', '')} cache" + f" at {rate} Hz" * isinstance(rate, int)]
    words += [f"{plural(clips, 'clips')}"] * (clips >= 0) + [day]
    if about.get("kind") == "packed" and isinstance(rate, int) and isinstance(about.get("n_samples"), int):
        words.append(f"{about['n_samples'] / max(rate, 1):g} s each")
    words += [f"{name} {told[name]}" for name in TOLD if isinstance(told.get(name), int | float | str)]
    return ", ".join(words)


def _lines(path: Path) -> int:
    """How many lines a file has, 0 where there is none."""
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
