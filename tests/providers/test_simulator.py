"""The simulator's client against the real carrier process."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from faxbot.carriers.simulator import OUTCOMES
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.events import CAUSES as CANONICAL
from faxbot.hidden import Hidden
from faxbot.plugins.base import State, Update
from faxbot.providers.simulator import CAUSES, SimulatorProvider
from tests.callbacks import Receiver, updates_in
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.providers.conftest import PAGES, Connect, MakeFax, look_up

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("carrier"), late_seconds=2) as process:
        yield process


@pytest.fixture(scope="module")
def slow_carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """A carrier on which a page takes a moment, so that progress can be seen and a fax be stopped."""
    with SimulatorProcess(tmp_path_factory.mktemp("slow"), page_seconds=0.4) as process:
        yield process


@pytest.fixture
def provider(connect: Connect, carrier: SimulatorProcess) -> SimulatorProvider:
    return connect(carrier.url)


def final(provider: SimulatorProvider, external_id: str) -> Update:
    """What the carrier says of a fax once it has ended."""

    def ended() -> Update | None:
        update = provider.fetch(external_id)
        return update if update.state in (State.DELIVERED, State.FAILED) else None

    update = eventually(ended)
    assert update is not None
    return update


def test_a_fax_is_taken_sent_and_called_back(
    provider: SimulatorProvider,
    fax: MakeFax,
    tag: str,
    carrier: SimulatorProcess,
    receiver: Receiver,
    document: Path,
) -> None:
    receipt = provider.send(fax("0000"))
    (callback,) = eventually(lambda: receiver.of(tag))
    assert provider.verify_callback(callback.request)
    (update,) = updates_in(provider, callback.request)
    assert (update.state, update.tag, update.external_id) == (
        State.DELIVERED,
        tag,
        receipt.external_id,
    )
    assert (update.pages_sent, update.cause) == (PAGES, None)
    assert update.occurred_at is not None
    assert abs(update.occurred_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert callback.request.url.endswith("?locator=abc")
    (entry,) = carrier.faxes(tag)
    assert entry["sha256"] == hashlib.sha256(document.read_bytes()).hexdigest()
    assert (entry["bytes"], entry["pages"], entry["submissions"]) == (
        document.stat().st_size,
        PAGES,
        1,
    )


def test_news_has_one_name_whether_it_is_called_back_or_asked_for(
    provider: SimulatorProvider, fax: MakeFax, tag: str, receiver: Receiver
) -> None:
    receipt = provider.send(fax("0022"))
    twice = eventually(lambda: called if len(called := receiver.of(tag)) == 2 else None)
    assert twice is not None
    called_back = [updates_in(provider, each.request)[0] for each in twice]
    asked_for = [provider.fetch(receipt.external_id), look_up(provider, tag)]
    assert len({update.key for update in [*called_back, *asked_for]}) == 1


LINE = {
    "0003": "no_route",
    "0013": "no_fax_tone",
    "0017": "busy",
    "0018": "no_answer",
    "0020": "unreachable",
    "0021": "rejected",
    "0027": "trunk_down",
    "0031": "dropped_early",
    "0034": "congestion",
    "0038": "network_error",
    "0054": "doc_fetch_failed",
    "0058": "bearer",
    "0088": "handshake_failed",
    "0075": "cancelled",
    "0076": "expired",
    "0102": "session_timeout",
    "0323": "doc_empty",
    "0326": "config",
    "0404": "number_dead",
    "0407": "remote_refused",
    "0409": "page_failed",
    "0415": "incompatible_image",
    "0438": "t38_failed",
    "0998": "system",
    "0999": "unknown",
}


@pytest.mark.parametrize("last_digits", LINE)
def test_a_failure_on_the_line_has_its_canonical_cause(
    provider: SimulatorProvider, fax: MakeFax, receiver: Receiver, tag: str, last_digits: str
) -> None:
    receipt = provider.send(fax(last_digits))
    update = final(provider, receipt.external_id)
    assert (update.state, update.cause) == (State.FAILED, LINE[last_digits])
    assert update.pages_sent == (1 if last_digits == "0409" else 0)
    (callback,) = eventually(lambda: receiver.of(tag))
    assert provider.read_callback(callback.request) == [update]


def test_a_number_fails_the_same_way_each_time(provider: SimulatorProvider, fax: MakeFax) -> None:
    receipts = [provider.send(fax("0017")) for _ in range(3)]
    assert {final(provider, receipt.external_id).cause for receipt in receipts} == {"busy"}


REFUSED = {
    "0400": (Refused, "number_invalid"),
    "0401": (AccountRefused, "trunk_denied"),
    "0402": (AccountRefused, "funds"),
    "0403": (DestinationBarred, "trunk_denied"),
    "0413": (Refused, "doc_too_large"),
    "0422": (Refused, "doc_unreadable"),
    "0429": (Throttled, "congestion"),
    "0430": (Throttled, "congestion"),
    "0433": (Refused, "policy"),
    "0500": (OutcomeUnknown, "unconfirmed"),
    "0503": (OutcomeUnknown, "unconfirmed"),
}


@pytest.mark.parametrize("last_digits", REFUSED)
def test_a_refused_submission_is_the_right_error_and_nothing_was_taken(
    provider: SimulatorProvider, fax: MakeFax, carrier: SimulatorProcess, tag: str, last_digits: str
) -> None:
    kind, cause = REFUSED[last_digits]
    with pytest.raises(ProviderError) as refused:
        provider.send(fax(last_digits))
    assert (type(refused.value), refused.value.cause) == (kind, cause)
    assert look_up(provider, tag) == Update(State.ABSENT, tag=tag)
    assert carrier.faxes(tag) == []


@pytest.mark.parametrize("last_digits", ["0501", "0504", "0509"])
def test_a_fax_whose_reply_is_lost_was_taken_once_and_is_found_by_its_tag(
    provider: SimulatorProvider,
    fax: MakeFax,
    carrier: SimulatorProcess,
    receiver: Receiver,
    tag: str,
    last_digits: str,
) -> None:
    with pytest.raises(OutcomeUnknown):
        provider.send(fax(last_digits))
    found = look_up(provider, tag)
    assert found.external_id is not None
    assert final(provider, found.external_id).state is State.DELIVERED
    eventually(lambda: receiver.events(tag) == ["fax.delivered"])
    (entry,) = carrier.faxes(tag)
    assert entry["submissions"] == 1


@pytest.mark.parametrize(("last_digits", "wait"), [("0429", 2.0), ("0430", None)])
def test_throttling_may_name_its_wait_and_ends_after_it(
    provider: SimulatorProvider, fax: MakeFax, last_digits: str, wait: float | None
) -> None:
    attempt = replace(fax(last_digits), to=Hidden(f"+1555011{last_digits}"))
    waits: list[float | None] = []

    def taken() -> bool:
        try:
            provider.send(attempt)
        except Throttled as throttled:
            waits.append(throttled.retry_after)
            return False
        return True

    assert not taken()
    eventually(taken)
    assert set(waits) == {wait}


def test_what_is_called_delivered_may_lack_a_page(
    provider: SimulatorProvider, fax: MakeFax
) -> None:
    update = final(provider, provider.send(fax("0048")).external_id)

    assert (update.state, update.pages_sent) == (State.DELIVERED, PAGES - 1)


def test_a_look_up_may_find_a_fax_late(
    provider: SimulatorProvider, fax: MakeFax, carrier: SimulatorProcess, tag: str
) -> None:
    with pytest.raises(OutcomeUnknown):
        provider.send(fax("0505"))
    assert look_up(provider, tag).state is State.ABSENT
    assert len(carrier.faxes(tag)) == 1, "it has it all the same"

    eventually(lambda: look_up(provider, tag).state is State.DELIVERED)


def test_a_fax_may_be_found_by_its_tag_alone(
    provider: SimulatorProvider, fax: MakeFax, receiver: Receiver, tag: str
) -> None:
    """Neither an answer nor a callback tells of it."""
    with pytest.raises(OutcomeUnknown):
        provider.send(fax("0510"))

    assert look_up(provider, tag).state is State.DELIVERED
    assert receiver.events(tag) == []


def test_a_carrier_that_does_not_answer_may_have_taken_nothing(
    provider: SimulatorProvider, fax: MakeFax, carrier: SimulatorProcess, tag: str
) -> None:
    with pytest.raises(OutcomeUnknown):
        provider.send(fax("0508"))

    assert look_up(provider, tag).state is State.ABSENT
    assert carrier.faxes(tag) == []


def test_two_submissions_under_one_tag_are_counted(
    provider: SimulatorProvider, fax: MakeFax, carrier: SimulatorProcess, tag: str
) -> None:
    first = provider.send(fax("0000"))
    provider.send(fax("0000"))
    assert [entry["submissions"] for entry in carrier.faxes(tag)] == [2, 2]
    assert carrier.counts()["tags_accepted_twice"] >= 1
    assert look_up(provider, tag).external_id == first.external_id


# callbacks


def test_progress_is_called_back_page_by_page(
    connect: Connect, slow_carrier: SimulatorProcess, fax: MakeFax, receiver: Receiver, tag: str
) -> None:
    provider = connect(slow_carrier.url)
    provider.send(fax("0000"))
    eventually(lambda: "fax.delivered" in receiver.events(tag))
    updates = [updates_in(provider, each.request)[0] for each in receiver.of(tag)]
    assert [(update.state, update.pages_sent) for update in updates] == [
        (State.PROGRESS, 1),
        (State.PROGRESS, 2),
        (State.DELIVERED, 3),
    ]


def test_a_fax_that_fails_at_page_two_shows_one_page(
    connect: Connect, slow_carrier: SimulatorProcess, fax: MakeFax, receiver: Receiver, tag: str
) -> None:
    provider = connect(slow_carrier.url)
    provider.send(fax("0409"))
    eventually(lambda: "fax.failed" in receiver.events(tag))
    updates = [updates_in(provider, each.request)[0] for each in receiver.of(tag)]
    assert [(update.state, update.pages_sent, update.cause) for update in updates] == [
        (State.PROGRESS, 1, None),
        (State.FAILED, 1, "page_failed"),
    ]


def test_the_last_callback_can_come_first(
    provider: SimulatorProvider, fax: MakeFax, receiver: Receiver, tag: str
) -> None:
    provider.send(fax("0066"))
    eventually(lambda: len(receiver.of(tag)) == 2)
    assert receiver.events(tag) == ["fax.delivered", "fax.progress"]
    assert updates_in(provider, receiver.of(tag)[1].request)[0].state is State.PROGRESS


def test_a_late_callback_comes_after_the_fax_has_long_ended(
    provider: SimulatorProvider, fax: MakeFax, receiver: Receiver, tag: str
) -> None:
    receipt = provider.send(fax("0033"))
    assert final(provider, receipt.external_id).state is State.DELIVERED
    assert receiver.of(tag) == []
    eventually(lambda: receiver.events(tag) == ["fax.delivered"])


def test_a_fax_without_callbacks_is_known_by_asking(
    provider: SimulatorProvider,
    fax: MakeFax,
    carrier: SimulatorProcess,
    receiver: Receiver,
    tag: str,
) -> None:
    receipt = provider.send(fax("0044"))
    assert final(provider, receipt.external_id).state is State.DELIVERED
    eventually(lambda: carrier.faxes(tag)[0]["told"])
    assert receiver.of(tag) == []


# cancel, fetch, health


def test_a_fax_on_its_way_can_be_cancelled_and_says_so(
    connect: Connect, tmp_path: Path, fax: MakeFax, receiver: Receiver, tag: str
) -> None:
    with SimulatorProcess(tmp_path, page_seconds=60) as slow:
        provider = connect(slow.url)
        receipt = provider.send(fax("0000"))
        provider.cancel(receipt.external_id)
        update = provider.fetch(receipt.external_id)
        assert (update.state, update.cause) == (State.FAILED, "cancelled")
        eventually(lambda: receiver.events(tag) == ["fax.cancelled"])
        with pytest.raises(Refused):
            provider.cancel(receipt.external_id)


def test_an_id_that_the_carrier_does_not_know_is_absent(provider: SimulatorProvider) -> None:
    assert provider.fetch("sf_none") == Update(State.ABSENT, external_id="sf_none")
    assert provider.fetch("../ledger?tag=x").state is State.ABSENT


def test_health_tells_a_good_connection_from_a_wrong_secret_and_an_absent_carrier(
    connect: Connect, carrier: SimulatorProcess
) -> None:
    assert connect(carrier.url).health().ok
    wrong = connect(carrier.url, "another secret").health()
    assert (wrong.ok, "SIMULATOR_SECRET" in wrong.detail) == (False, True)
    away = connect("http://nobody.invalid").health()
    assert (away.ok, "SIMULATOR_BASE_URL" in away.detail) == (False, True)


def test_a_wrong_secret_refuses_the_account(
    connect: Connect, carrier: SimulatorProcess, fax: MakeFax
) -> None:
    with pytest.raises(AccountRefused):
        connect(carrier.url, "another secret").send(fax("0000"))


def test_an_absent_carrier_was_sent_nothing(connect: Connect, fax: MakeFax) -> None:
    with pytest.raises(Unreachable):
        connect("http://nobody.invalid").send(fax("0000"))


# tables


def test_every_cause_is_canonical_and_every_word_of_the_carrier_but_one_is_known() -> None:
    assert set(CAUSES.values()) <= set(CANONICAL)
    words = {outcome.code for outcome in OUTCOMES.values() if outcome.code}
    assert words - set(CAUSES) == {"gremlins", "internal", "unavailable"}


def test_every_cause_that_a_carrier_can_name_has_a_number() -> None:
    ours = {"poison", "exhausted", "unconfirmed"}  # said by faxbot: no carrier can
    named = {*LINE.values(), *(cause for _, cause in REFUSED.values())}
    assert set(CANONICAL) - ours == named - ours


def test_every_number_of_the_table_is_tried_by_a_test_here() -> None:
    others = {
        *("0000", "0022", "0033", "0044", "0048", "0066"),
        *("0501", "0504", "0505", "0508", "0509", "0510"),
    }
    assert set(OUTCOMES) == {*LINE, *REFUSED, *others}


def test_the_page_on_the_simulator_holds_the_same_table() -> None:
    page = (ROOT / "docs/simulator.md").read_text()
    rows = re.findall(
        r"^\| `(\d{4})` \| (.+?) \| `?([a-z0-9-]*)`? \| `?([a-z0-9_]*)`? \|$", page, re.MULTILINE
    )
    causes = {
        **LINE,
        **{
            digits: cause
            for digits, (_, cause) in REFUSED.items()
            if digits not in ("0500", "0503")
        },
    }
    assert [(digits, meaning, word, cause) for digits, meaning, word, cause in rows] == [
        (digits, outcome.meaning, outcome.code or "", causes.get(digits, ""))
        for digits, outcome in OUTCOMES.items()
    ]


@pytest.mark.parametrize(
    ("module", "stranger"),
    [
        ("faxbot.providers.simulator", "faxbot.carriers"),
        ("faxbot.carriers.simulator", "faxbot.providers"),
    ],
)
def test_client_and_carrier_do_not_know_each_other(module: str, stranger: str) -> None:
    program = f"import sys, {module}; sys.exit(any(name.startswith({stranger!r}) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
