"""Fail when a .pyx file has too few of its lines run by the tests.

    python tools/coverage_minimum.py FOLDER PERCENT

FOLDER holds the tree that was measured, with the coverage.json of the run.

What an ``except MemoryError`` clause does is not counted. The tests of memory run it, in processes in which one allocation
after the other fails; but what measures coverage allocates for itself, between any two lines, and does not survive that.
"""

import json
import re
import sys
from pathlib import Path


def not_counted(text):
    """The numbers of the lines of the clauses that begin with ``except MemoryError``, from 1."""
    numbers = set()
    depth = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        indentation = len(line) - len(line.lstrip())
        if depth is not None and indentation <= depth:
            depth = None
        if depth is None and re.match(r"\s*except MemoryError\b", line):
            depth = indentation
        if depth is not None:
            numbers.add(number)
    return numbers


def percentage(entry, left_out):
    """How many per cent of the lines were run."""
    run = len(set(entry["executed_lines"]) - left_out)
    missed = len(set(entry["missing_lines"]) - left_out)
    return 100 * run / (run + missed) if run + missed else 100.0


def main(folder, minimum):
    folder = Path(folder)
    measured = json.loads((folder / "coverage.json").read_text())["files"]
    sources = sorted(str(path.relative_to(folder)) for path in folder.glob("linux_event/**/*.pyx"))
    failed = False
    for name in sources:
        left_out = not_counted((folder / name).read_text())
        percent = percentage(measured[name], left_out) if name in measured else None
        enough = percent is not None and percent >= minimum
        failed |= not enough
        shown = "not measured" if percent is None else f"{percent:.1f} %"
        print(f"{name:40} {shown}{'' if enough else '   too little'}")
    if failed or not sources:
        sys.exit(f"each .pyx file must have {minimum:g} % of its lines run")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
