"""How the client commands reach the server: which address, which key, what is tried again, and errors in one line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import click
import requests

from faxbot import forms
from faxbot.config import Config
from faxbot.errors import ConfigError, FaxbotError
from faxbot.events import Status
from faxbot.supervisor import keyfile, listening

_PAUSES = (0.3, 0.7, 1.5, 3.0, 5.0)
"""Seconds before each further try."""
_TIMES = (5.0, 120.0)
"""To connect, and the longest silence: an upload of many pages is checked before it is answered."""
_LONGEST_WAIT = 60.0
_STREAM_TIMES = (5.0, 90.0)
"""The same where events come as they happen: a server that lives says so every minute at least."""

_OPTIONS = {"X-API-Key": "--key", "Idempotency-Key": "--idempotency-key"}

Shape = dict[str, Any] | list[Any] | Callable[[Any], bool]
"""What an answer must be to be faxbot's: a shape by key, [the shape of each], or a test."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _may_be_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int)


def _is_status(value: object) -> bool:
    return value in list(Status)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_fault(value: object) -> bool:
    return value is None or has_shape(value, {"code": _is_text, "message": _is_text})


FAX: Shape = {"id": _is_text, "status": _is_status, "explanation": _is_text, "error": _is_fault}
PAGE: Shape = {
    "items": [{"id": _is_text, "status": _is_status, "created_at": _is_time, "to": _may_be_text}]
}
STORY: Shape = {
    "events": [
        {
            "sequence": _is_number,
            "type": _is_text,
            "status": _is_status,
            "occurred_at": _is_time,
            "recorded_at": _is_time,
        }
    ]
}

NEWS: Shape = {
    "id": _is_text,
    "type": _is_text,
    "timestamp": _is_time,
    "data": {"fax_id": _is_text, "status": _is_status},
}
NEWS_PAGE: Shape = {"items": [NEWS], "next": _is_text, "more": _is_number}

Files = Sequence[tuple[str, tuple[str, bytes]]]


STRANGE = "what answers there is not faxbot: see --url and FAXBOT_URL"


class ServerSaid(FaxbotError):
    """The server did not do what was asked of it."""

    code = "server-said"

    def __init__(self, detail: str, *, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        """HTTP status of a refusal."""
        self.again_in: float | None = None
        """After so many seconds it may be another answer; None: it is the same then."""


class Connection:
    """One server and one key; a request is tried again where that cannot do anything twice."""

    def __init__(self, config: Config, url: str | None, key: str | None) -> None:
        if url:
            self._url = _address(url, "--url")
        else:
            here = listening.url(config.host, config.port)
            self._url = _address(config.client_url or here, "FAXBOT_URL")
        self._session = requests.Session()
        # A proxy for the outside world has no way back to this machine.
        self._session.trust_env = urlsplit(self._url).hostname not in (
            "127.0.0.1",
            "localhost",
            "::1",
        )
        if key:
            _check_header("X-API-Key", key)
        token = key or config.client_key or config.api_key or keyfile.read(config)
        self._key_hint = "--key, FAXBOT_API_KEY"
        if token:
            self._session.headers["X-API-Key"] = token
        elif not config.production:
            self._key_hint += f"; {keyfile.path(config)} was looked for and is not there"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def request(
        self,
        method: str,
        path: str,
        shape: Shape,
        *,
        data: Mapping[str, str] | None = None,
        files: Files | None = None,
        json: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
        briefly: bool = False,
        within: float | None = None,
    ) -> Any:
        """The decoded answer, which has the `shape`; raises ServerSaid with one sentence. A POST that makes
        something needs an Idempotency-Key among `headers`, or goes `once`: a second one would do more. `briefly`: where
        nobody is there, it is tried once more only; `within`: after so many seconds it is not tried again. Raises
        BadParameter where a value from the command line cannot be sent."""
        _check(headers or {}, data or {})
        began = time.monotonic()
        for pause in (None,) if once else (*_PAUSES, None):
            try:
                reply = self._session.request(
                    method,
                    self._url + path,
                    data=data,
                    files=_named(files or ()),
                    json=json,
                    headers=headers,
                    timeout=_TIMES,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                fault = _unreachable(self._url, error)
                # A ValueError is no address at all, says requests.
                if isinstance(error, ValueError) or (briefly and pause != _PAUSES[0]):
                    pause = None
            else:
                if not _comes_again(reply):
                    return self._content(reply, shape)
                fault = self._fault(reply)
                pause = _asked_pause(reply, pause)
            if pause is None or (within and time.monotonic() + pause > began + within):
                raise fault
            if pause > _PAUSES[0]:
                click.echo(f"faxbot: {fault.detail}; trying again in {pause:g} s", err=True)
            time.sleep(pause)
        raise AssertionError("the last try either returns or raises")

    def listen(self, path: str, last_id: str | None) -> requests.Response:
        """The beginning of a stream of events behind the one of this id. Raises ServerSaid."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        _check(headers, {})
        try:
            reply = self._session.get(
                self._url + path,
                headers=headers,
                stream=True,
                timeout=_STREAM_TIMES,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            fault = _unreachable(self._url, error)
            fault.again_in = None if isinstance(error, ValueError) else _PAUSES[0]
            raise fault from None
        if _comes_again(reply):
            fault = self._fault(reply)
            fault.again_in = _asked_pause(reply, _PAUSES[-1])
            raise fault
        if reply.status_code != 200:
            raise self._fault(reply)
        if not reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise ServerSaid(STRANGE)
        return reply

    def cancel(self, fax_id: str) -> Any:
        """Ask for a cancel; the decoded answer. Raises ServerSaid.

        Where the answer to a cancel that worked is lost, the next try finds a fax that is cancelled already, and is
        told 409: that is what was wanted.
        """
        try:
            return self.request("POST", f"/fax/{fax_id}/cancel", FAX)
        except ServerSaid as refusal:
            if refusal.status == 409:
                with suppress(ServerSaid):
                    job = self.request("GET", f"/fax/{fax_id}", FAX)
                    if job["status"] == Status.CANCELLED:
                        return job
            raise

    def _content(self, reply: requests.Response, shape: Shape) -> Any:
        if reply.status_code >= 300:
            raise self._fault(reply)
        try:
            body = reply.json()
        except ValueError:
            raise ServerSaid(STRANGE) from None
        if not has_shape(body, shape):
            raise ServerSaid(STRANGE)
        return body

    def _fault(self, reply: requests.Response) -> ServerSaid:
        problem = _problem(reply)
        if not problem:
            return ServerSaid(
                f"the server answered {reply.status_code}, and not as faxbot does: see --url and FAXBOT_URL"
            )
        errors = problem.get("errors")
        sentences = [
            f"{field}: {' '.join(map(str, texts))}"
            for field, texts in (errors if isinstance(errors, dict) else {}).items()
            if isinstance(texts, list)
        ]
        # Where fields have sentences of their own, the detail only names those fields.
        text = " ".join(sentences) or str(problem.get("detail") or problem.get("title"))
        if reply.status_code in (401, 403):
            text += f" ({self._key_hint})"
        return ServerSaid(text, status=reply.status_code)


def has_shape(value: object, shape: Shape) -> bool:
    """Whether an answer's decoded value is as faxbot's are."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            has_shape(value.get(key), inner) for key, inner in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(has_shape(one, shape[0]) for one in value)
    return shape(value)


def _address(url: str, source: str) -> str:
    """`url` with its scheme; raises BadParameter or ConfigError naming `source`, where it came from."""
    address = url if "://" in url else f"http://{url}"
    if not forms.is_web_address(address):
        words = "the server's address must look like http://127.0.0.1:8080"
        if source.startswith("--"):
            raise click.BadParameter(words, param_hint=source)
        raise ConfigError(f"{source}: {words}")
    return address.rstrip("/")


def _check(headers: Mapping[str, str], data: Mapping[str, str]) -> None:
    for name, value in headers.items():
        _check_header(name, value)
    for field, value in data.items():
        # Bytes that are no UTF-8 come from a command line as lone surrogates (PEP 383).
        if _text(field) != field or _text(value) != value:
            option = "--tag" if field.startswith("tags[") else f"--{field.replace('_', '-')}"
            raise click.BadParameter("it is no UTF-8 text", param_hint=option)


def _check_header(name: str, value: str) -> None:
    fits, words = forms.KEY
    if not fits(value):
        raise click.BadParameter(f"it {words}", param_hint=_OPTIONS.get(name, name))


def _named(files: Files) -> Files:
    """A file's name may be any bytes; those that are no text are worth nothing at the other end."""
    return [(field, (_text(name), content)) for field, (name, content) in files]


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()


def _unreachable(url: str, error: requests.RequestException) -> ServerSaid:
    if isinstance(error, requests.Timeout):
        return ServerSaid(f"{url} does not answer in time")
    if isinstance(error, requests.ConnectionError):
        return ServerSaid(f"{url} cannot be reached: is faxbot up there? (--url, FAXBOT_URL)")
    return ServerSaid(f"{url} cannot be asked: {type(error).__name__} (--url, FAXBOT_URL)")


def _comes_again(reply: requests.Response) -> bool:
    """Whether to ask again: the server is busy or away, or is still at the first try of this very request."""
    if reply.status_code in (429, 502, 503, 504):
        return True
    return reply.status_code == 409 and str(_problem(reply).get("type")).endswith(
        "idempotency-key-in-flight"
    )


def _asked_pause(reply: requests.Response, pause: float | None) -> float | None:
    asked = reply.headers.get("Retry-After", "")
    if pause is None or not re.fullmatch(r"[0-9]{1,9}", asked):
        return pause
    return min(max(pause, float(asked)), _LONGEST_WAIT)


def _problem(reply: requests.Response) -> dict[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
