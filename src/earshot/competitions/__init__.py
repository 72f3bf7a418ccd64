"""The competitions: one file a family, in it a table of editions (EDITIONS), each a `Competition` (competition.py).

To add an edition of a family that is there (a new year, another list of clips): one row of the family's EDITIONS, and
its name in COMPETITIONS below. To add a competition of a new kind: a file `competitions/<family>.py` of plain functions
(pandas and NumPy, no torch: kernels import it)

    prepare(source: Path, **options) -> Tables       the download's layout -> clip, class, event and test tables
    rows(predictions, test, post) -> DataFrame       Predictions of the test clips, the competition's test table and
                                                     post-processing options (dict or None) -> the submission
    validate(submission, test, classes)              ValueError that names what would make the submission fail
    score(submission, truth) -> {name: value}        the official score; the first name is the one on the leaderboard

that ends with a table of editions. The record says the rest where there is any: limits of the rules, the hidden test
that a kernel finds, files in place of one CSV, fold methods and flags of prepare.py that no other family takes. Options
of `prepare` are given by `prepare.py --set key=value`. What families share is in tables (of a data set), checks (of a
submission) and clip_rows (one row a clip).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

from earshot.competitions.competition import Competition
from earshot.messages import command_line, suggest

COMPETITIONS = {  # name -> the family's module, whose EDITIONS has it; imported only when it is asked for
    **dict.fromkeys(("synth", "synth_scenes", "synth_ust", "synth_asd", "synth_sonyc"), "synth"),
    "synth_shift": "synth_shift",
    "birdcall": "birdcall",
    "rfcx": "rfcx",
    **{f"birdclef{year}": "birdclef" for year in range(2021, 2027)},
    "freesound2019": "freesound2019",
    **dict.fromkeys(("dcase2017_task1", "tut2017"), "dcase2017_task1"),
    **{f"dcase{year}_task1": "dcase_task1" for year in range(2019, 2026)},
    **{f"dcase{year}_task2": "dcase_task2" for year in range(2020, 2026)},
    "dcase_task4": "dcase_task4",
    **{f"tau{year}": "dcase_task1" for year in (2019, 2020, 2022)},  # data sets of task 1 by their own names
    **dict.fromkeys(("sonyc_ust", "sonyc_ust_fine", "sonyc_ust_joint"), "sonyc_ust"),
    **dict.fromkeys(("audioset", "audioset_balanced"), "audioset"),
    **dict.fromkeys(("esc50", "esc10"), "esc50"),
    "dcase2018_task2": "dcase2018_task2",
    "msos": "msos",
    "gtzan": "gtzan",
    "ravdess": "ravdess",
    "heart_asd": "heart_asd",
    **dict.fromkeys(("finch_vocal", "finch_syllables", "finch_songs"), "finch"),
    **dict.fromkeys(("mine", "mine_events"), "mine"),  # recordings of one's own
}


def get_competition(name: str) -> Competition:
    """The record of a competition, its family imported now; an unknown name is an error with a suggestion."""
    module = family_module(name)
    try:
        editions = getattr(importlib.import_module(module), "EDITIONS", {})
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ValueError(f"COMPETITIONS says that '{name}' is in {module}, which is no file") from error
    if name not in editions:
        raise ValueError(f"COMPETITIONS says that '{name}' is in {module}, whose EDITIONS has no such name"
                         f"{suggest(name, editions)}")  # fmt: skip
    return editions[name]


def is_test_hidden(name: str, recordings: Iterable[str | Path]) -> bool:
    """Whether a kernel answers the competition's test, and none of these recordings of the test is here."""
    return get_competition(name).hidden is not None and not any(Path(path).is_file() for path in recordings)


def family_module(name: str) -> str:
    """The dotted name of the module that holds a competition; an unknown name is an error with a suggestion."""
    if name not in COMPETITIONS:
        raise ValueError(
            f"unknown competition '{name}'{suggest(name, COMPETITIONS)} (a new edition is one row: "
            "docs/competitions.md#adding-one; your own recordings: "
            f"{command_line('prepare', 'mine', '--source', 'FOLDER', '--out', 'data/NAME')})"
        )
    return f"{__name__}.{COMPETITIONS[name]}"
