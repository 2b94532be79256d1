"""The next call to a number is made one step more carefully where the machines could not agree, begins with what worked
there before, and goes on behind the pages that the far end has confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image, ImageSequence

from faxbot import decisions, jobs, sending
from faxbot.errors import Unreachable
from faxbot.events import Status
from faxbot.ladder import STEPPING, Way
from faxbot.models import ProvenStep
from faxbot.plugins.base import OutboundFax, Receipt, State, Update
from faxbot.retry import SCHEDULES
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.odd import Odd
from tests.integration.site import ACTOR, Site, number, open_site

TRAITS = (
    "send_fax",
    "status_callback",
    "status_lookup",
    "ladder:4",
    "confirms_pages",
    "accepts:image/tiff",
)
FORGETFUL = tuple(each for each in TRAITS if each != "confirms_pages")


class Line:
    """What the provider was given, fax by fax; what became of each is told by the test."""

    def __init__(self, site: Site, provider_id: str) -> None:
        self.site, self.provider_id = site, provider_id
        self.faxes: list[OutboundFax] = []
        self.pages: list[list[int]] = []
        self.odd = site.runtime.plugins.get(provider_id, Odd)
        self.odd.does["send"] = self._take

    def _take(self, _usual: object, fax: OutboundFax) -> Receipt:
        self.faxes.append(fax)
        self.pages.append(heights(fax.document.read_bytes()))
        return Receipt(f"call-{fax.tag}")

    def tried(self, job_id: str, state: State, **facts: Any) -> OutboundFax:
        """One more call for this fax, and how it ended."""
        given = len(self.faxes)
        for _ in range(4):  # a fax waits till its number's machine has hung up
            if len(self.faxes) > given:
                break
            due = self.site.job(job_id).next_at
            assert due is not None
            self.site.now = max(self.site.now, due)
            sending.attempt(self.site.runtime, job_id)
        assert len(self.faxes) == given + 1, self.site.story(job_id)
        fax = self.faxes[-1]
        self.odd.does["fetch"] = odd.answers(Update(state, tag=fax.tag, **facts))
        self.site.now = max(self.site.now, self.site.job(job_id).next_at or self.site.now)
        self.site.rung[:] = [("faxbot.poll_fax", job_id)]
        self.site.work()
        return fax

    def failed(self, job_id: str, cause: str, pages_sent: int | None = None) -> OutboundFax:
        return self.tried(job_id, State.FAILED, cause=cause, pages_sent=pages_sent)

    def delivered(self, job_id: str, pages_sent: int | None = None) -> OutboundFax:
        return self.tried(job_id, State.DELIVERED, pages_sent=pages_sent)


def heights(tiff: bytes) -> list[int]:
    """Of the pages of a TIFF, in rows: each page of these documents has its own."""
    with Image.open(BytesIO(tiff)) as picture:
        return [frame.size[1] for frame in ImageSequence.Iterator(picture)]


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, FAX_BACKEND="line") as site:
        plugins = odd.plugins(
            site.runtime, others={"line": TRAITS, "other": TRAITS, "forgetful": FORGETFUL}
        )
        site.runtime = replace(site.runtime, plugins=plugins)
        yield site


@pytest.fixture
def line(site: Site) -> Line:
    return Line(site, "line")


def remembered(site: Site) -> list[tuple[str, int]]:
    with site.runtime.database.reading() as session:
        rows = session.scalars(sa.select(ProvenStep))
        return [(row.provider_id, row.step) for row in rows]


def test_each_call_that_could_not_agree_makes_the_next_one_more_careful_and_the_last_step_stays(
    site: Site, line: Line
) -> None:
    job_id = site.fax()
    for _ in range(4):
        line.failed(job_id, "handshake_failed")
    line.delivered(job_id)

    assert [fax.step for fax in line.faxes] == [0, 1, 2, 3, 3]
    assert [each.step for each in site.attempts(job_id)] == [0, 1, 2, 3, 3]
    assert site.job(job_id).status == Status.DELIVERED


@pytest.mark.parametrize("cause", sorted(SCHEDULES))
def test_a_line_that_is_busy_is_no_reason_to_be_more_careful(
    site: Site, line: Line, cause: str
) -> None:
    job_id = site.fax()
    line.failed(job_id, cause)
    line.delivered(job_id)

    assert [fax.step for fax in line.faxes] == [0, int(cause in STEPPING)]


def test_a_fax_begins_with_the_step_that_worked_at_its_number(site: Site, line: Line) -> None:
    to = number()
    first, other = site.fax_to(to), site.fax()
    line.failed(first, "handshake_failed")
    line.failed(first, "handshake_failed")
    line.delivered(first)
    assert remembered(site) == [("line", 2)]

    line.delivered(other)
    assert line.faxes[-1].step == 0
    assert line.delivered(site.fax_to(to)).step == 2
    again = site.fax_to(to)
    line.failed(again, "t38_failed")
    assert line.delivered(again).step == 3

    assert remembered(site) == [("line", 3)]


def test_where_the_fastest_way_works_nothing_is_remembered(site: Site, line: Line) -> None:
    line.delivered(site.fax())

    assert remembered(site) == []


def test_a_provider_without_a_ladder_is_asked_for_no_step(site: Site) -> None:
    job_id = site.fax()
    simulator = Line(site, "simulator")
    site.runtime = replace(
        site.runtime, config=replace(site.runtime.config, fax_backend="simulator")
    )
    simulator.failed(job_id, "handshake_failed")
    simulator.delivered(job_id)

    assert [fax.step for fax in simulator.faxes] == [0, 0]
    assert [each.step for each in site.attempts(job_id)] == [None, None]
    assert remembered(site) == []


def explanation(site: Site, job_id: str) -> str:
    return str(jobs.describe(site.runtime, site.job(job_id))["explanation"])


def test_a_fax_goes_on_behind_the_confirmed_pages_and_says_so(site: Site, line: Line) -> None:
    job_id = site.fax(pages=5, header="Practice")
    line.failed(job_id, "page_failed", pages_sent=2)
    line.failed(job_id, "page_failed", pages_sent=1)
    assert site.job(job_id).pages_sent == 3
    assert "3 of 5 pages arrived; continuing at 4." in explanation(site, job_id)
    line.delivered(job_id, pages_sent=2)

    whole = line.pages[0]
    assert len(whole) == 5
    assert line.pages == [whole, whole[2:], whole[3:]]
    assert [fax.pages for fax in line.faxes] == [5, 3, 2]
    assert [fax.header.reveal() for fax in line.faxes] == [
        "Practice",
        "Practice (page 3 of 5, continued)",
        "Practice (page 4 of 5, continued)",
    ]
    job = site.job(job_id)
    assert (job.status, job.pages, job.pages_sent) == (Status.DELIVERED, 5, 5)
    assert [each.first_page for each in site.attempts(job_id)] == [1, 3, 4]
    assert [each.pages_sent for each in site.attempts(job_id)] == [2, 3, 5]


def test_done_with_fewer_pages_than_were_left_is_not_delivered(site: Site, line: Line) -> None:
    job_id = site.fax(pages=5)
    line.failed(job_id, "page_failed", pages_sent=2)
    line.delivered(job_id, pages_sent=2)

    assert site.job(job_id).status != Status.DELIVERED


def test_where_all_pages_were_confirmed_and_the_call_failed_the_last_one_is_sent_again(
    site: Site, line: Line
) -> None:
    job_id = site.fax(pages=3)
    line.failed(job_id, "page_failed", pages_sent=3)
    line.delivered(job_id, pages_sent=1)

    assert line.pages[1] == line.pages[0][2:]
    assert site.job(job_id).pages_sent == 3


def test_each_try_sends_all_pages_where_that_is_wanted(site: Site, line: Line) -> None:
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, continue_faxes=False))
    job_id = site.fax(pages=3, header="Practice")
    line.failed(job_id, "page_failed", pages_sent=2)
    assert "continuing" not in explanation(site, job_id)
    line.delivered(job_id, pages_sent=3)

    assert line.pages[0] == line.pages[1]
    assert line.faxes[1].header.reveal() == "Practice"


@pytest.fixture
def two_lines(site: Site, line: Line) -> tuple[Line, Line]:
    """The second one is covered, and confirms pages too."""
    config = replace(site.runtime.config, fax_backends="line,other", fax_backends_covered="other")
    site.runtime = replace(site.runtime, config=config)
    return line, Line(site, "other")


def test_a_fax_that_another_provider_may_take_whole_is_not_said_to_go_on(
    site: Site, two_lines: tuple[Line, Line]
) -> None:
    line, other = two_lines
    job_id = site.fax(pages=5)
    line.failed(job_id, "page_failed", pages_sent=3)
    assert "3 of 5 pages arrived; continuing at 4." in explanation(site, job_id)
    line.odd.does["send"] = odd.raises(Unreachable())
    site.now = max(site.now, site.job(job_id).next_at or site.now)
    sending.attempt(site.runtime, job_id)
    assert site.job(job_id).status == Status.RETRYING
    job, asked = site.job(job_id), list[str]()
    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", lambda *about: asked.append(about[2]))
    assert "continuing" not in jobs.describe(site.runtime, job)["explanation"]
    assert asked == []

    other.failed(job_id, "page_failed", pages_sent=1)
    assert "continuing" not in explanation(site, job_id)
    other.delivered(job_id)

    assert [len(pages) for pages in (*line.pages, *other.pages)] == [5, 5, 4]
    assert [each.first_page for each in site.attempts(job_id)] == [1, 4, 1, 2]


@pytest.mark.parametrize("wanted", [None, "line"])
def test_a_fax_is_not_said_to_go_on_with_a_provider_that_may_see_it_no_more(
    site: Site, two_lines: tuple[Line, Line], wanted: str | None
) -> None:
    job_id = site.fax(pages=5, provider_id=wanted)
    two_lines[0].failed(job_id, "page_failed", pages_sent=3)
    assert "continuing at 4." in explanation(site, job_id)
    config = replace(site.runtime.config, fax_backends="other")
    site.runtime = replace(site.runtime, config=config)

    assert "continuing" not in explanation(site, job_id)


def test_what_never_went_out_by_a_persons_word_is_not_said_to_go_on(site: Site, line: Line) -> None:
    job_id = site.fax(pages=5)
    line.tried(job_id, State.PROGRESS, pages_sent=3)
    line.odd.does["fetch"] = odd.answers(Update(State.ABSENT))
    site.rung[:] = [("faxbot.poll_fax", job_id)]
    site.now = max(site.now, site.job(job_id).next_at or site.now)
    site.work()
    decisions.decide(site.runtime, ACTOR, job_id, "retry", "The box was empty.")
    assert site.job(job_id).status == Status.RETRYING
    assert "continuing" not in explanation(site, job_id)
    line.delivered(job_id)

    assert [len(pages) for pages in line.pages] == [5, 5]


def test_pages_are_left_out_only_where_a_far_end_confirms_them_one_by_one(site: Site) -> None:
    forgetful = Line(site, "forgetful")
    config = replace(site.runtime.config, fax_backend="forgetful")
    site.runtime = replace(site.runtime, config=config)
    job_id = site.fax(pages=3)
    forgetful.failed(job_id, "page_failed", pages_sent=2)
    forgetful.delivered(job_id, pages_sent=3)

    assert forgetful.pages == [[32, 33, 34], [32, 33, 34]]
    assert [fax.step for fax in forgetful.faxes] == [0, 1]


@pytest.mark.parametrize(
    ("header", "pages", "said"),
    [
        ("", 9, "page 5 of 9, continued"),
        ("Practice", 9, "Practice (page 5 of 9, continued)"),
        ("x" * 50, 9, "x" * 25 + " (page 5 of 9, continued)"),
        ("x" * 50, 10_000, "x" * 21 + " (page 5 of 10000, continued)"),
    ],
)
def test_the_line_at_the_top_of_a_continued_fax_has_room(
    header: str, pages: int, said: str
) -> None:
    found = Way(0, 5).header(header, pages)

    assert (found, len(found) <= 50) == (said, True)
    assert Way(0, 1).header(header, pages) == header
