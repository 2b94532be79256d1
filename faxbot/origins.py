"""Where a request comes from: the nearest machine in front of the proxies that are trusted, and which addresses count
as one.

X-Forwarded-For is a list to which each proxy adds, at its end, whom it spoke with; what stands before the entries of
trusted proxies was written by the client and proves nothing. So it is read from the end, and only as far as the
proxies of FAXBOT_TRUSTED_PROXIES reach.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from faxbot.forms import Form

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_SITE_BITS = 64
"""A customer of a provider has at least a whole /64 (RFC 6177), and as many addresses in it as he likes."""
_WITH_PORT = re.compile(r"\[(?P<six>[^\]]+)\](:[0-9]{1,5})?|(?P<four>[0-9.]+):[0-9]{1,5}")
"""Some proxies write the port beside the address."""


def networks(text: str) -> tuple[Network, ...]:
    """The addresses and networks of a list separated by commas; raises ValueError for anything else."""
    return tuple(ip_network(one.strip()) for one in text.split(",") if one.strip())


def _are_networks(text: str) -> bool:
    try:
        networks(text)
    except ValueError:
        return False
    return True


NETWORKS: Form = (
    _are_networks,
    "must be addresses or networks separated by commas, like 10.0.0.5,192.168.7.0/24,fd00::/8",
)


@lru_cache(maxsize=256)  # clients come again; parsing costs 6 to 20 µs (measured)
def client(peer: str, forwarded: str, trusted: tuple[Network, ...]) -> str | None:
    """The address of who asks. `peer` is who is connected with us, `forwarded` what X-Forwarded-For says, its lines
    joined by commas; None where there is no address (a socket in the file system)."""
    known = _read(peer)
    if known is None:
        return None
    hops = forwarded.split(",") if forwarded else []
    while hops and any(known in network for network in trusted):
        before = _read(hops.pop())
        if before is None:
            break  # what is no address cannot be counted: the proxy that wrote it stands for it
        known = before
    return str(known)


def is_loopback(address: str) -> bool:
    """Whether this is an address by which a machine speaks with itself; no name is."""
    known = _read(address)
    return known is not None and known.is_loopback


def names_loopback(host: str) -> bool:
    """Whether a host, perhaps with a port behind it, is this machine's own: an address, or `localhost`, which no name
    server is asked for (RFC 6761, 6.3)."""
    if re.fullmatch(r"localhost(:[0-9]{1,5})?", host, re.IGNORECASE):
        return True
    return "%" not in host and is_loopback(host)


@lru_cache(maxsize=256)  # while somebody is barred, every request asks (7 µs, of IPv6 33; measured)
def group(address: str) -> str:
    """Under what the failures of an address are counted: an IPv4 address by itself, IPv6 by its /64."""
    known = _read(address)
    if isinstance(known, IPv6Address):
        return str(IPv6Network((known, _SITE_BITS), strict=False))
    return address if known is None else str(known)


def _read(text: str) -> Address | None:
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match["six"] or match["four"]
    try:
        found = ip_address(text.partition("%")[0])  # fe80::1%eth0: the interface says nothing to us
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found  # on a socket for both kinds an IPv4 client is ::ffff:192.0.2.1
