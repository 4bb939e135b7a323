"""Command line: ``python -m benchmarks.guard [--record]``."""

import argparse
import json
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from .compare import LIMIT, compare
from .counts import CannotCount, instructions, system_calls
from .workloads import WORKLOADS

KEPT = Path(__file__).with_name("figures.json")


def main() -> int:
    """Count, compare with the figures that are kept, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description="Count instructions and system calls per event; fail when one has grown.",
    )
    parser.add_argument("--record", action="store_true", help="keep what is counted now as the figures to compare with")
    options = parser.parse_args()
    build = _build()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {"system_calls": {}, "instructions": {}}
    try:
        calls = {name: round(sum(by_call.values()), 2) for name, by_call in system_calls().items()}
        counted = {name: round(value) for name, value in instructions().items()}
    except CannotCount as error:
        print(f"cannot count: {error}", file=sys.stderr)
        return 1
    if options.record:
        kept["system_calls"] = calls
        kept["instructions"][build] = counted
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    before = kept["instructions"].get(build, {})
    print(
        f"{'':<20}{'instructions':>22}{'system calls':>22}\n{'per event':<20}{'kept':>12}{'now':>10}{'kept':>12}{'now':>10}"
    )
    for name in WORKLOADS:
        kept_calls = kept["system_calls"].get(name, "-")
        print(f"{name:<20}{before.get(name, '-'):>12}{counted[name]:>10}{kept_calls:>12}{calls[name]:>10}")
    grown = compare("system calls", kept["system_calls"], calls)
    if before:
        grown += compare("instructions", before, counted)
    else:
        known = "\n  ".join(kept["instructions"])
        print(
            f"No instructions are kept for this build, {build}, only for:\n  {known}\n"
            "Instructions are not comparable between builds. Run this with --record on the last good state to keep them."
        )
    for line in grown:
        print(f"grown by more than {LIMIT:.0%}: {line}", file=sys.stderr)
    return 1 if grown else 0


def _build() -> str:
    """What makes the number of instructions comparable: interpreter, compilers, architecture."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    try:
        version = subprocess.run(
            [compiler, "-dumpfullversion"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        version = "of an unknown version"
    return (
        f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()}), "
        f"{compiler} {version}, {platform.machine()}, {'-'.join(platform.libc_ver())}"
    )


if __name__ == "__main__":
    sys.exit(main())
