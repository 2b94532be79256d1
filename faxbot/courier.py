"""Delivers webhooks, in threads of a worker process beside its tasks: one that decides, and a few that call.

A task only wakes it, so that a receiver that hangs keeps no process from its faxes; it goes on until nothing is due.
An endpoint gets one call at a time at first, one more with each that is taken soon, and one again after a failure: one
that hangs holds a single thread. Its first call waits for nobody else's, and those that fail, or keep a call for long,
have places of their own: however many hang, the others notice nothing. Who delivers for which endpoint is written in
the database (deliveries.py); a process that dies leaves leases that run out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from faxbot import deliveries, webhooks
from faxbot.deliveries import IN_A_ROW, Standing, Target, Tried
from faxbot.dialling import BROKEN, Answer, Dialler
from faxbot.errors import FaxbotError
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

MOST_CALLS = 32
"""At once, of one process, to those that answer, where they are fewer; each of them may always get one."""
CALLS_EACH = 8
"""At once, of one endpoint."""
SLOW = 2.0
"""Seconds after which an answer comes so late that its endpoint gets one call at a time, and after which one that has
not come takes no place of those that answer."""
MOST_ANSWERING, MOST_FAILING = 128, 128
"""Endpoints that one process takes: of those that answer, and of those that fail or keep a call for long. Who begins to
hang is at first one of those that answer."""
MOST_ENDPOINTS = 256
"""That one process has at a time; each that hangs costs a thread, and no work."""
PORTION = 32
"""Endpoints that are taken at a time, so that other processes have their part."""
BATCH = 100
"""Deliveries that are read at a time for one endpoint."""
TICK, IDLE_TICK = 0.025, 0.1
"""Seconds between two looks: while calls are made, and while there is nothing to do."""
LINGER = 1.0
"""Seconds for which more is looked for after the last call: longer than who wakes it is silent (fanout.RING_EVERY)."""
AFTER_FAULT = 1.0
"""Seconds after which it is tried again where the database is away."""
LOOK_AGAIN = 0.25
"""Seconds after which more is looked for for an endpoint that is being called."""
LOOK_EVERY = 5.0
"""Seconds within which a change of such an endpoint is noticed."""
SLICE = 0.25
"""Seconds for which a thread goes on with one endpoint before it is the others' turn."""
REPLAY = "faxbot-replay"
"""The header that says which replay of a delivery this is."""
LONGEST_END = 5.0
"""Seconds that calls under way may take when the process ends."""


def _written(runtime: Runtime, tried: Sequence[Tried]) -> dict[str, Standing]:
    """deliveries.conclude(), and where the ledger does not know one of them, as one that was restored meanwhile, each
    by itself: it keeps no other waiting. Raises DatabaseAway."""
    try:
        return deliveries.conclude(runtime, tried)
    except IntegrityError:
        pass
    standings: dict[str, Standing] = {}
    unknown: list[str] = []
    for each in tried:
        try:
            standings |= deliveries.conclude(runtime, [each])
        except IntegrityError:
            log.error("a try of an unknown delivery", extra={"webhook_id": each.target.id})  # noqa: TRY400 - no PHI
            unknown.append(each.target.id)
    for webhook_id in unknown:
        # It goes on with what is known; where another try has closed it, it stays closed.
        standings.setdefault(webhook_id, Standing(True, 0))
    return standings


class _Endpoint:
    """An endpoint that this process has: what waits for it, and how many calls it may get."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.lock = threading.Lock()
        self.waiting: list[sa.Row[Any]] = []
        self.faxes: dict[str, float] = {}
        """Of which something is being sent, and since when: their next one waits, to come in order."""
        self.in_hand: set[str] = set()
        """Deliveries that were read, until what came of them is written."""
        self.calls = 0
        self.allowed = 1
        self.failing = target.failures > 0
        """Whether the last call was not taken."""
        self.credit = max(1, IN_A_ROW - target.failures)
        """Failures until it is to rest."""
        self.open = True
        self.looked_at = self.served_at = 0.0
        self.more = True
        """Whether more may be due than was read."""

    def add(self, rows: Sequence[sa.Row[Any]]) -> None:
        with self.lock:
            self.waiting += rows
            self.in_hand.update(row.id for row in rows)

    def hangs(self) -> bool:
        """Whether a call is under way for long."""
        with self.lock:
            return self._hangs()

    def _hangs(self) -> bool:
        late = time.monotonic() - SLOW
        return any(since < late for since in self.faxes.values())

    def answers(self) -> bool:
        """Whether it takes what it is sent, as far as is known."""
        return not (self.failing or self.hangs())

    def begin(self, share: int) -> sa.Row[Any] | None:
        """The next delivery, where another call may be made and `share` calls of all are not exceeded."""
        with self.lock:
            if not self.open or self.credit <= 0 or self.calls >= min(self.allowed, share):
                return None
            if self.calls and self._hangs():
                return None
            self.served_at = time.monotonic()
            for at, row in enumerate(self.waiting):
                if row.fax_id not in self.faxes:
                    del self.waiting[at]
                    self.calls += 1
                    self.faxes[row.fax_id] = self.served_at
                    return row
            return None

    def end(self, row: sa.Row[Any], answer: Answer) -> None:
        """So a call has ended."""
        with self.lock:
            self.calls -= 1
            self.faxes.pop(row.fax_id, None)
            self.failing = not answer.ok
            soon = answer.ok and answer.seconds < SLOW
            self.allowed = min(self.allowed + 1, CALLS_EACH) if soon else 1
            self.credit = IN_A_ROW if answer.ok else self.credit - 1

    def give_back(self, row: sa.Row[Any]) -> None:
        """It could not be begun with."""
        with self.lock:
            self.calls -= 1
            self.faxes.pop(row.fax_id, None)
            self.waiting.insert(0, row)

    def written(self, ids: Sequence[str], standing: Standing | None) -> None:
        """What came of these is written. None: this endpoint is somebody else's now."""
        with self.lock:
            self.in_hand.difference_update(ids)
            if standing is None or not standing.open:
                self.close()
            elif self.credit <= 0:
                self.credit = max(1, IN_A_ROW - standing.failures)

    def close(self) -> None:
        """Begin no more calls; the caller holds the lock, or nobody else is there."""
        self.open = False
        self.in_hand.difference_update(row.id for row in self.waiting)
        self.waiting.clear()


class Courier:
    """The deliveries of one process; make it after a fork. Safe to share between threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._dialler: Dialler | None = None
        self._endpoints: dict[str, _Endpoint] = {}
        self._tried: list[Tried] = []
        self._calls = 0
        self._share = MOST_CALLS
        """Calls at once that each endpoint may get."""
        self._prolonged_at = 0.0
        self._lock = threading.Lock()
        self._stir, self._ending = threading.Event(), threading.Event()
        self._woken = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """There may be something to deliver."""
        with self._lock:
            self._woken = True
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
                self._thread.start()
        self._stir.set()

    def close(self) -> None:
        """End: calls under way have a few seconds, and what came of them is written."""
        with self._lock:
            self._ending.set()
            thread = self._thread
        self._stir.set()
        if thread is not None:
            thread.join(LONGEST_END + 2 * AFTER_FAULT)
        if self._dialler is not None:
            self._dialler.close()

    # The thread that decides --------------------------------------------------------------------------

    def _run(self) -> None:
        last, said = time.monotonic(), False
        while not self._ending.is_set():
            try:
                busy = self._turn()
                said = False
            except Exception as error:  # noqa: BLE001 - the thread goes on, whatever it met
                if not said:  # once while the database is away, not each second
                    detail = error.code if isinstance(error, FaxbotError) else type(error).__name__
                    log.warning("webhooks wait", extra={"error": detail})
                said = True
                self._ending.wait(AFTER_FAULT)
                busy = bool(self._endpoints)
            if busy or self._woken:
                last, self._woken = time.monotonic(), False
            elif self._is_over(last):
                return
            self._stir.wait(TICK if self._endpoints else IDLE_TICK)
            self._stir.clear()
        self._finish()

    def _is_over(self, last: float) -> bool:
        with self._lock:
            if self._woken or time.monotonic() - last < LINGER:
                return False
            self._thread = None
            return True

    def _turn(self) -> bool:
        """Write what was done, and begin what is due; whether there was anything."""
        runtime = self._runtime.fresh()
        tried = self._conclude(runtime)
        self._keep(runtime)
        self._let_go(runtime)
        self._take(runtime)
        answering = {each for each in self._endpoints.values() if each.answers()}
        self._share = max(1, MOST_CALLS // max(1, len(answering)))

        def turn(one: _Endpoint) -> tuple[bool, float]:
            return one not in answering, one.served_at  # who has waited for longest is first

        for endpoint in sorted(self._endpoints.values(), key=turn):
            self._fill(runtime, endpoint)
            self._call(runtime, endpoint)
        return bool(tried or self._endpoints)

    def _take(self, runtime: Runtime) -> None:
        held = len(self._endpoints)
        answering = sum(each.answers() for each in self._endpoints.values())
        room = MOST_ENDPOINTS - held
        most = max(0, min(PORTION, room, MOST_ANSWERING - answering))
        most_failing = max(0, min(PORTION, room - most, MOST_FAILING - (held - answering)))
        for target in deliveries.claim(runtime, most, most_failing):
            self._endpoints[target.id] = _Endpoint(target)

    def _conclude(self, runtime: Runtime) -> int:
        with self._lock:
            tried, self._tried = self._tried, []
        if not tried:
            return 0
        try:
            standings = _written(runtime, tried)
        except Exception:
            with self._lock:
                self._tried[:0] = tried
            raise
        done: dict[str, list[str]] = {}
        for each in tried:
            done.setdefault(each.target.id, []).append(each.delivery.id)
        for webhook_id, ids in done.items():
            self._endpoints[webhook_id].written(ids, standings.get(webhook_id))
        return len(tried)

    def _keep(self, runtime: Runtime) -> None:
        """Prolong the leases; what a person has changed counts from then on."""
        every = min(runtime.config.heartbeat_seconds, LOOK_EVERY)
        if time.monotonic() - self._prolonged_at < every:
            return
        mine = deliveries.prolong(runtime, [each.target for each in self._endpoints.values()])
        for webhook_id, endpoint in self._endpoints.items():
            target = mine.get(webhook_id)
            with endpoint.lock:
                if target is None:
                    endpoint.close()
                else:
                    endpoint.target = target
        # Not before: where the database was away, it is done before anything else is taken.
        self._prolonged_at = time.monotonic()

    def _let_go(self, runtime: Runtime) -> None:
        for webhook_id, endpoint in list(self._endpoints.items()):
            if not endpoint.in_hand and not self._fill(runtime, endpoint):
                deliveries.release(runtime, endpoint.target)
                del self._endpoints[webhook_id]

    def _fill(self, runtime: Runtime, endpoint: _Endpoint) -> bool:
        """Read what is due; whether there is anything to send."""
        if not endpoint.open:
            return False
        if endpoint.hangs():
            return bool(endpoint.waiting)  # nothing more is begun
        now = time.monotonic()
        again = endpoint.more or not endpoint.in_hand or now - endpoint.looked_at >= LOOK_AGAIN
        if again and len(endpoint.waiting) < BATCH // 2:
            room = BATCH - len(endpoint.waiting)
            found = deliveries.due(runtime, endpoint.target, endpoint.in_hand, room)
            endpoint.looked_at, endpoint.more = now, len(found) == room
            endpoint.add(found)
        return bool(endpoint.waiting)

    def _call(self, runtime: Runtime, endpoint: _Endpoint) -> None:
        """Begin as many calls as the endpoint may get, and none when the process ends."""
        while not self._ending.is_set() and (row := endpoint.begin(self._share)) is not None:
            with self._lock:
                self._calls += 1
            arguments = (runtime, endpoint, row)
            call = threading.Thread(target=self._send, args=arguments, name="call", daemon=True)
            try:
                call.start()
            except RuntimeError:  # the system gives no more threads
                endpoint.give_back(row)
                with self._lock:
                    self._calls -= 1
                raise

    # The threads that call ----------------------------------------------------------------------------

    def _send(self, runtime: Runtime, endpoint: _Endpoint, row: sa.Row[Any] | None) -> None:
        """Send this delivery, and others of the same endpoint for a while."""
        until = time.monotonic() + SLICE
        try:
            while row is not None:
                self._send_one(runtime, endpoint, row)
                over = self._ending.is_set() or time.monotonic() > until
                row = None if over else endpoint.begin(self._share)
        finally:
            with self._lock:
                self._calls -= 1
            self._stir.set()

    def _send_one(self, runtime: Runtime, endpoint: _Endpoint, row: sa.Row[Any]) -> None:
        target, started_at = endpoint.target, runtime.now()
        try:
            answer = self._answer(runtime, target, row, started_at)
        except Exception as error:  # noqa: BLE001 - whatever this one met, the others are delivered
            names = {"webhook_id": target.id, "exception": type(error).__name__}
            log.error("call failed", extra=names)  # noqa: TRY400 - the class only
            answer = Answer(BROKEN, 0.0)
        with self._lock:
            self._tried.append(Tried(target, row, started_at, answer))
        endpoint.end(row, answer)

    def _answer(self, runtime: Runtime, target: Target, row: sa.Row[Any], at: datetime) -> Answer:
        body = row.body.encode()
        signed = webhooks.headers(target.secrets, row.id, at, body)
        if row.turn:
            signed[REPLAY] = str(row.turn)
        rules, seconds = runtime.config.destinations, runtime.config.webhook_seconds
        return self._way_out(runtime).post(rules, target.url, signed, body, seconds=seconds)

    def _way_out(self, runtime: Runtime) -> Dialler:
        with self._lock:
            if self._dialler is None:
                self._dialler = Dialler(runtime.config.webhook_ca_file)
            return self._dialler

    def _finish(self) -> None:
        """What is under way may end; endpoints without a call are given back."""
        for endpoint in self._endpoints.values():
            with endpoint.lock:
                endpoint.close()
        until = time.monotonic() + LONGEST_END
        while self._calls and time.monotonic() < until:
            self._stir.wait(TICK)
            self._stir.clear()
        try:
            self._conclude(self._runtime)
            self._let_go(self._runtime)
        except Exception as error:  # noqa: BLE001 - their leases run out
            log.warning("webhooks not given back", extra={"error": type(error).__name__})
