"""What pages ask the database: nothing is counted without an end, nothing is skipped by OFFSET, and how much is asked
does not grow with the rows that a page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot.actors import ADMIN
from faxbot.db import table
from faxbot.models import Job
from tests.integration.console import CONSOLE, page
from tests.integration.site import Site
from tests.integration.web import browser_of, new_user

HOT = re.compile(
    r"\b(jobs|events|attempts|callbacks|webhook_deliveries|artifacts|inbound_faxes|audit_events|notices)\b"
)
LISTS = ("/admin/ui/", "/admin/ui/faxes", "/admin/ui/needs-you", "/admin/ui/inbound")
PAGES = sorted(
    route.partition(" ")[2]
    for route in CONSOLE
    if route.startswith("GET ") and "sign-in" not in route and "static" not in route
)


@pytest.fixture
def admin(site: Site) -> FlaskClient:
    return browser_of(site.runtime, new_user(site.runtime, ADMIN))


@contextmanager
def overheard(site: Site) -> Iterator[list[tuple[str, Any]]]:
    """The statements of this process, with their values."""
    found: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        found.append((text, values))

    engines = {site.runtime.database.engine, site.runtime.database.reader}
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", hear)
    try:
        yield found
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", hear)


def skips(text: str, values: Any) -> bool:
    """Whether it passes over rows. For SQLite SQLAlchemy writes an OFFSET of 0 beside a limit within a statement."""
    places = [text.count("?", 0, found.start()) for found in re.finditer(r"(?<=OFFSET )\?", text)]
    if any(values[place] != 0 for place in places):
        return True
    return "OFFSET" in text.replace("OFFSET ?", "")


def test_an_offset_is_noticed_on_both_stores(site: Site) -> None:
    jobs = sa.select(table(Job).c.id).limit(5)
    within = sa.select(jobs.subquery())
    for query, found in ((jobs, False), (within, False), (jobs.offset(10), True)):
        with overheard(site) as statements:
            site.runtime.database.rows(query, {})
        assert [skips(*one) for one in statements] == [found]


def test_no_page_counts_without_an_end_or_skips_rows(site: Site, admin: FlaskClient) -> None:
    known = {
        "fax_id": site.sent("0403"),
        "user_id": new_user(site.runtime, ADMIN).id,
        "provider_id": "simulator",
        "plugin_id": "email",
        "name": "FAX_HEADER",
        "form": "csv",
    }
    paths = [
        re.sub("<([a-z_]+)>", lambda found: known.get(found[1], "0" * 32), path) for path in PAGES
    ]
    filtered = "/admin/ui/faxes?tab=failed&provider_id=simulator"
    with overheard(site) as statements:
        for path in [*paths, filtered]:
            assert admin.get(path).status_code < 500
    assert len(statements) > len(PAGES)
    for text, values in statements:
        if not HOT.search(text):
            continue
        assert not skips(text, values), text
        if "count(" in text.lower():
            assert "LIMIT" in text.upper(), f"counted without an end: {text}"


@pytest.mark.parametrize("path", LISTS)
def test_a_page_asks_as_much_for_many_faxes_as_for_few(
    site: Site, admin: FlaskClient, path: str
) -> None:
    def asked() -> int:
        with overheard(site) as statements:
            page(admin, path)
        return len(statements)

    site.fax(), site.sent("0403")
    asked()  # what is known from then on
    few = asked()
    for _ in range(5):
        site.fax(), site.sent("0403")
    assert asked() <= few + 1
