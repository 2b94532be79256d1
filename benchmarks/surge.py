"""What a surge of one account costs the others: it submits seven times what it does else, and more than the machine can
convert and send; the others go on as before, and should hardly notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks import documents
from benchmarks.client import Pace
from benchmarks.figures import Figures
from benchmarks.load import Load, run
from benchmarks.service import Service
from benchmarks.sides import Side
from benchmarks.stages import WARM_UP, Length
from faxbot import actors, identity, wiring
from faxbot.config import Config

QUIET, SURGE = "in quiet", "in the surge"
RATE = 6.0
"""Faxes a second of the others together, and of the one account in quiet. Each is a page to be converted, and the
machine manages some 35 a second."""
TIMES = 7
SECONDS, LEAD = 10.0, 3.0
"""The others are measured from LEAD seconds after the surge has begun: until it is known as one, some dozens of its
faxes stand among the others', who wait up to a second."""
CONNECTIONS = 8


def account_key(database: str, folder: Path) -> str:
    """A key of a second account; the product has no command for one yet."""
    config = Config.load({"DATABASE_URL": database, "FAX_DATA_DIR": str(folder)})
    runtime = wiring.build(config)
    try:
        with runtime.database.transaction() as session:
            return identity.create_key(
                session,
                runtime.keyring,
                name="surge",
                scopes=["*"],
                now=runtime.now(),
                actor=replace(actors.CLI, account_id="surge"),
            )[1]
    finally:
        runtime.close()


def measure(
    figures: Figures, side: Side, key: str, length: Length, say: Callable[[str], None]
) -> None:
    """Milliseconds from accepted to the carrier for the others' faxes, in quiet and in the surge, by turns."""
    surging = replace(side.service, key=key)
    run(side.service, documents.pdf_page(), Load(WARM_UP, Pace(CONNECTIONS), wait=60))
    for number in range(length.rounds):
        say(f"surge of one account, round {number + 1} of {length.rounds}")
        for name, rate in ((QUIET, RATE), (SURGE, TIMES * RATE)):
            _side_by_side(figures, name, side, (side.service, surging), (RATE, rate))


def _side_by_side(
    figures: Figures,
    name: str,
    side: Side,
    services: Sequence[Service],
    rates: Sequence[float],
) -> None:
    """Both accounts at once; `surge` is what the first one's faxes came to."""
    document = documents.pdf_page()

    def submit(service: Service, rate: float) -> None:
        is_other = service is services[0]
        if is_other:
            time.sleep(LEAD)
        seconds = SECONDS if is_other else LEAD + SECONDS
        load = Load(10**9, Pace(CONNECTIONS, seconds, rate), wait=120, converted=True)
        outcome = run(service, document, load, ledger=side.ledger)
        # The one account's own: whether it came up to its rate, and whether all of its faxes arrived.
        figures.take_outcome("surge" if is_other else "surging", name, outcome, 0)

    with ThreadPoolExecutor(len(services)) as pool:
        for done in [pool.submit(submit, *each) for each in zip(services, rates, strict=True)]:
            done.result()
