"""Folders of one's own recordings, made for tests."""

import numpy as np
import soundfile


def record(folder, *names, seconds=8.0):
    """Write quiet recordings of these names, at 1 kHz, as WAV whatever their names end in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(round(seconds * 1000), 0.1, np.float32), 1000, format="WAV")


def events_of(tables):
    """The events of prepared tables: [filename, onset, offset, event_label] each."""
    return tables.events[["filename", "onset", "offset", "event_label"]].values.tolist()
