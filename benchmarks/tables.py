"""The tables: on the terminal by rich, in Markdown for the README."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from .peers import FLOORS, OURS
from .summary import Result, Spread

NO_VALUE = "-"
VERDICTS = {True: "met", False: "MISSED", None: ""}


def number(value: float) -> str:
    """Return `value` with three significant digits, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(figures: Spread | None) -> str:
    """Return a spread as ``median (low-high)``."""
    if figures is None:
        return NO_VALUE
    return f"{figures.median:.2f} ({figures.low:.2f}-{figures.high:.2f})"


def head(peers: Sequence[str]) -> list[str]:
    """Return the titles of the columns."""
    return ["", "unit", *peers, "best peer", "ratio to best (min-max)", "target", ""]


def cells(result: Result, peers: Sequence[str]) -> list[str]:
    """Return one row's texts, in the order of `head`."""
    values = [number(result.values[peer].median) if peer in result.values else NO_VALUE for peer in peers]
    return [
        result.row.title,
        result.row.unit,
        *values,
        result.best or NO_VALUE,
        spread(result.ratio),
        str(result.row.target or ""),
        VERDICTS[result.met],
    ]


def print_results(console: Console, title: str, results: Iterable[Result], peers: Sequence[str]) -> None:
    """Print one table on the terminal."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for position, name in enumerate(head(peers)):
        justify = "right" if 2 <= position < 2 + len(peers) else "left"
        style = "bold cyan" if name == OURS else "dim" if name in FLOORS else ""
        table.add_column(name, justify=justify, style=style, no_wrap=True)
    for result in results:
        row = cells(result, peers)
        colour = {True: "green", False: "bold red", None: ""}[result.met]
        row[-1] = f"[{colour}]{row[-1]}[/]" if colour else row[-1]
        table.add_row(*row)
    console.print(table)


def print_syscalls(
    console: Console, counts: dict[str, dict[str, dict[str, float]]], titles: dict[str, str], peers: Sequence[str]
) -> None:
    """Print the system calls per event, with their names."""
    table = Table(title="System calls per event", title_justify="left", header_style="bold")
    for name in ("", "loop", "all", "of which"):
        table.add_column(name, justify="right" if name == "all" else "left")
    for job, by_peer in counts.items():
        for peer in peers:
            if peer in by_peer:
                table.add_row(titles[job], peer, f"{sum(by_peer[peer].values()):.2f}", by_name(by_peer[peer]))
        table.add_section()
    console.print(table)


def by_name(counts: dict[str, float]) -> str:
    """Return the counts of system calls as one text, the most frequent first."""
    return ", ".join(f"{name} {value:.2f}" for name, value in sorted(counts.items(), key=lambda item: -item[1]))


def markdown_results(results: Iterable[Result], peers: Sequence[str]) -> str:
    """Return one table in Markdown."""
    return markdown([head(peers), *(cells(result, peers) for result in results)])


def markdown_syscalls(
    counts: dict[str, dict[str, dict[str, float]]], titles: dict[str, str], peers: Sequence[str]
) -> str:
    """Return the system calls per event in Markdown."""
    rows = [["", "loop", "all", "of which"]]
    rows += [
        [titles[job], peer, f"{sum(by_peer[peer].values()):.2f}", by_name(by_peer[peer])]
        for job, by_peer in counts.items()
        for peer in peers
        if peer in by_peer
    ]
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them the head, as a table in Markdown."""
    head_row, *body = rows
    lines = [head_row, ["---"] * len(head_row), *body]
    return "\n".join("| " + " | ".join(cell for cell in line) + " |" for line in lines) + "\n"
