"""Sends and receives faxes through an Asterisk of one's own: over AMI, with SendFAX and ReceiveFAX in faxbot's
dialplan.

A worker only starts the call and is free again; the listener hears how it ends, and what it misses lies in Asterisk's
database. So do the faxes that come in, whose documents lie in a folder. docs/providers/asterisk.md has the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from urllib.parse import quote

from faxbot.errors import AccountRefused, OutcomeUnknown, ProviderError, Refused, Unreachable
from faxbot.hidden import Hidden
from faxbot.plugins.base import (
    Arrival,
    CallbackRequest,
    Context,
    Gap,
    Health,
    Notice,
    OutboundFax,
    Receipt,
    State,
    TransportPlugin,
    Update,
)
from faxbot.providers.asterisk import arrivals, handover, tiff
from faxbot.providers.asterisk.ami import Ami, Declined, Fields, Login, Lost, connected
from faxbot.providers.asterisk.calls import CAUSE, CHANNEL, UNANSWERED, Call, is_tag, result_in
from faxbot.providers.asterisk.fitness import (
    NO_NUMBER,
    channel,
    device,
    dialplan,
    fitness,
    reception,
)
from faxbot.providers.asterisk.folder import Folder
from faxbot.providers.asterisk.listener import FAMILY, KEPT, Listener
from faxbot.providers.asterisk.receiving import Receiving
from faxbot.providers.asterisk.spool import Spool

EXTENSION = "send"
NOWHERE = "faxbot-nothing-comes-in"
"""A context that is not there."""
HEADER = "Fax"
"""The text of a fax that brings none: spandsp prints neither date nor station id nor page number without a text, and
47 CFR 68.318(d) wants all three on every page."""
STEPS: tuple[tuple[bool, bool, bool], ...] = (
    (True, False, True),
    (False, False, True),
    (False, True, True),
    (False, True, False),
)
"""The ladder: is T.38 offered, is it 9600 bit/s at most, is errors' correction (ECM) used."""
SLOWEST = 600
"""Bytes a second on a line that is bad (4800 bit/s)."""
PAGE_SECONDS = 60
"""What a page may take beside its bytes: a slow machine without ECM asks for 20 ms a row (T.30), and each page is
confirmed."""
SHORTEST_CALL, LONGEST_CALL = 300, 3600
"""Seconds; Asterisk ends an answered call then."""
CLOCKS = timedelta(seconds=5)
"""By how much the clocks may differ when it is asked whether Asterisk was up at a time."""
KEPT_FOR_SURE = timedelta(minutes=5)
"""So much sooner than results leave Asterisk's database it is not asserted any more that there was none."""
RECEIVED = "-received"
"""Ends the name of the folder for received faxes, where no other one is set."""
LISTENED = "LISTEN"
"""The method of what listen() has heard."""
FOR_GOOD = 10 * 365 * 86_400.0
_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_SETTINGS_WRONG = (
    "extension",
    "priority",
    "channel",
    "permission",
    "forbidden",
    "uniqueid",
    "codec",
)
"""In Asterisk's words for an Originate that it refuses: what no other try will mend."""
_STARTING = "Asterisk is still starting, or its manager user may not read system events."


class Asterisk(TransportPlugin):
    """See docs/providers/asterisk.md."""

    connect_seconds = 5.0
    answer_seconds = 10.0
    kept_seconds = KEPT

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self._folder = Folder(str(config["folder"]), str(config.get("folderThere") or ""))
        self._spool = Spool(str(config.get("receivedFolder") or f"{config['folder']}{RECEIVED}"))
        self._secret = str(config.get("inboundSecret") or "")
        self._login = Login(
            str(config["host"]),
            int(config["port"]),
            str(config["username"]),
            str(config["password"]),
            self.connect_seconds,
            self.answer_seconds,
        )

    def health(self) -> Health:
        """Logs in and looks at rights, dialplan, trunk and folders; calls nobody. That it cannot receive is no fault of
        one that only sends: it is said beside."""
        try:
            with connected(self._login) as ami:
                faults = fitness(ami, str(self.config["context"]), str(self.config["dial"]))
                receives = "" if faults else reception(ami, self._spool)
        except AccountRefused as error:
            return Health(False, error.detail)
        except ProviderError as error:
            return Health(False, f"{error.detail} Check ASTERISK_AMI_HOST and ASTERISK_AMI_PORT.")
        faults += self._folder.faults() + self._spool.faults()
        said = " ".join(faults) or f"Asterisk has all that a fax needs. {receives}"
        return Health(not faults, said.strip())

    def send(self, fax: OutboundFax) -> Receipt:
        """Start the call (AMI action Originate, Async), and do not wait for it."""
        number = fax.to.reveal()
        if not _NUMBER.fullmatch(number):
            raise Refused("This is no number that can be dialled.", cause="number_invalid")
        if not is_tag(fax.tag):
            raise Refused("This fax has a name that Asterisk cannot keep.", cause="config")
        fault = tiff.fault(fax.document)
        if fault:
            raise Refused(f"The document is no fax page: {fault}.", cause="doc_unreadable")
        fields = self._call(fax, number)
        self._folder.put(fax.tag, fax.document)
        try:
            self._originate(fields, f"{CHANNEL}{fax.tag}")
        except OutcomeUnknown:
            raise  # Asterisk may read the file in this moment
        except ProviderError:
            self._folder.forget(fax.tag)
            raise
        return Receipt(f"{CHANNEL}{fax.tag}")

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:  # noqa: ARG002
        """What Asterisk knows of this attempt. ABSENT only where it has been up, and known to faxbot, since
        before the attempt, keeps results, and cannot have let go of this one: everything else is unknown."""
        with self._connected() as ami:
            known = _known(ami, _sound(tag))
            if known is not None:
                return known
            faults = dialplan(ami, str(self.config["context"]))
            if faults:
                raise OutcomeUnknown(f"What became of it is not known. {faults[0]}")
            same_since = self._same_since(ami)
        if same_since is None or same_since + CLOCKS > since:
            raise OutcomeUnknown(
                "Asterisk was restarted meanwhile, or is another one: what became of it is not known."
            )
        if since + timedelta(seconds=self.kept_seconds) - KEPT_FOR_SURE < self.context.now():
            raise OutcomeUnknown("What Asterisk knew of that time it may have let go of since.")
        return Update(State.ABSENT, tag=tag, external_id=f"{CHANNEL}{tag}")

    def _same_since(self, ami: Ami) -> datetime | None:
        """Since when it is surely this Asterisk that answers at this address, without an end in between; None where
        it does not say for how long it is up. Behind an address may be two, and a clock that is set makes a
        young one old: so each is known by its start, and only from when it was first seen."""
        if ami.uptime is None:
            return None
        now = self.context.now().timestamp()
        started = now - ami.uptime

        def seen_now() -> tuple[str, float]:
            return f"{started:.0f} {now:.0f}", FOR_GOOD

        known = self.context.cache.get("asterisk", seen_now)
        if abs(float(known.split()[0]) - started) > CLOCKS.total_seconds():
            known = self.context.cache.get("asterisk", seen_now, stale=known)
        was_started, seen = (float(each) for each in known.split())
        if abs(was_started - started) > CLOCKS.total_seconds():
            return None
        return datetime.fromtimestamp(max(started, seen), UTC)

    def fetch(self, external_id: str) -> Update:
        """What Asterisk knows of this call; ABSENT where that is nothing."""
        tag = _sound(external_id.removeprefix(CHANNEL))
        with self._connected() as ami:
            known = _known(ami, tag)
        return known or Update(State.ABSENT, tag=tag, external_id=external_id)

    def cancel(self, external_id: str) -> None:
        """Hang up (cause 16): while it rings, or in the middle of a page. Raises Refused when the call is over,
        OutcomeUnknown when there is no such call, which may be because it is just about to begin."""
        tag = _sound(external_id.removeprefix(CHANNEL))
        with self._connected() as ami:
            try:
                ami.action("Hangup", [("Channel", f"{CHANNEL}{tag}"), ("Cause", "16")])
            except Declined as refusal:
                if "no such channel" not in refusal.words:
                    raise
                if _stored(ami, tag) is not None:
                    raise Refused("It is too late: the call is over.") from None
                raise OutcomeUnknown("Asterisk has no such call at this moment.") from None

    def listen(self) -> Iterator[Notice | Gap | None]:
        """Results and answers of calls, as they come; TransportPlugin.listen()."""
        logger = self.context.logger
        listener = Listener(
            self._login,
            logger,
            self._folder,
            Receiving(self._spool, logger),
            self._same_since,
            self.kept_seconds,
        )
        return listener.listen()

    def verify_callback(self, request: CallbackRequest) -> bool:
        """Whether a received fax that is handed over by HTTP comes with ASTERISK_INBOUND_SECRET."""
        return handover.is_genuine(request, self._secret)

    def read_callback(self, request: CallbackRequest) -> Sequence[Update | Arrival]:
        """The news in what listen() has heard, or the fax that was handed over."""
        if request.method != LISTENED:
            return [handover.read(request, self._spool, self._secret)]
        if arrivals.is_body(request.body):
            return [arrivals.read(request.body)]
        return [Call.read(request.body).update()]

    def document(self, external_id: str, target: BinaryIO) -> None:
        """The TIFF of a received fax, from ASTERISK_RECEIVED_FOLDER; of a fax that was sent Asterisk keeps none."""
        self._spool.copy(external_id, target)

    def attached(self, request: CallbackRequest, target: BinaryIO) -> None:
        """The file in the form of a handed over fax, or the one that its JSON names."""
        handover.attached(request, self._spool, target)

    def claim(self, request: CallbackRequest) -> None:
        """The file that a JSON names is its call's own from now on: the next call may write to the same path."""
        if request.method != LISTENED:
            handover.claim(request, self._spool, self._secret)

    def taken(self, external_id: str) -> None:
        """Remove the TIFF of a received fax. Raises AccountRefused where its folder is not there, unless faxes are
        handed over and nobody has named one: then it is on another machine."""
        if self.config.get("receivedFolder") or not self._secret:
            self._spool.demand()
        self._spool.forget(external_id)

    def _connected(self) -> AbstractContextManager[Ami]:
        return connected(self._login)

    def _call(self, fax: OutboundFax, number: str) -> Fields:
        """The fields of Originate. One variable a line, and free text percent-encoded: a comma would begin
        another variable."""
        context, dial = str(self.config["context"]), str(self.config["dial"])
        named = channel(dial, number)
        if named is None:
            raise AccountRefused(NO_NUMBER, cause="config")
        t38, slow, ecm = STEPS[max(0, min(fax.step, len(STEPS) - 1))]
        caller = self.config.get("callerId")
        size = fax.document.stat().st_size
        longest = 120 + fax.pages * PAGE_SECONDS + size // SLOWEST
        variables = {
            "ID": fax.tag,
            "FILE": self._folder.there(fax.tag),
            "STATION": quote(str(self.config.get("stationId") or caller or ""), safe=""),
            "HEADER": quote(fax.header.reveal() or HEADER, safe=""),
            "MAXSECS": str(max(SHORTEST_CALL, min(longest, LONGEST_CALL))),
            "OPTS": "zf" if t38 and self.config.get("t38", True) else "F",
            "SLOW": "yes" if slow else "",
            "ECM": "yes" if ecm else "no",
            "DEVICE": device(dial),
        }
        return [
            ("Channel", named),
            ("Context", context),
            ("Exten", EXTENSION),
            ("Priority", "1"),
            ("Timeout", str(int(self.config["ringSeconds"]) * 1000)),
            ("Async", "true"),
            ("ChannelId", f"{CHANNEL}{fax.tag}"),
            *([("CallerID", f"<{caller}>")] if caller else []),
            *(("Variable", f"FAXJOB_{key}={value}") for key, value in variables.items() if value),
            ("Variable", f'CHANNEL(hangup_handler_push)="{context},{CAUSE},1"'),
            # SIP 302 would have Asterisk dial what the far end names, in the context of calls that come in, and pay.
            ("Variable", f"FORWARD_CONTEXT={NOWHERE}"),
        ]

    def _originate(self, fields: Fields, name: str) -> None:
        """Raises a NotSent error where no call was made (Stopping among them), OutcomeUnknown where one may have
        been."""
        with self._connected() as ami:
            if ami.uptime is None:
                raise Unreachable(_STARTING)
            self._same_since(ami)
            try:
                ami.action("Originate", fields, action_id=name)
            except Lost as error:
                ami.abandon()
                raise OutcomeUnknown(error.detail) from None
            except Declined as refusal:
                raise _refused(refusal.words) from None


def _refused(words: str) -> ProviderError:
    """What it means that Asterisk refuses an Originate: no call was made."""
    if "extension" in words:
        return AccountRefused(
            "Asterisk lacks faxbot's dialplan: include extensions_faxbot.conf.", cause="config"
        )
    if any(word in words for word in _SETTINGS_WRONG):
        return AccountRefused(
            "Asterisk does not take this call: test the connection, it says why.", cause="config"
        )
    return Unreachable("Asterisk could not start the call.")


def _known(ami: Ami, tag: str) -> Update | None:
    """The result in the database, or that the channel is there. The result is written before the channel goes, so
    it is asked for again where there was neither."""
    stored = _stored(ami, tag)
    if stored is None:
        state = _state(ami, tag)
        if state is not None:
            return Update(state, tag=tag, external_id=f"{CHANNEL}{tag}")
        stored = _stored(ami, tag)
    return None if stored is None else stored.update()


def _stored(ami: Ami, tag: str) -> Call | None:
    """The call as it lies in Asterisk's database; None where nothing is there."""
    call = Call(tag)
    result = _entry(ami, tag)
    if result is not None:
        call.take("", result)
    if result is None or result["status"] == UNANSWERED:
        why = _entry(ami, f"{tag}/{CAUSE}")
        if why is not None:
            call.take(CAUSE, why)
    return call if call.result else None


def _entry(ami: Ami, key: str) -> Mapping[str, str] | None:
    try:
        found = ami.listing("DBGet", [("Family", FAMILY), ("Key", key)], last="DBGetResponse")
    except Declined as refusal:
        if "not found" in refusal.words:
            return None
        raise
    for each in found:
        entry = result_in(each.get("Val", ""))
        if entry is not None:
            return entry
    raise OutcomeUnknown("What Asterisk's database has of this call cannot be read.")


def _state(ami: Ami, tag: str) -> State | None:
    """PROGRESS of a call that was answered, ACCEPTED before; None where there is none."""
    try:
        found = ami.listing("Status", [("Channel", f"{CHANNEL}{tag}")])
    except Declined as refusal:
        if "no such channel" in refusal.words:
            return None
        raise
    up = any(each.get("ChannelStateDesc") == "Up" for each in found)
    return State.PROGRESS if up else State.ACCEPTED


def _sound(tag: str) -> str:
    if not is_tag(tag):
        raise Refused("This is no name of a fax of ours.")
    return tag
