"""An S3 as a process of its own: moto's server, which speaks the protocol over HTTP, knows users and policies, and
takes multipart uploads. What it does not do, and real ones do: compare checksums, and mind regions."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config

from tests.ground import Ground
from tests.servers import Server

REGION = "eu-central-1"
ROOT_KEY = ("the-owner-of-all", "the-secret-of-the-owner")
"""Good for everything, until the server asks who somebody is."""


class S3Server(Server):
    """moto on a free port; what it holds is in its memory, and gone when it ends."""

    name = "s3"

    def __init__(self, ground: Ground, certificate: Path | None = None) -> None:
        super().__init__(ground)
        self._buckets = 0
        self._certificate = certificate
        # It reads half a megabyte of JSON for its first client.
        self._session = Session(*ROOT_KEY, region_name=REGION)

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def client(self, service: str = "s3") -> Any:
        """boto3's own, as whoever owns the bucket has it."""
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)
        verify = str(self._certificate) if self._certificate else None
        return self._session.client(service, endpoint_url=self.url, config=config, verify=verify)

    def bucket(self) -> str:
        """A new and empty one."""
        self._buckets += 1
        name = f"faxes-{self._buckets}"
        where = {"LocationConstraint": REGION}
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration=where)
        return name

    def settings(self, bucket: str, **changes: Any) -> dict[str, Any]:
        """Settings of the plugin that lead to it."""
        key_id, secret = ROOT_KEY
        return {
            "bucket": bucket,
            "endpointUrl": self.url,
            "region": REGION,
            "accessKeyId": key_id,
            "secretAccessKey": secret,
            **changes,
        }

    def environ(self, bucket: str, **changes: str) -> dict[str, str]:
        """The variables that lead faxbot to it."""
        key_id, secret = ROOT_KEY
        return {
            "STORAGE_BACKEND": "s3",
            "S3_BUCKET": bucket,
            "S3_ENDPOINT_URL": self.url,
            "S3_REGION": REGION,
            "S3_ACCESS_KEY_ID": key_id,
            "S3_SECRET_ACCESS_KEY": secret,
            **changes,
        }

    def objects(self, bucket: str) -> dict[str, bytes]:
        """All that lies there, by name."""
        client = self.client()
        listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        names = [each["Key"] for each in listed]
        return {name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}

    def uploads(self, bucket: str) -> list[str]:
        """Names of multipart uploads that are under way."""
        found = self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [each["Key"] for each in found]

    def user(self, name: str, policy: dict[str, Any]) -> tuple[str, str]:
        """Key and secret of a new user who may do what this policy says."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def ask_who_it_is(self, *, from_now_on: bool) -> None:
        """Whether every request must be signed by a user who may do what it asks."""
        data = b"0" if from_now_on else b"inf"
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", data, {"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=5):
            pass

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(sys.executable).with_name("moto_server")
        command: list[str | Path] = [program, "--host", "127.0.0.1", "--port", str(self.port)]
        if self._certificate:
            command += ["--ssl-cert", self._certificate, "--ssl-key", self._certificate]
        return self.ground.start(command, self.folder, {}, self.log)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
