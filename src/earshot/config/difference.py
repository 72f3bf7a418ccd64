"""How two configs differ, but for what is the machine's own matter."""

from __future__ import annotations

# settings of a machine, whatever is trained on it: a run goes on with others, and its folds may have their own
BY_MACHINE = ("data.cache_folder", "data.workers", "optim.checkpoint_steps", "predict.batch_size", "predict.workers",
              "threads", "track")  # fmt: skip


def config_difference(a: dict, b: dict, where: str = "") -> str:
    """Nested dicts -> 'key: a != b; ...', empty when equal; how a machine computes it (BY_MACHINE) is no difference."""
    parts = []
    for key in sorted(set(a) | set(b)):
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            if inner := config_difference(left, right, f"{where}{key}."):
                parts.append(inner)
        elif left != right and f"{where}{key}" not in BY_MACHINE:
            parts.append(f"{where}{key}: {left!r} != {right!r}")
    return "; ".join(parts)
