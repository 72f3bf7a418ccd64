"""What teachers say of every training crop: rows of a frozen network, or an ensemble's answers; and unlabelled sound.

Unlabelled recordings stand behind the labelled clips of a fold, their labels unknown (mask 0): only teachers speak of
them. An epoch hears every labelled clip and `draws` crops of unlabelled recordings, each as often as it is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from earshot.config import Config
from earshot.data.embeddings import EmbeddingCache
from earshot.data.inside import digest_inside
from earshot.data.prepared import PreparedData
from earshot.data.pseudo import ISOLATED
from earshot.data.vocabulary import match, of_columns, of_names, read_vocabulary
from earshot.ensemble.lineage import HEARD
from earshot.files import file_digest
from earshot.inputs.extractor import BATCH
from earshot.inputs.teacher import LEFT_OUT, Distill, Teacher
from earshot.inputs.waveforms import as_heard
from earshot.messages import few, plural
from earshot.prediction import predictions
from earshot.prediction.origin import Origin, tables_differ
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.tables import read_table
from earshot.training.extractors import own_rate
from earshot.training.origins import check_extractor
from earshot.training.unlabelled import read_labelled, read_unlabelled, with_left_out, with_unlabelled
from earshot.training.whitening import Whitening

FEW = 200  # clips whose answers are looked at before training


@dataclass(kw_only=True)
class Lessons:
    """What is said of each crop of a fold's clips, of which the first `n_labelled` have labels."""

    how: Distill
    n_labelled: int
    epochs: int  # of the run
    n_classes: int
    chance: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (M,) of each unlabelled recording to be drawn
    teacher: Teacher | None = None
    rows: EmbeddingCache | None = None
    whitening: Whitening | None = None  # of the teacher's embedding; None: it is followed as it is
    place: np.ndarray | None = None  # (K,) each class's place in the answers, -1 where nobody answers
    answers: Predictions | None = None
    about: dict = field(default_factory=dict)  # for run.json
    inherited: list = field(default_factory=list)  # what the run that teaches learned from besides labels

    def __post_init__(self):
        self._at = {} if self.answers is None else {str(c): i for i, c in enumerate(self.answers.clip_ids)}

    @property
    def draws(self) -> int:
        """Crops of unlabelled recordings an epoch."""
        return round(self.how.unlabelled_share * self.n_labelled) if len(self.chance) else 0

    @property
    def embedding_width(self) -> int:
        if not self.teacher or not self.how.embedding_weight:
            return 0
        return self.teacher.embedding_width and (self.how.embedding_components or self.teacher.embedding_width)

    def order(self, labelled: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The labelled clips (N,) in their order and the epoch's draws of unlabelled ones, mixed.

        Once nobody teaches any more, labelled clips take the places of the draws.
        """
        if not self.draws:
            return labelled
        if not self.how.strength(epoch, self.epochs):
            return np.resize(labelled, len(labelled) + self.draws)
        rng = np.random.default_rng([seed, epoch, 0xD1])
        drawn = self.n_labelled + rng.choice(len(self.chance), self.draws, p=self.chance)
        return rng.permutation(np.concatenate([labelled, drawn]))

    def of_crop(self, clip_id: str, start: float, seconds: float) -> dict[str, np.ndarray]:
        """What is said of `seconds` of a clip from second `start` on: arrays of a training example."""
        if self.answers is not None:
            return self._answered(clip_id, start, seconds)
        rows = self.rows[clip_id]
        if not len(rows):
            raise audio.UnreadableAudio(f"{clip_id} could not be read by the teacher")
        t = self.teacher
        found = t.taken(rows, t.row_of(round(start * t.sample_rate)), round(seconds * t.sample_rate))
        example, width = {}, t.embedding_width
        if self.embedding_width:
            embedding = self.whitening(found[:width]) if self.whitening else found[:width]
            example["teacher_embedding"] = embedding / max(float(np.linalg.norm(embedding)), 1e-12)
        if self.place is not None:
            logits = np.where(self.place >= 0, found[width:][self.place], 0.0)
            example |= self._softened(logits.astype(np.float32))
        return example

    def highest_answer(self, clip_ids: Iterable[str], seconds: float) -> float:
        """What the likeliest class is given on average, as softened: near 1 / classes, a teacher says nothing."""
        said = []
        for clip_id in list(clip_ids)[: self.n_labelled][:FEW]:
            try:
                answer = self.of_crop(clip_id, 0.0, seconds)
            except audio.UnreadableAudio:
                continue  # training tells of it
            if answer["teacher_known"].any():
                said.append(answer["teacher_answer"].max())
        return float(np.mean(said)) if said else 0.0

    def _answered(self, clip_id: str, start: float, seconds: float) -> dict[str, np.ndarray]:
        """The ensemble's answers: the highest of the crop's frames where there are some, else the clip's."""
        index, found = self._at.get(str(clip_id)), self.answers
        if index is None or found.unreadable[index]:
            nothing = np.zeros(self.n_classes, np.float32)
            return {"teacher_answer": nothing, "teacher_known": nothing}
        p = found.clipwise_output[index]
        if found.framewise_output is not None:
            frames, grid = found.framewise_output[index], found.timebase
            inside = frames[int(grid.frame(start)) : int(grid.frame(start + seconds)) + 1]
            p = inside.max(axis=0) if len(inside) else p
        p = np.clip(np.where(self.place >= 0, p[self.place], 0.5), 1e-6, 1 - 1e-6)
        return self._softened(np.log(p / (1 - p) if self.how.answers == "sigmoid" else p).astype(np.float32))

    def _softened(self, logits: np.ndarray) -> dict[str, np.ndarray]:
        known = self.place >= 0
        logits = logits / self.how.temperature
        if self.how.answers == "sigmoid":
            p = 1 / (1 + np.exp(-logits))
        else:
            p = np.where(known, np.exp(logits - logits[known].max()), 0)
            p = p / p.sum()
        return {"teacher_answer": np.where(known, p, 0).astype(np.float32), "teacher_known": known.astype(np.float32)}


def prepare_lessons(
    config: Config, fold: int, data: PreparedData, classes: Sequence[str], folder: Path, origin: Origin | None,
    progress: Callable = iter,
) -> tuple[PreparedData, Lessons | None]:  # fmt: skip
    """A fold's training clips, with the unlabelled recordings behind them, and what teachers say; (data, None): nobody.

    folder: of caches; progress: wraps the files that a teacher has to hear.
    """
    how = config.distill
    if not how.acts:
        return data, None
    lessons = Lessons(how=how, n_labelled=len(data.clips), epochs=config.optim.epochs, n_classes=len(classes))
    if how.unlabelled:
        clips, validates = read_labelled(data, Path(config.data.root), config.data.folds)
    if how.unlabelled == LEFT_OUT:
        data, lessons.chance = with_left_out(data, clips, fold)
    elif how.unlabelled:
        data, lessons.chance = with_unlabelled(data, read_unlabelled(how.unlabelled), clips, validates, fold=fold)
    about = {"unlabelled": len(lessons.chance), "draws": lessons.draws}
    class_list = config.data.classes or Path(config.data.root) / "classes.csv"
    if how.predictions:
        paths = [path.replace("{fold}", str(fold)) for path in how.predictions]
        found = predictions.join([Predictions.load(path) for path in paths])
        nested = partial(digest_inside, Path(config.data.root), config.data.folds, fold)
        check_unseen(found, data, lessons.n_labelled, paths, origin, nested)
        place = match(of_names(classes, "this run"), of_names(found.classes, paths[0]))
        lessons = replace(lessons, answers=found, place=place)
        about |= {"predictions": {path: file_digest(path)[:16] for path in paths}, "by": ", ".join(paths)}
        about["mode"] = mode_of(paths, data.clips.clip_id.iloc[lessons.n_labelled :], origin)
    else:
        lessons = _taught(
            lessons, fold, data, classes, class_list, folder=folder, origin=origin, progress=progress,
            folds=config.data.folds,
        )  # fmt: skip
        about |= {"teacher": lessons.teacher.cache_about(), "mode": ISOLATED}
        about["by"] = lessons.teacher.file or lessons.teacher.run or lessons.teacher.config
    if lessons.place is not None:
        about["not_in_vocabulary"] = [c for c, at in zip(classes, lessons.place, strict=True) if at < 0]
        about["highest_answer"] = lessons.highest_answer(data.clips.clip_id, config.data.crop_seconds)
    lessons.about = about
    return data, lessons


def _taught(
    lessons: Lessons, fold: int, data: PreparedData, classes, class_list, folder: Path, origin, progress, folds: str
) -> Lessons:  # fmt: skip
    """The lessons with a teacher's rows of every clip, computed now where no cache has them."""
    own = {name: getattr(lessons.how.teacher, name).replace("{fold}", str(fold)) for name in ("run", "file", "weights")}
    teacher = replace(lessons.how.teacher, **own)
    inherited = check_extractor(teacher, origin, "distill.teacher", folds)
    teacher = replace(teacher, sample_rate=teacher.sample_rate or own_rate(teacher))
    network, place = teacher.network, None
    if lessons.how.answer_weight and teacher.gives_answers:
        table = read_table(class_list, ("label",))
        ours = of_columns(table.set_index("label", drop=False).loc[list(classes)], "this run")
        theirs = read_vocabulary(teacher.labels) if teacher.labels else of_names(network.classes, "the teacher")
        if len(theirs) != network.widths[-1]:
            raise ValueError(
                f"the teacher answers for {plural(network.widths[-1], 'classes')}, but {theirs.what} names "
                f"{len(theirs)}: it is another network's list, or in another form"
            )
        place = match(ours, theirs, teacher.table)
    elif not teacher.embedding_width or not lessons.how.embedding_weight:
        raise ValueError("distill: of this teacher neither an embedding nor answers are taken; see distill.teacher")
    rows = EmbeddingCache.build(
        folder, data.whole, data.source, network.embed, width=network.width, about=teacher.cache_about(),
        sample_rate=teacher.sample_rate, segment_samples=teacher.window_samples, every_segment=True, batch_size=BATCH,
        progress=progress, heard=lambda waveform: as_heard(waveform, teacher.sample_rate, teacher),
        starts_of=lambda n_samples: np.arange(teacher.total(n_samples)) * teacher.stride_samples,
    )  # fmt: skip
    whitening = None
    if teacher.embedding_width and lessons.how.embedding_weight and lessons.how.embedding_components:
        said = (rows[clip_id][:, : teacher.embedding_width] for clip_id in data.clips.clip_id)
        whitening = Whitening.of_rows(said, lessons.how.embedding_components)
    return replace(lessons, teacher=teacher, rows=rows, whitening=whitening, place=place, inherited=inherited)


def check_unseen(
    found: Predictions, data: PreparedData, n_labelled: int, paths: list[str], origin: Origin | None,
    nested: Callable[[], str] = str,
):  # fmt: skip
    """Refuse answers of labelled clips by members that may have heard them.

    Honest are an OOF of the same folds, and one of folds within this fold's training clips, whose members heard nothing
    else: `nested` gives the digest that the tables of those clips have.
    """
    of_fold = dict(zip(found.clip_ids.tolist(), found.fold.tolist(), strict=True))
    clips = data.clips.iloc[:n_labelled]
    answered = clips[clips.clip_id.isin(of_fold)]
    name = ", ".join(paths)
    if not of_fold.keys() & set(data.clips.clip_id):
        raise ValueError(f"distill.predictions: {name} has answers of none of these clips ({few(data.clips.clip_id)})")
    seen = [c for c in answered.clip_id if of_fold[c] < 0]
    if seen:
        raise ValueError(
            f"distill.predictions: {name} answers for {len(seen)} labelled clips by members that learned from them: "
            f"{few(seen)}; give their OOF (oof.npz of a run, or <blend>_oof.npz of src/ensemble.py)"
        )
    for other in found.origins or ():
        if origin and other.tables.clips == origin.tables.clips and other.tables.folds != origin.tables.folds:
            differ = tables_differ(other.tables, origin.tables, ("folds",))
            raise ValueError(
                f"distill.predictions: {name} is of {other}, this is {origin}, and their folds are not the same "
                f"({differ}): a member heard clips that are held out here. Train both with one fold table"
            )
    moved = [c for c, fold in zip(answered.clip_id, answered.fold, strict=True) if of_fold[c] != fold >= 0]
    if moved and not (found.origins and {o.tables.clips for o in found.origins} == {nested()}):
        raise ValueError(
            f"distill.predictions: {name} was made with other folds than this run's: "
            f"{plural(len(moved), 'clips were')} held out "
            f"elsewhere: {few(moved)}. Train both with one fold table, or the ensemble within this fold's training "
            "clips alone (src/make_folds.py --inside)"
        )


def mode_of(paths: Sequence[str], unlabelled: Iterable[str], origin: Origin | None) -> str:
    """How far predictions keep apart what a fold holds out: recordings without labels must be answered by networks
    that held it out as well; labelled clips are, each by its own fold (`check_unseen`)."""
    for path in paths:
        found = Predictions.load(path)
        if not set(unlabelled) & set(found.clip_ids.tolist()):
            continue
        known = origin is not None and found.origins
        if not known or any((o.fold, o.tables.folds) != (origin.fold, origin.tables.folds) for o in found.origins):
            return HEARD
    return "honest"


def told(lessons: Lessons, classes: Sequence[str]) -> str:
    """Who teaches what, as a line for people."""
    how, parts = lessons.how, []
    if lessons.embedding_width:
        of = f"{how.embedding_components} components of its embedding of {lessons.teacher.embedding_width}"
        of = of if how.embedding_components else f"its embedding of {lessons.embedding_width}"
        parts.append(f"{of} (weight {how.embedding_weight:g})")
    if lessons.place is not None and how.answer_weight:
        missing = [c for c, at in zip(classes, lessons.place, strict=True) if at < 0]
        lost = f", not in its vocabulary: {few(missing)}" if missing else ""
        answered = f"answers for {len(classes) - len(missing)} of {len(classes)} classes"
        parts.append(f"{answered} (weight {how.answer_weight:g}{softened(lessons)}){lost}")
    who = lessons.about["by"]
    unlabelled = f"; {lessons.draws} crops of {len(lessons.chance)} unlabelled recordings an epoch" * bool(
        lessons.draws
    )
    off = f"; the last {plural(how.off_epochs, 'epochs')} without it" if how.off_epochs else ""
    if lessons.about.get("mode") == HEARD:
        unlabelled += " (answers by networks that may have learned from what this fold holds out: it scores too well)"
    return f"taught by {who}: {' and '.join(parts)}{unlabelled}{off}"


def softened(lessons: Lessons) -> str:
    """How sharp answers of classes that exclude each other are, for people: a temperature may leave nothing of them."""
    if lessons.how.answers != "softmax" or "highest_answer" not in lessons.about:
        return ""
    highest, chance = lessons.about["highest_answer"], 1 / max(1, (lessons.place >= 0).sum())
    return f", the likeliest class {highest:.2f} on average, {chance:.2f} is chance"
