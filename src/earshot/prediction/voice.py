"""Speech in recordings, heard by Silero's voice activity detector, run as an ONNX graph without its authors' code.

The graph takes 512 samples at 16 kHz behind the 64 before them, a state and the rate. It answers with the probability
of speech in these 32 ms and the next state. Fed without the 64 samples it answers, and wrongly. Stretches follow the
rules of the package's `get_speech_timestamps` in whole frames of 32 ms: above a threshold, until 0.15 below it; pauses
of 0.1 s are bridged, less than 0.25 s is none, 0.03 s are added at both ends. Here a stretch also begins at the lower
of the two thresholds, so that it may hold a frame more.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import events
from earshot.files import file_digest
from earshot.inputs.extractor import found_file
from earshot.messages import install_line, need
from earshot.sound import audio
from earshot.sound.timebase import TimeBase

SAMPLE_RATE, WINDOW, CONTEXT, STATE = 16000, 512, 64, (2, 1, 128)
FILE = "silero_vad/data/silero_vad_16k_op15.onnx"  # in the wheel of silero-vad (MIT)
THRESHOLD, HYSTERESIS = 0.5, 0.15
PAUSE_FRAMES, SHORTEST_FRAMES = 3, 8  # 0.1 and 0.25 s
PADDING_SECONDS = 0.03
BLOCK_SECONDS = 60.0


class VoiceDetector:
    """A file of Silero's, opened; several threads may ask it at once, each with recordings of its own."""

    def __init__(self, file: str | Path = FILE):
        """file: an ONNX file, or one inside an installed package. Errors: it is not there, or another kind of graph."""
        path = found_file(str(file))
        if not path.is_file():
            missing = f": {install_line('voice')}, or give --voice-model FILE ({FILE.split('/')[-1]})"
            raise ValueError(f"the file {file} that hears speech is not there{missing if str(file) == FILE else ''}")
        runtime = need("onnxruntime", "voice", "hearing speech")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # recordings are heard by several threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"{path} is not a graph that ONNX Runtime can run: {error}") from error
        takes, gives = (
            {t.name for t in tensors} for tensors in (self.session.get_inputs(), self.session.get_outputs())
        )
        if takes != {"input", "state", "sr"} or not gives >= {"output", "stateN"}:
            raise ValueError(
                f"{path} is no voice detector of Silero, version 5 or later: it takes {', '.join(sorted(takes))} and "
                f"gives {', '.join(sorted(gives))}; expected input, state, sr and output, stateN"
            )
        self.digest = file_digest(path)[:16]
        self.name = path.name

    def probabilities(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Blocks (S,) of one recording at 16 kHz -> (N,) probability of speech in each 32 ms; the end has zeros behind.

        Errors: ValueError where the graph's answer is not one probability.
        """
        state, rate = np.zeros(STATE, np.float32), np.array(SAMPLE_RATE, np.int64)
        waiting, found = np.zeros(CONTEXT, np.float32), []

        def hear(samples: np.ndarray) -> float:
            nonlocal state
            given = {"input": samples[None], "state": state, "sr": rate}
            answer, state = self.session.run(["output", "stateN"], given)
            if answer.size != 1 or state.shape != STATE or not 0 <= answer.flat[0] <= 1:
                raise ValueError(f"{self.name} answered {answer.shape} with a state of {state.shape}: no probability")
            return float(answer.flat[0])

        for block in blocks:
            waiting = np.concatenate([waiting, block]).astype(np.float32)
            whole = (len(waiting) - CONTEXT) // WINDOW
            found += [hear(waiting[i * WINDOW : i * WINDOW + CONTEXT + WINDOW]) for i in range(whole)]
            waiting = waiting[whole * WINDOW :]
        if len(waiting) > CONTEXT:
            found.append(hear(np.pad(waiting, (0, CONTEXT + WINDOW - len(waiting)))))
        return np.array(found)

    def stretches(self, path: str | Path, threshold: float = THRESHOLD) -> pd.DataFrame:
        """Where a recording holds speech: `onset, offset` (s) and mean `probability`, one row a stretch.

        Errors: UnreadableAudio.
        """
        heard = self.probabilities(audio.blocks(path, SAMPLE_RATE, BLOCK_SECONDS))
        return stretches_of(heard, threshold, audio.info(path).duration)


def stretches_of(probability: np.ndarray, threshold: float, duration: float) -> pd.DataFrame:
    """Stretches of speech from (N,) probabilities of it in each 32 ms: `onset, offset` (s), mean `probability`."""
    heard = probability[:, None].astype(np.float32)
    active = events.hysteresis(heard, threshold, max(threshold - HYSTERESIS, min(threshold, 0.01)))
    active = events.drop_short(events.merge_gaps(active, PAUSE_FRAMES), SHORTEST_FRAMES)
    class_index, start, stop = events.runs(active)
    _, mean = events.confidence(heard, class_index, start, stop)
    grid = TimeBase(SAMPLE_RATE, WINDOW)
    onset = np.maximum(grid.seconds(start) - PADDING_SECONDS, 0.0)
    offset = np.minimum(grid.seconds(stop) + PADDING_SECONDS, duration)
    return pd.DataFrame({"onset": onset.round(3), "offset": offset.round(3), "probability": mean.round(3)})
