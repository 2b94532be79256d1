"""Whether an Asterisk has all that a fax needs, found out without calling anybody."""

from __future__ import annotations

import time

from faxbot.providers.asterisk.ami import Ami, Declined, Message
from faxbot.providers.asterisk.calls import CAUSE
from faxbot.providers.asterisk.listener import FAMILY
from faxbot.providers.asterisk.receiving import without_file
from faxbot.providers.asterisk.spool import Spool

RIGHTS = {
    "originate": ("Originate",),
    "call": ("Getvar", "Hangup", "Status"),
    "reporting": ("DBGet", "CoreStatus", "ShowDialPlan"),
}
"""The class in `write =` of manager.conf, and the actions that it allows. (ListCommands lists what this user may do;
Asterisk 16 and 22.)"""
EXTENSIONS = frozenset({"send", "h", "failed"})
ACK = "faxbot-ack"
RECEIVE = "faxbot-receive"
FUNCTIONS = {"FILTER(0-9,a1)": "1", "RAND(7,7)": "7", "URIENCODE(+)": "%2B"}
"""What our dialplan makes names of, and of what others say text, with what must come of it."""
TRUNK_SECONDS = 2.0
"""In which a trunk answers OPTIONS; until it has, Asterisk takes one that it has just loaded for dead."""
NO_NUMBER = "ASTERISK_DIAL must have {number} or {digits} in it."


def fitness(ami: Ami, context: str, dial: str) -> list[str]:
    """Sentences on what is missing and how to mend it; none where all is there. Raises Lost."""
    if ami.uptime is None:
        return ["Asterisk is still starting, or its manager user lacks `read = system,call,user`."]
    commands = ami.action("ListCommands")
    rights = [right for right, names in RIGHTS.items() if not commands.keys() >= set(names)]
    if rights:
        return [f"The manager user lacks a right: add {','.join(rights)} to `write =`."]
    faults = [] if channel(dial, "+1") else [NO_NUMBER]
    if "FAXStats" not in commands:
        faults.append("Asterisk has not loaded res_fax: load it, with res_fax_spandsp.")
    extensions = _extensions(ami, context)
    faults += _keeping(ami, context, extensions) or _causes(context, extensions)
    if "PJSIPQualify" in commands:
        faults += _trunk(ami, dial)
    return faults


def dialplan(ami: Ami, context: str) -> list[str]:
    """Sentences on what keeps calls from being made and their results from being kept. Raises Lost, Declined."""
    return _keeping(ami, context, _extensions(ami, context))


def reception(ami: Ami, spool: Spool) -> str:
    """A sentence on what keeps faxes from being received; "" where nothing does. Raises Lost."""
    extensions = _extensions(ami, RECEIVE)
    if not any(each.get("Application") == "ReceiveFAX" for each in extensions):
        return f"It receives none: the dialplan lacks {RECEIVE}, include today's extensions_faxbot.conf."
    for expression, result in FUNCTIONS.items():
        if ami.action("Getvar", [("Variable", expression)]).get("Value") != result:
            name = expression.partition("(")[0]
            return f"It receives none: load the module that has {name} (modules_faxbot.conf)."
    if not spool.is_there:
        return "It takes none from here that came in: ASTERISK_RECEIVED_FOLDER is not there."
    if missing := without_file(ami, spool):
        return (
            f"Faxes of the last days whose files are not in ASTERISK_RECEIVED_FOLDER: {missing}."
            " Is that the folder into which Asterisk writes? If they are listed as received, it is."
        )
    return ""


def _keeping(ami: Ami, context: str, extensions: list[Message]) -> list[str]:
    applications = {each.get("Application", "") for each in extensions}
    there = {each.get("Extension", "") for each in extensions}
    if not there >= EXTENSIONS or "SendFAX" not in applications:
        return [f"The dialplan lacks faxbot's context {context}: include extensions_faxbot.conf."]
    if not any(each.get("Extension") == "ack" for each in _extensions(ami, ACK)):
        return [f"The dialplan lacks the context {ACK}: include extensions_faxbot.conf."]
    if not any(f"DB({FAMILY}/" in each.get("AppData", "") for each in extensions):
        return [f"The context {context} keeps no results: include today's extensions_faxbot.conf."]
    if ami.action("Getvar", [("Variable", f"DB_EXISTS({FAMILY}/{ACK})")]).get("Value") != "0":
        return ["Asterisk keeps no results: load func_db."]
    return []


def _causes(context: str, extensions: list[Message]) -> list[str]:
    causes = [each.get("AppData", "") for each in extensions if each.get("Extension") == CAUSE]
    if any(each.startswith("FaxbotCause,") for each in causes):
        return []
    return [f"The context {context} is of an older faxbot: copy today's extensions_faxbot.conf."]


def _extensions(ami: Ami, context: str) -> list[Message]:
    try:
        return ami.listing("ShowDialPlan", [("Context", context)])
    except Declined:
        return []


def _trunk(ami: Ami, dial: str) -> list[str]:
    """PJSIPQualify has Asterisk say OPTIONS to the trunk, and refuses for an endpoint that it does not have."""
    technology, _, name = device(dial).partition("/")
    if technology != "PJSIP":
        return []
    try:
        ami.action("PJSIPQualify", [("Endpoint", name)])
    except Declined:
        return [f"Asterisk has no PJSIP endpoint {name}, which ASTERISK_DIAL names."]
    until = time.monotonic() + TRUNK_SECONDS
    while _device_state(ami, device(dial)) == "UNAVAILABLE":
        if time.monotonic() > until:
            return [f"The trunk {name} does not answer Asterisk: look at pjsip show contacts."]
        time.sleep(0.1)
    return []


def _device_state(ami: Ami, name: str) -> str:
    """As the dialplan sees it; empty where Asterisk has not loaded func_devstate."""
    try:
        return ami.action("GetVar", [("Variable", f"DEVICE_STATE({name})")]).get("Value", "")
    except Declined:
        return ""


def channel(dial: str, number: str) -> str | None:
    """What to dial; None where the number is no part of that: every fax would go to one."""
    named = dial.replace("{number}", number).replace("{digits}", number.lstrip("+"))
    return None if named == dial else named


def device(dial: str) -> str:
    """The trunk in ASTERISK_DIAL by the name that Asterisk has for its state: PJSIP/{number}@trunk is PJSIP/trunk."""
    technology, _, rest = dial.partition("/")
    user, at, endpoint = rest.partition("@")
    name = endpoint if at and "/" not in user else rest.partition("/")[0]
    return f"{technology}/{name}"
