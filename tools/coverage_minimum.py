"""Fail when a .pyx file has too few of its lines run by the tests.

    python tools/coverage_minimum.py FOLDER PERCENT

FOLDER holds the tree that was measured, with the coverage.json of the run.
"""

import json
import sys
from pathlib import Path


def main(folder, minimum):
    folder = Path(folder)
    measured = {
        name: entry["summary"]["percent_covered"]
        for name, entry in json.loads((folder / "coverage.json").read_text())["files"].items()
    }
    sources = sorted(str(path.relative_to(folder)) for path in folder.glob("linux_event/**/*.pyx"))
    failed = False
    for name in sources:
        percent = measured.get(name)
        enough = percent is not None and percent >= minimum
        failed |= not enough
        shown = "not measured" if percent is None else f"{percent:.1f} %"
        print(f"{name:40} {shown}{'' if enough else '   too little'}")
    if failed or not sources:
        sys.exit(f"each .pyx file must have {minimum:g} % of its lines run")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
