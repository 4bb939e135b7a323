"""What all raw requests share: their life, their buffers, their results, and arguments that are wrong."""

import gc
import inspect
import os
import random
import socket
import weakref
from concurrent.futures import CancelledError, InvalidStateError
from errno import ECANCELED

import pytest
from _raw import driven
from _support import scaled

from linux_event import Loop, Operation, Ring, uring

METHODS = sorted(
    name
    for name, value in vars(Ring).items()
    if callable(value) and not name.startswith("_") and "callback" in inspect.signature(value).parameters
)


def test_a_request_is_an_operation(driver, pipe):
    request = driver.ring.read(pipe.r, bytearray(5))
    assert isinstance(request, Operation)
    assert repr(request) == f"<Request read {pipe.r} in flight>"
    assert request.loop is driver.loop
    assert not request.done()
    assert request.message is None
    with pytest.raises(InvalidStateError):
        request.result()
    done = []
    request.add_done_callback(done.append)
    pipe.put(b"abc")
    assert driver.all(request) == [3]
    assert done == [request]
    assert request.exception() is None
    assert not request.cancelled()
    assert not request.cancel()
    with pytest.raises(TypeError, match="cannot be created"):
        type(request)()


def test_a_failure_is_a_result(driver, pipe):
    request = driver.ring.write(pipe.r, b"x")
    (res,) = driver.all(request)
    assert res < 0
    assert request.exception() is None
    assert repr(request).endswith(" done>")


def test_cancel_is_final(driver, pipe):
    told = []
    buffer = bytearray(5)
    request = driver.ring.read(pipe.r, buffer, -1, lambda *said: told.append(said))
    driver.turn()
    with pytest.raises(BufferError):
        buffer.append(1)
    assert request.cancel()
    assert request.cancel()
    assert request.cancelled()
    pipe.put()
    driver.until(lambda: told)
    assert told[0][0] == -ECANCELED
    buffer.append(1)
    with pytest.raises(CancelledError):
        request.result()


def test_cancel_before_the_kernel_has_heard_of_it(driver, pipe):
    told = []
    request = driver.ring.read(pipe.r, bytearray(5), -1, lambda *said: told.append(said))
    assert request.cancel()
    assert told == []
    driver.until(lambda: told)
    assert told == [(-ECANCELED, 0)]


def test_an_fd_that_is_opened_after_all_is_closed(driver, tmp_path):
    in_time = []
    for _ in range(scaled(50, least=5)):
        request = driver.ring.openat(None, tmp_path, os.O_RDONLY, flags=Ring.ASYNC)
        if driver.loop is None:
            driver.ring.submit()
        else:
            driver.loop.run_once(0)
        if not request.cancel():
            in_time.append(request)
    driver.until(lambda: driver.ring.statistics().operations_in_flight == 0)
    for request in in_time:
        os.close(request.result())


def test_a_pipe_that_is_made_after_all_is_closed(driver):
    if "PIPE" not in driver.ring.features:
        return
    fds = bytearray(8)
    request = driver.ring.pipe(fds, flags=Ring.ASYNC)
    driver.ring.submit() if driver.loop is None else driver.loop.run_once(0)
    is_cancelled = request.cancel()
    driver.until(lambda: driver.ring.statistics().operations_in_flight == 0)
    if not is_cancelled:
        for fd in memoryview(fds).cast("i"):
            os.close(fd)


def test_an_exception_in_a_callback(driver, pipe):
    told = []
    driver.ring.on_error = lambda source, error: told.append((source, type(error)))
    request = driver.ring.nop(lambda res, flags: 1 / 0)
    other = driver.ring.nop()
    assert driver.all(request, other) == [0, 0]
    assert told == [(request, ZeroDivisionError)]
    assert driver.ring.on_error is not None
    with pytest.raises(TypeError, match="on_error"):
        driver.ring.on_error = 5

    def leave(res, flags):
        raise KeyboardInterrupt

    done = []
    request = driver.ring.nop(leave)
    request.add_done_callback(lambda request: 1 / 0)
    request.add_done_callback(done.append)
    with pytest.raises(KeyboardInterrupt):
        driver.all(request, driver.ring.nop())
    assert done == [request]
    assert told[1:] == [(request, ZeroDivisionError)]
    driver.until(lambda: driver.ring.statistics().operations_in_flight == 0)


def test_an_exception_between_the_results_of_one_request(driver, pipe):
    told = []

    def leave_once(res, flags):
        told.append(res)
        if len(told) == 2:
            raise KeyboardInterrupt

    with socket.create_server(("127.0.0.1", 0)) as server:
        request = driver.ring.accept(server, leave_once, multishot=True)
        driver.turn()
        clients = [socket.create_connection(server.getsockname()) for _ in range(5)]
        with pytest.raises(KeyboardInterrupt):
            driver.until(lambda: len(told) == 5)
        driver.until(lambda: len(told) == 5)
        request.cancel()
        driver.until(lambda: len(told) == 6)
        for fd in told[:5]:
            os.close(fd)
        for client in clients:
            client.close()


def test_callbacks_make_requests(driver):
    left = [scaled(500, least=20)]

    def again(res, flags):
        left[0] -= 1
        if left[0] > 0:
            driver.ring.nop(again)

    driver.ring.nop(again)
    driver.until(lambda: left[0] == 0)


def test_a_buffer_is_let_go_before_the_callback(driver, pipe):
    buffer = bytearray(4)
    grown = []
    pipe.put(b"1234")
    driver.ring.readv(pipe.r, [buffer], callback=lambda res, flags: (buffer.append(5), grown.append(res)))
    driver.until(lambda: grown)
    assert grown == [4]


def test_what_a_request_holds_is_let_go(driver, pipe):
    class Held(bytearray):
        pass

    buffer = Held(10)
    seen = weakref.ref(buffer)
    request = driver.ring.recv(socket_of(driver, pipe), buffer)
    del buffer
    gc.collect()
    assert seen() is not None
    driver.all(request)
    assert seen() is None


def socket_of(driver, pipe):
    return pipe.r  # not a socket: the request fails at once


@pytest.mark.parametrize("kind", ["alone", "loop"])
def test_closing_with_requests_in_flight(kind, pipe, pair):
    count = scaled(300, least=20)
    buffers = [bytearray(10) for _ in range(count)]
    told = []
    with driven(kind, entries=8) as driver:
        for number, buffer in enumerate(buffers):
            source = (pipe.r, pair[0])[number % 2]
            driver.ring.read(source, buffer, -1, lambda *said: told.append(said))
        driver.turn()
        for buffer in buffers:
            with pytest.raises(BufferError):
                buffer.append(1)
        assert driver.ring.statistics().operations_in_flight == count
    assert [res for res, flags in told] == [-ECANCELED] * count
    for buffer in buffers:
        buffer.append(1)


def test_what_the_kernel_lacks(driver):
    uring.pretend("WAITID", "BIND")
    try:
        assert "waitid" not in driver.ring.features
        assert "IORING_OP_NOP" in driver.ring.features
        with pytest.raises(NotImplementedError, match=r"WAITID, which came with Linux 6\.7"):
            driver.ring.waitid(os.P_ALL, 0, os.WEXITED)
        with socket.socket() as sock, pytest.raises(NotImplementedError, match=r"BIND, which came with Linux 6\.11"):
            driver.ring.bind(sock, b"12")
        with pytest.raises(NotImplementedError, match="WAITID"):
            driver.ring.restrict("waitid")
    finally:
        uring.pretend()
    assert "nop" in driver.ring.features


@pytest.mark.parametrize("name", METHODS)
def test_arguments_of_wrong_types(name):
    """Whatever is given, an exception of Python is the worst that happens."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    values = [
        None,
        0,
        -1,
        1,
        1 << 70,
        "",
        "x\0",
        b"",
        bytearray(3),
        1.5,
        [],
        [None],
        [bytearray(1)],
        {},
        print,
        True,
        (),
    ]
    parameters = list(inspect.signature(vars(Ring)[name]).parameters.values())[1:]
    with Loop() as loop:
        ring = loop.ring
        for _ in range(scaled(300, least=30)):
            positional = [chance.choice(values) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and chance.random() < 0.3]
            keywords = {name: chance.choice(values) for name in options}
            # A standard stream of this process is not to be closed, and neither is what a wild fd is.
            positional = [5000 if type(value) is int and 0 <= value < 3 else value for value in positional]
            if name in {"madvise", "waitid", "close"} or (name == "msg_ring" and positional[0] is None):
                positional = [value if not isinstance(value, int) else "wrong" for value in positional]
            try:
                getattr(ring, name)(*positional, **keywords)
            except (TypeError, ValueError, OSError, BufferError, OverflowError, RuntimeError):
                continue
            for operation in living_requests(ring):
                operation.cancel()
        for wrong in (None, 5, loop):
            with pytest.raises(TypeError):
                vars(Ring)[name](wrong, *[0] * sum(p.default is p.empty for p in parameters))


def living_requests(ring):
    return [thing for thing in gc.get_objects() if type(thing).__name__ == "Request" and not thing.done()]


def test_a_ring_that_was_not_made():
    ring = Ring.__new__(Ring)
    assert repr(ring) == "<Ring not made>"
    assert ring.is_closed()
    ring.close()
    for call in (ring.submit, ring.reap, ring.nop, ring.fileno, ring.statistics, lambda: ring.on_error):
        with pytest.raises(RuntimeError, match="__init__"):
            call()
