"""MountWatcher: what is told of, arguments, its life. Hard cases are in test_mount_hard.py, refusals in
test_mount_refused.py."""

import errno
import os
import pathlib
import shutil

import pytest
from _children import kernel_threads
from _mounts import Told, mounted, privileged, run, take
from _support import finish, made_loop, run_until

from linux_event import Loop, MountWatcher
from linux_event.watchers import mount as mount_module

ALL = {"access", "modify", "close_write", "close_nowrite", "open", "open_exec"}
OWN = os.getpid


@pytest.fixture
def told(folder, loop):
    """Notes what is told of the folder."""
    told = Told()
    told.watcher = loop.fswatch(folder, "all", told)
    return told


def put(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


# --- what is told ----------------------------------------------------------------------------------------------------


def opened(path):
    os.close(os.open(path, os.O_RDONLY))


def read(path):
    pathlib.Path(path).read_bytes()


ACTIONS = {
    "open and close": (opened, {"open", "close_nowrite"}),
    "read": (read, {"open", "access", "close_nowrite"}),
    "write": (put, {"open", "modify", "close_write"}),
    # By name alone, without an fd: no mount is known then.
    "truncate": (lambda path: os.truncate(path, 0), set()),
    "stat": (os.stat, set()),
    "chmod": (lambda path: os.chmod(path, 0o600), set()),
}


@privileged
@pytest.mark.parametrize("name", ACTIONS)
def test_what_is_done_to_a_file(loop, told, folder, name):
    action, names = ACTIONS[name]
    path = os.path.join(folder, "file")
    put(path)
    take(loop)
    told.clear()
    action(path)
    take(loop)
    assert told == ([(frozenset(names), path, OWN())] if names else [])


@privileged
def test_a_directory(loop, told, folder):
    os.mkdir(f"{folder}/inner")
    os.listdir(f"{folder}/inner")
    take(loop)
    assert told == [({"open", "access", "close_nowrite", "isdir"}, f"{folder}/inner", OWN())]


@privileged
def test_a_program(loop, told, folder):
    shutil.copy("/bin/true", folder)
    take(loop)
    told.clear()
    pid = run(f"{folder}/true")
    take(loop)
    assert {pid for _, _, pid in told} == {pid}
    assert set(told.paths) == {f"{folder}/true"}
    assert {"open", "open_exec", "access"} <= told.of(f"{folder}/true")


@privileged
def test_who_it_was(loop, told, folder):
    put(f"{folder}/file")
    take(loop)
    told.clear()
    first = run("cat", f"{folder}/file")
    second = run("sh", "-c", f": >> {folder}/file")
    read(f"{folder}/file")
    take(loop)
    assert [pid for _, _, pid in told] == [first, second, OWN()]
    assert told[1] == ({"open", "close_write"}, f"{folder}/file", second)


@privileged
@pytest.mark.parametrize("names", [{"open"}, {"close_write", "close_nowrite"}, {"modify"}, {"open", "access"}])
def test_only_what_was_asked_for(loop, folder, names):
    told = Told()
    watcher = loop.fswatch(folder, iter(names), told)
    assert watcher.events == names
    assert type(watcher.events) is frozenset
    for step in (put, read, put):
        step(f"{folder}/file")
    take(loop)
    assert told.of(f"{folder}/file") == names & ALL


@privileged
def test_all_is_everything(told):
    assert told.watcher.events == ALL


@privileged
def test_the_whole_mount_and_nothing_else(loop, folder, tmp_path):
    os.makedirs(f"{folder}/a/b/c")
    told = Told()
    loop.fswatch(f"{folder}/a/b", ["open"], told)
    for path in (f"{folder}/a/b/c/deep", f"{folder}/high", tmp_path / "outside"):
        put(path)
    with mounted(tmp_path / "bind", f"{folder}/a", None, 4096) as bind:
        read(f"{bind}/b/c/deep")  # the same file by another mount
        read(f"{folder}/a/b/c/deep")
        take(loop)
    assert told.paths == [f"{folder}/a/b/c/deep", f"{folder}/high", f"{folder}/a/b/c/deep"][:2]
    assert [names for names, _, _ in told] == [{"open"}] * 2


@privileged
def test_a_bind_mount_tells_its_own_paths(loop, folder, tmp_path):
    os.mkdir(f"{folder}/a")
    put(f"{folder}/a/file")
    with mounted(tmp_path / "bind", f"{folder}/a", None, 4096) as bind:
        told = Told()
        watcher = loop.fswatch(bind, ["open"], told)
        read(f"{folder}/a/file")
        read(f"{bind}/file")
        take(loop)
        assert told.paths == [f"{bind}/file"]
        watcher.destroy()


class Pathlike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


class Text(str):
    pass


@privileged
@pytest.mark.parametrize(
    "make", [str, os.fsencode, pathlib.Path, Text, Pathlike, lambda path: Pathlike(os.fsencode(path))]
)
def test_types_of_paths(loop, folder, make):
    given = make(folder)
    kind = bytes if isinstance(os.fspath(given), bytes) else str
    told = Told()
    watcher = loop.fswatch(given, ["open"], told)
    name = b"\xff\xe4 \n"  # no UTF-8
    put(os.fsencode(folder) + b"/" + name)
    take(loop)
    expected = os.fsencode(folder) + b"/" + name
    assert told.paths == [expected if kind is bytes else os.fsdecode(expected)]
    assert type(told.paths[0]) is kind
    assert type(watcher.path) is kind
    assert os.fsencode(watcher.path) == os.fsencode(folder)


@privileged
def test_a_path_may_be_relative_a_file_or_a_link(loop, folder, monkeypatch, tmp_path):
    put(f"{folder}/file")
    os.symlink(f"{folder}/file", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    for path in ("mount", "mount/file", "link"):
        told = Told()
        with loop.fswatch(path, ["open"], told) as watcher:
            assert watcher.path == path
            read(f"{folder}/file")
            take(loop)
        assert told.paths == [f"{folder}/file"]


@privileged
def test_names_that_are_gone_meanwhile(loop, told, folder):
    for name in ("removed", "kept (deleted)", "linked"):
        put(f"{folder}/{name}")
    os.mkdir(f"{folder}/inner")
    take(loop)
    told.clear()
    read(f"{folder}/removed")
    read(f"{folder}/kept (deleted)")
    read(f"{folder}/linked")
    os.listdir(f"{folder}/inner")
    os.unlink(f"{folder}/removed")
    os.rmdir(f"{folder}/inner")
    with open(f"{folder}/linked"):  # its name is kept in mind by the kernel
        os.link(f"{folder}/linked", f"{folder}/other")
        os.unlink(f"{folder}/linked")
        take(loop)
    names = ["removed", "kept (deleted)", "linked", "inner"]
    assert told.paths[: len(names)] == [f"{folder}/{name}" for name in names]
    assert "isdir" in told.of(f"{folder}/inner")


@privileged
def test_a_file_that_is_renamed_meanwhile(loop, told, folder):
    put(f"{folder}/old")
    os.rename(f"{folder}/old", f"{folder}/new")
    take(loop)
    assert told.paths == [f"{folder}/new"]


@privileged
def test_the_longest_path(loop, told, folder):
    name = "n" * 250
    depth = (4095 - len(os.fsencode(folder)) - 10) // (len(name) + 1)
    here = os.open(folder, os.O_PATH)
    for _ in range(depth + 1):  # the last folder has a path that is too long
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    outer = os.open("..", os.O_PATH, dir_fd=here)
    errors = []
    loop.on_error = lambda source, error: errors.append((source, error))
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=outer))
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    os.close(outer)
    take(loop)
    assert told.paths == [folder + f"/{name}" * depth + "/file"]
    [(source, error)] = errors
    assert source is told.watcher
    assert error.errno == errno.ENAMETOOLONG
    assert error.filename == folder
    assert f"process {OWN()} (close_write open)" in str(error)


@privileged
def test_a_fifo_disturbs_nobody(loop, told, folder):
    os.mkfifo(f"{folder}/fifo")
    os.close(os.open(f"{folder}/fifo", os.O_RDWR))
    put(f"{folder}/file")
    take(loop)
    assert told.paths[-1] == f"{folder}/file"


@privileged
def test_the_event(loop, folder):
    seen = []
    loop.fswatch(folder, ["open"], lambda watcher, event: seen.append(event))
    put(f"{folder}/file")
    put(f"{folder}/other")
    take(loop)
    [event, other] = seen
    assert repr(event) == f"<MountEvent open pid={OWN()} '{folder}/file'>"
    assert type(event.names) is frozenset
    assert event.names is other.names  # made once
    for name in ("path", "names", "pid"):
        with pytest.raises(AttributeError):
            setattr(event, name, None)
    with pytest.raises(TypeError, match="cannot be created"):
        type(event)()


# --- its own events --------------------------------------------------------------------------------------------------


@privileged
def test_without_its_own_events(loop, folder):
    told = Told()

    def note(watcher, event):
        put(f"{folder}/log")  # which would be an event
        told(watcher, event)

    watcher = loop.fswatch(folder, "all", note, own=False)
    assert watcher.own is False
    pids = []
    for _ in range(3):
        put(f"{folder}/own")
        pids.append(run("touch", f"{folder}/file"))
        read(f"{folder}/own")
    take(loop)
    assert [pid for _, _, pid in told] == pids
    put(f"{folder}/own")
    before = loop.statistics()
    take(loop)
    assert loop.statistics().callbacks == before.callbacks
    pids.append(run("touch", f"{folder}/file"))
    take(loop)
    assert [pid for _, _, pid in told] == pids


@privileged
def test_with_its_own_events_a_callback_causes_others(loop, folder):
    calls = []

    def note(watcher, event):
        calls.append(event.path)
        if len(calls) == 5:
            watcher.destroy()
        put(f"{folder}/log{len(calls)}")

    assert loop.fswatch(folder, ["close_write"], note).own is True
    put(f"{folder}/file")
    finish(loop)
    assert calls == [f"{folder}/file", *(f"{folder}/log{number}" for number in range(1, 5))]


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, 5, 1.5, [], object(), bytearray(b"/"), Pathlike(5)])
def test_paths_of_bad_type(loop, path):
    with pytest.raises(TypeError, match=r"^path must be str, bytes or os.PathLike, not"):
        loop.fswatch(path, "all", print)
    assert not loop.watchers


@pytest.mark.parametrize("path", ["/\0", b"\0", pathlib.PurePath("/a\0b"), "\ud800"])
def test_paths_of_bad_value(loop, path):
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        loop.fswatch(path, "all", print)
    assert not loop.watchers


@pytest.mark.parametrize("events", [None, 5, object(), [5], [b"open"], b"open", ["open", None]])
def test_events_of_bad_type(loop, events):
    with pytest.raises(TypeError, match=r"^events must be"):
        loop.fswatch("/", events, print)


@pytest.mark.parametrize("events", ["", "open", "ALL", [], (), ["all"], ["open", "nonsense"], ["isdir"], ["overflow"]])
def test_events_of_bad_value(loop, events):
    with pytest.raises(ValueError, match=r'^events must .*"access", "modify"'):
        loop.fswatch("/", events, print)


@pytest.mark.parametrize("name", ["attrib", "moved_from", "moved_to", "create", "delete", "delete_self", "move_self"])
def test_events_that_only_inotify_tells(loop, name):
    with pytest.raises(ValueError, match=rf'"{name}".*use loop\.watch'):
        loop.fswatch("/", ["open", name], print)


@pytest.mark.parametrize("own", [None, 0, 1, "yes"])
def test_own_is_a_bool(loop, own):
    with pytest.raises(TypeError, match=r"^own must be True or False"):
        loop.fswatch("/", "all", print, own=own)


@pytest.mark.parametrize("callback", [None, 5, "print"])
def test_bad_callbacks(loop, callback):
    with pytest.raises(TypeError, match="callback must be callable"):
        loop.fswatch("/", "all", callback)
    assert not loop.watchers


@privileged
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("make", [str, os.fsencode])
def test_no_such_path(loop, tmp_path, start, make):
    for path, number in ((tmp_path / "none", errno.ENOENT), (f"{__file__}/x", errno.ENOTDIR), ("/" + "n" * 300, 36)):
        path = make(path)
        with pytest.raises(OSError) as caught:
            loop.fswatch(path, "all", print, start=start)
        assert caught.value.errno == number
        assert caught.value.filename == path
        with pytest.raises(OSError):
            loop.fswatch(path, "all")(print)
    assert not loop.watchers


@privileged
def test_a_path_that_is_gone_when_it_is_started(loop, tmp_path):
    os.mkdir(tmp_path / "folder")
    watcher = loop.fswatch(tmp_path / "folder", "all", print, start=False)
    os.rmdir(tmp_path / "folder")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            watcher.start()
        assert not watcher.is_active()
    os.mkdir(tmp_path / "folder")
    assert watcher.start() is watcher
    assert watcher.is_active()


# --- its life --------------------------------------------------------------------------------------------------------


@privileged
def test_decorator_and_class(loop, folder):
    told = Told()

    @loop.fswatch(folder, ["open"], own=True, priority=1)
    def by_decorator(watcher, event):
        told(watcher, event)

    by_class = MountWatcher(loop, folder, ["open"], told)
    assert type(by_decorator) is MountWatcher
    assert by_decorator.priority == 1
    put(f"{folder}/file")
    take(loop)
    assert told.paths == [f"{folder}/file"] * 2
    assert repr(by_class) == f"<MountWatcher id={by_class.id} path={folder!r} events=open active>"
    for name in ("path", "events", "own"):
        with pytest.raises(AttributeError):
            setattr(by_class, name, None)


@privileged
@pytest.mark.parametrize("runs", [0, 1])
def test_what_happens_while_it_is_stopped_is_not_told(loop, told, folder, runs):
    put(f"{folder}/before")
    for _ in range(runs):
        assert loop.run_once(0) == 1
        put(f"{folder}/last")
    told.watcher.stop()
    put(f"{folder}/between")
    take(loop)
    told.watcher.start()
    put(f"{folder}/after")
    take(loop)
    assert told.paths == [f"{folder}/before"] * runs + [f"{folder}/after"]


@privileged
def test_started_again_before_the_loop_runs(loop, told, folder):
    for _ in range(4):
        put(f"{folder}/before")
        told.watcher.stop().start()
        loop.run_once(0)
        told.watcher.stop().start().stop().start()
    put(f"{folder}/after")
    take(loop)
    assert told.paths == [f"{folder}/after"]


@privileged
def test_it_keeps_run_going_unless_told_otherwise(loop, told, folder):
    told.watcher.ref = False
    finish(loop)
    told.watcher.ref = True
    told.watcher.callback = lambda watcher, event: (told(watcher, event), watcher.stop())
    loop.timer(0.01, lambda timer: put(f"{folder}/file"))
    finish(loop)
    assert told.paths == [f"{folder}/file"]


@privileged
def test_nothing_spins_and_no_thread_is_needed(loop, told, folder):
    threads = kernel_threads()  # some may be left of earlier tests, and wait for work
    put(f"{folder}/file")
    take(loop)
    before = loop.statistics()
    loop.run(0.1)
    after = loop.statistics()
    assert after.iterations - before.iterations <= 3
    assert after.completions == before.completions
    assert len(kernel_threads()) <= len(threads)


@privileged
def test_several_watchers_and_loops(loop, told, folder):
    others = [Told() for _ in range(4)]
    with made_loop() as other:
        for number, fellow in enumerate(others):
            (loop, other)[number % 2].fswatch(folder, ["close_write"], fellow)
        put(f"{folder}/file")
        take(loop)
        take(other)
        assert [fellow.paths for fellow in (told, *others)] == [[f"{folder}/file"]] * 5


@privileged
@pytest.mark.parametrize("lacking", [[], ["FD_ERROR"]])
def test_with_an_older_kernel(loop, folder, lacking):
    mount_module.pretend(*lacking)
    told = Told()
    with loop.fswatch(folder, ["open"], told):
        put(f"{folder}/file")
        take(loop)
    assert told == [({"open"}, f"{folder}/file", OWN())]
    mount_module.pretend()


@privileged
def test_a_loop_that_polls_its_submissions(folder):
    with made_loop(sqpoll=True) as loop:
        told = Told()
        loop.fswatch(folder, ["close_write"], told)
        loop.run_once(0)
        put(f"{folder}/file")
        run_until(loop, lambda: told)
        assert told.paths == [f"{folder}/file"]


def test_no_privilege_is_needed_for_the_import():
    assert callable(Loop.fswatch)
    assert issubclass(MountWatcher, object)
