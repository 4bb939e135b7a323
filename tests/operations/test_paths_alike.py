"""What all operations on paths have in common: arguments, callbacks, cancellation, chains."""

import errno
import os
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from _fault import run_script
from _paths import PLACE, make_place, tree
from _support import finish, made_loop, scaled, unused_fd

TWO_PATHS = ("rename", "link", "symlink")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with something of each kind in it."""
    monkeypatch.chdir(tmp_path)
    make_place(tmp_path)
    return tmp_path


# --- What all of them share -------------------------------------------------------------------------------------------

EVERY = {
    "stat": ("file",),
    "truncate": ("file", 10),
    "rename": ("file", "new"),
    "unlink": ("file",),
    "rmdir": ("folder",),
    "mkdir": ("new",),
    "link": ("file", "new"),
    "symlink": ("file", "new"),
}


@pytest.mark.parametrize("method", EVERY)
def test_the_other_form_of_callbacks(loop, place, method):
    results, errors = [], []
    forms = {"on_success": results.append, "on_error": errors.append}
    getattr(loop, method)(
        *[argument.replace("file", "nothing") if isinstance(argument, str) else argument for argument in EVERY[method]],
        **forms,
    ) if method != "symlink" else loop.symlink("file", "empty", **forms)
    if method == "mkdir":
        loop.mkdir("file", **forms)
    finish(loop)
    assert len(errors) == 1
    assert isinstance(errors[0], OSError)
    results.clear()
    if method == "rmdir":
        os.unlink("folder/inner")
    arguments = ("newer",) if method == "mkdir" else EVERY[method]
    getattr(loop, method)(*arguments, **forms)
    finish(loop)
    assert len(results) == len(errors) == 1


@pytest.mark.parametrize("method", EVERY)
def test_a_nul_in_a_path(loop, place, method):
    for place_of_nul in range(2 if method in TWO_PATHS else 1):
        arguments = list(EVERY[method])
        arguments[place_of_nul] += "\0"
        with pytest.raises(ValueError, match="null byte"):
            getattr(loop, method)(*arguments)
        arguments[place_of_nul] = arguments[place_of_nul].encode()
        with pytest.raises(ValueError, match="null byte"):
            getattr(loop, method)(*arguments)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("wrong", [None, 1.5, []])
def test_a_path_of_another_type(loop, place, method, wrong):
    with pytest.raises(TypeError):
        getattr(loop, method)(wrong, *EVERY[method][1:])
    if method in TWO_PATHS:
        with pytest.raises(TypeError):
            getattr(loop, method)("file", wrong)


@pytest.mark.parametrize(
    ("method", "arguments", "keywords", "error", "named"),
    [
        ("stat", ("file",), {"follow_symlinks": 1}, TypeError, "follow_symlinks.*1"),
        ("stat", (0,), {"follow_symlinks": False}, ValueError, "follow_symlinks"),
        ("stat", (0,), {"dir_fd": 0}, ValueError, "dir_fd"),
        ("stat", (-1,), {}, ValueError, "-1"),
        ("stat", (True,), {}, TypeError, "True"),
        ("truncate", ("file", -1), {}, ValueError, "length.*-1"),
        ("truncate", ("file", 2**63), {}, ValueError, "length"),
        ("truncate", ("file", 1.0), {}, TypeError, "length.*1.0"),
        ("truncate", ("file",), {}, TypeError, "argument"),
        ("mkdir", ("new", -1), {}, ValueError, "mode.*-1"),
        ("mkdir", ("new", 0o10000), {}, ValueError, "mode"),
        ("mkdir", ("new", "700"), {}, TypeError, "mode.*700"),
        ("unlink", ("file",), {"dir_fd": -1}, ValueError, "-1"),
        ("link", ("file", "new"), {"follow_symlinks": None}, TypeError, "follow_symlinks.*None"),
        ("link", ("file", "new"), {"hard": True}, TypeError, "hard"),
        ("link", ("file",), {}, TypeError, "target"),
        ("link", (), {"target": "file"}, TypeError, "source"),
        ("link", (), {"callback": print}, TypeError, "callback"),
        ("link", (), {"timeout": 1}, TypeError, "timeout"),
        ("link", (), {"src_dir_fd": 1}, TypeError, "src_dir_fd"),
        ("rename", ("file", "new"), {"timeout": -1}, ValueError, "timeout.*-1"),
        ("rename", ("file", "new"), {"callback": 1}, TypeError, "callback.*1"),
    ],
)
def test_wrong_arguments(loop, place, method, arguments, keywords, error, named):
    before = tree()
    with pytest.raises(error, match=named):
        getattr(loop, method)(*arguments, **keywords)
    finish(loop)
    assert tree() == before


@pytest.mark.parametrize("keyword", ["dir_fd", "src_dir_fd", "dst_dir_fd"])
def test_a_folder_that_is_not_open(loop, place, keyword):
    method, arguments = ("unlink", ("file",)) if keyword == "dir_fd" else ("rename", ("file", "new"))
    with pytest.raises(OSError) as raised:
        getattr(loop, method)(*arguments, **{keyword: unused_fd()})
    assert raised.value.errno == errno.EBADF


@pytest.mark.parametrize("method", EVERY)
def test_cancelled_before_it_began(loop, place, method):
    before = tree()
    calls = []
    operation = getattr(loop, method)(*EVERY[method], callback=lambda *call: calls.append(call))
    assert operation.cancel()
    assert operation.cancelled()
    finish(loop)
    assert [(result, type(error)) for result, error in calls] == [(None, CancelledError)]
    assert tree() == before


@pytest.mark.parametrize("method", EVERY)
def test_cancelled_on_its_way(loop, place, method):
    calls = []
    operation = getattr(loop, method)(*EVERY[method], callback=lambda *call: calls.append(call))
    loop.run_once(0)
    was_done = operation.done()
    assert operation.cancel() is not was_done
    finish(loop)
    assert len(calls) == 1


@pytest.mark.parametrize("entries", [8, 256])
def test_hundreds_at_once(entries, place):
    count = scaled(1000, 100)
    with made_loop(entries=entries) as loop:
        made, told = [], []
        for number in range(count):
            loop.mkdir(f"n{number}", on_success=made.append)
        finish(loop)
        assert made == [None] * count
        before = loop.statistics()
        operations = [loop.stat(f"n{number}") for number in range(count)]
        finish(loop)
        for number, operation in enumerate(operations):
            assert operation.result().st_ino == os.stat(f"n{number}").st_ino
        if entries == 256:
            after = loop.statistics()
            assert after.submissions - before.submissions == count
        for number in range(count):
            loop.rmdir(f"n{number}", on_success=told.append)
        finish(loop)
        assert told == [None] * count


def test_the_loop_is_closed_meanwhile(place):
    calls = []
    with made_loop() as loop:
        for number in range(100):
            loop.mkdir(f"n{number}", callback=lambda *call: calls.append(call))
            loop.truncate("file", number, lambda *call: calls.append(call))
            loop.stat("file", lambda *call: calls.append(call))
        loop.run_once(0)
    assert len(calls) == 300


def test_a_chain_of_them(loop, place):
    with open("file", "r+b") as file:
        with loop.link() as chain:
            loop.mkdir("new")
            loop.rename("file", "new/file")
            loop.link("new/file", "new/hard")
            loop.symlink("new/hard", "soft")
            loop.truncate(file, 10)
            loop.stat("soft")
            loop.unlink("new/file")
            loop.unlink("new/hard")
            loop.rmdir("new")
        finish(loop)
    assert [operation.exception() for operation in chain.operations] == [None] * 9
    assert chain.operations[5].result().st_size == 10
    assert not os.path.exists("new")


FAILING = {
    "stat": ("nothing",),
    "rename": ("nothing", "new"),
    "unlink": ("nothing",),
    "rmdir": ("nothing",),
    "mkdir": ("file",),
    "link": ("nothing", "new"),
    "symlink": ("new", "file"),
}


@pytest.mark.parametrize("method", [*FAILING, "truncate", "fsync", "fallocate"])
def test_a_chain_ends_where_one_fails(loop, place, method):
    # The kernel would go on behind each of these.
    with open("file", "rb") as reading, open("/dev/null", "rb") as null:
        arguments = FAILING | {"truncate": (reading, 1), "fsync": (null,), "fallocate": (reading, 0, 0, 1)}
        with loop.link() as chain:
            loop.mkdir("first")
            getattr(loop, method)(*arguments[method], callback=lambda *call: None)
            loop.unlink("file")
            loop.mkdir("second")
            loop.read(reading, 5000)
            loop.mkdir("third")
        finish(loop)
    first, failed, *rest = chain.operations
    assert first.exception() is None
    assert isinstance(failed.exception(), OSError)
    assert not failed.cancelled()
    assert len(rest) == 4
    for operation in rest:
        assert operation.cancelled()
    assert sorted(os.listdir(".")) == sorted([*PLACE, "first"])


def test_a_hard_chain_goes_on(loop, place):
    with loop.link(hard=True) as chain:
        for method, arguments in FAILING.items():
            getattr(loop, method)(*arguments, callback=lambda *call: None)
        loop.mkdir("last")
    finish(loop)
    assert all(isinstance(operation.exception(), OSError) for operation in chain.operations[:-1])
    assert os.path.isdir("last")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("rounds", range(3))
def test_a_member_of_a_chain_is_cancelled(loop, place, number, rounds):
    with loop.link() as chain:
        for name in "abcde":
            loop.mkdir(name)
    for _ in range(rounds):
        loop.run_once(0)
    cancelled = chain.operations[number].cancel()
    finish(loop)
    made = [operation.exception() is None for operation in chain.operations if not operation.cancelled()]
    assert all(made)
    # What comes behind it is not begun; it may have been done itself all the same.
    assert len(made) == (number if cancelled else 5)
    assert set(os.listdir(".")) - PLACE in (set("abcde"[: len(made)]), set("abcde"[: len(made) + 1]))


def test_the_loop_is_closed_with_a_chain_on_its_way(place):
    for rounds in range(3):
        with made_loop() as loop:
            with loop.link() as chain:
                for name in "abcde":
                    loop.mkdir(f"{name}{rounds}")
                    loop.stat(f"{name}{rounds}")
            for _ in range(rounds):
                loop.run_once(0)
        assert all(operation.done() for operation in chain.operations)


def test_a_chain_that_is_longer_than_what_waits(place):
    with made_loop(entries=8) as loop:
        with loop.link() as chain:
            for number in range(8):
                loop.mkdir(f"n{number}")
        with loop.link() as second:
            for number in range(8):
                loop.rmdir(f"m{number}", callback=lambda *call: None)
        finish(loop)
        assert [operation.exception() for operation in chain.operations] == [None] * 8
        assert [operation.cancelled() for operation in second.operations] == [False] + [True] * 7


def test_what_is_more_than_one_request_is_not_for_chains(loop, place):
    with pytest.raises(ValueError, match="truncate is more than one request"), loop.link():
        loop.truncate("file", 10)


def test_an_operation_tells_both_paths(loop, place):
    operation = loop.rename("file", "new")
    assert repr(operation) == "<Operation rename 'file' 'new' in flight>"
    finish(loop)
    assert repr(operation) == "<Operation rename 'file' 'new' done>"


def test_permission_is_denied(place):
    if os.getuid():
        pytest.skip("only root can become somebody else")
    folder = Path(f"/dev/shm/linux_event-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        (folder / "file").touch(mode=0o600)
        run_script(
            f"""
            import concurrent.futures, os
            from linux_event import Loop, diagnosis  # the library of Python may be out of reach later
            os.chdir({str(folder)!r})
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with Loop() as loop:
                for method, arguments in {EVERY | {"stat": ("/proc/1/fd/0",)}!r}.items():
                    if method in ("rmdir", "symlink"):
                        continue
                    operation = getattr(loop, method)(*arguments, callback=lambda *call: None)
                    loop.run(60)
                    error = operation.exception()
                    assert isinstance(error, PermissionError), (method, error)
                    assert error.filename == arguments[0]
            """
        ).check("")
    finally:
        (folder / "file").unlink()
        folder.rmdir()
