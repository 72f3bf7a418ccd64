"""Events of any recordings: a trained run hears a folder and writes what it found, for people and other programs.

python src/detect.py --run runs/sed/synth_cnn --clips ~/recordings --out found
python src/detect.py --run runs/tagging/mine --clips FOLDER --out found --as raven audacity csv --top 20
python src/detect.py --run runs/sed/mine --clips FOLDER --out found --examples 5   # the surest of each class as wav

Thresholds and confidence come from the run's OOF. Writes OUT/events.csv (or what --as says), OUT/summary.csv (a row a
class, folder and hour, by the clock in the files' names), OUT/recordings.csv (every file: heard, or why not, and what
is odd about it) and OUT/detect.json.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd
import soundfile

from earshot import files, runs
from earshot.annotations.writing import KINDS, file_names, folder_names, write_events
from earshot.ensemble.choice import fields_of, write_choice
from earshot.events import PostProcess
from earshot.listening import detections
from earshot.listening.detections import Heard, best_examples, hear, summary_of
from earshot.listening.members import ears_of, with_frames
from earshot.listening.recordings import find_clips
from earshot.messages import Parser, check_choice, check_numbers, fewer_alike, need, pasted, plural, progress_bar
from earshot.prediction.free_cores import allowed_cores, use_free_cores
from earshot.prediction.predictions import Clip
from earshot.sound import audio
from earshot.sound.folder import printable

EXAMPLE_MARGIN = 0.5  # seconds of sound before and behind an example


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_options(options)
    runs.check_is_there(options.run)
    files.check_writable(options.out / "events.csv", "give --out FOLDER")
    recordings, left_out = find_clips(options.clips, without=options.out / "examples")
    if left_out:
        print(left_out)
    if options.backend == "torch":
        use_free_cores()
    ears = with_frames(ears_of(options.run, options.backend, int8=options.int8), options.level == "windows")
    asked, found = detections.asked_of(options)
    print("\n".join(found.said))
    started = time.monotonic()
    streams = 1 if options.backend == "torch" else allowed_cores()
    with progress_bar(None, "detect", len(recordings), "file") as bar, fewer_alike():
        heard = hear(ears, recordings, asked, streams, bar.update)
    write(heard, recordings, asked.post, options)
    if found.choice:
        write_choice(options.out / "post.json", found.choice)
        print(f"the next call is faster with {pasted('--post', options.out / 'post.json')}")
    seconds = sum(s for s in heard.seconds.values() if np.isfinite(s))
    took = time.monotonic() - started
    told = f"{plural(len(recordings), 'recordings')}, {seconds / 3600:.2f} h of sound in {took:.1f} s"
    print(f"{told}: {plural(len(heard.events), 'events')} -> {options.out}")
    report_unreadable(heard, options.out)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a run: runs/<task>/<name>")
    add("--clips", type=Path, required=True, help="a folder of recordings, or one recording")
    add("--out", type=Path, required=True, help="folder to write")
    add("--as", nargs="+", default=["csv"], dest="kinds", metavar="KIND", help=f"{', '.join(KINDS)} (default csv)")
    add("--examples", type=int, default=0, help="cut so many of each class to OUT/examples/<class>/*.wav")
    add("--force", action="store_true", help="write into a folder that holds events already")
    detections.add_options(parser)
    return parser.parse_args()


def check_options(options: argparse.Namespace):
    """Options that cannot be meant are errors before a network is loaded."""
    for kind in options.kinds:
        check_choice("--as", kind, KINDS)
    detections.check_options(options)
    check_numbers(options, "examples")
    if (options.out / "detect.json").is_file() and not options.force:
        raise ValueError(f"{options.out} holds events already: choose another --out, or replace them with --force")
    if "parquet" in options.kinds:
        need("pyarrow", "ray", "--as parquet")


def write(heard: Heard, recordings: list[Clip], post: PostProcess, options: argparse.Namespace):
    """Write everything that is in --out; detect.json is last."""
    events, lengths, reasons, notes = heard.events, heard.seconds, heard.unreadable, heard.notes
    readable = [str(clip.path) for clip in recordings if str(clip.path) in lengths]
    write_events(events, options.out, options.kinds, readable, rate_of)
    with files.whole_file(options.out / "summary.csv") as partial:
        summary_of(events).to_csv(partial, index=False, lineterminator="\n")
    counts = events.path.value_counts()
    rows = [
        {"filename": clip.clip_id, "path": printable(str(clip.path)), "seconds": lengths.get(str(clip.path), ""),
         "events": int(counts.get(str(clip.path), 0)), "unreadable": reasons.get(str(clip.path), ""),
         "note": notes.get(str(clip.path), "")}
        for clip in recordings
    ]  # fmt: skip
    files.write_rows(options.out / "recordings.csv", rows)
    if options.examples:
        cut_examples(best_examples(events, options.examples), options.out / "examples")
    about = {"run": str(options.run), "clips": str(options.clips), "post": fields_of(post), "top": options.top,
             "min_confidence": options.min_confidence, "level": options.level, "recordings": len(recordings),
             "events": len(events), "commit": runs.git_commit()}  # fmt: skip
    files.write_text(options.out / "detect.json", files.as_json(about, indent=1) + "\n")


def rate_of(path: str) -> int:
    """Hz of a recording; 0 where it went while others were heard: its events stand all the same."""
    try:
        return audio.info(Path(path)).sample_rate
    except audio.UnreadableAudio:
        return 0


def cut_examples(events: pd.DataFrame, folder: Path):
    """Events -> wav files, a folder a class, with half a second of sound around each."""
    classes = folder_names(events.event_label.unique())
    names = file_names(events.path.unique())
    for event in events.itertuples():
        start = max(0.0, event.onset - EXAMPLE_MARGIN)
        try:  # the part alone: a recording may last a day
            rate = audio.info(Path(event.path)).sample_rate
            sound = audio.load(Path(event.path), rate, start, event.offset + EXAMPLE_MARGIN - start, mono=False)
        except audio.UnreadableAudio as error:
            print(f"no example: {error}")
            continue
        target = folder / classes[event.event_label]
        target.mkdir(parents=True, exist_ok=True)
        name = f"{event.confidence:.3f}_{names[event.path]}_{event.onset:.2f}s.wav"
        with files.whole_file(target / name) as partial, open(partial, "wb") as file:
            soundfile.write(file, np.atleast_2d(sound).T, rate, format="WAV")


def report_unreadable(heard: Heard, out: Path):
    lost = len(heard.unreadable)
    if lost and not heard.seconds:
        raise ValueError(f"none of the {lost} recordings could be read: {out / 'recordings.csv'} says why")
    if lost:
        print(f"{plural(lost, 'recordings')} could not be read: see {out / 'recordings.csv'}")
    if odd := len(heard.notes):
        print(f"{plural(odd, 'recordings are')} not as their files say: see {out / 'recordings.csv'}")


if __name__ == "__main__":
    run_script(main)
