"""What core relies on, as tests that a provider's author inherits.

    class TestAcme(ProviderContract):
        plugin = AcmeProvider
        refused_number = "+15550109999"

        def settings(self, url):
            return {"baseUrl": url, "secret": "a long test secret"}

        @pytest.fixture
        def carrier(self):
            with StandIn(...) as carrier:
                yield carrier.url

Whatever a provider can do by its manifest is tried. For what a carrier does on its worst days (gone, gone after it read
the fax, nonsense) the contract brings servers of its own, to which `settings` must lead.
"""

from __future__ import annotations

import gc
import hashlib
import pickle
import secrets
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import (
    NotSent,
    OutcomeUnknown,
    ProviderError,
    Throttled,
)
from faxbot.events import CAUSES
from faxbot.hidden import Hidden
from faxbot.outcomes import is_name
from faxbot.plugins.base import (
    Arrival,
    CallbackRequest,
    Health,
    OutboundFax,
    Receipt,
    State,
    TransportPlugin,
    Update,
)
from faxbot.plugins.manifest import Manifest
from faxbot.plugins.offline import offline
from faxbot.plugins.starting import check_class
from faxbot.testing import callbacks
from faxbot.testing.ground import Connect, Ground
from faxbot.testing.recorded import Recorded, recorded_in
from faxbot.testing.standin import Answer, Asked, StandIn, dead_url, hangs_up

NONSENSE: dict[str, Answer] = {
    "a page": Answer(200, b"<html><body>Welcome</body></html>"),
    "nothing": Answer(200),
    "no text": Answer(200, b"\xff\xfe\x00"),
    "null": Answer(200, None),
    "a list": Answer(200, []),
    "an empty object": Answer(200, {}),
    "a number": Answer(200, 7),
    "wrong kinds": Answer(200, {"id": {}, "data": [], "fax": 1, "faxes": "x", "success": None}),
    "depth": Answer(200, b"[" * 100_000),
    "another status": Answer(204),
    "a redirect": Answer(302, headers={"Location": "/elsewhere"}),
    "fault": Answer(500, b"There was an error"),
    "bad gateway": Answer(502, b"<html>"),
    "unavailable": Answer(503),
    "late": Answer(504),
    "timed out": Answer(408),
}
"""Answers that leave it open whether the carrier has the fax."""
REFUSALS = (401, 402, 403, 413, 422, 429)
"""Statuses that prove that it has not."""
THREADS = 8
LARGE = 4 * 1024 * 1024
"""Bytes of a callback that shows whether it is read in pieces."""
ENOUGH_MEMORY = 2 * 1024 * 1024
"""Bytes for the pieces."""
_DOCUMENTS = (b"%PDF", b"II*\0", b"MM\0*")


class ProviderContract(Ground):
    """Inherit it, and write what `Ground` asks for."""

    # What it is -------------------------------------------------------------------------------

    def test_its_class_is_what_its_manifest_promises(self, manifest: Manifest) -> None:
        assert manifest.type == "transport", "its type is another than transport"
        assert manifest.has("send_fax"), "its manifest lacks the trait send_fax"
        check_class(self.plugin, manifest, self.plugin.__name__)
        asked = {each for trait in _PROMISES if manifest.has(trait) for each in _PROMISES[trait]}
        idle = [
            f"{method}() (trait {trait})"
            for trait, methods in _PROMISES.items()
            for method in methods
            if method not in asked
            and getattr(self.plugin, method) is not getattr(TransportPlugin, method)
        ]
        assert not idle, f"core never calls {', '.join(idle)}: the manifest lacks the trait"

    def test_it_starts_without_the_network(self, manifest: Manifest, folder: Path) -> None:
        config, context = self.prepared(manifest, dead_url(), None, {})
        with offline(folder) as used:
            provider = self.plugin()
            provider.initialize(config, context)
        provider.shutdown()
        context.http.close()
        assert used == [], f"initialize() uses the network ({used})"

    def test_health_is_good_at_its_carrier(
        self, provider: TransportPlugin, manifest: Manifest
    ) -> None:
        health = self._health(provider, manifest)
        assert health.ok, f"health() is not ok at the carrier: {health.detail}"

    @pytest.mark.parametrize("how", ["away", "gone after the question", "401"])
    def test_health_says_in_a_sentence_that_the_carrier_is_not_fit(
        self, connect: Connect, manifest: Manifest, how: str
    ) -> None:
        with _odd_carrier(how) as url:
            health = self._health(connect(url), manifest)
        assert not health.ok, "health() is ok all the same"
        assert " " in health.detail, "health() gives no sentence that tells what is wrong"

    @pytest.mark.parametrize("answer", NONSENSE)
    def test_health_raises_nothing_whatever_is_answered(
        self, connect: Connect, manifest: Manifest, answer: str
    ) -> None:
        with StandIn(lambda _: NONSENSE[answer]) as odd:
            self._health(connect(odd.url), manifest)

    # Sending ----------------------------------------------------------------------------------

    def test_a_fax_that_is_taken_has_a_name(
        self, provider: TransportPlugin, fax: OutboundFax
    ) -> None:
        before = hashlib.sha256(fax.document.read_bytes()).digest()
        receipt = provider.send(fax)
        assert isinstance(receipt, Receipt), "send() gives no Receipt"
        assert is_name(receipt.external_id), "external_id has not 1 to 255 printable characters"
        assert hashlib.sha256(fax.document.read_bytes()).digest() == before, (
            "send() changed the document"
        )

    def test_a_refused_fax_was_not_sent(
        self, connect: Connect, refusing_carrier: str, fax: OutboundFax, manifest: Manifest
    ) -> None:
        refused = replace(fax, to=Hidden(self.refused_number or self.number))
        provider = connect(refusing_carrier)
        error = self._raises(manifest, NotSent, lambda: provider.send(refused))
        assert error.cause in CAUSES, "its cause is not canonical (faxbot.events.CAUSES)"

    def test_a_carrier_that_is_away_was_sent_nothing(
        self, connect: Connect, fax: OutboundFax, manifest: Manifest
    ) -> None:
        provider = connect(dead_url())
        self._raises(manifest, NotSent, lambda: provider.send(fax))

    def test_a_carrier_that_vanishes_after_reading_may_have_the_fax_and_is_not_called_again(
        self, connect: Connect, fax: OutboundFax, manifest: Manifest
    ) -> None:
        with StandIn(hangs_up) as carrier:
            provider = connect(carrier.url)
            self._raises(manifest, OutcomeUnknown, lambda: provider.send(fax))
        assert len(carrier.asked) == 1, "send() tried again by itself: that may be a second fax"

    @pytest.mark.parametrize("answer", NONSENSE)
    def test_an_answer_that_proves_nothing_leaves_the_outcome_open(
        self, connect: Connect, fax: OutboundFax, manifest: Manifest, answer: str
    ) -> None:
        with StandIn(lambda _: NONSENSE[answer]) as carrier:
            provider = connect(carrier.url)
            self._raises(manifest, OutcomeUnknown, lambda: provider.send(fax))

    @pytest.mark.parametrize("status", REFUSALS)
    def test_a_status_that_refuses_proves_that_nothing_was_sent(
        self, connect: Connect, fax: OutboundFax, manifest: Manifest, status: int
    ) -> None:
        with StandIn(lambda _: Answer(status, headers={"Retry-After": "7"})) as carrier:
            provider = connect(carrier.url)
            error = self._raises(manifest, NotSent, lambda: provider.send(fax))
        assert error.cause in CAUSES, "its cause is not canonical (faxbot.events.CAUSES)"
        if status == 429:
            assert isinstance(error, Throttled), "429 is Throttled"
            assert error.retry_after == 7.0, "it does not wait as long as Retry-After asks"

    def test_several_threads_send_at_once(
        self, provider: TransportPlugin, fax: OutboundFax
    ) -> None:
        def send(number: int) -> Receipt:
            return provider.send(replace(fax, tag=f"{fax.tag[:-2]}{number:02}"))

        with ThreadPoolExecutor(THREADS) as threads:
            receipts = list(threads.map(send, range(THREADS)))
        names = [receipt.external_id for receipt in receipts]
        assert all(map(is_name, names)), "a receipt has no name"
        assert len(set(names)) == THREADS, "a thread was given another one's receipt"

    def test_nothing_is_pickled(
        self, provider: TransportPlugin, fax: OutboundFax, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("it pickles: what is loaded again can run anything")

        for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
            monkeypatch.setattr(pickle, name, refuse)
        provider.send(fax)

    # Asking -----------------------------------------------------------------------------------

    def test_what_was_taken_is_found_by_its_tag_and_by_its_id(
        self, provider: TransportPlugin, fax: OutboundFax, manifest: Manifest
    ) -> None:
        receipt = provider.send(fax)
        if manifest.has("status_lookup"):
            by_tag = _sound(self._look_up(provider, fax.tag))
            assert by_tag.state is not State.ABSENT, "look_up() does not find what was taken"
            assert by_tag.external_id == receipt.external_id, "look_up() found another fax"
            by_id = _sound(provider.fetch(receipt.external_id))
            assert by_id.state is not State.ABSENT, "fetch() does not find what was taken"
            assert by_id.external_id == receipt.external_id, "fetch() found another fax"

    def test_what_the_carrier_never_had_is_absent(
        self, provider: TransportPlugin, fax: OutboundFax, manifest: Manifest
    ) -> None:
        provider.send(fax)
        if manifest.has("status_lookup"):
            unknown = f"fb{secrets.token_hex(16)}"
            update = _sound(self._look_up(provider, unknown))
            assert update.state is State.ABSENT, "look_up() finds a tag that was never sent"
            assert update.tag == unknown, "an ABSENT says by its tag what is absent"

    @pytest.mark.parametrize("how", ["away", "gone after the question", "401", *NONSENSE])
    def test_a_question_without_a_sound_answer_is_an_error_and_never_absence(
        self, connect: Connect, manifest: Manifest, how: str, tag: str
    ) -> None:
        with _odd_carrier(how) as url:
            provider = connect(url)
            if manifest.has("status_lookup"):
                self._raises(manifest, ProviderError, lambda: self._look_up(provider, tag))
                self._raises(manifest, ProviderError, lambda: provider.fetch("7"))
            for method in ("cancel", "delete_copy"):
                if any(method in _PROMISES[trait] for trait in _PROMISES if manifest.has(trait)):
                    with suppress(ProviderError):
                        getattr(provider, method)("7")
            if manifest.has("gives_document"):
                self._raises(manifest, ProviderError, lambda: provider.document("7", BytesIO()))

    def test_a_fax_can_be_cancelled_or_it_is_refused(
        self, provider: TransportPlugin, fax: OutboundFax, manifest: Manifest
    ) -> None:
        receipt = provider.send(fax)
        if manifest.has("cancel"):
            with suppress(NotSent):  # it may be too late
                provider.cancel(receipt.external_id)

    def test_the_carriers_copy_is_deleted_and_one_that_is_gone_is_no_error(
        self, provider: TransportPlugin, fax: OutboundFax, manifest: Manifest
    ) -> None:
        receipt = provider.send(fax)
        if manifest.has("deletes_copy"):
            provider.delete_copy(receipt.external_id)
            provider.delete_copy(receipt.external_id)

    def test_the_carriers_copy_is_a_pdf_and_none_is_no_document(
        self, provider: TransportPlugin, fax: OutboundFax, manifest: Manifest
    ) -> None:
        if not manifest.has("gives_document"):
            return
        receipt, copy = provider.send(fax), BytesIO()
        provider.document(receipt.external_id, copy)
        assert copy.getvalue().startswith(b"%PDF-"), "document() gives something else than a PDF"
        self._raises(manifest, ProviderError, lambda: provider.document("404404404", BytesIO()))

    # Callbacks --------------------------------------------------------------------------------

    def test_there_are_recorded_callbacks(
        self, manifest: Manifest, folder: Path, recorded: list[Recorded]
    ) -> None:
        if manifest.has("status_callback"):
            assert recorded, "record some callbacks in sample_payloads/, or write `recorded`"
        if manifest.has("sample_payload"):
            assert recorded_in(folder / "sample_payloads"), "sample_payloads/ holds none"

    def test_a_genuine_callback_is_admitted_and_read(
        self, connect: Connect, manifest: Manifest, carrier: str, recorded: list[Recorded]
    ) -> None:
        for each in recorded:
            provider = connect(carrier, at=each.at, **each.settings)
            assert provider.verify_callback(each.request) is True, f"{each.name} is refused"
            if manifest.has("proof_in_headers"):
                head = replace(each.request, body=b"", file=None)
                assert provider.verify_callback(head) is True, f"{each.name}: not by its headers"
            updates = [_sound_news(news) for news in provider.read_callback(each.request)]
            if each.updates is not None:
                read = [
                    {name: _plain(getattr(update, name)) for name in wanted}
                    for update, wanted in zip(updates, each.updates, strict=False)
                ]
                assert len(updates) == len(each.updates), f"{each.name}: not so many pieces of news"
                assert read == list(each.updates), f"{each.name}: other news"

    def test_a_forged_callback_is_refused(
        self, connect: Connect, manifest: Manifest, recorded: list[Recorded]
    ) -> None:
        for each in recorded:
            provider = connect(dead_url(), at=each.at, **each.settings)
            for how, forged in callbacks.forgeries(manifest, each.request):
                assert provider.verify_callback(forged) is False, f"{each.name}, {how}: admitted"

    def test_a_callback_of_another_account_is_refused(
        self, connect: Connect, manifest: Manifest, recorded: list[Recorded]
    ) -> None:
        for each in recorded:
            known = {**self.settings(dead_url()), **each.settings}
            stranger = connect(dead_url(), at=each.at, **callbacks.other_secrets(manifest, known))
            assert stranger.verify_callback(each.request) is False, f"{each.name} is admitted"

    def test_no_request_makes_a_callback_raise_anything_else(
        self, connect: Connect, carrier: str, recorded: list[Recorded]
    ) -> None:
        provider = connect(carrier)
        for request in callbacks.odd_requests([each.request for each in recorded]):
            with _no_collection():
                assert isinstance(provider.verify_callback(request), bool), "no bool"
                with suppress(ProviderError):
                    assert all(map(_sound_news, provider.read_callback(request)))

    # Received faxes -----------------------------------------------------------------------------

    def test_there_are_received_faxes_to_try_it_with(
        self, manifest: Manifest, received: list[Recorded]
    ) -> None:
        if manifest.has("inbound_supported") and manifest.has("status_callback"):
            assert received, "record callbacks about received faxes, too (trait inbound_supported)"

    def test_a_received_fax_is_read_the_same_every_time_also_from_a_file(
        self, connect: Connect, carrier: str, received: list[Recorded], tmp_path: Path
    ) -> None:
        for each in received:
            provider = connect(carrier, at=each.at, **each.settings)
            arrivals = _arrivals(provider, each.request)
            assert _arrivals(provider, each.request) == arrivals, f"{each.name}: another Arrival"
            filed = _in_a_file(each.request, tmp_path / "body")
            assert provider.verify_callback(filed) is True, f"{each.name} is refused from a file"
            assert _arrivals(provider, filed) == arrivals, f"{each.name}: another one from a file"

    def test_a_received_fax_has_its_document_or_a_cause(
        self, connect: Connect, manifest: Manifest, carrier: str, received: list[Recorded]
    ) -> None:
        for each in received:
            provider = connect(carrier, at=each.at, **each.settings)
            for _ in range(2):
                provider.claim(each.request)
            for arrival in _arrivals(provider, each.request):
                if arrival.cause is not None:
                    assert not arrival.attached, f"{each.name}: a fax that failed has no document"
                    continue
                assert arrival.attached or manifest.has("gives_document"), (
                    f"{each.name}: nobody has its document"
                )
                target = BytesIO()
                if arrival.attached:
                    provider.attached(each.request, target)
                else:
                    provider.document(arrival.external_id, target)
                had = target.getvalue()
                assert had[:4] in _DOCUMENTS, f"{each.name}: the document is no PDF and no TIFF"
                assert each.document in (None, had), f"{each.name}: the document has other bytes"

    def test_a_large_callback_passes_in_little_memory(
        self, connect: Connect, carrier: str, received: list[Recorded], tmp_path: Path
    ) -> None:
        large = [each for each in received if len(each.request.body) > LARGE]
        for each in received:
            provider = connect(carrier, at=each.at, **each.settings)
            attached = any(arrival.attached for arrival in _arrivals(provider, each.request))
            assert large or not attached, f"make `received` hold one of more than {LARGE} bytes"
        for each in large:
            provider = connect(carrier, at=each.at, **each.settings)
            filed = _in_a_file(each.request, tmp_path / "body")
            with (tmp_path / "document").open("wb") as target, _little_memory(each.name):
                provider.verify_callback(filed)
                provider.read_callback(filed)
                provider.attached(filed, target)

    # ------------------------------------------------------------------------------------------

    def _look_up(self, provider: TransportPlugin, tag: str) -> Update:
        since = datetime.now(UTC) - timedelta(minutes=1)
        return provider.look_up(tag, to=Hidden(self.number), since=since)

    def _health(self, provider: TransportPlugin, manifest: Manifest) -> Health:
        health = provider.health()
        assert isinstance(health, Health), "health() gives no Health"
        assert isinstance(health.ok, bool), "Health.ok is no bool"
        assert health.detail.isprintable(), "Health.detail is more than a sentence"
        self.assert_nothing_private(manifest, health.detail, "detail of health()")
        return health

    def _raises(
        self, manifest: Manifest, kind: type[ProviderError], deed: Callable[[], object]
    ) -> ProviderError:
        """What `deed` raises; fails where that is another kind, or says too much."""
        try:
            given = deed()
        except kind as error:
            self.assert_nothing_private(manifest, f"{error} {error.detail}", "error's text")
            return error
        except ProviderError as error:
            raise AssertionError(f"{type(error).__name__} instead of {kind.__name__}") from error
        raise AssertionError(f"no {kind.__name__}: it gave {type(given).__name__} {given}")


_PROMISES: dict[str, tuple[str, ...]] = {
    "status_callback": ("verify_callback", "read_callback"),
    "status_lookup": ("look_up", "fetch"),
    "cancel": ("cancel",),
    "gives_document": ("document",),
    "inbound_supported": ("attached",),
    "keeps_documents": ("claim", "taken"),
    "deletes_copy": ("delete_copy",),
    "listens": ("listen", "read_callback"),
}


@contextmanager
def _no_collection() -> Iterator[None]:
    """What comes due where a deeply nested document has used up the stack cannot be finalized there (Python 3.11), and
    pytest takes that for a fault of the test."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _odd_carrier(how: str) -> Iterator[str]:
    """The address of a carrier on a bad day: "away", "gone after the question", "401", or one of NONSENSE."""
    if how == "away":
        yield dead_url()
        return

    def behave(_: Asked) -> Answer | None:
        if how == "gone after the question":
            return None
        return Answer(401) if how == "401" else NONSENSE[how]

    with StandIn(behave) as carrier:
        yield carrier.url


def _sound(update: object) -> Update:
    """News about a fax of ours, fit for the ledger; AssertionError says what is wrong with it."""
    assert isinstance(update, Update), "it is no Update"
    assert isinstance(update.state, State), "its state is no State"
    names = [name for name in (update.tag, update.external_id) if name is not None]
    assert names, "neither tag nor external_id says which fax it is about"
    assert all(map(is_name, names)), "a name has not 1 to 255 printable characters"
    if update.state is State.FAILED:
        assert update.cause in CAUSES, "its cause is not canonical (faxbot.events.CAUSES)"
    pages, moment = update.pages_sent, update.occurred_at
    assert pages is None or (type(pages) is int and pages >= 0), "pages_sent is no count"
    assert moment is None or moment.tzinfo is not None, "occurred_at has no zone"
    return update


def _sound_news(news: object) -> Update | Arrival:
    return _sound_arrival(news) if isinstance(news, Arrival) else _sound(news)


def _sound_arrival(arrival: Arrival) -> Arrival:
    """A received fax fit for the ledger; AssertionError says what is wrong with it."""
    assert is_name(arrival.external_id), "its name has not 1 to 255 printable characters"
    assert arrival.cause is None or arrival.cause in CAUSES, "its cause is not canonical"
    pages, moment = arrival.pages, arrival.received_at
    assert pages is None or (type(pages) is int and pages >= 0), "pages is no count"
    assert moment is None or moment.tzinfo is not None, "received_at has no zone"
    for number in (arrival.sender, arrival.recipient):
        assert isinstance(number, Hidden), "a number is not Hidden"
        assert not number.reveal() or number.reveal() not in repr(arrival), "its repr has a number"
    return arrival


def _arrivals(provider: TransportPlugin, request: CallbackRequest) -> list[Arrival]:
    news = [_sound_news(each) for each in provider.read_callback(request)]
    return [each for each in news if isinstance(each, Arrival)]


def _in_a_file(request: CallbackRequest, path: Path) -> CallbackRequest:
    """The same as core hands on what is large."""
    path.write_bytes(request.body)
    return replace(request, body=b"", file=path)


@contextmanager
def _little_memory(name: str) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ENOUGH_MEMORY, f"{name} is held in memory: read request.chunks()"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, State) else value
