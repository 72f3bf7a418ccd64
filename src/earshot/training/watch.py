"""Whether the watched score can be had of the held-out clips: asked before training, not after it."""

from __future__ import annotations

import logging

from earshot import tasks
from earshot.competitions import get_competition
from earshot.config import Config
from earshot.data.answers import answers_of
from earshot.data.prepared import PreparedData
from earshot.messages import suggest

logger = logging.getLogger("earshot")


def check_watch(config: Config, data: PreparedData):
    """Refuse a watched score that the held-out clips of all folds together do not define, with those that they do."""
    watch, held_out = tasks.task_of(config).watch, data.ever_held_out()
    try:
        can = _defined(config, held_out)
    except ValueError as error:
        raise ValueError(f"the held-out clips cannot be scored as task={config.task} asks: {error}") from error
    if len(held_out.clips) and watch not in can:
        raise ValueError(
            f"watch '{watch}' is not among the scores of this task and data{suggest(watch, can)}: the held-out clips "
            f"define {', '.join(sorted(can)) or 'none'}. Where they have no such label, event or anomaly, choose "
            "another by watch=NAME"
        )
    official = get_competition(config.data.competition)
    ranked = official.oof_score.name
    if config.optim.select == "best" and not (config.watch or official.post) and ranked in can - {watch}:
        logger.warning(
            "the weights of an epoch are chosen by %s, and %s ranks by %s: watch=%s chooses by that", watch,
            official.name, ranked, ranked,
        )  # fmt: skip


def defines_watch(config: Config, held_out: PreparedData) -> bool:
    """Whether the held-out clips of one fold define the watched score; else the last epoch's weights stay."""
    return tasks.task_of(config).watch in _defined(config, held_out)


def _defined(config: Config, clips: PreparedData) -> set[str]:
    frames = config.predict.keep_frames and config.predict.oof_frames
    return tasks.defined_scores(tasks.task_of(config), answers_of(clips), clips.classes, frames)
