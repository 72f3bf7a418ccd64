# %% [markdown]
# # A tour of Earshot
#
# From made sounds to events, in one sitting on two cores. Everything happens in a temporary folder. What `run` is given
# are the commands that you would type; it shows the end of what they print.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "src" / "train.py").is_file())
sys.path.insert(0, str(ROOT / "src"))
WORK = tempfile.TemporaryDirectory()
os.chdir(WORK.name)


def run(command, lines=12):
    """Run one of Earshot's commands and show the last lines that it prints."""
    words = [str(ROOT / word) if word.startswith(("src/", "configs/")) else word for word in command.split()]
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
    print("\n".join(done.stdout.splitlines()[-lines:]))
    if done.returncode:
        raise RuntimeError(done.stderr)


# %% [markdown]
# ## A competition, made here
# Ten invented birds sing in noise. A real download takes `--source FOLDER`; `python src/competitions.py` lists which
# Earshot knows.

# %%
run("python src/prepare.py synth")
run("python src/make_folds.py --clips data/synth/clips.csv --out folds/synth.csv", lines=3)

# %% [markdown]
# The tables are plain CSV: a row a clip, and a row an event of the test recordings.

# %%
import pandas as pd

clips = pd.read_csv("data/synth/clips.csv")
clips[["clip_id", "labels", "group", "duration"]].head()

# %% [markdown]
# ## What a network hears
# A log-mel of five seconds. `config.inputs` says what this config's network is given.

# %%
import matplotlib.pyplot as plt

from earshot.config import load_config
from earshot.data.dataset import read_dataset
from earshot.sound import audio

config = load_config(ROOT / "configs" / "sed" / "synth_cnn.yaml")
source = Path(read_dataset("data/synth")["source"])
waveform = audio.load(source / clips.path[0], config.data.sample_rate)[: 5 * config.data.sample_rate]
logmel = config.inputs()["logmel"].compute(waveform)

figure, axis = plt.subplots(figsize=(9, 3))
axis.imshow(logmel.squeeze().T, origin="lower", aspect="auto", extent=(0, 5, 0, logmel.shape[-1]))
axis.set(xlabel="seconds", ylabel="mel band", title=clips.labels[0])

# %% [markdown]
# ## Train a fold, for a look
# Two epochs on a few clips of each class teach little: `make demo` trains on all of them and reaches a CV of 0.94.

# %%
run(
    "python src/train.py --config configs/sed/synth_cnn.yaml --fold 0 optim.epochs=2 optim.warmup_epochs=0 "
    "data.clips_per_class=6 data.cache=none",
    lines=4,
)

# %% [markdown]
# The run folder describes itself: its config, log, weights, and the predictions of clips that it did not train on.

# %%
run("python src/runs.py")
sorted(path.name for path in Path("runs/sed/synth_cnn/fold0").iterdir())

# %% [markdown]
# ## From frames to events
# `Predictions` holds an output for each clip and each frame; a threshold makes rows with an onset and an offset.

# %%
from earshot.events import PostProcess, detect
from earshot.prediction.predictions import Predictions

oof = Predictions.load("runs/sed/synth_cnn/fold0/oof.npz")
frames, grid = oof.framewise_output[0], oof.timebase
threshold = float(frames.max()) * 0.9
events = detect(frames, grid, oof.classes, str(oof.clip_ids[0]), PostProcess(threshold=threshold))
events.head()

# %% [markdown]
# From here: the [README](../README.md) has the whole road, [docs/](../docs) a page a subject.

# %%
WORK.cleanup()
