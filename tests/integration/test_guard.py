"""A provider plugin whose own code fails is disabled, says so, and is enabled again by a person; carriers and strangers
cannot bring that about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from faxbot import callbacks, followup, jobs, oversight, sending
from faxbot.errors import OutcomeUnknown, Refused, Unreachable
from faxbot.plugins.base import CallbackRequest, OutboundFax, Receipt
from tests.installation import Installation
from tests.integration.command import run
from tests.integration.odd import Deed, answers, raises
from tests.integration.site import ACTOR, Site

pytestmark = pytest.mark.usefixtures("adds_up")

BUG = KeyError("Jane Doe +15550100000")


def state(site: Site) -> str:
    site.runtime.breakers.forget()
    (found,) = oversight.providers(site.runtime, ACTOR)
    return str(found["state"])


def history(site: Site) -> list[tuple[str, str | None]]:
    found = oversight.provider(site.runtime, ACTOR, "simulator")["history"]
    return [(each["type"], each["reason"]) for each in found][::-1]


def receive(site: Site) -> None:
    """A callback that is the carrier's for sure, and the work that comes of it."""
    site.odd.does["verify_callback"] = answers(True)
    body = str(len(site.rung)).encode() + str(site.now.timestamp()).encode()
    request = CallbackRequest("POST", "http://127.0.0.1:9/callbacks/simulator", {}, body)
    callbacks.receive(site.runtime, "simulator", request)
    site.work()


def ask(site: Site, job_id: str) -> None:
    site.now += timedelta(seconds=max(0.0, site.wait_of(job_id)))
    followup.poll(site.runtime, job_id)


def cancel(site: Site, job_id: str) -> None:
    jobs.cancel(site.runtime, ACTOR, job_id)
    followup.poll(site.runtime, job_id)


def noted(asked: list[str], name: str) -> Deed:
    return lambda _usual, _argument: asked.append(name)


DOORS: dict[str, Callable[[Site], None]] = {
    "send": lambda site: sending.attempt(site.runtime, site.fax()),
    "look_up": lambda site: followup.look_up(site.runtime, site.sent("0500")),
    "cancel": lambda site: cancel(site, site.sent("0044")),
    "read_callback": receive,
}


def fail(site: Site, door: str, times: int) -> None:
    for _ in range(times):
        site.odd.does.pop("send", None)
        site.odd.does[door] = raises(BUG)
        DOORS[door](site)


@pytest.mark.parametrize("door", DOORS)
def test_wherever_its_code_raises_five_times_it_is_disabled_with_its_last_error(
    site: Site, door: str
) -> None:
    fail(site, door, 4)
    assert state(site) != "plugin_disabled"
    fail(site, door, 1)

    assert state(site) == "plugin_disabled"
    assert history(site).count(("PLUGIN_FAILED", "KeyError")) == 5
    assert history(site)[-1] == ("PLUGIN_DISABLED", "KeyError")


def test_a_disabled_one_is_asked_nothing_and_its_faxes_wait_and_say_so(site: Site) -> None:
    sent = site.sent("0044")
    fail(site, "read_callback", 5)
    asked: list[str] = []
    for name in ("send", "fetch", "look_up", "cancel", "read_callback"):
        site.odd.does[name] = noted(asked, name)

    new = site.fax()
    sending.attempt(site.runtime, new)
    ask(site, sent)
    receive(site)

    assert asked == []
    job = site.job(new)
    assert (job.status, job.reason) == ("held", "plugin_disabled")
    assert site.job(sent).status == "sent"


def test_once_enabled_by_a_person_everything_goes_on(site: Site) -> None:
    fail(site, "send", 5)
    held = site.fax()
    sending.attempt(site.runtime, held)
    receive(site)
    site.odd.does.clear()

    oversight.change(site.runtime, ACTOR, "simulator", "enable", note="version 1.0.1 is installed")
    oversight.change(site.runtime, ACTOR, "simulator", "reset", note="the same")
    site.after(60)

    assert site.job(held).status in ("sent", "delivered")
    assert history(site)[-2:-1] == [("PLUGIN_ENABLED", None)]
    site.odd.does["send"] = raises(BUG)
    sending.attempt(site.runtime, site.fax())
    assert state(site) != "plugin_disabled", "what it did before it was enabled counts"


def test_it_is_enabled_from_the_command_line_too(site: Site, store: Installation) -> None:
    fail(site, "read_callback", 5)
    done = run(store, "providers", "enable", "simulator", "--note", "1.0.1 is installed")

    assert done.code == 0, done.err
    assert "PLUGIN_ENABLED" in done.out
    assert state(site) == "closed"


def test_faults_that_are_long_past_do_not_count(site: Site) -> None:
    for _ in range(8):
        fail(site, "read_callback", 1)
        site.now += timedelta(minutes=3)

    assert state(site) == "closed"


@pytest.mark.parametrize("error", [OutcomeUnknown(), Refused(), Unreachable()])
def test_what_a_carrier_does_is_no_fault_of_the_plugin(site: Site, error: Exception) -> None:
    for _ in range(6):
        site.odd.does["send"] = raises(error)
        sending.attempt(site.runtime, site.fax())

    assert state(site) != "plugin_disabled"
    assert ("PLUGIN_FAILED", None) not in history(site)


def test_a_stranger_cannot_switch_a_provider_off(site: Site) -> None:
    site.odd.does["verify_callback"] = raises(BUG)
    for number in range(10):
        url = "http://127.0.0.1:9/callbacks/simulator"
        request = CallbackRequest("POST", url, {}, str(number).encode())
        with pytest.raises(Exception, match="not proven"):
            callbacks.receive(site.runtime, "simulator", request)

    assert state(site) == "closed"


def test_a_call_that_outlasts_what_a_carrier_may_take_is_the_plugins_doing(site: Site) -> None:
    longest = timedelta(seconds=site.runtime.config.provider_call_seconds)

    def slow(_usual: object, fax: OutboundFax) -> Receipt:
        site.now += took
        return Receipt(f"id-{fax.tag}")

    site.odd.does["send"] = slow
    took = longest * 2  # a token, then the fax, of a carrier that is slow
    sending.attempt(site.runtime, site.fax())
    assert history(site) == []
    took = longest * 3
    sending.attempt(site.runtime, site.fax())

    assert history(site)[0] == ("PLUGIN_FAILED", "overrun")
