"""Datagram sockets: their end, that of their loop, and who else may hold them."""

import concurrent.futures
import gc
import os
import threading
import weakref

import pytest
from _datagrams import Heard, end, socket_of
from _net import settle
from _support import finish, made_loop, run_until

from linux_event import Loop, LoopClosedError, WrongThreadError


@pytest.fixture
def client():
    with socket_of("ipv4") as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def blocked(loop, tmp_path):
    """A datagram socket with more in its queue than the receiver has room for, and the receiver."""
    with socket_of("unix") as peer:
        peer.bind(str(tmp_path / "peer"))
        peer.setblocking(False)
        datagram = loop.datagram(None, str(tmp_path / "peer"))
        for number in range(300):
            datagram.send(b"%05d" % number + bytes(1000))
        settle(loop)
        assert datagram.write_buffer_size
        yield datagram, peer


@pytest.mark.parametrize("how", ["close", "abort", "with"])
@pytest.mark.parametrize("is_armed", [False, True])
def test_the_end(loop, how, is_armed):
    datagram = loop.datagram(("127.0.0.1", 0))
    address = datagram.sockname
    heard = Heard(datagram)
    if is_armed:
        settle(loop)
    if how == "with":
        with datagram as same:
            assert same is datagram
    else:
        getattr(datagram, how)()
    assert heard.calls == []  # not within the call
    assert datagram.is_closing()
    datagram.close()
    datagram.abort()
    run_until(loop, lambda: heard.ends)
    assert heard.ends == [None]
    assert repr(datagram) == f"<Datagram {address!r} queued=0 closed>"
    assert datagram.sockname == address
    assert datagram.socket is None
    with socket_of("ipv4") as sock:
        sock.bind(address)
    # Nothing of it works any more, and nothing raises.
    assert datagram.send(b"x", ("127.0.0.1", 9)) is False
    datagram.pause_reading()
    datagram.resume_reading()
    for name in ("on_datagram", "on_error", "on_drain", "on_close"):
        setattr(datagram, name, print)
        assert getattr(datagram, name) is None
    assert not datagram.is_reading()
    finish(loop)


def test_close_sends_what_is_queued(loop, client):
    datagram = loop.datagram(("127.0.0.1", 0))
    heard = Heard(datagram)
    for data in (b"a", b"b"):
        datagram.send(data, client.getsockname())
    datagram.close()
    assert datagram.send(b"c", client.getsockname()) is False
    assert "closing" in repr(datagram)
    run_until(loop, lambda: heard.ends)
    assert [client.recv(9), client.recv(9)] == [b"a", b"b"]
    assert heard.calls == ["close"]


def test_close_waits_for_room(loop, blocked):
    datagram, peer = blocked
    heard = Heard(datagram)
    datagram.close()
    received = []
    watcher = loop.io(peer, "r", lambda watcher, events: received.append(peer.recv(2000)))
    run_until(loop, lambda: heard.ends and len(received) == 300)
    watcher.destroy()
    assert [int(data[:5]) for data in received] == list(range(300))
    assert heard.calls == ["close"]


def test_close_tells_what_could_not_be_sent(loop, client):
    datagram = loop.datagram(("127.0.0.1", 0))
    heard = Heard(datagram)
    datagram.send(bytes(70000), client.getsockname())
    datagram.send(b"after", client.getsockname())
    datagram.send(bytes(70000), client.getsockname())
    datagram.close()
    run_until(loop, lambda: heard.ends)
    assert heard.calls == ["error", "error", "close"]
    assert client.recv(100) == b"after"


def test_abort_drops_what_is_queued(loop, blocked):
    datagram, _peer = blocked
    heard = Heard(datagram)
    datagram.close()
    settle(loop)
    assert not heard.ends
    datagram.abort()
    assert datagram.write_buffer_size == 0
    run_until(loop, lambda: heard.ends)
    assert heard.ends == [None]


def test_abort_before_the_first_iteration(loop, client):
    datagram = loop.datagram(("127.0.0.1", 0))
    datagram.send(b"x", client.getsockname())
    datagram.abort()
    finish(loop)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("where", ["on_datagram", "on_error"])
def test_the_end_in_a_callback(loop, how, where, client):
    datagram = loop.datagram(("127.0.0.1", 0))
    heard = Heard(datagram)

    def over(datagram, *arguments):
        heard.calls.append(where)
        getattr(datagram, how)()

    setattr(datagram, where, over)
    settle(loop)
    if where == "on_datagram":
        client.sendto(b"one", datagram.sockname)
        client.sendto(b"two", datagram.sockname)
    else:
        datagram.send(bytes(70000), client.getsockname())
        datagram.send(b"after", client.getsockname())
    run_until(loop, lambda: heard.ends)
    assert heard.calls == [where, "close"]
    if where == "on_error" and how == "close":
        assert client.recv(100) == b"after"


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_in_on_drain(loop, blocked, how):
    datagram, peer = blocked
    heard = Heard(datagram)

    def over(datagram):
        heard.calls.append("drain")
        getattr(datagram, how)()

    datagram.on_drain = over
    received = []
    watcher = loop.io(peer, "r", lambda watcher, events: received.append(peer.recv(2000)))
    run_until(loop, lambda: heard.ends)
    if how == "close":
        run_until(loop, lambda: len(received) == 300)
    watcher.destroy()
    assert heard.calls == ["drain", "close"]


def test_the_end_with_datagrams_collected(loop, client):
    """What was received and not handed over is dropped, and its buffers go back."""
    first, second = (loop.datagram(("127.0.0.1", 0)) for _ in range(2))
    heard = [Heard(first), Heard(second)]
    settle(loop)
    for datagram in (first, second):
        for _ in range(5):
            client.sendto(b"x", datagram.sockname)

    def close_both(datagram, data, address):
        first.close()
        second.close()

    first.on_datagram = second.on_datagram = close_both
    run_until(loop, lambda: heard[0].ends and heard[1].ends)
    assert loop.statistics().pool_buffers_in_use == 0


def test_the_end_of_a_parked_one(loop, client):
    datagram = loop.datagram(("127.0.0.1", 0))
    heard = Heard(datagram)
    settle(loop)
    datagram.pause_reading()
    client.sendto(b"x", datagram.sockname)
    settle(loop)
    datagram.resume_reading()
    datagram.close()
    run_until(loop, lambda: heard.ends)
    assert heard.calls == ["close"]


@pytest.mark.parametrize("where", ["on_datagram", "on_error", "on_close"])
def test_exceptions_go_to_on_error_of_the_loop(loop, client, where):
    told = []
    loop.on_error = lambda source, error: told.append((source, error))
    datagram = loop.datagram(("127.0.0.1", 0))
    heard = Heard(datagram)

    def fail(*arguments):
        raise ZeroDivisionError

    setattr(datagram, where, fail)
    client.sendto(b"x", datagram.sockname)
    datagram.send(bytes(70000), client.getsockname())
    run_until(loop, lambda: heard.got or told)
    run_until(loop, lambda: heard.errors or told)
    datagram.close()
    run_until(loop, datagram.is_closed)
    assert [(source, type(error)) for source, error in told] == [(datagram, ZeroDivisionError)]


# -- The loop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["new", "receiving", "queued", "parked", "closing"])
def test_the_loop_is_closed(state, client, tmp_path):
    with socket_of("unix") as peer:
        peer.bind(str(tmp_path / "peer"))
        loop = Loop()
        datagram = loop.datagram(str(tmp_path / "own"), str(tmp_path / "peer"))
        heard = Heard(datagram)
        settle(loop)
        if state != "new":
            peer.sendto(b"x", datagram.sockname)
            if state == "parked":
                datagram.pause_reading()
            settle(loop)
        if state in ("queued", "closing"):
            while datagram.send(bytes(1000)):
                pass
        if state == "closing":
            datagram.close()
        heard.calls.clear()
        loop.close()
        assert heard.calls == ["close"]
        assert isinstance(heard.ends[0], concurrent.futures.CancelledError)
        assert not os.path.exists(datagram.sockname)
        assert datagram.send(b"x") is False
        datagram.close()
        loop.close()


def test_a_closed_loop_in_on_close():
    loop = Loop()
    datagram = loop.datagram(("127.0.0.1", 0))
    refused = []

    def on_close(datagram, error):
        try:
            loop.datagram(("127.0.0.1", 0))
        except LoopClosedError as failure:
            refused.append(failure)

    datagram.on_close = on_close
    loop.close()
    assert refused


def test_a_loop_that_is_dropped(client):
    loop = Loop()
    datagram = loop.datagram(("127.0.0.1", 0))
    datagram.on_datagram = lambda datagram, data, address: datagram.loop.stop()
    datagram.data = loop
    client.sendto(b"x", datagram.sockname)
    loop.run()
    datagram.send(b"x", client.getsockname())
    gone = weakref.ref(datagram)
    del datagram
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()
    assert gone() is None


def test_one_that_is_over_is_freed(loop):
    datagram = loop.datagram(("127.0.0.1", 0))
    datagram.on_datagram = lambda *arguments, datagram=datagram: None
    datagram.close()
    finish(loop)
    gone = weakref.ref(datagram)
    gc.disable()
    try:
        del datagram
        assert gone() is None
    finally:
        gc.enable()


def test_an_open_one_is_kept_alive(loop, client):
    got = []
    datagram = loop.datagram(("127.0.0.1", 0))
    address = datagram.sockname

    def take(datagram, data, address):
        got.append(data)
        datagram.close()

    datagram.on_datagram = take
    del datagram
    gc.collect()
    client.sendto(b"x", address)
    loop.run()  # which ends by itself
    assert got == [b"x"]


def test_another_thread_is_refused(loop):
    datagram = loop.datagram(("127.0.0.1", 0))
    settle(loop)
    errors = []

    def calls():
        for name, *arguments in [
            ("send", b"x", ("127.0.0.1", 9)),
            ("pause_reading",),
            ("resume_reading",),
            ("set_write_limits",),
            ("close",),
            ("abort",),
        ]:
            try:
                getattr(datagram, name)(*arguments)
            except WrongThreadError as error:
                errors.append(error)
        try:
            datagram.on_datagram = print
        except WrongThreadError as error:
            errors.append(error)
        try:
            loop.datagram()
        except WrongThreadError as error:
            errors.append(error)

    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()
    assert len(errors) == 8
    end(loop, datagram)


def test_a_fork_leaves_it_alone(loop, tmp_path, client):
    path = str(tmp_path / "socket")
    unix = loop.datagram(path)
    datagram = loop.datagram(("127.0.0.1", 0))
    heard = Heard(datagram)
    settle(loop)
    datagram.send(b"x", client.getsockname())
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for call in (datagram.close, unix.abort, lambda: datagram.send(b"y", client.getsockname())):
                try:
                    call()
                except RuntimeError as error:
                    assert "parent process" in str(error)
                else:
                    os._exit(2)
            del unix, datagram, heard
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.path.exists(path)
    settle(loop)
    assert client.recv(100) == b"x"
    client.sendto(b"back", datagram.sockname)
    heard.wait_for(1)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    end(loop, datagram, unix)


@pytest.mark.parametrize("keywords", [{"sqpoll": True}, {"busy_poll": 0.001}, {"entries": 2}, {"debug": True}])
def test_loops_of_other_kinds(keywords, client):
    try:
        loop = Loop(**keywords)
    except OSError:
        pytest.skip("this kernel does not have it")
    with loop:
        datagram = loop.datagram(("127.0.0.1", 0))
        datagram.on_datagram = lambda datagram, data, address: datagram.send(data, address)
        settle(loop)
        for number in range(100):
            client.sendto(b"%d" % number, datagram.sockname)
            before = loop.statistics().callbacks
            run_until(loop, lambda before=before: loop.statistics().callbacks > before)
            loop.run_once(0)
            assert client.recv(100) == b"%d" % number
        end(loop, datagram)


def test_inside_another_event_loop(client):
    """What is sent from outside of run() leaves at once, because nobody else would see to it."""
    with made_loop() as loop:
        loop.fileno()
        datagram = loop.datagram(("127.0.0.1", 0))
        settle(loop)
        datagram.send(b"x", client.getsockname())
        assert client.recv(100) == b"x"
        end(loop, datagram)


def test_a_thousand_come_and_go(loop):
    for _ in range(20):
        datagrams = [loop.datagram(("127.0.0.1", 0)) for _ in range(50)]
        for datagram in datagrams:
            datagram.on_datagram = print
            datagram.send(b"", ("127.0.0.1", 9))
        loop.run_once(0)
        for datagram in datagrams:
            datagram.close()
        finish(loop)
    assert loop.statistics().datagrams == 0
