"""spawn: what fails, and that nothing is left of it."""

import contextlib
import errno
import os
import resource
import subprocess
import threading
from subprocess import PIPE, STDOUT

import pytest
from _support import finish, open_fds

from linux_event import Loop, LoopClosedError, WrongThreadError


@pytest.mark.parametrize(
    ("args", "options", "kind"),
    [
        (["/no/such/program"], {}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["true"], {"cwd": "/no/such/folder"}, FileNotFoundError),
        (["true"], {"cwd": "/etc/passwd"}, NotADirectoryError),
        (["tr\0ue"], {}, ValueError),
        (7, {}, TypeError),
        (["true"], {"env": {"A=B": "c"}}, ValueError),
        (["true"], {"nonsense": 1}, TypeError),
        (["true"], {"on_exit": 1}, TypeError),
        (["true"], {"stdout": STDOUT}, ValueError),
        (["true"], {"stdin": STDOUT}, ValueError),
        (["true"], {"stdout": "file"}, AttributeError),
        (["true"], {"pipesize": "1"}, TypeError),
        (["true"], {"text": True}, ValueError),
        (["true"], {"universal_newlines": True}, ValueError),
        (["true"], {"encoding": "utf-8"}, ValueError),
        (["true"], {"errors": "strict"}, ValueError),
        (["true"], {"bufsize": 0}, ValueError),
    ],
)
def test_it_is_not_started(loop, args, options, kind):
    before = open_fds()
    with pytest.raises(kind):
        loop.spawn(args, **{"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **options})
    assert open_fds() == before
    assert loop.statistics().operations_in_flight == 0
    finish(loop)


def test_the_message_says_what_is_for_text(loop):
    with pytest.raises(ValueError, match=r"encoding='utf-8': the pipes of a process are streams of bytes"):
        loop.spawn(["true"], encoding="utf-8")
    assert loop.spawn(["true"], text=None, bufsize=-1, encoding=None).pid
    finish(loop)


def test_without_fds(loop):
    """At any number of fds that are left: an error, and nothing is left over, or all is well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop.spawn(["true"])
    finish(loop)
    outcomes = []
    before = open_fds()
    for left in range(16):
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 20, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            for _ in range(left):
                os.close(taken.pop())
            process = loop.spawn(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except OSError as error:
            outcomes.append(error.errno)
        else:
            outcomes.append(None)
            del process
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)
        finish(loop)
        assert open_fds() == before
    few = outcomes.index(None)
    assert few >= 7
    assert outcomes == [errno.EMFILE] * few + [None] * (16 - few)


def test_no_fd_is_left_for_the_pidfd(loop, monkeypatch):
    """The process runs by then: it is killed and reaped, and the call raises."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))

    monkeypatch.setattr(subprocess, "Popen", Popen)
    before = open_fds()
    try:
        with pytest.raises(OSError, match=r"Too many open files: process \d+"):
            loop.spawn(["sleep", "3600"], stdin=PIPE, stdout=PIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert open_fds() == before
    assert started.pop().returncode == -9
    finish(loop)


def test_no_watcher_for_it(loop, monkeypatch):
    """The same when its streams are there already."""

    class Popen(subprocess.Popen):
        code, is_broken = None, False

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.is_broken = True

        @property
        def returncode(self):
            if self.is_broken:
                self.is_broken = False
                raise MemoryError
            return self.code

        @returncode.setter
        def returncode(self, code):
            self.code = code

    monkeypatch.setattr(subprocess, "Popen", Popen)
    before = open_fds()
    with pytest.raises(MemoryError):
        loop.spawn(["sleep", "3600"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    finish(loop)
    assert open_fds() == before
    assert not loop.watchers


def test_a_closed_loop_and_another_thread():
    with Loop() as loop:
        loop.run_once(0)
        errors = []

        def call():
            try:
                loop.spawn(["true"])
            except WrongThreadError as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert len(errors) == 1
    with pytest.raises(LoopClosedError):
        loop.spawn(["true"])
