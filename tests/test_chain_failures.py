"""Chains behind a request whose failure the kernel does not take for one."""

import errno
import mmap
import os
import socket

import pytest
from _support import finish
from test_chain import expect_chain_cancelled


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        yield file


@pytest.mark.parametrize("hard", [False, True])
def test_a_shutdown_that_fails_ends_the_chain(loop, file, hard):
    """The kernel would go on behind it."""
    with socket.socket() as unconnected:
        with loop.link(hard=hard):
            failing = loop.shutdown(unconnected, socket.SHUT_WR, on_error=lambda error: None)
            after = loop.write(file, b"x")
        finish(loop)
    assert failing.exception().errno == errno.ENOTCONN
    if hard:
        assert after.result() == 1
    else:
        expect_chain_cancelled(after)
    assert os.path.getsize(file.name) == (1 if hard else 0)


@pytest.mark.parametrize("name", ["shutdown", "madvise", "getxattr", "fgetxattr", "setxattr", "fsetxattr"])
def test_a_raw_request_that_fails_ends_the_chain(loop, pipe, file, name):
    ring = loop.ring
    data = bytearray(100)
    with socket.socket() as unconnected, mmap.mmap(-1, mmap.PAGESIZE) as page:
        calls = {
            "shutdown": (unconnected, socket.SHUT_WR),
            "madvise": (page, 12345),
            "getxattr": (file.name, "user.none", data),
            "fgetxattr": (file, "user.none", data),
            "setxattr": (file.name + "none", "user.none", b"x"),
            "fsetxattr": (pipe.r, "user.none", b"x"),
        }
        with loop.link():
            failing = getattr(ring, name)(*calls[name])
            after = loop.write(file, b"x")
        finish(loop)
    assert failing.result() < 0
    expect_chain_cancelled(after)
    assert os.path.getsize(file.name) == 0


def test_a_truncate_to_more_than_one_request_could_move(loop, file):
    """Its length is no number of bytes to move."""
    with loop.link():
        cut = loop.truncate(file, 3 << 30)
        after = loop.fsync(file)
    finish(loop)
    assert cut.result() is after.result() is None
    assert os.path.getsize(file.name) == 3 << 30
