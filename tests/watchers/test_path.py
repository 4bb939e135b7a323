"""PathWatcher: events, arguments, several watchers, starting and stopping; files and directories, not recursive."""

import errno
import os
import pathlib

import pytest
from _fault import unexpected
from _support import BOUND, finish, made_loop, open_fds, run_until, scaled
from _trees import Seen, Told, made_folder, write

from linux_event import DestroyedError, PathWatcher
from linux_event.watchers.happening import PathEvent

ALL = frozenset(
    ["access", "modify", "attrib", "close_write", "close_nowrite", "open", "moved_from", "moved_to", "create", "delete"]
) | {"delete_self", "move_self"}


@pytest.fixture
def folder(tmp_path):
    return made_folder(tmp_path, "folder")


@pytest.fixture
def told(loop, folder):
    return Told(loop, folder)


# --- events ----------------------------------------------------------------------------------------------------------


def test_every_event_of_a_directory(loop, folder, told):
    path = folder + "/f"
    watcher = loop.watch(folder, "all", told.seen)
    assert type(watcher) is PathWatcher
    assert told() == []
    assert told(lambda: write(path)) == [("create", path), ("open", path), ("modify", path), ("close_write", path)]
    assert told(lambda: pathlib.Path(path).read_bytes()) == [("open", path), ("access", path), ("close_nowrite", path)]
    assert told(lambda: os.chmod(path, 0o600)) == [("attrib", path)]
    assert told(lambda: os.rename(path, folder + "/g")) == [("moved_from", path), ("moved_to", folder + "/g")]
    assert told(lambda: os.unlink(folder + "/g")) == [("delete", folder + "/g")]
    assert told(lambda: os.mkdir(path)) == [("create|isdir", path)]
    assert told(lambda: os.rmdir(path)) == [("delete|isdir", path)]
    assert told(lambda: os.symlink("/", path)) == [("create", path)]
    assert told(lambda: os.mkfifo(folder + "/h")) == [("create", folder + "/h")]
    assert told(lambda: os.chmod(folder, 0o700)) == [("attrib|isdir", folder)]


def test_events_of_a_file(loop, folder, told):
    path = folder + "/f"
    write(path)
    loop.watch(path, ALL, told.seen)
    assert told(lambda: write(path)) == [("open", path), ("modify", path), ("close_write", path)]
    assert told(lambda: write(folder + "/g")) == []
    assert told(lambda: os.utime(path)) == [("attrib", path)]


@pytest.mark.parametrize("name", sorted(ALL - {"delete_self", "move_self"}))
def test_only_what_was_asked_for_is_told(loop, folder, told, name):
    path = folder + "/f"
    for events in (name, (name,), {name}, iter([name]), {name: 1}, [name, name]):
        watcher = loop.watch(folder, events, told.seen)
        assert watcher.events == {name}

        def act():
            write(path)
            pathlib.Path(path).read_bytes()
            os.chmod(path, 0o600)
            os.rename(path, path + "g")
            os.unlink(path + "g")

        found = told(act)
        assert found
        assert {names for names, _ in found} == {name}
        watcher.destroy()


def test_cookies(loop, folder, told):
    write(folder + "/a")
    write(folder + "/b")
    seen = Seen()
    loop.watch(folder, ("moved_from", "moved_to", "create"), seen)
    os.rename(folder + "/a", folder + "/c")
    os.rename(folder + "/b", folder + "/d")
    write(folder + "/e")
    run_until(loop, lambda: len(seen) == 5)
    cookies = [event.cookie for event in seen]
    assert cookies[0] == cookies[1] != cookies[2] == cookies[3]
    assert cookies[0] > 0
    assert cookies[4] == 0


def test_event_objects(loop, folder, told):
    loop.watch(folder, "all", told.seen)
    os.mkdir(folder + "/a")
    os.mkdir(folder + "/b")
    run_until(loop, lambda: len(told.seen) == 2)
    first, second = told.seen
    assert type(first) is PathEvent
    assert first.names is second.names
    assert type(first.names) is frozenset
    assert repr(first) == f"<PathEvent create|isdir {folder + '/a'!r}>"
    for name in ("path", "names", "cookie"):
        with pytest.raises(AttributeError):
            setattr(first, name, None)
    with pytest.raises(TypeError):
        PathEvent()


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
@pytest.mark.parametrize("end", ["", "/", "//"])
def test_paths_have_the_type_that_was_given(loop, folder, kind, end):
    given = kind(folder + end)
    seen = Seen()
    watcher = loop.watch(given, "create", seen)
    expected = os.fspath(given)
    assert watcher.path == expected
    name = b"\xff\xfe \n" + "ä".encode()
    write(os.fsencode(folder) + b"/" + name)
    run_until(loop, lambda: seen)
    path = os.path.join(expected, name if type(expected) is bytes else os.fsdecode(name))
    assert seen[0].path == path
    assert type(seen[0].path) is type(expected)
    assert os.path.exists(seen[0].path)


def test_relative_paths_stay_what_they_were(loop, folder, monkeypatch):
    monkeypatch.chdir(folder)
    os.mkdir("sub")
    seen = Seen()
    loop.watch("sub", "create", seen, recursive=True)
    loop.watch(".", "create", seen)
    monkeypatch.chdir("/")
    os.makedirs(folder + "/sub/a/b")
    run_until(loop, lambda: len(seen) == 2)
    write(folder + "/sub/a/b/c")
    write(folder + "/f")
    run_until(loop, lambda: len(seen) == 4)
    assert sorted(event.path for event in seen) == ["./f", "sub/a", "sub/a/b", "sub/a/b/c"]


def test_the_root_of_all(loop):
    seen = Seen()
    loop.watch("/", "open", seen)
    os.close(os.open("/tmp", os.O_RDONLY))
    run_until(loop, lambda: any(event.path == "/tmp" for event in seen))


def test_the_path_itself_may_be_a_link(loop, folder, tmp_path):
    os.symlink(folder, tmp_path / "link")
    seen = Seen()
    loop.watch(tmp_path / "link", "create", seen)
    write(folder + "/f")
    run_until(loop, lambda: seen)
    assert seen[0].path == str(tmp_path / "link" / "f")


# --- arguments -------------------------------------------------------------------------------------------------------


def test_bad_paths(loop, folder):
    for path in (None, 1, 1.0, [], object(), bytearray(b"/")):
        with pytest.raises(TypeError, match="path must be"):
            loop.watch(path, "all", print)
    for path in ("/\0", b"/\0"):
        with pytest.raises(ValueError, match="NUL"):
            loop.watch(path, "all", print)
    assert not loop.watchers


def test_bad_events(loop):
    for events in (None, 1, b"create", ["create", 1], [b"create"], 4):
        with pytest.raises(TypeError, match="events must be"):
            loop.watch("/", events, print)
    for events in ("", [], "Create", ["create", "overflow"], "isdir", "create,delete", {"all", "x"}):
        with pytest.raises(ValueError, match="events"):
            loop.watch("/", events, print)
    for name in ("recursive", "follow_symlinks"):
        with pytest.raises(TypeError, match=name):
            loop.watch("/", "all", print, **{name: 1})
    assert not loop.watchers


@pytest.mark.parametrize(
    ("path", "code"),
    [("missing", errno.ENOENT), ("f/x", errno.ENOTDIR), ("x" * 300, errno.ENAMETOOLONG), ("loop", errno.ELOOP)],
)
def test_paths_that_cannot_be_watched(loop, folder, path, code):
    write(folder + "/f")
    os.symlink("loop", folder + "/loop")
    path = f"{folder}/{path}"
    before = open_fds()
    for recursive in (False, True):
        with pytest.raises(OSError) as failure:
            loop.watch(path, "all", print, recursive=recursive)
        assert failure.value.errno == code
        assert failure.value.filename == path
    assert not loop.watchers
    assert open_fds() == before


def test_an_empty_path(loop):
    for path in ("", b""):
        with pytest.raises(FileNotFoundError) as failure:
            loop.watch(path, "all", print)
        assert failure.value.filename == path


def test_attributes(loop, folder):
    watcher = loop.watch(folder, ["create"], print, recursive=True, start=False)
    assert (watcher.path, watcher.events, watcher.recursive, watcher.follow_symlinks) == (
        folder,
        {"create"},
        True,
        False,
    )
    assert repr(watcher) == f"<PathWatcher id={watcher.id} path={folder!r} recursive stopped>"
    assert loop.watch(folder, "all", print).events == ALL
    for name in ("path", "events", "recursive", "follow_symlinks"):
        with pytest.raises(AttributeError):
            setattr(watcher, name, None)


def test_decorator(loop, folder):
    @loop.watch(folder, "create", recursive=True)
    def changed(watcher, event):
        watcher.destroy()

    assert type(changed) is PathWatcher
    write(folder + "/f")
    finish(loop)
    assert changed.is_destroyed()


# --- starting and stopping -------------------------------------------------------------------------------------------


def test_what_happens_while_stopped_is_not_told(loop, folder, told):
    watcher = loop.watch(folder, "create", told.seen, start=False)
    assert told(lambda: write(folder + "/a")) == []
    watcher.start()
    assert told(lambda: write(folder + "/b")) == [("create", folder + "/b")]
    watcher.stop()
    assert told(lambda: write(folder + "/c")) == []
    watcher.start().stop().start()
    assert told(lambda: write(folder + "/d")) == [("create", folder + "/d")]
    watcher.destroy()
    with pytest.raises(DestroyedError):
        watcher.start()


@pytest.mark.parametrize("reads", [False, True])
def test_what_was_queued_before_the_start_is_not_told(loop, folder, reads):
    first, second = Seen(), Seen()
    loop.watch(folder, "create", first)
    loop.run_once(0)
    write(folder + "/a")
    if reads:
        loop.post(lambda: None)  # the completion is there
        loop.defer(lambda: loop.watch(folder, "create", second))
    else:
        loop.watch(folder, "create", second)
    run_until(loop, lambda: len(loop.watchers) == 2 and first)
    write(folder + "/b")
    run_until(loop, lambda: second)
    assert first.take() == [("create", folder + "/a"), ("create", folder + "/b")]
    assert second.take() == [("create", folder + "/b")]


def test_stop_drops_what_was_collected(loop, folder):
    seen = []

    def on_event(watcher, event):
        seen.append(event)
        watcher.stop()

    watcher = loop.watch(folder, "create", on_event)
    for number in range(5):
        write(f"{folder}/{number}")
    finish(loop)
    assert len(seen) == 1
    watcher.start()
    write(folder + "/x")
    finish(loop)
    assert [event.path for event in seen[1:]] == [folder + "/x"]


@pytest.mark.parametrize("action", ["stop", "destroy", "close"])
def test_ended_by_another(loop, folder, action):
    second = loop.watch(folder, "create", unexpected)

    def on_event(watcher, event):
        getattr(second, action)() if action != "close" else [w.destroy() for w in list(loop.watchers.values())]
        if action != "close":
            watcher.destroy()

    loop.watch(folder, "create", on_event, priority=1)
    for number in range(3):
        write(f"{folder}/{number}")
    finish(loop)


def test_close_in_a_callback(folder):
    with made_loop() as loop:
        loop.watch(folder, "create", lambda watcher, event: (watcher.loop.stop(), watcher.stop()))
        loop.watch(folder, "all", lambda watcher, event: None, priority=-2)
        write(folder + "/a")
        write(folder + "/b")
        loop.run(BOUND)


def test_instances(loop, folder, tmp_path):
    """One for a loop, and none for one that watches no path."""

    def instances():
        return [target for target in open_fds().values() if "inotify" in target]

    made = [loop.watch(path, "all", print) for path in (folder, tmp_path, folder)]
    assert len(instances()) == 1
    for watcher in made:
        watcher.stop()
    assert instances() == []
    made[1].start()
    assert len(instances()) == 1
    made[1].destroy()
    assert instances() == []


def test_watches_that_nobody_needs_are_removed(loop, folder, tmp_path):
    def watches():
        (fd,) = [fd for fd, target in open_fds().items() if "inotify" in target]
        return pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd:") - above

    above = 0
    loop.watch(tmp_path, "all", print)
    above = watches() - 1  # the directories above
    assert above == len(tmp_path.parents) - 1
    os.makedirs(folder + "/a/b/c")
    tree = loop.watch(folder, "delete", print, recursive=True)
    other = loop.watch(folder + "/a", "create", print)
    assert watches() == 5
    tree.stop()
    assert watches() == 3  # the folder is above the other one
    other.destroy()
    assert watches() == 1


# --- several watchers ------------------------------------------------------------------------------------------------


def test_several_watchers_of_one_directory(loop, folder, told):
    order = []
    for number, events in enumerate(("create", "delete", "create", "all")):
        loop.watch(
            folder,
            events,
            lambda watcher, event: order.append((watcher.data, *event.names)),
            data=number,
            priority=number % 3,
        )
    write(folder + "/a")
    run_until(loop, lambda: len(order) == 6)
    assert order[:2] == [(2, "create"), (0, "create")]
    assert [names for number, *names in order if number == 3] == [["create"], ["open"], ["modify"], ["close_write"]]


def test_hard_links_are_told_by_each_path(loop, folder, told):
    write(folder + "/a")
    os.link(folder + "/a", folder + "/b")
    for name in "ab":
        loop.watch(f"{folder}/{name}", "modify", told.seen)
    with open(folder + "/a", "ab") as file:
        file.write(b"1")
    assert told() == [("modify", folder + "/a"), ("modify", folder + "/b")]


def test_many_events_in_order(loop, folder):
    count = scaled(5000, 100)
    seen = Seen()
    loop.watch(folder, "create", seen)
    for number in range(count):
        os.mkfifo(f"{folder}/{number}")
    run_until(loop, lambda: len(seen) == count)
    assert [event.path for event in seen] == [f"{folder}/{number}" for number in range(count)]


def test_two_loops(folder):
    with made_loop() as first, made_loop() as second:
        seen = Seen()
        first.watch(folder, "create", seen)
        second.watch(folder, "create", seen)
        write(folder + "/a")
        run_until(first, lambda: len(seen) == 1)
        run_until(second, lambda: len(seen) == 2)


def test_run_ends_with_the_last_watcher_that_counts(loop, folder):
    watcher = loop.watch(folder, "create", print, ref=False)
    finish(loop)
    watcher.ref = True
    loop.timer(0.01, lambda timer: watcher.stop())
    finish(loop)


def test_callbacks_that_raise(loop, folder):
    failures, seen = [], []
    loop.on_error = lambda source, error: failures.append((source, error))

    def on_event(watcher, event):
        seen.append(event)
        raise KeyError(event.path)

    watcher = loop.watch(folder, "create", on_event)
    for name in "abc":
        write(f"{folder}/{name}")
    run_until(loop, lambda: len(failures) == 3)
    assert [error.args[0][-1] for source, error in failures] == ["a", "b", "c"]
    assert all(source is watcher for source, _ in failures)


def test_the_count_of_callbacks(loop, folder):
    loop.watch(folder, "create", lambda watcher, event: None)
    assert loop.run_once(0) == 0
    os.mkfifo(folder + "/a")
    os.mkfifo(folder + "/b")
    assert loop.run_once(BOUND) == 2
    os.unlink(folder + "/a")
    assert loop.run_once(0) == 0
