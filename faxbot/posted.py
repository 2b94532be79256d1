"""A carrier's request as it is kept: packed and sealed in the callback's row, a large body beside it in storage."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import sqlalchemy as sa

from faxbot import artifacts
from faxbot.artifacts import Upload, Workspace
from faxbot.db import Database, table
from faxbot.errors import ArtifactNotFound
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import Artifact
from faxbot.plugins.base import CallbackRequest
from faxbot.runtime import Runtime

PLACE = f"callbacks.raw:{DEFAULT_ACCOUNT}"
"""Where packed requests are sealed to (Keyring.seal)."""
ROLE = "request"
"""Of an artifact that is the body of a callback."""


def pack(request: CallbackRequest, proof: str | None = None) -> bytes:
    """Everything of it; of a body in a file its hash. `proof`: what says which message it is, where that is not its
    body (trait `repeat_header`)."""
    packed: dict[str, Any] = {
        "method": request.method, "url": request.url, "headers": dict(request.headers),
        **({"proof": proof} if proof else {}),
    }  # fmt: skip
    if request.file is None:
        return json.dumps({**packed, "body": base64.b64encode(request.body).decode()}).encode()
    digest, _ = artifacts.hash_file(request.file)
    return json.dumps({**packed, "sha256": digest}).encode()


def said(packed: bytes) -> bytes:
    """Equal for a message that the carrier posts again; kept as a keyed hash, because it holds PHI."""
    parts = json.loads(packed)
    if "proof" in parts:
        return f"proof\n{parts['proof']}".encode()
    if "sha256" in parts:
        return f"{parts['url']}\nsha256:{parts['sha256']}".encode()
    return str(parts["url"]).encode() + b"\n" + base64.b64decode(parts["body"])


def keep_body(runtime: Runtime, request: CallbackRequest, callback_id: str) -> list[dict[str, Any]]:
    """Store a body that lies in a file, durable on return: the values of its artifact's row, which the caller commits
    or discards; nothing where the body is packed."""
    if request.file is None:
        return []
    digest, size = artifacts.hash_file(request.file)
    upload = Upload(request.file, digest, size, "application/octet-stream", 0)
    owner = {"callback_id": callback_id}
    return [
        artifacts.store(
            runtime, upload, owner=owner, account_id=DEFAULT_ACCOUNT, role=ROLE, position=0,
            now=runtime.now(),
        )
    ]  # fmt: skip


def opened(
    runtime: Runtime, callback_id: str, sealed: bytes, workspace: Workspace
) -> CallbackRequest:
    """The kept request, a large body in a file of the workspace; raises Unsealable, and ArtifactNotFound where the
    body is gone."""
    parts = json.loads(runtime.keyring.open(sealed, PLACE))
    in_file = "sha256" in parts
    body = b"" if in_file else base64.b64decode(parts["body"])
    file = _body(runtime, callback_id, workspace) if in_file else None
    return CallbackRequest(parts["method"], parts["url"], parts["headers"], body, file)


class Content(NamedTuple):
    """What a kept request says, without its address's query, which holds a token; no body where that lies in storage,
    or is gone (`size` is None then)."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    size: int | None


def content(runtime: Runtime, callback_id: str, sealed: bytes) -> Content:
    """The kept request, to be looked at; raises Unsealable."""
    parts = json.loads(runtime.keyring.open(sealed, PLACE))
    body, size = None, None
    if "sha256" not in parts:
        body = base64.b64decode(parts["body"])
        size = len(body)
    elif (artifact := body_of(runtime.database, callback_id)) is not None:
        size = artifact.size
    return Content(parts["method"], urlsplit(parts["url"]).path, parts["headers"], body, size)


def _body(runtime: Runtime, callback_id: str, workspace: Workspace) -> Path:
    artifact = body_of(runtime.database, callback_id)
    if artifact is None:
        raise ArtifactNotFound
    return artifacts.fetch(runtime, artifact, workspace)


def body_of(database: Database, callback_id: str) -> artifacts.ArtifactRow | None:
    """The stored body of a callback, where it is too large to be in its row."""
    return database.row(_BODY, {"callback_id": callback_id})


_BODY = sa.select(table(Artifact)).where(
    Artifact.callback_id == sa.bindparam("callback_id"), Artifact.role == ROLE
)


def forget_body(runtime: Runtime, callback_id: str) -> None:
    """Nobody needs the stored body of this callback any more."""
    artifact = body_of(runtime.database, callback_id)
    if artifact is not None:
        artifacts.forget(runtime, [artifact._asdict()])
