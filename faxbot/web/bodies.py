"""What a request's body may do to this server: how long it may stall, and what becomes of one that was refused unread.

A refusal is answered at once. A client that sends first and reads later would then see a broken connection instead of
the answer, so the rest is read and thrown away behind it, within limits of bytes and time (RFC 9112 section 9.6).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gunicorn.http.errors import ParseException

Environ = Mapping[str, Any]

BROKEN = (OSError, ParseException)
"""What reading a body raises when its client is gone, stalls or frames it wrongly; NoMoreData is an OSError."""
STALL_SECONDS = 30.0
"""A client that sends nothing for so long is gone; its thread is needed."""
DRAIN_SECONDS = 5.0
DRAIN_BYTES = 256 * 1024 * 1024
_PIECE = 64 * 1024


def has_body(environ: Environ) -> bool:
    """Whether the client announces a body."""
    return (
        environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ
    )


def limit_stall(environ: Environ) -> None:
    """Let reading this request's body fail with an OSError after STALL_SECONDS of silence."""
    socket = environ.get("gunicorn.socket")  # the test client has none
    if socket is not None:
        socket.settimeout(STALL_SECONDS)


def drain(environ: Environ) -> None:
    """Read and forget what is left of the body, within the limits; the server closes the connection on a longer one."""
    socket = environ.get("gunicorn.socket")
    if socket is None:
        return
    limit, deadline = DRAIN_BYTES, time.monotonic() + DRAIN_SECONDS
    try:
        while limit > 0 and (left := deadline - time.monotonic()) > 0:
            socket.settimeout(left)
            data = environ["wsgi.input"].read(min(limit, _PIECE))
            if not data:
                return
            limit -= len(data)
    except BROKEN:
        return  # nobody waits for the rest
