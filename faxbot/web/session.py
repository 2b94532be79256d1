"""/admin/session: sign in, see who is signed in, sign out."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from faxbot import sessions, signin
from faxbot.errors import (
    DatabaseAway,
    FailedLogins,
    Forbidden,
    IdentityAway,
    InvalidFields,
    NotFound,
    SignInCrowded,
    Unauthenticated,
)
from faxbot.sessions import Login
from faxbot.web import api, auth, people_schemas, problems
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint("session", __name__, description="Sign in to the console, and out.")

_HERE = {200: api.answer(people_schemas.Session, "Who has signed in, and until when.")}


@blueprint.operation(
    "POST",
    "/admin/session",
    access=auth.OPEN,
    body=people_schemas.Credentials(),
    answers={
        200: api.answer(
            people_schemas.Session,
            "Who has signed in.",
            headers={"Set-Cookie": "the session, for a browser to keep; scripts cannot read it"},
        )
    },
    errors=(Unauthenticated, Forbidden, FailedLogins, SignInCrowded, DatabaseAway),
)
def sign_in(wish: dict[str, Any]) -> Response:
    """Sign in

    Always a new session. What changes something shows `csrf_token` as X-CSRF-Token from now on. A page that asks by
    itself, without its user, sends the header X-Background: that keeps nobody signed in.
    """
    auth.must_be_ours()
    return _begun(sessions.log_in(runtime(), auth.newcomer(), **wish))


def _begun(login: Login) -> Response:
    answer = api.reply(problems.dumps(sessions.describe(runtime(), login.token)))
    auth.keep_session(answer, login.token)
    return answer


_PLUGIN_ID = [api.path("plugin_id", "the identity plugin's id", "oidc")]
_ELSEWHERE = {302: api.answer(people_schemas.Elsewhere, "Where the browser goes.")}


@blueprint.operation(
    "GET",
    "/admin/session/providers",
    access=auth.OPEN,
    answers={200: api.answer(people_schemas.SignInWays, "Identity providers, beside passwords.")},
    errors=(DatabaseAway,),
)
def list_sign_in_ways() -> Response:
    """See through whom one can sign in"""
    items = [
        {**way, "begin": f"/admin/session/providers/{way['id']}/begin"}
        for way in signin.ways(runtime())
    ]
    return api.reply(problems.dumps({"items": items}))


@blueprint.operation(
    "GET",
    "/admin/session/providers/<plugin_id>/begin",
    access=auth.OPEN,
    answers=_ELSEWHERE,
    errors=(NotFound, IdentityAway, DatabaseAway),
    parameters=_PLUGIN_ID,
)
def begin_sign_in(plugin_id: str) -> Response:
    """Sign in at an identity provider: go there"""
    url, kept = signin.begin(runtime(), plugin_id)
    answer = _elsewhere(url)
    auth.keep_journey(answer, kept)
    return answer


@blueprint.operation(
    "GET",
    "/admin/session/providers/<plugin_id>/finish",
    access=auth.OPEN,
    answers=_ELSEWHERE,
    errors=(NotFound, Unauthenticated, FailedLogins, IdentityAway, DatabaseAway),
    parameters=_PLUGIN_ID,
)
def finish_sign_in(plugin_id: str) -> Response:
    """Sign in at an identity provider: come back

    The provider sends the browser here. It must be the browser that was sent there, within ten minutes.
    """
    came = request.args.to_dict()
    login = signin.finish(runtime(), auth.newcomer(), plugin_id, came, auth.journey())
    answer = _elsewhere("/admin/ui/")
    auth.keep_session(answer, login.token)
    auth.keep_journey(answer, None)
    return answer


def _elsewhere(url: str) -> Response:
    answer = api.reply(problems.dumps({"location": url}), 302)
    answer.headers["Location"] = url
    return answer


@blueprint.operation("GET", "/admin/session", access=auth.SESSION, answers=_HERE)
def read_session() -> Response:
    """See who is signed in"""
    return api.reply(problems.dumps(sessions.describe(runtime(), auth.session_token() or "")))


@blueprint.operation(
    "POST",
    "/admin/session/password",
    access=auth.SESSION,
    body=people_schemas.OwnPasswordWish(),
    answers=_HERE,
    errors=(InvalidFields, SignInCrowded),
)
def change_own_password(wish: dict[str, Any]) -> Response:
    """Change one's own password

    All of one's sessions end, and this browser gets a new one.
    """
    return _begun(
        sessions.change_own_password(runtime(), actor(), wish["old_password"], wish["password"])
    )


@blueprint.operation(
    "DELETE",
    "/admin/session",
    access=auth.SESSION,
    answers={200: api.answer(people_schemas.SignedOut, "The session is over.")},
)
def sign_out() -> Response:
    """Sign out"""
    sessions.end(runtime(), actor(), auth.session_token() or "")
    answer = api.reply(problems.dumps({"status": "signed out"}))
    auth.keep_session(answer, None)
    return answer
