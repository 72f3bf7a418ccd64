"""The kinds of network input by the name that a config uses, and a config's or a file's mapping -> the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from earshot.inputs.extractor import Extractor
from earshot.inputs.gammatone import Gammatone
from earshot.inputs.given import Metadata, Waveform
from earshot.inputs.kaldi_input import Kaldi
from earshot.inputs.logmel import Logmel
from earshot.inputs.pcen import Pcen
from earshot.inputs.record import Input
from earshot.inputs.vggish_examples import VggishInput
from earshot.messages import suggest

KINDS: dict[str, type[Input]] = {
    "logmel": Logmel,
    "waveform": Waveform,
    "metadata": Metadata,
    "pcen": Pcen,
    "gammatone": Gammatone,
    "kaldi": Kaldi,
    "vggish": VggishInput,
    "extractor": Extractor,
}


class AnyInput(Input):
    """A record of any kind, as a config's value: `kind` says which (records.build asks `from_values`)."""

    @staticmethod
    def from_values(values, where: str, build: Callable) -> Input:
        """A config's mapping -> the record."""
        if not isinstance(values, Mapping):
            raise ValueError(
                f"section '{where}' must be a mapping, got {values!r}; keys are {where}.kind and the kind's"
            )
        return make_input(values, where, build)


def make_input(values: Mapping, where: str = "input", build: Callable | None = None) -> Input:
    """Make the record of an input from the keys of a config.

    {kind (default logmel), its own keys} -> record. build: (class, values, where) -> checked object (config/).
    """
    values = dict(values)
    kind = values.pop("kind", "logmel")
    if kind not in KINDS:
        raise ValueError(f"{where}.kind is '{kind}'{suggest(str(kind), KINDS, 'known')}")
    if build is not None:
        return build(KINDS[kind], values, where)
    known = [f.name for f in dataclasses.fields(KINDS[kind])]
    for key in values:
        if key not in known:
            raise ValueError(f"{where}: a {kind} has no '{key}'{suggest(key, known)}")
    return KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
