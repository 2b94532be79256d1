"""Documents in a bucket of S3, or of a server that speaks it: put whole or not at all, and read as a stream.

boto3 does what the protocol asks: signatures, AWS's chain of credentials, retries, multipart uploads, a checksum of
each part that the service compares. What it raises is said in a sentence that names the setting (answers.py), and
never with what the service wrote: that may hold names of other people's things.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import botocore.session
from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader

from faxbot.errors import ArtifactNotFound, FaxbotError, PluginError, StorageAway
from faxbot.plugins.base import Context, Health, StoragePlugin, check_key
from faxbot.storage.s3 import answers

PART_BYTES = 8 * 1024 * 1024
"""What is larger goes up in parts of this size, one after the other, and no more than one is in memory."""
READ_BYTES = 256 * 1024
PROVEN_SECONDS = 60.0
"""So long health() goes without trying once more whether documents may be put: that costs money each time."""
_TRANSFER = TransferConfig(
    multipart_threshold=PART_BYTES,
    multipart_chunksize=PART_BYTES,
    use_threads=False,
    preferred_transfer_client="classic",  # the other one has threads, and memory, of its own
)
_PROBE = "test-connection"
"""The key by which health() tries: nothing is ever put there."""


class S3Storage(StoragePlugin):
    """A key is the object's name behind S3_PREFIX."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        if ("accessKeyId" in config) != ("secretAccessKey" in config):
            raise PluginError(
                "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both or none"
            )
        parts = [part for part in str(config["prefix"]).split("/") if part]
        if {".", ".."} & set(parts):
            raise PluginError("S3_PREFIX has a part . or .., which some servers take for a folder")
        self._prefix = "".join(f"{part}/" for part in parts)
        self._bucket = str(config["bucket"])
        key_id = config.get("kmsKeyId")
        self._encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else {}
        )
        self._session: Session | None = None
        self._clients: dict[bool, Any] = {}
        self._lock = threading.Lock()
        self._proven_until = 0.0

    def shutdown(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def health(self) -> Health:
        """Whether a document could be put, read and forgotten now. Leaves nothing in the bucket."""
        try:
            with _in_our_words():
                self._try(self._client(patient=False))
        except FaxbotError as error:
            return Health(False, error.detail)
        return Health(True, "The bucket takes documents and gives them back.")

    def put(self, key: str, source: Path) -> None:
        """An upload that fails is aborted here, or, where that fails too, by delete()."""
        name = self._name(key)
        with source.open("rb") as file, _in_our_words():
            self._client().upload_fileobj(
                file, self._bucket, name, ExtraArgs=self._encryption, Config=_TRANSFER
            )

    def open(self, key: str) -> BinaryIO:
        name = self._name(key)
        with _in_our_words():
            answer = self._client().get_object(Bucket=self._bucket, Key=name)
        return cast(BinaryIO, io.BufferedReader(_Body(answer["Body"]), READ_BYTES))

    def delete(self, key: str) -> None:
        """Uploads first: one that is under way would else be there afterwards. What is not there is deleted, also where
        a server says so with 404 and NoSuchKey (Google Cloud Storage XML API, "DELETE Object")."""
        name = self._name(key)
        client = self._client()
        with _in_our_words():
            for upload in self._uploads(client, name):
                self._abort(client, name, upload)
            with suppress(client.exceptions.NoSuchKey):
                client.delete_object(Bucket=self._bucket, Key=name)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _uploads(self, client: Any, name: str) -> list[str]:
        """The multipart uploads of this object that nobody has ended."""
        answer = client.list_multipart_uploads(Bucket=self._bucket, Prefix=name)
        return [each["UploadId"] for each in answer.get("Uploads", ()) if each["Key"] == name]

    def _abort(self, client: Any, name: str, upload: str) -> None:
        with suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)

    def _try(self, client: Any) -> None:
        """Each permission that is needed, by requests that change nothing. An upload in parts that is begun and aborted
        needs what a whole one needs, the KMS key too."""
        name = self._name(_PROBE)
        with suppress(client.exceptions.NoSuchKey):
            client.get_object(Bucket=self._bucket, Key=name)["Body"].close()
        if time.monotonic() < self._proven_until:
            return
        self._uploads(client, name)
        upload = client.create_multipart_upload(Bucket=self._bucket, Key=name, **self._encryption)
        self._abort(client, name, upload["UploadId"])
        self._proven_until = time.monotonic() + PROVEN_SECONDS

    def _client(self, *, patient: bool = True) -> Any:
        """Made when it is first needed, because where no credentials are set the chain may ask the network for some.
        Not `patient`: it asks once and for a short time."""
        with self._lock:
            if patient not in self._clients:
                with _in_our_words():
                    self._clients[patient] = self._made(patient=patient)
            return self._clients[patient]

    def _made(self, *, patient: bool) -> Any:
        settings = self.config
        if self._session is None:
            ours = botocore.session.Session()
            ours.register_component("data_loader", _data(ours.get_config_variable("data_path")))
            self._session = Session(
                botocore_session=ours,
                aws_access_key_id=settings.get("accessKeyId"),
                aws_secret_access_key=settings.get("secretAccessKey"),
                region_name=settings.get("region"),
            )
        connect, read = settings["connectSeconds"], settings["readSeconds"]
        config = Config(
            connect_timeout=connect if patient else min(connect, 3.0),
            read_timeout=read if patient else min(read, 5.0),
            retries={
                "mode": "standard",
                "total_max_attempts": settings["attempts"] if patient else 1,
            },
            tcp_keepalive=True,
        )
        return self._session.client("s3", endpoint_url=settings.get("endpointUrl"), config=config)


@cache
def _data(path: str | None) -> Loader:
    """What botocore knows about S3: half a megabyte of JSON, read once in a process, also where settings change."""
    return create_loader(path)


class _Body(io.RawIOBase):
    """An object's bytes as they arrive."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with _in_our_words():
            return int(self._body.readinto(buffer))

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Raises ArtifactNotFound and StorageAway in the place of what boto3 raises."""
    try:
        yield
    except ClientError as error:
        if answers.code(error) == "NoSuchKey":
            raise ArtifactNotFound from None
        raise StorageAway(answers.refused(error)) from None
    except BotoCoreError as error:
        raise StorageAway(answers.failed(error)) from None
