"""Comparison of what was counted with the figures that are kept."""

from collections.abc import Mapping

LIMIT = 0.05
# Less than this many per event is a difference in how often the kernel let a turn of the loop wait.
SLACK = 0.02


def compare(what: str, kept: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Return a line for each workload that costs more than it may, or has no figure to compare with."""
    lines = []
    for name, value in now.items():
        if name not in kept:
            lines.append(f"{name}: {value:g} {what} per event, and no figure is kept: run with --record")
        elif value > kept[name] * (1 + LIMIT) + SLACK:
            lines.append(f"{name}: {value:g} {what} per event, {kept[name]:g} are kept")
    return lines
