"""One file a competition. To add one: write `competitions/<name>.py` and one line of COMPETITIONS.

A competition module offers plain functions (pandas and NumPy, no torch: kernels import it):

    prepare(source: Path, **options) -> Tables       the download's layout -> clip, class, event and test tables
    rows(predictions, test, post) -> DataFrame       Predictions of the test clips, the competition's test table and
                                                     post-processing options (dict or None) -> the submission
    validate(submission, test, classes)              ValueError that names what would make the submission fail
    score(submission, truth) -> {name: value}        the official score; the first name is the one on the leaderboard
    LIMITS                                           {"hours": {"cpu": ..., "gpu": ...}, "internet": bool, ...} of the
                                                     rules; an entry left out is unknown or unlimited
    EMBEDDED                                         True where `prepare` makes the download itself

and, where a challenge wants other files than one CSV, `files(submission) -> {file name: text}` and its inverse
`read_files(folder) -> submission`; submit.py writes them beside the submission. `validate` names every problem at once.
A variant (ESC-10 of ESC-50) is a module of a few lines that binds an option of `prepare`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from earshot.messages import suggest

COMPETITIONS = {
    "synth": "earshot.competitions.synth",
    "synth_scenes": "earshot.competitions.synth_scenes",
    "synth_ust": "earshot.competitions.synth_ust",
    "synth_asd": "earshot.competitions.synth_asd",
    "birdcall": "earshot.competitions.birdcall",
    "rfcx": "earshot.competitions.rfcx",
    **{f"birdclef{year}": f"earshot.competitions.birdclef{year}" for year in range(2021, 2027)},
    "freesound2019": "earshot.competitions.freesound2019",
    **{f"dcase{year}_task1": f"earshot.competitions.dcase{year}_task1" for year in range(2019, 2025)},
    **{f"dcase{year}_task2": f"earshot.competitions.dcase{year}_task2" for year in range(2020, 2025)},
    "dcase_task4": "earshot.competitions.dcase_task4",
    "tau2019": "earshot.competitions.dcase2019_task1",  # the data sets by their own names
    "tau2020": "earshot.competitions.dcase2020_task1",
    "tau2022": "earshot.competitions.dcase2022_task1",
    "sonyc_ust": "earshot.competitions.sonyc_ust",
    "sonyc_ust_fine": "earshot.competitions.sonyc_ust_fine",
    "audioset": "earshot.competitions.audioset",
    "audioset_balanced": "earshot.competitions.audioset_balanced",
    "esc50": "earshot.competitions.esc50",
    "esc10": "earshot.competitions.esc10",
    "dcase2018_task2": "earshot.competitions.dcase2018_task2",
    "msos": "earshot.competitions.msos",
    "gtzan": "earshot.competitions.gtzan",
    "ravdess": "earshot.competitions.ravdess",
    "heart_asd": "earshot.competitions.heart_asd",
    "finch_vocal": "earshot.competitions.finch_vocal",
    "finch_syllables": "earshot.competitions.finch_syllables",
}


def get_competition(name: str) -> ModuleType:
    """Name -> its module, imported now; an unknown name is an error with a suggestion."""
    if name not in COMPETITIONS:
        raise ValueError(f"unknown competition '{name}'{suggest(name, COMPETITIONS)}")
    return importlib.import_module(COMPETITIONS[name])
