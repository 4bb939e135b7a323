"""connect_stream with several addresses: their order, what is tried when, who wins, and what is told of those that fail."""

import contextlib
import errno
import socket
import time
from concurrent.futures import CancelledError

import pytest
from _names import NXDOMAIN, Name, asking, refusal
from _net import Called, open_sockets, settle, silence
from _support import finish, run_until

from linux_event import Loop

STAGGER = 0.25
V4, V6 = socket.AF_INET, socket.AF_INET6

pytestmark = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")


class Named(Loop):
    """A loop whose resolver is the test: `addresses` is what any name has."""

    addresses = ()

    def resolve(self, host, port, callback, *, type=0):
        assert type == socket.SOCK_STREAM
        found = [
            (
                V6 if ":" in address else V4,
                type,
                6,
                "",
                (address, own_port or port) + ((0, 0) if ":" in address else ()),
            )
            for address, own_port in self.addresses
        ]
        return super().resolve("127.0.0.1", port, lambda _, error: callback(error or found, None), type=type)


@pytest.fixture
def named(nothing_left):
    with Named() as loop:
        yield loop
        finish(loop)


@pytest.fixture
def places():
    """Makes addresses on loopback: "open" ones, where a server listens, "refusing" and "silent" ones."""
    with contextlib.ExitStack() as stack:
        servers = {}

        def place(kind, host):
            if kind == "silent":
                return stack.enter_context(silence(host))[:2]
            server = socket.socket(V6 if ":" in host else V4)
            stack.enter_context(server)
            server.bind((host, 0))
            if kind == "open":
                server.listen()
            address = server.getsockname()[:2]
            servers[address] = server
            return address

        place.servers = servers
        yield place


def connected_to(called):
    return called.stream.peername[:2]


def end(loop, called):
    called.stream.close()
    finish(loop)


@pytest.mark.parametrize("first", ["refusing", "silent"])
@pytest.mark.parametrize("hosts", [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.1", "127.0.0.2")])
def test_the_next_address(named, places, first, hosts):
    bad, good = places(first, hosts[0]), places("open", hosts[1])
    opened = open_sockets()
    named.addresses = [bad, good]
    called = Called()
    begun = time.monotonic()
    named.connect_stream(("name", 1), called)
    run_until(named, lambda: called.calls)
    if first == "silent":
        assert time.monotonic() - begun >= STAGGER
    assert connected_to(called) == good
    run_until(named, lambda: named.statistics().operations_in_flight == 0)
    # The loser is gone, the winner is there.
    assert open_sockets().keys() - opened.keys() == {called.stream.fileno()}
    end(named, called)


def test_one_that_fails_is_not_waited_for(named, places):
    """Nothing but the end of the attempt before it begins the next one: the heap of deadlines has nothing to do with it."""
    good = places("open", "127.0.0.1")
    named.addresses = [places("refusing", "127.0.0.1") for _ in range(20)] + [good]
    called = Called()
    begun = time.monotonic()
    named.connect_stream(("name", 1), called)
    run_until(named, lambda: called.calls)
    assert time.monotonic() - begun < 20 * STAGGER
    assert connected_to(called) == good
    end(named, called)


def test_the_families_take_turns(named, places):
    """Of what the resolver says the first family is tried first, and the other one next, whatever else there is."""
    good = places("open", "::1")
    silent = [places("silent", "127.0.0.1") for _ in range(3)]
    named.addresses = [*silent, good]
    called = Called()
    begun = time.monotonic()
    named.connect_stream(("name", 1), called)
    run_until(named, lambda: called.calls)
    assert time.monotonic() - begun >= STAGGER
    assert connected_to(called) == good
    # One was before it, the other two were never tried.
    assert named.statistics().operations_in_flight <= 1
    end(named, called)


def test_the_first_of_those_in_flight_wins(named, places):
    """The one that was begun first answers late."""
    late, silent = places("silent", "127.0.0.1"), places("silent", "::1")
    named.addresses = [late, silent]
    called = Called()
    named.connect_stream(("name", 1), called, timeout=60)
    run_until(named, lambda: named.statistics().operations_in_flight == 3)
    assert not called.calls
    # Whoever is in the queue is accepted, so that there is room for one more: the kernel asks again after a second.
    with contextlib.closing(socket.socket(fileno=socket.dup(listener_at(late)))) as server:
        server.accept()[0].close()
        run_until(named, lambda: called.calls)
        assert connected_to(called) == late
    end(named, called)


def listener_at(address):
    """The fd of the socket of this process that listens there."""
    for fd in open_sockets():
        sock = socket.socket(fileno=fd)
        try:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and sock.getsockname()[:2] == address:
                return fd
        finally:
            sock.detach()
    raise LookupError(address)


# -- Failures ----------------------------------------------------------------------------------------------------------


def test_all_refuse(named, places):
    bad = [places("refusing", host) for host in ("::1", "127.0.0.1", "127.0.0.2")]
    named.addresses = bad
    called = Called()
    named.connect_stream(("name", 1), called)
    finish(named)
    error = called.error
    assert type(error) is ConnectionRefusedError
    assert error.filename == ("name", 1)
    assert len(error.__notes__) == 3
    for (host, port), note in zip(bad, error.__notes__, strict=True):
        assert note.startswith(f"('{host}', {port}")
        assert note.endswith("[Errno 111] Connection refused")


def test_the_error_that_tells_most(named, places):
    """There is no way to the first address at all: that the second one refuses is of more interest."""
    named.addresses = [("255.255.255.255", 7), places("refusing", "127.0.0.1")]
    called = Called()
    named.connect_stream(("name", 1), called)
    finish(named)
    assert type(called.error) is ConnectionRefusedError
    assert len(called.error.__notes__) == 2
    assert "255.255.255.255" in called.error.__notes__[0]


def test_the_first_error_where_none_tells_more(named):
    named.addresses = [("::2", 7), ("127.0.0.1", 7)]
    called = Called()
    named.connect_stream(("name", 1), called, local_address=("192.0.2.1", 0))
    finish(named)
    assert called.error.errno == errno.EADDRNOTAVAIL
    assert len(called.error.__notes__) == 1  # an address of another family was not tried


def test_a_timeout_over_all_of_it(named, places):
    named.addresses = [places("silent", host) for host in ("::1", "127.0.0.1", "127.0.0.2")]
    opened = open_sockets()
    called = Called()
    begun = time.monotonic()
    named.connect_stream(("name", 1), called, timeout=1.5 * STAGGER)
    run_until(named, lambda: called.calls)
    assert time.monotonic() - begun >= 1.5 * STAGGER
    assert type(called.error) is TimeoutError
    assert called.error.filename == ("name", 1)
    finish(named)
    assert open_sockets() == opened


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_the_end_with_attempts_in_flight(places, how):
    addresses = [places("silent", host) for host in ("::1", "127.0.0.1")]
    opened = open_sockets()
    called = Called()
    with Named() as loop:
        loop.addresses = addresses
        operation = loop.connect_stream(("name", 1), called)
        run_until(loop, lambda: loop.statistics().operations_in_flight == 3)
        if how == "cancel":
            assert operation.cancel()
            finish(loop)
    assert type(called.error) is CancelledError
    assert operation.cancelled()
    assert open_sockets() == opened


def test_cancel_while_the_next_one_is_to_be_begun(named, places):
    """Its deadline goes with it."""
    named.addresses = [places("silent", "::1"), places("open", "127.0.0.1")]
    called = Called()
    operation = named.connect_stream(("name", 1), called)
    run_until(named, lambda: named.statistics().operations_in_flight == 2)
    settle(named)
    assert operation.cancel()
    finish(named)
    assert type(called.error) is CancelledError


def test_the_local_address_says_which_family(named, places):
    six, four = places("open", "::1"), places("open", "127.0.0.1")
    for local, expected in (("127.0.0.3", four), ("::1", six), ("localhost", six)):
        named.addresses = [six, four]
        called = Called()
        named.connect_stream(("name", 1), called, local_address=(local, 0))
        run_until(named, lambda called=called: called.calls)
        assert connected_to(called) == expected
        end(named, called)


def test_the_scope_that_was_given(named, places):
    """It is for addresses of IPv6, and those alone."""
    named.addresses = [places("open", "::1")]
    called = Called()
    named.connect_stream(("name", 1, 0, 0), called)
    run_until(named, lambda: called.calls)
    end(named, called)
    named.addresses = [places("open", "127.0.0.1")]
    called = Called()
    named.connect_stream(("name", 1, 0, 9), called)
    run_until(named, lambda: called.calls)
    end(named, called)


# -- A name server -----------------------------------------------------------------------------------------------------

needs_names = pytest.mark.skipif(bool(refusal()), reason="no configuration of names of its own")


@needs_names
@pytest.mark.parametrize("driver", ["cares", "threads"])
def test_a_name(driver):
    def body(loop, server):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            called = Called()
            loop.connect_stream(("here.test", port), called, timeout=60)
            run_until(loop, lambda: called.calls)
            peer = called.stream.peername == ("127.0.0.1", port)
            end(loop, called)
            missing = Called()
            loop.connect_stream(("nowhere.test", port), missing, timeout=60)
            run_until(loop, lambda: missing.calls)
            finish(loop)
            return peer, type(missing.error).__name__, missing.error.filename

    zone = {"here.test": Name(a=("127.0.0.1",)), "nowhere.test": Name(rcode=NXDOMAIN)}
    patient = "options timeout:30 attempts:1\n"
    assert asking(body, zone, driver=driver, resolv=patient) == (True, "gaierror", "nowhere.test")


@needs_names
def test_a_timeout_while_nobody_answers():
    def body(loop, server):
        called = Called()
        loop.connect_stream(("silent.test", 1), called, timeout=0.1)
        run_until(loop, lambda: called.calls)
        return type(called.error).__name__, called.error.filename

    zone = {"silent.test": Name(fault="silent")}
    assert asking(body, zone, driver="cares") == ("TimeoutError", ("silent.test", 1))
