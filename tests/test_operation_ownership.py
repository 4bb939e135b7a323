"""Who owns what while the kernel works: buffers, fds and objects of operations, under every way in which they can end."""

import concurrent.futures
import contextlib
import gc
import os
import random
import threading
import time
import weakref

import _fault
import pytest
from _support import BOUND, Pipe, finish, living, made_loop, open_fds, pipes, scaled, unraisable

from linux_event import Loop, Operation

CancelledError = concurrent.futures.CancelledError

# Python 3.12 warns of every fork of a process with threads; those of the kernel for io_uring count.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def is_free(buffer):
    """Whether nobody holds the bytearray: only then it can be resized."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1]
    return True


class Reads:
    """Reads in flight, each with a buffer of its own, on one pipe."""

    def __init__(self, loop, pipe, count):
        self.buffers = [bytearray(100) for _ in range(count)]
        self.calls = [[] for _ in range(count)]
        self.operations = [
            loop.readinto(pipe.r, buffer, -1, lambda *result, calls=calls: calls.append(result))
            for buffer, calls in zip(self.buffers, self.calls, strict=True)
        ]

    def in_flight(self):
        return not any(is_free(buffer) for buffer in self.buffers)

    def expect_cancelled(self):
        """Each callback was called once with a CancelledError, and all buffers are free."""
        for calls in self.calls:
            [(result, error)] = calls
            assert result is None
            assert type(error) is CancelledError
        assert all(is_free(buffer) for buffer in self.buffers)


# --- close --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [8, 256])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_close_with_hundreds_of_reads_in_flight(pipe, entries, iterations):
    with made_loop(entries=entries) as loop:
        reads = Reads(loop, pipe, 500)
        for _ in range(iterations):
            loop.run_once(0)
        assert reads.in_flight()
        assert not any(reads.calls)
        loop.close()
        reads.expect_cancelled()
        assert loop.statistics().requests_in_flight == loop.statistics().operations_in_flight == 0
    pipe.put()
    assert pipe.take() == b"x"
    assert not any(any(buffer) for buffer in reads.buffers)


def test_close_with_results_that_were_not_called_back(pipe):
    """What had ended before is handed over as it is."""
    with made_loop(max_events=1) as loop:
        pipe.put(b"a" * 100 + b"b" * 100 + b"c" * 100)
        reads = Reads(loop, pipe, 5)
        loop.run_once(BOUND)
        loop.close()
        assert [calls[0] for calls in reads.calls[:3]] == [(100, None)] * 3
        assert [len(calls) for calls in reads.calls] == [1] * 5
        assert all(type(calls[0][1]) is CancelledError for calls in reads.calls[3:])
        assert all(is_free(buffer) for buffer in reads.buffers)
        assert [bytes(buffer[:1]) for buffer in reads.buffers[:3]] == [b"a", b"b", b"c"]


def test_close_in_the_middle_of_writes(pipe):
    with made_loop() as loop:
        data = bytearray(1_000_000)
        calls = []
        loop.write(pipe.w, data, -1, lambda *result: calls.append(result))
        loop.run_once(0)
        assert not is_free(data)
        loop.close()
        assert is_free(data)
        assert len(calls) == 1


def test_a_callback_of_close_that_frees_its_buffer(pipe):
    """The buffer is free in the callback already."""
    with made_loop() as loop:
        buffer = bytearray(100)
        loop.readinto(pipe.r, buffer, -1, lambda result, error: buffer.clear())
        loop.run_once(0)
        loop.close()
        assert buffer == b""


CLOSING = """
    import errno, os, signal, sys, _fault
    from linux_event import Loop

    def is_free(buffer):
        try:
            buffer.append(0)
        except BufferError:
            return False
        return True

    read_end, write_end = os.pipe()
    buffers = [bytearray(4096) for _ in range(50)]
    calls = []
    loop = Loop()
    for buffer in buffers:
        loop.readinto(read_end, buffer, -1, lambda *result: calls.append(type(result[1]).__name__))
    kept = loop.read(read_end, 4096)
    loop.run_once(0)
"""


@pytest.mark.parametrize("what", ["interrupted", "refused"])
def test_memory_is_never_freed_where_nobody_could_wait_for_the_kernel(what):
    """Ctrl-C while close() waits, or a kernel that refuses to be waited for: the callbacks hear of the end all the same."""
    script = (
        CLOSING
        + {
            "interrupted": """
    def leave(signum, frame):
        if loop.is_closed():  # it is on its way to that, and waits
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, leave)
    _fault.deny(["enter"], errno.EINTR)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        loop.close()
    except KeyboardInterrupt:
        print("interrupted")
""",
            "refused": """
    _fault.deny(["enter"], errno.EPERM)
    loop.close()
    print("interrupted")
""",
        }[what]
    )
    script += """
    print(loop.is_closed(), len(calls), set(calls), kept.cancelled())
    print(any(is_free(buffer) for buffer in buffers))
    del loop, kept
    os.write(write_end, bytes(4096))
    print(any(is_free(buffer) for buffer in buffers))
    """
    _fault.run_script(script).check("interrupted\nTrue 50 {'CancelledError'} True\nFalse\nFalse")


# --- dropped loops, the end of the program ------------------------------------------------------------------------


@pytest.mark.parametrize("in_cycle", [False, True])
@pytest.mark.parametrize("iterations", [0, 1])
def test_a_loop_that_is_dropped_with_operations_in_flight(pipe, in_cycle, iterations):
    """It is collected with them; the buffers are free afterwards, and nobody is called."""
    gc.collect()
    with pytest.warns(ResourceWarning):
        loop = Loop()
        reads = Reads(loop, pipe, 100)
        waiting = loop.read(pipe.r, 10, -1, _fault.unexpected, timeout=BOUND)
        buffers, calls = reads.buffers, reads.calls
        if in_cycle:
            reads.operations.append(reads)
            waiting.add_done_callback(lambda _, loop=loop: None)
        for _ in range(iterations):
            loop.run_once(0)
        ref = weakref.ref(loop)
        del loop, reads, waiting
        gc.collect()
        assert ref() is None
    assert not any(calls)
    assert all(is_free(buffer) for buffer in buffers)
    assert not living(Operation)


@pytest.mark.parametrize("ending", ["drop", "close"])
def test_an_fd_that_has_arrived_but_was_not_called_back(ending):
    """A loop that is dropped closes it; one that is closed hands it over."""
    got = []
    with pytest.warns(ResourceWarning) if ending == "drop" else contextlib.nullcontext():
        loop = Loop(max_events=1)
        for _ in range(10):
            loop.open("/dev/null", os.O_RDONLY, callback=lambda fd, error: got.append(fd))
        loop.run_once(BOUND)
        assert len(got) == 1
        assert list(open_fds().values()).count("/dev/null") >= 10
        if ending == "close":
            loop.close()
        del loop
        gc.collect()
    assert len(got) == (1 if ending == "drop" else 10)
    for fd in got:
        os.close(fd)  # what is left is seen at the end of the test


def test_operations_outlive_their_loop(pipe):
    """They are cancelled, and keep the closed loop alive no longer than they live themselves."""
    with pytest.warns(ResourceWarning):
        loop = Loop()
        operation = loop.read(pipe.r, 10)
        loop.run_once(0)
        operation_ref = operation
        del loop
        gc.collect()
        assert operation.loop is not None  # the operation keeps it
        del operation, operation_ref
        gc.collect()
    assert not living(Loop)


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "del loop",
        "operations.append(operations)",
        "loop.close()",
    ]
    + [
        "import atexit; atexit.register(loop.close)",
        "raise SystemExit",
        "buffer = None",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_the_end_of_the_program_with_operations_in_flight(ending):
    """Nothing on stderr, no crash, and no wait for what never comes."""
    _fault.run_script(
        f"""
        import os, warnings
        from linux_event import Loop

        def fail(*_):
            print("called after the end")

        warnings.simplefilter("ignore")
        loop = Loop()
        read_end, write_end = os.pipe()
        buffer = bytearray(10)
        operations = [loop.readinto(read_end, buffer) for _ in range(10)]
        operations += [loop.read(read_end, 10, timeout=5), loop.open("/dev/null", os.O_RDONLY)]
        with loop.link():
            operations += [loop.read(read_end, 1), loop.write(write_end, b"x")]
        loop.run_once(0)
        operations += [loop.read(read_end, 10), loop.open("/dev/null", os.O_RDONLY), loop.write(write_end, bytes(10 ** 6))]
        {ending}
        """,
        options=["-X", "dev", "-W", "ignore"],
    ).check("")


# --- cancel that loses --------------------------------------------------------------------------------------------


def test_an_fd_that_arrives_after_cancel_is_closed(loop, tmp_path):
    """A file that was created shows that the kernel had won; it has opened it in a thread of its own."""
    source = random.Random(5)
    before = len(open_fds()) + 2  # the loop's pipe for signals comes
    lost = tries = 0
    limit = time.monotonic() + BOUND
    calls = []

    def start():
        path = tmp_path / str(tries)
        operation = loop.open(
            path, os.O_CREAT | os.O_WRONLY, callback=lambda result, error: calls.append((result, error))
        )

        def cancel(watcher):
            if not operation.cancel():
                assert operation.done() or operation.exception

        loop.timer(source.random() * 0.0002, cancel)
        return path, operation

    while tries < scaled(3000, least=100) or not lost:
        path, operation = start()
        finish(loop)
        [(result, error)] = calls
        calls.clear()
        if operation.cancelled():
            assert result is None and type(error) is CancelledError
            lost += path.exists()
        else:
            os.close(result)
        path.unlink(missing_ok=True)
        tries += 1
        for watcher in list(loop.watchers.values()):
            watcher.destroy()
        assert time.monotonic() < limit, "no cancellation has lost"
    assert len(open_fds()) <= before


def test_opens_cancelled_by_the_hundred(loop, tmp_path):
    """Before they are submitted, in flight, and when some have ended: no fd is left, each is called back once."""
    (tmp_path / "file").touch()
    rounds = scaled(60, least=5)
    calls = []
    for number in range(rounds):
        operations = [
            loop.open(
                tmp_path / "file", os.O_RDWR | (os.O_CREAT if place % 2 else 0), callback=lambda *r: calls.append(r)
            )
            for place in range(100)
        ]
        for _ in range(number % 3):
            loop.run_once(0)
        for operation in operations[:: number % 4 + 1]:
            operation.cancel()
        finish(loop)
        assert len(calls) == 100
        for result, error in calls:
            if error is None:
                os.close(result)
        calls.clear()
    assert str(tmp_path / "file") not in open_fds().values()


def test_data_that_were_read_before_cancel_are_dropped(loop, pipe):
    """In one iteration the data and the cancellation: the callback gets one of the two."""
    for number in range(scaled(1000, least=50)):
        calls = []
        operation = loop.read(pipe.r, 10, -1, lambda *result, calls=calls: calls.append(result))
        loop.run_once(0)
        pipe.put()
        if number % 2:
            loop.defer(operation.cancel)
        else:
            operation.cancel()
        finish(loop)
        [(result, error)] = calls
        if operation.cancelled():
            assert result is None and type(error) is CancelledError
        else:
            assert (result, error) == (b"x", None)
        pipe.take()


# --- many ---------------------------------------------------------------------------------------------------------


def test_thousands_in_flight_on_a_small_ring(pipe):
    count = scaled(5000, least=300)
    with made_loop(entries=8) as loop:
        got = []
        for number in range(count):
            loop.read(pipe.r, 8, -1, lambda result, error: got.append(result))
            if number % 1000 == 0:
                loop.run_once(0)
        loop.run_once(0)
        assert loop.statistics().operations_in_flight == count
        sent = [b"%08d" % number for number in range(count)]
        loop.write(pipe.w, b"".join(sent))
        finish(loop)
        assert sorted(got) == sent
        assert loop.statistics().operations_in_flight == 0


def test_thousands_cancelled_on_a_small_ring(pipe):
    count = scaled(3000, least=300)
    with made_loop(entries=8) as loop:
        reads = Reads(loop, pipe, count)
        loop.run_once(0)
        for operation in reads.operations[::2]:
            operation.cancel()
        for operation in reads.operations[1::2]:
            loop.defer(operation.cancel)
        finish(loop)
        reads.expect_cancelled()


def test_collections_at_every_allocation(loop, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1000))
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with pipes(1) as [pipe]:
            calls = []
            for _ in range(20):
                reads = Reads(loop, pipe, 3)
                reads.operations[0].add_done_callback(lambda _, reads=reads: calls.append(reads))
                with loop.link():
                    loop.open(tmp_path / "file", os.O_RDONLY, callback=lambda fd, error: os.close(fd))
                    loop.read(pipe.r, 10, timeout=0.0001, on_error=calls.append)
                loop.run_once(0)
                reads.operations[1].cancel()
                pipe.put(bytes(100))
                loop.run_once(0)
                pipe.put(bytes(200))
                finish(loop)
                assert all(len(each) == 1 for each in reads.calls)
            pipe.take()
            with made_loop() as other:
                reads = Reads(other, pipe, 10)
                other.run_once(0)
                other.close()
                reads.expect_cancelled()
    finally:
        gc.set_threshold(*thresholds)


# --- threads and fork ---------------------------------------------------------------------------------------------


def test_the_thread_that_owned_the_loop_has_ended(pipe):
    """What it has asked for has ended with it; another thread may close the loop."""
    loop = Loop()
    reads = Reads(loop, pipe, 50)
    thread = threading.Thread(target=loop.run_once, args=(0,))
    thread.start()
    thread.join()
    assert reads.in_flight()
    loop.close()
    reads.expect_cancelled()
    pipe.put()
    assert pipe.take() == b"x"


def test_fork_with_operations_in_flight(loop, pipe):
    """The child closes, uses and drops the loop; the parent never notices."""
    reads = Reads(loop, pipe, 20)
    opened = loop.open("/dev/null", os.O_RDONLY)
    loop.run_once(0)

    def child():
        operation = reads.operations[0]
        for call in (lambda: loop.read(pipe.r, 1), operation.cancel, loop.link):
            with pytest.raises(RuntimeError, match="parent"):
                call()
        assert not operation.done()
        assert not is_free(reads.buffers[0])
        loop.close()
        assert operation.cancelled()
        assert not any(reads.calls)
        assert all(is_free(buffer) for buffer in reads.buffers)
        loop.close()
        with made_loop() as other:
            calls = []
            pair = Pipe()
            pair.put()
            other.read(pair.r, 1, -1, lambda *result: calls.append(result))
            finish(other)
            assert calls == [(b"x", None)]
            pair.close()

    for _ in range(3):
        _fault.in_fork(child)
    assert reads.in_flight()
    assert not any(reads.calls)
    pipe.put(b"x" * 2000)
    finish(loop)
    assert [calls[0] for calls in reads.calls] == [(100, None)] * 20
    os.close(opened.result())


def test_a_child_that_ends_with_operations_in_flight():
    """With the interpreter's whole end, which collects the parent's loop."""
    _fault.run_script(
        """
        import os, sys
        from linux_event import Loop

        read_end, write_end = os.pipe()
        loop = Loop()
        buffer = bytearray(1)
        got = []
        loop.readinto(read_end, buffer, -1, lambda *result: got.append(result))
        loop.read(read_end, 1, timeout=3600)
        loop.run_once(0)
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.write(write_end, b"ab")
        loop.run(60)
        print(got, buffer in (b"a", b"b"))
        loop.close()
        """
    ).check("7\n[(1, None)] True", stderr=None)


# --- hostile objects ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(memoryview, "__release_buffer__"), reason="Python 3.12 has buffers in Python")
@pytest.mark.parametrize("effect", ["raise", "read", "cancel", "close", "run"])
def test_a_buffer_whose_release_does_something(loop, pipe, effect):
    """It runs code of the user's right before the callback."""
    seen, calls = [], []

    class Buffer:
        def __buffer__(self, flags):
            return memoryview(bytearray(10))

        def __release_buffer__(self, view):
            view.release()
            seen.append(effect)
            if effect == "raise":
                raise ValueError("in the release")
            if effect == "read":
                loop.read(pipe.r, 1, -1, lambda *result: calls.append(result))
            if effect == "cancel":
                assert operation.cancel() is False
            if effect in ("close", "run"):
                with pytest.raises(RuntimeError):
                    getattr(loop, effect)()

    pipe.put(b"0123456789x")
    with unraisable() as swallowed:
        operation = loop.readinto(pipe.r, Buffer(), -1, lambda *result: calls.append(result))
        finish(loop)
    assert seen == [effect]
    assert calls[0] == (10, None)
    assert len(calls) == (2 if effect == "read" else 1)
    assert len(swallowed) == (1 if effect == "raise" else 0)


@pytest.mark.parametrize("effect", ["read", "cancel", "close", "raise"])
def test_an_object_whose_finalizer_does_something(loop, pipe, effect):
    """What belongs to the fd is dropped right before the callback."""
    calls = []

    class File:
        def fileno(self):
            return pipe.r

        def __del__(self):
            calls.append(effect)
            if effect == "raise":
                raise ValueError("in the finalizer")
            if effect == "read":
                loop.read(pipe.r, 1, -1, lambda *result: calls.append(result))
            if effect == "cancel":
                operation.cancel()
            if effect == "close":
                with pytest.raises(RuntimeError):
                    loop.close()

    pipe.put(b"xy")
    with unraisable() as swallowed:
        operation = loop.read(File(), 1, -1, lambda *result: calls.append(result))
        finish(loop)
    assert calls[:2] == [effect, (b"x", None)]
    assert calls[2:] == ([(b"y", None)] if effect == "read" else [])
    assert not operation.cancelled()
    assert len(swallowed) == (effect == "raise")


def test_a_callback_that_drops_everything(loop, pipe):
    """The last references of loop and operation but the running call's."""
    calls = []

    def callback(result, error):
        calls.append(result)
        holder.clear()
        gc.collect()

    pipe.put()
    holder = [loop.read(pipe.r, 1, -1, callback)]
    holder[0].add_done_callback(lambda operation: holder.append(repr(operation)))
    finish(loop)
    assert calls == [b"x"]
    assert len(holder) == 1
