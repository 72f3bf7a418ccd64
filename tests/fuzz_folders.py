"""Test folders as no organiser would make them, one a seed: odd names, lengths, rates, files and tables."""

import os
from pathlib import Path

import numpy as np
import soundfile

import tiny_graphs
from earshot.competitions import rfcx
from earshot.competitions.competition import Competition
from earshot.kernel.hidden_test import all_rules
from earshot.tables import read_table

RULES = all_rules()  # of the competitions that kernels answer
NAMES = (
    *("soundscape_7", "a", "0001", "7", "nan", "NA", "None", "True", "1e5", "a_5", "a_5_10", "1_COL_20200101", "2_SNE"),
    *("x y", " padded ", "tab\there", "new\nline", "comma,name", 'quo"te', "single'", "semi;colon", "-dash", "a%b"),
    *("back\\slash", "dots.in.name", "..x", "rec_", "_", "__", "a" * 120, "n" * 240),
    *("日本語", "ünïcödé", "e\u0301", "🐦", "\u202eright", "line\u2028sep"),
)  # fmt: skip
RATES = (1000, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
SECONDS = (0.0, 0.00005, 0.01, 0.3, 1.0, 2.5, 4.999, 5.0, 5.02, 7.3, 12.0)
LONG_SECONDS = (600.0, 1800.0)  # of a recording far longer than the others
LIES = ("gigahertz", "one sample", "claims days")
ENDINGS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".WAV": ("WAV", "FLOAT")}


def make(folder: Path, competition: str, classes, seed: int, healthy: set[Path] | None = None) -> Path:
    """A download's folder with, at times, a test folder and a table; returns the test folder.

    `healthy` gets the files that nothing is wrong with and that sound for 0.3 s or longer.
    """
    healthy = set() if healthy is None else healthy
    rng = np.random.default_rng([seed, 5])
    rules = RULES[competition]
    test = folder / rules.folder
    if rng.random() < 0.05:
        folder.mkdir(parents=True)
        return test
    test.mkdir(parents=True)
    for _ in range(int(rng.choice([0, 1, 1, 2, 3, 5]))):
        _entry(test, rng, healthy)
    if rng.random() < 0.5:
        _table(folder / rules.table, test, competition, classes, rng)
    return test


def _entry(test: Path, rng, healthy: set[Path]):
    name = str(rng.choice(NAMES))
    ending = str(rng.choice([*ENDINGS, *ENDINGS, ".mp3", ".txt", "", ".ogg"]))
    path = test / f"{name}{ending}"
    if path.exists() or path.is_symlink():
        return
    kinds = ["noise", "cut", "flipped", "empty", "text", "other", "strange", "lie"]
    kind = str(rng.choice(["good"] * 5 + kinds))
    if kind in ("good", "cut", "flipped", "other"):
        if _sound(path, rng, kind):
            healthy.add(path)
    elif kind == "lie":
        lie(path, rng)
    elif kind == "noise":
        path.write_bytes(rng.bytes(int(rng.integers(1, 3000))))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>429 Too Many Requests</html>")
    else:
        _strange(path, rng)


def _sound(path: Path, rng, kind: str) -> bool:
    """A recording, and whether it is healthy; cut: the end of its file is missing; flipped: some bytes; other: its
    ending tells another format. Some last far longer than the others."""
    rate, seconds = int(rng.choice(RATES)), float(rng.choice(SECONDS))
    if rng.random() < 0.02:
        seconds = 70.0
    elif kind == "good" and rng.random() < 0.02:
        rate, seconds = 1000, float(rng.choice(LONG_SECONDS))
    channels = int(rng.choice([1, 1, 1, 2, 3]))
    sound = 0.3 * rng.standard_normal((round(rate * seconds), channels)) * rng.choice([0, 1e-4, 1, 10])
    form, subtype = ENDINGS.get(path.suffix, ("WAV", "FLOAT"))
    if kind == "other":
        form, subtype = ENDINGS[str(rng.choice(list(ENDINGS)))]
    spiked = subtype == "FLOAT" and len(sound) > 0 and rng.random() < 0.3
    if spiked:
        sound[rng.integers(len(sound))] = rng.choice([np.nan, np.inf, 1e30])
    with open(path, "wb") as file, soundfile.SoundFile(file, "w", rate, channels, subtype, format=form) as out:
        for begin in range(0, len(sound), 4096):  # libsndfile crashes on long single writes of Vorbis
            out.write(sound[begin : begin + 4096].astype(np.float32))
    if kind == "cut":
        data = path.read_bytes()
        path.write_bytes(data[: int(rng.integers(0, len(data) + 1))])
    elif kind == "flipped" and path.stat().st_size:
        data = bytearray(path.read_bytes())
        for place in rng.integers(0, len(data), 20):
            data[place] = int(rng.integers(256))
        path.write_bytes(data)
    return kind == "good" and seconds >= 0.3 and path.suffix in ENDINGS and not spiked


def lie(path: Path, rng):
    """A header that nobody should believe: a rate of 1 GHz, one sample at 384 kHz, a FLAC that promises 2**35."""
    kind = str(rng.choice(LIES))
    sound = (0.1 * rng.standard_normal(20000)).astype(np.float32)
    if kind == "claims days":
        claim_samples(path, sound, 2**35)
    elif kind == "one sample":
        with open(path, "wb") as file:
            soundfile.write(file, sound[:1], 384000, "PCM_16", format="WAV")
    else:
        with open(path, "wb") as file:
            soundfile.write(file, sound, 32000, "PCM_16", format="WAV")
        data = bytearray(path.read_bytes())
        data[24:28] = (10**9).to_bytes(4, "little")
        path.write_bytes(data)


def claim_samples(path: Path, sound: np.ndarray, claimed: int, rate: int = 32000):
    """FLAC of `sound` whose header says that it holds `claimed` samples (36 bits, from the middle of byte 21 on)."""
    with open(path, "wb") as file:
        soundfile.write(file, sound, rate, "PCM_16", format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] = (data[21] & 0xF0) | (claimed >> 32)
    data[22:26] = (claimed & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)


def _strange(path: Path, rng):
    """What is no file: folders, links to nowhere or in circles, pipes; names that are no text; hidden files."""
    kind = rng.choice(["folder", "full folder", "broken", "circle", "pipe", "bytes", "hidden"])
    if kind == "folder":
        path.mkdir()
    elif kind == "full folder":
        path.mkdir()
        (path / "inside.ogg").write_bytes(b"OggS")
    elif kind == "broken":
        path.symlink_to("nowhere.ogg")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "bytes":
        Path(os.fsdecode(os.fsencode(path.parent) + b"/\xff\xfe" + os.fsencode(path.suffix))).write_bytes(b"RIFF")
    else:
        path.with_name("._" + path.name).write_bytes(b"\x00")


def _table(path: Path, test: Path, competition: str, classes, rng):
    """A table: that of the recordings, one that also names missing ones, one that is damaged."""
    kind = rng.choice(
        ["right", "right", "missing", "fewer", "twice", "shuffled", "gap", "bytes", "columns", "header", "nothing"]
    )
    if kind == "bytes":
        path.write_bytes(rng.bytes(200))
    elif kind == "nothing":
        path.write_text("")
    elif kind == "columns":
        path.write_text("alpha,beta\n1,2\n")
    else:
        names = sorted({p.stem for p in test.iterdir() if p.suffix == ".ogg" and "\n" not in p.name and p.is_file()})
        names = [os.fsencode(RULES[competition].clip_id(n)).decode("utf-8", "replace") for n in names]
        if kind == "missing":
            names += ["gone_1"]
        elif kind == "fewer":
            names = names[1:]
        elif kind == "header":
            names = []
        pairs = [(n, 10.0) for n in dict.fromkeys(names)]
        table = RULES[competition].make(pairs, classes, path.parent)
        if kind == "twice":
            table = table.iloc[[*range(len(table)), *range(min(1, len(table)))]]
        elif kind == "shuffled":
            table = table.sample(frac=1, random_state=0)
        elif kind == "gap":
            table = table.iloc[1:]
        table.to_csv(path, index=False)


def classes_of(competition: str) -> tuple[str, ...]:
    """Classes of a tiny bundle: the competition's own where its rows have fixed columns."""
    return rfcx.CLASSES if competition == "rfcx" else tiny_graphs.CLASSES


def check(competition: Competition, test, classes, out: Path):
    """Raise unless `out` is what the competition takes for this test."""
    table = read_table(out)
    if test.empty:
        assert not len(table), f"{len(table)} rows for an empty test"
        assert len(table.columns) > 1
    else:
        competition.validate(table, test.table, list(classes))
