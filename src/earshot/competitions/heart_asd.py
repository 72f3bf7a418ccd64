"""Heart sounds, normal and anomalous, of four source databases, in the manner of DCASE task 2: anomaly scores.

Source: a folder with meta.csv (filename, label, domain, split, record, ...) and the recordings below it. `split` train
holds normal clips alone and always trains (fold -1); test is fold 0, so that the OOF answers it. A class is a domain
(heart_a, ...): a model learns to tell domains apart, and a clip is compared with what is normal in its own one.

Every domain is scored by itself: recording devices and shares of anomalies differ so much between them that one AUC
over all is won by recognising the device. Domain c has 7 normal clips, 3 of them in the test: it is listed and left out
of the leading mean. Patients are not known, so one may be in both splits. Content ends at 1 kHz (fmax: 1000).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.competition import Competition, OofScore, by_name
from earshot.competitions.downloads import found_below, located
from earshot.competitions.synth import machine_rows as rows
from earshot.competitions.synth import validate_machines
from earshot.competitions.tables import Tables, absent, present, require_columns
from earshot.messages import few, plural
from earshot.metrics import anomalies as anomaly_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth, anomaly_scores_of
from earshot.tables import read_table

COLUMNS = ("filename", "label", "domain", "split", "record")
FEW_NORMALS = ("c",)  # domains left out of the leading mean
MACHINE = "heart"


@found_below("meta.csv")
def prepare(source: Path) -> Tables:
    """Folder -> clips with machine, section (= domain), domain, is_anomaly, group (= record), official_fold."""
    source = Path(source)
    meta = read_table(source / "meta.csv", COLUMNS)
    for column, known in (("label", anomaly_metrics.CONDITIONS), ("split", ("train", "test"))):
        odd = meta[~meta[column].isin(known)]
        if len(odd):
            raise ValueError(
                f"{source / 'meta.csv'}: {column} is {' or '.join(known)}, got {few(odd[column].unique())}"
            )
    unsaid = meta[meta.domain.fillna("").astype(str).str.strip() == ""]
    if len(unsaid):
        raise ValueError(
            f"{source / 'meta.csv'}: {plural(len(unsaid), 'clips have')} no domain: {few(unsaid.filename)}"
        )
    trains = meta.split == "train"
    wrong = meta.filename[trains & (meta.label == "anomaly")]
    if len(wrong):
        raise ValueError(f"{len(wrong)} training clips are anomalous, only normal ones may train: {few(wrong)}")
    unseen = sorted(set(meta.domain[~trains]) - set(meta.domain[trains]))
    if unseen:
        raise ValueError(f"no clip of domain {', '.join(unseen)} is in the split train: nothing to compare it with")
    clips = pd.DataFrame({
        "clip_id": [Path(f).stem for f in meta.filename],
        "path": meta.filename,
        "labels": MACHINE + "_" + meta.domain,
        "machine": MACHINE,
        "section": meta.domain,
        "domain": meta.domain,
        "is_anomaly": (meta.label == "anomaly").astype(int),
        "group": meta.record,
        "official_fold": np.where(trains, -1, 0),
    })  # fmt: skip
    clips = located(clips, source)
    missing, clips = absent(clips, source), present(clips, source, "the meta table")
    test = clips[clips.official_fold == 0].reset_index(drop=True)
    truth = test[["clip_id", "machine", "section", "domain", "is_anomaly"]]
    classes = sorted(set(clips.labels))
    return Tables(
        clips=clips, classes=classes, test=test[["clip_id", "labels"]], truth=truth, missing=missing, task="asd"
    )


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """`auc`: mean of the domains with enough normal clips (without c); `pauc`, then both of each domain."""
    require_columns(truth, ("clip_id", "domain"), "the truth")
    clips = truth.set_index("clip_id").loc[submission.clip_id].reset_index()
    return means(anomaly_metrics.auc_table(submission.score.to_numpy(), clips))


def means(table: pd.DataFrame) -> dict[str, float]:
    """What `auc_table` gave -> `auc` and `pauc` over all domains but FEW_NORMALS, then auc_<d> and pauc_<d>."""
    led = table[~table.domain.isin(FEW_NORMALS)]
    result = {name: float(led[name].mean()) for name in ("auc", "pauc")}
    for row in table.itertuples():
        result |= {f"auc_{row.domain}": float(row.auc), f"pauc_{row.domain}": float(row.pauc)}
    return result


def domain_values(found: Predictions, truth: Truth, post=None) -> dict[str, float]:
    """As `score`, of an OOF; what its clips do not define is left out."""
    values = means(anomaly_metrics.auc_table(anomaly_scores_of(found, truth), truth.clips))
    return {name: value for name, value in values.items() if np.isfinite(value)}


EDITIONS = by_name(
    Competition(
        name="heart_asd", task="asd", prepare=prepare, rows=rows, validate=validate_machines, score=score,
        oof_score=OofScore("auc", domain_values),
    )
)  # fmt: skip
