"""Several providers: in order, by what they can and how they are, and never one that must not see the fax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from faxbot import decisions, jobs, sending, sweeps
from faxbot.errors import AccountRefused, OutcomeUnknown, Refused, Throttled, Unreachable
from faxbot.plugins.base import OutboundFax, Receipt, State, TransportPlugin, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.odd import Odd, raises
from tests.integration.site import ACTOR, Site, number, open_site

Opened = Callable[..., Any]


@pytest.fixture
def opened(store: Installation, carrier_of_all: SimulatorProcess) -> Opened:
    """A site with the providers simulator, second and third; the list and its covered ones as given."""

    @contextmanager
    def opening(order: str, covered: str = "", **traits: tuple[str, ...]) -> Iterator[Site]:
        settings = {"FAX_BACKENDS": order, "FAX_BACKENDS_COVERED": covered}
        with open_site(store, carrier_of_all, **settings) as site:
            others = {name: traits.get(name, ()) for name in ("second", "third")}
            plugins = odd.plugins(site.runtime, others=others)
            site.runtime = replace(site.runtime, plugins=plugins)
            yield site

    return opening


def provider(site: Site, name: str) -> Odd:
    plugin = site.runtime.plugins.get(name, TransportPlugin)
    assert isinstance(plugin, Odd)
    return plugin


def who(site: Site, job_id: str) -> list[str]:
    return [attempt.provider_id for attempt in site.attempts(job_id)]


def send(site: Site, **wish: Any) -> str:
    job_id = site.fax(**wish)
    sending.attempt(site.runtime, job_id)
    return job_id


def test_the_first_that_is_well_takes_the_fax(opened: Opened) -> None:
    with opened("second,simulator", "simulator") as site:
        job_id = send(site)

        assert (site.job(job_id).status, who(site, job_id)) == ("sent", ["second"])


def test_one_that_rests_is_passed_by_for_one_that_is_covered(opened: Opened) -> None:
    with opened("second,third,simulator", "simulator") as site:
        provider(site, "second").does["send"] = raises(AccountRefused())
        assert site.job(send(site)).status == "held"
        job_id = send(site)

        assert who(site, job_id) == ["simulator"], "third is not covered"


def test_without_a_covered_one_faxes_are_held_for_the_first_and_say_so(opened: Opened) -> None:
    with opened("second,simulator") as site:
        provider(site, "second").does["send"] = raises(AccountRefused())
        send(site)
        job_id = send(site)

        job = site.job(job_id)
        assert (job.status, job.reason, job.attempts) == ("held", "account_refused", 0)
        assert "carrier refused the account" in jobs.describe(site.runtime, job)["explanation"]


def test_when_all_rest_it_is_held_and_goes_to_the_first_that_is_well_again(opened: Opened) -> None:
    with opened("second,simulator", "simulator") as site:
        for name in ("second", "simulator"):
            provider(site, name).does["send"] = raises(AccountRefused())
        send(site)
        send(site)
        job_id = send(site)
        assert (site.job(job_id).status, site.job(job_id).attempts) == ("held", 0)
        provider(site, "simulator").does.clear()
        for _ in range(40):
            site.after(60)

        assert site.job(job_id).status in ("sent", "delivered")
        assert who(site, job_id)[-1] == "simulator"


@pytest.mark.parametrize("error", [Unreachable(), Throttled(retry_after=3600)])
def test_what_was_surely_not_taken_may_go_to_another(opened: Opened, error: Exception) -> None:
    with opened("second,simulator", "simulator") as site:
        provider(site, "second").does["send"] = raises(error)
        job_id = send(site)
        assert (site.job(job_id).status, who(site, job_id)) == ("retrying", ["second"])
        for _ in range(8):
            send(site)
        site.after(site.wait_of(job_id))

        assert who(site, job_id) == ["second", "simulator"]


@pytest.mark.parametrize("ending", ["busy", "unknown"])
def test_what_a_provider_has_accepted_stays_with_it(opened: Opened, ending: str) -> None:
    with opened("second,simulator", "simulator") as site:
        second = provider(site, "second")
        if ending == "busy":
            second.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
            second.does["fetch"] = lambda _usual, name: Update(
                State.FAILED, external_id=name, cause="busy"
            )
        else:
            second.does["send"] = raises(OutcomeUnknown())
            second.does["look_up"] = raises(OutcomeUnknown())
        job_id = send(site)
        for _ in range(14):
            site.after(60)

        # The line was busy: the same provider calls again. Nobody knows: nobody calls.
        assert who(site, job_id) == (["second"] * 2 if ending == "busy" else ["second"])


def test_a_person_who_says_it_never_went_out_frees_it(opened: Opened) -> None:
    with opened("second,simulator", "simulator") as site:
        second = provider(site, "second")
        second.does["send"] = raises(OutcomeUnknown())
        second.does["look_up"] = raises(OutcomeUnknown())
        job_id = send(site)
        second.does["send"] = raises(AccountRefused())
        send(site)
        decisions.decide(site.runtime, ACTOR, job_id, "retry", "they have nothing")
        site.work()

        assert who(site, job_id) == ["second", "simulator"]


def test_a_refusal_of_the_fax_itself_is_final_whoever_else_there_is(opened: Opened) -> None:
    with opened("second,simulator", "simulator") as site:
        provider(site, "second").does["send"] = raises(Refused())
        job_id = send(site)

        assert (site.job(job_id).status, who(site, job_id)) == ("failed", ["second"])


def test_one_that_takes_no_fax_pages_or_is_not_there_is_passed_by(opened: Opened) -> None:
    no_pages = ("send_fax", "accepts:text/plain")
    with opened("second,nobody,simulator", "simulator", second=no_pages) as site:
        job_id = send(site)

        assert who(site, job_id) == ["simulator"]


@pytest.mark.parametrize(
    ("taken", "media_type", "begins"),
    [
        (("application/pdf",), "application/pdf", b"%PDF-"),
        (("application/pdf", "image/tiff"), "application/pdf", b"%PDF-"),
        (("text/html", "image/tiff", "application/pdf"), "image/tiff", b"II*"),
        ((), "image/tiff", b"II*"),
    ],
)
def test_a_provider_is_given_the_pages_in_the_form_that_it_likes_best(
    opened: Opened, taken: tuple[str, ...], media_type: str, begins: bytes
) -> None:
    traits = ("send_fax", *(f"accepts:{each}" for each in taken))
    with opened("second", second=traits) as site:
        seen: list[tuple[str, bytes]] = []

        def look(_usual: object, fax: OutboundFax) -> Receipt:
            seen.append((fax.media_type, fax.document.read_bytes()))
            return Receipt("id")

        provider(site, "second").does["send"] = look
        send(site, pages=2)

        ((form, document),) = seen
        assert (form, document.startswith(begins)) == (media_type, True)
        assert document.count(b"/Type/Page/") == (2 if begins == b"%PDF-" else 0)


def test_one_that_sends_no_faxes_is_passed_by(opened: Opened) -> None:
    with opened("second,simulator", "simulator", second=("status_callback",)) as site:
        job_id = send(site)

        assert who(site, job_id) == ["simulator"]


def test_a_wish_for_a_provider_is_kept(opened: Opened) -> None:
    with opened("second,simulator", "simulator") as site:
        job_id = site.submit(number(), provider_id="simulator").job_id
        provider(site, "simulator").does["send"] = raises(AccountRefused())
        sending.attempt(site.runtime, job_id)
        for _ in range(30):
            site.after(60)

        assert set(who(site, job_id)) == {"simulator"}


def test_one_that_was_taken_out_of_the_list_sees_no_fax_that_wished_for_it(opened: Opened) -> None:
    with opened("second,simulator", "simulator") as site:
        job_id = site.submit(number(), provider_id="simulator").job_id
        config = replace(site.runtime.config, fax_backends="second")
        site.runtime = replace(site.runtime, config=config)
        sending.attempt(site.runtime, job_id)

        job = site.job(job_id)
        assert (job.status, job.reason, who(site, job_id)) == ("held", "no_provider", [])


@pytest.mark.parametrize("left", ["simulator,third", "simulator"])
def test_one_that_was_taken_out_of_the_list_does_not_lose_its_fax(
    opened: Opened, left: str
) -> None:
    with opened("second,simulator", "simulator") as site:
        second = provider(site, "second")
        second.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
        second.does["fetch"] = lambda _usual, name: Update(
            State.FAILED, external_id=name, cause="busy"
        )
        job_id = send(site)
        site.after(600)
        config = replace(site.runtime.config, fax_backends=left)
        site.runtime = replace(site.runtime, config=config)
        site.after(240)

        job = site.job(job_id)
        assert (job.status, job.reason, job.attempts) == ("held", "no_provider", 1)
        assert (
            "keep there what had the fax before" in jobs.describe(site.runtime, job)["explanation"]
        )


def test_a_provider_that_may_not_see_a_fax_wakes_none_by_being_well(opened: Opened) -> None:
    with opened("second,third") as site:
        provider(site, "second").does["send"] = raises(AccountRefused())
        send(site)
        held = send(site)
        before = site.wait_of(held)
        sweeps.run(site.runtime)

        assert (site.job(held).status, site.wait_of(held)) == ("held", before)
        assert before > 0
