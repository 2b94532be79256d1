"""What core keeps in a storage: the same document comes back whatever the storage is and whether it is sealed, and
nothing else ever comes back."""

from __future__ import annotations

import base64
import hashlib
import secrets
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import sqlalchemy as sa

from faxbot import artifacts, crypto, envelopes, rotation
from faxbot.actors import CLI
from faxbot.artifacts import SEALED, ArtifactRow, Upload, Workspace
from faxbot.crypto import Keyring, Unsealable
from faxbot.db import new_id, utcnow
from faxbot.errors import ArtifactDamaged, ArtifactNotFound
from faxbot.models import Artifact
from faxbot.plugins.base import StoragePlugin
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import Site, open_site
from tests.storage.server import S3Server

CONTENT = b"pages of Quetzalcoatl " * 10_000
KINDS = ("local", "local sealed", "s3", "s3 sealed")
OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@dataclass
class Kept:
    """A faxbot that keeps documents in one of KINDS."""

    site: Site
    storage_id: str
    sealed: bool

    @property
    def runtime(self) -> Runtime:
        return self.site.runtime

    @property
    def storage(self) -> StoragePlugin:
        return artifacts.storage(self.runtime, self.storage_id)

    def store(self, content: bytes = CONTENT) -> ArtifactRow:
        """What is stored for a fax that is recorded; its row."""
        job_id = self.site.submit("+15550100000", uploads=(self.site.upload(content),)).job_id
        ((row,), _) = artifacts.of_job(self.runtime.database, job_id)
        return row

    def name(self, row: ArtifactRow) -> str:
        """What its bytes are called in the storage."""
        return str(row.key) + (SEALED if self.sealed else "")

    def lying(self, row: ArtifactRow) -> bytes:
        """The bytes as they lie in the storage."""
        with self.storage.open(self.name(row)) as file:
            return file.read()

    def change(self, row: ArtifactRow, content: bytes) -> None:
        """Behind faxbot's back."""
        path = self.runtime.config.spool_dir / new_id()
        path.write_bytes(content)
        self.storage.put(self.name(row), path)
        path.unlink(missing_ok=True)

    def left(self) -> list[Path]:
        """Files in the spool, and notes of bytes that nobody has settled."""
        config = self.runtime.config
        folders = (config.spool_dir, config.data_dir / "unsettled")
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


Open = Callable[..., Kept]


@pytest.fixture
def kept_in(store: Installation, s3: S3Server, carrier_of_all: SimulatorProcess) -> Iterator[Open]:
    """kept_in("s3 sealed"): a faxbot that keeps documents so; of one installation and one bucket."""
    bucket = s3.bucket()
    with ExitStack() as stack:

        def make(kind: str, **changes: str) -> Kept:
            storage_id, _, sealed = kind.partition(" ")
            environ = {**s3.environ(bucket), "STORAGE_BACKEND": storage_id}
            environ["FAXBOT_SEAL_DOCUMENTS"] = "true" if sealed else "false"
            site = stack.enter_context(open_site(store, carrier_of_all, **{**environ, **changes}))
            return Kept(site, storage_id, bool(sealed))

        yield make


@pytest.fixture(params=KINDS)
def kept(request: pytest.FixtureRequest, kept_in: Open) -> Kept:
    return kept_in(request.param)


@pytest.mark.parametrize("size", [1, envelopes.CHUNK_BYTES, 300_000])
def test_what_was_stored_is_fetched_again_and_nothing_is_left_of_it_elsewhere(
    kept: Kept, size: int
) -> None:
    content = (CONTENT * 2)[:size]
    row = kept.store(content)
    assert kept.left() == []
    with Workspace(kept.runtime) as workspace:
        path = artifacts.fetch(kept.runtime, row, workspace)
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert b"".join(artifacts.read(kept.runtime, row)) == content
    assert kept.left() == []
    assert list(kept.runtime.config.spool_dir.iterdir()) == []


def test_sealed_nobody_can_read_it_where_it_lies_and_clear_everybody_can(kept: Kept) -> None:
    row = kept.store()
    lying = kept.lying(row)
    assert (b"Quetzalcoatl" in lying) is not kept.sealed
    assert (row.sha256, row.size) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert (row.data_key_sealed is not None) is kept.sealed
    if kept.sealed:
        assert lying.startswith(envelopes.HEAD)


def test_no_name_in_a_storage_says_more_than_an_id_and_a_day(kept: Kept) -> None:
    row = kept.store()
    day, _, name = kept.name(row).rpartition("/")
    assert day == f"{row.created_at:%Y/%m/%d}"
    assert name == row.id + (SEALED if kept.sealed else "")


HARM: dict[str, Callable[[bytes], bytes]] = {
    "a bit was changed": lambda lying: lying[:-9] + bytes([lying[-9] ^ 1]) + lying[-8:],
    "its end is gone": lambda lying: lying[:-1],
    "something was added": lambda lying: lying + b"x",
    "it is empty": lambda _: b"",
    "it is something else": lambda lying: bytes(len(lying)),
}


@pytest.mark.parametrize("how", HARM)
def test_what_is_not_what_was_stored_is_damaged_and_leaves_nothing(kept: Kept, how: str) -> None:
    row = kept.store()
    kept.change(row, HARM[how](kept.lying(row)))
    with Workspace(kept.runtime) as workspace:
        for _ in range(2):
            with pytest.raises(ArtifactDamaged):
                artifacts.fetch(kept.runtime, row, workspace)
        assert list(workspace.folder.iterdir()) == []


def test_one_document_does_not_take_the_place_of_another(kept: Kept) -> None:
    """Neither its bytes nor, where they are sealed, its bytes with its data key."""
    one, other = kept.store(), kept.store(CONTENT[::-1])
    kept.change(one, kept.lying(other))
    with pytest.raises(ArtifactDamaged):
        list(artifacts.read(kept.runtime, one))
    if kept.sealed:
        with kept.runtime.database.transaction() as session:
            session.execute(
                sa.update(Artifact)
                .filter_by(id=one.id)
                .values(data_key_sealed=other.data_key_sealed, sha256=other.sha256)
            )
        ((swapped,), _) = artifacts.of_job(kept.runtime.database, one.job_id)
        with pytest.raises(Unsealable):
            list(artifacts.read(kept.runtime, swapped))


def test_what_is_gone_is_not_found(kept: Kept) -> None:
    row = kept.store()
    kept.storage.delete(kept.name(row))
    with Workspace(kept.runtime) as workspace, pytest.raises(ArtifactNotFound):
        artifacts.fetch(kept.runtime, row, workspace)


@pytest.mark.parametrize("storage_id", ["local", "s3"])
def test_sealed_and_clear_ones_lie_side_by_side_and_the_setting_is_for_new_ones(
    kept_in: Open, storage_id: str
) -> None:
    clear, sealed = kept_in(storage_id), kept_in(f"{storage_id} sealed")
    rows = [clear.store(), sealed.store()]
    for kept in (clear, sealed):
        for row in rows:
            assert b"".join(artifacts.read(kept.runtime, row)) == CONTENT
    assert clear.lying(rows[0]) == CONTENT
    assert sealed.lying(rows[1]) != CONTENT


def test_documents_stay_where_they_are_when_another_storage_is_chosen(kept_in: Open) -> None:
    before, after = kept_in("local sealed"), kept_in("s3 sealed")
    row = before.store()
    assert b"".join(artifacts.read(after.runtime, row)) == CONTENT
    assert after.store().storage_id == "s3"


def test_code_that_knows_of_no_seal_finds_nothing_and_does_not_take_it_for_a_document(
    kept_in: Open,
) -> None:
    """So its fax is held, and sent when new code looks for it."""
    kept = kept_in("local sealed")
    row = kept.store()
    with pytest.raises(ArtifactNotFound):
        kept.storage.open(row.key)


def test_without_the_master_key_it_does_not_open_and_is_not_said_to_be_gone(kept: Kept) -> None:
    row = kept.store()
    stranger = replace(kept.runtime, keyring=Keyring({"another": bytes(range(32))}))
    if kept.sealed:
        with pytest.raises(Unsealable):
            list(artifacts.read(stranger, row))
    else:
        assert b"".join(artifacts.read(stranger, row)) == CONTENT


def test_a_new_master_key_opens_it_and_no_byte_of_it_was_written_anew(kept_in: Open) -> None:
    first = kept_in("s3 sealed", CONFIG_MASTER_KEY=OLD)
    rotation.note_sealing(first.runtime.database, first.runtime.keyring, utcnow())
    row = first.store()
    lying = first.lying(row)
    both = kept_in("s3 sealed", CONFIG_MASTER_KEY=NEW, CONFIG_MASTER_KEY_PREVIOUS=OLD)
    both.runtime.fresh()
    assert rotation.rotate(both.runtime, CLI, wait=lambda _: None) is True

    after = kept_in("s3 sealed", CONFIG_MASTER_KEY=NEW)
    after.runtime.fresh()
    ((renewed,), _) = artifacts.of_job(after.runtime.database, row.job_id)
    assert renewed.data_key_sealed != row.data_key_sealed
    assert b"".join(artifacts.read(after.runtime, renewed)) == CONTENT
    assert after.lying(renewed) == lying
    with pytest.raises(Unsealable):
        list(artifacts.read(after.runtime, row))


def test_a_data_key_is_sealed_with_the_key_of_when_it_is_recorded(kept_in: Open) -> None:
    """To store a document may take longer than who changes the master key waits."""
    kept = kept_in("local sealed", CONFIG_MASTER_KEY=NEW, CONFIG_MASTER_KEY_PREVIOUS=OLD)
    ring, now = kept.runtime.keyring, utcnow()
    old, new = (crypto.id_of(base64.b64decode(key)) for key in (OLD, NEW))
    row = artifacts.store(
        kept.runtime,
        kept.site.upload(CONTENT),
        owner={"job_id": new_id()},
        account_id="default",
        role="document",
        position=0,
        now=now,
    )
    assert row["data_key_sealed"][1:5] == ring.tag(old)
    changed = crypto.Keys(sealing=new, retiring=old)
    ring.follow(lambda: changed)
    (late,) = artifacts.to_insert(kept.runtime, [row])
    assert late["data_key_sealed"][1:5] == ring.tag(new)


def test_bytes_whose_fax_was_never_recorded_are_removed(kept: Kept) -> None:
    site = kept.site
    recorded = kept.store()
    row = artifacts.store(
        kept.runtime,
        site.upload(CONTENT),
        owner={"job_id": new_id()},
        account_id="default",
        role="document",
        position=0,
        now=site.now,
    )
    name = row["key"] + (SEALED if kept.sealed else "")
    kept.storage.open(name).close()
    site.now += timedelta(hours=2)
    assert artifacts.collect(kept.runtime) == 1
    with pytest.raises(ArtifactNotFound):
        kept.storage.open(name)
    assert kept.left() == []
    assert b"".join(artifacts.read(kept.runtime, recorded)) == CONTENT


def test_a_large_document_is_never_in_memory_as_a_whole(kept: Kept) -> None:
    path = kept.site.upload(b"").path
    with path.open("wb") as file:
        for _ in range(48):
            file.write(secrets.token_bytes(1024 * 1024))
    sha256, size = artifacts.hash_file(path)
    tracemalloc.start()
    try:
        row = artifacts.store(
            kept.runtime,
            Upload(path, sha256, size, "image/tiff", 1),
            owner={"job_id": new_id()},
            account_id="default",
            role="document",
            position=0,
            now=utcnow(),
        )
        pieces = artifacts.read(kept.runtime, cast(ArtifactRow, SimpleNamespace(**row)))
        assert sum(map(len, pieces)) == size
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < size / 2
