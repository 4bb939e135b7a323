"""The examples that read many files: `cat`, and checksums with a ring alone."""

import os
import random
import re
import subprocess
import zlib

import pytest
from _example import running
from _support import scaled


@pytest.fixture
def files(tmp_path):
    """Paths of many small files, an empty one and one that is larger than any buffer."""
    chance = random.Random(5)
    paths = []
    for number in range(scaled(2000, least=50)):
        path = tmp_path / f"file{number:04}"
        path.write_bytes(chance.randbytes(chance.randrange(5000)))
        paths.append(path)
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(chance.randbytes(3_000_000))
    return [*paths, tmp_path / "empty", tmp_path / "large"]


def finished(example):
    """Output and error output of an example that ends by itself, and its status."""
    output, errors = example.process.communicate(timeout=60)
    return output, errors.decode(), example.process.returncode


def test_cat_prints_what_cat_prints(files):
    with running("09_fast_cat.py", "--statistics", *files) as example:
        output, errors, status = finished(example)
    assert output == subprocess.run(["cat", *files], capture_output=True, check=True).stdout
    assert status == 0
    count, calls = re.fullmatch(r"(\d+) files, [\d.]+ ms, (\d+) system calls of the loop\n", errors).groups()
    assert int(count) == len(files)
    assert int(calls) < len(files)  # cat makes six for each file


def test_cat_of_names_in_a_list(files, tmp_path):
    (tmp_path / "list").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in files[:3]))
    with running("09_fast_cat.py", "--from0", tmp_path / "list") as example:
        output, errors, status = finished(example)
    assert output == b"".join(path.read_bytes() for path in files[:3])
    assert (errors, status) == ("", 0)


def test_cat_goes_on_behind_what_it_cannot_read(files, tmp_path):
    with running("09_fast_cat.py", files[0], tmp_path / "none", tmp_path, files[1]) as example:
        output, errors, status = finished(example)
    assert output == files[0].read_bytes() + files[1].read_bytes()
    assert errors == f"{tmp_path}/none: No such file or directory\n{tmp_path}: Is a directory\n"
    assert status == 1


def test_cat_that_nobody_reads(files):
    with running("09_fast_cat.py", *files) as example:
        example.process.stdout.close()
        with example.process.stderr as errors:
            assert errors.read() == b""
        assert example.process.wait(60) == 141


@pytest.mark.parametrize("jobs", [1, 16])
def test_checksums(files, tmp_path, jobs):
    files = files[-100:]
    with running("10_raw_ring.py", "-j", jobs, *files, tmp_path / "none", tmp_path) as example:
        output, errors, status = finished(example)
    expected = [f"{zlib.crc32(path.read_bytes()):08x} {path.stat().st_size:>12} {path}" for path in files]
    assert sorted(output.decode().splitlines()) == sorted(expected)
    assert sorted(errors.splitlines()) == [f"{tmp_path}/none: No such file or directory", f"{tmp_path}: Is a directory"]
    assert status == 1
