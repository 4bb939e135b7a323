"""How the cost of an event grows: with the descriptors, the timers, the connections, the size of a message."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from .peers import FLOOR, OURS
from .picture import CAPTION_WIDTH, LINE_COLOURS, OURS_COLOUR, style
from .servers.cases import KIB, MIB
from .summary import Result


@dataclass(frozen=True)
class Curve:
    """One chart: a line for each peer.

    Attributes:
        title: what is measured, with its unit.
        axis: what grows.
        points: how much of it → the key of the row.
    """

    title: str
    axis: str
    points: dict[int, str]


CURVES = (
    Curve(
        "event, ns, 1 % of the descriptors active",
        "descriptors",
        {10: "fds_10", 100: "fds_100", 1000: "fds_1000", 10000: "fds_10000"},
    ),
    Curve(
        "timer made, started, cancelled, ns",
        "timers that wait",
        {10: "timers_among_10", 1000: "timers_among_1000", 100000: "timers_among_100000"},
    ),
    Curve("echo of 64 B, µs", "connections", {1: "echo_64_1", 50: "echo_64_50", 500: "echo_64_500"}),
    Curve("echo of 16 KiB, µs", "connections", {1: "echo_16k_1", 50: "echo_16k_50", 500: "echo_16k_500"}),
    *(
        Curve(
            f"echo on {noun}, µs",
            "bytes of a message",
            {
                64: f"echo_64_{count}",
                KIB: f"echo_1k_{count}",
                16 * KIB: f"echo_16k_{count}",
                100 * KIB: f"echo_100k_{count}",
                MIB: f"echo_1m_{count}",
            },
        )
        for count, noun in ((1, "one connection"), (50, "50 connections"), (500, "500 connections"))
    ),
)
COLUMNS = 3


def possible(results: dict[str, Result]) -> list[Curve]:
    """Return the curves for which there are two points at least."""
    return [curve for curve in CURVES if sum(key in results for key in curve.points.values()) >= 2]


def draw(results: dict[str, Result], peers: Sequence[str], caption: str, path: Path) -> None:
    """Draw the curves as a PNG file.

    Args:
        results: row key → result, of processor time.
        peers: the loops in the order of the legend.
        caption: the line below the title, on machine and versions.
        path: where the file goes.
    """
    curves = possible(results)
    rows = max(1, -(-len(curves) // COLUMNS))
    figure = Figure(figsize=(5.2 * COLUMNS, 3.4 * rows + 1.0), layout="constrained")
    places = iter(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for curve, axes in zip(curves, places, strict=False):
        colours = iter(LINE_COLOURS * 2)
        for peer in peers:
            if peer == FLOOR.name:
                continue
            points = [
                (amount, results[key].values[peer].median)
                for amount, key in curve.points.items()
                if key in results and peer in results[key].values
            ]
            if points:
                is_ours = peer == OURS
                axes.plot(
                    *zip(*points, strict=True),
                    "o-",
                    label=peer,
                    color=OURS_COLOUR if is_ours else next(colours),
                    linewidth=2.5 if is_ours else 1.2,
                    markersize=3,
                    zorder=3 if is_ours else 2,
                )
        axes.set_xscale("log")
        lowest, highest = axes.get_ylim()
        if highest > 20 * max(lowest, highest / 1000):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(curve.axis, fontsize=8)
        axes.legend(fontsize=7, ncols=2, frameon=False)
        style(axes, curve.title)
    for unused in places:
        unused.set_axis_off()
    figure.suptitle(
        f"Processor time as a function of size: flat is good, low is good.\n{textwrap.fill(caption, CAPTION_WIDTH)}",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)
