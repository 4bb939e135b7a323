"""The order of the addresses of a name: that of glibc, by RFC 3484 with the tables that it has without a gai.conf.

What differs from one address to the next can only be known from the source address that the kernel would give to a connection,
so it is asked; nothing is sent. Rules 3, 4 and 7 of the RFC (deprecated and home addresses, tunnels) are left out.
"""

import socket
from ipaddress import ip_address, ip_network

__all__ = ["in_order"]

LINK, SITE, GLOBAL = 2, 5, 14

LABELS = [
    (ip_network(network), label)
    for network, label in (
        ("::1/128", 0),
        ("::ffff:0:0/96", 4),
        ("::/96", 3),
        ("2001::/32", 7),
        ("2002::/16", 2),
        ("fec0::/10", 5),
        ("fc00::/7", 6),
        ("::/0", 1),
    )
]
PRECEDENCES = [
    (ip_network(network), precedence)
    for network, precedence in (
        ("::1/128", 50),
        ("::ffff:0:0/96", 10),
        ("::/96", 20),
        ("2002::/16", 30),
        ("::/0", 40),
    )
]
LOOPBACK = ip_network("127.0.0.0/8")


def of_table(table, address):
    """The value of the first network of a table that the address is in; IPv4 is in it as mapped to IPv6."""
    if address.version == 4:
        address = ip_address(f"::ffff:{address}")
    return next(value for network, value in table if address in network)


def scope_of(address):
    """How far an address reaches."""
    if address.version == 6 and address.is_multicast:
        return address.packed[1] & 15
    if address.is_link_local or address.is_loopback:
        return LINK
    return SITE if address.version == 6 and address.is_site_local else GLOBAL


def source_of(host):
    """The address that a connection to this one would come from, or None."""
    try:
        [(family, _, _, _, target)] = socket.getaddrinfo(host, 0, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return ip_address(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None


def own_networks():
    """The networks of IPv4 that this host is part of."""
    networks = [LOOPBACK]
    try:
        with open("/proc/net/route") as file:
            routes = [line.split() for line in file][1:]
    except OSError:
        return networks
    for _, target, gateway, _, _, _, _, mask, *_ in routes:
        if int(gateway, 16) == 0 and int(mask, 16) != 0:
            packed = int(target, 16).to_bytes(4, "little")
            networks.append(ip_network((packed, int(mask, 16).bit_count())))
    return networks


def bits_in_common(address, source, networks):
    """How much of the source matches. For IPv4 that says nothing, unless both are of one network."""
    if address.version != source.version:
        return 0
    if address.version == 4 and not any(address in network and source in network for network in networks):
        return 0
    return address.max_prefixlen - (int(address) ^ int(source)).bit_length()


def in_order(hosts):
    """Addresses in numbers, as bytes, best first."""
    hosts = list(hosts)
    if len(hosts) < 2:
        return hosts
    networks = own_networks()

    def rank(host):
        address = ip_address(host.decode().partition("%")[0])
        precedence, scope = of_table(PRECEDENCES, address), scope_of(address)
        source = source_of(host)
        if source is None:
            return True, False, False, -precedence, scope, 0
        is_of_scope = scope == scope_of(source)
        has_label = of_table(LABELS, address) == of_table(LABELS, source)
        return False, not is_of_scope, not has_label, -precedence, scope, -bits_in_common(address, source, networks)

    return sorted(hosts, key=rank)
