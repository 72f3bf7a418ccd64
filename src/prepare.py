"""A competition's download -> the tables of data/<name>/ that everything else reads.

python src/prepare.py esc50 --source ~/ESC-50-master          # then: src/make_folds.py
python src/prepare.py synth                                   # the embedded competition makes its own download
python src/prepare.py finch_vocal --source ~/finch --backgrounds ~/ESC-50-master --snr-db 0 --out data/finch_0db
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import logging
import re
import sys
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot.competitions import COMPETITIONS, get_competition
from earshot.competitions.competition import Competition, Flag, Remake
from earshot.competitions.headers import with_headers
from earshot.competitions.tables import OF_RECORDINGS, Tables, check_owner, is_there, write_csv, write_tables
from earshot.config import LARGEST_SEED
from earshot.data.event_checks import after_checks, checked_events
from earshot.data.labels import annotated_clips, label_lists
from earshot.data.voice import check_still_heard, hear_voice, write_voice
from earshot.data.voice import summary as voice_summary
from earshot.files import check_writable, plain_name
from earshot.messages import Parser, check_numbers, command_line, few, fewer_alike, plural, suggest
from earshot.prediction.voice import FILE as VOICE_FILE
from earshot.prediction.voice import THRESHOLD, VoiceDetector
from earshot.sound import audio
from earshot.sound.folder import printable
from earshot.stored import parse_yaml

LISTED_CLASSES = 20  # in what is printed; classes.csv has all
SHORT_EVENTS = 0.32  # seconds, median; twice the time between two outputs of sed/synth_cnn


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    competition = get_competition(options.competition)
    out = options.out or Path("data") / options.competition
    check_writable(out / "clips.csv", "give --out FOLDER")
    source = find_source(competition, options, out)
    check_owner(out, options.competition, source, options.force, competition.also)
    if is_remade(competition, options):
        remake(competition.remake, options, source)
    if options.pack and not options.resample:
        raise ValueError("--pack needs --resample HZ, the rate of what is packed")
    if options.channels and not options.resample:
        raise ValueError("--channels is of the copies that --resample HZ makes; without it recordings stay as they are")
    detector = voice_detector(options)
    tables = competition.prepare(source, **prepare_options(competition, options))
    with fewer_alike(source):
        tables = with_headers(tables, source, options.check_audio, options.workers)
    tables, notes = with_checked_events(tables)
    notes += heard_for_voice(tables, source, out, detector, options) if detector else (
        check_still_heard(out, tables.clips, source))  # fmt: skip
    if options.resample:
        tables, more = resampled(tables, source, out, options)
        notes += more
    name = tables.competition or options.competition
    write_tables(
        tables, out, name, source, options.force, also=competition.also, copied_channels=copied_channels(options),
        command=sys.argv[1:],
    )  # fmt: skip
    print("\n".join([summary(tables, name), *(f"  {note}" for note in notes)]))
    list_odd_files(source, out)
    print(f"-> {out}")
    print(next_command(out, name, tables))


def parse_args() -> argparse.Namespace:
    """The command line; the competition on it says which further flags there are."""
    name = _parser(add_help=False, nargs="?").parse_known_args()[0].competition
    parser = _parser()
    for flag in own_flags(get_competition(name)) if name in COMPETITIONS else ():
        parser.add_argument(flag.name, type=flag.type, default=flag.default, metavar=flag.metavar, help=flag.help)
    options, unknown = parser.parse_known_args()
    if unknown:
        parser.error(f"{get_competition(options.competition).name} has no {' '.join(unknown)}")
    check_numbers(options, "resample", "workers", low=1)
    check_numbers(options, "pack", low=0.001)
    check_numbers(options, "seed", high=LARGEST_SEED)
    return options


def own_flags(competition: Competition) -> tuple[Flag, ...]:
    """The flags that this competition takes and others do not."""
    return competition.flags + (competition.remake.flags if competition.remake else ())


def _parser(add_help: bool = True, nargs: str | None = None) -> argparse.ArgumentParser:
    """What every competition takes; `nargs`: of the competition itself."""
    parser = Parser(description=__doc__, add_help=add_help)
    parser.add_argument("competition", nargs=nargs, help=", ".join(COMPETITIONS) + "; NAME --help shows its own flags")
    parser.add_argument("--source", type=Path, help="folder of the unzipped download (synth makes its own)")
    parser.add_argument("--out", type=Path, help="folder of the tables (default data/<competition>)")
    parser.add_argument("--check-audio", action="store_true",
                        help="decode every file: finds damaged ones, and duplicates by content_hash")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="an option of this competition, as its module says: --set level=fine")  # fmt: skip
    parser.add_argument("--resample", type=int, metavar="HZ", help="resample once, into <out>/resampled")
    parser.add_argument("--pack", type=float, metavar="SECONDS",
                        help="with --resample: so much of every clip in one 16-bit file, <out>/packed")  # fmt: skip
    parser.add_argument("--channels", choices=("mono", "stereo"),
                        help="with --resample: what the copies keep (default mono, the mean of all)")  # fmt: skip
    parser.add_argument("--voice", action="store_true", help="hear every recording for speech: voice.csv lists it")
    parser.add_argument(
        "--voice-model", metavar="ONNX", help="with --voice: another file of Silero's than the package's"
    )
    parser.add_argument(
        "--voice-threshold", type=float, metavar="P", help=f"with --voice: of speech (default {THRESHOLD})"
    )
    parser.add_argument("--seed", type=int, help="of what is generated (synth, mixtures)")
    parser.add_argument("--workers", type=int, default=8, help="most threads that read files (default 8)")
    parser.add_argument("--force", action="store_true", help="replace tables made from another source")
    return parser


def find_source(competition: Competition, options: argparse.Namespace, out: Path) -> Path:
    """The folder to read: --source, one to be made of it, or <out>/download where the competition makes its own."""
    if options.source:
        _check_folder(options.source, "--source")
        for flag in competition.remake.flags if competition.remake else ():
            if isinstance(folder := getattr(options, flag.key), Path):
                _check_folder(folder, flag.name)
        return out / competition.remake.folder if is_remade(competition, options) else options.source
    if not competition.embedded:
        raise ValueError(f"{options.competition} needs --source, the folder of the unzipped download")
    return out / "download"


def _check_folder(folder: Path, flag: str):
    if not folder.is_dir():
        raise ValueError(f"{flag} {folder} is not a folder")


def is_remade(competition: Competition, options: argparse.Namespace) -> bool:
    """Whether the command line asks for another download made out of the one given: by the first of its flags."""
    return competition.remake is not None and getattr(options, competition.remake.flags[0].key) is not None


def remake(how: Remake, options: argparse.Namespace, folder: Path):
    """Write the other download to `folder`."""
    values = {flag.key: getattr(options, flag.key) for flag in how.flags}
    said = ", ".join(f"{name} {value}" for name, value in values.items())
    print(f"making {folder} of {options.source}: {said} ...", flush=True)
    how.make(options.source, folder, seed=options.seed or 0, **values)


def prepare_options(competition: Competition, options: argparse.Namespace) -> dict:
    """What the command line gave that this competition's `prepare` takes; what nothing takes is an error."""
    known = [name for name in inspect.signature(competition.prepare).parameters if name not in ("source", "seed")]
    given = {}
    for text in options.set:
        key, _, value = text.partition("=")
        if key not in known:
            raise ValueError(f"{options.competition} has no option '{key}'{suggest(key, known)}")
        given[key] = parse_yaml(value, f"--set {key}: the value")
    given |= {flag.key: getattr(options, flag.key) for flag in competition.flags}
    return given | seed_option(competition, options)


def seed_option(competition: Competition, options: argparse.Namespace) -> dict:
    """--seed for `prepare`, where it generates something; elsewhere a --seed is an error."""
    takes_seed = "seed" in inspect.signature(competition.prepare).parameters
    if options.seed is None or (is_remade(competition, options) and not takes_seed):
        return {}
    if not takes_seed:
        raise ValueError(f"{options.competition} generates nothing: leave out --seed")
    return {"seed": options.seed}


def next_command(out: Path, competition: str, tables: Tables) -> str:
    """What a user does next: a config for recordings of their own, folds for a competition that has configs."""
    if competition in ("mine", *get_competition("mine").also):
        silent = annotated_clips(tables.clips, tables.events)
        several = any(
            len(names) > 1 or (quiet and not names)
            for names, quiet in zip(label_lists(tables.clips), silent, strict=True)
        )
        like = "sed/synth_cnn" if competition == "mine_events" or several else "tagging/esc10_cnn"
        if (e := tables.events) is not None and len(e) and (e.offset - e.onset).median() < SHORT_EVENTS:
            like = "sed/finch_vocal"
        name = plain_name(out)
        data = ("--data", out) if out != Path("data") / name else ()  # new.py looks there by itself
        return f"next: {command_line('new', name, *data, '--like', like)}"
    words = ("--clips", out / "clips.csv", "--out", Path("folds") / f"{out.resolve().name}.csv")
    return f"next: {command_line('make_folds', *words)}"


def with_checked_events(tables: Tables) -> tuple[Tables, list[str]]:
    """Tables with the training events that are possible, and what was dropped or cut; true events of a test stay."""
    notes, events, clips = [], tables.events, tables.clips
    if events is not None:
        events, notes = checked_events(events, clips, "the event table", tables.classes)
        clips, more = after_checks(clips, tables.events, events, annotated_clips(clips, tables.events))
        notes += more
    if tables.test_events is not None and tables.test_clips is not None:
        _, odd = checked_events(tables.test_events, tables.test_clips, "the test's event table", tables.classes)
        notes += [re.sub(" and (are left out|are cut there)", " (they stay: scores count them)", line) for line in odd]
    return dataclasses.replace(tables, clips=clips, events=events), notes


def voice_detector(options: argparse.Namespace) -> VoiceDetector | None:
    """What --voice hears speech with; None without."""
    if not options.voice:
        if options.voice_model or options.voice_threshold is not None:
            raise ValueError("--voice-model and --voice-threshold are of --voice: give it as well")
        return None
    if options.voice_threshold is not None and not 0 < options.voice_threshold < 1:
        raise ValueError(f"--voice-threshold is a probability between 0 and 1, got {options.voice_threshold}")
    return VoiceDetector(options.voice_model or VOICE_FILE)


def heard_for_voice(tables: Tables, source: Path, out: Path, detector: VoiceDetector, options) -> list[str]:
    """Write voice.csv of every recording that is there, of all tables; what to say of it."""
    threshold = THRESHOLD if options.voice_threshold is None else options.voice_threshold
    lost = set() if tables.unreadable is None else set(tables.unreadable.path)
    known = {name: clips for name in OF_RECORDINGS if (clips := getattr(tables, name)) is not None}
    every = pd.concat([clips[["clip_id", "path"]] for clips in known.values()]).drop_duplicates()
    every = every[is_there(every, source) & ~every.path.isin(lost)]
    found = hear_voice(every, source, out, detector, threshold=threshold, workers=options.workers)
    write_voice(out, found, tables.clips.clip_id, detector, threshold)
    lines = []
    for name, clips in known.items():
        first, *more = voice_summary(found, clips[clips.clip_id.isin(every.clip_id)])
        lines += [first if name == "clips" else f"{name}: {first}", *more]
    return lines


def copied_channels(options: argparse.Namespace) -> str:
    """Whether --resample makes mono or stereo copies; '' where it makes none."""
    return (options.channels or "mono") if options.resample else ""


def resampled(tables: Tables, source: Path, out: Path, options: argparse.Namespace) -> tuple[Tables, list[str]]:
    """Tables whose paths point (absolute) at copies of the readable files, in <out>/resampled or <out>/packed; and what
    of the events is lost with the ends of packed clips. Recordings that do not train are packed where they fit: a test
    is heard to its end."""
    from earshot.data.caches import waveform_cache
    from earshot.data.packed import longer_than, packed_clips, packed_events

    rate, workers = options.resample, options.workers
    n_channels = 2 if copied_channels(options) == "stereo" else 1

    def moved(name: str):
        clips = getattr(tables, name)
        if clips is None:
            return None
        there = is_there(clips, source)  # a hidden test's recordings are not, and nothing is wrong with them
        everything, clips = clips, clips[there]
        if not len(clips):
            return everything
        longer = longer_than(clips, options.pack) if options.pack and name != "clips" else np.zeros(1, bool)
        if longer.any():
            print(f"{longer.sum()} of {len(clips)} recordings of {name} are longer than {options.pack:g} s: they are "
                  "copied whole, not packed", flush=True)  # fmt: skip
        if options.pack and not longer.any():
            clips = packed_clips(
                out / "packed", clips, source, rate, options.pack, workers, say=print, n_channels=n_channels
            )
            clips = clips.assign(duration=clips.duration.clip(upper=options.pack))
        else:
            print(f"resampling {plural(len(clips), 'files')} to {rate} Hz into {out / 'resampled'} ...", flush=True)
            clips = waveform_cache(out / "resampled", clips, source, rate, workers, n_channels=n_channels)
        clips = clips.assign(sample_rate=clips.sample_rate.mask(clips.sample_rate.notna(), rate))
        return pd.concat([clips, everything[~there]]).loc[everything.index] if not there.all() else clips

    changed, notes = {name: moved(name) for name in OF_RECORDINGS}, []
    if options.pack and tables.events is not None:
        cut = longer_than(tables.clips, options.pack) & annotated_clips(tables.clips, tables.events)
        found = packed_events(tables.events, changed["clips"], cut, tables.classes)
        changed["events"], changed["clips"], notes = found
    return dataclasses.replace(tables, **changed), notes


def list_odd_files(source: Path, out: Path):
    """Count, and list in odd_files.csv, the files that are not as they say: cut, of a wrong header, over full scale."""
    odd = {path: texts for path, texts in audio.odd_files().items() if Path(path).is_relative_to(source)}
    target = out / "odd_files.csv"
    if not odd:
        target.unlink(missing_ok=True)
        return
    rows = [(printable(path), text) for path, texts in odd.items() for text in texts]
    write_csv(pd.DataFrame(rows, columns=["path", "note"]), target)
    print(f"  not as they say (odd_files.csv): {plural(len(odd), 'files')}: {few(Path(path).name for path in odd)}")


def summary(tables: Tables, competition: str) -> str:
    """What was found, as lines for people; classes are counted in clips that can be read."""
    lost = set() if tables.unreadable is None else set(tables.unreadable.clip_id)
    readable = tables.clips[~tables.clips.clip_id.isin(lost)]
    classes = f"{len(tables.classes)} class{'es' * (len(tables.classes) > 1)}"
    lines = [f"{competition}: {_clips_line(tables.clips, lost)}, {classes}"]
    counts = pd.Series([n for names in label_lists(readable) for n in names], dtype=str).value_counts()
    counts = counts.reindex(list(tables.classes), fill_value=0)
    spread = f"{counts.min()} ({counts.idxmin()}) to {counts.max()} ({counts.idxmax()})"
    lines.append(f"  clips a class: {counts.min() if counts.min() == counts.max() else spread}")
    if 1 < len(counts) <= LISTED_CLASSES:
        lines.append("  classes: " + ", ".join(f"{name} ({n})" for name, n in counts.items()))
    known = annotated_clips(tables.clips, tables.events)
    if (without := np.array([not names for names in label_lists(tables.clips)])).any():
        told = tables.clips.get("unknown_labels", pd.Series("", tables.clips.index)).fillna("") == ""
        silence = int((without & known & told).sum())
        lines.append(
            f"  without a label: {plural(without.sum(), 'clips')}" + f", {silence} of them silence" * bool(silence)
        )
    if tables.events is not None:
        negative = int((tables.events.get("is_negative", pd.Series(dtype=float)).fillna(0).astype(float) > 0).sum())
        what = "of a share below a half" if "share" in tables.events else "false positives"
        lines.append(f"  events: {len(tables.events)}" + (f", {negative} of them {what}" if negative else ""))
        if not known.all():
            lines[-1] += f"; {known.sum()} of {len(known)} clips are annotated, of the others nobody said when"
    if tables.test_clips is not None:
        known = "" if tables.test_events is None else f", {len(tables.test_events)} true events"
        lines.append(f"  test: {_clips_line(tables.test_clips, lost)}{known}")
    for name in ("unlabelled", "validation"):
        if (some := getattr(tables, name)) is not None:
            lines.append(f"  {name} ({name}.csv): {_clips_line(some, lost)}")
    if len(tables.missing):
        lines.append(
            f"  missing (missing.csv): {plural(len(tables.missing), 'files')}: {few(p for _, p in tables.missing)}"
        )
    if tables.unreadable is not None:
        names = few(tables.unreadable.path)
        lines.append(
            f"  unreadable (unreadable.csv; never trained on): {plural(len(tables.unreadable), 'files')}: {names}"
        )
    return "\n".join(lines)


def _clips_line(clips: pd.DataFrame, lost: set[str]) -> str:
    """Clips, those of them that cannot be read, hours, lengths and rates of one table."""
    n_lost = int(clips.clip_id.isin(lost).sum())
    unreadable = f", {n_lost} of them unreadable" * (n_lost > 0)
    seconds = clips.duration.dropna()
    rates = clips.sample_rate.dropna().value_counts()
    rate = " + ".join(f"{r} Hz" if len(rates) == 1 else f"{r} Hz ({n})" for r, n in rates.items())
    spread = f" of {_span(seconds)} s" if len(seconds) else ""
    return (
        f"{plural(len(clips), 'clips')}{spread}{unreadable}, {seconds.sum() / 3600:.2f} h, {rate or 'no readable file'}"
    )


def _span(values: pd.Series) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    run_script(main)
