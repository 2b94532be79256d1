"""What the tests of the HTTP API share: a client with a key, documents, and the look for what a request left behind."""

from __future__ import annotations

import io
import json
import re
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from urllib3.filepost import encode_multipart_formdata
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from faxbot import actors, identity, passwords, sessions, users, wiring
from faxbot.models import (
    Artifact,
    Attempt,
    Callback,
    FaxEvent,
    IdempotencyKey,
    Job,
    JobTag,
    User,
)
from faxbot.runtime import Runtime
from faxbot.web import schemas
from faxbot.web.app import create_app
from faxbot.web.auth import LINK, OPEN, SESSION, SIGNATURE, cookie_name
from tests.installation import Installation


class Unread(io.RawIOBase):
    """The body of a request of which nothing is to be read: a hundred megabytes, as far as anybody can tell."""

    def readable(self) -> bool:
        return True

    # werkzeug's client takes the length from here: where the end is said to be.
    _at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: 10**8}[whence] + offset
        return self._at

    def readinto(self, _buffer: object) -> int:
        raise AssertionError("it is read")


TEXT = b"One page of text.\n"
NUMBER = "+15550100000"
SECRET = "the carrier's secret"
TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
TABLES = (Job, FaxEvent, Attempt, Artifact, IdempotencyKey, JobTag, Callback)

ACCESS = {
    "POST /fax/send": "fax:send",
    "POST /fax": "fax:send",
    "GET /fax": "fax:read",
    "POST /fax/search": "fax:read",
    "GET /fax/<fax_id>": "fax:read",
    "GET /fax/<fax_id>/events": "fax:read",
    "GET /fax/<fax_id>/pdf": LINK,
    "GET /events": "events:read",
    "GET /events/stream": "events:read",
    "POST /fax/<fax_id>/cancel": "fax:send",
    "GET /fax/<fax_id>/evidence": "operate",
    "GET /fax/<fax_id>/document": "fax:read",
    "GET /fax/<fax_id>/pages/<number>": "fax:read",
    "POST /fax/<fax_id>/resend": "fax:send",
    "POST /fax/<fax_id>/hold": "fax:send",
    "POST /fax/<fax_id>/release": "fax:send",
    "POST /fax/<fax_id>/send-now": "fax:send",
    "POST /fax/<fax_id>/decide": "operate",
    "GET /admin/providers": "operate",
    "GET /admin/providers/<provider_id>": "operate",
    "POST /admin/providers/<provider_id>/pause": "operate",
    "POST /admin/providers/<provider_id>/resume": "operate",
    "POST /admin/providers/<provider_id>/reset": "operate",
    "POST /admin/providers/<provider_id>/test": "operate",
    "POST /admin/providers/<provider_id>/activate": "admin",
    "POST /admin/providers/<provider_id>/deactivate": "admin",
    "GET /admin/webhooks": "admin",
    "GET /admin/diagnostics": "admin",
    "GET /admin/health-status": "admin",
    "GET /admin/retention": "operate",
    "POST /admin/retention/run": "admin",
    "GET /fax/<fax_id>/legal-hold": "operate",
    "PUT /fax/<fax_id>/legal-hold": "admin",
    "DELETE /fax/<fax_id>/legal-hold": "admin",
    "GET /inbound/<inbound_id>/legal-hold": "operate",
    "PUT /inbound/<inbound_id>/legal-hold": "admin",
    "DELETE /inbound/<inbound_id>/legal-hold": "admin",
    "GET /admin/notifications": "operate",
    "POST /admin/notifications/<plugin_id>/test": "operate",
    "GET /plugins": "admin",
    "GET /plugins/health": "admin",
    "GET /plugins/<plugin_id>/config": "admin",
    "PUT /plugins/<plugin_id>/config": "admin",
    "POST /plugins/<plugin_id>/enable": "admin",
    "GET /plugin-registry": "admin",
    "POST /callbacks/<provider_id>": SIGNATURE,
    "POST /phaxio-callback": SIGNATURE,
    "POST /phaxio-inbound": SIGNATURE,
    "POST /sinch-inbound": SIGNATURE,
    "POST /inbound/callback": SIGNATURE,
    "POST /_internal/asterisk/inbound": SIGNATURE,
    "POST /_internal/freeswitch/outbound_result": SIGNATURE,
    "GET /inbound": "inbound:list",
    "GET /inbound/unread": "inbound:list",
    "GET /inbound/<inbound_id>": "inbound:read",
    "GET /inbound/<inbound_id>/pdf": "inbound:read or link",
    "GET /inbound/<inbound_id>/document": "inbound:read",
    "GET /inbound/<inbound_id>/pages/<number>": "inbound:read",
    "POST /inbound/<inbound_id>/link": "inbound:read",
    "POST /inbound/<inbound_id>/fetch": "inbound:read",
    "POST /inbound/<inbound_id>/give-up": "inbound:read",
    "POST /inbound/<inbound_id>/read": "inbound:read",
    "POST /inbound/<inbound_id>/unread": "inbound:read",
    "GET /metrics": "metrics or this machine",
    "GET /health": OPEN,
    "GET /health/ready": OPEN,
    "GET /openapi.json": OPEN,
    "GET /docs": OPEN,
    "GET /docs/": OPEN,
    "GET /": OPEN,
    "GET /static/docs.css": OPEN,
    "GET /admin/config": "admin",
    "PATCH /admin/config": "admin",
    "GET /admin/config/backups": "admin",
    "POST /admin/config/backups": "admin",
    "POST /admin/config/rollback": "admin",
    "GET /admin/config/export": "admin",
    "POST /admin/config/import": "admin",
    "GET /admin/features": "admin",
    "PATCH /admin/features": "admin",
    "GET /admin/api-keys": "keys:manage",
    "POST /admin/api-keys": "keys:manage",
    "POST /admin/api-keys/<key_id>/rotate": "keys:manage",
    "POST /admin/api-keys/<key_id>/expire": "keys:manage",
    "DELETE /admin/api-keys/<key_id>": "keys:manage",
    "GET /admin/users": "admin",
    "POST /admin/users": "admin",
    "POST /admin/users/<user_id>/role": "admin",
    "POST /admin/users/<user_id>/password": "admin",
    "POST /admin/users/<user_id>/disable": "admin",
    "POST /admin/users/<user_id>/enable": "admin",
    "POST /admin/users/<user_id>/unlock": "admin",
    "POST /admin/session": OPEN,
    "GET /admin/session/providers": OPEN,
    "GET /admin/session/providers/<plugin_id>/begin": OPEN,
    "GET /admin/session/providers/<plugin_id>/finish": OPEN,
    "GET /admin/session": SESSION,
    "DELETE /admin/session": SESSION,
    "POST /admin/session/password": SESSION,
    "GET /admin/audit": "admin",
    "GET /admin/audit/verify": "admin",
    "GET /webhooks": "webhooks:manage",
    "POST /webhooks": "webhooks:manage",
    "GET /webhooks/<webhook_id>": "webhooks:manage",
    "PATCH /webhooks/<webhook_id>": "webhooks:manage",
    "DELETE /webhooks/<webhook_id>": "webhooks:manage",
    "POST /webhooks/<webhook_id>/test": "webhooks:manage",
    "POST /webhooks/<webhook_id>/rotate": "webhooks:manage",
    "GET /webhooks/<webhook_id>/deliveries": "webhooks:manage",
    "POST /webhooks/<webhook_id>/replay": "webhooks:manage",
    "GET /webhooks/deliveries/<delivery_id>": "webhooks:manage",
    "POST /webhooks/deliveries/<delivery_id>/replay": "webhooks:manage",
}
"""Who may use which route. A new route is a decision: it is made here too."""


def ahead(days: float) -> str:
    """A time so many days after noon of today, as clients write it: no test has a date that will pass."""
    return (TODAY + timedelta(days=days)).isoformat().replace("+00:00", "Z")


def opened(store: Installation) -> AbstractContextManager[Runtime]:
    """What this installation has, as another process would see it."""
    return closing(wiring.build(store.config()))


def new_key(runtime: Runtime, *scopes: str, account_id: str = "default") -> str:
    with runtime.database.transaction() as session:
        _, token = identity.create_key(
            session,
            runtime.keyring,
            name="test",
            scopes=scopes or ("fax:send", "fax:read"),
            now=runtime.now(),
            actor=replace(actors.CLI, account_id=account_id),
        )
    return token


def new_user(
    runtime: Runtime,
    role: str = actors.ADMIN,
    *,
    name: str | None = None,
    password: str | None = None,
    account_id: str = "default",
) -> User:
    """Without a password nobody can sign in as him; begun() does it for the test."""
    with runtime.database.transaction() as session:
        user = users.create(
            session,
            replace(actors.CLI, account_id=account_id),
            name=name or f"{role} {secrets.token_hex(4)}",
            password=None,
            role=role,
            now=runtime.now(),
        )
        if password is not None:
            user.password_hash, user.password_changed_at = _kept(password), runtime.now()
        return user


@cache
def _kept(password: str) -> str:
    """It takes an eighth of a second of a processor, and the tests know three passwords."""
    return passwords.keep(password)


def begun(runtime: Runtime, user: User) -> str:
    """The token of a new session of this user."""
    with runtime.database.transaction() as session:
        held = session.get_one(User, user.id)
        return sessions.begin(runtime, session, actors.CLI, held, now=runtime.now()).token


def browser_of(runtime: Runtime, user: User, *, csrf: bool = True) -> FlaskClient:
    """A client with a session of this user, as the console has one."""
    client, token = client_of(runtime), begun(runtime, user)
    client.set_cookie(cookie_name(runtime.config), token)
    if csrf:
        client.environ_base["HTTP_X_CSRF_TOKEN"] = sessions.csrf_token(runtime, token)
    return client


_DOCUMENT: dict[str, Any] = {}


class DocumentedClient(FlaskClient):
    """A client that finds every answer in the OpenAPI document, by its status and media type."""

    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        response = super().open(*arguments, **options)
        method, path = response.request.method, response.request.path
        try:
            rule, _ = self.application.url_map.bind("").match(path, method, return_rule=True)
        except HTTPException:
            return response  # no such route
        item = _document(self.application)["paths"].get(re.sub("<(.*?)>", r"{\1}", rule.rule), {})
        if method.lower() in item:
            answers = item[method.lower()]["responses"]
            assert str(response.status_code) in answers, (method, rule.rule, response.status_code)
            assert response.mimetype in answers[str(response.status_code)]["content"]
        return response


def _document(app: Flask) -> dict[str, Any]:
    if not _DOCUMENT:
        _DOCUMENT.update(json.loads(FlaskClient(app, app.response_class).get("/openapi.json").data))
    return _DOCUMENT


def client_of(runtime: Runtime, key: str | None = None) -> FlaskClient:
    """A client of the application; each of its requests shows `key`."""
    app = create_app(runtime)
    app.test_client_class = DocumentedClient
    client = app.test_client()
    if key is not None:
        client.environ_base["HTTP_X_API_KEY"] = key
    return client


Field = str | tuple[str, bytes] | tuple[str, bytes, str] | list[str]
"""Of a form: text, a file (name, content, maybe type), or several texts."""


def post(
    client: FlaskClient,
    fields: Iterable[tuple[str, Field]],
    path: str = "/fax/send",
    **headers: str,
) -> TestResponse:
    """POST a form as clients encode it."""
    single = [
        (name, one)
        for name, value in fields
        for one in (value if isinstance(value, list) else [value])
    ]
    body, content_type = encode_multipart_formdata(single)
    return client.post(path, data=body, content_type=content_type, headers=headers)


def send(
    client: FlaskClient,
    *documents: bytes,
    key: str | None = None,
    path: str = "/fax/send",
    to: str | None = NUMBER,
    **fields: Any,
) -> TestResponse:
    """Submit a fax; without documents it is a page of text. Tags as {"tags[name]": value}."""
    headers = {} if key is None else {"Idempotency-Key": key}
    files: list[tuple[str, Field]] = [("file", ("document", data)) for data in documents or (TEXT,)]
    number: list[tuple[str, Field]] = [] if to is None else [("to", to)]
    return post(client, [*number, *files, *fields.items()], path, **headers)


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """It is our one error body, with this status and code; its members."""
    body: dict[str, Any] = json.loads(response.data)
    assert (response.status_code, body["type"]) == (status, f"/docs#{code}"), body
    assert response.content_type == "application/problem+json"
    assert schemas.Problem().validate(body) == {}
    assert body["status"] == status
    assert body["detail"] != body["title"]
    about_fields = [sentence for sentences in body["errors"].values() for sentence in sentences]
    for sentence in (body["title"], body["detail"], *about_fields):
        assert re.fullmatch(r"[A-Z`].*\.", sentence), sentence
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body


def left_behind(runtime: Runtime, tables: Iterable[Any] = TABLES) -> dict[str, Any]:
    """Rows by table, and files in spool and storage; empty where a request left nothing."""
    with runtime.database.reading() as session:
        counts = {
            table.__tablename__: session.scalar(sa.select(sa.func.count()).select_from(table))
            for table in tables
        }
    data = runtime.config.data_dir
    files = [
        str(path.relative_to(data))
        for folder in ("spool", "documents")
        for path in (data / folder).rglob("*")
        if path.is_file()
    ]
    return {name: found for name, found in {**counts, "files": files}.items() if found}
