"""Serves the web application: gunicorn with threads, on a socket that is already open.

Modules are loaded once in the master and shared by its workers; engines, child processes and whatever else does not
survive a fork are made in each worker. Nothing a client sent is written to the log: the line of a request is the
application's own (app.access_log), and no address stands beside an error.
"""

from __future__ import annotations

import gc
import http
import logging
import os
import resource
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from flask import Flask
from gunicorn import glogging
from gunicorn.app.base import BaseApplication
from gunicorn.http import wsgi
from gunicorn.http.errors import (
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from faxbot import lifeline, rotation, wiring
from faxbot.collecting import Collector
from faxbot.config import Config
from faxbot.errors import ConfigError, DatabaseAway
from faxbot.tasks.app import Bell
from faxbot.web import problems
from faxbot.web.app import SECURITY_HEADERS, create_app
from faxbot.web.endless import EndlessWorker
from faxbot.web.patience import Crowded, Sender

GRACEFUL_SECONDS = 20
"""How long a request under way may take when the server stops."""
_KEEP_ALIVE_SECONDS = 30
_WEDGED_SECONDS = 60
"""A worker whose main loop stood still for so long is replaced."""
_BUSY_SECONDS = 5
_CONNECTIONS = 1000
"""At most so many for each worker, beside those who listen to events."""
_OTHER_FILES = 64
_FILES_OF_A_THREAD = 8
"""What is open beside the connections: modules, logs, pipes; and for each thread its database and what it spools."""
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the workers' heartbeats are files; here they cost no disk write

_NOT_STARTED = (3, 4)
"""What gunicorn ends with when a worker does not start."""
_UNREADABLE = ("400 Bad Request", problems.REFUSED[400], problems.UNREADABLE)
_REFUSALS: dict[type[BaseException], tuple[str, problems.Problem, str]] = {
    LimitRequestLine: (
        "414 URI Too Long",
        replace(problems.REQUEST_TOO_LARGE, status=414),
        "The request's address is too long.",
    ),
    LimitRequestHeaders: (
        "431 Request Header Fields Too Large",
        replace(problems.REQUEST_TOO_LARGE, status=431),
        "The request's headers are too long or too many.",
    ),
    UnsupportedTransferCoding: (
        "400 Bad Request",
        problems.REFUSED[400],
        "The Transfer-Encoding can be nothing but chunked.",
    ),
    Crowded: ("503 Service Unavailable", problems.BUSY, problems.BUSY.mend),
}
"""Status line, problem and detail of what gunicorn refuses by itself; _UNREADABLE is all the rest."""

log = logging.getLogger(__name__)


def serve(config: Config, listener: socket.socket) -> None:
    """Serve on `listener` until SIGTERM; requests under way are finished. Ends the process (SystemExit).

    Raises ConfigError for a setting that no worker could start with, and when the workers do not start.
    """
    config.warn_of_strangers()
    wiring.build(config).close()  # a wrong setting shows here, in one line, and not in each worker
    rotation.admit(config)
    lifeline.forks_die_with_me()
    wsgi.Response = _Response
    # What exists now is shared with the workers; a collector that touched it would copy page after page.
    gc.collect()
    gc.freeze()
    try:
        _Server(config, listener).run()
    except SystemExit as end:
        if end.code in _NOT_STARTED:
            raise ConfigError("the web workers do not start: the log says why") from None
        raise


def connections(threads: int, listeners: int = 0) -> int:
    """How many connections a worker may have, `listeners` of them without an end, so that it never runs out of files,
    which ends gunicorn's workers.

    Raises this process's soft limit of open files (RLIMIT_NOFILE, inherited by workers) when it is too small.
    """
    others = _OTHER_FILES + _FILES_OF_A_THREAD * threads
    most = _CONNECTIONS + listeners
    wanted = most + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(threads + 1, min(most, files - others))


class _Server(BaseApplication):
    """gunicorn, told by our configuration and by nothing else: no file, no GUNICORN_CMD_ARGS, no control socket."""

    def __init__(self, config: Config, listener: socket.socket) -> None:
        self._connections = connections(config.web_threads, config.max_listeners)
        # With few files half of the connections are left for requests.
        listeners = min(config.max_listeners, self._connections // 2)
        self._config = replace(config, max_listeners=listeners)
        # Once: load_config() runs again when gunicorn is told to start its workers anew (SIGHUP).
        self._listener = listener.detach()
        self._close: Callable[[], None] = lambda: None
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": [f"fd://{self._listener}"],
            "workers": self._config.web_workers,
            "threads": self._config.web_threads,
            "worker_connections": self._connections,
            "worker_class": _Worker,
            "logger_class": _Logger,
            "accesslog": None,
            "graceful_timeout": GRACEFUL_SECONDS,
            "timeout": _WEDGED_SECONDS,
            "keepalive": _KEEP_ALIVE_SECONDS,
            "control_socket_disable": True,
            "proc_name": "faxbot-web",
            "worker_exit": lambda _server, _worker: self._close(),
        }
        if os.access(_SHARED_MEMORY, os.W_OK):
            settings["worker_tmp_dir"] = _SHARED_MEMORY
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in each worker, after the fork."""
        config = self._config
        bell = Bell(config)
        runtime = wiring.build(
            config, ring=bell, unanswered=bell.unanswered, threads=config.web_threads
        )
        collector = Collector(runtime)

        def close() -> None:
            collector.close()
            runtime.close()

        self._close = close
        with suppress(
            DatabaseAway
        ):  # what is taken from now on is not in doubt, should this ledger be restored
            runtime.restores.notice(runtime.now())
        return create_app(runtime)


class _Logger(glogging.Logger):
    """gunicorn's messages go where all messages of this process go, but for those of level debug: there it writes each
    request's address, and what a client puts there may be anything."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.setLevel(logging.INFO)
        self.error_log.propagate = True


class _Worker(EndlessWorker):
    def handle_error(
        self,
        req: object,  # noqa: ARG002 - gunicorn's signature
        client: socket.socket,
        addr: object,  # noqa: ARG002
        exc: BaseException,
    ) -> None:
        """What never reached the application, e.g. a request that is not HTTP: our one error body, and nothing of the
        request in the log (gunicorn's own method writes its first line or address)."""
        request_id = uuid.uuid4().hex
        if isinstance(exc, ParseException):
            status, problem, detail = _REFUSALS.get(type(exc), _UNREADABLE)
            said = {"request_id": request_id, "status": int(status[:3])}
            log.info("request not read", extra=said)
        else:
            status, problem, detail = "500 Internal Server Error", problems.INTERNAL, None
            log.error(
                "request failed", extra={"exception": type(exc).__name__, "request_id": request_id}
            )
        body = problems.body(problem, request_id, detail=detail)
        headers = (
            *(("Content-Type", problems.MEDIA_TYPE), ("Content-Length", len(body))),
            *(("X-Request-Id", request_id), ("Cache-Control", "no-store")),
            *SECURITY_HEADERS,
            *((("Retry-After", _BUSY_SECONDS),) if problem is problems.BUSY else ()),
            ("Connection", "close"),
        )
        lines = (f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", "")
        with suppress(OSError):
            client.sendall("\r\n".join(lines).encode() + body)


class _Response(wsgi.Response):
    """Without the Server header, which gunicorn has no setting for; the head is sent together with the body."""

    sock: Sender

    def default_headers(self) -> list[str]:
        return [line for line in super().default_headers() if not line.startswith("Server:")]

    def is_chunked(self) -> bool:
        """What has no end is no row of chunks either: it ends with its connection, for every version of HTTP."""
        endless = self.sock.endless
        if endless is not None and self.status_code != http.HTTPStatus.OK:
            self.sock.endless = None  # the view has failed behind it
            endless.ended()
        if self.sock.endless is None:
            return bool(super().is_chunked())
        self.force_close()
        return False

    def send_headers(self) -> None:
        self.sock.keeps = True
        try:
            super().send_headers()
        finally:
            self.sock.keeps = False

    def sendfile(self, respiter: Any) -> bool:
        self.send_headers()
        # The system's own sendfile() knows nothing of what sendall() keeps.
        return self.sock.flush() and bool(super().sendfile(respiter))

    def close(self) -> None:
        super().close()
        self.sock.flush()  # the head of an answer without a body
