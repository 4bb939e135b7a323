"""The build: what it needs, what it does again and when, what it installs, and the scripts of the Makefile."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SWITCHES = {"LE_VERIFY", "LE_TRACE", "LE_SANITIZE", "LE_WERROR"}

MODULE = '''
"""A module that tells how it was built."""

cdef extern from "le_tiny.h" nogil:
    int le_tiny()
    bint LE_TINY_VERIFIES


def tell():
    return le_tiny(), bool(LE_TINY_VERIFIES)
'''

HEADER = """
#ifdef LE_VERIFY
#define LE_TINY_VERIFIES 1
#else
#define LE_TINY_VERIFIES 0
#endif
static inline int le_tiny(void) { return 1; }
"""


def environment(**changes):
    """The environment without the sanitizers and variants of a run of this suite, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES | {"LD_PRELOAD"}}
    return kept | changes


def run(command, folder, **changes):
    return subprocess.run(command, cwd=folder, env=environment(**changes), capture_output=True, text=True)


class Tree:
    """A package with the name and the build of this one, and one small module."""

    def __init__(self, folder):
        self.folder = folder
        self.package = folder / "linux_event"
        (self.package / "include").mkdir(parents=True)
        for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        for name in ("__init__.py", "__init__.pyi", "py.typed", "tiny.pxd", "tiny.pyi"):
            (self.package / name).touch()
        (self.package / "tiny.pyx").write_text(MODULE)
        self.header = self.package / "include" / "le_tiny.h"
        self.header.write_text(HEADER)

    def try_build(self, **changes):
        return run([sys.executable, "setup.py", "build_ext", "--inplace"], self.folder, **changes)

    def build(self, **changes):
        done = self.try_build(**changes)
        assert done.returncode == 0, done.stdout + done.stderr

    def extension(self):
        (found,) = self.package.glob("tiny*.so")
        return found

    def state(self):
        """Changes with every build that makes the extension anew."""
        status = self.extension().stat()
        return status.st_mtime_ns, status.st_ino

    def tell(self):
        done = run([sys.executable, "-c", "import linux_event.tiny as t; print(*t.tell())"], self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "tree")


def test_a_second_build_does_nothing_and_a_changed_header_is_noticed(tree):
    tree.build()
    assert tree.tell() == ["1", "False"]
    built = tree.state()
    tree.build()
    assert tree.state() == built
    tree.header.write_text(HEADER.replace("return 1", "return 2"))
    # A time stamp that no clock of the file system takes for the old one.
    os.utime(tree.header, ns=(built[0] + 10**9, built[0] + 10**9))
    tree.build()
    assert tree.tell() == ["2", "False"]


def test_a_changed_variant_is_built_afresh(tree):
    tree.build()
    tree.build(LE_VERIFY="1")
    assert tree.tell() == ["1", "True"]
    tree.build()
    assert tree.tell() == ["1", "False"]


def test_the_same_sources_give_the_same_extension(tree):
    tree.build()
    first = tree.extension().read_bytes()
    shutil.rmtree(tree.folder / "build")
    tree.extension().unlink()
    (tree.package / "tiny.c").unlink()
    tree.build()
    assert tree.extension().read_bytes() == first


def test_warnings_are_errors_when_asked(tree):
    tree.build(LE_WERROR="1")
    (tree.package / "tiny.pyx").write_text(MODULE + "\n\ndef f():\n    return 1\n    return 2\n")
    done = tree.try_build(LE_WERROR="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: Cython refuses linux_event/tiny.pyx"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("header", "package"), [("liburing.h", "liburing-dev"), ("Python.h", "python3-dev")])
def test_a_missing_header_stops_the_build_with_one_line(tree, header, package):
    compiler = tree.folder / "cc"
    compiler.write_text(f'#!/bin/sh\n! grep -q "include <{header}>"\n')
    compiler.chmod(0o755)
    done = tree.try_build(CC=str(compiler))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert header in line and f"apt install {package} " in line
    assert not list(tree.package.glob("*.c"))


def test_a_missing_compiler_stops_the_build_with_one_line(tree):
    done = tree.try_build(CC=str(tree.folder / "no-such-compiler"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "C compiler" in line and "no-such-compiler" in line


def test_the_wheel_holds_what_other_extensions_and_type_checkers_need(tree):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheels", "."]
    done = run(command, tree.folder)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree.folder / "wheels").glob("linux_event-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("linux_event/")}
    extension = next(name for name in names if name.endswith(".so"))
    assert names == {extension} | {
        f"linux_event/{name}"
        for name in ("__init__.py", "__init__.pyi", "py.typed", "tiny.pyx", "tiny.pxd", "tiny.pyi", "include/le_tiny.h")
    }


def test_the_source_archive_holds_the_sources_alone_and_builds(tree, tmp_path):
    tree.build()
    done = run([sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)], tree.folder)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", archive], cwd=tmp_path, check=True)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert {path.suffix for path in (unpacked / "linux_event").rglob("*")} == {
        "",
        ".h",
        ".typed",
        ".py",
        ".pyi",
        ".pyx",
        ".pxd",
    }
    done = run([sys.executable, "setup.py", "build_ext", "--inplace"], unpacked)
    assert done.returncode == 0, done.stderr


def test_a_copy_of_the_tree_follows_it(tree, tmp_path):
    (tree.folder / "tools").mkdir()
    script = shutil.copy(ROOT / "tools" / "copy_tree.py", tree.folder / "tools")
    copy = tmp_path / "copy"
    command = [sys.executable, script, str(copy), "--without", "LICENSE"]

    def files():
        subprocess.run(command, check=True)
        return {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}

    tree.build()
    first = files()
    assert "linux_event/tiny.pyx" in first and "tools/copy_tree.py" in first
    assert not any(name.endswith((".c", ".so")) or name.startswith("build") for name in first)
    assert "LICENSE" not in first
    # What was built there stays; what changed, came and went is followed.
    (copy / "linux_event" / "tiny.c").touch()
    (copy / "build").mkdir()
    unchanged = (copy / "README.md").stat().st_mtime_ns
    tree.header.write_text(HEADER + "\n")
    (tree.package / "tiny.pyi").unlink()
    (tree.package / "new.py").touch()
    assert files() == first - {"linux_event/tiny.pyi"} | {"linux_event/new.py", "linux_event/tiny.c"}
    assert (copy / "linux_event" / "include" / "le_tiny.h").read_text() == HEADER + "\n"
    assert (copy / "README.md").stat().st_mtime_ns == unchanged
    assert (copy / "build").is_dir()


SHORT_OF_MEMORY = """
def f():
    try:
        g()
    except MemoryError:
        wait()

        raise
    return 1
"""


@pytest.mark.parametrize(
    ("missing", "code", "shown"),
    [
        ({"a": [20], "b": []}, 0, "95.0 %"),
        ({"a": [19, 20], "b": []}, 1, "90.0 %"),
        ({"a": []}, 1, "100.0 %"),
        ({"a": [5, 6, 8], "b": []}, 0, "100.0 %"),
        ({"a": [5, 6, 8, 9], "b": []}, 1, "94.1 %"),
    ],
)
def test_every_file_needs_its_coverage(tmp_path, missing, code, shown):
    """What happens where there is no memory is left out."""
    (tmp_path / "linux_event").mkdir()
    for name in "ab":
        (tmp_path / "linux_event" / f"{name}.pyx").write_text(SHORT_OF_MEMORY if 5 in missing.get(name, ()) else "")
    files = {
        f"linux_event/{name}.pyx": {
            "executed_lines": [line for line in range(1, 21) if line not in lines],
            "missing_lines": lines,
        }
        for name, lines in missing.items()
    }
    (tmp_path / "coverage.json").write_text(json.dumps({"files": files}))
    done = run([sys.executable, str(ROOT / "tools" / "coverage_minimum.py"), str(tmp_path), "95"], tmp_path)
    assert done.returncode == code, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert shown in done.stdout.splitlines()[0]


def test_requirements_are_read_from_the_project():
    done = run([sys.executable, str(ROOT / "tools" / "requirements.py"), "build", "test"], ROOT)
    assert done.returncode == 0, done.stderr
    assert {line[:6] for line in done.stdout.splitlines()} >= {"setupt", "cython", "pytest"}


def test_other_pythons_are_other_ones_that_run():
    done = run([sys.executable, str(ROOT / "tools" / "other_pythons.py")], ROOT)
    assert done.returncode == 0, done.stderr
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for line in done.stdout.splitlines():
        name, executable = line.split(maxsplit=1)
        told = run([executable, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"], ROOT).stdout.strip()
        assert told == name != own
