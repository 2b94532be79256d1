"""Who may use which address: every route states it, and it is decided before a byte of the body is read.

A route says what it needs with needs(): a scope of API keys, OPEN for everybody, SIGNATURE where the carrier proves
itself to the domain, or LINK where the address holds a token that the domain gave out. create_app() refuses to start
with a route that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Flask, current_app, g, request

from faxbot import identity
from faxbot.identity import Actor
from faxbot.runtime import Runtime

OPEN = "open"
SIGNATURE = "signature"
LINK = "link"
WITHOUT_KEY = (OPEN, SIGNATURE, LINK)
KEY_CHALLENGE, CARRIER_CHALLENGE = 'Bearer realm="faxbot"', 'Basic realm="faxbot"'

View = TypeVar("View", bound=Callable[..., Any])


def needs(access: str) -> Callable[[View], View]:
    """Mark a view with what it needs: a scope, OPEN, SIGNATURE or LINK."""

    def mark(view: View) -> View:
        view.access = access  # type: ignore[attr-defined] # a mark on the function, read by authorize()
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
    """Before each request: know the actor and his scope, or raise Unauthenticated or Forbidden."""
    if request.endpoint is None:
        return  # no such address or method: the router's own answer follows
    view: Any = current_app.view_functions[request.endpoint]
    access: str = view.access  # access_of() made sure that it is there
    if access not in WITHOUT_KEY:
        g.actor = identity.authenticate(runtime(), _presented())
        g.actor.require(access)


def challenge() -> str:
    """What a 401 asks for: a key; of a carrier the credentials in the address that it was given,
    which some clients keep until they are asked (RFC 9110, 11.6.1)."""
    view = current_app.view_functions.get(request.endpoint or "")
    return CARRIER_CHALLENGE if getattr(view, "access", None) == SIGNATURE else KEY_CHALLENGE


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
