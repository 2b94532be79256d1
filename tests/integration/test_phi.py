"""What is personal is planted, goes every road a fax can go, and is then looked for in all that was
written down."""

from __future__ import annotations

import base64
import json
import logging
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import jobs, phone
from faxbot.artifacts import Upload
from faxbot.cli.logs import JsonLines, TextLines
from faxbot.crypto import Keyring
from faxbot.errors import FaxbotError, OutcomeUnknown, Refused
from faxbot.hidden import Hidden
from faxbot.jobs import Answer, Submission
from faxbot.models import Job
from faxbot.plugins.base import CallbackRequest, OutboundFax, State, Update
from faxbot.tasks.app import Bell
from tests.integration.odd import Deed, Vanished, answers, raises
from tests.integration.site import ACTOR, Site, tiff
from tests.integration.test_submit import refusing
from tests.servers import RedisServer

DIGITS = "4155550188"
HEADER = "Practice of Dr. Zyzzyva"
NAME = "Quetzalcoatl"
PLANTED = (DIGITS, DIGITS[3:], "Zyzzyva", NAME)


def number(ending: str) -> str:
    return f"+1{DIGITS[:-4]}{ending}"


def forms(word: str) -> list[bytes]:
    """The ways in which a careless program would write a word down; of base64 what does not stand in every other id."""
    plain = word.encode()
    encoded = (
        base64.b64encode(plain)[:-4],
        base64.b64encode(b"x" + plain)[4:-4],
        base64.b64encode(b"xx" + plain)[4:-4],
    )
    return [plain, plain.hex().encode(), *(each for each in encoded if len(each) >= 8)]


def looked_for(text: bytes, words: tuple[str, ...] = PLANTED) -> list[str]:
    """Which of the planted words are in it, in whatever form."""
    return [word for word in words if any(form in text for form in forms(word))]


def dump(site: Site) -> bytes:
    """Every value of every row, and for SQLite the files themselves, with what is left in the
    log."""
    pieces = [b""]
    with site.runtime.database.engine.connect() as connection:
        for table in Job.metadata.sorted_tables:
            for row in connection.execute(sa.text(f"SELECT * FROM {table.name}")):
                pieces += [v if isinstance(v, bytes) else str(v).encode() for v in row]
    if site.runtime.database.is_sqlite:
        pieces += [path.read_bytes() for path in site.runtime.config.data_dir.glob("faxbot.db*")]
    return b"\n".join(pieces)


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """All that is logged meanwhile, as both of our formats write it and as a foreign one would."""
    lines: list[str] = []
    with caplog.at_level(logging.DEBUG):
        yield lines
    for record in caplog.records:
        lines += [JsonLines("test").format(record), TextLines().format(record)]
        lines.append(repr({**vars(record), "exc_info": None}) + record.getMessage())


SECRET = f"{NAME} at {number('0188')}, {HEADER}"
DEEDS: tuple[dict[str, Deed], ...] = (
    {"send": raises(CancelledError(SECRET))},
    {"fetch": raises(CancelledError(SECRET))},
    {"read_callback": raises(CancelledError(SECRET))},
    {"send": raises(ValueError(SECRET))},
    {"send": raises(Refused(SECRET, cause=SECRET))},
    {"send": raises(OutcomeUnknown(SECRET, cause=SECRET))},
    {"send": answers(SECRET)},
    {"fetch": raises(KeyError(SECRET))},
    {"fetch": answers(SECRET)},
    {"cancel": raises(RuntimeError(SECRET))},
    {"fetch": lambda _u, n: Update(State.FAILED, external_id=n, cause=SECRET, key=SECRET)},
    {"fetch": lambda _u, n: Update(State.PROGRESS, external_id=n, cause=SECRET, key=SECRET)},
    {"read_callback": raises(ValueError(SECRET))},
    {"read_callback": answers([SECRET])},
)


def every_road(site: Site) -> None:
    """Delivered, failed, refused, held, uncertain, cancelled, contradicted; and a provider that
    tells all it knows."""
    config = replace(site.runtime.config, calls_per_number=50)
    site.runtime = replace(site.runtime, config=config)
    faxes = [
        site.fax_to(
            number(ending),
            header=HEADER,
            key=f"{NAME}-{ending}",
            uploads=(site.upload(tiff(1) + SECRET.encode()),),
        )
        for ending in ("0044", "0017", "0404", "0422", "0433", "0504", "0403", "0188")
    ]
    site.work()
    for job_id in faxes:
        if site.at_carrier(job_id):
            account = site.final_at_carrier(job_id)
            site.receive(site.callback(account, to=number("0188"), note=NAME))
            site.receive(site.callback(account, status="failed", code=SECRET, n=2))
    site.work()
    for deeds in DEEDS:
        site.odd.does = {}
        site.after(700)
        site.sent()  # shows that the provider works: else its breaker would open
        site.odd.does = dict(deeds)
        job_id = site.fax_to(number("0044"), header=HEADER)
        site.work()
        if site.job(job_id).status == "sent":
            jobs.cancel(site.runtime, ACTOR, job_id)
        site.receive(site.signed(json.dumps({"to": number("0188"), "n": str(deeds)}).encode()))
        site.work()
        site.after(700)


def test_nothing_personal_is_in_the_database_or_in_any_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with logged(caplog) as lines:
        every_road(site)

    statuses = {status for (status,) in rows(site, "SELECT status FROM jobs")}
    kinds = {kind for (kind,) in rows(site, "SELECT type FROM events")}
    assert statuses >= {"delivered", "failed", "cancelled"}
    assert {
        "FAX_ANOMALY",
        "FAX_HELD",
        "FAX_RETRYING",
        "FAX_UNCERTAIN",
        "FAX_RECONCILED",
        "FAX_PROGRESS",
    } <= kinds
    assert len(lines) > 20
    assert looked_for(dump(site)) == []
    assert looked_for("\n".join(lines).encode()) == []
    names = [str(path) for path in site.runtime.config.data_dir.rglob("*")]
    assert looked_for("\n".join(names).encode()) == []


def rows(site: Site, query: str) -> list[Any]:
    with site.runtime.database.reading() as session:
        return list(session.execute(sa.text(query)))


def test_the_search_finds_what_is_there(site: Site) -> None:
    """Tags are the client's own words and are kept in clear, as documented: they prove the
    search."""
    site.fax_to(number("0044"), tags={"patient": NAME})

    assert looked_for(dump(site)) == [NAME]
    assert looked_for(base64.b64encode(b"ab" + SECRET.encode() + b"cd")) != []
    assert looked_for(SECRET.encode().hex().encode()) != []


def test_the_broker_learns_ids_and_nothing_else(
    site: Site, broker: str, redis_server: RedisServer
) -> None:
    ring = Bell(site.runtime.config)
    job_id = site.fax_to(number("0044"), header=HEADER)
    site.work()
    site.receive(site.callback(site.final_at_carrier(job_id), to=number("0188")))
    for task, row_id in [("faxbot.send_fax", job_id), *site.rung]:
        assert ring(task, row_id), broker

    seen = b""
    with redis_server.client() as client:
        for name in client.keys("*"):
            kind = client.type(name)
            value = client.lrange(name, 0, -1) if kind == b"list" else client.smembers(name)
            seen += name + b"\n".join(value)
            bodies = [json.loads(item)["body"] for item in value] if kind == b"list" else []
            seen += b"\n".join(base64.b64decode(body) for body in bodies)
    assert job_id.encode() in seen
    assert looked_for(seen) == []


def test_an_errors_text_does_not_quote_what_it_is_about(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    texts: list[str] = []
    upload = Upload(Path("/nowhere"), "0" * 64, 1, "image/tiff", 1)
    wish = Submission(to=Hidden(number("0188")), uploads=(upload,), header=Hidden(HEADER))
    job_id = site.fax_to(number("0044"), header=HEADER)
    job = site.job(job_id)
    other = Keyring({"other": bytes(32)}, "other")

    def refused_by_the_database() -> None:
        with refusing(site, "jobs"):
            site.submit(number("0188"), header=HEADER, tags={"patient": NAME})

    def failing() -> Iterator[Any]:
        yield lambda: jobs.submit(site.runtime, ACTOR, wish, key=NAME, present=lambda _: b"")
        yield lambda: site.submit(number("0188"), resolution=None, header=HEADER, key=NAME)
        yield lambda: site.submit(number("0188"), provider_id=NAME, header=HEADER)
        yield refused_by_the_database
        yield lambda: other.open(job.to_sealed, "jobs.to:default")
        yield lambda: phone.parse(f"{number('0188')} {NAME}")
        yield lambda: site.receive(
            CallbackRequest("POST", SECRET, {SECRET: SECRET}, SECRET.encode())
        )

    with logged(caplog) as lines:
        for deed in failing():
            with pytest.raises((FaxbotError, OSError, sa.exc.SQLAlchemyError)) as refused:
                deed()
            texts.append(f"{refused.value} {refused.value!r} {refused.value.__cause__}")

    assert len(texts) == 7
    assert looked_for("\n".join(texts + lines).encode()) == []


def test_what_is_printed_by_accident_shows_nothing(site: Site) -> None:
    job_id = site.fax_to(number("0044"), header=HEADER)
    seen: list[OutboundFax] = []

    def look(_usual: Any, fax: OutboundFax) -> object:
        seen.append(fax)
        raise Vanished

    site.odd.does["send"] = look
    with pytest.raises(Vanished):
        site.work()
    shown = [
        site.job(job_id),
        site.runtime,
        seen[0],
        Submission(to=Hidden(number("0188")), uploads=(), tags={"patient": NAME}),
        Answer(202, SECRET.encode(), False, job_id),
        CallbackRequest("POST", SECRET, {SECRET: SECRET}, SECRET.encode()),
        Hidden(SECRET),
        {"deep": [Hidden(SECRET.encode())]},
    ]

    assert seen[0].to.reveal() == number("0044")
    assert looked_for("\n".join(f"{item!r} {item}" for item in shown).encode()) == []
    assert jobs.describe(site.runtime, site.job(job_id), masked=True)["to"].endswith("•44")


def test_sealed_columns_open_only_where_they_belong(site: Site) -> None:
    first = site.job(site.fax_to(number("0044"), header=HEADER))
    assert first.header_sealed is not None
    swapped = Job(account_id="default", to_sealed=first.header_sealed, header_sealed=None)
    foreign = Job(account_id="other", to_sealed=first.to_sealed, header_sealed=None)

    for job in (swapped, foreign):
        with pytest.raises(FaxbotError, match="does not open"):
            jobs.number(site.runtime, job)
    assert jobs.header(site.runtime, first) == Hidden(HEADER)
    assert first.created_at - site.now <= timedelta(0)
