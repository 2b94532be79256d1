"""Where a webhook may go: every special address is refused, however it is written, and before anything is dialled."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import cycle
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot import dialling
from faxbot.config import Config
from faxbot.destinations import NotAllowed, Rules, is_own, is_special, shown
from faxbot.dialling import NOT_ALLOWED, OK, Dialler, Resolve
from faxbot.errors import ConfigError
from tests.misbehaving import OK as ANSWER
from tests.misbehaving import Server, answering


def _words(text: str) -> list[str]:
    return text.split()


SPECIAL = _words("""
0.0.0.0 0.1.2.3 0.255.255.255
10.0.0.0 10.0.0.1 10.255.255.255
100.64.0.1 100.100.100.200 100.127.255.255
127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254
168.63.129.16
169.254.0.1 169.254.169.254 169.254.170.2 169.254.255.255
172.16.0.1 172.17.0.1 172.31.255.255
192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1
192.168.0.1 192.168.1.254 192.168.255.255 192.175.48.1
198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9
224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.254 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::8.8.8.8
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::808:808 64:ff9b:1::1
100::1 100:0:0:1::1
2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff::1
2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808::1 2620:4f:8000::1 3ffe::1 3fff::1
4000::1 5f00::1 8000::1
fc00::1 fd00:ec2::254 fd12:3456:789a::1
fe80::1 fe80::a9fe:a9fe fec0::1 febf::1
ff02::1 ff05::2 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
""")
"""One of each kind, and of many the first and the last."""
PUBLIC = _words("""
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.0.3.1 192.167.255.255 192.169.0.0 198.17.255.255
198.20.0.0 203.0.112.1 223.255.255.255
2001:200::1 2001:4860:4860::8888 2003::1 2600::1 2606:4700:4700::1111 2a00:1450:4001::1 3ffd::1
""")
SPELT_OTHERWISE = _words("""
http://2130706433/ http://017700000001/ http://0x7f000001/ http://0x7f.0.0.1/ http://0177.0.0.1/ http://0/
http://127.1/ http://127.0.1/ http://127.0.0.1./ http://0x7f.1/ http://00.0.0.0/ http://127.0.0.01/ http://10.1/
http://3232235777/ http://0xA9FEA9FE/ http://169.254.43518/ http://425.510.425.510/ http://127.0.0.1.0x1/
http://[::ffff:7f00:1]/ http://[0:0:0:0:0:ffff:127.0.0.1]/ http://[0000::1]/ http://[::1%25lo]/ http://[::1%lo]/
http://[fe80::1%eth0]/ http://[v1.x]/ http://[127.0.0.1]/ http://[]/ http://::1/ http://[::1/
http://%31%32%37.0.0.1/ http://127%2e0.0.1/ http://\uff11\uff12\uff17.0.0.1/ http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/
http://127\u30020\u30020\u30021/
http://example.org@127.0.0.1/ http://127.0.0.1@example.org/ http://user:pass@example.org/ http://127.0.0.1:80@example.org/
http://example.org\\@127.0.0.1/ http://127.0.0.1\\.example.org/ http://127.0.0.1#@example.org/ http://example.org#x
http:/127.0.0.1/ http:127.0.0.1/ http:///127.0.0.1/ //127.0.0.1/ 127.0.0.1 http:// http://.example.org/
http://example..org/ http://-a.example.org/ http://example.org./ http://exa_mple-.org/
ftp://example.org/ file:///etc/passwd gopher://example.org/ unix:/run/x.sock javascript:alert(1) data:,x
http://example.org:0/ http://example.org:22/ http://example.org:6379/ http://example.org:65536/ http://example.org:+80/
http://example.org:999999/ http://example.org:8O/
""")
NEVER = [*SPELT_OTHERWISE, "http://example.org/ x", "http://example.org/\r\nHost: 127.0.0.1", "\thttp://example.org/",
         "http://exam\tple.org/", "", "http://example.org/" + "x" * 2048, f"http://{'a' * 64}.org/",
         f"http://{'.'.join(['a'] * 200)}/"]  # fmt: skip
WEB = (range(80, 81), range(443, 444))
RULES = Rules(ports=WEB, https_only=False)


@pytest.fixture
def connects() -> Iterator[list[Any]]:
    """The addresses that anything of this process connects with from now on."""
    found: list[Any] = []
    _LISTENING.append(found)
    yield found
    _LISTENING.remove(found)


_LISTENING: list[list[Any]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        for found in _LISTENING:
            found.append(arguments[1])


sys.addaudithook(_hear)


_RESOLVE: list[Resolve] = []
_DIALLER = Dialler(resolve=lambda host, port: _RESOLVE[-1](host, port))


def called(url: str, *, resolve: Resolve | None = None, rules: Rules = RULES) -> str:
    """How a call to this address ends; without `resolve` no name has an address."""
    _RESOLVE.append(resolve or (lambda _host, _port: ()))
    try:
        return _DIALLER.post(rules, url, {}, b"{}", seconds=5).outcome
    finally:
        _RESOLVE.pop()


def test_the_table_is_long_enough_and_each_of_it_is_an_address() -> None:
    assert len(set(SPECIAL)) >= 80
    assert all(map(ip_address, [*SPECIAL, *PUBLIC]))


@pytest.mark.parametrize("address", SPECIAL)
def test_a_special_address_is_not_connected_with(address: str, connects: list[Any]) -> None:
    host = f"[{address}]" if ":" in address else address
    for scheme in ("http", "https"):
        assert called(f"{scheme}://{host}/") == NOT_ALLOWED
        assert called(f"{scheme}://hook.example.org/", resolve=lambda *_: [address]) == NOT_ALLOWED

    assert connects == []


@pytest.mark.parametrize("url", NEVER)
def test_an_address_that_can_be_read_in_two_ways_is_not_read(url: str, connects: list[Any]) -> None:
    with pytest.raises(NotAllowed) as refused:
        RULES.read(url)

    assert called(url) == NOT_ALLOWED
    assert connects == []
    assert len(url) < 5 or url not in refused.value.detail


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_out_on_the_internet_is_not_taken_for_a_special_one(address: str) -> None:
    assert not is_special(ip_address(address))
    RULES.judge(address, 443)


@given(st.ip_addresses())
def test_what_python_calls_global_is_all_that_is_let_through(address: Any) -> None:
    """Of what this table lets through, the standard library's own table refuses nothing."""
    assert is_special(address) or address.is_global


def test_a_name_of_which_one_address_is_special_is_not_called_at_all(connects: list[Any]) -> None:
    both = ["1.1.1.1", "169.254.169.254"]
    for found in (both, both[::-1]):
        assert called("http://hook.example.org/", resolve=lambda *_, found=found: found) == (
            NOT_ALLOWED
        )

    assert connects == []


def test_a_name_that_leads_elsewhere_a_moment_later_gains_nothing(connects: list[Any]) -> None:
    """Rebinding: whenever the name is looked at it has another address than right before."""
    once = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    guarded = Server(answering(once))
    open_to_all = Server(answering(once), address=("127.0.0.2", guarded.port))
    rules = Rules((ip_network("127.0.0.2/32"),), (range(1, 65536),), https_only=False)
    asked: list[str] = []
    turns = cycle(["127.0.0.2", "127.0.0.1"])

    def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return [next(turns)]

    url = f"http://rebinds.example.org:{guarded.port}/"
    try:
        outcomes = [called(url, resolve=resolve, rules=rules) for _ in range(20)]
    finally:
        guarded.close()
        open_to_all.close()

    assert outcomes == [OK, NOT_ALLOWED] * 10
    assert len(asked) == 20, "one look for each connection"
    assert (guarded.connections, open_to_all.connections) == (0, 10)
    assert set(connects) == {("127.0.0.2", guarded.port)}


# This server itself, and what is allowed -----------------------------------------------------------


def test_this_server_is_not_called_by_its_name_or_by_an_address_of_this_machine(
    connects: list[Any],
) -> None:
    loopback = (ip_network("127.0.0.0/8"),)
    here = Rules(
        loopback, (range(1, 65536),), https_only=False, own_names=frozenset({"fax.example.org", "1.1.1.1"}),
        own_port=8080,
    )  # fmt: skip
    for url in (
        "https://fax.example.org/hook",
        "https://FAX.example.org:8443/hook",
        "http://127.0.0.1:8080/fax",
        "http://127.0.0.9:8080/fax",
        "http://1.1.1.1/",
    ):
        assert called(url, rules=here) == NOT_ALLOWED
    assert (
        called("http://x.example.org/", resolve=lambda *_: ["1.1.1.1"], rules=here) == NOT_ALLOWED
    )

    assert connects == []
    here.judge("127.0.0.1", 8081)


def test_what_the_name_of_this_server_leads_to_is_not_called_under_any_other(
    connects: list[Any],
) -> None:
    """A proxy before it has addresses that this machine has not."""
    names = {"fax.example.org": ["1.1.1.1", "2606:4700::1"], "alias.example.org": ["1.1.1.1"]}
    asked: list[str] = []

    def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return names[host]

    dialler = Dialler(resolve=resolve)
    own = frozenset({"fax.example.org"})
    here = Rules(ports=WEB, https_only=False, own_names=own)
    for url in ("http://alias.example.org/", "http://1.1.1.1/", "https://[2606:4700::1]/"):
        assert dialler.post(here, url, {}, b"{}", seconds=5).outcome == NOT_ALLOWED

    assert connects == []
    assert asked.count("fax.example.org") == 1, "it is known for a while"


def test_a_name_of_this_server_that_nobody_knows_keeps_nobody_from_being_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialling, "OWN_SECONDS", 0.1)
    over = threading.Event()

    def resolve(host: str, _port: int) -> Sequence[str]:
        if host == "fax.example.org":
            over.wait(20)
        return ["127.0.0.1"]

    server = Server(answering(ANSWER))
    own = frozenset({"fax.example.org"})
    here = Rules((ip_network("127.0.0.1/32"),), (range(1, 65536),), https_only=False, own_names=own)
    url = f"http://hook.example.org:{server.port}/"
    try:
        assert Dialler(resolve=resolve).post(here, url, {}, b"{}", seconds=5).outcome == OK
    finally:
        over.set()
        server.close()


def test_who_shares_the_address_of_this_server_is_called_where_that_is_named() -> None:
    """Behind the same proxy; the server itself is refused by its name all the same."""
    server = Server(answering(ANSWER))
    own = frozenset({"fax.example.org"})
    here = Rules((ip_network("127.0.0.1/32"),), (range(1, 65536),), https_only=False, own_names=own)
    dialler = Dialler(resolve=lambda *_: ["127.0.0.1"])
    try:
        outcomes = [
            dialler.post(here, f"http://{host}:{server.port}/", {}, b"{}", seconds=5).outcome
            for host in ("hook.example.org", "fax.example.org")
        ]
    finally:
        server.close()
    assert outcomes == [OK, NOT_ALLOWED]


def test_every_address_of_this_machine_is_its_own_and_no_other() -> None:
    mine = {
        each.address
        for found in psutil.net_if_addrs().values()
        for each in found
        if each.family in (socket.AF_INET, socket.AF_INET6) and "%" not in each.address
    }

    assert mine
    assert all(is_own(ip_address(each)) for each in mine)
    assert not any(is_own(ip_address(each)) for each in set(PUBLIC) - mine)


def test_where_anything_can_be_bound_to_an_address_of_others_is_not_taken_for_an_own_one() -> None:
    """net.ipv4.ip_nonlocal_bind, as a proxy that shares an address sets it; in a network of its own."""
    asks = """
import socket
from ipaddress import ip_address
from pathlib import Path

from faxbot.destinations import is_own

Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.bind(("1.1.1.1", 0))
print(is_own(ip_address("1.1.1.1")))
"""
    apart = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives nobody a network of his own (unshare)")
    ended = subprocess.run(
        [*apart, sys.executable, "-c", asks], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"


def test_a_network_that_is_denied_is_not_called_whatever_else_is_said(connects: list[Any]) -> None:
    denied = {"FAXBOT_WEBHOOK_DENY": "1.1.1.0/24, 2606:4700::/32,127.0.0.1"}
    config = Config.load({"FAXBOT_WEBHOOK_NETWORKS": "127.0.0.0/8", **denied})
    for address in ("1.1.1.1", "2606:4700::1", "127.0.0.1"):
        found = [address]
        assert (
            called("http://x.example.org/", resolve=lambda *_: found, rules=config.destinations)  # noqa: B023 - at once
            == NOT_ALLOWED
        )
    assert connects == []
    config.destinations.judge("1.1.2.1", 443)
    with pytest.raises(NotAllowed, match="FAXBOT_WEBHOOK_DENY"):
        config.destinations.read("http://1.1.1.1/")
    with pytest.raises(ConfigError, match="FAXBOT_WEBHOOK_DENY must be"):
        Config.load({"FAXBOT_WEBHOOK_DENY": "everything"})


def test_a_network_that_is_named_may_be_called_and_its_neighbour_not(connects: list[Any]) -> None:
    server = Server(answering(ANSWER))
    ports = (range(server.port, server.port + 1),)
    rules = Rules((ip_network("127.0.0.1/32"),), ports, https_only=False)
    try:
        assert called(f"http://127.0.0.1:{server.port}/", rules=rules) == OK
        assert called(f"http://localhost:{server.port}/", rules=rules, resolve=here_twice) == OK
        for elsewhere in (f"http://127.0.0.2:{server.port}/", f"http://[::1]:{server.port}/"):
            assert called(elsewhere, rules=rules) == NOT_ALLOWED
        # Only as it is written: what wraps it is something else.
        assert called(f"http://[::ffff:127.0.0.1]:{server.port}/", rules=rules) == NOT_ALLOWED
        assert called("http://127.0.0.1:9/", rules=rules) == NOT_ALLOWED
    finally:
        server.close()

    assert set(connects) == {("127.0.0.1", server.port)}


def here_twice(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1", "127.0.0.1"]


def test_production_takes_https_alone_and_whoever_runs_it_says_which_ports() -> None:
    key = {"CONFIG_MASTER_KEY": "A" * 43 + "=", "PUBLIC_API_URL": "https://fax.example.org"}
    config = Config.load(
        {"FAXBOT_ENV": "production", "FAXBOT_WEBHOOK_PORTS": "443, 9000-9002", **key}
    )
    rules = config.destinations
    for port in ("", ":443", ":9000", ":9002"):
        assert rules.read(f"https://hook.example.org{port}/x?y=1").target == "/x?y=1"
    for url in ("http://hook.example.org/", "https://hook.example.org:8443/", "https://h.org:9003",
                "https://fax.example.org/"):  # fmt: skip
        with pytest.raises(NotAllowed):
            rules.read(url)
    assert Config.load({}).destinations.read("http://hook.example.org:8080?a=b").target == "/?a=b"


@pytest.mark.parametrize("ports", ["x", "0", "65536", "9-8", "80,,x", "80-", " ", "1-2-3"])
def test_a_list_of_ports_that_is_none_is_refused_by_its_name(ports: str) -> None:
    with pytest.raises(ConfigError, match="FAXBOT_WEBHOOK_PORTS must be ports"):
        Config.load({"FAXBOT_WEBHOOK_PORTS": ports})


def test_what_follows_the_host_is_not_shown() -> None:
    assert shown("https://hook.example.org") == "https://hook.example.org/"
    assert shown("https://hook.example.org/") == "https://hook.example.org/"
    assert shown("https://hook.example.org/s3cret") == "https://hook.example.org/…"
    assert shown("http://hook.example.org:443?t=s3cret") == "http://hook.example.org:443/…"
    assert shown("https://[2606:4700::1]/") == "https://[2606:4700::1]/"
