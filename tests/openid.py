"""OpenID providers for tests: somebody else's, as a process of its own; and one that says whatever a test wants, be it
true or forged."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from faxbot.testing.standin import Answer, Asked
from tests.ground import eventually
from tests.servers import free_port

PATIENCE = 30.0


class ProviderProcess:
    """oidc-provider-mock, which knows nothing of faxbot; clients must register, and requests must bring a nonce."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()

    def __enter__(self) -> Self:
        port = self.url.rpartition(":")[2]
        words = ["--port", port, "--require-registration", "true", "--require-nonce", "true"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "oidc_provider_mock", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._is_there, PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)

    def _is_there(self) -> bool:
        with suppress(requests.ConnectionError):
            return self._session.get(self.url, timeout=PATIENCE).ok
        return False

    def register(self, return_url: str) -> dict[str, str]:
        """A client that may be sent back to `return_url`: its client_id and client_secret."""
        answer = self._session.post(
            f"{self.url}/oauth2/clients", json={"redirect_uris": [return_url]}, timeout=PATIENCE
        )
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def knows(self, subject: str, **claims: Any) -> None:
        """Let somebody be known there."""
        self._session.put(f"{self.url}/users/{subject}", json=claims, timeout=PATIENCE)

    def sign_in(self, page: str, subject: str, action: str = "authorize") -> str:
        """Do in its form what somebody does; where his browser is sent then."""
        answer = self._session.post(
            page,
            data={"sub": subject, "action": action},
            allow_redirects=False,
            timeout=PATIENCE,
        )
        assert answer.status_code == 302, answer.text
        return str(answer.headers["Location"])


def made_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def published(key: RSAPrivateKey, key_id: str) -> dict[str, Any]:
    """A key as a provider publishes it."""
    found: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": key_id, "use": "sig"}


Forge = Callable[["Script", dict[str, Any]], str]
"""Makes the ID token of the claims that would be right."""


def honest(script: Script, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, script.key, "RS256", headers={"kid": "one"})


@dataclass
class Script:
    """What a provider of a test says (faxbot.testing.standin). It holds codes to their PKCE challenge."""

    key: RSAPrivateKey
    client_id: str = "faxbot"
    url: str = ""
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "248289761001"})
    forge: Forge = honest
    about: dict[str, Any] = field(default_factory=dict)
    token: Callable[[Asked], Answer] | None = None
    keys: list[dict[str, Any]] | None = None
    waiting: dict[str, dict[str, str]] = field(default_factory=dict)
    """By code: what its request asked for."""

    def sign_in(self, page: str) -> str:
        """As ProviderProcess.sign_in()."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(page).query).items()}
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self.waiting[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"

    def behave(self, asked: Asked) -> Answer:
        if asked.path == "/.well-known/openid-configuration":
            return Answer(body=self._about())
        if asked.path == "/keys":
            return Answer(body={"keys": self.keys or [published(self.key, "one")]})
        assert asked.path == "/token"
        return self.token(asked) if self.token else self._exchanged(asked)

    def _about(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            **self.about,
        }

    def _exchanged(self, asked: Asked) -> Answer:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        wish = self.waiting.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        proven = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            wish is None
            or proven != wish["code_challenge"]
            or form["redirect_uri"] != wish["redirect_uri"]
        ):
            return Answer(400, {"error": "invalid_grant"})
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": wish["nonce"],
            **self.claims,
        }
        return Answer(body={"id_token": self.forge(self, claims), "token_type": "Bearer"})


def unsigned(claims: dict[str, Any], head: dict[str, Any], signature: bytes = b"") -> str:
    """A token with any head and signature, as forgers write it."""
    parts = [json.dumps(part).encode() for part in (head, claims)]
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature)
    )
