"""/admin/audit: the audit trail, and whether it is as it was written."""

from __future__ import annotations

from typing import Any

from flask import Response

from faxbot import audit, auditors, verification
from faxbot.audit import Action
from faxbot.auditors import Filters
from faxbot.errors import Malformed
from faxbot.web import api, problems
from faxbot.web.audit_schemas import AuditPage, AuditQuery, AuditVerdict, AuditVerifyQuery
from faxbot.web.auth import actor, runtime

MOST_LINKS = 20_000
"""So many of the chain are looked at by one request: about a second."""

blueprint = api.Blueprint("audit", __name__, description="Who did what to which object.")


@blueprint.operation(
    "GET",
    "/admin/audit",
    access="admin",
    query=AuditQuery(),
    answers={200: api.answer(AuditPage, "A page of the audit trail, newest first.")},
    errors=(Malformed,),
)
def read_audit(query: dict[str, Any]) -> Response:
    """Read the audit trail

    Pages by cursor: follow `next` until it is null. That it was read is written into it as well.
    """
    limit, cursor = query.pop("limit"), query.pop("cursor", None)
    found = auditors.page(runtime(), actor(), Filters(**query), limit=limit, cursor=cursor)
    return api.reply(problems.dumps(found))


@blueprint.operation(
    "GET",
    "/admin/audit/verify",
    access="admin",
    query=AuditVerifyQuery(),
    answers={200: api.answer(AuditVerdict, "What was found.")},
)
def verify_audit(query: dict[str, Any]) -> Response:
    """Verify the audit trail

    Whether a row was changed, removed, inserted or re-ordered since it was linked. A long trail takes several requests:
    ask again with `next` as `after` until it is null.
    """
    return api.reply(problems.dumps(verdict(**query)))


def verdict(**query: Any) -> dict[str, Any]:
    """What verification.verify() finds in so much of the chain, which is written down."""
    report = verification.verify(runtime(), actor().account_id, most=MOST_LINKS, **query)
    outcome = audit.DONE if report.ok else audit.FAILED
    details = {"links": report.links, "faults": report.fault_count}
    audit.note(runtime(), actor(), Action.AUDIT_VERIFIED, outcome=outcome, details=details)
    return report.described()
