"""The command line: ``python -m linux_event`` and ``python -m linux_event demo``."""

from __future__ import annotations

import argparse
import sys

from . import UringUnavailableError, __version__


def seconds(text: str) -> float:
    """Return the number in ``text``, which must be from 1 to 3600."""
    value = float(text)
    if not 1 <= value <= 3600:
        raise ValueError
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    ``arguments`` are those of the command line (None: take them from there). 0 is "all is well", 1 "io_uring cannot be
    used here" or "the demo missed something", 130 "interrupted"; wrong arguments exit with 2 through ``SystemExit``.
    """
    parser = argparse.ArgumentParser(
        prog="python -m linux_event", description="Say what this machine allows, or show what the loop does."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("report", help="say what this machine allows (what happens without a command)")
    demo = commands.add_parser("demo", help="run one loop with everything in it, and check what happened")
    demo.add_argument(
        "--seconds", type=seconds, default=5.0, metavar="N", help="how long, from 1 to 3600 (default: %(default)g)"
    )
    chosen = parser.parse_args(arguments)
    # Either command needs only its own module, and reporting must work where the demo does not.
    if chosen.command == "demo":
        from .demo import run

        try:
            return 0 if run(chosen.seconds) else 1
        except UringUnavailableError as error:
            print(f"io_uring cannot be used here: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    from .report import report

    return 0 if report() else 1


if __name__ == "__main__":
    sys.exit(main())
