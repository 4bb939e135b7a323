"""Mounts for the tests of their watchers: file systems of their own, so that nobody else's events are among those they get."""

import contextlib
import ctypes
import errno
import os
import subprocess

import pytest
from _example import foreign
from _fault import wait_until
from _support import KINDS

MNT_DETACH = 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN = 1, 2, 21

_libc = ctypes.CDLL(None, use_errno=True)

privileged = pytest.mark.skipif("fswatch" not in KINDS, reason="watching a mount needs CAP_SYS_ADMIN")


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, kind, flags=0):
    arguments = (os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), f"mount {target}")


def unmount(target, flags=0):
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def is_unmounted(target):
    """Whether it could be unmounted."""
    try:
        unmount(target)
    except OSError as error:
        assert error.errno == errno.EBUSY
        return False
    return True


@contextlib.contextmanager
def mounted(folder, source="none", kind=b"tmpfs", flags=0):
    """A mount on a new folder, unmounted at the end, which fails if anything stays in use."""
    os.mkdir(folder)
    try:
        mount(source, folder, kind, flags)
    except PermissionError as error:
        pytest.skip(f"no file system can be mounted: {error}")
    try:
        yield str(folder)
    except BaseException:
        unmount(folder, MNT_DETACH)
        raise
    try:
        # What the kernel has to do when a ring is closed it does a little later.
        wait_until(lambda: is_unmounted(folder))
    except BaseException:
        unmount(folder, MNT_DETACH)
        raise


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _capabilities(call, masks):
    header = _Header(0x20080522, 0)
    _check(getattr(_libc, call)(ctypes.byref(header), masks), call)


@contextlib.contextmanager
def without_capabilities(*numbers):
    """Let this thread lack capabilities meanwhile."""
    masks = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, the low halves first
    _capabilities("capget", masks)
    effective = masks[0]
    for number in numbers:
        masks[0] &= ~(1 << number)
    _capabilities("capset", masks)
    try:
        yield
    finally:
        masks[0] = effective
        _capabilities("capset", masks)


def run(*command):
    """Run a program of others; its pid."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, env=foreign())
    assert process.wait() == 0
    return process.pid


def touch(folder, count, first=0):
    """Open and close `count` files for writing; their paths."""
    paths = [f"{folder}/{number}" for number in range(first, first + count)]
    for path in paths:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return paths


def take(loop):
    """Let the loop take all that has happened."""
    while loop.run_once(0):
        pass


class Told(list):
    """A callback that notes (names, path, pid) of each event."""

    def __call__(self, watcher, event):
        self.append((event.names, event.path, event.pid))

    @property
    def paths(self):
        return [path for _, path, _ in self]

    def of(self, path):
        """All names that were told of a path."""
        return frozenset().union(*(names for names, told, _ in self if told == path))
