"""Who may use the stand-in Sinch: Basic with the access key, or a bearer token that was got with it.

Tokens are JWTs (RFC 7519) signed with the key's secret, so they outlive a restart. The token
endpoint has a bucket of 30 that fills by 10 a second; it answers 429 without Retry-After
(sinch/skills, sinch-authentication).
"""

from __future__ import annotations

import binascii
import hmac
import json
import threading
import time
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from urllib.parse import parse_qs

from faxbot.carriers.door import Answer, Request

BUCKET = 30
REFILL_PER_SECOND = 10.0

_HEAD = urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Account:
    """The project and its access key."""

    project_id: str
    key: str
    secret: str


class Access:
    """Admits requests, gives tokens, and counts who asked for one."""

    def __init__(self, account: Account, token_seconds: float) -> None:
        self._account = account
        self._token_seconds = token_seconds
        self._lock = threading.Lock()
        self._level, self._filled_at = float(BUCKET), time.monotonic()
        self._none_before = 0.0
        self._counts = {"asked": 0, "given": 0, "refused": 0, "throttled": 0}

    def counts(self) -> dict[str, int]:
        """Requests for a token since the start, and what became of them."""
        with self._lock:
            return dict(self._counts)

    def expire_tokens(self) -> None:
        """From now on every token that was given is expired."""
        self._none_before = time.time()

    def refusal(self, request: Request, project_id: str) -> Answer | None:
        """Why a request is not admitted to the project, or None."""
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            state = self._state_of(value.strip())
        else:
            state = "good" if self._is_key(kind, value) else "bad"
        if state == "expired":
            return unauthorized(
                'Bearer error="invalid_token", error_description="The token has expired"'
            )
        if state == "bad" or not _equal(project_id, self._account.project_id):
            return unauthorized()
        return None

    def give_token(self, request: Request) -> Answer:
        """Answer POST /oauth2/token (RFC 6749, 4.4 and 5)."""
        with self._lock:
            self._counts["asked"] += 1
            answer = self._token(request)
            self._counts[{200: "given", 429: "throttled"}.get(answer.status, "refused")] += 1
        return answer

    def _token(self, request: Request) -> Answer:
        if not self._has_room():
            return Answer(429, b"")
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if not self._is_key(kind, value):
            return Answer(401, {"error": "invalid_client"}, {"WWW-Authenticate": "Basic"})
        if not request.headers.get("content-type", "").startswith(
            "application/x-www-form-urlencoded"
        ):
            return Answer(400, {"error": "invalid_request"})
        grant = parse_qs(request.body.decode("latin-1")).get("grant_type", [])
        if grant != ["client_credentials"]:
            return Answer(400, {"error": "unsupported_grant_type"})
        content = {
            "access_token": self._new_token(),
            "expires_in": int(self._token_seconds),
            "scope": "",
            "token_type": "bearer",
        }
        return Answer(200, content, {"Cache-Control": "no-store"})

    def _has_room(self) -> bool:
        """Take one from the bucket, if there is one."""
        now = time.monotonic()
        filled = self._level + (now - self._filled_at) * REFILL_PER_SECOND
        self._level, self._filled_at = min(float(BUCKET), filled), now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def _is_key(self, kind: str, value: str) -> bool:
        if kind.lower() != "basic":
            return False
        try:
            given = b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self._account.key}:{self._account.secret}".encode())

    def _new_token(self) -> str:
        now = time.time()
        claims = {"sub": self._account.key, "iat": now, "exp": now + self._token_seconds}
        body = f"{_HEAD}.{_encoded(json.dumps(claims).encode())}"
        return f"{body}.{self._proof(body)}"

    def _proof(self, body: str) -> str:
        return _encoded(hmac.digest(self._account.secret.encode(), body.encode(), "sha256"))

    def _state_of(self, token: str) -> str:
        """`good`, `expired` or `bad`."""
        body, _, proof = token.rpartition(".")
        if not _equal(proof, self._proof(body)):
            return "bad"
        claims = json.loads(urlsafe_b64decode(body.partition(".")[2] + "=="))
        fresh = claims["iat"] >= self._none_before and time.time() < claims["exp"]
        return "good" if fresh else "expired"


def unauthorized(scheme: str = "Basic") -> Answer:
    """401 without a body (OpenAPI, Error Messages)."""
    return Answer(401, b"", {"WWW-Authenticate": scheme})


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
