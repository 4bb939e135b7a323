"""Socket addresses: to the bytes of the kernel and back, compared with what the module socket makes of real sockets."""

import os
import pathlib
import random
import socket
import struct

import pytest
from _sockets import DATAGRAMS, bound
from _support import scaled

from linux_event.address import pack, unpack

RAW = struct.pack("=H", socket.AF_ALG) + bytes(range(86))


def inet(host, port):
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def inet6(host, port, flow=0, scope=0):
    family = struct.pack("=H", socket.AF_INET6)
    return family + struct.pack("!HI", port, flow) + socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", scope)


def unix(path):
    return struct.pack("=H", socket.AF_UNIX) + path


LO = socket.if_nametoindex("lo")

# family, address, the bytes of the kernel, and what comes back (None: the same)
BOTH_WAYS = [
    (socket.AF_INET, ("127.0.0.1", 80), inet("127.0.0.1", 80), None),
    (socket.AF_INET, ("255.254.1.0", 65535), inet("255.254.1.0", 65535), None),
    (socket.AF_INET, ("", 0), inet("0.0.0.0", 0), ("0.0.0.0", 0)),
    (socket.AF_INET, ("<broadcast>", 9), inet("255.255.255.255", 9), ("255.255.255.255", 9)),
    (socket.AF_INET, (b"10.0.0.1", True + 1), inet("10.0.0.1", 2), ("10.0.0.1", 2)),
    (socket.AF_INET6, ("::1", 80), inet6("::1", 80), ("::1", 80, 0, 0)),
    (socket.AF_INET6, ("", 1), inet6("::", 1), ("::", 1, 0, 0)),
    (
        socket.AF_INET6,
        ("::ffff:1.2.3.4", 1, 0xFFFFF),
        inet6("::ffff:1.2.3.4", 1, 0xFFFFF),
        ("::ffff:1.2.3.4", 1, 0xFFFFF, 0),
    ),
    (socket.AF_INET6, ("fe80::1", 65535, 7, 2**32 - 1), inet6("fe80::1", 65535, 7, 2**32 - 1), None),
    (socket.AF_INET6, ("fe80::1%7", 1), inet6("fe80::1", 1, 0, 7), ("fe80::1", 1, 0, 7)),
    (socket.AF_INET6, ("fe80::1%lo", 1), inet6("fe80::1", 1, 0, LO), ("fe80::1", 1, 0, LO)),
    (socket.AF_INET6, ("fe80::1%7", 1, 0, 8), inet6("fe80::1", 1, 0, 8), ("fe80::1", 1, 0, 8)),
    (socket.AF_UNIX, "/tmp/é", unix("/tmp/é\0".encode()), None),
    (socket.AF_UNIX, b"/tmp/\xff", unix(b"/tmp/\xff\0"), os.fsdecode(b"/tmp/\xff")),
    (socket.AF_UNIX, pathlib.Path("/tmp/a"), unix(b"/tmp/a\0"), "/tmp/a"),
    (socket.AF_UNIX, "p" * 107, unix(b"p" * 107 + b"\0"), None),
    (socket.AF_UNIX, b"\0abstract\0name", unix(b"\0abstract\0name"), None),
    (socket.AF_UNIX, "\0text", unix(b"\0text"), b"\0text"),
    (socket.AF_UNIX, b"\0" + b"n" * 107, unix(b"\0" + b"n" * 107), None),
    (socket.AF_UNIX, b"", unix(b""), ""),
    (socket.AF_NETLINK, (7, 2**32 - 1), struct.pack("=HHII", socket.AF_NETLINK, 0, 7, 2**32 - 1), None),
    (socket.AF_VSOCK, (2**32 - 1, 5), struct.pack("=HHIIi", socket.AF_VSOCK, 0, 5, 2**32 - 1, 0), None),
    (socket.AF_ALG, RAW, RAW, None),
    (socket.AF_ALG, bytearray(RAW), RAW, RAW),
]


@pytest.mark.parametrize("family, address, raw, back", BOTH_WAYS)
def test_both_ways(family, address, raw, back):
    assert pack(address, family) == raw
    got = unpack(raw)
    assert got == (address if back is None else back)
    assert type(got) in (tuple, str, bytes)
    assert pack(got, family) == raw


def test_nothing_and_what_has_no_end():
    assert unpack(b"") is None
    # The kernel may fill sun_path to its last byte, without a NUL.
    assert unpack(unix(b"p" * 108)) == "p" * 108
    assert unpack(unix(b"name\0behind")) == "name"


@pytest.mark.parametrize(
    "host", ["localhost", "example.org", "1.2.3", "1.2.3.4 ", "1.2.3.4\0", "::1", "é", "0x7f.1", "256.1.1.1"]
)
def test_a_host_of_ipv4_that_is_not_numeric(host):
    with pytest.raises(ValueError, match="resolve a name first"):
        pack((host, 1), socket.AF_INET)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", ":::", "1::2::3", "::1\0", "%lo%", "fe80::1 %lo"])
def test_a_host_of_ipv6_that_is_not_numeric(host):
    with pytest.raises((ValueError, OSError)):
        pack((host, 1), socket.AF_INET6)
    with pytest.raises(ValueError, match="resolve a name first"):
        pack((host.partition("%")[0] or "x", 1), socket.AF_INET6)


@pytest.mark.parametrize(
    "family, address, error, text",
    [
        (socket.AF_INET, "127.0.0.1", TypeError, "tuple"),
        (socket.AF_INET, ["127.0.0.1", 1], TypeError, "tuple"),
        (socket.AF_INET, ("127.0.0.1",), TypeError, "tuple"),
        (socket.AF_INET, ("127.0.0.1", 1, 2), TypeError, "tuple"),
        (socket.AF_INET, None, TypeError, "tuple"),
        (socket.AF_INET, (127, 1), TypeError, "host"),
        (socket.AF_INET, (None, 1), TypeError, "host"),
        (socket.AF_INET, ("127.0.0.1", "80"), TypeError, "port"),
        (socket.AF_INET, ("127.0.0.1", 65536), ValueError, "port"),
        (socket.AF_INET, ("127.0.0.1", -1), ValueError, "port"),
        (socket.AF_INET, ("127.0.0.1", 10**5000), ValueError, "port"),
        (socket.AF_INET6, "::1", TypeError, "tuple"),
        (socket.AF_INET6, ("::1", 1, 2, 3, 4), TypeError, "tuple"),
        (socket.AF_INET6, ("::1", 65536), ValueError, "port"),
        (socket.AF_INET6, ("::1", 1, 2**20), ValueError, "flowinfo"),
        (socket.AF_INET6, ("::1", 1, 0, 2**32), ValueError, "scope_id"),
        (socket.AF_INET6, ("::1", 1, 0, "lo"), TypeError, "scope_id"),
        (socket.AF_INET6, ("::1%4294967296", 1), ValueError, "scope"),
        (socket.AF_INET6, ("::1%no-such", 1), OSError, "::1%no-such"),
        (socket.AF_UNIX, 7, TypeError, "AF_UNIX"),
        (socket.AF_UNIX, ("a", 1), TypeError, "AF_UNIX"),
        (socket.AF_UNIX, None, TypeError, "AF_UNIX"),
        (socket.AF_UNIX, "a\0b", ValueError, "NUL"),
        (socket.AF_UNIX, "p" * 108, OSError, "too long"),
        (socket.AF_UNIX, b"\0" + b"n" * 108, OSError, "too long"),
        (socket.AF_UNIX, "\ud800", ValueError, "surrogates"),
        (socket.AF_NETLINK, 7, TypeError, "tuple"),
        (socket.AF_NETLINK, (-1, 0), ValueError, "pid"),
        (socket.AF_NETLINK, (0, 2**32), ValueError, "groups"),
        (socket.AF_VSOCK, (1, 2, 3), TypeError, "tuple"),
        (socket.AF_VSOCK, (2**32, 0), ValueError, "cid"),
        (socket.AF_VSOCK, (0, "x"), TypeError, "port"),
        (socket.AF_ALG, ("a", "b"), TypeError, "bytes of its sockaddr"),
        (socket.AF_ALG, "hash", TypeError, "bytes of its sockaddr"),
        (socket.AF_ALG, 7, TypeError, "bytes-like"),
        (socket.AF_ALG, b"", ValueError, "begin with that number"),
        (socket.AF_ALG, inet("127.0.0.1", 80), ValueError, "begin with that number"),
        (socket.AF_ALG, RAW + bytes(64), ValueError, "at most 128 bytes"),
        (-1, ("127.0.0.1", 1), ValueError, "family"),
        ("inet", ("127.0.0.1", 1), TypeError, "family"),
    ],
)
def test_what_is_refused(family, address, error, text):
    with pytest.raises(error, match=text):
        pack(address, family)


@pytest.mark.parametrize(
    "family, size",
    [(socket.AF_INET, 15), (socket.AF_INET6, 27), (socket.AF_NETLINK, 11), (socket.AF_VSOCK, 15), (socket.AF_UNIX, 1)],
)
def test_a_sockaddr_that_is_cut(family, size):
    with pytest.raises(ValueError, match="more than"):
        unpack(struct.pack("=H", family).ljust(size, b"\0")[:size])


@pytest.mark.parametrize("kind", DATAGRAMS)
def test_the_names_of_real_sockets(kind, tmp_path):
    family, type = DATAGRAMS[kind]
    with bound(kind, family, type, tmp_path) as sock:
        name = sock.getsockname()
        assert unpack(pack(name, family)) == name


def test_random_addresses_of_ipv4():
    """All of 127.0.0.0/8 can be bound to: the kernel and the module socket tell what is right."""
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(scaled(300, least=30)):
        host = ".".join(["127", *(str(draw.randrange(1, 255)) for _ in range(3))])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
            name = sock.getsockname()
        assert unpack(pack(name, socket.AF_INET)) == name
        assert pack(name, socket.AF_INET) == inet(*name)


def test_random_names_in_the_abstract_namespace():
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(scaled(300, least=30)):
        name = b"\0" + draw.randbytes(draw.randrange(8, 108))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(name)
            assert unpack(pack(name, socket.AF_UNIX)) == sock.getsockname() == name


def test_random_bytes_are_no_address_or_one_that_comes_back():
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    families = [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_VSOCK, 0, 31, 65535]
    for _ in range(scaled(5000, least=500)):
        raw = struct.pack("=H", draw.choice(families)) + draw.randbytes(draw.choice([0, 5, 10, 14, 26, 108, 126]))
        try:
            address = unpack(raw)
        except ValueError:
            continue
        family = struct.unpack("=H", raw[:2])[0]
        if family == socket.AF_INET6 and address[2] > 0xFFFFF:  # the kernel keeps more in it than a program may give
            continue
        if family == socket.AF_UNIX and len(os.fsencode(address)) > 107:  # no room, at least for the NUL
            continue
        assert unpack(pack(address, family)) == address


def test_a_netlink_socket():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        name = sock.getsockname()
        assert unpack(pack(name, socket.AF_NETLINK)) == name
