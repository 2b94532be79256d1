"""What S3 says when it does not do what it is asked, and what boto3 says when it cannot even ask: in our sentences,
with the setting that mends it.

Codes: Amazon S3 API Reference, "Error responses"; KMS errors come through with a code that begins with `KMS.`.
"""

from __future__ import annotations

import re

from botocore import exceptions as botocore
from botocore.exceptions import BotoCoreError, ClientError

_CREDENTIALS = "S3_ACCESS_KEY_ID or S3_SECRET_ACCESS_KEY is wrong, or a role has ended: it is not known who asks."
_REGION = "S3_REGION is not the region of the bucket."
_KMS = "S3_KMS_KEY_ID cannot be used: it is no key of this region, is disabled, or these credentials may not use it."
_DIGEST = "What arrived at the S3 service is not what was sent."
_BUSY = "The S3 service cannot do it at the moment."
_MESSAGES = {
    "NoSuchBucket": "S3_BUCKET: there is no such bucket.",
    "InvalidBucketName": "S3_BUCKET cannot be the name of a bucket.",
    "RequestTimeTooSkewed": "This machine's clock is wrong: the S3 service has another time.",
    **dict.fromkeys(
        (
            "AuthFailure",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidToken",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
        ),
        _CREDENTIALS,
    ),
    **dict.fromkeys(
        (
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "PermanentRedirect",
            "TemporaryRedirect",
        ),
        _REGION,
    ),
    **dict.fromkeys(
        ("BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentChecksumMismatch"), _DIGEST
    ),
    **dict.fromkeys(("RequestTimeout", "SlowDown", "Throttling", "TooManyRequests"), _BUSY),
}
_NEEDED = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject and s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
"""By operation the permission; all others put."""

_FAILURES: tuple[tuple[tuple[type[BotoCoreError], ...], str], ...] = (
    (
        (
            botocore.NoCredentialsError,
            botocore.PartialCredentialsError,
            botocore.CredentialRetrievalError,
            botocore.ProfileNotFound,
            botocore.SSOError,
        ),
        (
            "There are no credentials for S3: set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or have AWS's own chain "
            "find some (AWS_ACCESS_KEY_ID, a role)."
        ),
    ),
    ((botocore.SSLError,), "S3_ENDPOINT_URL: the certificate of who answers there is not trusted."),
    (
        (
            botocore.ConnectTimeoutError,
            botocore.EndpointConnectionError,
            botocore.ProxyConnectionError,
        ),
        "S3_ENDPOINT_URL (or, where it is unset, S3_REGION): nobody answers there.",
    ),
    (
        (botocore.FlexibleChecksumError,),
        "What the S3 service gave is not what its checksum says.",
    ),
    (
        (
            botocore.HTTPClientError,
            botocore.IncompleteReadError,
            botocore.ResponseStreamingError,
        ),
        "The S3 service broke off, or was silent for longer than S3_READ_SECONDS.",
    ),
)


def code(error: ClientError) -> str:
    """What the service calls it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def refused(error: ClientError) -> str:
    """The sentence for an answer that refuses."""
    said, message = code(error), str(error.response.get("Error", {}).get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if said.startswith("KMS.") or (status == 403 and "kms:" in message.lower()):
        return _KMS
    if said in _MESSAGES:
        return _MESSAGES[said]
    if status == 403:
        needed = _NEEDED.get(error.operation_name, "s3:PutObject")
        return f"S3_BUCKET: these credentials lack the permission {needed} there."
    if status >= 500:
        return _BUSY
    named = said if re.fullmatch(r"[A-Za-z.]{1,60}", said) else f"status {status}"
    return f"The S3 service refuses it ({named})."


def failed(error: BotoCoreError) -> str:
    """The sentence for a call that had no answer."""
    for kinds, sentence in _FAILURES:
        if isinstance(error, kinds):
            return sentence
    return f"The S3 service could not be asked ({type(error).__name__})."
