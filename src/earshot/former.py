"""Modules by the names that they had before there were packages: `from earshot.labels import read_clips` still works.

Scripts and notebooks that people keep outside of this repository import such names. Nothing in here is used by Earshot
itself. A name is looked for in the modules that its old home became; importing one this way warns where it lives now.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from types import ModuleType

FORMER = {
    "audio": ("sound.audio",),
    "audio_rows": ("sound.rows",),
    "backends": ("prediction.backends",),
    "blending": ("ensemble.search", "ensemble.oof", "data.answers"),
    "blends": ("ensemble.blends",),
    "cache": ("data.caches",),
    "cache_embedding": ("data.embeddings",),
    "cache_packed": ("data.packed",),
    "counting": ("models.counting",),
    "dataset": ("data.prepared", "training.examples"),
    "event_metrics": ("metrics.events", "metrics.psds"),
    "features": ("inputs.torch_logmel", "inputs.torch_front_ends"),
    "folds": ("data.folds",),
    "graphs": ("prediction.graphs",),
    "hearing": ("prediction.reading",),
    "inference": ("prediction.inference", "prediction.clip_answers"),
    "labels": ("data.labels", "tables", "messages"),
    "logmel": ("sound.logmel",),
    "metrics_ust": ("metrics.urban",),
    "pooling": ("prediction.pooling",),
    "postprocessing": ("ensemble.post_processing",),
    "predictions": ("prediction.predictions",),
    "sampling": ("data.sampling",),
    "spelling": ("messages",),
    "timebase": ("sound.timebase",),
    "windows": ("sound.windows",),
}


class FormerNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `earshot.<former name>` after Python has found no file of that name."""

    def find_spec(self, fullname: str, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        if package == "earshot" and name in FORMER:
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, spec) -> ModuleType:
        return FormerModule(spec.name)

    def exec_module(self, module: ModuleType):
        """Nothing to run: the module looks its names up when they are asked for."""


class FormerModule(ModuleType):
    """A module without content of its own: every name is that of one of the modules that took its place."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        homes = FORMER[self.__name__.rpartition(".")[2]]
        for home in homes:
            module = importlib.import_module(f"earshot.{home}")
            if hasattr(module, name):
                warnings.warn(f"{self.__name__}.{name} is now earshot.{home}.{name}", FutureWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"{self.__name__} is now earshot.{', earshot.'.join(homes)}; none has '{name}'")


def install():
    """Let Python look here last; called once, by the package."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())
