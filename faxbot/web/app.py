"""The web application: create_app(runtime) puts the blueprints, the access rules and the one error body together."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from faxbot import logcontext, spool
from faxbot.errors import FailedLogins, FaxbotError, Forbidden, Unauthenticated
from faxbot.runtime import Runtime
from faxbot.web import (
    api,
    audit,
    auth,
    callbacks,
    config,
    console,
    diagnostics,
    docs,
    events,
    faxes,
    health,
    inbound,
    keys,
    metrics,
    notifications,
    patience,
    plugins,
    providers,
    retention,
    session,
    terminal,
    users,
    webhooks,
)
from faxbot.web.console import frame
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
    metrics.blueprint,
    diagnostics.blueprint,
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


_OUR_ID = re.compile(r"[0-9a-f]{32}")
_LOGGED_IDS = {"fax_id": "job_id", "inbound_id": "inbound_id"}
"""Parts of an address that are logged where they look like our ids, and as what."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
access_log = logging.getLogger("faxbot.web.access")


class Route(Rule):
    """A rule that is taken apart once in a process, however many applications have it, and that learns how its address
    is built when somebody asks: nobody of ours does. Werkzeug takes more time for both than for all the rest of an
    application (measured)."""

    def compile(self) -> None:
        known = _TAKEN_APART.get(self.rule)
        if known is None:
            super().compile()
            _TAKEN_APART[self.rule] = self._parts, self._trace, self._converters, self.arguments
            return
        self._parts, self._trace, self._converters, arguments = known
        self.arguments |= arguments
        self._build = self._compile_builder(False).__get__(self, None)
        self._build_unknown = self._compile_builder(True).__get__(self, None)

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = super()._compile_builder

        def build(route: Rule, *values: Any, **named: Any) -> tuple[str, str]:
            return compiled(append_unknown)(route, *values, **named)

        return build


_TAKEN_APART: dict[str, tuple[list[Any], list[Any], dict[str, Any], set[str]]] = {}
"""By their addresses: all our applications read these alike."""


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
    app.teardown_request(_forget)
    app.register_error_handler(FaxbotError, _failed)
    app.register_error_handler(ParseException, api.unreadable)
    app.register_error_handler(HTTPException, api.refused)
    # Off, its address is like any that does not exist.
    local = (terminal.blueprint,) if runtime.config.local_admin else ()
    blueprints = (*BLUEPRINTS, *local)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    docs.publish(app, blueprints, runtime)
    console.publish(app, runtime.config)
    auth.access_of(app)
    spool.collect(runtime.config.spool_dir)
    return app


def _begin() -> None:
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
    g.begun = time.perf_counter()
    ids = {name: (request.view_args or {}).get(part, "") for part, name in _LOGGED_IDS.items()}
    named = {name: value for name, value in ids.items() if _OUR_ID.fullmatch(value)}
    logcontext.begin(request_id=g.request_id, **named)
    auth.authorize()
    if "actor" in g:
        patience.trust(request.environ)


def _failed(error: FaxbotError) -> Response:
    if isinstance(error, (Unauthenticated, Forbidden, FailedLogins)):
        auth.note_refusal(error)
    return api.failed(error)


def _finish(response: Response) -> Response:
    if request.path.startswith(frame.HOME):
        response = frame.finish(response)
    headers = response.headers
    headers["X-Request-Id"] = g.request_id
    for name, value in SECURITY_HEADERS:
        headers.setdefault(name, value)
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    _log_access(response)
    return response


def _log_access(response: Response) -> None:
    """One line a request: what was asked for by its route, whose parts in <> are left out, and never a query."""
    rule = "" if request.url_rule is None else request.url_rule.rule
    asks = g.get("actor")
    well = response.status_code < 400
    # Machines ask for these all the time.
    level = logging.DEBUG if well and rule.startswith("/health") else logging.INFO
    access_log.log(
        level,
        "request",
        extra={
            "method": request.method if request.method in _METHODS else "other",
            "route": rule,
            "status": response.status_code,
            "ms": round((time.perf_counter() - g.begun) * 1000, 1),
            "bytes": response.content_length,
            **({"actor_kind": asks.kind, "actor": asks.id} if asks else {}),
        },
    )


def _forget(_error: BaseException | None) -> None:
    logcontext.begin()
