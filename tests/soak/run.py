"""One run: traffic while processes are killed, then quiet until all is final, then the count."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from faxbot.events import TERMINAL, Event, Status, fold
from tests.acceptance.site import PDF
from tests.ground import BUSY, eventually
from tests.integration.site import tiff
from tests.soak.system import System

SENDERS = 4
PAUSE = 0.25
"""Seconds between two faxes of a sender, on the average."""
ON_THEIR_WAY = 100
"""Faxes of a sender that are not final, at most: among ever more kills less is sent than is wished for, and else the
run would end with thousands in the queue, and measure how fast it empties."""
KILL_PAUSE = 0.6
"""Seconds between two kills, on the average; starting again takes longer than that."""
FAXES_A_KILL = 2
"""So many faxes have been accepted for each kill before it comes: a service that has nothing, because the machine is
too slow for such kills, has nothing to lose."""
DRAIN = 180.0
"""Seconds after the last kill by which every fax must have come to an end."""
ENDINGS: dict[str, tuple[str, int]] = {
    "0000": ("delivered", 40),
    "0022": ("delivered", 6),
    "0033": ("delivered", 6),
    "0044": ("delivered", 8),
    "0066": ("delivered", 6),
    "0404": ("failed", 4),
    "0429": ("delivered", 2),
    "0501": ("delivered", 4),
    "0504": ("delivered", 4),
    "0505": ("delivered", 3),
    "0509": ("delivered", 3),
    "0510": ("delivered", 4),
}
"""What the last digits of a number lead to at last, and their share of the traffic: faxes that end without the minutes
between redials."""

Say = Callable[[str], None]


@dataclass
class Result:
    """What came of a run: ids by what is wrong with them, and what was killed."""

    accepted: int = 0
    kills: int = 0
    killed: Mapping[str, int] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    poisoned: int = 0
    """Set aside because three workers died at it, as they must be."""
    wrong: list[str] = field(default_factory=list)
    """Ended otherwise than its number says, or with a timeline that does not add up."""

    @property
    def line(self) -> str:
        return (
            f"kills {self.kills} lost {len(self.lost)} duplicated {len(self.duplicated)} "
            f"stuck {len(self.stuck)} uncertain {len(self.uncertain)}"
        )

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.duplicated or self.stuck or self.wrong)


class Traffic:
    """Clients that submit faxes, and repeat each request under its key until it is answered."""

    def __init__(self, system: System, seed: int) -> None:
        self._system, self._seed = system, seed
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._number = secrets.randbelow(10**6)
        self.faxes: dict[str, str] = {}
        """The last digits of its number by the id of each fax that was accepted."""

    def run(self, number: int) -> None:
        luck = random.Random(f"{self._seed}-{number}")
        page = tiff()
        open_faxes: list[str] = []
        with requests.Session() as session:
            session.trust_env = False
            while not self._over.is_set():
                if len(open_faxes) >= ON_THEIR_WAY:
                    open_faxes = [fax_id for fax_id in open_faxes if not self._is_final(fax_id)]
                    self._over.wait(1)
                    continue
                (digits,) = luck.choices(list(ENDINGS), [share for _, share in ENDINGS.values()])
                document = PDF.read_bytes() if luck.random() < 0.2 else page
                open_faxes.append(self._submit(session, digits, document))
                self._over.wait(luck.expovariate(1 / PAUSE))

    def _is_final(self, fax_id: str) -> bool:
        return _ask(self._system, fax_id)["status"] in (*TERMINAL, "unknown")

    def _submit(self, session: requests.Session, digits: str, document: bytes) -> str:
        with self._lock:
            self._number = (self._number + 1) % 10**6
            to = f"+1{self._number:06d}{digits}"
        headers = {"X-API-Key": self._system.web.key, "Idempotency-Key": secrets.token_hex(8)}
        while True:
            try:
                answer = session.post(
                    f"{self._system.web.url}/fax/send",
                    data={"to": to},
                    files={"file": document},
                    headers=headers,
                    timeout=30,
                )
            except requests.RequestException:
                time.sleep(0.2)
                continue
            if answer.status_code == 202:
                fax_id: str = answer.json()["id"]
                with self._lock:
                    self.faxes[fax_id] = digits
                return fax_id
            assert answer.status_code in (409, 503), answer.text
            time.sleep(0.2)

    def end(self) -> None:
        self._over.set()


def soak(system: System, kills: int, seed: int, luck: random.Random, say: Say) -> Result:
    """Kill `kills` processes under traffic, and count what came of the faxes."""
    traffic = Traffic(system, seed)
    begun = said = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        clients = [pool.submit(traffic.run, number) for number in range(SENDERS)]
        try:
            for number in range(1, kills + 1):
                time.sleep(luck.expovariate(1 / KILL_PAUSE))
                eventually(lambda: len(traffic.faxes) >= FAXES_A_KILL * number, 60, every=0.05)  # noqa: B023
                system.kill()
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    say(f"{said - begun:.0f} s: {number} kills, {len(traffic.faxes)} faxes")
        finally:
            traffic.end()
        for client in clients:
            client.result()
    say(f"{time.monotonic() - begun:.0f} s: quiet; {len(traffic.faxes)} faxes are waited for")
    return _count(system, traffic.faxes, kills)


def _count(system: System, faxes: Mapping[str, str], kills: int) -> Result:
    result = Result(accepted=len(faxes), kills=kills, killed=dict(system.killed))
    told = _wait_for_the_end(system, faxes)
    taken: defaultdict[str, int] = defaultdict(int)
    for entry in system.carrier.faxes():
        taken[entry["tag"]] += 1
    for fax_id, digits in faxes.items():
        _judge(result, fax_id, told[fax_id], taken, ENDINGS[digits][0])
    return result


def _judge(
    result: Result, fax_id: str, story: Mapping[str, Any], taken: Mapping[str, int], wanted: str
) -> None:
    status = story.get("status", "unknown")
    result.ends[status] += 1
    arrived = sum(taken[attempt["tag"]] for attempt in story.get("attempts", ()))
    if status == "unknown" or (status == "delivered" and not arrived):
        result.lost.append(fax_id)
    elif arrived > 1:
        result.duplicated.append(fax_id)
    elif status == "uncertain":
        result.uncertain.append(fax_id)
    elif status not in TERMINAL:
        result.stuck.append(fax_id)
    elif story["events"][-1]["cause"] == "poison" and _adds_up(story):
        result.poisoned += 1
    elif status != wanted or not _adds_up(story):
        steps = " ".join(f"{event['type']}({event['cause']})" for event in story["events"])
        result.wrong.append(f"{fax_id} wanted {wanted}: {steps}")


def _adds_up(story: Mapping[str, Any]) -> bool:
    """Whether the events are numbered without gaps and fold to the status."""
    events = story["events"]
    numbers = [event["sequence"] for event in events]
    steps = ((Event(event["type"]), Status(event["status"])) for event in events)
    return numbers == list(range(1, len(numbers) + 1)) and fold(steps) == story["status"]


def _wait_for_the_end(system: System, faxes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Status, events and attempts of each fax, when all are final or the time is over."""
    told: dict[str, dict[str, Any]] = {}
    until = time.monotonic() + DRAIN * BUSY
    while left := [
        fax_id for fax_id in faxes if told.get(fax_id, {}).get("status") not in TERMINAL
    ]:
        for fax_id in left:
            told[fax_id] = _ask(system, fax_id)
        if time.monotonic() > until or all(
            story.get("status", "unknown") in (*TERMINAL, "unknown") for story in told.values()
        ):
            break
        time.sleep(0.5)
    return told


def _ask(system: System, fax_id: str) -> dict[str, Any]:
    while True:
        try:
            answer = system.web.request("GET", f"/fax/{fax_id}/events")
        except requests.RequestException:
            time.sleep(0.2)
            continue
        if answer.status_code == 404:
            return {"status": "unknown"}
        if answer.status_code == 200:
            story: dict[str, Any] = answer.json()
            return {**story, "status": story["events"][-1]["status"]}
        time.sleep(0.2)
