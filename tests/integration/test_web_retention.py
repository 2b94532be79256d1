"""Retention and legal holds over HTTP and on the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from faxbot.audit import Action
from faxbot.config import SPOKEN
from faxbot.db import new_id, table
from faxbot.models import AuditEvent, InboundFax
from faxbot.purging import CLASSES
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.command import Ended, run
from tests.integration.site import Site, open_site
from tests.integration.test_retention import ended, refusing_deletes
from tests.integration.web import assert_problem, client_of, new_key

REASON = "litigation, St. Mary"


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all) as site:
        yield site


def body(answer: TestResponse) -> Any:
    return json.loads(answer.data)


def old(site: Site) -> str:
    """A delivered fax that is older than a month, by the clock of the machine, too."""
    site.now -= timedelta(days=40)
    job_id = ended(site)
    site.now += timedelta(days=40)
    return job_id


def came(site: Site) -> str:
    inbound_id, now = new_id(), site.now
    with site.runtime.database.transaction() as session:
        session.add(
            InboundFax(
                id=inbound_id, provider_id="simulator", external_id="in-1", status="received",
                numbers_sealed=b"", received_at=now, created_at=now, updated_at=now,
            )
        )  # fmt: skip
    return inbound_id


def deeds(site: Site, *actions: Action) -> list[tuple[str, str | None, str | None]]:
    found = site.runtime.database.rows(sa.select(table(AuditEvent)).order_by(AuditEvent.id), {})
    return [(row.action, row.object_kind, row.object_id) for row in found if row.action in actions]


def test_an_operator_sees_what_is_kept_and_every_run_with_its_figures(site: Site) -> None:
    old(site)
    operator = client_of(site.runtime, new_key(site.runtime, "operate"))
    admin = client_of(site.runtime, new_key(site.runtime, "admin"))
    assert admin.post("/admin/retention/run").status_code == 202
    run_id = body(admin.post("/admin/retention/run"))["id"]
    assert ("faxbot.purge", run_id) in site.rung
    site.work()
    shown = body(operator.get("/admin/retention"))

    assert shown["days"] == dict.fromkeys(CLASSES, 30)
    assert shown["next_at"].endswith("T00:00:00Z")
    first = shown["runs"][0]
    assert (first["id"], first["state"]) == (run_id, "done")
    proof = {each["class"]: each for each in first["classes"]}["document"]
    assert (proof["expected"], proof["deleted"], proof["outcome"]) == (1, 1, "done")
    assert deeds(site, Action.RETENTION_ASKED) == [("retention.asked", "retention", run_id)]
    assert deeds(site, Action.RETENTION_ENDED)[-1] == ("retention.ended", "retention", run_id)
    assert_problem(operator.post("/admin/retention/run"), 403, "forbidden")
    assert_problem(operator.get("/admin/retention?limit=0"), 422, "invalid-fields")


@pytest.mark.parametrize("kind", ["fax", "inbound"])
def test_a_hold_is_placed_seen_and_lifted_and_each_is_written_down(site: Site, kind: str) -> None:
    fax_id = site.fax() if kind == "fax" else came(site)
    path = f"/{kind}/{fax_id}/legal-hold"
    admin = client_of(site.runtime, new_key(site.runtime, "admin", "fax:read", "inbound:read"))
    operator = client_of(site.runtime, new_key(site.runtime, "operate"))
    placed = admin.put(path, json={"reason": REASON})
    assert placed.status_code == 200, placed.data
    (hold,) = body(operator.get(path))["items"]
    assert (hold["reason"], hold["lifted_at"]) == (REASON, None)
    since = body(admin.get(f"/{kind}/{fax_id}"))["legal_hold_at"]
    assert since == hold["placed_at"]
    site.now += timedelta(hours=1)
    assert len(body(admin.put(path, json={"reason": "another"}))["items"]) == 2
    assert body(admin.get(f"/{kind}/{fax_id}"))["legal_hold_at"] == since, (
        "it holds since the first"
    )

    assert_problem(admin.delete(path), 409, "not-possible-in-this-state")
    assert_problem(admin.delete(f"{path}?hold={'0' * 32}"), 404, "not-found")
    assert len(body(admin.delete(f"{path}?hold={hold['id']}"))["items"]) == 2
    assert body(admin.get(f"/{kind}/{fax_id}"))["legal_hold_at"] == since
    items = body(admin.delete(path))["items"]
    assert all(each["lifted_at"] for each in items)
    assert admin.delete(path).status_code == 200
    assert body(admin.get(f"/{kind}/{fax_id}"))["legal_hold_at"] is None
    actions = (Action.LEGAL_HOLD_PLACED, Action.LEGAL_HOLD_LIFTED)
    assert deeds(site, *actions) == [
        ("legal_hold.placed", kind, fax_id),
        ("legal_hold.placed", kind, fax_id),
        ("legal_hold.lifted", kind, fax_id),
        ("legal_hold.lifted", kind, fax_id),
    ]
    assert REASON not in str(site.runtime.database.rows(sa.select(table(AuditEvent)), {}))


@pytest.mark.parametrize(
    "wish", [{}, {"reason": ""}, {"reason": "x" * 501}, {"reason": 7}, {"reason": "x", "b": 1}, []]
)
def test_a_hold_without_a_sound_reason_is_refused_and_leaves_nothing(
    site: Site, wish: object
) -> None:
    fax_id = site.fax()
    admin = client_of(site.runtime, new_key(site.runtime, "admin"))
    assert admin.put(f"/fax/{fax_id}/legal-hold", json=wish).status_code in (400, 422)
    assert site.job(fax_id).legal_hold_at is None
    assert body(admin.get(f"/fax/{fax_id}/legal-hold")) == {"items": []}
    for unknown in ("0" * 32, "nobody", "%00", "0" * 31 + "%00", "0" * 33):
        assert_problem(admin.get(f"/fax/{unknown}/legal-hold"), 404, "not-found")
        answer = admin.put(f"/fax/{unknown}/legal-hold", json={"reason": "x"})
        assert_problem(answer, 404, "not-found")
        assert_problem(admin.delete(f"/fax/{unknown}/legal-hold"), 404, "not-found")


# The command ----------------------------------------------------------------------------------------


def told(store: Installation, text: str, *words: str) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(text))
        return run(store, *words)


def test_the_command_rehearses_runs_and_shows(store: Installation, site: Site) -> None:
    job_id = old(site)
    rehearsal = run(store, "retention", "run", "--dry-run", "--json").json
    assert (rehearsal["document"], rehearsal["webhooks"]) == (1, 0)
    assert site.job(job_id).to_sealed
    words = run(store, "retention", "run", "--dry-run")
    assert "document    1" in words.out
    assert "nothing was changed" in words.out

    done = run(store, "retention", "run")
    assert done.code == 0, done.err
    assert len(deeds(site, Action.RETENTION_ASKED)) == 1
    assert "1 of 1" in done.out
    assert site.job(job_id).to_sealed == b""
    listed = run(store, "retention", "list")
    assert "ARTIFACT_TTL_DAYS" in listed.out
    assert "asked by cli" in listed.out
    as_json = run(store, "retention", "list", "--json").json
    assert as_json["runs"][0]["state"] == "done"
    again = run(store, "retention", "run")
    assert "nothing was old enough" in again.out


def test_the_command_holds_and_lifts(store: Installation, site: Site) -> None:
    job_id = old(site)
    held = told(store, f"{REASON}\n", "retention", "hold", job_id)
    assert (held.code, REASON in held.out) == (0, False)
    assert run(store, "retention", "run").code == 0
    assert site.job(job_id).to_sealed
    assert REASON in run(store, "retention", "holds", job_id).out
    (hold,) = run(store, "retention", "holds", job_id, "--json").json["items"]
    lifted = run(store, "retention", "lift", job_id, "--hold", hold["id"])
    assert lifted.out == "lifted\n"
    actions = (Action.LEGAL_HOLD_PLACED, Action.LEGAL_HOLD_LIFTED)
    assert deeds(site, *actions) == [(str(each), "fax", job_id) for each in actions]
    assert run(store, "retention", "run").code == 0
    assert site.job(job_id).to_sealed == b""

    for words, said in (
        (("hold", "nobody"), "32 hex digits"),
        (("hold", "0" * 32), "there is no fax"),
        (("lift", "0" * 32, "--inbound"), "there is no fax"),
    ):
        ended = told(store, "why\n", "retention", *words)
        assert ended.code != 0
        assert said in ended.err
    empty = told(store, "\n", "retention", "hold", job_id)
    assert (empty.code, "no reason was given" in empty.err) == (2, True)
    long = told(store, "x" * 501, "retention", "hold", job_id)
    assert (long.code, "longer than 500" in long.err) == (2, True)
    assert site.job(job_id).legal_hold_at is None


def test_a_run_that_was_broken_off_ends_the_command_with_1(store: Installation, site: Site) -> None:
    old(site)
    with refusing_deletes(site, "document"):
        done = run(store, "retention", "run", "--json")
    assert done.code == 1
    outcomes = {each["class"]: each["outcome"] for each in json.loads(done.out)["classes"]}
    assert (outcomes["document"], outcomes["numbers"]) == ("mismatch", "done")
    assert run(store, "retention", "run").code == 0


@pytest.mark.usefixtures("site")
def test_how_long_a_class_is_kept_is_set_by_either_of_its_names(store: Installation) -> None:
    assert set(SPOKEN) == {f"storage.retention.{name}" for name in CLASSES}
    for name in CLASSES:
        spoken, days = f"storage.retention.{name}", 40 + len(name)
        assert run(store, "config", "set", spoken, str(days), "--note", "agreed").code == 0
        assert run(store, "config", "get", SPOKEN[spoken]).out.startswith(str(days))


@pytest.mark.parametrize("days", ["29", "1.5", "36501", "never"])
def test_a_time_that_cannot_be_is_refused(store: Installation, site: Site, days: str) -> None:
    refused = run(store, "config", "set", "storage.retention.webhooks", days, "--note", "n")
    assert refused.code == 1
    assert "STORAGE_RETENTION_WEBHOOKS_DAYS" in refused.err
    assert site.runtime.fresh().config.webhooks_days == 30
