"""Where a request comes from: X-Forwarded-For is believed as far as trusted proxies reach, and no word further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot import origins
from faxbot.config import Config
from faxbot.errors import ConfigError

PROXIES = origins.networks("10.0.0.5, 192.168.7.0/24,fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody in between, or a stranger who says so.
        ("198.51.100.9", "", "198.51.100.9"),
        ("198.51.100.9", "203.0.113.1", "198.51.100.9"),
        ("198.51.100.9", "203.0.113.1, 10.0.0.5", "198.51.100.9"),
        ("10.0.0.6", "203.0.113.1", "10.0.0.6"),
        # One proxy of ours: its own word is the last one.
        ("10.0.0.5", "203.0.113.1", "203.0.113.1"),
        ("10.0.0.5", "1.1.1.1, 203.0.113.1", "203.0.113.1"),
        ("10.0.0.5", "1.1.1.1,10.0.0.5,203.0.113.1", "203.0.113.1"),
        ("10.0.0.5", "", "10.0.0.5"),
        # Two of them, one behind the other.
        ("10.0.0.5", "1.1.1.1, 203.0.113.1, 192.168.7.44", "203.0.113.1"),
        ("fd12::1", "1.1.1.1, 203.0.113.1 , 192.168.7.44, 10.0.0.5", "203.0.113.1"),
        # All are ours: the furthest of them asks.
        ("10.0.0.5", "192.168.7.9, 192.168.7.44", "192.168.7.9"),
        # What is no address: the proxy that wrote it.
        ("10.0.0.5", "1.1.1.1, unknown", "10.0.0.5"),
        ("10.0.0.5", "1.1.1.1, nonsense, 192.168.7.44", "192.168.7.44"),
        ("10.0.0.5", "203.0.113.1,", "10.0.0.5"),
        ("10.0.0.5", "999.1.1.1", "10.0.0.5"),
        # The ways in which addresses are written.
        ("10.0.0.5", "203.0.113.1:5678", "203.0.113.1"),
        ("10.0.0.5", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.5", "[2001:DB8:0::7]", "2001:db8::7"),
        ("10.0.0.5", "[2001:db8::7]:443", "2001:db8::7"),
        ("::ffff:10.0.0.5", "::ffff:203.0.113.1", "203.0.113.1"),
        ("fe80::1%eth0", "203.0.113.1", "fe80::1"),
        # A socket in the file system has no address, and says of nobody who he is.
        ("", "203.0.113.1", None),
    ],
)
def test_the_last_hop_that_is_not_ours_is_the_client(
    peer: str, forwarded: str, client: str | None
) -> None:
    assert origins.client(peer, forwarded, PROXIES) == client


@given(st.lists(st.ip_addresses().map(str) | st.text(max_size=20), max_size=5))
def test_whatever_a_client_writes_it_stays_the_client(written: list[str]) -> None:
    before = ",".join(written)

    assert origins.client("203.0.113.1", before, PROXIES) == "203.0.113.1"
    assert origins.client("10.0.0.5", f"{before},203.0.113.1", PROXIES) == "203.0.113.1"


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("::ffff:203.0.113.1", "203.0.113.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
    ],
)
def test_addresses_of_one_site_count_as_one(address: str, group: str) -> None:
    assert origins.group(address) == group


def test_longest_group_fits_its_column() -> None:
    assert len(origins.group("ffff:" * 4 + "1:2:3:4")) <= 64


def test_nobody_is_trusted_unless_named() -> None:
    assert Config.load({}).trusted_networks == ()
    named = Config.load({"FAXBOT_TRUSTED_PROXIES": " 10.0.0.5 , fd00::/8,"})
    assert named.trusted_networks == origins.networks("10.0.0.5,fd00::/8")


@pytest.mark.parametrize(
    "text", ["proxy.example.org", "10.0.0.5/99", "10.0.0.5 10.0.0.6", "10.0.0.1/8", "*"]
)
def test_what_is_no_network_is_refused_by_name(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"FAXBOT_TRUSTED_PROXIES must be addresses or networks"
    ) as refused:
        Config.load({"FAXBOT_TRUSTED_PROXIES": text})
    assert text not in refused.value.detail


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.1.2.3",
        "[::1]",
        "[::1]:80",
    ],
)
def test_a_name_of_this_machine(host: str) -> None:
    assert origins.names_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "", "localhost.", "a.localhost", "localhost.example.org", "127.0.0.1.example.org", "127.1", "0x7f000001",
        "2130706433", "0.0.0.0", "[::]", "[fe80::1]", "10.0.0.1", "127.0.0.1%a", "127.0.0.1,a.org",  # noqa: S104
        "localhost:a",
        "x@127.0.0.1", "127.0.0.1/", "localhost:8080:80",
    ],
)  # fmt: skip
def test_a_name_of_another_machine_or_of_none(host: str) -> None:
    assert not origins.names_loopback(host)
