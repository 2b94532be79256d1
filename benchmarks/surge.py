"""What a surge of one account costs the others: it submits seven times what it does else, and more than the machine can
convert and send; the others go on as before, and should hardly notice.
"""

from __future__ import annotations

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
from benchmarks.stages import Length
from faxbot import identity, wiring
from faxbot.config import Config

QUIET, SURGE = "in quiet", "in the surge"
RATE = 6.0
"""Faxes a second of the others together, and of the one account in quiet. Each is a page to be converted, and the
machine manages some 35 a second."""
TIMES = 7
SECONDS = 20.0
"""Of quiet and of surge. That one account sends too much is known after its first dozen faxes; those stand before the
others' still."""
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
                account_id="surge",
            )[1]
    finally:
        runtime.close()


def measure(
    figures: Figures, side: Side, key: str, length: Length, say: Callable[[str], None]
) -> None:
    """Milliseconds from accepted to the carrier for the others' faxes, in quiet and in the surge, by turns."""
    surging = replace(side.service, key=key)
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
    """Both accounts at once; only the first one's faxes are looked at."""
    document = documents.pdf_page()

    def submit(service: Service, rate: float) -> None:
        load = Load(10**9, Pace(CONNECTIONS, SECONDS, rate), wait=120, converted=True)
        outcome = run(service, document, load, ledger=side.ledger)
        if service is services[0]:
            figures.take_outcome("surge", name, outcome, 0)

    with ThreadPoolExecutor(len(services)) as pool:
        for done in [pool.submit(submit, *each) for each in zip(services, rates, strict=True)]:
            done.result()
