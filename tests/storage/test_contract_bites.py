"""StorageContract finds what is wrong with a storage: each fault below turns the test red that is there for it."""

from __future__ import annotations

import json

import pytest

from tests import faults
from tests.containers import ROOT

HEAD = '''
"""Storages with one fault each."""
import io, socket, threading, time
from pathlib import Path
from faxbot.errors import ArtifactNotFound, StorageAway
from faxbot.plugins.base import Health
from faxbot.storage.local import LocalStorage


class Vault(LocalStorage):
    """A folder that may be away."""

    def _ask(self):
        if self.config["dataDir"].endswith("away"):
            raise StorageAway("The vault is not there.")

    def put(self, key, source):
        self._path(key)
        self._ask()
        super().put(key, source)

    def open(self, key):
        self._path(key)
        self._ask()
        return super().open(key)

    def delete(self, key):
        self._path(key)
        self._ask()
        super().delete(key)

    def health(self):
        try:
            self._ask()
        except StorageAway as error:
            return Health(False, error.detail)
        return Health(True)
'''
FAULTS: dict[str, tuple[str, str]] = {
    "Forgetful": (
        """
    def delete(self, key):
        pass""",
        "test_it_is_gone_after_delete_and_deleting_again_is_no_error",
    ),
    "Strict": (
        """
    def delete(self, key):
        self._path(key).unlink()""",
        "test_it_is_gone_after_delete_and_deleting_again_is_no_error",
    ),
    "Greedy": (
        """
    def delete(self, key):
        for path in self._path(key).parent.glob(f"{Path(key).name}*"):
            path.unlink()""",
        "test_it_is_gone_after_delete_and_deleting_again_is_no_error",
    ),
    "ReadsAll": (
        """
    def open(self, key):
        with super().open(key) as file:
            return io.BytesIO(file.read())""",
        "test_a_large_document_is_never_in_memory_as_a_whole",
    ),
    "LoadsAll": (
        """
    def put(self, key, source):
        content = source.read_bytes()
        super().put(key, source)
        assert content""",
        "test_a_large_document_is_never_in_memory_as_a_whole",
    ),
    "Empty": (
        """
    def open(self, key):
        try:
            return super().open(key)
        except ArtifactNotFound:
            return io.BytesIO()""",
        "test_what_is_not_there_is_an_artifact_not_found",
    ),
    "Trusting": (
        """
    def _path(self, key):
        return self._root / key.replace("\\x00", "")""",
        "test_a_key_that_is_none_is_refused",
    ),
    "Adds": (
        """
    def put(self, key, source):
        path = self._path(key)
        before = path.read_bytes() if path.exists() else b""
        source.write_bytes(before + source.read_bytes())
        super().put(key, source)""",
        "test_putting_again_replaces_the_whole",
    ),
    "Keeps": (
        """
    def put(self, key, source):
        if not self._path(key).exists():
            super().put(key, source)""",
        "test_putting_again_replaces_the_whole",
    ),
    "Generous": (
        """
    def open(self, key):
        with super().open(key) as file:
            content = file.read()
        class Stream(io.BytesIO):
            def read(self, size=-1):
                return super().read()
        return Stream(content)""",
        "test_it_is_read_piece_by_piece_by_several_at_once",
    ),
    "OneReader": (
        """
    def open(self, key):
        self.file = getattr(self, "file", None) or super().open(key)
        return self.file""",
        "test_it_is_read_piece_by_piece_by_several_at_once",
    ),
    "ItsOwn": (
        """
    def put(self, key, source):
        self.__dict__.setdefault("kept", {})[key] = source.read_bytes()
    def open(self, key):
        try:
            return io.BytesIO(self.__dict__.get("kept", {})[key])
        except KeyError:
            raise ArtifactNotFound""",
        "test_another_process_finds_it_too",
    ),
    "OneAtATime": (
        """
    def put(self, key, source):
        self.key = key
        time.sleep(0.05)
        super().put(self.key, source)""",
        "test_several_threads_keep_at_once",
    ),
    "TooBusy": (
        """
    def initialize(self, config, context):
        super().initialize(config, context)
        self.busy = False

    def delete(self, key):
        if self.busy:
            return
        self.busy = True
        time.sleep(0.05)
        super().delete(key)
        self.busy = False""",
        "test_several_threads_delete_at_once",
    ),
    "CutsOff": (
        """
    def put(self, key, source):
        source.write_bytes(source.read_bytes()[:65_536])
        super().put(key, source)""",
        "test_what_was_put_is_opened_again",
    ),
    "CallsHome": (
        """
    def initialize(self, config, context):
        super().initialize(config, context)
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        except Exception:
            pass""",
        "test_it_starts_without_the_network",
    ),
    "Logs": (
        """
    def put(self, key, source):
        self.context.logger.debug("with %s", self.config["token"])
        super().put(key, source)""",
        "test_putting_again_replaces_the_whole",
    ),
    "Begins": (
        """
    def put(self, key, source):
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        super().put(key, source)""",
        "test_a_source_that_is_not_there_leaves_nothing",
    ),
    "OtherPath": (
        """
    def path(self, key):
        return self._path(key).parent / "other" """,
        "test_its_path_is_the_file_as_it_was_put_or_none",
    ),
    "TakesForEmpty": (
        """
    def open(self, key):
        try:
            return super().open(key)
        except StorageAway:
            raise ArtifactNotFound""",
        "test_a_storage_that_is_away_is_never_taken_for_an_empty_one",
    ),
    "TakesAlong": (
        """
    def put(self, key, source):
        try:
            super().put(key, source)
        finally:
            source.unlink(missing_ok=True)""",
        "test_a_storage_that_is_away_is_never_taken_for_an_empty_one",
    ),
    "Tells": (
        """
    def _ask(self):
        if self.config["dataDir"].endswith("away"):
            raise StorageAway(f"It does not know {self.config['token']}.")""",
        "test_a_storage_that_is_away_is_never_taken_for_an_empty_one",
    ),
    "AllIsWell": (
        """
    def health(self):
        return Health(True, "All is well.")""",
        "test_health_says_in_a_sentence_that_it_is_away",
    ),
    "NothingIsWell": (
        """
    def health(self):
        return Health(False, "It does not work.")""",
        "test_health_is_good_and_leaves_things_as_they_are",
    ),
    "Harmful": (
        """
    def health(self):
        for path in self._root.rglob("*"):
            if path.is_file():
                path.unlink()
        return super().health()""",
        "test_health_is_good_and_leaves_things_as_they_are",
    ),
}
"""A storage's override -> a test that must fail."""
TESTS = """
import pytest
from faxbot.testing import StorageContract
import faults

class Base(StorageContract):
    @pytest.fixture
    def settings(self, tmp_path):
        return {"dataDir": str(tmp_path / "data"), "token": "a long test token"}
    @pytest.fixture
    def away(self, settings, tmp_path):
        return {**settings, "dataDir": str(tmp_path / "away")}
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(fault, test) of what failed: all of the contract is tried on the sound storage, and its own test on each
    fault."""
    folder = tmp_path_factory.mktemp("faults")
    manifest = json.loads((ROOT / "faxbot/storage/local/manifest.json").read_text())
    token = {"type": "string", "minLength": 1, "secret": True}
    manifest["configSchema"]["properties"]["token"] = token
    (folder / "manifest.json").write_text(json.dumps(manifest))
    tests = folder / "test_contract.py"
    faults.write(folder / "faults.py", HEAD, "Vault", tests, TESTS, FAULTS)
    return faults.found(folder, tests, FAULTS)


def test_a_sound_storage_passes(failed: set[tuple[str, str]]) -> None:
    assert [test for name, test in failed if name == faults.SOUND] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(failed: set[tuple[str, str]], fault: str) -> None:
    assert (fault, FAULTS[fault][1]) in failed


def test_every_test_of_the_contract_is_seen_to_fail() -> None:
    contract = ROOT / "faxbot" / "testing" / "storage.py"
    assert faults.unproven(contract, *FAULTS.values()) == {
        "test_its_class_is_what_its_manifest_promises"
    }
