"""What core relies on, as tests that the author of a storage inherits.

class TestVault(StorageContract):
    plugin = VaultStorage

    @pytest.fixture
    def settings(self, server):
        return {"url": server.url, "token": "a long test token"}

    @pytest.fixture
    def away(self, settings):
        return {**settings, "url": "http://127.0.0.1:9"}
"""

from __future__ import annotations

import hashlib
import secrets
import tracemalloc
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

from faxbot.errors import ArtifactNotFound, PluginError, StorageAway
from faxbot.plugins.base import StoragePlugin
from faxbot.plugins.manifest import Manifest
from faxbot.plugins.offline import offline
from faxbot.plugins.starting import check_class
from faxbot.testing.ground import (
    SetGround,
    health_of,
    no_secret,
    prepared,
    says_enough,
)

SIZES = (0, 1, 65_536, 5 * 1024 * 1024 + 1)
LARGE, MEMORY = 64 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes of a document that never is in memory as a whole, and what may be."""
PIECE = 64 * 1024
THREADS = 8
NO_KEYS = (
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../b",
    "a//b",
    "a/",
    ".hidden",
    "a/.b",
    "A",
    "a b",
    "a\nb",
    "a\x00b",
    "ä",
    "a\\b",
    "x" * 200,
    "/".join("abcdefghi"),
    "~",
)


class Begin(Protocol):
    """begin(settings): a storage that is set so."""

    def __call__(self, settings: Mapping[str, Any]) -> StoragePlugin: ...


class StorageContract(SetGround):
    """Inherit it, and write `plugin` and the fixture `settings`; `away` too, where there is a service that can be."""

    plugin: ClassVar[type[StoragePlugin]]

    # What follows is the contract's own.

    @pytest.fixture
    def storage(self, begin: Begin, settings: dict[str, Any]) -> StoragePlugin:
        return begin(settings)

    @pytest.fixture
    def key(self) -> str:
        """One as core makes them."""
        return f"2026/11/20/{secrets.token_hex(16)}"

    @pytest.fixture
    def file(self, tmp_path: Path) -> Callable[[bytes], Path]:
        """file(b"..."): a file with this content, outside of the storage."""

        def write(content: bytes) -> Path:
            path = tmp_path / f"upload-{secrets.token_hex(8)}"
            path.write_bytes(content)
            return path

        return write

    # What it is -------------------------------------------------------------------------------

    def test_its_class_is_what_its_manifest_promises(self, manifest: Manifest) -> None:
        assert manifest.type == "storage", "its type is another than storage"
        check_class(self.plugin, manifest, self.plugin.__name__)

    def test_it_starts_without_the_network(
        self, manifest: Manifest, folder: Path, settings: dict[str, Any]
    ) -> None:
        config, context = prepared(manifest, settings)
        with offline(folder) as used:
            storage = self.plugin()
            storage.initialize(config, context)
        storage.shutdown()
        context.http.close()
        assert used == [], f"initialize() uses the network ({used})"

    def test_health_is_good_and_leaves_things_as_they_are(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        storage.put(key, file(b"pages"))
        health = health_of(storage)
        assert health.ok, f"health() is not ok: {health.detail}"
        assert _read(storage, key) == b"pages"

    # Keeping ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", SIZES)
    def test_what_was_put_is_opened_again(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path], size: int
    ) -> None:
        content = secrets.token_bytes(size)
        storage.put(key, file(content))
        assert _read(storage, key) == content

    def test_another_process_finds_it_too(
        self, begin: Begin, settings: dict[str, Any], key: str, file: Callable[[bytes], Path]
    ) -> None:
        begin(settings).put(key, file(b"pages"))
        assert _read(begin(settings), key) == b"pages"

    def test_it_is_read_piece_by_piece_by_several_at_once(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        content = secrets.token_bytes(300_000)
        storage.put(key, file(content))
        with storage.open(key) as one, storage.open(key) as other:
            assert other.read(7) == content[:7], "read(n) gives something else than n bytes"
            pieces = list(iter(lambda: one.read(PIECE), b""))
            assert b"".join(pieces) == content
            assert one.read(1) == b"", "at its end a stream gives b''"
            assert other.read() == content[7:], "read() does not give the rest"

    def test_its_path_is_the_file_as_it_was_put_or_none(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        storage.put(key, file(b"pages"))
        path = storage.path(key)
        assert path is None or path.read_bytes() == b"pages"

    def test_a_large_document_is_never_in_memory_as_a_whole(
        self, storage: StoragePlugin, key: str, tmp_path: Path
    ) -> None:
        source, digest = tmp_path / "large", hashlib.sha256()
        with source.open("wb") as file:
            for _ in range(LARGE // (1024 * 1024)):
                piece = secrets.token_bytes(1024 * 1024)
                file.write(piece)
                digest.update(piece)
        tracemalloc.start()
        try:
            storage.put(key, source)
            put = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            found = hashlib.sha256()
            with storage.open(key) as stream:
                while piece := stream.read(PIECE):
                    found.update(piece)
            read = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        storage.delete(key)
        assert found.digest() == digest.digest()
        assert put < MEMORY, f"put() takes {put} bytes for a document of {LARGE}"
        assert read < MEMORY, f"open() takes {read} bytes for a document of {LARGE}"

    def test_several_threads_keep_at_once(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        def keep(number: int) -> bytes:
            storage.put(f"{key}-{number}", file(b"%d pages" % number))
            return _read(storage, f"{key}-{number}")

        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(keep, range(THREADS)))
        assert found == [b"%d pages" % number for number in range(THREADS)]

    def test_several_threads_delete_at_once(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        keys = [f"{key}-{number}" for number in range(THREADS)]
        for each in keys:
            storage.put(each, file(b"a page"))
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(storage.delete, [*keys, *keys]))
        for each in keys:
            with pytest.raises(ArtifactNotFound):
                storage.open(each)

    def test_putting_again_replaces_the_whole(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        storage.put(key, file(b"a long first version"))
        storage.put(key, file(b"short"))
        assert _read(storage, key) == b"short"

    # What is not there ------------------------------------------------------------------------

    def test_it_is_gone_after_delete_and_deleting_again_is_no_error(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        storage.put(key, file(b"pages"))
        storage.put(f"{key}-2", file(b"others"))
        storage.delete(key)
        storage.delete(key)
        with pytest.raises(ArtifactNotFound):
            storage.open(key)
        assert _read(storage, f"{key}-2") == b"others", "delete() took another one along"

    def test_what_is_not_there_is_an_artifact_not_found(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        storage.put(key, file(b"pages"))
        for other in (f"{key}-never", key.rpartition("/")[0], f"{key}/below"):
            with pytest.raises(ArtifactNotFound):
                storage.open(other)

    def test_a_source_that_is_not_there_leaves_nothing(
        self, storage: StoragePlugin, key: str, tmp_path: Path
    ) -> None:
        with pytest.raises(OSError, match="No such file"):
            storage.put(key, tmp_path / "nothing")
        with pytest.raises(ArtifactNotFound):
            storage.open(key)

    @pytest.mark.parametrize("key", NO_KEYS)
    def test_a_key_that_is_none_is_refused(
        self, storage: StoragePlugin, key: str, file: Callable[[bytes], Path]
    ) -> None:
        source = file(b"pages")
        deeds: tuple[Callable[[], object], ...] = (
            lambda: storage.put(key, source),
            lambda: storage.open(key),
            lambda: storage.delete(key),
        )
        for deed in deeds:
            with pytest.raises(PluginError, match="no storage key"):
                deed()
        assert source.exists()

    # When it is away --------------------------------------------------------------------------

    def test_a_storage_that_is_away_is_never_taken_for_an_empty_one(
        self,
        begin: Begin,
        away: dict[str, Any] | None,
        key: str,
        file: Callable[[bytes], Path],
        manifest: Manifest,
    ) -> None:
        if away is None:
            return
        storage, source = begin(away), file(b"pages")
        deeds: tuple[Callable[[], object], ...] = (
            lambda: storage.put(key, source),
            lambda: storage.open(key),
            lambda: storage.delete(key),
        )
        for deed in deeds:
            with pytest.raises(StorageAway) as raised:
                deed()
            says_enough(raised.value)
            no_secret(manifest, away, str(raised.value), "error's text")
        assert source.exists(), "put() takes the document away although it was not kept"

    def test_health_says_in_a_sentence_that_it_is_away(
        self, begin: Begin, away: dict[str, Any] | None, manifest: Manifest
    ) -> None:
        if away is None:
            return
        health = health_of(begin(away))
        assert not health.ok, "health() is ok all the same"
        assert " " in health.detail, "health() gives no sentence that tells what is wrong"
        no_secret(manifest, away, health.detail, "detail of health()")


def _read(storage: StoragePlugin, key: str) -> bytes:
    with closing(storage.open(key)) as stream:
        return stream.read()
