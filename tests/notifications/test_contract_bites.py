"""NotificationContract finds what is wrong with a plugin: each fault below turns the test red that is there for it."""

from __future__ import annotations

import json

import pytest

from tests import faults
from tests.containers import ROOT

MANIFEST = {
    "manifest_version": "1",
    "id": "pager",
    "name": "Pager",
    "version": "1.0.0",
    "api": ">=1,<2",
    "type": "notification",
    "traits": [],
    "requiredScope": "trusted",
    "configSchema": {
        "type": "object",
        "required": ["place", "token"],
        "properties": {
            "place": {"type": "string"},
            "token": {"type": "string", "minLength": 1, "secret": True},
            "events": {"type": "string", "default": "failed,held"},
        },
    },
}
HEAD = '''
"""Notifiers with one fault each."""
import logging, socket, time, uuid
from dataclasses import replace
from pathlib import Path
from faxbot.errors import OutcomeUnknown, Unreachable
from faxbot.plugins.base import Health, NotificationPlugin


class Pager(NotificationPlugin):
    """A folder in which each message is a file; it may be away, or say nothing."""

    def _ask(self):
        if self.config["place"].endswith("away"):
            raise Unreachable("The pager is not there.")
        if self.config["place"].endswith("hanging"):
            raise Unreachable("The pager says nothing.")

    def _write(self, text):
        (Path(self.config["place"]) / uuid.uuid4().hex).write_text(text)

    def notify(self, notification):
        self._ask()
        self._write(f"{notification.id} {notification.title} {notification.text()}")
        return True

    def health(self):
        try:
            self._ask()
        except Unreachable as error:
            return Health(False, error.detail)
        return Health(True)
'''
ONE = "test_one_notification_is_one_message_that_names_the_fax"
AWAY = "test_who_is_away_was_surely_told_nothing"
FAULTS: dict[str, tuple[str, str]] = {
    "SaysNothing": (
        """
    def notify(self, notification):
        super().notify(notification)""",
        ONE,
    ),
    "Nameless": (
        """
    def notify(self, notification):
        self._write(notification.id + notification.title)
        return True""",
        ONE,
    ),
    "Repeats": (
        """
    def notify(self, notification):
        return super().notify(notification) and super().notify(notification)""",
        ONE,
    ),
    "Loud": (
        """
    def notify(self, notification):
        logging.getLogger("pager").warning("logging in with %s", self.config["token"])
        return super().notify(notification)""",
        ONE,
    ),
    "Uncounted": (
        """
    def notify(self, notification):
        counts = {each.kind: 1 for each in notification.happenings}
        return super().notify(replace(notification, counts=counts))""",
        "test_a_storm_is_one_message_that_says_how_many",
    ),
    "OneEach": (
        """
    def notify(self, notification):
        for each in notification.happenings:
            super().notify(replace(notification, happenings=(each,)))
        return True""",
        "test_a_storm_is_one_message_that_says_how_many",
    ),
    "Untestable": (
        """
    def notify(self, notification):
        return super().notify(notification) if notification.happenings else True""",
        "test_a_test_notice_arrives",
    ),
    "NewIdEachTime": (
        """
    def notify(self, notification):
        return super().notify(replace(notification, id=uuid.uuid4().hex))""",
        "test_what_is_told_again_can_be_known_as_a_repeat",
    ),
    "Muddled": (
        """
    def notify(self, notification):
        self.text = notification.text()
        time.sleep(0.2)
        self._write(self.text)
        return True""",
        "test_several_threads_tell_at_once",
    ),
    "TriesItOut": (
        """
    def health(self):
        self._write("hello")
        return Health(True)""",
        "test_health_is_good_and_tells_nobody",
    ),
    "NothingIsWell": (
        """
    def health(self):
        return Health(False, "It does not work.")""",
        "test_health_is_good_and_tells_nobody",
    ),
    "Doubtful": (
        """
    def _ask(self):
        if self.config["place"].endswith("away"):
            raise OutcomeUnknown("The pager is not there.")""",
        AWAY,
    ),
    "Talkative": (
        """
    def _ask(self):
        if self.config["place"].endswith("away"):
            raise Unreachable("The pager does not take " + self.config["token"])""",
        AWAY,
    ),
    "Terse": (
        """
    def _ask(self):
        if self.config["place"].endswith("away"):
            raise Unreachable("away")""",
        AWAY,
    ),
    "AllIsWell": (
        """
    def health(self):
        return Health(True)""",
        "test_health_says_in_a_sentence_that_it_is_away",
    ),
    "Trusting": (
        """
    def notify(self, notification):
        return True""",
        "test_who_says_nothing_is_given_up_within_a_minute",
    ),
    "Eager": (
        """
    def initialize(self, config, context):
        super().initialize(config, context)
        socket.create_connection(("127.0.0.1", 9))""",
        "test_it_starts_without_the_network",
    ),
}
"""A plugin's override -> a test that must fail."""
TESTS = """
import pytest
from faxbot.testing import NotificationContract
import faults

class Base(NotificationContract):
    @pytest.fixture
    def settings(self, tmp_path):
        return {"place": str(tmp_path), "token": "a long test token"}
    @pytest.fixture
    def away(self, settings):
        return {**settings, "place": settings["place"] + "/away"}
    @pytest.fixture
    def hanging(self, settings):
        return {**settings, "place": settings["place"] + "/hanging"}
    @pytest.fixture
    def arrived(self, tmp_path):
        files = lambda: sorted(tmp_path.iterdir(), key=lambda each: each.stat().st_mtime_ns)
        return lambda: [each.read_text() for each in files()]
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(fault, test) of what failed: all of the contract is tried on the sound plugin, and its own test on each
    fault."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    tests = folder / "test_contract.py"
    faults.write(folder / "faults.py", HEAD, "Pager", tests, TESTS, FAULTS)
    return faults.found(folder, tests, FAULTS)


def test_a_sound_plugin_passes(failed: set[tuple[str, str]]) -> None:
    assert [test for name, test in failed if name == faults.SOUND] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(failed: set[tuple[str, str]], fault: str) -> None:
    assert (fault, FAULTS[fault][1]) in failed


def test_every_test_of_the_contract_is_seen_to_fail() -> None:
    contract = ROOT / "faxbot" / "testing" / "notification.py"
    assert faults.unproven(contract, *FAULTS.values()) == {
        "test_its_class_is_what_its_manifest_promises",
        "test_what_it_tells_by_default_is_something_that_there_is",
    }
