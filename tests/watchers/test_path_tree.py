"""PathWatcher(recursive=True): directories that appear, move and go; links, mounts, permissions, limits, overflow, size."""

import errno
import os
import pathlib
import re
import shutil
import time

import _fault
import pytest
from _support import SCALE, made_loop, open_fds, run_until, scaled
from _trees import Model, Seen, Told, made_folder, touch, tree_of

ENTRIES = ("create", "delete", "moved_from", "moved_to")


@pytest.fixture
def root(tmp_path):
    return made_folder(tmp_path, "root")


@pytest.fixture
def outside(tmp_path):
    return made_folder(tmp_path, "outside")


@pytest.fixture
def told(loop, root):
    """With paths that start from the root."""
    return Told(loop, root, len(root) + 1)


# What is watched of the directories above a path: that they are renamed, or the path is deleted.
ABOVE = 0x800 | 0x200


def watches():
    """How many watches there are, beside those of directories above."""
    (fd,) = [fd for fd, target in open_fds().items() if "inotify" in target]
    return sum(
        int(mask, 16) & ~ABOVE != 0
        for mask in re.findall(r"mask:(\w+) ", pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text())
    )


def above(path):
    """How many directories above a path can be renamed."""
    return len(pathlib.Path(path).parents) - 1


# --- directories that appear -----------------------------------------------------------------------------------------


def test_what_is_there_is_not_told(root, told, loop):
    os.makedirs(root + "/a/b")
    touch(root + "/a/b/f")
    loop.watch(root, "all", told.seen, recursive=True)
    assert told() == []
    assert told(lambda: touch(root + "/a/b/g")) == [("create", "a/b/g"), ("open", "a/b/g"), ("close_write", "a/b/g")]


@pytest.mark.parametrize("events", ["all", "create", ENTRIES])
def test_directories_that_appear(root, told, loop, events):
    loop.watch(root, events, told.seen, recursive=True)

    def make():
        os.makedirs(root + "/a/b/c")
        touch(root + "/a/b/c/f", root + "/a/g")

    expected = [("create|isdir", "a"), ("create|isdir", "a/b"), ("create", "a/g"), ("create|isdir", "a/b/c")]
    found = told(make, "create")
    assert found[0] == expected[0]
    assert sorted(found) == sorted([*expected, ("create", "a/b/c/f")])
    assert found.index(("create|isdir", "a/b")) < found.index(("create|isdir", "a/b/c"))
    assert told(lambda: touch(root + "/a/b/c/h"), "create") == [("create", "a/b/c/h")]
    assert told(lambda: os.mkdir(root + "/a/b/c/d")) == [("create|isdir", "a/b/c/d")]


def test_reading_directories_is_not_told(root, told, loop):
    os.mkdir(root + "/a")
    events = ("open", "access", "close_nowrite")
    loop.watch(root, events, told.seen, recursive=True)
    assert told(lambda: os.makedirs(root + "/a/b/c")) == []
    assert list(dict.fromkeys(told(lambda: os.listdir(root + "/a/b")))) == [
        (name, "a/b") for name in ("isdir|open", "access|isdir", "close_nowrite|isdir")
    ]


def test_deleted(root, told, loop):
    os.makedirs(root + "/a/b/c")
    touch(root + "/a/b/f")
    loop.watch(root, (*ENTRIES, "delete_self"), told.seen, recursive=True)
    assert (
        told(lambda: shutil.rmtree(root + "/a"), "delete")
        == [
            ("delete", "a/b/f"),
            ("delete|isdir", "a/b/c"),
            ("delete|isdir", "a/b"),
            ("delete|isdir", "a"),
        ]
        or told() == []
    )
    assert watches() == 1
    assert told(lambda: os.makedirs(root + "/a/b")) == [("create|isdir", "a"), ("create|isdir", "a/b")]
    assert told(lambda: os.rmdir(root + "/a/b")) == [("delete_self", "a/b"), ("delete|isdir", "a/b")]


# --- directories that move -------------------------------------------------------------------------------------------


def test_renamed_within(root, told, loop):
    os.makedirs(root + "/a/b/c")
    os.mkdir(root + "/x")
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    assert told(lambda: os.rename(root + "/a/b", root + "/x/y")) == [
        ("isdir|moved_from", "a/b"),
        ("isdir|moved_to", "x/y"),
    ]
    assert told(lambda: touch(root + "/x/y/c/f")) == [("create", "x/y/c/f")]
    assert watches() == 5

    def twice():
        os.rename(root + "/x", root + "/z")
        os.rename(root + "/z/y", root + "/a/y")
        touch(root + "/a/y/g", root + "/a/y/c/g")

    told(twice)
    assert told(lambda: touch(root + "/a/y/c/h")) == [("create", "a/y/c/h")]
    assert watches() == 5


def test_moved_out_and_in(root, outside, told, loop):
    os.makedirs(root + "/a/b")
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    assert told(lambda: os.rename(root + "/a", outside + "/a")) == [("isdir|moved_from", "a")]
    assert watches() == 1
    assert told(lambda: touch(outside + "/a/b/f")) == []
    assert told(lambda: os.rename(outside + "/a", root + "/a")) == [
        ("isdir|moved_to", "a"),
        ("create|isdir", "a/b"),
        ("create", "a/b/f"),
    ]
    assert watches() == 3
    assert told(lambda: touch(root + "/a/b/g")) == [("create", "a/b/g")]


def test_moved_over_an_empty_directory(root, outside, told, loop):
    os.makedirs(root + "/a/b")
    os.makedirs(root + "/c")
    os.makedirs(outside + "/d/e")
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    assert told(lambda: os.rename(root + "/a", root + "/c")) == [("isdir|moved_from", "a"), ("isdir|moved_to", "c")]
    assert told(lambda: touch(root + "/c/b/f")) == [("create", "c/b/f")]
    os.mkdir(root + "/g")
    told()
    assert told(lambda: os.rename(outside + "/d", root + "/g")) == [("isdir|moved_to", "g"), ("create|isdir", "g/e")]
    assert told(lambda: touch(root + "/g/e/f")) == [("create", "g/e/f")]
    assert watches() == 5


def test_exchanged(root, told, loop):
    os.makedirs(root + "/a/in_a")
    os.makedirs(root + "/b/in_b")
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    libc = _fault._libc
    if libc.renameat2(-100, os.fsencode(root + "/a"), -100, os.fsencode(root + "/b"), 2):
        pytest.skip("this file system does not exchange names")
    told()
    assert told(lambda: touch(root + "/a/in_b/f", root + "/b/in_a/f")) == [
        ("create", "a/in_b/f"),
        ("create", "b/in_a/f"),
    ]


def test_moved_out_while_new(root, outside, told, loop):
    loop.watch(root, ENTRIES, told.seen, recursive=True)

    def act():
        os.makedirs(root + "/a/b/c")
        os.rename(root + "/a", outside + "/a")
        os.makedirs(root + "/a/d")

    told(act)
    assert watches() == 3
    assert told(lambda: touch(root + "/a/d/f")) == [("create", "a/d/f")]
    assert told(lambda: touch(outside + "/a/b/f")) == []


# --- the root --------------------------------------------------------------------------------------------------------


def test_the_root_comes_back(root, told, loop):
    os.makedirs(root + "/a/b")
    loop.watch(root, (*ENTRIES, "delete_self"), told.seen, recursive=True)
    found = told(lambda: shutil.rmtree(root))
    assert found[-2:] == [("delete_self", ""), ("ignored", "")]
    assert watches() == 1
    assert told(lambda: os.makedirs(root + "/c/d")) == [
        ("create|isdir", ""),
        ("create|isdir", "c"),
        ("create|isdir", "c/d"),
    ]
    assert told(lambda: touch(root + "/c/d/f")) == [("create", "c/d/f")]


def test_the_root_is_moved_and_replaced(root, told, loop):
    os.makedirs(root + "/a")
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    os.rename(root, root + "2")
    os.makedirs(root + "/b")
    assert told() == [("ignored", ""), ("create|isdir", ""), ("create|isdir", "b")]
    assert told(lambda: touch(root + "2/a/f")) == []
    assert watches() == 2


def test_a_file_recursively(root, told, loop):
    touch(root + "/f")
    loop.watch(root + "/f", "attrib", told.seen, recursive=True)
    assert told(lambda: os.utime(root + "/f")) == [("attrib", "f")]


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_links_to_directories(root, outside, told, loop, follows, before):
    os.makedirs(outside + "/a")
    if before:
        os.symlink(outside, root + "/link")
    loop.watch(root, ENTRIES, told.seen, recursive=True, follow_symlinks=follows)
    if not before:
        found = told(lambda: os.symlink(outside, root + "/link"))
        assert found == [("create", "link"), ("create|isdir", "link/a")][: 1 + follows]
    found = told(lambda: touch(outside + "/a/f", outside + "/g"))
    assert found == ([("create", "link/a/f"), ("create", "link/g")] if follows else [])
    assert told(lambda: os.unlink(root + "/link")) == [("delete", "link")]
    assert told(lambda: touch(outside + "/h")) == []
    assert watches() == 1


def test_loops_of_links(root, outside, told, loop):
    os.makedirs(root + "/a/b")
    os.symlink(root, root + "/a/b/up")
    os.symlink(outside, root + "/a/one")
    os.symlink(outside, root + "/a/two")
    os.symlink(outside, outside + "/self")
    os.symlink(root, outside + "/back")
    os.symlink("nowhere", root + "/dangling")
    os.symlink("endless", root + "/endless")
    loop.watch(root, ENTRIES, told.seen, recursive=True, follow_symlinks=True)
    assert watches() == 4
    assert told(lambda: touch(root + "/a/b/f")) == [("create", "a/b/f")]
    assert len(told(lambda: touch(outside + "/f"))) == 1


# --- names, permissions, mounts --------------------------------------------------------------------------------------


def test_names_that_are_not_utf_8(root, told, loop):
    name = b"\xff\xfe"
    seen = Seen()
    loop.watch(root, "create", told.seen, recursive=True)
    loop.watch(os.fsencode(root), "create", seen, recursive=True)
    folder = os.fsencode(root) + b"/" + name
    os.makedirs(folder + b"/" + name)
    assert told() == [("create|isdir", "\udcff\udcfe"), ("create|isdir", "\udcff\udcfe/\udcff\udcfe")]
    touch(folder + b"/" + name + b"/" + name)
    assert told() == [("create", "/".join(["\udcff\udcfe"] * 3))]
    assert [event.path for event in seen][-1] == folder + b"/" + name + b"/" + name


FORBIDDEN = """
    import os, sys
    from _support import made_loop, run_until
    import _fault
    folder = sys.argv[1]
    _fault.drop_privileges() if hasattr(_fault, "drop_privileges") else os.setresuid(65534, 65534, 65534)
    with made_loop() as loop:
        told, failed = [], []
        loop.on_error = lambda source, error: failed.append((type(error).__name__, error.filename))
        loop.watch(folder, "create", lambda watcher, event: told.append(event.path), recursive=True)
        assert not failed
        os.mkdir(folder + "/open/new")
        run_until(loop, lambda: told)
        print(failed == [("PermissionError", folder + "/closed")], told == [folder + "/open/new"])
        try:
            loop.watch(folder + "/closed", "create", print)
        except PermissionError as error:
            print(error.filename == folder + "/closed")
"""


def test_directories_without_permission(root, tmp_path):
    if os.getuid():
        pytest.skip("only root can become somebody else")
    os.makedirs(root + "/closed/a")
    os.mkdir(root + "/open")
    os.chmod(root + "/closed", 0o700)
    os.chmod(root + "/open", 0o777)
    for folder in (root, *pathlib.Path(root).parents):
        if os.stat(folder).st_uid == 0 and str(folder).startswith("/tmp/"):
            os.chmod(folder, 0o755)
    _fault.run_script(FORBIDDEN, root).check("True True\nTrue")


UNMOUNT = """
    import ctypes, os, sys
    from _support import made_loop, run_until
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
    def done(result):
        if result:
            print("refused:", os.strerror(ctypes.get_errno()))
            sys.exit()
    done(libc.unshare(CLONE_NEWNS))
    done(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    root = sys.argv[1]
    inner, below = root + "/m", root + "/m/d"
    os.mkdir(inner)
    open(inner + "/under", "w").close()
    done(libc.mount(b"tmpfs", inner.encode(), b"tmpfs", 0, None))
    os.mkdir(below)
    with made_loop() as loop:
        told = []
        def on_event(watcher, event):
            told.append((watcher.data, "|".join(sorted(event.names)), event.path[len(root) + 1 :]))
        loop.watch(root, "create", on_event, data="tree", recursive=True)
        loop.watch(inner, "create", on_event, data="root")
        done(libc.umount2(inner.encode(), 0))
        run_until(loop, lambda: len(told) >= 7)
        for item in sorted(told):
            print(*item)
        told.clear()
        open(inner + "/new", "w").close()
        run_until(loop, lambda: len(told) == 2)
        print(sorted(told))
"""


def test_unmounted(root):
    result = _fault.run_script(UNMOUNT, root)
    if result.stdout.startswith("refused"):
        pytest.skip(result.stdout.strip())
    result.check("\n".join([
        "root create m/under",
        "root create|isdir m",
        "root ignored m",
        "root isdir|unmount m",
        "tree create m/under",
        "tree isdir|unmount m",
        "tree isdir|unmount m/d",
        "[('root', 'create', 'm/new'), ('tree', 'create', 'm/new')]",
    ]))  # fmt: skip


# --- limits ----------------------------------------------------------------------------------------------------------

INJECTED = pytest.mark.skipif(_fault.strace_missing() is not None, reason=str(_fault.strace_missing()))


@INJECTED
def test_no_watch_is_left_at_the_start(root):
    os.makedirs(root + "/a/b/c/d")
    script = f"""
        import pathlib
        from _support import made_loop, open_fds
        with made_loop() as loop:
            other = loop.watch("/usr", "all", print)
            try:
                loop.watch({root!r}, "all", print, recursive=True)
            except OSError as error:
                print(error.errno, error)
            (fd,) = [fd for fd, target in open_fds().items() if "inotify" in target]
            print(pathlib.Path(f"/proc/self/fdinfo/{{fd}}").read_text().count("inotify wd:"), len(loop.watchers))
    """
    # Two more for /usr: the directory above, and the look whether it is still there.
    result = _fault.run_injected(script, f"inotify_add_watch:error=ENOSPC:when={10 + above(root)}+").check()
    assert result.stdout.startswith(f"{errno.ENOSPC} ")
    assert "fs.inotify.max_user_watches" in result.stdout
    assert root + "/a/b" in result.stdout
    assert result.stdout.endswith("\n2 1\n")


@INJECTED
def test_no_watch_is_left_for_what_appears(root):
    script = f"""
        import os
        from _support import made_loop, run_until
        root = {root!r}
        with made_loop() as loop:
            told, failed = [], []
            loop.on_error = lambda source, error: failed.append((source, error))
            watcher = loop.watch(root, "create", lambda watcher, event: told.append(event.path), recursive=True)
            os.mkdir(root + "/a")
            run_until(loop, lambda: failed)
            os.mkdir(root + "/b")
            run_until(loop, lambda: len(told) == 2)
            open(root + "/b/f", "w").close()
            run_until(loop, lambda: len(told) == 3)
            source, error = failed[0]
            print(source is watcher, error.errno, error.filename == root + "/a", error)
            assert len(failed) == 1
    """
    result = _fault.run_injected(script, f"inotify_add_watch:error=ENOSPC:when={4 + above(root)}").check()
    assert result.stdout.startswith(f"True {errno.ENOSPC} True")
    assert "fs.inotify.max_user_watches" in result.stdout


@INJECTED
def test_reading_fails(root):
    """A directory that is watched and cannot be read."""
    os.mkdir(root + "/a")
    script = f"""
        from _support import made_loop, run_until
        with made_loop() as loop:
            failed = []
            loop.on_error = lambda source, error: failed.append(error)
            loop.watch({root!r}, "create", print, recursive=True)
            run_until(loop, lambda: failed)
            print(failed)
    """
    result = _fault.run_injected(script, "getdents64:error=EIO:when=1", path=root).check()
    assert "OSError(5," in result.stdout


# --- overflow --------------------------------------------------------------------------------------------------------


def queue_limit():
    return int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.mark.skipif(queue_limit() > 100_000, reason="the queue of this machine is too long")
@pytest.mark.parametrize("events", [ENTRIES, "all"])
def test_overflow(root, tmp_path, loop, events):
    os.makedirs(root + "/old/deep")
    os.makedirs(root + "/gone/deep")
    os.makedirs(root + "/moved/deep")
    other, seen = Seen(), Seen()
    loop.watch(root, events, seen, recursive=True)
    loop.watch(tmp_path / "root" / "old", "create", other)
    loop.run_once(0)
    for _ in range(queue_limit() // 2 + 10):
        os.mkfifo(root + "/old/f")
        os.unlink(root + "/old/f")
    # Nothing of this is told by records.
    shutil.rmtree(root + "/gone")
    os.rename(root + "/moved", root + "/here")
    os.makedirs(root + "/new/a/b")
    touch(root + "/new/a/f")
    run_until(loop, lambda: any("overflow" in event.names for event in seen + other))
    run_until(loop, lambda: any(event.path == root + "/new/a/f" for event in seen))
    loop.run(0.05)
    at = next(number for number, event in enumerate(seen) if "overflow" in event.names)
    assert seen[at].path == root
    assert seen[at].names == {"overflow"}
    assert [event.names for event in seen].count(frozenset({"overflow"})) == 1
    assert [event.path for event in other if "overflow" in event.names] == [root + "/old"]
    created = sorted(event.path[len(root) :] for event in seen[at:] if "create" in event.names)
    assert created == ["/here", "/here/deep", "/new", "/new/a", "/new/a/b", "/new/a/f"]
    seen.clear()
    touch(*(root + path for path in ("/old/deep/x", "/here/deep/x", "/new/a/b/x")))
    run_until(loop, lambda: sum("create" in event.names for event in seen) >= 3)
    loop.run(0.05)
    created = [event.path[len(root) :] for event in seen if "create" in event.names]
    assert created == ["/old/deep/x", "/here/deep/x", "/new/a/b/x"]
    assert watches() == 8


@pytest.mark.skipif(queue_limit() > 100_000, reason="the queue of this machine is too long")
def test_the_root_goes_while_records_are_lost(root, loop, tmp_path):
    seen = Seen()
    loop.watch(root, "create", seen, recursive=True)
    loop.watch(tmp_path, ENTRIES, lambda watcher, event: None)
    loop.run_once(0)
    for _ in range(queue_limit() // 2 + 10):
        os.mkfifo(tmp_path / "f")
        os.unlink(tmp_path / "f")
    shutil.rmtree(root)
    os.makedirs(root + "/a")
    run_until(loop, lambda: any(event.path == root + "/a" for event in seen))
    assert [("|".join(event.names), event.path) for event in seen][:2] == [("overflow", root), ("ignored", root)]
    touch(root + "/a/f")
    run_until(loop, lambda: seen[-1].path == root + "/a/f")


def fill(folder, count):
    """Make so many events of entries of a folder."""
    for number in range(count):
        os.unlink(folder + "/f") if number % 2 else os.mkfifo(folder + "/f")


@pytest.mark.skipif(queue_limit() > 100_000, reason="the queue of this machine is too long")
def test_a_path_comes_back_while_records_are_lost(root, loop, tmp_path):
    seen = Seen()
    (tmp_path / "other").mkdir()
    loop.watch(root, ENTRIES, seen, recursive=True)
    loop.watch(tmp_path / "other", ENTRIES, lambda watcher, event: None)
    os.rmdir(root)
    run_until(loop, lambda: seen)
    seen.clear()
    fill(str(tmp_path / "other"), queue_limit() + 10)
    os.makedirs(root + "/a")
    run_until(loop, lambda: len(seen) == 3)
    assert [("|".join(sorted(event.names)), event.path) for event in seen] == [
        ("overflow", root),
        ("create|isdir", root),
        ("create|isdir", root + "/a"),
    ]


@pytest.mark.skipif(queue_limit() > 100_000, reason="the queue of this machine is too long")
def test_half_of_a_rename_is_lost(root, outside, told, loop):
    os.makedirs(root + "/moved/b")
    loop.watch(root, ENTRIES, told.seen, recursive=True)
    os.mkdir(root + "/new")
    touch(root + "/new/f")
    # The loop has not begun to read, so the queue is full after exactly so many.
    fill(root, queue_limit() - 2)
    os.rename(root + "/moved", outside + "/moved")
    touch(root + "/new/g")
    run_until(loop, lambda: told.seen and "overflow" in told.seen[-1].names)
    found = told()
    assert found[-2:] == [("isdir|moved_from", "moved"), ("overflow", "")]
    assert [path for names, path in found if "create" in names and path != "f"] == ["new", "new/f", "new/g"]
    assert watches() == 2
    assert told(lambda: touch(outside + "/moved/b/f", root + "/new/h")) == [("create", "new/h")]


# --- size ------------------------------------------------------------------------------------------------------------


def test_ten_thousand_directories(root, record_property):
    count = scaled(10_000, 200)
    for number in range(count // 100):
        for inner in range(99):
            os.makedirs(f"{root}/{number}/{inner}", exist_ok=True)
    with made_loop() as loop:
        seen = Seen()
        before = time.perf_counter()
        loop.watch(root, "create", seen, recursive=True)
        took = time.perf_counter() - before
        record_property("milliseconds", round(1000 * took))
        assert watches() == count // 100 * 100 + 1
        assert took < 5 / min(SCALE, 1)
        for number in range(0, count // 100, 7):
            touch(f"{root}/{number}/98/f")
        run_until(loop, lambda: len(seen) == len(range(0, count // 100, 7)))
        other = loop.watch(root, "delete", seen, recursive=True)
        other.destroy()
        loop.run(0.05)
        assert watches() == count // 100 * 100 + 1
        os.rename(root, root + "2")
        run_until(loop, lambda: "ignored" in seen[-1].names)
        os.rename(root + "2", root)
        seen.clear()
        expected = tree_of(root)
        run_until(loop, lambda: len(seen) > len(expected))
        assert [event.path for event in seen].count(root) == 1
        assert {event.path for event in seen} == {root} | expected


def test_the_model_of_the_tests(root, loop):
    """What follows from the events is what is there."""
    model = Model(root)
    loop.watch(root, ENTRIES, model, recursive=True)
    os.makedirs(root + "/a/b")
    touch(root + "/a/f")
    os.rename(root + "/a", root + "/c")
    run_until(loop, lambda: model.paths == {root + "/c", root + "/c/b", root + "/c/f"})
