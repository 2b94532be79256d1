"""What a client may say when it sends a fax, checked field by field against the vendor's page
(phaxio.com/docs/api/v2/faxes/create_and_send_fax).

The vendor passes over a field that it does not know, and an eleventh file; here the first is
refused by name, so that a misspelt field is found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from faxbot.carriers.door import Answer, Form, Part
from faxbot.carriers.phaxio import words
from faxbot.carriers.phaxio.numbers import SIMULATED

MAX_FILES = 10
MAX_TAGS = 10
MAX_HEADER = 50
"""Characters."""

COUNTED_TAG = "faxbot"
"""The tag whose values the ledger counts: `tag[faxbot]`."""

NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_ADDRESS = re.compile(r"https?://[^\s/?#]+\S*")
_CALLBACK = re.compile(r"https?://[^\s/?#]+\S*|mailto:\S+@\S+")
_TAG = re.compile(r"tag\[([^\[\]]+)\]")
_WORD = re.compile(r"[a-z_]{1,30}(\[[a-z_]{0,30}\])?", re.IGNORECASE)

_SINGLE = frozenset(
    {
        *("to", "content_url", "header_text", "batch_delay", "batch_collision_avoidance"),
        *("callback_url", "cancel_timeout", "caller_id", "test_fail"),
    }
)
_SEVERAL = frozenset({"to[]", "content_url[]"})
_FILES = frozenset({"file", "file[]"})


class Refused(Exception):
    """What was sent is not taken: `code` for the ledger, and the answer."""

    def __init__(self, code: str, answer: Answer) -> None:
        super().__init__(code)
        self.code = code
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Submission:
    """A fax to send. Times as the vendor has them: `batch_delay` in seconds, `cancel_timeout` in
    minutes."""

    to: tuple[str, ...]
    files: tuple[Part, ...]
    content_urls: tuple[str, ...]
    callback_url: str
    tags: Mapping[str, str]
    header: str
    caller_id: str | None
    batch_delay: int | None
    cancel_timeout: int | None
    test_fail: str | None


def counted_tag(form: Form) -> str:
    """Under which tag the ledger counts it, whatever else is wrong with it."""
    return form.fields.get(f"tag[{COUNTED_TAG}]", "")


def read(form: Form, *, is_test: bool, numbers: Collection[str]) -> Submission:
    """A form as a submission; raises Refused.

    `is_test`: the key is a test key. `numbers`: those that the account has, for `caller_id`; with
    none given any will do.
    """
    _check_names(form)
    fields, lists = form.fields, _lists(form)
    _check_flag(fields, "batch_collision_avoidance")
    return Submission(
        to=_recipients(fields, lists),
        files=_files(form, lists),
        content_urls=_content_urls(fields, lists),
        callback_url=check_callback_url(fields.get("callback_url", "")),
        tags=_tags(form),
        header=_header(fields),
        caller_id=_caller_id(fields, numbers),
        batch_delay=_whole(fields, "batch_delay", 0, 3600),
        cancel_timeout=_whole(fields, "cancel_timeout", 3, 60),
        test_fail=_test_fail(fields, is_test=is_test),
    )


def check_callback_url(url: str) -> str:
    """The same; raises Refused where it is neither empty nor http, https or mailto."""
    if url and not _CALLBACK.fullmatch(url):
        raise _malformed("callback_url")
    return url


def check_fields(form: Form, known: Collection[str]) -> Mapping[str, str]:
    """The text fields of a form that has no others than these, each once; raises Refused."""
    names = [name for name, _ in form.items]
    for name in names:
        if name not in known:
            raise _unknown(name)
    if len(names) != len(set(names)):
        raise Refused("field-repeated", words.invalid("A field is repeated"))
    return form.fields


def _check_names(form: Form) -> None:
    seen: set[str] = set()
    for name, _ in form.items:
        if name in _FILES:
            raise Refused("file-name-missing", words.invalid("A file part has no file name"))
        if name not in _SINGLE | _SEVERAL and not _TAG.fullmatch(name):
            raise _unknown(name)
        if name in seen and name not in _SEVERAL:
            raise Refused("field-repeated", words.invalid(f"Repeated: {_shown(name)}"))
        seen.add(name)
    for part in form.parts:
        if part.name not in _FILES:
            raise _unknown(part.name)


def _lists(form: Form) -> Mapping[str, tuple[str, ...]]:
    return {name: tuple(value for each, value in form.items if each == name) for name in _SEVERAL}


def _recipients(fields: Mapping[str, str], lists: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    to = (*((fields["to"],) if "to" in fields else ()), *lists["to[]"])
    if not to:
        raise Refused("number-missing", words.invalid("No recipient"))
    if not all(NUMBER.fullmatch(number) for number in to):
        raise Refused("number-malformed", words.REFUSALS["number_invalid"])
    return to


def _files(form: Form, lists: Mapping[str, tuple[str, ...]]) -> tuple[Part, ...]:
    if not (form.parts or lists["content_url[]"] or "content_url" in form.fields):
        raise Refused("document-missing", words.invalid("Neither file nor content_url"))
    if any(not part.filename for part in form.parts):
        raise Refused("file-name-missing", words.invalid("A file part has no file name"))
    if sum(part.name == "file" for part in form.parts) > 1:
        raise Refused("field-repeated", words.invalid("Repeated: file"))
    # An eleventh file was silently dropped in a public demonstration.
    return form.parts[:MAX_FILES]


def _content_urls(
    fields: Mapping[str, str], lists: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    urls = (
        *((fields["content_url"],) if "content_url" in fields else ()),
        *lists["content_url[]"],
    )
    if not all(_ADDRESS.fullmatch(url) for url in urls):
        raise _malformed("content_url")
    return urls


def _tags(form: Form) -> Mapping[str, str]:
    tags = {found[1]: value for name, value in form.items if (found := _TAG.fullmatch(name))}
    if len(tags) > MAX_TAGS:
        raise Refused("too-many-tags", words.invalid(f"More than {MAX_TAGS} tags"))
    return tags


def _header(fields: Mapping[str, str]) -> str:
    header = fields.get("header_text", "-")
    if len(header) > MAX_HEADER:
        raise _malformed("header_text")
    return header


def _caller_id(fields: Mapping[str, str], numbers: Collection[str]) -> str | None:
    number = fields.get("caller_id")
    if number is not None and (not NUMBER.fullmatch(number) or (numbers and number not in numbers)):
        raise _malformed("caller_id")
    return number


def _whole(fields: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not least <= int(text) <= most:
        raise _malformed(name)
    return int(text)


def _check_flag(fields: Mapping[str, str], name: str) -> None:
    if fields.get(name, "false") not in ("true", "false"):
        raise _malformed(name)


def _test_fail(fields: Mapping[str, str], *, is_test: bool) -> str | None:
    kind = fields.get("test_fail")
    if kind is not None and not (is_test and kind in SIMULATED):
        raise _malformed("test_fail")
    return kind


def _malformed(name: str) -> Refused:
    return Refused(f"{name.replace('_', '-')}-malformed", words.invalid(f"Not acceptable: {name}"))


def _unknown(name: str) -> Refused:
    return Refused("unknown-field", words.invalid(f"Unknown field: {_shown(name)}"))


def _shown(name: str) -> str:
    """A field's name where it is one: it could be anything that was sent."""
    return name if _WORD.fullmatch(name) else "(a name that is none)"
