"""The addresses that carriers are given: where they call back about one attempt, and where they may
fetch its document.

Such an address names the attempt by its tag and carries a token of ours, so that nobody comes whom
it was not given to; of who calls back the carrier's own proof is asked for as well.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import sqlalchemy as sa

from faxbot.errors import Unauthenticated
from faxbot.hidden import Hidden
from faxbot.models import Attempt
from faxbot.runtime import Runtime

TOKEN_LENGTH = 32
_CALLBACK, _LINK = "callback token", "document link"


def of_callbacks(runtime: Runtime, attempt: Attempt) -> str:
    """Where the carrier is to call back about this attempt."""
    query = f"attempt={attempt.tag}&token={_token(runtime, attempt.tag)}"
    return f"{attempt.callback_base}/callbacks/{attempt.provider_id}?{query}"


def is_ours(runtime: Runtime, url: str) -> bool:
    """Whether this address names an attempt with its token, or none: then it is of the account, and
    the carrier was told of it by people."""
    asked = _asked(url)
    if "attempt" not in asked:
        return True
    tag, token = asked["attempt"][-1], asked.get("token", [""])[-1]
    return _is_one_of(_tokens(runtime, tag), token)


def attempt_of(url: str) -> str:
    """The tag of the attempt that an address for callbacks names; empty where it names none."""
    return _asked(url).get("attempt", [""])[-1]


def given(runtime: Runtime, url: str) -> str:
    """This address as it was given to the carrier: PUBLIC_API_URL may have changed since."""
    tag = attempt_of(url)
    row = runtime.database.row(_BASE, {"tag": tag}) if tag else None
    if row is None or row.callback_base is None:
        return url
    path: str = url.removeprefix(runtime.config.base_url)
    return f"{row.callback_base}{path}"


def of_document(runtime: Runtime, attempt: Attempt) -> Hidden[str]:
    """Where the carrier may fetch the document of this attempt, for PDF_TOKEN_TTL_MINUTES and while
    the attempt lasts. Whoever has this address has the document."""
    until = runtime.now() + timedelta(minutes=runtime.config.pdf_token_ttl_minutes)
    what = f"{attempt.tag}.{int(until.timestamp()):x}"
    path = f"/fax/{attempt.job_id}/pdf?token={what}.{_proof(runtime, attempt.job_id, what)}"
    return Hidden(f"{runtime.config.base_url}{path}")


def admit_to_document(runtime: Runtime, job_id: str, token: str) -> None:
    """Raise Unauthenticated unless this is the token of a link to the document of this fax that may
    still be fetched."""
    what, _, proof = token.rpartition(".")
    tag, _, until = what.partition(".")
    if _is_one_of(runtime.keyring.hashes(f"{job_id}.{what}".encode(), _LINK), proof):
        good_until = datetime.fromtimestamp(int(until, 16), UTC)
        row = runtime.database.row(_LASTS, {"tag": tag})
        if row is not None and runtime.now() < good_until:
            return
    raise Unauthenticated("this link is not one of ours, or its time is over")


def _proof(runtime: Runtime, job_id: str, what: str) -> str:
    return runtime.keyring.keyed_hash(f"{job_id}.{what}".encode(), _LINK)


_LASTS = sa.select(Attempt.id).where(Attempt.tag == sa.bindparam("tag"), Attempt.ended_at.is_(None))
_BASE = sa.select(Attempt.callback_base).where(Attempt.tag == sa.bindparam("tag"))


def _asked(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


def _token(runtime: Runtime, tag: str) -> str:
    return runtime.keyring.keyed_hash(tag.encode(), _CALLBACK)[:TOKEN_LENGTH]


def _tokens(runtime: Runtime, tag: str) -> list[str]:
    """Several for a while after the master key was changed: carriers have the addresses that they were given."""
    return [each[:TOKEN_LENGTH] for each in runtime.keyring.hashes(tag.encode(), _CALLBACK)]


def _is_one_of(good: Iterable[str], shown: str) -> bool:
    """In a time that tells nothing of which."""
    matches = [hmac.compare_digest(each.encode(), shown.encode()) for each in good]
    return any(matches)
