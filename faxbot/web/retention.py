"""/admin/retention: what is kept how long, and what runs of retention removed; and legal holds of faxes."""

from __future__ import annotations

from typing import Any

from flask import Response

from faxbot import legalholds, retention
from faxbot.errors import NotFound, NotPossibleNow
from faxbot.legalholds import FAX, INBOUND
from faxbot.results import stamp
from faxbot.web import api, problems
from faxbot.web.auth import actor, runtime
from faxbot.web.retention_schemas import (
    LegalHoldQuery,
    LegalHolds,
    LegalHoldWish,
    Retention,
    RetentionAsked,
    RetentionQuery,
)

blueprint = api.Blueprint(
    "retention", __name__, description="What is removed when, and what must be kept."
)
_FAX_ID = [api.path("fax_id", "the fax's id")]
_INBOUND_ID = [api.path("inbound_id", "its id")]
_HOLDS = {
    200: api.answer(LegalHolds, "Its legal holds, newest first; those that were lifted, too.")
}


@blueprint.operation(
    "GET",
    "/admin/retention",
    access="operate",
    query=RetentionQuery(),
    answers={200: api.answer(Retention, "What is kept how long, and the newest runs.")},
)
def read_retention(query: dict[str, Any]) -> Response:
    """See what retention removes, and has removed"""
    config = runtime().config
    return api.reply(
        problems.dumps(
            {
                "days": retention.kept(config),
                "next_at": stamp(retention.next_at(config, runtime().now())),
                "runs": retention.runs(runtime(), limit=query["limit"]),
            }
        )
    )


@blueprint.operation(
    "POST",
    "/admin/retention/run",
    access="admin",
    answers={202: api.answer(RetentionAsked, "A worker works on it.")},
)
def run_retention() -> Response:
    """Have what is old removed now

    Where a run is under way already, it is that one.
    """
    run_id = retention.ask(runtime(), actor())
    runtime().ring(retention.TASK, run_id)
    return api.reply(problems.dumps({"id": run_id}), 202)


@blueprint.operation(
    "GET",
    "/fax/<fax_id>/legal-hold",
    access="operate",
    answers=_HOLDS,
    errors=(NotFound,),
    parameters=_FAX_ID,
)
def read_fax_holds(fax_id: str) -> Response:
    """See the legal holds of a fax"""
    return _holds(FAX, fax_id)


@blueprint.operation(
    "PUT",
    "/fax/<fax_id>/legal-hold",
    access="admin",
    body=LegalHoldWish(),
    answers=_HOLDS,
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def hold_fax(wish: dict[str, Any], fax_id: str) -> Response:
    """Keep all of a fax

    Nothing of it is removed, neither here nor at its carrier, until the hold is lifted.
    """
    legalholds.hold(runtime(), actor(), FAX, fax_id, wish["reason"])
    return _holds(FAX, fax_id)


@blueprint.operation(
    "DELETE",
    "/fax/<fax_id>/legal-hold",
    access="admin",
    query=LegalHoldQuery(),
    answers=_HOLDS,
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def lift_fax_hold(query: dict[str, Any], fax_id: str) -> Response:
    """Lift the legal hold of a fax

    Where there are several, `hold` says which. Without the last one it goes by its age again: what is old enough is
    removed by the next run.
    """
    legalholds.lift(runtime(), actor(), FAX, fax_id, query.get("hold"))
    return _holds(FAX, fax_id)


@blueprint.operation(
    "GET",
    "/inbound/<inbound_id>/legal-hold",
    access="operate",
    answers=_HOLDS,
    errors=(NotFound,),
    parameters=_INBOUND_ID,
)
def read_inbound_holds(inbound_id: str) -> Response:
    """See the legal holds of a received fax"""
    return _holds(INBOUND, inbound_id)


@blueprint.operation(
    "PUT",
    "/inbound/<inbound_id>/legal-hold",
    access="admin",
    body=LegalHoldWish(),
    answers=_HOLDS,
    errors=(NotFound, NotPossibleNow),
    parameters=_INBOUND_ID,
)
def hold_inbound(wish: dict[str, Any], inbound_id: str) -> Response:
    """Keep all of a received fax

    Nothing of it is removed until the hold is lifted.
    """
    legalholds.hold(runtime(), actor(), INBOUND, inbound_id, wish["reason"])
    return _holds(INBOUND, inbound_id)


@blueprint.operation(
    "DELETE",
    "/inbound/<inbound_id>/legal-hold",
    access="admin",
    query=LegalHoldQuery(),
    answers=_HOLDS,
    errors=(NotFound, NotPossibleNow),
    parameters=_INBOUND_ID,
)
def lift_inbound_hold(query: dict[str, Any], inbound_id: str) -> Response:
    """Lift the legal hold of a received fax

    Where there are several, `hold` says which. Without the last one it goes by its age again: what is old enough is
    removed by the next run.
    """
    legalholds.lift(runtime(), actor(), INBOUND, inbound_id, query.get("hold"))
    return _holds(INBOUND, inbound_id)


def _holds(kind: str, fax_id: str) -> Response:
    return api.reply(problems.dumps({"items": legalholds.of(runtime(), actor(), kind, fax_id)}))
