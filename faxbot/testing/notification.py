"""What core relies on, as tests that the author of a notification plugin inherits.

class TestPager(NotificationContract):
    plugin = PagerNotifier

    @pytest.fixture
    def settings(self, server):
        return {"url": server.url, "token": "a long test token"}

    @pytest.fixture
    def away(self, settings):
        return {**settings, "url": "http://127.0.0.1:9"}

    @pytest.fixture
    def arrived(self, server):
        return lambda: [message.text for message in server.messages]
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

from faxbot.db import new_id
from faxbot.errors import FaxbotError, OutcomeUnknown
from faxbot.events import Notable
from faxbot.plugins.base import Happening, Notification, NotificationPlugin
from faxbot.plugins.manifest import Manifest
from faxbot.plugins.offline import offline
from faxbot.plugins.starting import check_class
from faxbot.testing.ground import (
    SetGround,
    health_of,
    no_secret,
    prepared,
    says_enough,
)

LONGEST = 60.0
"""Seconds within which notify() ends, whatever the other end does."""
THREADS = 4
MANY = 3000


class Begin(Protocol):
    """begin(settings): a notifier that is set so."""

    def __call__(self, settings: Mapping[str, Any]) -> NotificationPlugin: ...


class NotificationContract(SetGround):
    """Inherit it, and write `plugin` and the fixtures `settings` and `arrived`; `away` and `hanging` too, where there
    is a service that can be."""

    plugin: ClassVar[type[NotificationPlugin]]

    @pytest.fixture
    def arrived(self) -> Callable[[], list[str]]:
        """arrived(): each message as it came, whole, with what is beside its text."""
        raise NotImplementedError("write the fixture `arrived`")

    @pytest.fixture
    def hanging(self) -> dict[str, Any] | None:
        """Settings with which somebody takes the connection and says nothing; None likewise."""
        return None

    # What follows is the contract's own.

    @pytest.fixture
    def notifier(self, begin: Begin, settings: dict[str, Any]) -> NotificationPlugin:
        return begin(settings)

    # What it is -------------------------------------------------------------------------------

    def test_its_class_is_what_its_manifest_promises(self, manifest: Manifest) -> None:
        assert manifest.type == "notification", "its type is another than notification"
        check_class(self.plugin, manifest, self.plugin.__name__)

    def test_what_it_tells_by_default_is_something_that_there_is(self, manifest: Manifest) -> None:
        words = manifest.properties.get("events", {}).get("default", "")
        named = {word.strip() for word in words.split(",") if word.strip()}
        assert named <= set(Notable), f"the default of `events` names {named - set(Notable)}"

    def test_it_starts_without_the_network(
        self, manifest: Manifest, folder: Path, settings: dict[str, Any]
    ) -> None:
        config, context = prepared(manifest, settings)
        with offline(folder) as used:
            notifier = self.plugin()
            notifier.initialize(config, context)
        notifier.shutdown()
        context.http.close()
        assert used == [], f"initialize() uses the network ({used})"

    # Telling ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", list(Notable))
    def test_one_notification_is_one_message_that_names_the_fax(
        self, notifier: NotificationPlugin, arrived: Callable[[], list[str]], kind: Notable
    ) -> None:
        this = notification(kind)
        assert notifier.notify(this) is True, "notify() does not say that all were told"
        (message,) = arrived()
        assert this.happenings[0].fax_id in message, "the message does not name the fax"
        assert "The line was busy." in message, "the message does not say why"

    def test_a_storm_is_one_message_that_says_how_many(
        self, notifier: NotificationPlugin, arrived: Callable[[], list[str]]
    ) -> None:
        assert notifier.notify(notification(*[Notable.FAILED] * 100, more=MANY - 100)) is True
        (message,) = arrived()
        assert str(MANY) in message, "the message does not say how many faxes it is about"

    def test_a_test_notice_arrives(
        self, notifier: NotificationPlugin, arrived: Callable[[], list[str]]
    ) -> None:
        assert notifier.notify(Notification(new_id())) is True
        (message,) = arrived()
        assert "test" in message.lower(), "the message does not say that it is a test"

    def test_what_is_told_again_can_be_known_as_a_repeat(
        self, notifier: NotificationPlugin, arrived: Callable[[], list[str]]
    ) -> None:
        this, other = notification(Notable.FAILED), notification(Notable.FAILED)
        for each in (this, this, other):
            notifier.notify(each)
        with_it = [this.id in message for message in arrived()]
        assert with_it == [True, True, False], "the message does not carry the notification's id"

    def test_several_threads_tell_at_once(
        self, notifier: NotificationPlugin, arrived: Callable[[], list[str]]
    ) -> None:
        each = [notification(Notable.RECEIVED) for _ in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as threads:
            assert all(threads.map(notifier.notify, each))
        messages = arrived()
        assert len(messages) == THREADS
        for this in each:
            assert sum(this.happenings[0].fax_id in message for message in messages) == 1

    def test_health_is_good_and_tells_nobody(
        self, notifier: NotificationPlugin, arrived: Callable[[], list[str]]
    ) -> None:
        health = health_of(notifier)
        assert health.ok, f"health() is not ok: {health.detail}"
        assert arrived() == [], "health() tells people something"

    # When it is away --------------------------------------------------------------------------

    def test_who_is_away_was_surely_told_nothing(
        self, begin: Begin, away: dict[str, Any] | None, manifest: Manifest
    ) -> None:
        if away is None:
            return
        with pytest.raises(FaxbotError) as raised:
            begin(away).notify(notification(Notable.HELD))
        assert not isinstance(raised.value, OutcomeUnknown), "nobody was there: nothing was taken"
        says_enough(raised.value)
        no_secret(manifest, away, str(raised.value), "error's text")

    def test_health_says_in_a_sentence_that_it_is_away(
        self, begin: Begin, away: dict[str, Any] | None, manifest: Manifest
    ) -> None:
        if away is None:
            return
        health = health_of(begin(away))
        assert not health.ok, "health() is ok all the same"
        assert " " in health.detail, "health() gives no sentence that tells what is wrong"
        no_secret(manifest, away, health.detail, "detail of health()")

    def test_who_says_nothing_is_given_up_within_a_minute(
        self, begin: Begin, hanging: dict[str, Any] | None
    ) -> None:
        if hanging is None:
            return
        begun = time.monotonic()
        with pytest.raises(FaxbotError):
            begin(hanging).notify(notification(Notable.HELD))
        assert time.monotonic() - begun < LONGEST, "notify() takes longer than a minute"


def notification(*kinds: Notable, more: int = 0) -> Notification:
    """One about as many faxes as kinds are given, and `more` of the first kind that it does not name."""
    now = datetime.now(UTC)
    happenings = tuple(
        Happening(kind, secrets.token_hex(16), now, "The line was busy.") for kind in kinds
    )
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    counts[kinds[0]] += more
    return Notification(new_id(now), happenings, counts)
