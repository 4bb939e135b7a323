"""A name server for tests, and processes whose resolver is configured to ask it.

A test hands a function to :func:`asking`; it runs in a forked child with a mount namespace of its own, so that the files of the
configuration are those of the test, for libc as for everybody.
"""

import contextlib
import ctypes
import functools
import heapq
import importlib.util
import os
import selectors
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest
from _fault import _CLONE_NEWNS, _MS_BIND, _MS_PRIVATE, _MS_REC, _check, _libc, in_fork, open_fds, wait_until
from _support import made_loop

A, CNAME, AAAA = 1, 5, 28
FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 1, 2, 3, 4, 5

HAS_PYCARES = importlib.util.find_spec("pycares") is not None


@dataclass
class Name:
    """What the server says of a name. ``fault``: "silent", "garbage", "wrong id", "truncated"; ``rcode``: of the answer."""

    a: tuple = ()
    aaaa: tuple = ()
    cname: str = ""
    delay: float = 0.0
    rcode: int = 0
    fault: str = ""


def encoded(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def record(name, kind, data, ttl=0):
    return encoded(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


class Server:
    """A name server for UDP and TCP in a thread. *zone*: name -> :class:`Name`; ``*.x`` stands for everything below x."""

    def __init__(self, zone, address):
        self.zone, self.address = zone, address
        self.asked = Counter()  # names, of the questions for A or AAAA by UDP
        self.by_tcp = Counter()
        self.due = []
        self.selector = selectors.DefaultSelector()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, 53))
        self.tcp = socket.create_server((address, 53))
        self.selector.register(self.udp, selectors.EVENT_READ)
        self.selector.register(self.tcp, selectors.EVENT_READ)
        self.wake_r, self.wake_w = os.pipe()
        self.selector.register(self.wake_r, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def close(self):
        os.close(self.wake_w)
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            os.close(key.fileobj) if isinstance(key.fileobj, int) else key.fileobj.close()
        self.selector.close()

    def serve(self):
        while True:
            timeout = max(0, self.due[0][0] - time.monotonic()) if self.due else None
            for key, _ in self.selector.select(timeout):
                if key.fileobj == self.wake_r:
                    return
                if key.fileobj is self.udp:
                    packet, peer = self.udp.recvfrom(4096)
                    self.answer(packet, lambda answer, peer=peer: self.udp.sendto(answer, peer), self.asked)
                elif key.fileobj is self.tcp:
                    self.selector.register(self.tcp.accept()[0], selectors.EVENT_READ)
                else:
                    self.serve_tcp(key.fileobj)
            while self.due and self.due[0][0] <= time.monotonic():
                _, _, send, packet = heapq.heappop(self.due)
                with contextlib.suppress(OSError):
                    send(packet)

    def serve_tcp(self, peer):
        packet = b""
        with contextlib.suppress(OSError):  # whoever asked may have reset the connection
            head = peer.recv(2)
            packet = peer.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        if not packet:
            self.selector.unregister(peer)
            peer.close()
            return

        def send(answer):
            peer.sendall(len(answer).to_bytes(2, "big") + answer)

        self.answer(packet, send, self.by_tcp)

    def answer(self, packet, send, count):
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
            at += packet[at] + 1
        name, question = ".".join(labels).lower(), packet[12 : at + 5]
        kind = int.from_bytes(packet[at + 1 : at + 3], "big")
        count[name] += 1
        entry = self.zone.get(name) or self.zone.get("*." + name.partition(".")[2])
        if entry is None:
            entry = Name(rcode=NXDOMAIN)
        if entry.fault == "silent":
            return
        if entry.fault == "garbage":
            answer = packet[:2] + b"\x81\x80" + bytes(range(200))
        else:
            found, owner = [], name
            if entry.cname:
                found.append(record(name, CNAME, encoded(entry.cname)))
                owner = entry.cname
            target = self.zone[entry.cname] if entry.cname else entry
            if kind == A:
                found += [record(owner, A, socket.inet_pton(socket.AF_INET, address)) for address in target.a]
            elif kind == AAAA:
                found += [record(owner, AAAA, socket.inet_pton(socket.AF_INET6, address)) for address in target.aaaa]
            flags = 0x8180 | entry.rcode
            if count is self.asked and (entry.fault == "truncated" or sum(map(len, found)) > 450):
                found, flags = [], flags | 0x0200
            answer = packet[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0) + question + b"".join(found)
        if entry.fault == "wrong id" and count is self.asked:
            with contextlib.suppress(OSError):
                send(bytes([answer[0] ^ 0xFF]) + answer[1:])
            answer = answer[:-1] + b"\x07" if found else answer
        heapq.heappush(self.due, (time.monotonic() + entry.delay, id(answer), send, answer))


# ---------------------------------------------------------------------------------------------------------------------
# Processes with a configuration of their own


def own_mounts():
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount")


covered = set()


def put_file(path, text):
    """Let *path* read as *text* for this process, after :func:`own_mounts`."""
    if path in covered:
        _check(_libc.umount(path.encode()), f"umount {path}")
    covered.add(path)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        os.chmod(file.name, 0o644)
        _check(_libc.mount(file.name.encode(), path.encode(), None, ctypes.c_ulong(_MS_BIND), None), f"mount {path}")


def own_address():
    """An address of the loopback network for this process alone: the port of name servers is free there."""
    return f"127.{os.getpid() >> 16 & 63 | 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


@functools.cache
def refusal():
    """Why a process cannot have a name server of its own here, or None."""

    def attempt():
        try:
            own_mounts()
            put_file("/etc/hosts", "")
            Server({}, own_address()).close()
        except OSError as error:
            return str(error)
        return None

    return in_fork(attempt)


def asking(
    body,
    zone=None,
    *,
    driver="",
    resolv="options timeout:1 attempts:1\n",
    hosts="127.0.0.1 localhost\n",
    nsswitch="hosts: files dns\n",
    gai="",
    idle=0.01,
):
    """Call body(loop, server) in a child whose only name server is *server*; what it returned. Proves that nothing is left."""
    if refusal():
        pytest.skip(f"no configuration of names of its own: {refusal()}")
    if driver == "cares" and not HAS_PYCARES:
        pytest.skip("pycares is not installed")

    def child():
        from linux_event.net import dns_threads

        dns_threads.IDLE_S = idle
        os.environ["LINUX_EVENT_RESOLVER"] = driver
        own_mounts()
        server = Server(zone or {}, own_address())
        try:
            put_file("/etc/resolv.conf", f"nameserver {server.address}\n{resolv}")
            put_file("/etc/hosts", hosts)
            put_file("/etc/nsswitch.conf", nsswitch)
            if os.path.exists("/etc/gai.conf"):
                put_file("/etc/gai.conf", gai)
            before = set(open_fds())
            with made_loop() as loop:
                result = body(loop, server)
            wait_until(lambda: set(open_fds()) <= before | server_fds(server))
            wait_until(lambda: dns_threads.pool.threads == 0)
            assert not dns_threads.pool.known
            assert not dns_threads.pool.running
        finally:
            server.close()
        return result

    return in_fork(child)


def server_fds(server):
    """Connections that the server has accepted meanwhile."""
    return {key.fd for key in list(server.selector.get_map().values())}


class Told:
    """A callback that keeps what it was told."""

    def __init__(self):
        self.calls = []

    def __call__(self, result, error):
        self.calls.append((result, error))

    @property
    def result(self):
        [(result, error)] = self.calls
        if error is not None:
            raise error
        return result

    @property
    def error(self):
        [(result, error)] = self.calls
        assert result is None
        return error


def found(entries):
    """The addresses of entries of one type, in their order."""
    return [address[0] for *_, address in entries]
