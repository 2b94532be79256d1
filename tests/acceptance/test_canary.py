"""The canary: a number, a name, a file name and a text go through all that a running faxbot does, errors too, and
are then looked for wherever somebody may look who may not read faxes. First each channel shows that it would tell."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from faxbot import wiring
from faxbot.tasks.app import Bell
from tests.acceptance import roads
from tests.acceptance.house import CHANNELS, Channel, House, Window
from tests.acceptance.roads import ALL_ENDINGS, ENDINGS, HOOK
from tests.acceptance.site import SHORT, kill
from tests.canary import Monitor, Search, Watch, Wiretap, forms, number, words
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import Installation, Stores
from tests.integration.hooks import HERE, subscribe
from tests.mailserver import MailServer
from tests.phaxio_carrier import PhaxioProcess
from tests.plugins_careless.careless import SAID
from tests.providers.ami import PASSWORD, Manager
from tests.receiver import Receiver
from tests.servers import Postgres, PostgresServer, RedisServer, free_port
from tests.sinch_carrier import KEY, PROJECT, SECRET, SinchProcess

KINDS = words(ALL_ENDINGS)
TESTS = Path(__file__).parents[1]
ENDS = {
    "simulator": {"0000": "delivered", "0017": "cancelled", "0404": "failed", "0433": "failed"},
    "phaxio": {"0000": "delivered", "2034": "failed", "0504": "delivered", "0400": "failed"},
    "sinch": {"0000": "delivered", "2034": "failed", "0504": "delivered", "0400": "failed"},
    "asterisk": {"0000": "delivered", "2034": "failed", "0500": "delivered"},
    "careless": {"6001": "uncertain", "6002": "failed", "6003": "uncertain", "6004": "uncertain"},
}
"""What shows that the roads were gone."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_finds_every_word_in_every_form_wherever_it_stands(kind: str) -> None:
    search = Search(KINDS)
    for word in KINDS[kind][-8:]:
        for form, written in forms(word).items():
            for between in (b"", b"\x00x", b"to="):
                assert search.hits(between + written + b"\n" + between), (word, form)
        for shift in range(3):
            whole = base64.b64encode(b"a" * shift + word.encode() + b", and more")
            assert search.hits(b'{"body": "' + whole + b'"}'), (word, shift)
            deeper = base64.b64encode(b"[" * shift + json.dumps([word]).encode())
            assert search.hits(deeper), (word, shift)


def test_the_search_does_not_find_what_is_not_there() -> None:
    random = secrets.token_hex(100_000).encode() + base64.b64encode(secrets.token_bytes(100_000))
    assert Search({**KINDS, "number": []}).hits(random) == []
    measured = b"succeeded in 0.0032778370000414725s, 18370000 8370000414 415837001712"
    for shift in range(3):
        assert Search(KINDS).hits(measured + base64.b64encode(b"a" * shift + measured)) == []
        for other in (b'{"runtime": 0.0059370017123}', b"0.00593700167", b"0.837001"):
            assert Search(KINDS).hits(base64.b64encode(b"a" * shift + other)) == []
    at = f'1795254{number("0017")[-7:-4]}.001712 [0 127.0.0.1:1] "PING"'.encode()
    assert Search(KINDS).hits(at) == []


def test_the_careless_plugin_says_all_that_is_looked_for() -> None:
    found = {hit.partition(" (")[0] for hit in Search(KINDS).hits(SAID.encode())}
    assert found == KINDS.keys()


@pytest.fixture
def great_house(
    stores: Stores,
    postgres_server: Postgres,
    redis_server: RedisServer,
    start_service: StartService,
) -> Iterator[GreatHouse]:
    """On PostgreSQL and Redis, with every provider that there is, and a careless one; all is logged, as JSON."""
    with ExitStack() as stack:
        store = stack.enter_context(stores.postgresql(postgres_server, redis_server))
        flower = Window(store, stack)
        temporary, spool = store.folder / "tmp", store.folder / "spool"
        temporary.mkdir(mode=0o700)
        spool.mkdir()
        simulator = stack.enter_context(SimulatorProcess(store.folder))
        phaxio = stack.enter_context(PhaxioProcess(store.folder))
        sinch = stack.enter_context(SinchProcess(store.folder))
        manager = Manager(Originate=roads.quoting_manager)
        stack.callback(manager.close)
        wiretaps = {
            "phaxio": stack.enter_context(Wiretap(phaxio.url, roads.quoting("phaxio"))),
            "sinch": stack.enter_context(Wiretap(sinch.url, roads.quoting("sinch"))),
            "simulator": stack.enter_context(Wiretap(simulator.url)),
        }
        mail = stack.enter_context(MailServer())
        watch = Watch(store.folder, temporary, store.data_dir, spool)
        stack.callback(watch.close)
        settings = {
            **SHORT,
            "API_KEY": secrets.token_urlsafe(24),
            "AUDIT_LOG_ENABLED": "true",
            "FAXBOT_PORT": str(free_port()),
            "FAX_BACKENDS": ",".join(ENDINGS),
            "FAXBOT_BREAKER_REST_SECONDS": "0.2",
            "FAXBOT_PLUGIN_FAULTS": "1000",
            "FAXBOT_SWEEP_SECONDS": "1",
            "FAXBOT_DELETE_AT_CARRIER": "true",
            "PYTHONPATH": str(TESTS / "plugins_careless"),
            "TMPDIR": str(temporary),
            **simulator.environ,
            "SIMULATOR_BASE_URL": wiretaps["simulator"].url,
            **phaxio.environ,
            "PHAXIO_BASE_URL": f"{wiretaps['phaxio'].url}/v2.1",
            "PHAXIO_SEND_BY_LINK": "true",
            "SINCH_BASE_URL": f"{wiretaps['sinch'].url}/v3",
            "SINCH_AUTH_BASE_URL": wiretaps["sinch"].url,
            "SINCH_PROJECT_ID": PROJECT,
            "SINCH_API_KEY": KEY,
            "SINCH_API_SECRET": SECRET,
            "SINCH_WEBHOOK_BASIC_USER": HOOK[0],
            "SINCH_WEBHOOK_BASIC_PASS": HOOK[1],
            "ASTERISK_AMI_PORT": str(manager.port),
            "ASTERISK_AMI_PASSWORD": PASSWORD,
            "ASTERISK_DIAL": "PJSIP/{number}@trunk",
            "ASTERISK_FOLDER": str(spool),
            **HERE,
            **mail.environ,
            "EMAIL_LINK_URL": "https://fax.practice.example",
            "FAXBOT_NOTICES_PER_HOUR": "10000",
        }
        config = store.config(**settings)
        runtime = wiring.build(config, ring=Bell(config))
        stack.callback(runtime.close)
        receiver = stack.enter_context(Receiver())
        subscribe(runtime, receiver.url)
        monitor = Monitor(config.broker)
        stack.callback(monitor.close)
        roles = [
            start_service(store, role, "--log-level", "debug", **settings)
            for role in ("worker", "beat", "listen", "web")
        ]
        for role in roles:  # how they end in order is no matter here, and takes them seconds
            stack.callback(role.kill9)
        flower.wait()

        def told() -> list[str]:
            entries = [*simulator.faxes(), *phaxio.faxes(), *sinch.faxes()]
            return [each["callback_url"] for each in entries if "callback_url" in each]

        log = postgres_server.log if isinstance(postgres_server, PostgresServer) else None
        house = House(
            roles[-1],
            roles,
            runtime,
            monitor,
            watch,
            temporary,
            wiretaps,
            told,
            flower,
            receiver,
            mail,
            log,
        )
        yield GreatHouse(house, manager, spool)


@dataclass
class GreatHouse:
    house: House
    manager: Manager
    spool: Path
    """The folder that Asterisk reads."""


def test_what_is_personal_goes_everywhere_and_is_found_nowhere(great_house: GreatHouse) -> None:
    """0 hits, and then each channel is shown one leak and tells: none of them is silent because nobody looks there."""
    house, manager = great_house.house, great_house.manager
    faxes = roads.all_submitted(house, ENDINGS)
    roads.side_by_side(
        house,
        faxes,
        roads.commands,
        roads.a_command_that_all_see,
        roads.requests_that_are_refused,
        roads.callbacks_of_the_simulator,
        roads.callbacks_of_phaxio,
        roads.callbacks_of_sinch,
        roads.callbacks_of_the_careless,
        lambda house, faxes: roads.the_asterisk_answers(house, faxes, manager),
        roads.people_read_and_decide,
    )
    ends: dict[str, dict[str, str]] = {}

    def as_they_should() -> bool:
        ends.update(roads.settled(house, faxes))
        return all(ENDS[name].items() <= ends.get(name, {}).items() for name in ENDS)

    with suppress(AssertionError):
        eventually(as_they_should, 60, every=0.3)
    assert {name: {each: ends[name][each] for each in ENDS[name]} for name in ends} == ENDS
    for wiretap in ("phaxio", "sinch"):
        assert set(house.wiretaps[wiretap].answered) == roads.quoting(wiretap).keys()
    roads.nothing_works(house)

    seen = nothing_is_found(house, CHANNELS)
    fetched = house.service.request("GET", "/admin/audit?action=document.opened").json()
    assert fetched["items"], "no carrier has fetched a document"
    assert b'"action": "document.opened"' in seen["logs"], "the trail is not written on"
    only_fax_pages_lay_in_the_spool(great_house)
    every_channel_tells(house, seen, CHANNELS)


def only_fax_pages_lay_in_the_spool(great_house: GreatHouse) -> None:
    """Under the attempt's own name; and they are gone when it is known how the call has ended."""
    names = [
        each for each in great_house.house.watch.names if re.fullmatch(r"[^/]*\.(tif|part)", each)
    ]
    assert names
    assert all(re.fullmatch(r"fb[0-9a-f]{32}\.(tif|part)", each) for each in names)
    eventually(lambda: not list(great_house.spool.iterdir()), 20)


@pytest.fixture
def small_house(embedded: Installation, start_service: StartService) -> Iterator[House]:
    """On SQLite and the broker of `faxbot up`, with the simulator alone; logged as text."""
    temporary = embedded.folder / "tmp"
    temporary.mkdir(mode=0o700)
    with ExitStack() as stack:
        carrier = stack.enter_context(SimulatorProcess(embedded.folder))
        wiretap = stack.enter_context(Wiretap(carrier.url))
        watch = Watch(embedded.folder, temporary, embedded.data_dir)
        stack.callback(watch.close)
        settings = {**SHORT, **carrier.environ, "SIMULATOR_BASE_URL": wiretap.url}
        service = start_service(embedded, "up", "--verbose", **settings, TMPDIR=str(temporary))
        stack.callback(service.kill9)
        runtime = wiring.build(embedded.config())
        stack.callback(runtime.close)
        monitor = Monitor(runtime.config.broker)
        stack.callback(monitor.close)

        def told() -> list[str]:
            return [each["callback_url"] for each in carrier.faxes() if "callback_url" in each]

        yield House(
            service, [service], runtime, monitor, watch, temporary, {"simulator": wiretap}, told
        )


def test_nor_is_it_found_where_all_lies_in_one_folder_and_a_worker_dies(small_house: House) -> None:
    """The channels that are others here show again that they would tell: broker, log, database, folders."""
    house = small_house
    faxes = roads.all_submitted(house, {"simulator": ("0000", "0017", "0404", "0433", "0504")})
    roads.requests_that_are_refused(house, faxes)
    roads.callbacks_of_the_simulator(house, faxes)
    kill(house.service, "worker")
    roads.people_read_and_decide(house, faxes)
    ends = eventually(lambda: roads.settled(house, faxes), 60, every=0.3)
    assert {"delivered", "failed", "cancelled"} <= set(ends["simulator"].values())

    elsewhere = ("flower", "webhooks", "mailbox")
    there = {name: channel for name, channel in CHANNELS.items() if name not in elsewhere}
    seen = nothing_is_found(house, there)
    others = ("broker", "logs", "event stream", "database", "folders")
    every_channel_tells(house, seen, {name: CHANNELS[name] for name in others})


def nothing_is_found(house: House, channels: Mapping[str, Channel]) -> dict[str, bytes]:
    """What was seen, by channel."""
    search = Search(KINDS)
    seen = {name: channel.seen(house) for name, channel in channels.items()}
    found = {name: search.hits(each) for name, each in seen.items()}
    assert {name: hits for name, hits in found.items() if hits} == {}
    return seen


def every_channel_tells(
    house: House, seen: Mapping[str, bytes], channels: Mapping[str, Channel]
) -> None:
    # Each its own number: what was planted in one channel is no find of another.
    for n, (name, channel) in enumerate(channels.items()):
        leak = number(f"77{n:02}")[-7:]
        its_own = Search({"number": words([leak[-4:]])["number"]})
        assert not its_own.hits(seen[name]), f"{name}: it is there already"
        channel.plant(house, leak)
        # A moment later: some answers are another process's, which has not heard of it yet.
        eventually(lambda: its_own.hits(channel.seen(house)), 10, every=0.3)  # noqa: B023
