"""What the columns of annotation tables are called in many programs, and their names without units and signs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

UNITS = {"ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
NO_TIME = ("sample", "frame", "samples", "frames")
ELAN_FORMATS = re.compile(r" - (hh:mm:ss\.ms|ss\.msec)$", re.I)  # behind its columns' names: both are read
# What columns are called, in lower case without units and signs, the surest name first.
ONSETS = ("onset", "begin_time", "start_time", "starttime", "start", "begin", "start_seconds", "tmin", "xmin",
          "t_start", "start_timestamp", "onset_time", "window_start", "event_start", "beginn", "anfang",
          "startzeit", "von", "debut", "temps_debut", "inicio", "x1", "start_datetime", "begin_datetime",
          "start_date_time", "begin_date_time", "utc")  # fmt: skip
OFFSETS = ("offset", "end_time", "endtime", "stop_time", "end", "stop", "stop_seconds", "end_seconds", "tmax", "xmax",
           "t_end", "stop_timestamp", "end_timestamp", "offset_time", "window_end", "event_end", "ende",
           "endzeit", "bis", "fin", "temps_fin", "fim", "x2", "end_datetime", "stop_datetime", "end_date_time",
           "stop_date_time")  # fmt: skip
DURATIONS = ("duration", "event_duration", "length", "dur", "dauer", "duree", "duracion", "duracao")
CORNERS = ("x1", "x2", "y1", "y2")  # of boxes, of Arbimon in seconds and Hz
# times beside others alone: fin may be a whale, and x1 anything
TIMES_BESIDE = {"von": [{"bis"}], "bis": [{"von"}], "fin": [{"debut"}, {"inicio"}], "x1": [{*CORNERS}],
                "x2": [{*CORNERS}]}  # fmt: skip
NO_UNITS = ("hz", "khz", "px", "pixel", "pixels")  # in brackets: of columns that are no times
LABELS = ("event_label", "label", "labels", "annotation", "species", "common_name", "scientific_name", "com_name",
          "sci_name", "species_code", "primary_label", "ebird_code", "species_ebird_code", "sp", "specific_epithet",
          "class", "category", "call_type", "manual_id", "top1match", "auto_id", "tag", "tags", "class_name",
          "class_label", "event_class", "sound_event", "sound_event_recording", "event", "scene_label",
          "validateur_taxon", "observateur_taxon", "tadarida_taxon", "taxon", "vogelart", "spezies", "art", "klasse",
          "espece", "especie", "etiquette", "emotion", "instrument", "diagnosis", "scene",
          "classification", "name", "code", "id")  # fmt: skip
FILES = ("filename", "begin_path", "begin_file", "file", "path", "filepath", "file_name", "file_path", "source_file",
         "audio_file", "audio_filename", "sound_file", "in_file", "recording", "recording_id", "notated_path",
         "wav", "audio", "clip_id", "clip", "fname", "audiofilename", "audio_path", "wav_path", "wav_file",
         "input_file", "slice_file_name", "segment_id", "sound_files", "datei", "dateiname", "fichier",
         "nom_du_fichier", "archivo", "arquivo")  # fmt: skip
IN_FILE = ("file_offset",)  # Raven: seconds from the start of the file, where several are opened as one
KALEIDOSCOPE = {"in_file", "offset", "duration"}  # its offset is where the event begins
# labels of events where no other column is
LAST_LABELS = ("type", "event_type", "sound_type", "prediction", "signal", "typ", "tipo")
NUMBERS_OF_ROWS = ("id", "name", "code", "tag")  # a row's own where its classes are columns of 0 and 1
CODES = ("sp", "art")  # names that may be a class's too: SP is a sperm whale


def plain_name(name: str) -> str:
    """A column's name without its unit: 'Begin Time (s)' -> begin_time, 'onset_s' -> onset."""
    name = unaccented(ELAN_FORMATS.sub("", name.strip().strip("\ufeff\"'")))
    name = re.sub(r"[(\[](.*?)[)\]]", lambda inside: f" {inside[1] if inside[1].strip() in NO_UNITS else ''} ", name)
    name = "_".join(re.findall(r"[a-z0-9]+", name))
    return re.sub(rf"_(s|sec|secs|seconds|({'|'.join(UNITS)})s?|{'|'.join(NO_TIME)})$", "", name)


def plain_names(columns: Sequence[str]) -> list[str]:
    """The plain names of a table's columns; a word that means a time beside others alone is none without them."""
    names = [plain_name(c) for c in columns]
    alone = {n for n in names if n in TIMES_BESIDE and not any(others <= {*names} for others in TIMES_BESIDE[n])}
    return [f"{n}_alone" if n in alone else n for n in names]


def unaccented(name: str) -> str:
    """A column's name without case and accents: Espèce -> espece."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))


def unit_of(name: str, path: Path) -> float:
    """Seconds that a column's unit has by its name: 'Begin Time (s)' 1, 'start_ms' 0.001; samples are an error."""
    last = last_word(name)
    if last in NO_TIME:
        raise ValueError(f"{path}: column '{name}' counts {last.rstrip('s')}s; divide by their rate: times are seconds")
    return UNITS.get(last, UNITS.get(last.rstrip("s"), 1.0))


def last_word(name: str) -> str:
    """What may be a column's unit: 'samples' of start_samples, 's' of Begin Time (s); '' of a name of one word."""
    words = re.findall(r"[a-z]+", ELAN_FORMATS.sub("", name.strip()).casefold())
    return words[-1] if len(words) > 1 else ""


def columns_called(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The plain names among `columns` that are some of `names`, in the order of those."""
    return [name for name in (re.sub("_seconds$", "", n) for n in names) if name in columns]


def column_called(columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next(iter(columns_called(columns, names)), None)
