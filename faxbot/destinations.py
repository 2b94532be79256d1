"""Where a webhook may go: which web addresses are taken, and which machines are called.

A name proves nothing: its owner says where it leads, and may say something else a moment later. So what counts is the
address that is dialled, and whoever connects asks judge() about the very address that he connects to (dialling.py).
What is not plainly out on the internet is refused: this machine, private networks, what other protocols wrap, and
everything that IANA's registries of special addresses hold (RFC 6890; read 2026-11). What people need of their own
network they name (FAXBOT_WEBHOOK_NETWORKS), and what of it has public addresses and is not to be called, too
(FAXBOT_WEBHOOK_DENY).
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from faxbot.errors import FaxbotError
from faxbot.forms import Form
from faxbot.origins import Address, Network

LONGEST = 2048
"""Characters of an address."""
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
"""Narrower than any parser: nobody's password, no part of a host in other letters or escapes, so that there is one way
to read it."""
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A host whose last part looks so is an address of version 4, in some spelling (WHATWG URL, 5.1)."""

_SPECIAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # between a carrier and its customers
            "127.0.0.0/8",  # this machine
            "168.63.129.16/32",  # public by its number, and the host of a virtual machine in Azure
            "169.254.0.0/16",  # this link, and the metadata of clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocols
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # relays of multicast
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")
"""All that is given out so far. Outside of it lie this machine, links, sites, private networks, multicast, and
version 4 in its wrappings (mapped, compatible, translated, NAT64)."""
_SPECIAL_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which wraps version 4
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # the 6bone that was
            "3fff::/20",  # documentation
        ),
    )
)


class NotAllowed(FaxbotError):
    """A webhook may not go to this address."""

    code = "destination-not-allowed"


@dataclass(frozen=True, slots=True)
class Place:
    """Whom to ask for what, as read from a web address."""

    scheme: str
    host: str
    """A name in small letters, or an address without brackets."""
    port: int
    target: str
    """Path and query."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What this installation allows."""

    networks: tuple[Network, ...] = ()
    """Allowed although they are special."""
    ports: tuple[range, ...] = (range(443, 444),)
    https_only: bool = True
    own_names: frozenset[str] = frozenset()
    """What this server itself is called, and the addresses of these names."""
    own_port: int = 0
    """Where it listens itself."""
    denied: tuple[Network, ...] = ()
    """Never allowed, whatever else is said."""

    def read(self, url: str) -> Place:
        """Whom this address names; raises NotAllowed with a sentence that does not repeat it."""
        match = _URL.fullmatch(url)
        if match is None or len(url) > LONGEST or "#" in url or "\\" in url:
            raise NotAllowed(
                "Write it as https://host/path: a host of plain letters (an international name as xn--...), perhaps a "
                "port, path and query; no user, no password, no fragment."
            )
        scheme, host = match["scheme"].lower(), match["host"].lower()
        if scheme != "https" and self.https_only:
            raise NotAllowed("It must begin with https:// in production.")
        port = int(match["port"] or _PORTS[scheme])
        if not any(port in each for each in self.ports):
            raise NotAllowed(
                f"The port {port} is not among those of FAXBOT_WEBHOOK_PORTS: {_listed(self.ports)}."
            )
        literal = _literal(host)
        if literal is not None:
            host = str(literal)
            self.judge(host, port)
        elif host in self.own_names:
            raise NotAllowed("This is the server itself.")
        target = match["target"] or "/"
        return Place(scheme, host, port, target if target.startswith("/") else f"/{target}")

    def judge(self, address: str, port: int) -> None:
        """Raise NotAllowed for an address that is not to be dialled at this port."""
        try:
            known = ip_address(address)
        except ValueError:
            raise NotAllowed("This is no address.") from None
        if any(known in network for network in self.denied):
            raise NotAllowed("It leads into a network that FAXBOT_WEBHOOK_DENY names.")
        allowed = any(known in network for network in self.networks)
        if not allowed and is_special(known):
            raise NotAllowed(
                "It leads to this machine or into a private or special network: what webhooks may reach there is "
                "named in FAXBOT_WEBHOOK_NETWORKS."
            )
        ours = str(known) in self.own_names or is_own(known)
        if ours and (not allowed or port == self.own_port):
            raise NotAllowed(
                "This is the server itself; where others answer at its address, name that in FAXBOT_WEBHOOK_NETWORKS."
            )


def shown(url: str) -> str:
    """An address that was read before, as far as it may be shown: what follows the host may be its owner's secret."""
    scheme, _, rest = url.partition("://")
    match = re.match(r"[^/?]*", rest)
    host = match[0] if match else ""
    return f"{scheme}://{host}/" + ("" if rest.removeprefix(host) in ("", "/") else "…")


def is_special(address: Address) -> bool:
    """Whether it is anything else than one machine out on the internet."""
    if isinstance(address, IPv4Address):
        return any(address in network for network in _SPECIAL_4)
    if address.scope_id is not None or address not in _GLOBAL_6:
        return True
    return any(address in network for network in _SPECIAL_6)


def is_own(address: Address) -> bool:
    """Whether this machine has it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with suppress(AttributeError, OSError):  # another system than Linux, or a sandbox
        return _is_routed_here(family, address.packed)
    # Only what a machine has can be bound to; but net.ipv4.ip_nonlocal_bind has Linux bind to anything.
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


_GET_ROUTE, _IS_ROUTE, _LOCAL = 26, 24, 2


def _is_routed_here(family: int, address: bytes) -> bool:
    """Whether Linux would take what is sent there itself (`ip route get` says `local`; rtnetlink(7)); raises OSError
    where it cannot be asked."""
    wanted = struct.pack("=BB10xHH", family, 8 * len(address), 4 + len(address), 1) + address
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(1.0)
        kernel.send(struct.pack("=IHHII", 16 + len(wanted), _GET_ROUTE, 1, 1, 0) + wanted)
        answer = kernel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return kind == _IS_ROUTE and answer[23] == _LOCAL  # else there is no way there


def is_literal(host: str) -> bool:
    """Whether this host of a Place is an address, and no name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _literal(host: str) -> Address | None:
    """The address that a host is, None for a name; raises NotAllowed for a spelling that others read differently."""
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1])
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):
            return IPv4Address(host)
    except ValueError:
        raise NotAllowed(
            "Write the address in the usual way, like 192.0.2.1 or [2001:db8::1]."
        ) from None
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise NotAllowed("This is no name of a host.")
    return None


# What the settings say --------------------------------------------------------------------------------


def _listed(ports: tuple[range, ...]) -> str:
    return ", ".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else f"{each[0]}" for each in ports)


def ports(text: str) -> tuple[range, ...]:
    """The ports of a list like 443,8000-8999; raises ValueError for anything else."""
    found = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", one)
        if match is None:
            raise ValueError("no port")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65535:
            raise ValueError("no port")
        found.append(range(first, last + 1))
    return tuple(found)


def _are_ports(text: str) -> bool:
    try:
        return bool(ports(text))
    except ValueError:
        return False


PORTS: Form = (_are_ports, "must be ports separated by commas, like 443,8443,9000-9099")


def names(urls: Iterable[str]) -> frozenset[str]:
    """The hosts of these addresses, as Place has them."""
    return frozenset(host.lower() for url in urls if (host := urlsplit(url).hostname))
