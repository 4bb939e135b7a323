"""PathWatcher: paths that go and come back, and the limits of the system."""

import errno
import os
import shutil
import socket

import _fault
import pytest
from _support import made_loop, open_fds, run_until
from _trees import Seen, Told, made_folder, write


@pytest.fixture
def folder(tmp_path):
    return made_folder(tmp_path, "folder")


@pytest.fixture
def told(loop, folder):
    return Told(loop, folder)


# --- the path goes, and comes back -----------------------------------------------------------------------------------

SELF = ("create", "delete_self", "move_self", "modify")


def test_a_deleted_directory(loop, folder, told):
    loop.watch(folder, SELF, told.seen)
    assert told(lambda: os.rmdir(folder)) == [("delete_self", folder), ("ignored", folder)]
    assert told(lambda: os.mkdir(folder)) == [("create|isdir", folder)]
    assert told(lambda: write(folder + "/a"))[0] == ("create", folder + "/a")
    shutil.rmtree(folder)
    os.mkdir(folder)
    write(folder + "/b")
    told()
    assert told(lambda: write(folder + "/c"), "create") == [("create", folder + "/c")]


def test_directories_above_that_go_and_come_back(loop, folder, told):
    os.makedirs(folder + "/a/b/c")
    loop.watch(folder + "/a/b/c", SELF, told.seen)
    told(lambda: shutil.rmtree(folder + "/a"))
    assert told(lambda: os.mkdir(folder + "/a")) == []
    assert told(lambda: write(folder + "/a/x")) == []
    assert told(lambda: os.mkdir(folder + "/a/b")) == []
    assert told(lambda: shutil.rmtree(folder + "/a")) == []
    assert told(lambda: os.makedirs(folder + "/a/b/c")) == [("create|isdir", folder + "/a/b/c")]
    assert told(lambda: write(folder + "/a/b/c/f"))[0] == ("create", folder + "/a/b/c/f")


def test_a_moved_directory(loop, folder, told):
    loop.watch(folder, SELF, told.seen)
    assert told(lambda: os.rename(folder, folder + "2")) == [("move_self", folder), ("ignored", folder)]
    assert told(lambda: write(folder + "2/a")) == []
    os.rename(folder + "2", folder)
    assert told() == [("create|isdir", folder), ("create", folder + "/a")]


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("what", ["", "/f"])
def test_a_deleted_directory_that_somebody_works_in(loop, folder, told, what, recursive):
    """The kernel keeps it, and says nothing of its end until nobody has it, or anything of it, open any more."""
    path = folder + "/d"
    os.mkdir(path)
    write(path + "/f")
    loop.watch(path, SELF, told.seen, recursive=recursive)
    holder = os.open(path + what, os.O_RDONLY)
    assert told(lambda: shutil.rmtree(path)) == [("delete_self", path), ("ignored", path)]
    assert told(lambda: os.mkdir(path)) == [("create|isdir", path)]
    assert told(lambda: os.mkfifo(path + "/g")) == [("create", path + "/g")]
    assert told(lambda: os.close(holder)) == []
    holder = os.open(path, os.O_RDONLY)
    shutil.rmtree(path)
    os.mkdir(path)
    assert told() == [("delete_self", path), ("ignored", path), ("create|isdir", path)]
    os.close(holder)


def test_a_directory_above_is_deleted_that_somebody_works_in(loop, folder, told):
    path = folder + "/a/b/c"
    os.makedirs(path)
    loop.watch(path, SELF, told.seen)
    assert told(lambda: os.rmdir(path)) == [("delete_self", path), ("ignored", path)]
    holder = os.open(folder + "/a/b", os.O_RDONLY)
    for _ in range(2):
        told(lambda: shutil.rmtree(folder + "/a"))
        assert told(lambda: os.makedirs(path)) == [("create|isdir", path)]
    assert told(lambda: os.mkfifo(path + "/f")) == [("create", path + "/f")]
    os.close(holder)


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("kind", ["directory", "file", "missing"])
def test_a_directory_above_is_renamed(loop, folder, told, kind, recursive):
    """What is watched has another path then, and the path may soon lead to something else."""
    above, path = folder + "/a/b", folder + "/a/b/c"
    os.makedirs(path)
    watcher = loop.watch(path, SELF, told.seen, recursive=recursive)
    if kind != "directory":
        told(lambda: os.rmdir(path))
    if kind == "file":
        told(lambda: write(path))
    found = told(lambda: os.rename(folder + "/a", folder + "/x"))
    assert found == ([("ignored", path)] if kind != "missing" else [])
    assert told(lambda: os.makedirs(above)) == []
    assert told(lambda: os.mkdir(path)) == [("create|isdir", path)]
    assert told(lambda: os.mkfifo(path + "/f")) == [("create", path + "/f")]
    assert told(lambda: write(folder + "/x/b/g")) == []
    shutil.rmtree(folder + "/a")
    os.rename(folder + "/x", folder + "/a")
    found = told()
    assert found[:2] == [("delete_self", path), ("ignored", path)]
    assert found[2:] == {"directory": [("create|isdir", path)], "file": [("create", path)], "missing": []}[kind]
    watcher.destroy()


def test_directories_above_that_change_places(loop, folder, told):
    for name in "xy":
        os.makedirs(f"{folder}/{name}/a")
        write(f"{folder}/{name}/a/in_{name}")
    path = folder + "/x/a"
    loop.watch(path, SELF, told.seen, recursive=True)
    exchange = _fault._libc.renameat2
    for other in ("y", "x"):
        if exchange(-100, os.fsencode(folder + "/x"), -100, os.fsencode(folder + "/y"), 2):
            pytest.skip("this file system does not exchange names")
        assert told() == [("ignored", path), ("create|isdir", path), ("create", f"{path}/in_{other}")]
        assert told(lambda: write(folder + "/y/a/f")) == []
        assert told(lambda: os.mkfifo(path + "/p")) == [("create", path + "/p")]
        os.unlink(path + "/p")
        told()
        os.unlink(folder + "/y/a/f")


def test_what_is_above_is_renamed_there_and_back(loop, folder, told):
    path = folder + "/a/b"
    os.makedirs(path)
    loop.watch(path, SELF, told.seen)
    os.rename(folder + "/a", folder + "/x")
    os.rename(folder + "/x", folder + "/a")
    assert told() == []
    assert told(lambda: os.rename(folder + "/a", folder + "/x")) == [("ignored", path)]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("how", ["unlink", "rename over", "rename away"])
def test_a_file_that_is_replaced(loop, folder, told, how, held):
    path = folder + "/f"
    write(path)
    loop.watch(path, SELF, told.seen)
    holder = os.open(path, os.O_RDONLY) if held else None
    if how == "unlink":
        assert told(lambda: os.unlink(path)) == [("delete_self", path), ("ignored", path)]
        write(path)
    elif how == "rename over":
        write(path + "2")
        os.rename(path + "2", path)
    else:
        os.rename(path, path + "2")
        write(path)
    found = told()
    gone = {"unlink": [], "rename over": [("delete_self", path)], "rename away": [("move_self", path)]}[how]
    assert found[: len(gone)] == gone
    assert ("create", path) in found
    if held:
        os.close(holder)
    assert told() == []
    with open(path, "ab") as file:
        file.write(b"more")
    assert told() == [("modify", path)]


def test_a_link_less_or_more_is_no_end(loop, folder, told):
    path = folder + "/f"
    write(path)
    loop.watch(path, (*SELF, "attrib"), told.seen)
    assert told(lambda: os.link(path, path + "2")) == [("attrib", path)]
    assert told(lambda: os.unlink(path + "2")) == [("attrib", path)]
    os.link(path, path + "2")
    told()
    assert told(lambda: os.unlink(path)) == [("attrib", path), ("delete_self", path), ("ignored", path)]
    assert told(lambda: write(path + "2")) == []


def test_a_file_becomes_a_directory(loop, folder, told):
    path = folder + "/f"
    write(path)
    loop.watch(path, SELF, told.seen)
    os.unlink(path)
    os.mkdir(path)
    assert told()[-1] == ("create|isdir", path)
    assert told(lambda: write(path + "/g"))[0] == ("create", path + "/g")


def test_only_ignored_is_told_to_those_who_asked_for_other_things(loop, folder, told):
    loop.watch(folder, "modify", told.seen)
    os.rmdir(folder)
    assert told() == [("ignored", folder)]
    assert told(lambda: os.mkdir(folder)) == []
    assert told(lambda: write(folder + "/f")) == [("modify", folder + "/f")]


def test_stopped_while_the_path_is_gone(loop, folder, told):
    watcher = loop.watch(folder, "all", told.seen)
    os.rmdir(folder)
    told()
    watcher.stop()
    with pytest.raises(FileNotFoundError):
        watcher.start()
    assert not watcher.is_active()
    os.mkdir(folder)
    watcher.start()
    assert told(lambda: os.mkfifo(folder + "/f")) == [("create", folder + "/f")]


def test_a_socket(loop, folder, told):
    path = folder + "/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        loop.watch(path, "delete_self", told.seen)
    assert told(lambda: os.unlink(path)) == [("delete_self", path), ("ignored", path)]


def test_a_file_takes_the_place_of_a_directory_above(loop, folder, told):
    path = folder + "/a/b/c"
    os.makedirs(path)
    loop.watch(path, SELF, told.seen)

    def replace():
        shutil.rmtree(folder + "/a")
        write(folder + "/a")

    assert told(replace) == [("delete_self", path), ("ignored", path)]
    os.unlink(folder + "/a")
    assert told(lambda: os.makedirs(path)) == [("create|isdir", path)]


def test_a_current_directory_that_is_gone(loop, folder, monkeypatch):
    os.mkdir(folder + "/a")
    monkeypatch.chdir(folder + "/a")
    os.rmdir(folder + "/a")
    with pytest.raises(FileNotFoundError) as failure:
        loop.watch("x", "all", print)
    assert failure.value.filename == "x"
    assert not loop.watchers


def test_not_started_and_not_there(loop, folder, told):
    """A path has to be there when it is started, not before."""
    path = folder + "/d"
    watcher = loop.watch(path, SELF, told.seen, recursive=True, start=False)
    assert not watcher.is_active()
    assert told(lambda: os.mkdir(path)) == []
    watcher.start()
    os.mkdir(path + "/e")
    assert told(lambda: os.mkdir(path + "/e/f")) == [("create|isdir", path + "/e"), ("create|isdir", path + "/e/f")]
    watcher.stop()
    shutil.rmtree(path)
    with pytest.raises(FileNotFoundError) as failure:
        watcher.start()
    assert failure.value.filename == path
    assert not watcher.is_active()
    assert not watcher.is_destroyed()


def test_the_loop_is_closed_while_events_arrive(folder):
    before = open_fds()
    for iterations in range(4):
        with made_loop() as loop:
            seen = Seen()
            loop.watch(folder, "all", seen, recursive=True)
            for _ in range(iterations):
                loop.run_once(0)
            os.makedirs(folder + "/a/b")
            if iterations == 3:
                loop.post(print)  # what has been read is there
                loop.timer(0, lambda watcher: loop.stop(), priority=2)
        assert len(seen) == 0
        shutil.rmtree(folder + "/a")
    assert open_fds() == before


def test_stopped_after_what_has_happened(loop, folder, told):
    """What a read brings that is no more of interest is passed over."""
    for _ in range(3):
        watcher = loop.watch(folder, SELF, told.seen)
        told()
        os.mkfifo(folder + "/f")
        watcher.stop()
        assert told() == []
        watcher.start()
        assert told(lambda: os.mkfifo(folder + "/g")) == [("create", folder + "/g")]
        watcher.destroy()
        os.unlink(folder + "/f")
        os.unlink(folder + "/g")


def test_the_fd_is_taken_away(loop, folder, told):
    """A program that closes fds that are not its own: told, and no end of everything."""
    failed = []
    loop.on_error = lambda source, error: failed.append((source, error))
    watcher = loop.watch(folder, SELF, told.seen)
    told()
    (fd,) = [fd for fd, target in open_fds().items() if "inotify" in target]
    nothing = os.open("/", os.O_RDONLY)
    os.dup2(nothing, fd)
    os.close(nothing)
    os.mkfifo(folder + "/f")
    run_until(loop, lambda: told.seen)  # the read that has the file still
    run_until(loop, lambda: failed)
    ((source, error),) = failed
    assert source is watcher
    assert error.errno == errno.EISDIR
    watcher.destroy()
    loop.watch(folder, SELF, told.seen)
    told.seen.clear()
    assert told(lambda: os.mkfifo(folder + "/g")) == [("create", folder + "/g")]


# --- limits ----------------------------------------------------------------------------------------------------------

INJECTED = pytest.mark.skipif(_fault.strace_missing() is not None, reason=str(_fault.strace_missing()))


@INJECTED
@pytest.mark.parametrize(
    ("call", "name", "text"),
    [
        ("inotify_init1", "EMFILE", "fs.inotify.max_user_instances"),
        ("inotify_init1", "ENFILE", "Too many open files in system"),
        ("inotify_add_watch", "ENOSPC", "fs.inotify.max_user_watches"),
        ("inotify_add_watch", "ENOMEM", "Cannot allocate memory"),
        ("inotify_add_watch", "EACCES", "Permission denied"),
    ],
)
def test_limits_are_explained(call, name, text):
    script = """
        from _support import made_loop, open_fds
        with made_loop() as loop:
            before = open_fds()
            try:
                loop.watch("/usr", "all", print)
            except OSError as error:
                print(error.errno, error)
            assert open_fds() == before and not loop.watchers
    """
    result = _fault.run_injected(script, f"{call}:error={name}").check()
    assert result.stdout.startswith(f"{getattr(errno, name)} ")
    assert text in result.stdout


def test_no_fd_is_left(loop, folder):
    before = open_fds()
    with pytest.raises(OSError, match="RLIMIT_NOFILE") as failure, _fault.short_of_fds():
        loop.watch(folder, "all", print)
    assert failure.value.errno == errno.EMFILE
    assert open_fds() == before
    loop.watch(folder, "all", print)


@INJECTED
def test_no_watch_is_left_for_a_path_that_is_gone(folder):
    """It cannot be waited for, then. The watcher says so, and may be started again."""
    script = f"""
        import os
        from _support import made_loop, run_until
        with made_loop() as loop:
            failed = []
            loop.on_error = lambda source, error: failed.append((source, error))
            watcher = loop.watch({folder!r}, "create", print, ref=False)
            os.rmdir({folder!r})
            run_until(loop, lambda: len(failed) == 2)
            assert watcher.is_active()
            for source, error in failed:
                assert source is watcher and error.filename == {folder!r}, (source, error)
                print(error.errno, error)
            loop.run(0.05)
            assert len(failed) == 2
            os.mkdir({folder!r})
            watcher.stop()
    """
    above = folder.count("/") - 1
    result = _fault.run_injected(script, f"inotify_add_watch:error=ENOSPC:when={3 + above}+").check()
    lines = [line for line in result.stdout.splitlines() if "fs.inotify.max_user_watches" in line]
    assert [line.split()[0] for line in lines] == [str(errno.ENOSPC)] * 2
