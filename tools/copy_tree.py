"""Copy the sources of the project to another folder, to build a variant there.

    python tools/copy_tree.py TARGET [--without NAME ...]

Each variant of the build (verify, asan, ...) gets a tree of its own, so that
none disturbs the build in place. Copies what is newer or new, removes from the
target what is gone from the sources, and leaves what a build made there.
"""

import filecmp
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCES = {".git", ".venv", "build", "dist", "__pycache__"}
MADE_BY_BUILDS = {".so", ".o", ".pyc"}


def is_source(path):
    return (
        path.name not in NOT_SOURCES
        and not path.name.endswith(("_cache", ".egg-info"))
        and not path.name.startswith(".coverage")
        and path.suffix not in MADE_BY_BUILDS
        and not (path.suffix == ".c" and path.with_suffix(".pyx").exists())
    )


def copy_folder(source, target, without=()):
    target.mkdir(parents=True, exist_ok=True)
    entries = {path.name: path for path in source.iterdir() if is_source(path) and path.name not in without}
    for path in target.iterdir():
        if is_source(path) and path.name not in entries:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, path in entries.items():
        copy = target / name
        if path.is_dir():
            copy_folder(path, copy)
        elif not copy.exists() or not filecmp.cmp(path, copy, shallow=False):
            # A new time stamp, so that the build notices.
            shutil.copy(path, copy)


def main(target, *options):
    if options and options[0] != "--without":
        sys.exit(__doc__)
    copy_folder(ROOT, Path(target), options[1:])


if __name__ == "__main__":
    main(*sys.argv[1:])
