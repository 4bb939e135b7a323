"""The order of addresses is that of libc: compared for random addresses, and by the rules."""

import random
import socket

import pytest
from _names import Name, asking, found

from linux_event.net import order
from linux_event.net.order import in_order

V4 = ("127.0.0.{}", "127.{}.0.1", "192.0.2.{}", "10.{}.1.1", "169.254.1.{}", "8.8.{}.8", "192.168.1.{}", "172.17.0.{}")
V6 = ("::1", "2001:db8::{:x}", "fd00::{:x}", "2002::{:x}", "2001::{:x}", "fec0::{:x}", "::{:x}:0:0:1", "fe80::{:x}")


def random_addresses(source, patterns):
    count = source.randrange(6)
    return tuple({source.choice(patterns).format(source.randrange(1, 250)): None for _ in range(count)})


def test_random_addresses_come_in_the_order_of_libc():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    zone = {f"n{i}.test": Name(random_addresses(source, V4), random_addresses(source, V6)) for i in range(200)}

    def body(loop, server):
        for name, entry in zone.items():
            addresses = [*entry.a, *entry.aaaa]
            if addresses:
                want = found(socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM))
                got = [host.decode() for host in in_order(address.encode() for address in addresses)]
                plain = [
                    socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)) if ":" in host else host
                    for host in got
                ]
                assert plain == want, entry

    asking(body, zone)


@pytest.fixture
def sources(monkeypatch):
    """The host has these source addresses: one for IPv4, one for IPv6, or None."""

    def have(v4, v6, networks=("192.0.2.0/24",)):
        monkeypatch.setattr(
            order,
            "source_of",
            lambda host: order.ip_address(v6 if b":" in host else v4) if (v6 if b":" in host else v4) else None,
        )
        monkeypatch.setattr(order, "own_networks", lambda: [order.ip_network(network) for network in networks])

    return have


@pytest.mark.parametrize(
    ("v4", "v6", "hosts"),
    [
        ("192.0.2.5", "2001:db8::5", [b"2001:db8::9", b"198.51.100.1"]),  # precedence
        ("192.0.2.5", None, [b"198.51.100.1", b"2001:db8::9"]),  # what can be reached
        (None, None, [b"2001:db8::9", b"198.51.100.1"]),
        ("192.0.2.5", "fe80::5", [b"198.51.100.1", b"2001:db8::9"]),  # the scope of the source
        ("192.0.2.5", "fd00::5", [b"fd00::9", b"2001:db8::9"]),  # the label of the source
        ("192.0.2.5", "2001:db8::5", [b"192.0.2.4", b"192.0.2.129", b"198.51.100.1"]),  # the network of the source
        ("192.0.2.5", "2001:db8::5", [b"2001:db8::6", b"2001:db8:1::6"]),  # the longest prefix
        ("192.0.2.5", "2001:db8::5", [b"198.51.100.2", b"198.51.100.1"]),  # none of these: as they came
        ("192.0.2.5", "2001:db8::5", [b"ff02::1%1", b"ff05::1"]),  # the smaller scope
        ("192.0.2.5", "fec0::5", [b"fec0::6", b"2001:db8::6"]),
    ],
)
def test_the_rules(sources, v4, v6, hosts):
    sources(v4, v6)
    assert in_order(hosts) == hosts
    if hosts != [b"198.51.100.2", b"198.51.100.1"]:
        assert in_order(reversed(hosts)) == hosts


def test_one_address_is_not_looked_at():
    assert in_order([b"what ever"]) == [b"what ever"]
    assert in_order([]) == []


def test_a_host_without_a_table_of_routes(monkeypatch):
    def missing(*arguments):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert order.own_networks() == [order.LOOPBACK]
    assert order.source_of(b"no address") is None
