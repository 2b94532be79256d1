"""`faxbot config rotate-key`: what it says and does, and with which exit code."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
import sqlalchemy as sa

from faxbot import crypto, jobs, rotation, wiring
from faxbot.db import utcnow
from faxbot.hidden import Hidden
from faxbot.models import Job
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.command import Ended, one_line, run
from tests.integration.site import number, open_site

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
IDS = {key: crypto.id_of(base64.b64decode(key)) for key in (OLD, NEW)}
BOTH = {"CONFIG_MASTER_KEY": NEW, "CONFIG_MASTER_KEY_PREVIOUS": OLD}


@pytest.fixture(autouse=True)
def _nobody_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process need be given time to notice anything: that is seen under tests/acceptance."""
    monkeypatch.setattr(rotation, "NOTICE", timedelta(seconds=0.1))


@pytest.fixture
def filled(embedded: Installation, carrier_of_all: SimulatorProcess) -> Installation:
    """Two faxes under the old key, one of them with a header."""
    with open_site(embedded, carrier_of_all, CONFIG_MASTER_KEY=OLD) as site:
        rotation.note_sealing(site.runtime.database, site.runtime.keyring, utcnow())
        site.submit(number(), header="Dr. Doe")
        site.submit(number())
    return embedded


def rotate(store: Installation, *words: str, **changes: str) -> Ended:
    return run(store, "config", "rotate-key", *words, **changes)


def test_it_says_what_it_would_do_does_it_and_says_what_is_needed_no_more(
    filled: Installation,
) -> None:
    would = rotate(filled, "--dry-run", **BOTH)
    assert would.code == 0
    assert "5 values would be sealed anew" in would.out
    assert "jobs.to_sealed: 2" in would.out
    told = rotate(filled, "--status", "--json", **BOTH).json
    assert (told["state"], told["sealing"], told["left"]) == (
        "resting",
        IDS[OLD],
        {"jobs.to_sealed": 2, "jobs.header_sealed": 1, "artifacts.data_key_sealed": 2},
    )

    ended = rotate(filled, **BOTH)
    assert ended.code == 0
    assert "the old key is needed no more" in ended.out
    assert "jobs: 2 of 2" in ended.err
    assert not any(key in ended.out + ended.err for key in (OLD, NEW))
    told = rotate(filled, "--status", "--json", CONFIG_MASTER_KEY=NEW).json
    assert (told["state"], told["sealing"], told["left"]) == ("resting", IDS[NEW], {})
    again = rotate(filled, CONFIG_MASTER_KEY=NEW)
    assert (again.code, again.out.partition(":")[0]) == (0, "nothing to do")


def test_what_is_damaged_keeps_nobody_from_the_end_and_is_named(
    filled: Installation, carrier_of_all: SimulatorProcess
) -> None:
    """And what lies beside it is sealed anew all the same."""
    with open_site(filled, carrier_of_all, CONFIG_MASTER_KEY=OLD) as site:
        damaged = sa.update(Job).where(Job.header_sealed.is_not(None))
        with site.runtime.database.transaction() as session:
            session.execute(damaged.values(header_sealed=Job.to_sealed))
    ended = rotate(filled, **BOTH)
    assert ended.code == 0
    assert "jobs.header_sealed: 1 are damaged" in ended.out
    assert "to_sealed" not in ended.out


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"CONFIG_MASTER_KEY": NEW}, "another master key"),
        ({"CONFIG_MASTER_KEY_PREVIOUS": OLD}, "set that to the new one"),
        (
            {"CONFIG_MASTER_KEY": OLD, "CONFIG_MASTER_KEY_PREVIOUS": "x"},
            "_PREVIOUS is not the base64",
        ),
    ],
)
def test_without_the_keys_it_is_refused_in_a_sentence(
    filled: Installation, keys: dict[str, str], words: str
) -> None:
    refused = rotate(filled, **keys)
    assert refused.code == 1
    assert words in one_line(refused.err)


def test_a_new_key_file_is_made_by_the_command_itself(
    embedded: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(embedded, carrier_of_all) as site:
        fax = site.submit("+15550107700").job_id
    old = (embedded.data_dir / "master.key").read_bytes()
    assert "2 values would be sealed anew" in rotate(embedded, "--dry-run").out
    assert not (embedded.data_dir / crypto.NEXT).exists()
    ended = rotate(embedded)
    assert ended.code == 0, ended.err
    assert "lies beside it under its id" in ended.out
    assert (embedded.data_dir / "master.key").read_bytes() != old
    (embedded.data_dir / f"master.key.{crypto.id_of(old)}").unlink()
    with open_site(embedded, carrier_of_all) as site:
        assert jobs.number(site.runtime, site.job(fax)) == Hidden("+15550107700")


def test_a_lost_key_is_said_and_mended_by_a_word(filled: Installation) -> None:
    for command in (["keys", "list"], ["config", "rotate-key", "--status"]):
        refused = run(filled, *command, CONFIG_MASTER_KEY=NEW)
        assert refused.code == 1
        assert "another master key" in one_line(refused.err)
    assert "is not lost" in one_line(rotate(filled, "--old-key-is-lost", CONFIG_MASTER_KEY=OLD).err)

    ended = rotate(filled, "--old-key-is-lost", CONFIG_MASTER_KEY=NEW)
    assert ended.code == 0
    assert "5 values can never be read again" in ended.out
    assert run(filled, "keys", "list", CONFIG_MASTER_KEY=NEW).code == 0
    runtime = wiring.build(filled.config(CONFIG_MASTER_KEY=NEW))
    assert runtime.fresh().keyring.current == IDS[NEW]
    runtime.close()
