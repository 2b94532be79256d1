"""The web application: create_app(runtime) puts the blueprints, the access rules and the one error body together."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any

from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from faxbot import spool
from faxbot.errors import FailedLogins, FaxbotError, Forbidden, Unauthenticated
from faxbot.runtime import Runtime
from faxbot.web import (
    api,
    audit,
    auth,
    callbacks,
    config,
    docs,
    events,
    faxes,
    health,
    inbound,
    keys,
    notifications,
    patience,
    plugins,
    providers,
    retention,
    session,
    users,
    webhooks,
)
from faxbot.web.streams import Streams

BLUEPRINTS = (
    faxes.blueprint,
    events.blueprint,
    callbacks.blueprint,
    inbound.blueprint,
    providers.blueprint,
    notifications.blueprint,
    plugins.blueprint,
    health.blueprint,
    config.blueprint,
    keys.blueprint,
    users.blueprint,
    session.blueprint,
    audit.blueprint,
    webhooks.blueprint,
    retention.blueprint,
)
JSON_BYTES = 64 * 1024
"""The largest body of a request that is neither a submission nor a callback."""
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", _POLICY),
)
# It is logged: a UUID or a longer hexadecimal number, with a letter in it, is neither a name nor a telephone number.
_REQUEST_ID = re.compile(
    r"(?=.*[a-f])([0-9a-f]{16,64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE
)


class Route(Rule):
    """A rule that learns how its address is built when somebody asks: nobody of ours does, and werkzeug takes more
    time for that than for all the rest of an application (25 of 30 ms, measured)."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = super()._compile_builder

        def build(route: Rule, *values: Any, **named: Any) -> tuple[str, str]:
            return compiled(append_unknown)(route, *values, **named)

        return build


class Application(Flask):
    """Flask that logs a failure without its message, and calls views as they are."""

    url_rule_class = Route

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """None of ours is a coroutine; Flask would ask that of each function at each request."""
        return func

    def log_exception(
        self,
        exc_info: tuple[type, BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> None:
        if exc_info[1] is not None:
            api.log_failure(exc_info[1])


def create_app(runtime: Runtime) -> Flask:
    """The application over `runtime`; raises LookupError when a route does not say who may use it."""
    app = Application("faxbot.web", static_folder=None)
    app.extensions["faxbot"] = runtime
    app.extensions["faxbot.streams"] = Streams(runtime)
    app.config.update(
        MAX_CONTENT_LENGTH=JSON_BYTES,
        PROVIDE_AUTOMATIC_OPTIONS=False,  # an OPTIONS that nobody asked for would need an access rule
    )
    app.url_map.merge_slashes = False
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(FaxbotError, _failed)
    app.register_error_handler(ParseException, api.unreadable)
    app.register_error_handler(HTTPException, api.refused)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    docs.publish(app, BLUEPRINTS, runtime)
    auth.access_of(app)
    spool.collect(runtime.config.spool_dir)
    return app


def _begin() -> None:
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
    auth.authorize()
    if "actor" in g:
        patience.trust(request.environ)


def _failed(error: FaxbotError) -> Response:
    if isinstance(error, (Unauthenticated, Forbidden, FailedLogins)):
        auth.note_refusal(error)
    return api.failed(error)


def _finish(response: Response) -> Response:
    headers = response.headers
    headers["X-Request-Id"] = g.request_id
    for name, value in SECURITY_HEADERS:
        headers[name] = value
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    return response
