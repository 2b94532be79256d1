"""S3 beyond the contract: what it is told, what stays when an upload breaks, and the sentence for each thing that is
wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import ArtifactNotFound, ConfigError, PluginError, StorageAway
from faxbot.storage.s3 import PART_BYTES, S3Storage
from faxbot.testing.standin import Answer, Asked, StandIn, dead_url
from tests import certificates
from tests.containers import ROOT
from tests.ground import ENVIRONMENT, Ground
from tests.storage.server import S3Server
from tests.storage.starting import KEY, storage_with
from tests.storage.wire import Wire

LARGE = 2 * PART_BYTES + 4_000_000
Begin = Callable[[Mapping[str, Any]], S3Storage]


@pytest.fixture
def begin() -> Iterator[Begin]:
    running: list[S3Storage] = []

    def make(settings: Mapping[str, Any]) -> S3Storage:
        running.append(storage_with(settings))
        return running[-1]

    yield make
    for storage in running:
        storage.shutdown()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small"
    path.write_bytes(b"pages")
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(secrets.token_bytes(LARGE))
    return path


def read(storage: S3Storage, key: str = KEY) -> bytes:
    with closing(storage.open(key)) as stream:
        return stream.read()


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


# What the service is told ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "begins"),
    [(None, "faxbot/"), ("", ""), ("inbound/", "inbound/"), ("a//b", "a/b/"), ("/a", "a/")],
)
def test_all_names_begin_with_the_prefix(
    s3: S3Server, bucket: str, begin: Begin, small: Path, prefix: str | None, begins: str
) -> None:
    changes = {} if prefix is None else {"prefix": prefix}
    storage = begin(s3.settings(bucket, **changes))
    storage.put(KEY, small)
    assert s3.objects(bucket) == {f"{begins}{KEY}": b"pages"}


def test_two_prefixes_know_nothing_of_each_other(
    s3: S3Server, bucket: str, begin: Begin, small: Path
) -> None:
    ours = begin(s3.settings(bucket, prefix="ours"))
    theirs = begin(s3.settings(bucket, prefix="theirs"))
    ours.put(KEY, small)
    theirs.delete(KEY)
    with pytest.raises(ArtifactNotFound):
        theirs.open(KEY)
    assert read(ours) == b"pages"


@pytest.mark.parametrize("size", [5, LARGE])
def test_the_kms_key_is_passed_on(
    s3: S3Server, bucket: str, begin: Begin, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    key_id = "arn:aws:kms:eu-central-1:123456789012:key/0190f3c2"
    begin(s3.settings(bucket, kmsKeyId=key_id)).put(KEY, source)
    begin(s3.settings(bucket)).put(f"{KEY}-2", source)

    kept = s3.client().head_object(Bucket=bucket, Key=f"faxbot/{KEY}")
    assert (kept["ServerSideEncryption"], kept["SSEKMSKeyId"]) == ("aws:kms", key_id)
    assert "SSEKMSKeyId" not in s3.client().head_object(Bucket=bucket, Key=f"faxbot/{KEY}-2")


def test_what_is_large_goes_up_in_parts_each_with_a_checksum_of_its_bytes(
    s3: S3Server, bucket: str, begin: Begin, large: Path
) -> None:
    """Which the service compares; this one keeps what it was told."""
    with Wire(s3.port) as wire:
        begin(s3.settings(bucket, endpointUrl=wire.url)).put(KEY, large)
    about = s3.client().head_object(Bucket=bucket, Key=f"faxbot/{KEY}", ChecksumMode="ENABLED")
    content = large.read_bytes()
    parts = [content[at : at + PART_BYTES] for at in range(0, LARGE, PART_BYTES)]
    sums = b"".join(zlib.crc32(part).to_bytes(4, "big") for part in parts)
    assert about["ETag"].endswith(f'-{len(parts)}"')
    assert about["ChecksumCRC32"] == crc32(sums)
    assert s3.uploads(bucket) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accessKeyId": None}, "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together"),
        ({"secretAccessKey": None}, "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together"),
        ({"prefix": "a/../b"}, "S3_PREFIX"),
        ({"prefix": "./b"}, "S3_PREFIX"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(
    begin: Begin, changes: dict[str, Any], words: str
) -> None:
    wish = {"bucket": "faxes", "accessKeyId": "key", "secretAccessKey": "secret", **changes}
    with pytest.raises(PluginError, match=words):
        begin({name: value for name, value in wish.items() if value is not None})


# Uploads that break ---------------------------------------------------------------------------------


def test_a_connection_that_breaks_once_costs_nothing(
    s3: S3Server, bucket: str, begin: Begin, large: Path
) -> None:
    with Wire(s3.port, cut_up=PART_BYTES + 1_000_000) as wire:
        storage = begin(s3.settings(bucket, endpointUrl=wire.url))
        storage.put(KEY, large)
        assert wire.cuts == 1
    assert s3.objects(bucket) == {f"faxbot/{KEY}": large.read_bytes()}


def test_an_upload_that_fails_leaves_no_object_and_is_aborted(
    s3: S3Server, bucket: str, begin: Begin, large: Path
) -> None:
    with Wire(s3.port, cut_up=PART_BYTES + 1_000_000) as wire:
        storage = begin(s3.settings(bucket, endpointUrl=wire.url, attempts=1))
        with pytest.raises(StorageAway, match="broke off"):
            storage.put(KEY, large)
        assert wire.cuts == 1
    assert s3.objects(bucket) == {}
    assert s3.uploads(bucket) == []
    assert large.exists()


def test_one_that_could_not_be_aborted_is_by_delete(
    s3: S3Server, bucket: str, begin: Begin, large: Path
) -> None:
    with Wire(s3.port, cut_up=PART_BYTES + 1_000_000, dies=True) as wire:
        storage = begin(s3.settings(bucket, endpointUrl=wire.url, attempts=1))
        with pytest.raises(StorageAway):
            storage.put(KEY, large)
    assert s3.uploads(bucket) == [f"faxbot/{KEY}"]
    others = begin(s3.settings(bucket))
    others.delete(f"{KEY[:-1]}")
    assert s3.uploads(bucket) == [f"faxbot/{KEY}"], "another key's upload was aborted"

    others.delete(KEY)
    assert (s3.objects(bucket), s3.uploads(bucket)) == ({}, [])


_PUTS = """
import json, sys
from pathlib import Path
from tests.storage.starting import KEY, storage_with
storage_with(json.loads(sys.argv[1])).put(KEY, Path(sys.argv[2]))
"""


def test_a_process_that_is_killed_in_an_upload_leaves_nothing_to_be_seen_and_delete_clears_up(
    s3: S3Server, bucket: str, begin: Begin, large: Path
) -> None:
    with Wire(s3.port, stop_up=PART_BYTES + 1_000_000) as wire:
        settings = s3.settings(bucket, endpointUrl=wire.url)
        words = [json.dumps(settings), str(large)]
        with subprocess.Popen([sys.executable, "-c", _PUTS, *words], cwd=ROOT) as process:
            assert wire.stopped.wait(60)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    storage = begin(s3.settings(bucket))
    with pytest.raises(ArtifactNotFound):
        storage.open(KEY)
    assert s3.uploads(bucket) == [f"faxbot/{KEY}"]

    storage.delete(KEY)
    assert (s3.objects(bucket), s3.uploads(bucket)) == ({}, [])


def test_a_connection_that_breaks_while_it_is_read_is_no_end_of_a_document(
    s3: S3Server, bucket: str, begin: Begin, large: Path
) -> None:
    begin(s3.settings(bucket)).put(KEY, large)
    with Wire(s3.port, cut_down=PART_BYTES) as wire:
        storage = begin(s3.settings(bucket, endpointUrl=wire.url))
        with closing(storage.open(KEY)) as stream:
            begun = stream.read(PART_BYTES // 2)
            with pytest.raises(StorageAway, match="broke off"):
                stream.read()
    assert begun == large.read_bytes()[: len(begun)]


_MEASURED = """
import json, sys
from pathlib import Path
from tests.storage.starting import storage_with

def most():
    (line,) = [each for each in open("/proc/self/status") if each.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

storage = storage_with(json.loads(sys.argv[1]))
for name in sys.argv[2:]:
    key = f"2026/11/20/{Path(name).name}"
    storage.put(key, Path(name))
    size = 0
    with storage.open(key) as stream:
        while piece := stream.read(256 * 1024):
            size += len(piece)
    print(size, most())
"""


def test_two_hundred_megabytes_take_no_more_memory_than_two_parts(
    own_s3: S3Server, tmp_path: Path
) -> None:
    first, second = tmp_path / "small", tmp_path / "large"
    first.write_bytes(b"pages")
    with second.open("wb") as file:
        for _ in range(200):
            file.write(secrets.token_bytes(1_000_000))
    settings = json.dumps(own_s3.settings(own_s3.bucket()))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, settings, str(first), str(second)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (little, usual), (much, most) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (little, much) == (5, 200_000_000)
    assert most - usual < 4 * PART_BYTES


# Who is away ----------------------------------------------------------------------------------------


def test_a_service_that_is_gone_is_away_and_is_there_again_when_it_is_back(
    own_s3: S3Server, begin: Begin, small: Path
) -> None:
    storage = begin(own_s3.settings(own_s3.bucket(), attempts=1))
    storage.put(KEY, small)
    assert storage.health().ok
    own_s3.kill9()
    for deed in (lambda: storage.put(KEY, small), lambda: storage.open(KEY)):
        with pytest.raises(StorageAway, match="S3_ENDPOINT_URL"):
            deed()
    assert "S3_ENDPOINT_URL" in storage.health().detail

    own_s3.start()
    own_s3.client().create_bucket(
        Bucket="faxes-1", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    storage.put(KEY, small)
    assert read(storage) == b"pages"
    assert storage.health().ok


def test_a_service_that_says_nothing_is_away_after_the_time_that_is_set(
    own_s3: S3Server, begin: Begin, small: Path
) -> None:
    storage = begin(own_s3.settings(own_s3.bucket(), attempts=1, readSeconds=2))
    storage.put(KEY, small)
    own_s3.freeze()
    try:
        with pytest.raises(StorageAway, match="S3_READ_SECONDS"):
            storage.open(KEY)
        assert "S3_READ_SECONDS" in storage.health().detail
    finally:
        own_s3.thaw()


def test_a_bucket_that_is_not_there_is_named_and_never_taken_for_an_empty_one(
    s3: S3Server, begin: Begin, small: Path, large: Path
) -> None:
    storage = begin(s3.settings("no-such-bucket"))
    deeds: tuple[Callable[[], object], ...] = (
        lambda: storage.put(KEY, small),
        lambda: storage.put(KEY, large),
        lambda: storage.open(KEY),
        lambda: storage.delete(KEY),
    )
    for deed in deeds:
        with pytest.raises(StorageAway, match="S3_BUCKET"):
            deed()
    health = storage.health()
    assert (health.ok, health.detail) == (False, "S3_BUCKET: there is no such bucket.")


# Who may do what ------------------------------------------------------------------------------------

POLICY = re.search(
    r"```json policy\n(.*?)```", (ROOT / "docs/storage.md").read_text(encoding="utf-8"), re.DOTALL
)


def policy(bucket: str, *, without: str = "") -> dict[str, Any]:
    """The one that docs/storage.md recommends, for this bucket."""
    assert POLICY is not None
    found: dict[str, Any] = json.loads(POLICY[1].replace("my-faxes", bucket))
    for statement in found["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != without]
    found["Statement"] = [each for each in found["Statement"] if each["Action"]]
    return found


@pytest.fixture
def asking(s3: S3Server) -> Iterator[Callable[..., dict[str, Any]]]:
    """asking(bucket, policy): settings of a user who may do that; from then on the server wants to know who asks."""

    def make(bucket: str, allowed: dict[str, Any], **changes: Any) -> dict[str, Any]:
        key_id, secret = s3.user(f"faxbot-{bucket}", allowed)
        s3.ask_who_it_is(from_now_on=True)
        return s3.settings(bucket, **{"accessKeyId": key_id, "secretAccessKey": secret, **changes})

    yield make
    s3.ask_who_it_is(from_now_on=False)


Asking = Callable[..., dict[str, Any]]


def test_the_policy_of_the_page_is_enough_and_leads_nowhere_else(
    bucket: str, begin: Begin, asking: Asking, small: Path, large: Path
) -> None:
    settings = asking(bucket, policy(bucket))
    storage = begin(settings)
    health = storage.health()
    assert health.ok, health.detail
    storage.put(KEY, small)
    storage.put(f"{KEY}-2", large)
    assert read(storage) == b"pages"
    assert read(storage, f"{KEY}-2") == large.read_bytes()
    storage.delete(KEY)
    with pytest.raises(ArtifactNotFound):
        storage.open(KEY)

    elsewhere = begin({**settings, "prefix": "other/"})
    for deed in (lambda: elsewhere.open(f"{KEY}-2"), lambda: elsewhere.put(KEY, small)):
        with pytest.raises(StorageAway, match="lack the permission"):
            deed()


@pytest.mark.parametrize(
    "lacking",
    [
        "s3:GetObject",
        "s3:ListBucketMultipartUploads",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
    ],
)
def test_health_names_the_permission_that_is_missing(
    bucket: str, begin: Begin, asking: Asking, lacking: str
) -> None:
    health = begin(asking(bucket, policy(bucket, without=lacking))).health()
    assert not health.ok
    assert health.detail.startswith("S3_BUCKET: these credentials lack the permission")
    assert lacking in health.detail


@pytest.mark.parametrize("changed", ["accessKeyId", "secretAccessKey"])
def test_wrong_credentials_are_named(
    bucket: str, begin: Begin, asking: Asking, small: Path, changed: str
) -> None:
    settings = asking(bucket, policy(bucket), **{changed: "another-one-than-that"})
    storage = begin(settings)
    for deed in (lambda: storage.put(KEY, small), lambda: storage.open(KEY)):
        with pytest.raises(StorageAway, match="S3_ACCESS_KEY_ID or S3_SECRET_ACCESS_KEY"):
            deed()
    health = storage.health()
    assert not health.ok
    assert "S3_SECRET_ACCESS_KEY" in health.detail
    assert "another-one-than-that" not in health.detail


_ASKS = """
import json, sys
from tests.storage.starting import storage_with
print(json.dumps(storage_with(json.loads(sys.argv[1])).health().detail))
"""


def test_without_credentials_of_its_own_it_takes_those_of_the_usual_chain(
    bucket: str, asking: Asking, tmp_path: Path
) -> None:
    settings = asking(bucket, policy(bucket))
    key_id, secret = settings.pop("accessKeyId"), settings.pop("secretAccessKey")
    env = {
        "PATH": ENVIRONMENT["PATH"],
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",  # nobody is there to be asked
    }

    def health(**more: str) -> str:
        command = [sys.executable, "-c", _ASKS, json.dumps(settings)]
        said = subprocess.check_output(command, cwd=ROOT, env={**env, **more}, text=True)
        return str(json.loads(said))

    assert health(AWS_ACCESS_KEY_ID=key_id, AWS_SECRET_ACCESS_KEY=secret).startswith("The bucket")
    assert "There are no credentials for S3" in health()


_KEEPS = """
import hashlib, json, sys
from pathlib import Path
from faxbot.errors import StorageAway
from tests.storage.starting import storage_with
storage = storage_with(json.loads(sys.argv[1]))
try:
    for name in sys.argv[2:]:
        key = Path(name).name
        storage.put(key, Path(name))
        with storage.open(key) as stream:
            print(hashlib.file_digest(stream, "sha256").hexdigest())
except StorageAway as error:
    print(error.detail)
"""


def test_over_https_it_keeps_and_gives_back_and_trusts_nobody_it_does_not_know(
    ground: Ground, tmp_path: Path, small: Path, large: Path
) -> None:
    """There checksums follow the bytes, which are not signed: another way through boto3 than over http."""
    certificate = certificates.certificate(tmp_path / "server.pem", "127.0.0.1")
    server = S3Server(ground, certificate)
    server.start()
    try:
        bucket = server.bucket()
        words = [json.dumps(server.settings(bucket)), str(small), str(large)]
        command = [sys.executable, "-c", _KEEPS, *words]
        env = {"PATH": ENVIRONMENT["PATH"], "HOME": str(tmp_path)}
        knowing = {**env, "AWS_CA_BUNDLE": str(certificate)}
        kept = subprocess.check_output(command, cwd=ROOT, env=knowing, text=True)
        refused = subprocess.check_output(command, cwd=ROOT, env=env, text=True)
        about = server.client().head_object(
            Bucket=bucket, Key="faxbot/small", ChecksumMode="ENABLED"
        )
    finally:
        server.stop()
    assert kept.split() == [
        hashlib.sha256(each.read_bytes()).hexdigest() for each in (small, large)
    ]
    assert about["ChecksumCRC32"] == crc32(b"pages")
    assert "certificate" in refused
    assert refused.startswith("S3_ENDPOINT_URL")


# What services say ----------------------------------------------------------------------------------


def error(code: str, message: str = "Patient Doe, +1 415 837 0000") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "AuthorizationHeaderMalformed", "S3_REGION"),
        (301, "PermanentRedirect", "S3_REGION"),
        (400, "IllegalLocationConstraintException", "S3_REGION"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "KMS.NotFoundException", "S3_KMS_KEY_ID"),
        (400, "KMS.DisabledException", "S3_KMS_KEY_ID"),
        (403, "ExpiredToken", "S3_ACCESS_KEY_ID"),
        (403, "AccessDenied", "s3:GetObject"),
        (400, "InvalidBucketName", "S3_BUCKET"),
        (503, "SlowDown", "at the moment"),
        (500, "InternalError", "at the moment"),
        (400, "SomethingNew", "refuses it (SomethingNew)"),
        (400, "+1 415 837 0000", "refuses it (status 400)"),
    ],
)
def test_each_refusal_has_a_sentence_with_its_setting_and_nothing_of_what_was_written(
    begin: Begin, status: int, code: str, words: str
) -> None:
    with StandIn(lambda _: Answer(status, error(code))) as service:
        storage = begin(
            {
                "bucket": "faxes",
                "endpointUrl": service.url,
                "region": "eu-central-1",
                "accessKeyId": "key",
                "secretAccessKey": "a long test secret",
                "attempts": 1,
            }
        )
        with pytest.raises(StorageAway) as raised:
            storage.open(KEY)
        detail = storage.health().detail
    assert words in raised.value.detail
    assert detail == raised.value.detail
    assert "837" not in detail


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchBucket"])
def test_of_a_server_that_answers_404_what_is_not_there_is_deleted_and_a_bucket_must_be(
    begin: Begin, code: str
) -> None:
    def service(asked: Asked) -> Answer:
        if asked.method == "DELETE":
            return Answer(404, error(code))
        return Answer(200, b"<ListMultipartUploadsResult/>")

    settings = {"bucket": "faxes", "accessKeyId": "key", "secretAccessKey": "a long test secret"}
    with StandIn(service) as counted:
        storage = begin({**settings, "endpointUrl": counted.url})
        if code == "NoSuchKey":
            storage.delete(KEY)
        else:
            with pytest.raises(StorageAway, match="S3_BUCKET"):
                storage.delete(KEY)
        assert [each.method for each in counted.asked] == ["GET", "DELETE"]


def test_a_kms_key_that_may_not_be_used_is_told_apart_from_the_bucket(begin: Begin) -> None:
    message = "User is not authorized to perform: kms:GenerateDataKey on the resource"
    settings = {"bucket": "faxes", "accessKeyId": "key", "secretAccessKey": "a long test secret"}
    with StandIn(lambda _: Answer(403, error("AccessDenied", message))) as service:
        health = begin({**settings, "endpointUrl": service.url}).health()
    assert health.detail.startswith("S3_KMS_KEY_ID")


def test_bytes_that_arrived_otherwise_than_they_were_sent_are_not_kept(
    begin: Begin, small: Path
) -> None:
    settings = {"bucket": "faxes", "accessKeyId": "key", "secretAccessKey": "a long test secret"}
    with StandIn(lambda _: Answer(400, error("BadDigest"))) as service:
        with pytest.raises(StorageAway, match="not what was sent"):
            begin({**settings, "endpointUrl": service.url}).put(KEY, small)
        (put,) = service.asked
    assert put.headers["x-amz-checksum-crc32"] == crc32(b"pages")


def test_health_leaves_nothing_and_does_not_try_again_each_time_what_costs_money(
    s3: S3Server, bucket: str, begin: Begin
) -> None:
    settings = s3.settings(bucket)
    storage = begin(settings)
    assert storage.health().ok
    assert (s3.objects(bucket), s3.uploads(bucket)) == ({}, [])

    def service(asked: Asked) -> Answer:
        if asked.method == "GET" and asked.path.count("/") > 1:
            return Answer(404, error("NoSuchKey"))
        if asked.method == "POST":
            upload = b"<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>"
            return Answer(200, upload)
        return Answer(204 if asked.method == "DELETE" else 200, b"<ListMultipartUploadsResult/>")

    with StandIn(service) as counted:
        storage = begin({**settings, "endpointUrl": counted.url})
        assert storage.health().ok
        assert [each.method for each in counted.asked] == ["GET", "GET", "POST", "DELETE"]
        assert storage.health().ok
        assert [each.method for each in counted.asked[4:]] == ["GET"]


def test_a_dead_endpoint_is_said_at_once(begin: Begin) -> None:
    settings = {"bucket": "faxes", "accessKeyId": "key", "secretAccessKey": "a long test secret"}
    health = begin({**settings, "endpointUrl": dead_url()}).health()
    assert health.detail.startswith("S3_ENDPOINT_URL")


@pytest.mark.parametrize("url", ["http://s3.example.com", "http://8.8.8.8:9000"])
def test_an_endpoint_out_there_is_spoken_to_over_https_only(begin: Begin, url: str) -> None:
    with pytest.raises(ConfigError, match="S3_ENDPOINT_URL must begin with https"):
        begin({"bucket": "faxes", "endpointUrl": url})
