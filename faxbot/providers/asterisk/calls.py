"""What is heard of single calls, put together: the last events of a call come in any order, and some never.

Pure: messages and the time go in, what is known of a call comes out. One that was answered is over with its result;
one that was not is over a while after the first event that says so, for the others tell why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from faxbot.errors import OutcomeUnknown
from faxbot.plugins.base import State, Update
from faxbot.providers.asterisk import causes
from faxbot.providers.asterisk.ami import Message

CHANNEL = "fax-"
"""Begins the name of our channels, which is the fax's name with the carrier too."""
GRACE = 2.0
"""Seconds in which the rest of a call's events come after the first of them that ends it."""
FORGOTTEN = 2 * 3600.0
"""Seconds without news after which a call is forgotten; none is as long."""
MOST_CALLS = 10_000
_PROVISIONAL = range(180, 200)
"""SIP: it rings, or says in the band why it does not."""
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_RESULT = 4096
_LONGEST_VALUE = 200
SUCCESS, UNANSWERED = "SUCCESS", "UNANSWERED"
CAUSE = "cause"
"""The entry beside a result, `<tag>/cause`: how the channel of a call ended that was never answered."""


def tag_of(channel: str) -> str | None:
    """The tag in the name of one of our channels; None for any other channel."""
    tag = channel.removeprefix(CHANNEL)
    return tag if tag != channel and _TAG.fullmatch(tag) else None


def is_tag(text: str) -> bool:
    """Whether it can be part of a channel's, a file's and a key's name as it is."""
    return _TAG.fullmatch(text) is not None


def result_in(text: str) -> dict[str, str] | None:
    """The result that the dialplan wrote: key=value joined by &, percent-encoded; None where it is none."""
    if len(text) > _LONGEST_RESULT:
        return None
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        return None
    result = {key[:_LONGEST_VALUE]: value[:_LONGEST_VALUE] for key, value in pairs}
    return result if "status" in result else None


@dataclass(slots=True)
class Call:
    """All that was heard of one call. `cause` (Q.850) and `tech_cause` (SIP) are of its hang-up, `reason` is why it
    was not answered, in OriginateResponse's numbers."""

    tag: str
    answered: bool = False
    dial: set[str] = field(default_factory=set)
    cause: int | None = None
    tech_cause: int | None = None
    reason: int | None = None
    result: Mapping[str, str] | None = None

    def take(self, part: str, entry: Mapping[str, str]) -> None:
        """Take in an entry of Asterisk's database: a result (part ""), or CAUSE."""
        if part == CAUSE:
            sip = _cause(entry.get("tech"))
            rang = entry.get("state") == "Ringing" or sip in _PROVISIONAL
            self.cause = self.cause or _cause(entry.get("cause"))
            self.tech_cause = self.tech_cause or (None if rang else sip)
            self.dial.add("RINGING" if rang else "BEGIN")
            entry = {"status": UNANSWERED}
        self.result = _better(self.result, entry)

    def body(self) -> bytes:
        """As JSON; the same for the same knowledge."""
        return json.dumps(
            {
                "tag": self.tag,
                "result": self.result,
                "cause": self.cause,
                "tech_cause": self.tech_cause,
                "dial": sorted(self.dial),
                "answered": self.answered,
                "reason": self.reason,
            },
            sort_keys=True,
        ).encode()

    @classmethod
    def read(cls, body: bytes) -> Call:
        """The other way round; raises OutcomeUnknown for anything else."""
        try:
            facts = json.loads(body)
            result, dial = facts["result"], facts["dial"]
            call = cls(
                facts["tag"],
                facts["answered"] is True,
                {each for each in dial if isinstance(each, str)},
                _number(facts["cause"]),
                _number(facts["tech_cause"]),
                _number(facts["reason"]),
                result and {str(key): str(value) for key, value in result.items()},
            )
            if is_tag(call.tag):
                return call
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        raise OutcomeUnknown("What was heard cannot be read.")

    def update(self) -> Update:
        """What that means: by FAXSTATUS alone it is delivered or not."""
        status = (self.result or {}).get("status")
        if self.result is None and self.reason is None:
            return self._news(State.PROGRESS if self.answered else State.ACCEPTED)
        if self.result is None or status == UNANSWERED:
            return self._news(State.FAILED, cause=self._why_unanswered())
        pages = _count(self.result.get("pages", ""))
        if status == SUCCESS:
            if pages:
                return self._news(State.DELIVERED, pages=pages)
            return self._news(State.FAILED, cause="unconfirmed", pages=0)
        words, more, remote = (self.result.get(key, "") for key in ("error", "text", "remote"))
        cause = causes.failed(words, more, pages, remote)
        return self._news(State.FAILED, cause=cause, pages=pages)

    def _why_unanswered(self) -> str:
        why = partial(causes.unanswered, self.cause, self.tech_cause, frozenset(self.dial))
        if self.result is None:
            return why(self.reason, "")
        device, reason = self.result.get("device") or None, self.reason
        said = _number(self.result.get("reason"))
        # An older dialplan says nothing of the device, and leaves it open whether there was a channel.
        if reason is None and (device or said == causes.NO_ANSWER):
            reason = said
        return why(reason, device)

    def _news(self, state: State, cause: str | None = None, pages: int | None = None) -> Update:
        return Update(
            state,
            tag=self.tag,
            external_id=f"{CHANNEL}{self.tag}",
            cause=cause,
            pages_sent=pages,
            key=f"{state}:{'-' if pages is None else pages}",
        )


@dataclass(slots=True)
class _Kept:
    """A call, and the times (monotonic seconds) that decide when it is told of."""

    call: Call
    touched_at: float
    over_at: float | None = None
    asked: bool = False
    told_answered: bool = False
    told_at: float | None = None


class Calls:
    """The calls that are heard of at the moment."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def hear(self, event: Message, now: float) -> None:
        """Take in an event; one that is about no call of ours is nothing."""
        tag = _about(event)
        if tag is None:
            return
        kept = self._of(tag, now)
        call = kept.call
        match event["Event"]:
            case "UserEvent":
                self._hear_dialplan(kept, event, now)
            case "OriginateResponse":
                # That it was answered is told by the dialplan, and counts for more.
                if event.get("Response") == "Failure":
                    call.reason = _number(event.get("Reason")) or 0
                    _end(kept, now)
            case "Hangup":
                call.cause = _cause(event.get("Cause")) or call.cause
                call.tech_cause = _cause(event.get("TechCause")) or call.tech_cause
                _end(kept, now)
            case "HangupRequest":
                call.cause = call.cause or _cause(event.get("Cause"))
                call.tech_cause = call.tech_cause or _cause(event.get("TechCause"))
            case _:
                call.dial.add(event.get("DialStatus", "BEGIN")[:20])

    def find(self, key: str, text: str, now: float) -> None:
        """Take in what lies in Asterisk's database under this key: a tag, or `<tag>/cause`."""
        tag, _, part = key.partition("/")
        entry = result_in(text)
        if entry is None or not is_tag(tag) or part not in ("", CAUSE):
            return
        kept = self._of(tag, now)
        kept.call.take(part, entry)
        _end(kept, now)

    def ripe(self, now: float, again_after: float) -> Iterator[tuple[Call, bool]]:
        """Calls to be told of now, and whether they are over. One that is over is told of again `again_after`
        seconds later, until it is forgotten."""
        for kept in list(self._kept.values()):
            told = kept.told_at is not None and now - kept.told_at < again_after
            if _is_over(kept, now):
                if not told:
                    kept.told_at = now
                    yield kept.call, True
            elif kept.call.answered and not kept.told_answered:
                kept.told_answered = True
                yield kept.call, False

    def missing(self, now: float) -> bool:
        """Whether a channel has gone whose result should be there by now; says so once for each."""
        found = False
        for kept in self._kept.values():
            late = kept.over_at is not None and now - kept.over_at >= GRACE
            if late and kept.call.result is None and not kept.asked:
                kept.asked = found = True
        return found

    def forget(self, tag: str) -> None:
        self._kept.pop(tag, None)

    def tidy(self, now: float) -> None:
        """Forget the calls of which nothing was heard for long."""
        for tag in [t for t, kept in self._kept.items() if now - kept.touched_at > FORGOTTEN]:
            del self._kept[tag]

    def _of(self, tag: str, now: float) -> _Kept:
        kept = self._kept.get(tag)
        if kept is None:
            if len(self._kept) >= MOST_CALLS:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[tag] = _Kept(Call(tag), now)
        kept.touched_at = now
        return kept

    def _hear_dialplan(self, kept: _Kept, event: Message, now: float) -> None:
        match event["UserEvent"]:
            case "FaxbotAnswered":
                kept.call.answered = True
            case "FaxbotCause":
                self.find(f"{kept.call.tag}/{CAUSE}", event.get("Result", ""), now)
            case _:
                self.find(kept.call.tag, event.get("Result", ""), now)


_DIALLING = ("DialBegin", "DialState", "DialEnd")
_OURS = ("FaxbotAnswered", "FaxbotCause", "FaxbotResult")


def _about(event: Message) -> str | None:
    """The tag of the call that an event is about; None for what is nothing of ours."""
    name = event.get("Event", "")
    if name == "UserEvent":
        tag = event.get("JobID", "")
        return tag if event.get("UserEvent") in _OURS and is_tag(tag) else None
    if name in _DIALLING:
        return tag_of(event.get("DestUniqueid", ""))
    if name in ("Hangup", "HangupRequest"):
        return tag_of(event.get("Uniqueid", ""))
    return tag_of(event.get("ActionID", "")) if name == "OriginateResponse" else None


def _end(kept: _Kept, now: float) -> None:
    kept.over_at = now if kept.over_at is None else kept.over_at


def _is_over(kept: _Kept, now: float) -> bool:
    """A failure of OriginateResponse alone is believed late, and of a call that was answered never."""
    call, over_at = kept.call, kept.over_at
    if over_at is None:
        return False
    waited = now - over_at >= GRACE
    if call.result is None:
        return waited and call.reason is not None and not call.answered
    return waited or call.result.get("status") != UNANSWERED


def _better(one: Mapping[str, str] | None, other: Mapping[str, str]) -> Mapping[str, str]:
    """Of two results of one call that which says more: a second call under its name comes to nothing, and is
    unanswered."""
    if one is None:
        return other
    ranked = (SUCCESS, None, UNANSWERED)

    def rank(result: Mapping[str, str]) -> tuple[int, int, str]:
        status = result.get("status")
        place = ranked.index(status if status in ranked else None)
        return place, -len(result), json.dumps(dict(result))

    return min(one, other, key=rank)


def _number(value: Any) -> int | None:
    """A number of at most five digits, from a number or text; None for anything else."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None


def _cause(value: str | None) -> int | None:
    """The first number in a text such as 486 or `SIP 486 Busy Here`; None for 0, which says nothing."""
    found = re.search(r"[0-9]{1,3}", value or "")
    return int(found[0]) or None if found else None


def _count(text: str) -> int:
    return _number(text) or 0
