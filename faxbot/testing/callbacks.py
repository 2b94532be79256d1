"""Requests that no carrier sent, made from genuine ones or of nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from faxbot.errors import PluginError
from faxbot.plugins.base import CallbackRequest
from faxbot.plugins.manifest import Manifest

_OTHER_DIGITS = bytes.maketrans(b"0123456789", b"1234567890")


def forgeries(
    manifest: Manifest, genuine: CallbackRequest
) -> Iterator[tuple[str, CallbackRequest]]:
    """What was done to it, and the request that must be refused now. The body counts only where it is signed (trait
    `webhook_hmac`)."""
    headers = dict(genuine.headers)
    proofs = [name for name in _proofs(manifest, headers) if name in headers]
    if not proofs:
        raise PluginError(
            "it has no header with a proof: say in the manifest which (verify_header:X-...)"
        )
    for proof in proofs:
        text = headers[proof]
        rest = {name: value for name, value in headers.items() if name != proof}
        yield f"without {proof}", replace(genuine, headers=rest)
        for how, other in (("empty", ""), ("cut", text[: len(text) // 2]), ("bent", _bent(text))):
            yield f"{proof} {how}", replace(genuine, headers={**rest, proof: other})
        yield f"{proof} not ASCII", replace(genuine, headers={**rest, proof: text[:-1] + "\xe9"})
    if manifest.has("webhook_hmac"):
        yield "body cut", replace(genuine, body=genuine.body[: len(genuine.body) // 2])
        yield "no body", replace(genuine, body=b"")
        yield (
            "other digits in its body",
            replace(genuine, body=genuine.body.translate(_OTHER_DIGITS)),
        )


def odd_requests(genuine: list[CallbackRequest]) -> Iterator[CallbackRequest]:
    """What strangers post: nothing of it may do more than be refused."""
    headers: list[Mapping[str, str]] = [{}, {"content-type": "application/json"}]
    headers += [{"content-type": "multipart/form-data; boundary="}, {"authorization": "Basic \xff"}]
    bodies = [b"", b"{}", b"[]", b"null", b'"x"', b"7", b"\xff\xfe\x00", b"[" * 100_000]
    bodies += [b'{"fax": 5, "id": {}, "status": []}', b'{"fax": {"id": "\\u0000"}}', b"fax=%ff&a"]
    for body in bodies:
        for each in headers:
            yield CallbackRequest("POST", "https://fax.example.com/callbacks/x", each, body)
    for request in genuine:
        for body in (*bodies, request.body[: len(request.body) // 2], request.body[1:]):
            yield replace(request, body=body)
        yield replace(request, url="http://[::1")
        yield replace(request, headers=dict.fromkeys(request.headers, "ÿ"))


def other_secrets(manifest: Manifest, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every secret among the settings, as another account has it."""
    return {key: f"other-{settings[key]}" for key in manifest.secrets & settings.keys()}


def _proofs(manifest: Manifest, headers: Mapping[str, str]) -> tuple[str, ...]:
    named = tuple(name.lower() for name in manifest.values("verify_header"))
    if named or not manifest.has("webhook_basic_auth"):
        return named or tuple(name for name in headers if name.startswith("x-"))
    return ("authorization",)


def _bent(text: str) -> str:
    """With another character in its middle."""
    middle = len(text) // 2
    return text[:middle] + ("b" if text[middle] == "a" else "a") + text[middle + 1 :]
