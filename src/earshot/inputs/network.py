"""What one network hears, input by input, and of what kind of decoded recording: built once, asked by everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from earshot.inputs.extractor import Extractor
from earshot.inputs.given import Given, Metadata, Waveform
from earshot.inputs.kinds import make_input
from earshot.inputs.logmel import Logmel
from earshot.inputs.record import CHANNELS, Input
from earshot.inputs.vggish_examples import VggishInput
from earshot.inputs.waveforms import as_heard, hear, own_samples
from earshot.messages import suggest
from earshot.sound.logmel import LogmelParams
from earshot.sound.timebase import TimeBase


@dataclass(frozen=True)
class Inputs(Mapping):
    """Name -> record of each input, in the network's order; recordings are decoded at `sample_rate`.

    `channels` of the data (mono, stereo, mid_side) say how many are decoded; `hop_length` is the step, in samples at
    `sample_rate`, of the grid on which framewise outputs lie: that of the first picture, else of an extractor's rows.
    """

    records: tuple[tuple[str, Input], ...]
    sample_rate: int
    channels: str = "mono"
    hop_length: int = 1

    @classmethod
    def made(
        cls,
        front_ends: Mapping[str, Input],
        names: Sequence[str] | None = None,
        sample_rate: int = 0,
        channels: str = "mono",
        metadata: Metadata | None = None,
    ) -> Inputs:
        """The inputs called `names` (None: all front ends), from a config's front ends and its metadata columns.

        front_ends: also plain LogmelParams, or an `Inputs` (then its inputs of these names). sample_rate 0: that of
        the first front end. An input without a front end is the waveform, metadata, VGGish's examples or a cached
        embedding by its name; any other one is an error.
        """
        if isinstance(front_ends, Inputs):
            return front_ends if names is None or tuple(names) == tuple(front_ends) else front_ends.only(names)
        front_ends = {n: Logmel(**vars(r)) if type(r) is LogmelParams else r for n, r in front_ends.items()}
        sample_rate = sample_rate or next((r.sample_rate for r in front_ends.values()), 0)
        plain = {
            "waveform": Waveform(),
            "metadata": metadata or Metadata(),
            "embedding": Given(),
            "vggish": VggishInput(),
        }
        records = []
        for name in front_ends if names is None else names:
            if name not in front_ends and name not in plain:
                raise ValueError(f"the model wants input '{name}', which no front end makes{suggest(name, front_ends)}")
            record = front_ends[name] if name in front_ends else plain[name]
            if record.kind == "metadata" and metadata is not None:
                record = metadata  # the columns are data.metadata's, whatever the input's place in the config
            records.append((name, record.resolved(sample_rate, channels, f"frontends.{name}")))
        first = next((r for r in front_ends.values() if r.picture and r.hop), None)
        rows = next((r for _, r in records if isinstance(r, Extractor) and r.sequence and r.stride_seconds), None)
        hop = _grid_hop(first, sample_rate) if first else _rows_hop(rows, sample_rate) if rows else 1
        return cls(tuple(records), sample_rate, channels, hop)

    @classmethod
    def from_json(cls, about: Mapping) -> Inputs:
        """What an exported graph says of its inputs (`to_json` and the graph's own keys) -> the same object."""
        front_ends = {name: make_input(values, f"input {name}") for name, values in about["frontends"].items()}
        metadata = None if "metadata" in front_ends else Metadata(columns=tuple(about.get("metadata", ())))
        channels = about.get("channels", "mono")
        made = cls.made(front_ends, about["inputs"], about["windowing"]["sample_rate"], channels, metadata)
        return cls(made.records, made.sample_rate, channels, about["timebase"][1])

    def only(self, names: Sequence[str]) -> Inputs:
        """Some of the inputs; one that it does not have is the waveform, metadata or an embedding by its name."""
        made = Inputs.made(dict(self.records), names, self.sample_rate, self.channels)
        return replace(self, records=made.records)

    def with_files(self, places: Mapping[str, str]) -> Inputs:
        """The same with extractors' files where they lie here: {file as a record names it: its path}."""
        records = tuple(
            (n, replace(r, file=places.get(r.file, r.file)) if isinstance(r, Extractor) else r) for n, r in self.records
        )
        return replace(self, records=records)

    def exported(self) -> Inputs:
        """What an exported graph of the network hears: each input as NumPy alone computes it."""
        return replace(self, records=tuple((name, record.exported()) for name, record in self.records))

    def to_json(self) -> dict[str, dict]:
        return {name: record.to_json() for name, record in self.records}

    def __getitem__(self, name: str) -> Input:
        return dict(self.records)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(name for name, _ in self.records)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def n_channels(self) -> int:
        """Channels that are decoded."""
        return CHANNELS[self.channels]

    @property
    def cacheable(self) -> bool:
        """Whether crops of all that sounds can be cut from pictures of whole clips (data.cache=logmel)."""
        return all(r.picture and r.hop and r.cuttable for r in self.values() if r.sounds and not r.of_clip)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the clip table that an input is made of."""
        return next((r.columns for r in self.values() if isinstance(r, Metadata)), ())

    def of(self, **attributes) -> tuple[str, ...]:
        """Names of the inputs whose records have these values of attributes: `of(picture=True)`."""
        return tuple(n for n, r in self.records if all(getattr(r, k) == v for k, v in attributes.items()))

    def timebase(self, pool: int) -> TimeBase:
        """The grid of a network's segments of `pool` steps."""
        return TimeBase(self.sample_rate or 1, self.hop_length, pool)

    def shapes(self, n_samples: int) -> dict[str, tuple[int, ...]]:
        """Shape of each input, without the batch, for so many samples at `sample_rate`."""
        return {n: r.shape(own_samples(n_samples, self.sample_rate, r)) for n, r in self.records}

    def silence(self, n_samples: int) -> dict[str, np.ndarray]:
        """Each input of digital silence."""
        return {n: r.silence(own_samples(n_samples, self.sample_rate, r)) for n, r in self.records}

    def hear(self, waveform: np.ndarray, given: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Compute every input of the network from one waveform.

        (S,) or (2, S) at `sample_rate` -> every input; see waveforms.hear.
        """
        return hear(dict(self.records), waveform, self.sample_rate, given)

    def macs(self, n_samples: int) -> int:
        """Multiply-accumulates of computing all inputs of so many samples."""
        return sum(r.macs(own_samples(n_samples, self.sample_rate, r)) for r in self.values())

    def sound_key(self, name: str) -> str:
        """Where a training batch holds the waveform that this input hears; inputs that hear alike share it."""
        record = self[name]
        plain = "mono" if self.n_channels == 1 else "stereo"
        if record.sample_rate in (0, self.sample_rate) and (record.channels or plain) == plain:
            return "waveform"
        return f"waveform_{record.sample_rate or self.sample_rate}_{record.channels or 'mono'}"

    def training_sounds(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        """A crop at `sample_rate` -> the waveforms that the inputs' torch twins hear, by `sound_key`, and the inputs
        that have no twin."""
        found = {}
        for name, record in self.records:
            if not record.sounds or record.of_clip:
                continue
            key = self.sound_key(name) if record.has_twin else name
            if key not in found:
                heard = as_heard(waveform, self.sample_rate, record)
                found[key] = heard if record.has_twin else record.compute(heard)
        return found


def _rows_hop(record: Extractor, sample_rate: int) -> int:
    """The stride of an extractor's rows in samples of the run's rate; 1 where it is no whole number of them."""
    hop = record.stride_samples * sample_rate / record.sample_rate
    return int(hop) if hop == int(hop) else 1


def _grid_hop(record: Input, sample_rate: int) -> int:
    """The record's step in samples of the run's rate; a fraction is an error: outputs would drift."""
    own = record.sample_rate or sample_rate
    if not sample_rate or record.hop * sample_rate % own == 0:
        return record.hop * sample_rate // own if sample_rate else record.hop
    whole = own // np.gcd(own, sample_rate)
    raise ValueError(
        f"a hop of {record.hop} samples at {own} Hz is no whole number of samples at data.sample_rate {sample_rate} "
        f"Hz, on which outputs lie: choose a hop_length that {whole} divides"
    )
