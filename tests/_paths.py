"""What the tests of operations on paths share: the callback's view of one, and a folder with something of each kind."""

import os
import socket
import stat
from pathlib import Path

from _support import finish

PLACE = {"file", "empty", "folder", "to file", "to folder", "to nothing", "to itself", "fifo", "socket"}


class Opened:
    """An object with fileno() that closes its fd when it is freed."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)

    def fileno(self):
        return self.fd

    def __del__(self):
        os.close(self.fd)


def outcome(loop, method, *args, **keywords):
    """What the callback of an operation got: result and error."""
    calls = []
    operation = getattr(loop, method)(*args, callback=lambda *call: calls.append(call), **keywords)
    assert not calls, "called back within the call"
    finish(loop)
    assert len(calls) == 1
    result, error = calls[0]
    assert operation.done()
    assert operation.exception() is error
    if error is None:
        assert operation.result() is result
    else:
        assert result is None
    return result, error


def result_of(loop, method, *args, **keywords):
    result, error = outcome(loop, method, *args, **keywords)
    assert error is None, error
    return result


def error_of(loop, method, *args, **keywords):
    result, error = outcome(loop, method, *args, **keywords)
    assert result is None
    return error


def make_place(folder):
    """Put PLACE into a folder."""
    for path, content in (("file", b"x" * 5000), ("empty", b""), ("folder", None), ("folder/inner", b"inner")):
        (folder / path).mkdir() if content is None else (folder / path).write_bytes(content)
    for name in ("file", "folder", "nothing"):
        (folder / f"to {name}").symlink_to(name)
    (folder / "to itself").symlink_to("to itself")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket"))


def tree():
    """Everything in the current folder: name, type and what it says."""
    found = {}
    for folder, folders, files in os.walk("."):
        for name in folders + files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            text = os.readlink(path) if stat.S_ISLNK(mode) else Path(path).read_bytes() if stat.S_ISREG(mode) else None
            found[path] = (stat.S_IFMT(mode), text)
    return found
