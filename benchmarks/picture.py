"""The picture of a run: a small chart per workload, drawn by matplotlib."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .catalogue import BestPeerTarget, OwnTarget, PeerTarget
from .peers import FLOORS, OURS
from .summary import Result
from .tables import number

COLUMNS = 4
CAPTION_WIDTH = 170
OURS_COLOUR = "#0072b2"
PEER_COLOUR = "#9aa5b1"
TARGET_COLOUR = "#d55e00"
LINE_COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#7f7f7f", "#56b4e9")
LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
BARS = (
    "chained_calls",
    "batched_calls",
    "timer_new",
    "timer_reuse",
    "timer_fire",
    "timer_fire_only",
    "pipe_ping",
    "post_p50",
    "post_latency",
    "post_burst",
    "notify_burst",
    "read_small",
    "write_small",
    "read_big",
    "write_big",
    "accept_close",
    "ping_64",
    "ping_16k",
    "ping_100k",
    "spawn_1",
    "spawn_16",
    "communicate_64k",
    "resolve_numeric",
    "resolve_local",
    "memory_per_connection",
    "memory_per_timer",
    "memory_per_watcher",
    "import_time",
    "create_loop",
)


def draw(
    results: dict[str, Result], peers: Sequence[str], caption: str, path: Path, bars: Sequence[str] = BARS
) -> None:
    """Draw the results as a PNG file.

    Args:
        results: row key → result, of processor time and memory.
        peers: the loops in the order of their bars.
        caption: the line below the title, on machine and versions.
        path: where the file goes.
        bars: the keys of the rows that are drawn, in this order.
    """
    charts = sum(key in results for key in bars)
    rows = max(1, -(-charts // COLUMNS))
    # Without pyplot: no window system is asked for.
    figure = Figure(figsize=(4.0 * COLUMNS, 2.5 * rows + 1.0), layout="constrained")
    places = iter(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for key in bars:
        if key in results:
            _draw_bars(next(places), results[key], peers)
    for unused in places:
        unused.set_axis_off()
    figure.suptitle(
        "Cost per operation, less is better. Bars: median of the rounds; whiskers: smallest and largest; "
        f"dashed: target.\n{textwrap.fill(caption, CAPTION_WIDTH)}",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


def _draw_bars(axes: Axes, result: Result, peers: Sequence[str]) -> None:
    shown = [peer for peer in peers if peer in result.values]
    spreads = [result.values[peer] for peer in shown]
    medians = [spread.median for spread in spreads]
    whiskers = [
        [spread.median - spread.low for spread in spreads],
        [spread.high - spread.median for spread in spreads],
    ]
    colours = [OURS_COLOUR if peer == OURS else "#e4e7eb" if peer in FLOORS else PEER_COLOUR for peer in shown]
    axes.barh(shown, medians, color=colours, xerr=whiskers, error_kw={"elinewidth": 1, "ecolor": "#3e4c59"})
    longest = max(spread.high for spread in spreads)
    for position, spread in enumerate(spreads):
        axes.annotate(
            number(spread.median),
            (spread.high, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox=LABEL_BOX,
        )
    limit = _limit(result)
    if limit is not None:
        axes.axvline(limit, color=TARGET_COLOUR, linestyle="--", linewidth=1.2)
    axes.set_xlim(0, max(longest, limit or 0) * 1.2)
    axes.invert_yaxis()
    style(axes, f"{result.row.title}, {result.row.unit}")


def _limit(result: Result) -> float | None:
    match result.row.target:
        case BestPeerTarget(limit) | PeerTarget(limit=limit) if result.best is not None:
            return limit * result.values[result.best].median
        case OwnTarget(limit):
            return limit
    return None


def style(axes: Axes, title: str) -> None:
    """Give a chart its title, and no more ink than it needs."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
