"""The example that speaks TLS, driven by openssl and by the ssl module."""

import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from _example import BOUND, foreign, running
from _fault import wait_until
from _support import scaled
from _tls import authority, certificate, client_context, exchange, secure_client


class Backend(threading.Thread):
    """A server without TLS: answers what it gets, in capitals, and ends when the client has."""

    def __init__(self):
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        threads = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=self.serve, args=[connection]))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def serve(self, connection):
        with connection:
            connection.settimeout(BOUND)
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data.upper())
            except OSError:
                pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self.listener.close()


@pytest.fixture
def files(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate().cert_chain_pems[0].write_to_path(str(cert))
    certificate().private_key_pem.write_to_path(str(key))
    authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return cert, key, tmp_path / "ca.pem"


@pytest.fixture
def terminator(nothing_left, files):
    backend = Backend()
    with running("19_tls_terminator.py", "127.0.0.1:0", f"127.0.0.1:{backend.port}", *files[:2]) as example:
        yield example
    backend.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_terminator_serves_openssl(terminator, files):
    address = f"127.0.0.1:{terminator.port()}"
    command = ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", files[2], "-connect", address]
    command += ["-servername", "localhost", "-no_ign_eof"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, env=foreign()) as client:
        client.stdin.write(b"hello from openssl\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"HELLO FROM OPENSSL\n"
        client.stdin.close()
        client.wait(BOUND)
    assert terminator.end(signal.SIGINT) == []


def test_terminator_carries_much_and_many(terminator):
    address = ("127.0.0.1", terminator.port())
    before = terminator.fds()
    said = os.urandom(scaled(8 << 20, 1 << 20))
    with secure_client(address) as sock:
        assert exchange(sock, said, len(said)) == said.upper()
        sock.unwrap()  # the end of our half; that of the other one follows
    socks = []
    for _ in range(scaled(30, 3)):
        raw = socket.create_connection(address, BOUND)
        socks.append(client_context().wrap_socket(raw, server_hostname="localhost"))
    for sock in socks:
        sock.sendall(b"x" * 1000)
    for sock in socks:
        with sock:
            assert sock.recv(1) == b"X"
    wait_until(lambda: terminator.fds() == before)
    assert terminator.end(signal.SIGINT) == []


def test_terminator_refuses_what_is_not_tls(terminator):
    port = terminator.port()
    with socket.create_connection(("127.0.0.1", port), BOUND) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert "HTTP_REQUEST" in terminator.line()
    with secure_client(("127.0.0.1", port)) as sock:
        sock.sendall(b"still here")
        assert sock.recv(100) == b"STILL HERE"
    assert terminator.end(signal.SIGINT) == []


def test_terminator_without_its_backend(files):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("19_tls_terminator.py", "127.0.0.1:0", f"127.0.0.1:{port}", *files[:2]) as example:
        with secure_client(("127.0.0.1", example.port())) as sock:
            assert "cannot connect" in example.line()
            assert sock.recv(100) == b""
        assert example.end(signal.SIGINT) == []
