"""Who may use which address: every route states it, and it is decided before a byte of the body is read.

A route says what it needs with needs(): a scope, which comes with an API key or a session; SESSION for whoever has
signed in; OPEN for everybody; SIGNATURE where the carrier proves itself to the domain; or LINK where the address holds
a token that the domain gave out, which may also stand in for a scope (OR_LINK), as may that somebody asks on this very
machine (OR_HERE). create_app() refuses to start with a route that says nothing.

A browser sends the session's cookie by itself, whoever made it ask: what changes something needs X-CSRF-Token too, and
must not come from another site; that last holds also where nobody needs a key. A key is never sent by itself, and
needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, request

from faxbot import audit, identity, limits, origins, sessions
from faxbot.actors import STRANGER, USER, Actor
from faxbot.audit import Action
from faxbot.config import Config
from faxbot.errors import FailedLogins, Forbidden, Unauthenticated
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.hidden import Hidden
from faxbot.runtime import Runtime
from faxbot.signin import JOURNEY

SESSION = "session"
OPEN = "open"
SIGNATURE = "signature"
LINK = "link"
OR_LINK = " or link"
"""Behind a scope: who shows a token and no key comes by a link."""
OR_HERE = " or this machine"
"""Likewise: who shows nothing and asks on this machine needs no key (is_here)."""
WITHOUT_KEY = (OPEN, SIGNATURE, LINK)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
KEY_CHALLENGE, CARRIER_CHALLENGE = 'Bearer realm="faxbot"', 'Basic realm="faxbot"'

View = TypeVar("View", bound=Callable[..., Any])


def needs(access: str, *, in_background: bool = False) -> Callable[[View], View]:
    """Mark a view with what it needs: a scope, SESSION, OPEN, SIGNATURE or LINK. `in_background`: a page asks for it by
    itself, again and again, which keeps nobody signed in."""

    def mark(view: View) -> View:
        # Marks on the function, read by authorize().
        view.access, view.in_background = access, in_background  # type: ignore[attr-defined]
        return view

    return mark


def access_of(app: Flask) -> dict[str, str]:
    """What each endpoint needs; raises LookupError for a route that does not say."""
    found: dict[str, str] = {}
    for rule in app.url_map.iter_rules():
        access = getattr(app.view_functions[rule.endpoint], "access", None)
        if access is None:
            raise LookupError(
                f"the route {rule.rule} does not say who may use it: mark its view with needs()"
            )
        found[rule.endpoint] = access
    return found


def authorize() -> None:
    """Before each request: know the actor and his scope, or raise Unauthenticated, Forbidden, FailedLogins or
    RequestsPerMinute."""
    if request.endpoint is None:
        return  # no such address or method: the router's own answer follows
    view: Any = current_app.view_functions[request.endpoint]
    access: str = view.access  # access_of() made sure that it is there
    if access.endswith(OR_LINK):
        by_link = "token" in request.args and _presented() is None
        access = LINK if by_link else access.removesuffix(OR_LINK)
    elif access.endswith(OR_HERE):
        shows_nothing = shown() == NOTHING
        access = OPEN if shows_nothing and is_here() else access.removesuffix(OR_HERE)
    g.access = access
    if access not in WITHOUT_KEY:
        key = _presented()
        token = session_token() if key is None else None
        came_from = address()
        by_itself = view.in_background or in_background()
        asks = (
            sessions.authenticate(runtime(), token, in_background=by_itself)
            if token
            else identity.authenticate(runtime(), key, came_from)
        )
        g.actor = replace(asks, request_id=g.request_id, address=came_from)
        if key is None and request.method not in _SAFE:
            _must_be_meant(token)
        limits.admit(runtime(), asks)
        if access != SESSION:
            g.actor.require(access)
        elif asks.kind != USER:
            raise Forbidden("This is for people who have signed in; a key has no session.")


def scope_of(access: str) -> str:
    """What a route needs of who comes by no other way."""
    return access.removesuffix(OR_LINK).removesuffix(OR_HERE)


_PASSED_ON = (
    "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP", "HTTP_X_CLUSTER_CLIENT_IP",
    "HTTP_TRUE_CLIENT_IP", "HTTP_CF_CONNECTING_IP", "HTTP_CF_RAY", "HTTP_FASTLY_CLIENT_IP",
)  # fmt: skip
"""Beside X-Forwarded-...: what proxies add."""


def came_straight() -> bool:
    """Whether who asks is connected from this very machine, with nothing that is known to stand in between: behind a
    proxy here everybody would look so. A page of another site whose name leads here (DNS rebinding) asks for that
    name. A proxy that adds no header is not seen: go by more than this."""
    environ = request.environ
    passed_on = any(name in _PASSED_ON or name.startswith("HTTP_X_FORWARDED") for name in environ)
    return (
        not passed_on
        and not runtime().config.trusted_networks
        and origins.is_loopback(environ.get("REMOTE_ADDR", ""))
        and origins.names_loopback(environ.get("HTTP_HOST", ""))
    )


def is_here() -> bool:
    """Whether a program of this machine asks, for itself. It is never believed in production, or where PUBLIC_API_URL
    is an address outside of this machine: not all proxies say that they are one."""
    config = runtime().config
    name = urlsplit(config.base_url).hostname or ""
    return not config.production and origins.names_loopback(name) and came_straight()


def in_background() -> bool:
    """Whether a page asks by itself for what its user has asked for before."""
    return "HTTP_X_BACKGROUND" in request.environ


def newcomer() -> Actor:
    """Who is about to sign in, before he has said who he is."""
    return Actor(DEFAULT_ACCOUNT, "anonymous", frozenset(), USER, g.request_id, address())


def _must_be_meant(token: str | None) -> None:
    """Raise Forbidden for what a browser may have been made to ask: with this session, or, where nobody needs a key,
    with nothing."""
    must_be_ours()
    if token:
        sessions.check_csrf(runtime(), token, request.headers.get("X-CSRF-Token", ""))


def must_be_ours() -> None:
    """Raise Forbidden for a request that a page of another site makes. A browser says so itself (Sec-Fetch-Site);
    an older one names the page's origin, which must be this server's, as its client or PUBLIC_API_URL calls it."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        names = (request.host, urlsplit(runtime().config.base_url).netloc)
        ours = origin is None or origin.partition("://")[2] in names
    if not ours:
        raise Forbidden("A page of another site may not do this.")


# Who stays -----------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """What a client proved himself with: a key, a session's token, or, where nobody needs a key, nothing."""

    key: Hidden[str] | None
    token: Hidden[str] | None


NOTHING = Shown(None, None)


def shown() -> Shown:
    """What this request's client showed."""
    key = _presented()
    token = session_token() if key is None else None
    return Shown(Hidden(key) if key else None, Hidden(token) if token else None)


def may_still(runtime: Runtime, earlier: Collection[Shown], scope: str) -> set[Shown]:
    """Of those who were let in with this the ones who would be now, and have `scope`; two statements for all of them.
    Raises DatabaseAway."""
    tokens = {each: each.token.reveal() for each in earlier if each.token}
    keys = {each: each.key.reveal() if each.key else None for each in earlier if not each.token}
    signed_in = sessions.still_good(runtime, tokens.values())
    with_key = identity.still_good(runtime, keys.values())
    now = {each: signed_in.get(token) for each, token in tokens.items()}
    now |= {each: with_key.get(key) for each, key in keys.items()}
    return {each for each, actor in now.items() if actor is not None and actor.may(scope)}


# The session's cookie ---------------------------------------------------------------------------------


def cookie_name(config: Config) -> str:
    """Where the address is https, only this very host can set a cookie of this name (RFC 6265bis, 4.1.3.2)."""
    return "__Host-faxbot" if _is_https(config) else "faxbot_session"


def _is_https(config: Config) -> bool:
    return config.base_url.startswith("https://")


def session_token() -> str | None:
    """The session that the client shows, if any."""
    if "HTTP_COOKIE" not in request.environ:
        return None
    return request.cookies.get(cookie_name(runtime().config)) or None


def keep_session(response: Response, token: str | None) -> None:
    """Have the browser show this session from now on, until it is closed; None: show none any more."""
    name = cookie_name(runtime().config)
    _keep(response, name, token, seconds=None, samesite="Strict")


def journey() -> str | None:
    """What a browser kept that was sent to an identity provider."""
    return request.cookies.get(_journey_name())


def keep_journey(response: Response, kept: str | None) -> None:
    """Have the browser keep this until it comes back from an identity provider; None: no more. It comes back from
    another site, with which a strict cookie does not travel."""
    seconds = int(JOURNEY.total_seconds())
    _keep(response, _journey_name(), kept, seconds=seconds, samesite="Lax")


def _keep(
    response: Response, name: str, value: str | None, *, seconds: int | None, samesite: str
) -> None:
    """Have the browser keep a value that no script reads, for so long (None: until it is closed); no value: none any
    more."""
    response.set_cookie(
        name,
        value or "",
        max_age=seconds if value else 0,
        path="/",
        secure=_is_https(runtime().config),
        httponly=True,
        samesite=samesite,
    )


def _journey_name() -> str:
    return cookie_name(runtime().config) + "_journey"


# What views ask -----------------------------------------------------------------------------------------


def address() -> str | None:
    """Where the request comes from: who is connected, or who a proxy of FAXBOT_TRUSTED_PROXIES says it speaks for."""
    environ, trusted = request.environ, runtime().config.trusted_networks
    peer = environ.get("REMOTE_ADDR", "")
    if not trusted:
        return str(peer) or None
    return origins.client(peer, environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)


def note_refusal(error: Unauthenticated | Forbidden | FailedLogins) -> None:
    """Have a refusal written down: of a known actor what he may not do, of a stranger how he tried to get in."""
    rule = str(request.url_rule or "")
    if "actor" in g:
        if not isinstance(error, Forbidden):
            return  # the deed has written it down
        details = {"route": f"{request.method} {rule}"}
        audit.note(
            process(), actor(), Action.ACCESS_REFUSED, outcome=audit.REFUSED, details=details
        )
        return
    access = g.get("access")
    if access == OPEN and not isinstance(error, FailedLogins):
        return  # who signs in: sessions and signin write that down themselves
    shows_session = access not in WITHOUT_KEY and _presented() is None and session_token()
    by = "session" if shows_session else access if access in WITHOUT_KEY else "key"
    by = "sign-in" if access == OPEN else by
    why = error.why if isinstance(error, Unauthenticated) else error.code
    details = {"by": by, "why": why}
    stranger = Actor(DEFAULT_ACCOUNT, "stranger", frozenset(), STRANGER, g.request_id, address())
    key_id = error.key_id if isinstance(error, Unauthenticated) else None
    of = ("key", key_id) if key_id else None
    audit.note(
        process(), stranger, Action.AUTHENTICATION_FAILED, of, outcome=audit.REFUSED, details=details
    )  # fmt: skip


def challenge() -> str:
    """What a 401 asks for: a key; of a carrier the credentials in the address that it was given,
    which some clients keep until they are asked (RFC 9110, 11.6.1)."""
    return CARRIER_CHALLENGE if g.get("access") == SIGNATURE else KEY_CHALLENGE


def _presented() -> str | None:
    """The key that the client shows: X-API-Key, or Authorization: Bearer."""
    environ = request.environ
    key = environ.get("HTTP_X_API_KEY")
    if key is None:
        scheme, _, key = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
    return str(key).strip() or None


def actor() -> Actor:
    """Who makes this request."""
    return cast(Actor, g.actor)


def runtime() -> Runtime:
    """What this process works with, as it is set when the request begins; raises DatabaseAway and
    ConfigError as Runtime.fresh()."""
    if "runtime" not in g:
        g.runtime = process().fresh()
    return cast(Runtime, g.runtime)


def process() -> Runtime:
    """The same as it was set when the process began: for what must answer in any case."""
    return cast(Runtime, current_app.extensions["faxbot"])
