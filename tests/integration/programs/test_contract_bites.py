"""ProviderContract finds what is wrong with a provider: each fault below turns the test red that is there for it."""

from __future__ import annotations

import shutil

import pytest

from tests import faults
from tests.containers import ROOT

HEAD = '''
"""Providers with one fault each."""
import pickle, socket
from faxbot.errors import OutcomeUnknown, ProviderError, Refused
from faxbot.plugins.base import Health, Receipt, State, Update
from faxbot_provider_example import ExampleProvider
'''
FAULTS: dict[str, tuple[str, str]] = {
    "Retries": (
        """
    def send(self, fax):
        try:
            return super().send(fax)
        except OutcomeUnknown:
            return super().send(fax)""",
        "test_a_carrier_that_vanishes_after_reading_may_have_the_fax_and_is_not_called_again",
    ),
    "SureOfItself": (
        """
    def send(self, fax):
        try:
            return super().send(fax)
        except OutcomeUnknown:
            raise Refused""",
        "test_an_answer_that_proves_nothing_leaves_the_outcome_open",
    ),
    "Unsure": (
        """
    def send(self, fax):
        try:
            return super().send(fax)
        except ProviderError:
            raise OutcomeUnknown""",
        "test_a_carrier_that_is_away_was_sent_nothing",
    ),
    "Nameless": (
        """
    def send(self, fax):
        super().send(fax)
        return Receipt("")""",
        "test_a_fax_that_is_taken_has_a_name",
    ),
    "Writes": (
        """
    def send(self, fax):
        fax.document.write_bytes(fax.document.read_bytes() + b"x")
        return super().send(fax)""",
        "test_a_fax_that_is_taken_has_a_name",
    ),
    "Logs": (
        """
    def send(self, fax):
        self.context.logger.info("sending to %s", fax.to.reveal())
        return super().send(fax)""",
        "test_several_threads_send_at_once",
    ),
    "Prints": (
        """
    def send(self, fax):
        print(self._secret)
        return super().send(fax)""",
        "test_several_threads_send_at_once",
    ),
    "Tells": (
        """
    def send(self, fax):
        try:
            return super().send(fax)
        except Refused:
            raise Refused(f"no fax to {fax.to.reveal()}")""",
        "test_a_refused_fax_was_not_sent",
    ),
    "OwnWords": (
        """
    def send(self, fax):
        try:
            return super().send(fax)
        except Refused:
            raise Refused(cause="computer says no")""",
        "test_a_refused_fax_was_not_sent",
    ),
    "Impatient": (
        """
    def send(self, fax):
        try:
            return super().send(fax)
        except ProviderError as error:
            error.retry_after = None
            raise""",
        "test_a_status_that_refuses_proves_that_nothing_was_sent",
    ),
    "Shared": (
        """
    gate = __import__("threading").Lock()
    def send(self, fax):
        if not self.gate.acquire(blocking=False):
            raise RuntimeError
        try:
            return super().send(fax)
        finally:
            self.gate.release()""",
        "test_several_threads_send_at_once",
    ),
    "MixesUp": (
        """
    def send(self, fax):
        receipt = super().send(fax)
        self.receipt = getattr(self, "receipt", None) or receipt
        return self.receipt""",
        "test_several_threads_send_at_once",
    ),
    "Pickles": (
        """
    def send(self, fax):
        pickle.dumps(fax.tag)
        return super().send(fax)""",
        "test_nothing_is_pickled",
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
    "Absent": (
        """
    def look_up(self, tag, *, to, since):
        try:
            return super().look_up(tag, to=to, since=since)
        except ProviderError:
            return Update(State.ABSENT, tag=tag)""",
        "test_a_question_without_a_sound_answer_is_an_error_and_never_absence",
    ),
    "FindsAnything": (
        """
    def look_up(self, tag, *, to, since):
        return Update(State.ACCEPTED, tag=tag, external_id="f-1")""",
        "test_what_the_carrier_never_had_is_absent",
    ),
    "Undeclared": (
        """
    def cancel(self, external_id):
        pass""",
        "test_its_class_is_what_its_manifest_promises",
    ),
    "Proud": (
        """
    def health(self):
        return Health(True, "fine")""",
        "test_health_says_in_a_sentence_that_the_carrier_is_not_fit",
    ),
    "Leaks": (
        """
    def health(self):
        return Health(super().health().ok, f"with {self._secret}")""",
        "test_health_is_good_at_its_carrier",
    ),
    "Fragile": (
        """
    def health(self):
        return Health(self._call("GET", "/account").json()["account"] == "test", "it is")""",
        "test_health_raises_nothing_whatever_is_answered",
    ),
    "OpenDoor": (
        """
    def verify_callback(self, request):
        return True""",
        "test_a_forged_callback_is_refused",
    ),
    "AnyProof": (
        """
    def verify_callback(self, request):
        return len(request.headers.get("x-example-signature", "")) == 64""",
        "test_a_callback_of_another_account_is_refused",
    ),
    "ShutDoor": (
        """
    def verify_callback(self, request):
        return False""",
        "test_a_genuine_callback_is_admitted_and_read",
    ),
    "Misreads": (
        """
    def read_callback(self, request):
        return [Update(State.DELIVERED, tag="x")]""",
        "test_a_genuine_callback_is_admitted_and_read",
    ),
    "Trusts": (
        """
    def read_callback(self, request):
        return [Update(State.ACCEPTED, tag=__import__("json").loads(request.body)["tag"])]""",
        "test_no_request_makes_a_callback_raise_anything_else",
    ),
}
"""A provider's override -> a test that must fail."""
TESTS = """
import pytest
from carrier import Carrier
from faxbot.testing import ProviderContract
from faxbot_provider_example import faults

class Base(ProviderContract):
    refused_number = "+15550100099"
    def settings(self, url):
        return {"baseUrl": url, "secret": "a long test secret"}
    @pytest.fixture
    def carrier(self):
        with Carrier("a long test secret") as carrier:
            yield carrier.url
"""


RECEIVING: dict[str, tuple[str, str]] = {
    "Invents": (
        """
    def read_callback(self, request):
        return [replace(each, pages=next(NUMBERS)) for each in super().read_callback(request)]""",
        "test_a_received_fax_is_read_the_same_every_time_also_from_a_file",
    ),
    "InMemory": (
        """
    def read_callback(self, request):
        return super().read_callback(request) if request.body else []""",
        "test_a_received_fax_is_read_the_same_every_time_also_from_a_file",
    ),
    "Empty": (
        """
    def attached(self, request, target):
        target.write(b"%PDF-1.4 a blank page")""",
        "test_a_received_fax_has_its_document_or_a_cause",
    ),
    "Grabs": (
        """
    def claim(self, request):
        self.attached = None""",
        "test_a_received_fax_has_its_document_or_a_cause",
    ),
    "Hoards": (
        """
    def attached(self, request, target):
        super().attached(replace(request, body=b"".join(request.chunks()), file=None), target)""",
        "test_a_large_callback_passes_in_little_memory",
    ),
}
"""The same for what brings received faxes, tried with the simulator and its carrier."""
RECEIVING_TESTS = """
from dataclasses import replace
from itertools import count
from pathlib import Path
import pytest
from faxbot.providers import simulator
from tests.providers.conftest import receiver
from tests.providers.test_contract_simulator import TestSimulator as Contract, process

NUMBERS = count()
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(fault, test) of what failed: all of the contract is tried on the sound provider, and its own test on each
    fault."""
    folder = tmp_path_factory.mktemp("faults") / "package"
    shutil.copytree(ROOT / "examples" / "faxbot-provider-example", folder)
    tests = folder / "tests" / "test_contract.py"
    module = folder / "faxbot_provider_example" / "faults.py"
    faults.write(module, HEAD, "ExampleProvider", tests, TESTS, FAULTS)
    return faults.found(folder, tests, FAULTS)


@pytest.fixture(scope="module")
def failed_to_receive(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """The same of what brings received faxes: those tests on the sound provider and on each fault."""
    path = tmp_path_factory.mktemp("receiving") / "test_faults.py"
    path.write_text(
        RECEIVING_TESTS
        + "".join(
            f"\nclass {name}(simulator.SimulatorProvider):{code}\n"
            f"\nclass Test{name}(Contract):\n    plugin = {name}\n"
            "    @pytest.fixture\n    def folder(self):\n"
            "        return Path(simulator.__file__).parent\n"
            for name, code in faults.bodies(RECEIVING).items()
        )
    )
    tests = dict.fromkeys(test for _, test in RECEIVING.values())
    options = ("--rootdir", str(path.parent), "-c", "/dev/null")
    return faults.found(ROOT, path, RECEIVING, *options, sound=tests)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_its_test_red(failed: set[tuple[str, str]], fault: str) -> None:
    assert (fault, FAULTS[fault][1]) in failed


@pytest.mark.parametrize("fault", RECEIVING)
def test_a_fault_in_receiving_turns_its_test_red(
    failed_to_receive: set[tuple[str, str]], fault: str
) -> None:
    assert (fault, RECEIVING[fault][1]) in failed_to_receive


def test_a_sound_provider_passes(
    failed: set[tuple[str, str]], failed_to_receive: set[tuple[str, str]]
) -> None:
    assert [test for name, test in sorted(failed | failed_to_receive) if name == faults.SOUND] == []


def test_every_test_of_the_contract_is_seen_to_fail() -> None:
    """But for six that the others stand on, or whose like is among them."""
    contract = ROOT / "faxbot" / "testing" / "contract.py"
    assert faults.unproven(contract, *FAULTS.values(), *RECEIVING.values()) == {
        "test_a_fax_can_be_cancelled_or_it_is_refused",
        "test_the_carriers_copy_is_a_pdf_and_none_is_no_document",
        "test_the_carriers_copy_is_deleted_and_one_that_is_gone_is_no_error",
        "test_there_are_received_faxes_to_try_it_with",
        "test_there_are_recorded_callbacks",
        "test_what_was_taken_is_found_by_its_tag_and_by_its_id",
    }
