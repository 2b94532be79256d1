"""Reads POST /faxes, as multipart and as JSON, and checks every field that the vendor documents
(Fax OpenAPI, sendFax).

The vendor's own service may overlook a field that it does not know; this one refuses it, so that a
client's misspelling is found.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from faxbot.carriers.door import Form, Request, read_form

SERVICE_ID = "01GVRB50KEQFFE1SGMPFRNBG6J"
MULTIPART, JSON = CONTENT_TYPES = "multipart/form-data", "application/json"
MAX_FILE_BYTES = 20 * 1024 * 1024
"""From the vendor's command line tool; its API gives no limit."""

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_NAMED = re.compile(r"(labels|coverPageData)\[([^\[\]]+)\]")
_HEADER_LENGTH = 50
_FILE_TYPES = ("DOCX", "PDF", "TIF", "JPG", "TXT", "HTML", "PNG")
_OTHER_NAMES = {"JPEG": "JPG", "TIFF": "TIF", "HTM": "HTML"}


class Refused(ValueError):
    """A submission that is not taken; `labels` where it had any that could be read."""

    labels: Mapping[str, str] = {}


class Malformed(Refused):
    """No submission at all: 400."""


class Invalid(Refused):
    """A field that the vendor would not take: 422."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(field)
        self.field = field
        self.description = description


@dataclass(frozen=True, slots=True)
class File:
    """A document as it came; `type` in capitals, as in `fileType`, or whatever its name ends in."""

    type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """What one request asks for: a fax to every number. `fields` holds the other fields as JSON has
    them, defaults filled in."""

    to: tuple[str, ...]
    files: tuple[File, ...]
    fields: Mapping[str, Any]

    @property
    def content_urls(self) -> tuple[str, ...]:
        given = self.fields.get("contentUrl", ())
        return (given,) if isinstance(given, str) else tuple(given)


_DEFAULTS: Mapping[str, Any] = {
    "headerPageNumbers": True,
    "headerTimeZone": "America/New_York",
    "callbackUrlContentType": MULTIPART,
    "maxRetries": 3,
    "retryDelaySeconds": 60,
    "imageConversionMethod": "HALFTONE",
    "resolution": "FINE",
    "serviceId": SERVICE_ID,
    "inProgressNotifications": False,
}


def read(request: Request) -> Submission:
    """The submission in a request. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == MULTIPART:
        given, files = _from_form(request)
    elif kind == JSON:
        given, files = _from_json(request)
    else:
        raise Malformed("neither multipart nor JSON")
    try:
        return _checked(given, files)
    except Refused as refused:
        with suppress(ValueError):
            refused.labels = _names(given.get("labels"))
        raise


def number(value: Any) -> str:
    """A phone number as it must be; raises ValueError with the vendor's description."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise ValueError(f"The ({value}) is not a valid phone number")
    return value


def _from_form(request: Request) -> tuple[dict[str, Any], list[File]]:
    try:
        form = read_form(request)
    except ValueError:
        raise Malformed("no multipart form") from None
    given: dict[str, Any] = {}
    for name, text in form.items:
        _add(given, name, text)
    return given, list(_files_of(form))


def _add(given: dict[str, Any], name: str, text: str) -> None:
    """Put a form field where JSON would have it."""
    named = _NAMED.fullmatch(name)
    if named:
        given.setdefault(named[1], {})[named[2]] = text
    elif name == "to":
        given["to"] = [*given.get("to", ()), *text.split(",")]
    elif name in given or name in ("labels", "coverPageData", "file", "files"):
        raise Invalid(name, "The field is given twice, or not in the form it must have")
    else:
        try:
            given[name] = _FROM_TEXT.get(name, str)(text)
        except ValueError as error:
            raise Invalid(name, str(error)) from None


def _files_of(form: Form) -> Iterable[File]:
    for part in form.parts:
        if part.name != "file" or not part.filename:
            raise Invalid(part.name, "A file must be called `file` and have a file name")
        ending = PurePosixPath(part.filename).suffix.removeprefix(".").upper()
        yield File(_OTHER_NAMES.get(ending, ending), part.content)


def _from_json(request: Request) -> tuple[dict[str, Any], list[File]]:
    try:
        given = json.loads(request.body)
        if not isinstance(given, dict):
            raise Malformed("no object")
        files = given.pop("files", [])
        # Half a surrogate pair is JSON, and no text that could be kept.
        json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Malformed("no JSON object") from None
    to = given.get("to")
    if isinstance(to, str):
        given["to"] = to.split(",")
    if not isinstance(files, list):
        raise Invalid("files", "A list of files is expected")
    return given, [_decoded(each) for each in files]


def _decoded(given: Any) -> File:
    if not isinstance(given, dict) or given.keys() != {"file", "fileType"}:
        raise Invalid("files", "Each file has `file` and `fileType`")
    if given["fileType"] not in _FILE_TYPES:
        raise Invalid("files.fileType", f"Must be one of {', '.join(_FILE_TYPES)}")
    try:
        return File(given["fileType"], b64decode(given["file"], validate=True))
    except (binascii.Error, TypeError, ValueError):
        raise Invalid("files.file", "Not base64") from None


def _checked(given: dict[str, Any], files: list[File]) -> Submission:
    to = given.pop("to", None)
    if not to:
        raise Malformed("`to` is required")
    fields = {name: _check(name, value) for name, value in given.items()}
    if not isinstance(to, list):
        raise Invalid("to", "A number or a list of numbers is expected")
    numbers = tuple(_apply("to", number, each) for each in to)
    if not files and "contentUrl" not in fields:
        raise Malformed("at least one file or contentUrl is required")
    if any(len(file.content) > MAX_FILE_BYTES for file in files):
        raise Invalid("file", "The file is too large")
    return Submission(numbers, tuple(files), {**_DEFAULTS, **fields})


def _check(name: str, value: Any) -> Any:
    check = CHECKS.get(name)
    if check is None:
        raise Invalid(name, "The field is not known")
    return _apply(name, check, value)


def _apply(name: str, check: Callable[[Any], Any], value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise Invalid(name, str(error)) from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("A text is expected")
    return value


def _header(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _HEADER_LENGTH:
        raise ValueError(f"A text of {_HEADER_LENGTH} characters at most is expected")
    return value


def _zone(value: Any) -> str:
    try:
        ZoneInfo(_text(value))
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError("The time zone is not known") from None
    return str(value)


def _url(value: Any) -> str:
    parts = urlsplit(_text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in value:
        raise ValueError("An http or https URL is expected")
    return str(value)


def _urls(value: Any) -> str | list[str]:
    if isinstance(value, list) and value:
        return [_url(each) for each in value]
    return _url(value)


def _names(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("A map from text to text is expected")
    return value


def _lower_names(value: Any) -> dict[str, str]:
    names = _names(value)
    if any(name != name.lower() for name in names):
        raise ValueError("Keys must be lower case")
    return names


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is expected")
    return value


def _between(lowest: int, highest: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"A number from {lowest} to {highest} is expected")
        return value

    return check


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"Must be one of {', '.join(words)}")
        return str(value)

    return check


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "from": number,
    "contentUrl": _urls,
    "headerText": _header,
    "headerPageNumbers": _flag,
    "headerTimeZone": _zone,
    "labels": _names,
    "callbackUrl": _url,
    "callbackUrlContentType": _one_of(*CONTENT_TYPES),
    "maxRetries": _between(0, 5),
    "retryDelaySeconds": _between(30, 300),
    "imageConversionMethod": _one_of("HALFTONE", "MONOCHROME"),
    "resolution": _one_of("FINE", "SUPERFINE"),
    "coverPageId": _text,
    "coverPageData": _lower_names,
    "serviceId": _one_of(SERVICE_ID),
    "inProgressNotifications": _flag,
}
"""What each field but `to` and the files must be; raises ValueError."""


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError("A number is expected")
    return int(text[:9])


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false is expected")
    return text == "true"


def _comma_list(text: str) -> str | list[str]:
    return text.split(",") if "," in text else text


_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "contentUrl": _comma_list,
    "headerPageNumbers": _truth,
    "inProgressNotifications": _truth,
    "maxRetries": _whole,
    "retryDelaySeconds": _whole,
}
