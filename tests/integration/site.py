"""The road without its processes: the domain over a real database and a real carrier, with a clock
and a bell in hand.

Nothing of ours is replaced: a runtime takes its clock and its bell as plain functions.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from PIL import Image

from faxbot import (
    artifacts,
    callbacks,
    copies,
    fanout,
    fetching,
    followup,
    jobs,
    notices,
    retention,
    sending,
    sweeps,
    wiring,
)
from faxbot.actors import Actor
from faxbot.artifacts import Upload
from faxbot.breaker import Breakers, Rest
from faxbot.db import new_id, utcnow
from faxbot.events import Event, Status, fold
from faxbot.hidden import Hidden
from faxbot.jobs import Answer, Submission
from faxbot.models import Artifact, Attempt, FaxEvent, Job
from faxbot.plugins.base import CallbackRequest
from faxbot.runtime import Runtime
from faxbot.storage.local import LocalStorage
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration import hooks, odd, people
from tests.integration.odd import Odd

ACTOR = Actor("default", "env", frozenset({"*"}))
TASKS: dict[str, Callable[[Runtime, str], object]] = {
    "faxbot.send_fax": sending.attempt,
    "faxbot.settle_fax": followup.settle,
    "faxbot.look_up_fax": followup.look_up,
    "faxbot.poll_fax": followup.poll,
    "faxbot.review_fax": followup.review,
    "faxbot.apply_callback": callbacks.apply,
    "faxbot.fetch_inbound": fetching.fetch,
    "faxbot.delete_copy": copies.delete,
    "faxbot.deliver_webhooks": hooks.deliver,
    "faxbot.purge": retention.work,
    "faxbot.tell_people": people.tell,
}


@cache
def tiff(pages: int = 1) -> bytes:
    """Fax pages, so small that nothing waits for them."""
    sheets = [Image.new("1", (1728, 32 + page), 1) for page in range(pages)]
    file = io.BytesIO()
    sheets[0].save(
        file, "TIFF", compression="group4", save_all=True, append_images=sheets[1:], dpi=(204, 196)
    )
    return file.getvalue()


def number(ending: str = "0000") -> str:
    """A number that no other test has, with the ending that tells the carrier what to do."""
    return f"+1555{secrets.randbelow(10**6):06}{ending}"


class Site:
    """One installation's road; `clock` may be put forward, `rung` holds what was announced and not
    yet worked on."""

    def __init__(
        self,
        installation: Installation,
        carrier: SimulatorProcess,
        *,
        without: Collection[str] = (),
        more: Collection[str] = (),
        storage: type[LocalStorage] = LocalStorage,
        **changes: str,
    ) -> None:
        # Nobody listens at port 9: callbacks come from the tests, when they want them.
        nowhere = {"PUBLIC_API_URL": "http://127.0.0.1:9"}
        config = installation.config(**{**carrier.environ, **nowhere, **changes})
        self.carrier = carrier
        self.now = utcnow()
        self.rung: list[tuple[str, str]] = []
        runtime = wiring.build(config)
        self.runtime = replace(
            runtime,
            plugins=odd.plugins(runtime, without, storage, more=more),
            now=lambda: self.now,
            ring=self._ring,
        )
        wanted = notices.Wanted(runtime.settings, self.runtime.plugins)
        fanout.attach(runtime.database, self._ring, wanted)

    def _ring(self, task: str, row_id: str, _urgency: int = 0, /) -> bool:
        self.rung.append((task, row_id))
        return True

    @property
    def odd(self) -> Odd:
        return self.runtime.plugins.get("simulator", Odd)

    def upload(self, content: bytes | None = None, pages: int = 1) -> Upload:
        """A document in the spool, as the web leaves it there."""
        content = tiff(pages) if content is None else content
        spool = self.runtime.config.spool_dir
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = spool / f"upload-{secrets.token_hex(8)}"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return Upload(path, digest, len(content), "image/tiff", pages)

    def submit(
        self, to: str, *, key: str | None = None, actor: Actor = ACTOR, **wish: Any
    ) -> Answer:
        """Record a fax through the front door of the domain."""
        pages = wish.pop("pages", 1)
        uploads = wish.pop("uploads", None) or (self.upload(pages=pages),)
        wish["header"] = Hidden(wish.get("header", ""))
        return jobs.submit(
            self.runtime,
            actor,
            Submission(to=Hidden(to), uploads=uploads, **wish),
            key=key,
            present=lambda job: json.dumps(jobs.describe(self.runtime, job)).encode(),
        )

    def fax(self, ending: str = "0000", **wish: Any) -> str:
        """The id of a new fax to a number of its own, whose pages are rendered already."""
        return self.fax_to(number(ending), **wish)

    def fax_to(self, to: str, **wish: Any) -> str:
        """The same, to this number."""
        job_id = self.submit(to, **wish).job_id
        with self.runtime.database.transaction() as session:
            document = session.scalars(sa.select(Artifact).filter_by(job_id=job_id)).one()
            row = {each.key: getattr(document, each.key) for each in Artifact.__table__.columns}
            pages = Artifact(**{**row, "id": new_id(), "role": "pages"})
            if (sealed := document.data_key_sealed) is not None:
                keyring, account = self.runtime.keyring, document.account_id
                data_key = keyring.open(sealed, artifacts.place(account, document.id))
                pages.data_key_sealed = keyring.seal(data_key, artifacts.place(account, pages.id))
            session.add(pages)
        return job_id

    def work(self) -> None:
        """Answer the bell until it is silent, as workers do."""
        for _ in range(100):
            if not self.rung:
                return
            task, row_id = self.rung.pop(0)
            TASKS[task](self.runtime, row_id)
        raise AssertionError(f"the bell does not stop: {self.rung}")

    def sent(self, ending: str = "0000", **wish: Any) -> str:
        """A fax after its first attempt; what else the bell rang for is left unanswered."""
        job_id = self.fax(ending, **wish)
        self.rung.clear()
        sending.attempt(self.runtime, job_id)
        return job_id

    def sweep(self) -> None:
        """What beat does once, and the work that comes of it."""
        sweeps.run(self.runtime)
        self.work()

    def after(self, seconds: float) -> None:
        """Put the clock forward, and sweep."""
        self.now += timedelta(seconds=seconds)
        self.sweep()

    def purge(self) -> str:
        """One run of retention, now, to its end, in one go also where the machine is slow: its id."""
        self.now += timedelta(seconds=1)
        run_id = retention.ask(self.runtime, ACTOR)
        while not retention.work(self.runtime, run_id, seconds=60, rest=lambda _seconds: None):
            pass
        return run_id

    def interrupt(self, statement: str, deed: Callable[[], object]) -> None:
        """Do `deed` once, right after the transaction in which a statement beginning so is
        executed."""
        database, seen, done = self.runtime.database, threading.Event(), threading.Event()

        def executed(_c: Any, _cursor: Any, text: str, _p: Any, _x: Any, _m: bool) -> None:
            if text.startswith(statement):
                seen.set()

        def returned(_connection: Any, _record: Any) -> None:
            if seen.is_set() and not done.is_set():
                done.set()
                deed()

        for engine in (database.engine, database.reader):
            sa.event.listen(engine, "after_cursor_execute", executed)
            sa.event.listen(engine, "checkin", returned)

    # What became of it

    def job(self, job_id: str) -> Job:
        with self.runtime.database.reading() as session:
            return session.get_one(Job, job_id)

    def attempts(self, job_id: str) -> list[Attempt]:
        with self.runtime.database.reading() as session:
            query = sa.select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
            return list(session.scalars(query))

    def attempt(self, job_id: str) -> Attempt:
        return self.attempts(job_id)[-1]

    def events(self, job_id: str) -> list[FaxEvent]:
        with self.runtime.database.reading() as session:
            query = sa.select(FaxEvent).where(FaxEvent.job_id == job_id).order_by(FaxEvent.sequence)
            return list(session.scalars(query))

    def story(self, job_id: str) -> str:
        """The events in a line, without FAX_."""
        return " ".join(event.type.removeprefix("FAX_") for event in self.events(job_id))

    def rest(self) -> Rest | None:
        """The rest the provider takes, as a process sees it that has just started."""
        breakers = Breakers(self.runtime.config, self.runtime.database)
        return breakers.standing("default", "simulator", self.now).rest(self.now)

    def wait_of(self, job_id: str) -> float:
        """Seconds until somebody looks at it next."""
        next_at = self.job(job_id).next_at
        assert next_at is not None
        return (next_at - self.now).total_seconds()

    def at_carrier(self, job_id: str) -> int:
        """How many faxes the carrier took for it."""
        return sum(len(self.carrier.faxes(attempt.tag)) for attempt in self.attempts(job_id))

    def add_up(self) -> None:
        """Each fax's events have no gap, and their fold is its status."""
        with self.runtime.database.reading() as session:
            timelines: dict[str, list[FaxEvent]] = {}
            for event in session.scalars(
                sa.select(FaxEvent)
                .where(FaxEvent.inbound_id.is_(None))
                .order_by(FaxEvent.job_id, FaxEvent.sequence)
            ):
                timelines.setdefault(str(event.job_id), []).append(event)
            statuses = {
                row.id: row.status for row in session.execute(sa.select(Job.id, Job.status))
            }
        for job_id, told in timelines.items():
            assert [event.sequence for event in told] == list(range(1, len(told) + 1))
            steps = [(Event(event.type), Status(event.status)) for event in told]
            assert fold(steps) == statuses[job_id]

    def stored(self) -> int:
        """Files in the documents' folder and in the spool."""
        data = self.runtime.config.data_dir
        folders = (data / "documents", self.runtime.config.spool_dir)
        return sum(path.is_file() for folder in folders for path in folder.rglob("*"))

    def count(self, model: type[Any]) -> int:
        with self.runtime.database.reading() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(model)) or 0

    # What the carrier says

    def final_at_carrier(self, job_id: str) -> dict[str, Any]:
        """The carrier's own account of the newest attempt, once it is final."""
        tag = self.attempt(job_id).tag

        def account() -> dict[str, Any] | None:
            faxes = self.carrier.get(f"/v1/faxes?tag={tag}")["faxes"]
            known: dict[str, Any] | None = faxes[0] if faxes else None
            return known if known and known["ended_at"] else None

        found = eventually(account)
        assert found is not None
        return found

    def callback(self, fax: dict[str, Any], **changes: Any) -> CallbackRequest:
        """A callback about `fax` as the carrier signs it."""
        body = json.dumps({"event": "fax.news", "fax": {**fax, **changes}}).encode()
        return self.signed(body)

    def signed(self, body: bytes) -> CallbackRequest:
        at = str(int(time.time()))
        secret = self.carrier.secret.encode()
        proof = hmac.new(secret, at.encode() + b"." + body, "sha256").hexdigest()
        headers = {"x-simulator-signature": f"t={at},v1={proof}"}
        return CallbackRequest("POST", "http://127.0.0.1:9/callbacks/simulator", headers, body)

    def receive(self, request: CallbackRequest) -> None:
        callbacks.receive(self.runtime, "simulator", request)


@contextmanager
def open_site(
    installation: Installation, carrier: SimulatorProcess, **changes: Any
) -> Iterator[Site]:
    """A site, closed at the end."""
    site = Site(installation, carrier, **changes)
    try:
        yield site
    finally:
        site.runtime.close()
