"""The hard embedded competition: made by `earshot.synth.shift` where it is missing, then read as BirdCLEF is.

clips.csv holds the focal recordings, grouped by recordist. The labelled soundscapes train nothing: they are the honest
split, validation.csv with its events, rows and truth. With --set soundscapes=train they are in clips.csv too, each with
its site as group, so that folds hold out sites. unlabelled.csv lists the other soundscapes; two of their sites are
sites of labelled ones. The test's sites are nowhere else. Rows, checks and score are those of BirdCLEF 2024 to 2026.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from earshot.competitions import birdclef, birdclef_recordings, birdclef_rows
from earshot.competitions.competition import Competition, Rules, by_name
from earshot.competitions.oof_scores import SCORE_ROWS
from earshot.competitions.tables import Tables, class_name
from earshot.messages import check_choice
from earshot.synth import birds, shift
from earshot.tables import read_table


def prepare(source: Path, seed: int | None = None, soundscapes: str = "validation") -> Tables:
    """Tables of the generated competition in `source`, made first where the folder is missing or empty.

    seed: of what is generated (default 0); an existing folder of another seed or generator version is an error.
    soundscapes: what the labelled ones are for: validation alone, or train (then they are in both tables).
    """
    check_choice("soundscapes", soundscapes, ("validation", "train"))
    source = Path(source)
    if not source.is_dir() or not any(source.iterdir()):
        shift.make_shift(source, seed or 0)
    birds.check_made(source, seed, version=shift.VERSION, kind="shift")
    base = birdclef.prepare(source, seconds=shift.SOUNDSCAPE_SECONDS)
    focal = base.clips.kind == "focal"
    test, truth = birdclef_recordings.soundscape_truth(source, base.classes)
    clips = base.clips if soundscapes == "train" else base.clips[focal].drop(columns="site", errors="ignore")
    grouped = clips.author.map(class_name).where(clips.kind == "focal", clips.group)
    taxonomy = read_table(source / "taxonomy.csv", ("primary_label", "scientific_name", "common_name", "class_name"))
    names = taxonomy.set_index("primary_label").loc[list(base.classes)].reset_index(drop=True)
    return dataclasses.replace(
        base,
        clips=clips.assign(group=grouped).reset_index(drop=True),
        events=base.events if soundscapes == "train" else None,
        validation=base.clips.loc[~focal, ["clip_id", "path", "labels", "group", "site", "kind", "annotated"]],
        validation_events=base.events,
        validation_rows=test,
        validation_truth=truth,
        class_columns=names,
        test_events=read_table(source / "test_events.csv", ("filename", "onset", "offset", "event_label")),
        truth=read_table(source / "truth.csv", ("row_id", *base.classes)),
    )


def _hidden(rules: Rules) -> Rules:
    return dataclasses.replace(rules, slug="synth-shift", seconds=shift.SOUNDSCAPE_SECONDS)


_LATEST = birdclef.EDITIONS["birdclef2026"]
EDITIONS = by_name(
    Competition(
        name="synth_shift", prepare=prepare, rows=birdclef_rows.rows, validate=birdclef_rows.validate,
        score=birdclef_rows.score_roc_auc, limits=_LATEST.limits, hidden=_hidden(_LATEST.hidden), embedded=True,
        oof_score=birdclef_rows.MACRO_ROC_AUC, post=SCORE_ROWS,
    ),
)  # fmt: skip
