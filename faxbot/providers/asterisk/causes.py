"""What Asterisk says of a call that delivered nothing, in canonical causes (events.CAUSES).

FAXSTATUS alone says whether a fax was delivered; what is here only says why not. Sentences are spandsp's
(t30_completion_code_to_str) and Asterisk's (res/res_fax.c, versions 16 to 22); Q.850 is the ITU's; SIP statuses
are of RFC 3261, section 21.
"""

from __future__ import annotations

from collections.abc import Mapping

_LINE = "line"
"""Of a sentence: the call broke, which is `dropped_early` before the first page and `page_failed` after it."""
_AGREEMENT = "agreement"
"""The machines could not agree, or did not understand each other: `handshake_failed`, or `page_failed`."""

SENTENCES: Mapping[str, str] = {
    # spandsp, in the order of its codes
    "the ced tone exceeded 5s": "no_fax_tone",
    "timed out waiting for initial communication": "no_fax_tone",
    "timed out waiting for the first message": "no_fax_tone",
    "timed out waiting for procedural interrupt": _AGREEMENT,
    "the hdlc carrier did not stop in a timely manner": _AGREEMENT,
    "failed to train with any of the compatible modems": _AGREEMENT,
    "operator intervention failed": _AGREEMENT,
    "far end is not compatible": "incompatible_image",
    "far end is not able to receive": "incompatible_image",
    "far end is not able to transmit": "incompatible_image",
    "far end cannot receive at the resolution of the image": "incompatible_image",
    "far end cannot receive at the size of image": "incompatible_image",
    "unexpected message received": _AGREEMENT,
    "received bad response to dcs or training": _AGREEMENT,
    "received a dcn from remote after sending a page": "page_failed",
    "invalid ecm response received from receiver": "page_failed",
    "received a dcn while waiting for a dis": _LINE,
    "invalid response after sending a page": "page_failed",
    "received other than dis while waiting for dis": _AGREEMENT,
    "received no response to dcs or tcf": _AGREEMENT,
    "received no response to dcs, training or tcf": _AGREEMENT,
    "no response after sending a page": "page_failed",
    "timed out waiting for receiver ready (ecm mode)": "page_failed",
    "invalid ecm response received from transmitter": _AGREEMENT,
    "dcs received while waiting for dtc": _AGREEMENT,
    "unexpected command after page received": _AGREEMENT,
    "carrier lost during fax receive": _LINE,
    "timed out while waiting for eol (end of line)": _LINE,
    "timed out while waiting for first line": _LINE,
    "timer t2 expired while waiting for dcn": _AGREEMENT,
    "timer t2 expired while waiting for phase d": _AGREEMENT,
    "timer t2 expired while waiting for fax page": _AGREEMENT,
    "timer t2 expired while waiting for next fax page": _AGREEMENT,
    "timer t2 expired while waiting for rr command": _AGREEMENT,
    "timer t2 expired while waiting for nss, dcs or mcf": _AGREEMENT,
    "unexpected dcn while waiting for dcs or dis": _LINE,
    "unexpected dcn while waiting for image data": _LINE,
    "unexpected dcn while waiting for eom, eop or mps": _LINE,
    "unexpected dcn after eom or mps sequence": _LINE,
    "unexpected dcn after rr/rnr sequence": _LINE,
    "unexpected dcn after requested retransmission": _LINE,
    "tiff/f file cannot be opened": "doc_unreadable",
    "tiff/f page not found": "doc_unreadable",
    "tiff/f format is not compatible": "doc_unreadable",
    "tiff/f page number tag missing": "doc_unreadable",
    "incorrect values for tiff/f tags": "doc_unreadable",
    "bad tiff/f header - incorrect values in fields": "doc_unreadable",
    "cannot allocate memory for more pages": "congestion",
    "disconnected after permitted retries": _AGREEMENT,
    "the call dropped prematurely": _LINE,
    "poll not accepted": "remote_refused",
    "ident not accepted": "remote_refused",
    "polled sub-address not accepted": "remote_refused",
    "selective polling address not accepted": "remote_refused",
    "sender identification not accepted": "remote_refused",
    "password not accepted": "remote_refused",
    "sub-address not accepted": "remote_refused",
    "transmitting subscriber internet address not accepted": "remote_refused",
    "internet routing address not accepted": "remote_refused",
    "calling subscriber internet address not accepted": "remote_refused",
    "internet selective polling address not accepted": "remote_refused",
    "called subscriber internet address not accepted": "remote_refused",
    # Asterisk's codes (FAXERROR)
    "init_error": "congestion",
    "memory_error": "congestion",
    "file_error": "config",
    "invalid_arguments": "config",
    "invalidargs": "config",
    "t38_neg_error": "t38_failed",
    "timeout": "session_timeout",
    "hangup": _LINE,
    "channel problems": _LINE,
    # Asterisk's sentences (FAXSTATUSSTRING)
    "error starting fax session": "congestion",
    "failed to start fax session": "congestion",
    "error reserving fax session": "congestion",
    "error allocating memory": "congestion",
    "can't send a fax on a channel with a t.38 gateway": "config",
    "maxrate is less than minrate": "config",
    "incompatible 'modems' and 'minrate' settings": "config",
    "incompatible 'modems' and 'maxrate' settings": "config",
    "invalid arguments": "config",
    "error reading file": "config",
    "error answering channel": _LINE,
    "error negotiating t.38": "t38_failed",
    "t.38 switch failed": "t38_failed",
    "remote channel hungup": _LINE,
    "failed to feed the smoother": "network_error",
    "error polling data": "network_error",
    "fax session timed-out": "session_timeout",
}
"""In lower case. A file that Asterisk cannot read was read by us a moment before: it does not see the folder."""
_NO_WORDS = frozenset({"", "ok", "no_error", "no error", "unknown", "error"})
"""What says nothing: the sentence beside it counts."""
_LITTLE = ("hangup", "init_error")
"""What says only who closed, or when: a sentence beside it says what was going on."""

Q850: Mapping[int, str] = {
    **dict.fromkeys((1, 14, 22, 23), "number_dead"),
    **dict.fromkeys((2, 3, 25), "no_route"),
    **dict.fromkeys((5, 28), "number_invalid"),
    **dict.fromkeys((6, 34, 42, 44, 46, 47), "congestion"),
    **dict.fromkeys((16, 19), "no_answer"),
    17: "busy",
    **dict.fromkeys((20, 27), "unreachable"),
    **dict.fromkeys((21, 54, 55), "rejected"),
    **dict.fromkeys((29, 49, 50, 52, 53, 57), "trunk_denied"),
    **dict.fromkeys((58, 63, 65, 69, 70, 79, 87, 88), "bearer"),
    66: "trunk_down",
    **dict.fromkeys((7, 8, 26, 30, 31, 38, 41, 43), "network_error"),
    **dict.fromkeys((81, *range(95, 103), 111, 127), "network_error"),
}
"""The cause of a call that was not answered. 18, of a call that nobody has reacted to, is in `unanswered`."""

SIP: Mapping[int, str] = {
    # The carrier names another number or place, which is not followed (FORWARD_CONTEXT).
    **dict.fromkeys((300, 301, 302, 305, 380), "no_route"),
    **dict.fromkeys((401, 407), "trunk_denied"),
    402: "funds",
    **dict.fromkeys((403, 603), "rejected"),
    **dict.fromkeys((404, 410, 485, 604), "number_dead"),
    **dict.fromkeys((408, 480, 487), "no_answer"),
    484: "number_invalid",
    **dict.fromkeys((486, 600), "busy"),
    **dict.fromkeys((415, 488, 606), "bearer"),
    483: "no_route",
    **dict.fromkeys((500, 504, 580), "network_error"),
    502: "unreachable",
    503: "congestion",
}
_SIP_KNOWS_BETTER = (300, 301, 302, 305, 380, 401, 402, 407)
"""Asterisk makes cause 21, "rejected", of 401, 402 and 407 (res_pjsip.c), which are the account's matter, and 23, a
changed number, of a redirection that it could not follow (measured with 302)."""
NO_DEVICE = "INVALID"
"""DEVICE_STATE of what Asterisk's configuration does not have; UNAVAILABLE is one that does not answer."""
NO_ANSWER = 3
"""OriginateResponse.Reason after the time for ringing; every other failure has 0 (measured)."""


def failed(words: str, more: str, pages: int, remote: str) -> str:
    """Why an answered call delivered nothing: FAXERROR, FAXSTATUSSTRING, the pages that were confirmed, and the
    station id that the far end gave ("" where it gave none)."""
    first, second = (" ".join(text.lower().split()) for text in (words, more))
    if first in _NO_WORDS or (first in _LITTLE and second in SENTENCES):
        first = second
    found = _LINE if first in _NO_WORDS else SENTENCES.get(first, "unknown")
    if found == "no_fax_tone" and (remote or pages):
        found = _AGREEMENT
    if found in (_LINE, _AGREEMENT):
        early = "dropped_early" if found == _LINE else "handshake_failed"
        return "page_failed" if pages else early
    return found


def unanswered(
    cause: int | None,
    tech_cause: int | None,
    dial: frozenset[str],
    reason: int | None,
    device: str | None = None,
) -> str:
    """Why a call was not answered: Cause and TechCause (SIP) of Hangup, the states that were heard of while it was
    dialled, and Reason of OriginateResponse; None where it was not heard. `device`: what the dialplan's `failed`
    says of the trunk (DEVICE_STATE), "" where `failed` did not run, None where it does not say."""
    rang = bool(dial & {"RINGING", "PROGRESS"})
    sip = SIP.get(tech_cause or 0)
    if sip is not None and tech_cause in _SIP_KNOWS_BETTER:
        return sip
    if cause == 18:
        return "no_answer" if rang else "trunk_down"
    if reason == NO_ANSWER:
        # Nothing but silence within the time for ringing: there may be nobody, or a trunk that is dead.
        return "no_answer" if rang or not dial else "unreachable"
    if reason is not None and cause is None and not dial:
        # No channel was ever heard of: there is no such trunk, or Asterisk knows by its OPTIONS that nobody is at the
        # other end. Where not even `failed` runs, it is being stopped and makes no channels.
        return "config" if device in (None, NO_DEVICE) else "trunk_down"
    return Q850.get(cause or 0) or sip or "unreachable"
