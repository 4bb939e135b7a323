"""20_udp_echo.py, driven by netcat and by sockets of Python."""

import shutil
import signal
import subprocess

import pytest
from _datagrams import HAS_IPV6, socket_of
from _example import BOUND, foreign, running


@pytest.mark.skipif(not shutil.which("nc"), reason="there is no nc")
def test_echo_to_netcat(nothing_left):
    with running("20_udp_echo.py", "--port", 0) as example:
        command = ["nc", "-u", "127.0.0.1", str(example.port())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=foreign()) as client:
            for line in (b"hello\n", b"and again\n"):
                client.stdin.write(line)
                client.stdin.flush()
                assert client.stdout.readline() == line
            client.kill()
        assert example.end(signal.SIGINT) == ["2 datagrams, 16 bytes, 0 not answered"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no ::1"))]
)
def test_echo_to_several_clients(nothing_left, host):
    with running("20_udp_echo.py", "--host", host, "--port", 0) as example:
        line = example.line()
        address = host, int(line.rpartition(":")[2])
        clients = [socket_of("ipv4" if host == "127.0.0.1" else "ipv6") for _ in range(10)]
        try:
            for client in clients:
                client.settimeout(BOUND)
                client.connect(address)
            for data in (b"", b"x", bytes(1000)):
                for client in clients:
                    client.send(data)
                assert [client.recv(65536) for client in clients] == [data] * 10
            for client in clients:  # the buffer of the server has no room for ten of them
                client.send(bytes(60000))
                assert client.recv(65536) == bytes(60000)
        finally:
            for client in clients:
                client.close()
        assert example.end(signal.SIGINT) == ["40 datagrams, 610010 bytes, 0 not answered"]


def test_echo_over_a_unix_socket(nothing_left, tmp_path):
    path = str(tmp_path / "echo")
    with running("20_udp_echo.py", "--unix", path) as example:
        assert example.line() == f"answering on {path}"
        with socket_of("unix") as client, socket_of("unix") as nameless:
            client.bind(str(tmp_path / "client"))
            client.settimeout(BOUND)
            client.sendto(b"hello", path)
            assert client.recv(100) == b"hello"
            nameless.sendto(b"nobody", path)
            gone = str(tmp_path / "gone")
            with socket_of("unix") as short:
                short.bind(gone)
                short.sendto(b"bye", path)
                (tmp_path / "gone").unlink()
            client.sendto(b"still there", path)
            assert client.recv(100) == b"still there"
        lines = example.end(signal.SIGINT)
        # It may have been quick enough to answer before that one was gone.
        assert lines[-1] in [f"4 datagrams, 25 bytes, {dropped} not answered" for dropped in (1, 2)]
    assert not (tmp_path / "echo").exists()
