"""Operations that carry addresses, several buffers and ancillary data: recvfrom, sendto, recvmsg, sendmsg."""

import array
import contextlib
import errno
import os
import socket
import struct

import pytest
from _fault import run_script
from _sockets import DATAGRAMS, Calls, connection, datagrams, fill, outcome
from _support import Pipe, finish, made_loop, open_fds, run_until, scaled

from linux_event.cancellation import CancelledError

datagram_kinds = pytest.mark.parametrize("kind", DATAGRAMS)
RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)


def rights(*fds):
    return (*RIGHTS, array.array("i", fds))


def fds_in(ancdata):
    """The fds of received ancillary data, in their order."""
    fds = array.array("i")
    for level, kind, data in ancdata:
        if (level, kind) == RIGHTS:
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    return list(fds)


# --- recvfrom, sendto ---------------------------------------------------------------------------------------------


@datagram_kinds
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("by_fd", [False, True])
def test_there_and_back(loop, kind, blocking, by_fd, tmp_path):
    with datagrams(kind, tmp_path) as (one, two):
        one.setblocking(blocking)
        two.setblocking(blocking)
        calls = Calls()
        loop.recvfrom(two.fileno() if by_fd else two, 100, calls)
        loop.run_once(0)
        assert not calls
        assert outcome(loop, loop.sendto, one.fileno() if by_fd else one, b"question", two.getsockname()) == 8
        run_until(loop, lambda: calls)
        assert calls == [((b"question", one.getsockname()), None)]
        [((_, address), _)] = calls
        assert outcome(loop, loop.sendto, two, bytearray(b"answer"), address) == 6
        assert one.recvfrom(100) == (b"answer", two.getsockname())
        one.sendto(b"same", two.getsockname())
        one.sendto(b"same", two.getsockname())
        two.setblocking(True)
        assert outcome(loop, loop.recvfrom, two, 100) == two.recvfrom(100)


@datagram_kinds
@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 8])
@pytest.mark.parametrize("size", [0, 1, 1000, 4096])
def test_whole_and_cut_datagrams(loop, kind, data, size, tmp_path):
    """An empty datagram is a datagram; what does not fit is lost, and recvmsg tells so."""
    with datagrams(kind, tmp_path) as (one, two):
        for _ in range(2):
            assert outcome(loop, loop.sendto, one, data, two.getsockname()) == len(data)
        assert outcome(loop, loop.recvfrom, two, size) == (data[:size], one.getsockname())
        flags = socket.MSG_TRUNC if size < len(data) else 0
        assert outcome(loop, loop.recvmsg, two, size) == (data[:size], [], flags, one.getsockname())


def test_a_sender_without_a_name(loop, tmp_path):
    with datagrams("unix", tmp_path) as (_, two), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        for expected in (nameless.sendto(b"x", two.getsockname()) and two.recvfrom(10), None):
            nameless.sendto(b"x", two.getsockname())
            got = outcome(loop, loop.recvfrom, two, 10)
            assert expected is None or got == expected
            assert got[1] in (None, "")


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_streams_have_the_addresses_of_the_socket_module(loop, kind, tmp_path):
    with connection(kind, tmp_path) as (one, two):
        one.sendall(b"aabbccdd")
        assert outcome(loop, loop.recvfrom, two, 2) == (b"aa", two.recvfrom(2)[1])
        assert outcome(loop, loop.recvmsg, two, 2)[1:] == two.recvmsg(2)[1:]
        one.shutdown(socket.SHUT_WR)
        assert outcome(loop, loop.recvfrom, two, 2)[0] == b""
        assert outcome(loop, loop.recvmsg, two, 2)[0] == b""


def test_failures_of_sendto(loop, tmp_path):
    with datagrams("udp4", tmp_path) as (one, two):
        with pytest.raises(OSError) as caught:
            outcome(loop, loop.sendto, one, bytes(70000), two.getsockname())
        assert caught.value.errno == errno.EMSGSIZE
        assert caught.value.filename == one.fileno()
        with pytest.raises(PermissionError):
            outcome(loop, loop.sendto, one, b"x", ("<broadcast>", 9))  # without SO_BROADCAST
    with datagrams("unix", tmp_path) as (one, _), pytest.raises(FileNotFoundError):
        outcome(loop, loop.sendto, one, b"x", tmp_path / "missing")


def test_sendto_holds_its_buffer(loop, tmp_path):
    """Until there is room in the queue of the receiver."""
    with datagrams("unix", tmp_path) as (one, two):
        one.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += bool(one.sendto(b"fill", two.getsockname()))
        data = bytearray(b"last")
        calls = Calls()
        loop.sendto(one, data, two.getsockname(), calls)
        loop.run_once(0)
        assert not calls
        with pytest.raises(BufferError):
            data.append(0)
        for _ in range(sent):
            assert two.recv(10) == b"fill"
        finish(loop)
        assert calls == [(4, None)]
        assert two.recv(10) == b"last"
        data.append(0)


# --- sendmsg ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp4", "unix", "seqpacket"])
@pytest.mark.parametrize("parts", [[b"a"], [b"", b"ab", bytearray(b"cd"), memoryview(b"0123")[1:3]], [b"xy"] * 1024])
@pytest.mark.parametrize("form", [list, tuple, iter])
def test_many_buffers(loop, kind, parts, form, tmp_path):
    with connection(kind, tmp_path) as (one, two):
        whole = b"".join(parts)
        assert outcome(loop, loop.sendmsg, one, form(parts)) == len(whole)
        assert two.recv(10000) == whole


def test_no_buffers(loop, pair, tmp_path):
    assert outcome(loop, loop.sendmsg, pair[0], []) == pair[0].sendmsg([]) == 0
    with datagrams("udp4", tmp_path) as (one, two):
        assert outcome(loop, loop.sendmsg, one, (), (), 0, two.getsockname()) == 0
        assert two.recvfrom(10) == (b"", one.getsockname())


def test_too_many_buffers(loop, pair):
    """As the socket module has it: too long a message."""
    buffers = [bytearray(b"x") for _ in range(1025)]
    with pytest.raises(OSError) as caught:
        loop.sendmsg(pair[0], buffers)
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError) as caught:
        pair[0].sendmsg(buffers)
    assert caught.value.errno == errno.EMSGSIZE
    for buffer in buffers:
        buffer.append(0)


def test_buffers_are_free_after_a_bad_one(loop, pair):
    first = bytearray(b"x")
    with pytest.raises(TypeError):
        loop.sendmsg(pair[0], [first, "text"])
    first.append(0)


def test_all_of_a_stream_in_order(loop, tmp_path):
    """More than the socket takes at once, to a reader that takes little."""
    parts = [os.urandom(scaled(40_000, least=4000)) for _ in range(100)]
    whole = b"".join(parts)
    with connection("tcp4", tmp_path) as (one, two):
        got, sent = bytearray(), Calls()

        def received(message, error):
            got.extend(message[0])
            if len(got) < len(whole):
                loop.recvmsg(two, 30_011, 0, received)

        loop.sendmsg(one, parts, callback=sent)
        loop.recvmsg(two, 30_011, callback=received)
        finish(loop)
        assert sent == [(len(whole), None)]
        assert got == whole


@pytest.mark.parametrize("how", ["done", "cancel", "error"])
def test_sendmsg_holds_its_buffers(loop, tmp_path, how):
    with connection("unix", tmp_path) as (one, two):
        filled = fill(one)
        buffers = [bytearray(b"abc"), bytearray(b"def")]
        calls = Calls()
        operation = loop.sendmsg(one, buffers, callback=calls)
        loop.run_once(0)
        for buffer in buffers:
            with pytest.raises(BufferError):
                buffer.append(0)
        if how == "cancel":
            operation.cancel()
        if how == "error":
            two.close()
        if how == "done":
            while filled:
                filled -= len(two.recv(filled))
        finish(loop)
        [(result, error)] = calls
        assert result == (6 if how == "done" else None)
        assert type(error) in (type(None), CancelledError, BrokenPipeError, ConnectionResetError)
        assert (error is None) == (how == "done")
        for buffer in buffers:
            buffer.append(0)
        if how == "done":
            assert two.recv(10) == b"abcdef"


def test_flags(loop, tmp_path):
    with connection("tcp4", tmp_path) as (one, two):
        assert outcome(loop, loop.sendmsg, one, [b"urgent"], (), socket.MSG_OOB) == 6
        assert two.recv(1, socket.MSG_OOB) == b"t"
        fill(one)
        with pytest.raises(BlockingIOError):
            outcome(loop, loop.sendmsg, one, [b"x"], (), socket.MSG_DONTWAIT)


@datagram_kinds
def test_messages_to_an_address(loop, kind, tmp_path):
    with datagrams(kind, tmp_path) as (one, two):
        assert outcome(loop, loop.sendmsg, one, [b"a", b"b"], [], 0, two.getsockname()) == 2
        assert outcome(loop, loop.sendmsg, one, [b"c"], address=two.getsockname()) == 1
        assert two.recvfrom(10) == (b"ab", one.getsockname())
        assert two.recvfrom(10) == (b"c", one.getsockname())


def test_packets_keep_their_bounds(loop, tmp_path):
    with connection("seqpacket", tmp_path) as (one, two):
        for data in (b"first", b"second packet"):
            assert outcome(loop, loop.sendmsg, one, [data]) == len(data)
        assert outcome(loop, loop.recvmsg, two, 100)[0] == b"first"
        data, _, flags, _ = outcome(loop, loop.recvmsg, two, 6)
        assert data == b"second"
        assert flags & socket.MSG_TRUNC


# --- ancillary data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 10])
def test_fds_are_passed(loop, pair, pipe, count):
    one, two = pair
    assert outcome(loop, loop.sendmsg, one, [b"x"], [rights(*[pipe.w] * count)]) == 1
    got = outcome(loop, loop.recvmsg, two, 10, socket.CMSG_SPACE(4 * count))
    fds = fds_in(got[1])
    try:
        assert len(fds) == count
        for fd in fds:
            assert not os.get_inheritable(fd)
            os.write(fd, b"x")
        assert pipe.take() == b"x" * count
        # The socket module gives the same but for the numbers of the fds.
        one.sendmsg([b"x"], [rights(*[pipe.w] * count)])
        theirs = two.recvmsg(10, socket.CMSG_SPACE(4 * count))
        fds += fds_in(theirs[1])
        assert [got[0], *got[2:]] == [theirs[0], *theirs[2:]]
        assert [(*item[:2], len(item[2])) for item in got[1]] == [(*item[:2], len(item[2])) for item in theirs[1]]
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize(
    "room", [0, 1, socket.CMSG_LEN(0), socket.CMSG_LEN(4), socket.CMSG_LEN(4) + 1, socket.CMSG_LEN(8)]
)
def test_ancillary_data_are_cut(loop, pair, pipe, room):
    """Of three fds arrive those that there is room for; the kernel closes the others."""
    one, two = pair
    one.sendmsg([b"x"], [rights(pipe.w, pipe.w, pipe.w)])
    one.sendmsg([b"x"], [rights(pipe.w, pipe.w, pipe.w)])
    ours = outcome(loop, loop.recvmsg, two, 10, room)
    theirs = two.recvmsg(10, room)
    for fd in fds_in(ours[1]) + fds_in(theirs[1]):
        os.close(fd)
    assert ours[2] == theirs[2] == socket.MSG_CTRUNC
    assert [(*item[:2], len(item[2])) for item in ours[1]] == [(*item[:2], len(item[2])) for item in theirs[1]]
    assert (ours[0], ours[3]) == (theirs[0], theirs[3])


def test_several_items(loop, pair, pipe):
    """Credentials and fds in one message."""
    one, two = pair
    two.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    credentials = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
    sent = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials), rights(pipe.r)]
    assert outcome(loop, loop.sendmsg, one, [b"who"], iter(sent)) == 3
    room = socket.CMSG_SPACE(len(credentials)) + socket.CMSG_SPACE(4)
    data, ancdata, flags, address = outcome(loop, loop.recvmsg, two, 10, room)
    for fd in fds_in(ancdata):
        os.close(fd)
    assert (data, flags, address) == (b"who", 0, None)
    assert {item[:2] for item in ancdata} == {RIGHTS, (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)}
    assert (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials) in ancdata


def test_credentials_are_the_senders(loop, pair):
    one, two = pair
    two.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    assert outcome(loop, loop.send, one, b"x") == 1
    _, [(level, kind, data)], _, _ = outcome(loop, loop.recvmsg, two, 10, socket.CMSG_SPACE(12))
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    assert struct.unpack("3i", data) == (os.getpid(), os.getuid(), os.getgid())


def test_ancillary_data_of_another_level(loop, tmp_path):
    with datagrams("udp4", tmp_path) as (one, two):
        two.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        assert (
            outcome(
                loop, loop.sendmsg, one, [b"x"], [(socket.IPPROTO_IP, socket.IP_TOS, b"\x10")], 0, two.getsockname()
            )
            == 1
        )
        _, ancdata, _, _ = outcome(loop, loop.recvmsg, two, 10, 100)
        assert ancdata == [(socket.IPPROTO_IP, socket.IP_TOS, b"\x10")]


def test_bad_ancillary_data_fail_at_the_kernel(loop, pair):
    with pytest.raises(OSError) as caught:
        outcome(loop, loop.sendmsg, pair[0], [b"x"], [rights(10**6)])
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError) as caught:
        outcome(loop, loop.sendmsg, pair[0], [b"x"], [(socket.SOL_SOCKET, 12345, b"")])
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("sqpoll", [False, True])
@pytest.mark.parametrize("method", ["recvmsg", "recvfrom", "recv"])
def test_fds_that_nobody_gets_are_closed(pair, sqpoll, method):
    """The operation was cancelled, or does not take fds: the other end of the pipe sees that all copies are closed."""
    one, two = pair
    with made_loop(sqpoll=sqpoll) as loop:
        loop.run_once(0)
        before = open_fds()
        late = 0
        for _ in range(scaled(100, least=20)):
            passed = Pipe()
            calls = Calls()
            operation = getattr(loop, method)(two, 10, *([100] if method == "recvmsg" else []), callback=calls)
            loop.run_once(0)
            one.sendmsg([b"x"], [rights(passed.w)])
            passed.close_write()
            operation.cancel()
            run_until(loop, lambda calls=calls: calls)
            assert calls.errors == [CancelledError]
            try:
                two.recv(10)  # without room for fds: the kernel closes them
            except BlockingIOError:
                late += 1
            assert os.read(passed.r, 1) == b""  # BlockingIOError while a writing end is open
            passed.close()
            if late == 5:
                break
        assert late or not sqpoll, "no cancellation came too late: the test proves nothing"
        assert open_fds() == before


def test_fds_are_closed_where_the_result_cannot_be_made():
    """Memory runs out while the result is made, at each allocation in turn."""
    script = """
        import array, os, socket, sys
        try:
            from _testcapi import remove_mem_hooks, set_nomemory
        except ImportError:
            print("not installed")
            sys.exit()
        from linux_event import Loop
        one, two = socket.socketpair()
        reader, writer = os.pipe()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer] * 3))
        failed = 0
        sys.unraisablehook = lambda args: None
        with Loop() as loop:
            loop.on_error = lambda source, error: None
            loop.timer(0.001, lambda watcher: None)  # it sleeps once: all its fds are there
            loop.run()
            count = len(os.listdir("/proc/self/fd"))
            for number in range(60):
                operation = loop.recvmsg(two, 10, 200)
                one.sendmsg([b"x" * 8], [rights])
                set_nomemory(number, number + 1)
                try:
                    loop.run()
                except (MemoryError, SystemError):  # the second of coverage, which looks at no error
                    pass
                finally:
                    remove_mem_hooks()
                loop.run()
                if operation.exception() is None:
                    for level, kind, data in operation.result()[1]:
                        for fd in array.array("i", data):
                            os.close(fd)
                else:
                    failed += 1
                assert len(os.listdir("/proc/self/fd")) == count, number
        print("failed" if failed else "never failed")
    """
    result = run_script(script).check(stderr=None)
    assert result.stdout.split()[-1] in ("failed", "installed"), result
