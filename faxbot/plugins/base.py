"""The contract with plugin authors: base classes, and the frozen values that pass between core and
plugin.

A plugin sees what it is handed here and nothing else of faxbot: no database, queue, web or
settings. The core owns timing, logging, counting, retries and state; a plugin only translates. A
class is named by an entry point of the group `faxbot.plugins`; its manifest.json lies beside its
module (schema: plugins/schemas/manifest.schema.json).
"""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from faxbot.errors import PluginError
from faxbot.events import NOTABLE_MEANING, Notable
from faxbot.hidden import Hidden

LARGEST_IN_MEMORY = 1024 * 1024
"""Bytes of a callback; a larger one lies in a file while a plugin looks at it."""
CHUNK = 64 * 1024
API_VERSION = "1.0"
"""The version of this contract; a manifest names the range it works with (`"api": ">=1,<2"`)."""


class HttpReply(Protocol):
    """What a provider sees of an HTTP answer."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...
    def json(self) -> Any:
        """The body as JSON; one that is not raises OutcomeUnknown after a 2xx status, else what the
        status means for a submit."""


class Http(Protocol):
    """The one way out: keep-alive session, host allow-list, time-outs, no redirects, bounded
    bodies."""

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        json: object | None = None,
        files: Mapping[str, tuple[str | None, BinaryIO, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> HttpReply:
        """One call. `files` are parts of a multipart form: by name its file name (None: a plain field
        of such a form), content and type. Connection faults raise Unreachable (nothing was sent) or
        OutcomeUnknown (bytes were); statuses are returned."""

    def download(
        self,
        url: str,
        target: BinaryIO,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> HttpReply | None:
        """GET something large: the body of a 2xx answer of this `media_type` goes into `target`, piece
        by piece and bounded, and None is returned; every other answer is given as by request(). What
        is in `target` then, or after an error, is no document."""

    def close(self) -> None:
        """Let go of its connections. Core does that after shutdown(); a plugin need not."""


class Cache(Protocol):
    """A few values that all processes share, such as a carrier's token; sealed at rest."""

    def get(
        self, name: str, make: Callable[[], tuple[str, float]], *, stale: str | None = None
    ) -> str:
        """The value of this name; where there is none any more, one process makes it, and the
        others wait for that.

        `make` gives the value and for how many seconds it is good; what it raises comes through.
        `stale`: a value that was found to be good no longer, whatever was said when it was made.
        Raises Unreachable when another process takes too long to make it, or what keeps it is away.
        """


class OwnCache:
    """A Cache of one process alone: for tools and tests, which have no database."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def get(
        self, name: str, make: Callable[[], tuple[str, float]], *, stale: str | None = None
    ) -> str:
        """Cache.get()."""
        with self._lock:
            value, good_until = self._values.get(name, (None, 0.0))
            if value is None or value == stale or good_until <= time.monotonic():
                value, seconds = make()
                self._values[name] = (value, time.monotonic() + seconds)
            return value


@dataclass(frozen=True, slots=True)
class Context:
    """What a plugin is given besides its own configuration."""

    logger: logging.Logger
    now: Callable[[], datetime]
    http: Http
    cache: Cache = field(default_factory=OwnCache)


@dataclass(frozen=True, slots=True)
class OutboundFax:
    """One attempt to be made. `tag` is this attempt's own name: the carrier must store it and find
    the fax by it."""

    tag: str
    to: Hidden[str]
    """E.164 with +."""
    document: Path = field(repr=False)
    media_type: str
    pages: int
    resolution: str
    """`fine` (204x196 dpi) or `standard` (204x98 dpi)."""
    callback_url: str = field(repr=False)
    """Where this attempt's callbacks go; it carries the tag as locator, and a token."""
    header: Hidden[str] = Hidden("")
    """A line for the top of each page, printed by the carrier or the fax machine; at most 50
    printable ASCII characters, empty for none."""
    deadline: datetime | None = None
    step: int = 0
    """How carefully to call: 0 is the fastest way, each further step a slower and surer one (trait
    `ladder`). Core takes one more when the machines could not agree, and begins with the one that
    worked at this number before."""
    document_url: Hidden[str] = Hidden("")
    """Where the carrier may fetch the document as PDF for a while, if it is to (trait
    `fetches_document`); whoever has the address has the document."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The carrier took the fax: acceptance, not delivery. `external_id` is its name for it."""

    external_id: str


class State(StrEnum):
    """What a carrier says of one fax, in our words."""

    ACCEPTED = "accepted"
    PROGRESS = "progress"
    DELIVERED = "delivered"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Update:
    """One piece of news about one fax, from a callback, a poll, a look-up or a listener.

    `cause` is a canonical code (events.CAUSES) for FAILED; `key` names this news so that a repeat
    is known as one. At least one of `tag` and `external_id` says which attempt it is about.
    """

    state: State
    tag: str | None = None
    external_id: str | None = None
    cause: str | None = None
    pages_sent: int | None = None
    occurred_at: datetime | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A fax that somebody sent to us, from a callback or a listener (trait `inbound_supported`).

    `external_id` is the carrier's name for it, the same in every repeat. With a `cause` (events.CAUSES) it failed on
    its way, and there is no document. `attached`: the document is in this very request (attached()); else it is
    fetched from the carrier (document()).
    """

    external_id: str
    sender: Hidden[str] = Hidden("")
    """The number that called as the carrier writes it; empty where it is not known."""
    recipient: Hidden[str] = Hidden("")
    """Our number that was called, the same way."""
    pages: int | None = None
    cause: str | None = None
    attached: bool = False
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """A carrier's HTTP request as it came: raw body, headers in lower case, the address it was sent
    to.

    A body of more than LARGEST_IN_MEMORY bytes lies in `file` for as long as the plugin is asked, and `body` is empty
    then; chunks() gives either. Where its document is asked for, `received_at` says when it came.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    file: Path | None = field(repr=False, default=None)
    received_at: datetime | None = None

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces of at most CHUNK bytes."""
        with io.BytesIO(self.body) if self.file is None else self.file.open("rb") as content:
            while chunk := content.read(CHUNK):
                yield chunk


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a listening provider has heard, in its own words: kept by core as a callback
    is, and read by read_callback() in a worker, with method `LISTEN`, no address and no headers.
    `acknowledge` is called once it is kept for good: what the provider holds of it may go then.
    What is not acknowledged is to be yielded again."""

    body: bytes = field(repr=False)
    acknowledge: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Gap:
    """A listening provider may have missed something until now: core asks after every fax that it
    has (look_up, fetch)."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a plugin says of itself: usable or not, and one sentence without PHI or secrets."""

    ok: bool
    detail: str = ""


class FaxbotPlugin(ABC):
    """What every plugin is; `config` is validated against the manifest's configSchema before it
    comes here."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        """Take configuration and context. No network here: a plugin must load while its carrier is
        away."""
        self.config = config
        self.context = context

    def shutdown(self) -> None:  # noqa: B027 - most plugins hold nothing that must be closed
        """Let go of what initialize() took."""

    def health(self) -> Health:
        """Whether the plugin can work; may call its carrier (this is "test connection")."""
        return Health(ok=True)


class TransportPlugin(FaxbotPlugin):
    """Speaks to one carrier. `send` is required; the rest goes with traits in the manifest."""

    @abstractmethod
    def send(self, fax: OutboundFax) -> Receipt:
        """Hand one fax over, once. Raises a NotSent error when the carrier surely did not take it,
        OutcomeUnknown when it may have."""

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:
        """What the carrier has under this tag; State.ABSENT when nothing (trait
        `status_lookup`). The fax went to the number `to`, and not before `since`: for carriers
        that find it by these only. No whole number goes into an address: those are written down on
        their way."""
        raise PluginError(f"{type(self).__name__} has no look-up")

    def fetch(self, external_id: str) -> Update:
        """What the carrier says now of the fax with this id (trait `status_lookup`)."""
        raise PluginError(f"{type(self).__name__} has no status by id")

    def cancel(self, external_id: str) -> None:
        """Ask the carrier to stop it (trait `cancel`); the outcome comes as news like any other."""
        raise PluginError(f"{type(self).__name__} cannot cancel")

    def document(self, external_id: str, target: BinaryIO) -> None:
        """Write the carrier's copy of a fax, as PDF (a received one also as TIFF), into `target` (trait
        `gives_document`). Raises Refused where there is none, another ProviderError where it cannot be had now, and
        AccountRefused where a person here must mend that first; what was written then is nothing."""
        raise PluginError(f"{type(self).__name__} gives no documents")

    def attached(self, request: CallbackRequest, target: BinaryIO) -> None:
        """Write the document that came in this request, as it came (PDF or TIFF), into `target`: of an Arrival that
        says `attached`. Raises Refused where there is none; after anything else it is asked again, without an end."""
        raise PluginError(f"{type(self).__name__} takes no documents out of requests")

    def claim(self, request: CallbackRequest) -> None:
        """A proven request that core does not have, before it is kept and answered: what it names on this machine, and
        the next fax may overwrite, can be made its own (trait `keeps_documents`). Not for a repeat: what lies there by
        then may be another fax's. Called once more where core could not keep it; what is raised hinders nothing, and
        attached() says what is wrong."""

    def taken(self, external_id: str) -> None:
        """Core has the document of this received fax for good, or a person has given it up and its time is over: what
        the plugin keeps of it on this machine, as in a spool, may go (trait `keeps_documents`). Called again, later,
        where it raises, and after a crash."""

    def delete_copy(self, external_id: str) -> None:
        """Have the carrier delete its copy of the document, once the fax has ended, sent or received (trait
        `deletes_copy`). One that is gone already is no error."""
        raise PluginError(f"{type(self).__name__} cannot delete copies")

    def verify_callback(self, request: CallbackRequest) -> bool:
        """Whether the request truly comes from the carrier; constant time (trait
        `status_callback`). With the trait `proof_in_headers` it is asked before the body is read, too, with an
        empty one: where the answer is False then, nothing more is taken in."""
        return False

    def read_callback(self, request: CallbackRequest) -> Sequence[Update | Arrival]:
        """The news in a verified request; an unreadable one raises ProviderError, news about
        nothing of ours is left out. A plugin may ask its carrier first, whether it is true: where
        that is not possible now, Unreachable has it read again later; so do AccountRefused, PluginError,
        and any ProviderError of cause `config`: what a person may mend. Unreachable of cause `unconfirmed` says that
        the carrier was asked and does not confirm it: after a day it is read but once a day."""
        return []

    def listen(self) -> Iterator[Notice | Gap | None]:
        """What is heard, as it comes, for ever (trait `listens`): called once in a process of its
        own, and again after it ended or raised. None says that there is nothing at the moment, and
        is due every few seconds: core looks then whether it is to stop."""
        raise PluginError(f"{type(self).__name__} does not listen")


_PART = r"[a-z0-9_-][a-z0-9._-]{0,127}"
_KEY = re.compile(rf"{_PART}(/{_PART}){{0,7}}")


def check_key(key: str) -> str:
    """The storage key, if it is one; raises PluginError. No part of it leads out of a folder, or hides a file."""
    if not _KEY.fullmatch(key):
        raise PluginError(
            "This is no storage key: parts of [a-z0-9._-] joined by /, none beginning with a dot."
        )
    return key


class StoragePlugin(FaxbotPlugin):
    """Keeps stored bytes under keys that core chooses (check_key), never user input; a key names the same bytes for
    ever. What a storage that is away, or that does not let us in, raises is StorageAway, whose sentence is logged, so
    it repeats nothing of what a service said: only what is surely not there is an ArtifactNotFound. Several threads
    keep, read and delete at once."""

    @abstractmethod
    def put(self, key: str, source: Path) -> None:
        """Keep the file at `source` under `key`, whole or not at all; durable on return. The plugin may move it; the
        caller removes what is left, and calls delete() after a put() that failed or that nobody lived to see."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The stored bytes as a stream, which need not seek; raises ArtifactNotFound."""

    def path(self, key: str) -> Path | None:
        """The stored file itself, where it lies on this machine as it was put: to be read, never
        changed. None where it does not."""
        return None

    @abstractmethod
    def delete(self, key: str) -> None:
        """Forget them, and what a put() that did not end has left; a key that is not there is no error."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that people are told of one fax. No PHI: ids, and words of ours."""

    kind: Notable
    fax_id: str
    occurred_at: datetime
    sentence: str = ""
    """Why, where there is something to say."""

    @property
    def path(self) -> str:
        """Where this server shows the fax to who may see it."""
        received = self.kind in (Notable.RECEIVED, Notable.RECEIVE_FAILED)
        return f"/{'inbound' if received else 'fax'}/{self.fax_id}"


_TITLES = {
    Notable.DELIVERED: ("Fax delivered", "delivered"),
    Notable.FAILED: ("Fax not delivered", "not delivered"),
    Notable.RECEIVED: ("Fax received", "received"),
    Notable.RECEIVE_FAILED: ("Fax could not be received", "could not be received"),
    Notable.HELD: ("Fax waits for a person", "waiting for a person"),
}


@dataclass(frozen=True, slots=True)
class Notification:
    """What people are to be told in one message: what happened to one fax, or, after a storm, to many; nothing of that
    in a test. Plain ASCII, and no PHI."""

    id: str
    """The same whenever the same is told again, so that a repeat can be known as one; ASCII letters, digits and -."""
    happenings: tuple[Happening, ...] = ()
    """The oldest of them first; after a storm not all."""
    counts: Mapping[Notable, int] = field(default_factory=dict)
    """How many there are of each kind, also of those that are not among `happenings`."""
    put_off_long: bool = False
    """Whether its last try was put off (Throttled), a quarter of an hour or more after it was made, or behind a message
    that had waited so long: who can be told now is told, without the rest."""

    @property
    def count(self) -> int:
        """Of how many happenings it tells; 0 is a test."""
        return sum(self.counts.values())

    @property
    def title(self) -> str:
        """A line that says what it is about, without an id."""
        if not self.count:
            return "Test notice"
        if self.count == 1:
            return _TITLES[next(iter(self.counts))][0]
        parts = (f"{n} {_TITLES[kind][1]}" for kind, n in sorted(self.counts.items()) if n)
        return f"{self.count} faxes: {', '.join(parts)}"

    def text(self, base_url: str = "") -> str:
        """All of it as lines of text; with the address under which people reach this server, if that is known, each
        fax comes with a link."""
        if not self.count:
            return "This is a test, as somebody wished: notices arrive here.\n"
        if self.count == 1:
            return f"{NOTABLE_MEANING[self.happenings[0].kind]}\n\n{self._whole(self.happenings[0], base_url)}"
        lines = [f"{n:>6}  {_TITLES[kind][1]}" for kind, n in sorted(self.counts.items()) if n]
        told = [self._line(each, base_url) for each in self.happenings]
        more = self.count - len(told)
        rest = [f"... and {more} more: GET /fax and GET /inbound list all."] if more else []
        return "\n".join([*lines, "", *told, *rest, ""])

    def _whole(self, this: Happening, base_url: str) -> str:
        facts = {"Fax": this.fax_id, "When": f"{this.occurred_at:%Y-%m-%d %H:%M:%S} UTC"}
        if this.sentence:
            facts["Why"] = this.sentence
        if base_url:
            facts["See"] = base_url.rstrip("/") + this.path
        return "".join(f"{name + ':':<6}{value}\n" for name, value in facts.items())

    def _line(self, this: Happening, base_url: str) -> str:
        where = base_url.rstrip("/") + this.path if base_url else this.fax_id
        return f"{this.occurred_at:%Y-%m-%d %H:%M}  {_TITLES[this.kind][1]:<22}{where}"


class NotificationPlugin(FaxbotPlugin):
    """Tells people what happened to faxes, without PHI. Core says what and when (notices.py); a setting `events` of
    the plugin, words of events.Notable between commas, says of what, and without one it is told of everything."""

    @abstractmethod
    def notify(self, notification: Notification) -> bool:
        """Send one message, within a minute. True: it is taken for all who are to be told; False: for some of them,
        and the others were refused for good, or for now with `put_off_long`.

        Raises OutcomeUnknown when it may have been taken: it is sent again a few times, with the same id. Raises
        Refused when this very message is not taken, and never will be. Raises Throttled where some could be told, and
        others not now: nobody is told, so that all can be together a little later. After that and anything else it was
        surely not taken, and is sent again for a day, less and less often.
        """


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has proven to a directory who he is.

    `issuer` and `subject` say who for good: what the directory is called, and its own lasting id for him; never a name
    or an e-mail address, which change hands. Core knows its user by these two alone.
    """

    issuer: str
    subject: str
    """At most 255 characters each."""
    name: str = ""
    """What he is called, for a user that is made for him; it proves nothing."""
    groups: tuple[str, ...] = ()
    """What the directory says that he belongs to; core makes his role of it (FAXBOT_SIGN_IN_ROLES)."""


@dataclass(frozen=True, slots=True)
class Journey:
    """A browser is sent to `url`, and comes back with an answer. `memory` is what finish() needs to know then, at most
    2000 characters: core keeps it sealed with this very browser, and for ten minutes."""

    url: str
    memory: str = field(repr=False)


class IdentityPlugin(FaxbotPlugin):
    """Knows people from another directory, in the way that its trait says: `ldap` by a name and a password, which it
    takes to the directory itself (authenticate); `oauth2` and `saml` by a journey of the browser (begin, finish).

    What it says is a proof, and core asks for no other one: a session begins. Unauthenticated says that he is not who
    he says; every other error that the directory cannot be asked.
    """

    def authenticate(self, name: str, password: Hidden[str]) -> Person | None:
        """Who that is (trait `ldap`); None when the directory does not know this name. Raises Unauthenticated for a
        wrong password. Nothing asks it yet."""
        raise PluginError(f"{type(self).__name__} takes no passwords")

    def begin(self, return_url: str) -> Journey:
        """Where the browser goes to prove who he is, and to come back to `return_url` (traits `oauth2`, `saml`)."""
        raise PluginError(f"{type(self).__name__} sends no browser anywhere")

    def finish(self, answer: Mapping[str, str], memory: str) -> Person:
        """Who came back (traits `oauth2`, `saml`): `answer` is what his browser brought, which he may have written
        himself, and `memory` what begin() gave for this browser. Raises Unauthenticated for whatever proves
        nothing: an answer to another browser's journey, an old one, a forged one."""
        raise PluginError(f"{type(self).__name__} expects no browser back")


class UIPlugin(FaxbotPlugin):
    """Adds to the console. Nothing asks it yet."""

    @abstractmethod
    def pages(self) -> Mapping[str, str]:
        """Titles by path."""


BASES: dict[str, type[FaxbotPlugin]] = {
    "transport": TransportPlugin,
    "storage": StoragePlugin,
    "notification": NotificationPlugin,
    "identity": IdentityPlugin,
    "ui": UIPlugin,
}
