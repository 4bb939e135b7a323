"""PathWatcher: what happens at the worst moment, while a directory is being read. os.scandir() is where that can be said."""

import contextlib
import os
import shutil

import pytest
from _support import BOUND, finish, open_fds, run_until
from _trees import Told, made_folder, touch, tree_of

ENTRIES = ("create", "delete", "moved_from", "moved_to")


@pytest.fixture
def root(tmp_path):
    return made_folder(tmp_path, "root")


@pytest.fixture
def told(loop, root):
    """With paths that start from the root."""
    return Told(loop, root, len(root) + 1)


@pytest.fixture
def reading(monkeypatch):
    """reading(path, before, after): what to do once, just before that directory is read, and just after."""
    hooks = {}
    scandir = os.scandir

    def nothing():
        pass

    def replaced(path="."):
        if type(path) is bytes and os.fsdecode(path) in hooks:
            return hooked(path, *hooks.pop(os.fsdecode(path)))
        return scandir(path)

    @contextlib.contextmanager
    def hooked(path, before, after):
        before()
        with scandir(path) as entries:
            yield list(entries)
        after()

    monkeypatch.setattr(os, "scandir", replaced)
    yield lambda path, before=nothing, after=nothing: hooks.update({path: (before, after)})
    assert not hooks, "not everything was read"


def test_what_comes_and_goes_meanwhile_is_told_once(loop, root, told, reading):
    new = root + "/a/"

    def before():
        touch(new + "1", new + "2", new + "gone")
        os.mkdir(new + "d")
        os.unlink(new + "gone")

    def after():
        touch(new + "3")
        os.unlink(new + "1")
        os.rename(new + "2", new + "4")

    loop.watch(root, ENTRIES, told.seen, recursive=True)
    reading(root + "/a", before, after)
    found = told(lambda: os.mkdir(root + "/a"))
    assert found[0] == ("create|isdir", "a")
    assert sorted(found[1:4]) == [("create", "a/1"), ("create", "a/2"), ("create|isdir", "a/d")]
    assert found[4:] == [
        ("create", "a/gone"),
        ("delete", "a/gone"),
        ("create", "a/3"),
        ("delete", "a/1"),
        ("moved_from", "a/2"),
        ("moved_to", "a/4"),
    ]
    assert told(lambda: touch(new + "d/f", new + "1")) == [("create", "a/d/f"), ("create", "a/1")]


def test_renamed_meanwhile(loop, root, told, reading):
    """It cannot be read under its old name; that is made up for as soon as the new one is heard of."""
    loop.watch(root, ENTRIES, told.seen, recursive=True)

    def before():
        os.makedirs(root + "/a/b/c")
        touch(root + "/a/f")
        os.rename(root + "/a", root + "/x")

    reading(root + "/a", before)
    found = told(lambda: os.mkdir(root + "/a"))
    assert len(found) == len(set(found))
    assert {path for _, path in found if path.startswith("x")} >= {"x"}
    assert {path[2:] for names, path in found if "create" in names} - {""} == {"b", "b/c", "f"}
    assert told(lambda: touch(root + "/x/b/c/g")) == [("create", "x/b/c/g")]


def test_replaced_meanwhile(loop, root, told, reading):
    loop.watch(root, ENTRIES, told.seen, recursive=True)

    def replace():
        os.rename(root + "/a", root + "/x")
        os.makedirs(root + "/a/inner")

    reading(root + "/a", replace)
    told(lambda: os.makedirs(root + "/a/outer"))
    found = told(lambda: touch(*(path + "/f" for path in tree_of(root))))
    assert sorted(path for _, path in found) == ["a/f", "a/inner/f", "x/f", "x/outer/f"]


def test_gone_meanwhile(loop, root, told, reading):
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    reading(root + "/a", lambda: os.rmdir(root + "/a"))
    assert told(lambda: os.mkdir(root + "/a")) == [("create|isdir", "a"), ("delete|isdir", "a")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["stop", "destroy", "close"])
def test_ended_meanwhile(loop, root, told, reading, how, when):
    watcher = loop.watch(root, ENTRIES, told.seen, recursive=True)
    failed = []

    def end():
        try:
            loop.close() if how == "close" else getattr(watcher, how)()
        except RuntimeError as error:
            failed.append(error)

    reading(root + "/a", **{when: end})
    os.makedirs(root + "/a/b/c")
    os.makedirs(root + "/d")
    loop.timer(BOUND, print, ref=False)
    run_until(loop, lambda: not watcher.is_active() or failed)
    if how == "close":
        # A loop cannot be closed by what runs in it.
        assert failed or loop.is_closed()
        return
    finish(loop)
    assert [event.path for event in told.seen] == []
    assert not [target for target in open_fds().values() if "inotify" in target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted(loop, root, told, reading, error):
    """The rest of the records is taken later."""

    def interrupt():
        raise error

    loop.watch(root, ENTRIES, told.seen, recursive=True)
    loop.on_error = lambda source, exception: None
    reading(root + "/a", interrupt)
    os.mkdir(root + "/a")
    os.mkdir(root + "/b")
    with contextlib.suppress(error):
        run_until(loop, lambda: any(event.path == root + "/b" for event in told.seen))
    run_until(loop, lambda: any(event.path == root + "/b" for event in told.seen))
    touch(root + "/b/f")
    run_until(loop, lambda: told.seen[-1].path == root + "/b/f")


def test_the_root_goes_while_it_is_read(loop, root, told, reading):
    loop.watch(root, (*ENTRIES, "delete_self"), told.seen, recursive=True)
    told(lambda: os.rmdir(root))
    reading(root, lambda: shutil.rmtree(root))
    assert told(lambda: os.mkdir(root)) == [("create|isdir", ""), ("delete_self", ""), ("ignored", "")]
    assert told(lambda: os.makedirs(root + "/a")) == [("create|isdir", ""), ("create|isdir", "a")]
