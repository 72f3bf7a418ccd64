"""The one inference path: recordings -> windows -> networks -> Predictions. No torch in here.

Validation in train.py, predict.py, exported graphs and kernels all end in `predict_members`, so that the CV is the
score of what is submitted. A backend (see backends.py) is anything with `inputs`, `frontends`, `timebase` and `run`.

How a recording is heard (reading.py): decoded and resampled once, its log-mel computed once for every distinct front
end, overlapping windows cut from it where the hop divides the stride (else each gets its own log-mel), all members
(folds, models, runs) fed from the same windows, the windows of a clip joined by each member's rule. Decoding runs
ahead in threads. At most `reading.SPAN_SECONDS` of a recording are in memory at a time for each thread, so a recording
may last a day. With `one_pass` a network hears up to a minute at once and windows are pooled from its segments.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from earshot.inputs.record import Input
from earshot.prediction.clip_answers import ClipAnswer
from earshot.prediction.origin import Origin
from earshot.prediction.predictions import TEST_FOLD, Clip, Predictions
from earshot.prediction.reading import ONE_PASS_SECONDS, Chunk, Failed, Shorter, Span, input_key, jobs
from earshot.prediction.tta import check_tta, tta_variants
from earshot.sound.windows import Windowing

CONTEXT_SEGMENTS = 4  # heard either side of a span in one pass, and as many as a network reaches beyond its own
MEAN_FRAMES = 4096  # whose mean is taken at once
# what members must share to be fed from the same windows
WINDOW_FIELDS = ("sample_rate", "n_channels", "window_samples", "stride_samples", "rest_samples", "extra_window",
                 "one_pass", "level")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a prediction: what runs it, how its windows are joined, what its outputs mean."""

    backend: object
    windowing: Windowing
    classes: Sequence[str]
    prior: np.ndarray  # (K,) what an unreadable clip gets
    fold: int = TEST_FOLD
    place: int | None = None  # index on axis 1 of the outputs of a graph that stacks several folds
    origin: Origin | None = None  # the trained fold that it is, which its predictions will name

    @property
    def window_key(self) -> tuple:
        """What members must have in common to be fed from the same windows."""
        return tuple(getattr(self.windowing, name) for name in WINDOW_FIELDS)


@dataclass
class Until:
    """A time by `clock` at which hearing ends; then `partly` names the clips of which the beginning alone was heard,
    `unheard` those of which nothing was."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    partly: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)

    def is_over(self) -> bool:
        return self.clock() > self.seconds


def predict_clips(
    backends: Sequence, clips: Sequence[Clip], windowing: Windowing, classes: Sequence[str], prior: np.ndarray,
    fold: int = TEST_FOLD, tta: Iterable[str] = (), progress=iter, listen: Callable | None = None,
) -> tuple[list[Predictions], list[tuple[str, str]]]:  # fmt: skip
    """`predict_members` for networks of one run: one windowing, one class list, one prior."""
    members = [Member(backend=b, windowing=windowing, classes=classes, prior=prior, fold=fold) for b in backends]
    return predict_members(members, clips, tta, progress, listen=listen)


def predict_members(
    members: Sequence[Member], clips: Sequence[Clip], tta: Iterable[str] = (), progress=iter, streams: int = 1,
    plain: bool = True, listen: Callable | None = None, until: Until | None = None,
) -> tuple[list[Predictions], list[tuple[str, str]]]:  # fmt: skip
    """One Predictions a member, and the (clip_id, reason) of clips that could not be read.

    clips: N recordings. progress: wraps an iterable of the N clips (tqdm). streams: batches in flight at a time; more
    than 1 needs backends that may be called from several threads (ONNX Runtime, OpenVINO). plain=False: only the
    hearings that `tta` adds; a clip too short for them counts as unreadable. listen: called with (index of the clip,
    first sample, outputs of the first member) of every window as it comes; of one pass, which has no windows, never.
    until: when no more is heard; a clip of which the beginning was heard by then ends there, of which nothing was
    counts as unreadable.

    Members of different runs may differ in front ends, classes and joining rules, not in where windows lie
    (`WINDOW_FIELDS`).
    """
    if any("metadata" in m.backend.inputs for m in members):
        _check_metadata(clips)
    grid = members[0].backend.timebase
    tta = tuple(tta)
    variants = tta_variants(tta, plain, grid.hop_length / grid.sample_rate)
    _check_members(members, tta)
    windowing = members[0].windowing
    answers = [[ClipAnswer(m.windowing, m.backend) for m in members] for _ in clips]
    keys = {input_key(m.backend, name): None for m in members for name in m.backend.inputs if name != "metadata"}
    context = _context(members) if windowing.one_pass else 0
    unreadable: dict[int, str] = {}
    workers = max(m.windowing.workers for m in members)
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(streams) as runners:
        running = _Running(members=members, answers=answers, runners=runners, streams=streams, listen=listen)
        shorter: set[int] = set()

        def hear(some: Iterable[tuple[int, Clip]], decoded: bool):
            reading = jobs(some, windowing, variants, unreadable, tuple(keys), context, decoded=decoded)
            for chunk in _ahead(pool, reading, workers + 1):
                if isinstance(chunk, Failed):
                    unreadable.setdefault(chunk.clip, chunk.reason)
                elif isinstance(chunk, Shorter):
                    shorter.add(chunk.clip)
                elif chunk.clip not in unreadable:
                    running.add(chunk)
                if until is not None and until.is_over():
                    break
            running.finish()

        hear(enumerate(progress(clips)), decoded=False)
        for i in shorter:  # damaged: its last windows would be silence that nobody recorded
            answers[i] = [ClipAnswer(m.windowing, m.backend) for m in members]
        hear([(i, clips[i]) for i in sorted(shorter)], decoded=True)
    if until is not None and until.is_over():
        _close(answers, clips, unreadable, until)
    bad = set(unreadable)
    predictions = [_collect([a[i] for a in answers], clips, bad, member) for i, member in enumerate(members)]
    return predictions, [(clips[i].clip_id, reason) for i, reason in sorted(unreadable.items())]


def _context(members: Sequence[Member]) -> int:
    """Samples of true sound that networks hear either side of a span in one pass, a whole number of all segments."""
    lengths = [m.backend.timebase.frame_samples for m in members]
    step, most = math.lcm(*lengths), int(ONE_PASS_SECONDS * members[0].windowing.sample_rate)
    reaches = [getattr(m.backend, "reach", 0) * length for m, length in zip(members, lengths, strict=True)]
    return (CONTEXT_SEGMENTS + -(-min(max(reaches), most) // step)) * step


def _close(answers: list[list[ClipAnswer]], clips, unreadable: dict[int, str], until: Until):
    """Make do with what was heard of each clip when the time was up."""
    for index, of_clip in enumerate(answers):
        if index in unreadable:
            continue
        cut = [answer.close() for answer in of_clip]
        if not all(answer.clipwise for answer in of_clip):
            until.unheard.append(clips[index].clip_id)
            unreadable[index] = f"{clips[index].path} was not heard: the time was up"
        elif any(cut):
            until.partly.append(clips[index].clip_id)


def _check_members(members: Sequence[Member], tta: Sequence[str]):
    first = members[0]
    for member in members:
        if member.windowing.window_samples < 1 or member.windowing.batch_size < 1:
            raise ValueError("a windowing must say its sample rate, window and batch size before it hears recordings")
        for name, a, b in zip(WINDOW_FIELDS, first.window_key, member.window_key):
            if a != b:
                raise ValueError(f"members of one pass must hear the same windows, but {name} is {a} and {b}")
        heard = (member.backend.frontends.get(name) for name in member.backend.inputs)
        check_tta(tta, member.windowing, [record for record in heard if record])
        check_one_pass(member.windowing, member.backend.frontends.values(), getattr(member.backend, "pooling", ""))


def check_one_pass(windowing: Windowing, heard: Iterable[Input], pooling: str):
    """Error where one pass is asked of a network that cannot be given it.

    heard: the records of its inputs; pooling: how its segments become the clip output, '' where they do not.
    """
    if not windowing.one_pass:
        return
    if any(getattr(record, "of_clip", False) for record in heard):
        raise ValueError("one pass cannot give a network the rows of an extractor: predict without one_pass")
    if windowing.clip_from == "clipwise" and not pooling:
        raise ValueError(
            "one pass needs a network whose clip output is pooled from its segments (attention, max, mean, "
            "linear_softmax); this one's is not: predict without one_pass"
        )


def _check_metadata(clips: Sequence[Clip]):
    bare = [clip.clip_id for clip in clips if clip.metadata is None]
    if bare:
        raise ValueError(
            f"the network takes metadata of each recording, which {len(bare)} of {len(clips)} come without, such as "
            f"{bare[0]}: name a table that has the columns of data.metadata"
        )


def _ahead(pool, jobs: Iterator, depth: int) -> Iterator:
    """Results of jobs in order, at most `depth` of them computed ahead."""
    waiting = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass(kw_only=True)
class _Running:
    """Windows on their way through the networks: gathered to batches, at most `streams` of them at a time."""

    members: Sequence[Member]
    answers: list
    runners: ThreadPoolExecutor
    streams: int
    _: KW_ONLY
    listen: Callable | None = None
    waiting: list = field(default_factory=list)  # (span, i, inputs) of windows
    started: deque = field(default_factory=deque)  # (future of outputs, what to do with them)

    def add(self, chunk: Chunk):
        if self.members[0].windowing.one_pass:
            inputs = {k: v[None] for k, v in chunk.whole().items()}
            self._start(inputs, lambda outputs: self._deliver_pass(chunk.span, chunk.begin, outputs))
            return
        size = min(m.windowing.batch_size for m in self.members)
        for i in range(len(chunk.span.starts)):
            self.waiting.append((chunk.span, i, chunk.window(i)))
            if len(self.waiting) == size:
                self._flush()

    def finish(self):
        if self.waiting:
            self._flush()
        while self.started:
            self._take()

    def _flush(self):
        windows, self.waiting = self.waiting, []
        inputs = {k: np.stack([w[2][k] for w in windows]) for k in windows[0][2]}
        self._start(inputs, lambda outputs: self._deliver(windows, outputs))

    def _start(self, inputs: dict, deliver):
        if self.streams == 1:
            deliver(self._run(inputs))
            return
        self.started.append((self.runners.submit(self._run, inputs), deliver))
        if len(self.started) > self.streams:
            self._take()

    def _take(self):
        future, deliver = self.started.popleft()
        deliver(future.result())

    def _run(self, inputs: dict) -> list[dict]:
        """Outputs of every member; a backend that several members share runs once."""
        ran = {}
        for backend in {id(m.backend): m.backend for m in self.members}.values():
            ran[id(backend)] = backend.run({name: inputs[input_key(backend, name)] for name in backend.inputs})
        return [_of_place(ran[id(m.backend)], m.place) for m in self.members]

    def _deliver(self, windows: list, outputs: list[dict]):
        for number, out in enumerate(outputs):
            for row, (span, i, _) in enumerate(windows):
                window = {k: v[row] for k, v in out.items()}
                self.answers[span.clip][number].add(span, i, window)
                if self.listen and number == 0:
                    self.listen(span.clip, int(span.starts[i]), window)

    def _deliver_pass(self, span: Span, begin: int, outputs: list[dict]):
        for number, out in enumerate(outputs):
            self.answers[span.clip][number].add_pass(span, begin, {k: v[0] for k, v in out.items()})


def _of_place(outputs: Mapping[str, np.ndarray], place: int | None) -> Mapping[str, np.ndarray]:
    return outputs if place is None else {k: v[:, place] for k, v in outputs.items()}


def _mean_frames(hearings: list[np.ndarray]) -> np.ndarray:
    """(T, K) of each hearing -> their mean, a part of T after the other: an hour of many classes is large."""
    if len(hearings) == 1:
        return hearings[0].astype(np.float32, copy=False)
    out = np.empty(hearings[0].shape, np.float32)
    for begin in range(0, len(out), MEAN_FRAMES):
        part = slice(begin, begin + MEAN_FRAMES)
        out[part] = np.mean([hearing[part] for hearing in hearings], axis=0, dtype=np.float64)
    return out


def _collect(answers: list[ClipAnswer], clips, unreadable: set[int], member: Member) -> Predictions:
    """A member's answers to all clips -> Predictions; unreadable clips get the prior and one frame of it."""
    prior, keep_frames = np.asarray(member.prior, np.float32), member.windowing.keep_frames

    def mean(values, fallback):
        return np.mean(values, axis=0, dtype=np.float64).astype(np.float32) if values else fallback

    bad = np.array([i in unreadable for i in range(len(clips))], dtype=bool)
    clipwise = [mean([] if b else a.clipwise, prior) for a, b in zip(answers, bad)]
    frames, embedding = None, None
    if keep_frames:
        frames = tuple(prior[None] if b or not a.framewise else _mean_frames(a.framewise) for a, b in zip(answers, bad))
    width = next((len(a.embedding[0]) for a in answers if a.embedding), 0)
    if width:
        nothing = np.zeros(width, np.float32)
        embedding = np.stack([mean([] if b else a.embedding, nothing) for a, b in zip(answers, bad)])
    return Predictions(
        np.array([c.clip_id for c in clips], dtype=str),
        tuple(member.classes),
        np.stack(clipwise) if clipwise else np.zeros((0, len(member.classes)), np.float32),
        np.full(len(clips), member.fold),
        bad,
        framewise_output=frames,
        timebase=answers[0].timebase if answers and keep_frames else None,
        embedding=embedding,
        origins=None if member.origin is None else (member.origin,),
    )
