"""Print what pip has to install, read from pyproject.toml.

    python tools/requirements.py build test    one requirement a line

`build` names the requirements of the build itself, any other word an extra.
Extras are read here because `pip install .[test]` would build the package a
second time to get at them.
"""

import sys
import tomllib
from pathlib import Path


def main(groups):
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    for group in groups:
        if group == "build":
            requirements = project["build-system"]["requires"]
        else:
            requirements = project["project"]["optional-dependencies"][group]
        print(*requirements, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
