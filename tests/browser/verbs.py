"""Every verb of the console: how it is clicked from its page, and what is seen then.

A verb is what a form sends: a route of CONSOLE (POST), or the terminal's. Each stands in one of these tables: FAXES or
SERVICE, or CLICKED_IN, where a test of test_console_deeds.py tells a story of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect

from faxbot import arrivals, breaker
from faxbot.actors import ADMIN, VIEWER
from faxbot.db import new_id
from faxbot.events import DEFAULT_ACCOUNT, Reception
from faxbot.fetching import NO_DOCUMENT
from faxbot.models import InboundFax
from tests.browser.clicks import named, press
from tests.browser.site import PASSWORD, Site
from tests.ground import eventually
from tests.integration.web import ahead, new_user
from tests.receiver import Receiver

ANOTHER = "nine loud geese before dawn"
"""A password that nobody had before."""
WHY = {"Why?": "the ward asked for it"}


@dataclass
class Place:
    """Where the verbs are tried: a faxbot, and who hears its webhooks."""

    site: Site
    receiver: Receiver
    heard: dict[str, str] = field(default_factory=dict)
    """The webhook that has taken deliveries, and one of these."""

    def asked(self, path: str, wish: Any = None, method: str = "POST") -> dict[str, Any]:
        """What the API answers, which must be well."""
        answer = self.site.service.request(method, path, json=wish)
        assert answer.ok, (path, answer.text)
        body: dict[str, Any] = answer.json() if answer.content else {}
        return body


@dataclass(frozen=True)
class Verb:
    """`page`: below /admin/ui/. `steps`: names of buttons that are pressed, and, by label, what is filled in before the
    one that follows; the last button sends the form. `sees`: what can be read then and could not before. `of`: makes
    what it is done to, and gives words for <...> in page, steps and sight."""

    page: str
    steps: tuple[str | re.Pattern[str] | dict[str, str], ...]
    sees: str | re.Pattern[str]
    of: Callable[[Place], dict[str, str]] = lambda _: {}
    role: str | None = ADMIN


def assert_done(page: Page, route: str, verb: Verb, place: Place) -> None:
    """The verb is clicked and typed; the page sends it to its route, which takes it, and says what is to be seen."""
    words = verb.of(place)
    *before, last = [_with(step, words) for step in verb.steps]
    body, sight = page.locator("body"), _with(verb.sees, words)
    page.goto(f"/admin/ui/{_with(verb.page, words)}")
    expect(page.locator(".htmx-request")).to_have_count(0)
    for at, step in enumerate(before):
        if isinstance(step, dict):
            _fill(named(page, [*before, last][at + 1]), step)
        else:
            press(named(page, step).first)
    expect(body).not_to_contain_text(sight, use_inner_text=True)
    with page.expect_response(
        lambda answer: answer.request.method == "POST" and leads(route, urlsplit(answer.url).path)
    ) as answer:
        press(named(page, last).first)
    assert answer.value.ok, (answer.value.status, answer.value.text())
    expect(body).to_contain_text(sight, use_inner_text=True)


def _with(text: Any, words: dict[str, str]) -> Any:
    """The same with these words in their places."""
    if isinstance(text, dict):
        return {label: _with(value, words) for label, value in text.items()}
    if isinstance(text, str):
        return re.sub("<(.*?)>", lambda match: words.get(match[1], match[0]), text)
    return text


def _fill(button: Locator, fields: dict[str, str]) -> None:
    """The fields of the form that this button sends."""
    expect(button.first).to_be_visible()
    form = button.first.locator("xpath=ancestor::form")
    for label, value in fields.items():
        field = form.get_by_label(label)
        kind = field.evaluate("field => field.type")
        if kind in ("checkbox", "radio"):
            field.check()
        elif kind == "select-one":
            field.select_option(value)
        else:
            field.fill(value)


def leads(route: str, path: str) -> bool:
    """Whether this is a path of the route."""
    return bool(re.fullmatch(re.sub("<.*?>", "[^/]+", route.partition(" ")[2]), path))


# What verbs are done to ---------------------------------------------------------------------------------


def planned(place: Place) -> dict[str, str]:
    """A fax that waits for its time."""
    return {"fax": place.site.send(send_at=ahead(2))}


def held(place: Place) -> dict[str, str]:
    fax = planned(place)
    place.asked(f"/fax/{fax['fax']}/hold")
    return fax


def delivered(place: Place) -> dict[str, str]:
    fax_id = place.site.send("0000")
    assert place.site.final(fax_id)["status"] == "delivered"
    return {"fax": fax_id}


def received(place: Place) -> dict[str, str]:
    """A fax that came in, and that nobody has read."""
    known = {each["id"] for each in _received(place)}
    place.site.carrier.receive("0000", f"{place.site.origin}/callbacks/simulator")
    new = eventually(lambda: [each["id"] for each in _received(place) if each["id"] not in known])
    return {"inbound": new[0]}


def _received(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.asked("/inbound?status=received", method="GET")["items"]
    return found


def read(place: Place) -> dict[str, str]:
    fax = received(place)
    place.asked(f"/inbound/{fax['inbound']}/read")
    return fax


def lost(place: Place) -> dict[str, str]:
    """A received fax whose document nobody had."""
    return without_document(place, status=Reception.FAILED, cause=NO_DOCUMENT)


def waiting(place: Place) -> dict[str, str]:
    """A received fax whose document cannot be had, and is not tried again for a while."""
    next_at = place.site.runtime.now() + timedelta(hours=1)
    return without_document(
        place, status=Reception.FETCHING, cause="account-refused", next_at=next_at
    )


def without_document(place: Place, **its: Any) -> dict[str, str]:
    runtime, inbound_id = place.site.runtime, new_id()
    now, numbers = runtime.now(), json.dumps({"from": "+15550100001", "to": ""}).encode()
    with runtime.database.transaction() as session:
        session.add(
            InboundFax(
                id=inbound_id,
                account_id=DEFAULT_ACCOUNT,
                provider_id="simulator",
                external_id=f"lost-{inbound_id}",
                numbers_sealed=runtime.keyring.seal(numbers, arrivals.place(DEFAULT_ACCOUNT)),
                received_at=now,
                created_at=now,
                updated_at=now,
                **its,
            )
        )
    return {"inbound": inbound_id}


def kept(place: Place) -> dict[str, str]:
    """A received fax under a legal hold."""
    fax = received(place)
    place.asked(f"/inbound/{fax['inbound']}/legal-hold", {"reason": "a court asks"}, "PUT")
    return fax


def webhook(place: Place) -> dict[str, str]:
    """One that has taken its test event, and hears what is delivered."""
    wish = {"name": "records", "url": place.receiver.url, "types": ["FAX_DELIVERED"]}
    made = place.asked("/webhooks", wish)
    place.asked(f"/webhooks/{made['id']}/test")
    return {"webhook": made["id"]}


def delivery(place: Place) -> dict[str, str]:
    """One that a webhook has taken; the first fax may be too early for it: who wants what is looked up every two
    seconds (fanout.py)."""
    if not place.heard:
        place.heard = webhook(place)
        path = f"/webhooks/{place.heard['webhook']}/deliveries?status=delivered"
        while not (found := place.asked(path, method="GET")["items"]):
            delivered(place)
        place.heard["delivery"] = found[0]["id"]
    one = f"/webhooks/deliveries/{place.heard['delivery']}"
    # The verb before this one may have had it sent again.
    eventually(lambda: place.asked(one, method="GET")["status"] == "delivered", every=0.1)
    return place.heard


def refused(place: Place) -> dict[str, str]:
    """The carrier does not know our account: it rests."""
    fax_id = place.site.send("0401")
    of_simulator = "/admin/providers/simulator"
    eventually(lambda: place.asked(of_simulator, method="GET")["state"] == "open", every=0.1)
    place.asked(f"/fax/{fax_id}/cancel")
    return {}


def broken_plugin(place: Place) -> dict[str, str]:
    """One whose own code failed too often, as the guard writes it down."""
    runtime = place.site.runtime
    with runtime.database.transaction() as session:
        row = breaker.locked(session, "default", "phaxio", runtime.now())
        row.disabled_at = runtime.now()
    eventually(
        lambda: any(one["disabled"] for one in place.asked("/plugins", method="GET")["items"])
    )
    return {}


def telling(place: Place) -> dict[str, str]:
    """Notices go out by e-mail."""
    wish = {"slot": "notification", "note": "a test"}
    place.asked("/admin/providers/email/activate", wish)
    return {}


def saved(place: Place) -> dict[str, str]:
    """A setting that was changed, and the version before it."""
    changes = [{"FAX_HEADER": f"Clinic {number}"} for number in (1, 2)]
    versions = [
        place.asked("/admin/config", {"settings": each, "note": "a test"}, "PATCH")["version"]
        for each in changes
    ]
    return {"version": str(versions[0])}


def exported(place: Place) -> dict[str, str]:
    """A document of all that is saved, with another header."""
    document = place.asked("/admin/config/export", method="GET")
    document["options"]["FAX_HEADER"] = "Riverside"
    return {"document": json.dumps(document)}


def key(place: Place) -> dict[str, str]:
    made = place.asked("/admin/api-keys", {"name": "pharmacy", "scopes": ["fax:read"]})
    return {"key": made["id"]}


def user(place: Place) -> dict[str, str]:
    made = new_user(place.site.runtime, VIEWER, password=PASSWORD)
    return {"user": made.id, "name": made.name}


def disabled_user(place: Place) -> dict[str, str]:
    made = user(place)
    place.asked(f"/admin/users/{made['user']}/disable")
    return made


def locked_user(place: Place) -> dict[str, str]:
    """Somebody has tried wrong passwords."""
    made = user(place)
    wrong = {"name": made["name"], "password": "not this one"}
    for _ in range(5):
        place.site.service.request("POST", "/admin/session", json=wrong)
    return made


def first_key(place: Place) -> dict[str, str]:
    return {"token": place.site.service.key}


# The verbs ----------------------------------------------------------------------------------------------

FAXES = {
    "POST /admin/ui/faxes/search": Verb(
        "faxes", ({"Number": "+15550100000"}, "Find"), "Only faxes to one number"
    ),
    "POST /admin/ui/faxes/<fax_id>/hold": Verb("faxes/<fax>", ("Hold",), "Held. It waits", planned),
    "POST /admin/ui/faxes/<fax_id>/send-now": Verb(
        "faxes/<fax>", ("Send now",), "as soon as a worker is free", planned
    ),
    "POST /admin/ui/faxes/<fax_id>/resend": Verb(
        "faxes/<fax>", ("Send once more", "Send it"), "Sent anew of", delivered
    ),
    "POST /admin/ui/needs-you/ask": Verb(
        "needs-you", (re.compile("^Cancel (it|all)$"),), re.compile(r"Cancel \d+ fax"), held
    ),
    "POST /admin/ui/inbound/<inbound_id>/fetch": Verb(
        "inbound/<inbound>", ("Try once more",), "Its document is tried to be had once more.", lost
    ),
    "POST /admin/ui/inbound/<inbound_id>/give-up": Verb(
        "inbound/<inbound>", ("Give up",), "Given up", waiting
    ),
    "POST /admin/ui/inbound/<inbound_id>/read": Verb(
        "inbound/<inbound>", ("Mark as read",), "Marked as read.", received
    ),
    "POST /admin/ui/inbound/<inbound_id>/unread": Verb(
        "inbound/<inbound>", ("Mark as unread",), "Marked as unread.", read
    ),
    "POST /admin/ui/inbound/<inbound_id>/link": Verb(
        "inbound/<inbound>", ("Make a link that expires",), "A link to the document", received
    ),
    "POST /admin/ui/inbound/<inbound_id>/hold": Verb(
        "inbound/<inbound>",
        ("Hold it", {"Why must it be kept?": "a court asks"}, "Hold it"),
        "“a court asks”",
        received,
    ),
    "POST /admin/ui/inbound/<inbound_id>/lift": Verb(
        "inbound/<inbound>", ("Lift this hold",), "Holds no longer", kept
    ),
    "POST /admin/ui/setup/first": Verb(
        "setup/first",
        (
            {"API key": "<token>", "Your name": "Ada", "Your password": ANOTHER},
            "Make the administrator and sign in",
        ),
        "1. Who sends the faxes",
        first_key,
        None,
    ),
    "POST /admin/ui/setup/test": Verb(
        "setup?provider=simulator", ("Test the connection",), "Nothing is saved yet"
    ),
    "POST /admin/ui/setup/save": Verb(
        "setup?provider=simulator", ("Save, and send with it",), "Saved: Simulator"
    ),
    "POST /admin/ui/setup/fax": Verb(
        "setup", ({"Number": "+15550100000"}, "Send a test page"), "What happened"
    ),
    "POST /admin/ui/diagnostics/test-fax": Verb(
        "diagnostics",
        ("Send a test fax", {"Number": "+15550100000"}, "Send it"),
        "What happened",
    ),
    "POST /admin/ui/webhooks/<webhook_id>": Verb(
        "webhooks/<webhook>",
        ("Change", {"What is it for?": "billing"}, "Change it"),
        "billing",
        webhook,
    ),
    "POST /admin/ui/webhooks/<webhook_id>/rotate": Verb(
        "webhooks/<webhook>", ("New secret", "Make the new secret"), "whsec_", webhook
    ),
    "POST /admin/ui/webhooks/<webhook_id>/ask": Verb(
        "webhooks/<webhook>/deliveries",
        ("Send all that match again",),
        re.compile(r"Send \d+ deliver"),
        delivery,
    ),
    "POST /admin/ui/webhooks/<webhook_id>/replay": Verb(
        "webhooks/<webhook>/deliveries",
        ("Send all that match again", "Send them again"),
        "Sent again: ",
        delivery,
    ),
    "POST /admin/ui/webhooks/deliveries/<delivery_id>/replay": Verb(
        "webhooks/deliveries/<delivery>", ("Send it again",), "It is sent again", delivery
    ),
}
"""Of faxes, of those who hear of them, and what sends one to try."""

SERVICE = {
    "POST /admin/ui/providers/<provider_id>/test": Verb(
        "providers/simulator", ("Test connection",), "The connection works."
    ),
    "POST /admin/ui/providers/<provider_id>/reset": Verb(
        "providers/simulator",
        ("Close its breaker", WHY, "Close it"),
        "Its breaker is closed",
        refused,
    ),
    "POST /admin/ui/plugins/<plugin_id>/settings": Verb(
        "plugins/email", ({"To": "ward@example.org", **WHY}, "Test and save"), "Saved."
    ),
    "POST /admin/ui/plugins/<plugin_id>/enable": Verb(
        "plugins/phaxio", ("Enable it again", WHY, "Enable"), "Enabled: it is", broken_plugin
    ),
    "POST /admin/ui/plugins/<plugin_id>/activate": Verb(
        "plugins/email", ("Activate", WHY, "Activate"), "Active for notification"
    ),
    "POST /admin/ui/plugins/<plugin_id>/deactivate": Verb(
        "plugins/email",
        ("Deactivate", WHY, "Deactivate"),
        "Not active for notification any more",
        telling,
    ),
    "POST /admin/ui/notifications/<plugin_id>/test": Verb(
        "notifications", ("Send a test notice",), "The test notice was sent"
    ),
    "POST /admin/ui/settings/<name>/unset": Verb(
        "settings", ("Change FAX_HEADER", WHY, "Take back"), "Taken back", saved
    ),
    "POST /admin/ui/settings/versions": Verb(
        "settings/versions",
        ("Keep what is saved now", {"A name for it": "before the move"}, "Keep it"),
        "Kept: it stays",
        saved,
    ),
    "POST /admin/ui/settings/versions/<version>": Verb(
        "settings/versions",
        ("Compare version <version> with now", WHY, "Do it"),
        "Gone back; this is version",
        saved,
    ),
    "POST /admin/ui/settings/import/compare": Verb(
        "settings",
        ("Import", {"Its text": "<document>"}, "Show what would change"),
        "Riverside",
        exported,
    ),
    "POST /admin/ui/settings/import": Verb(
        "settings",
        ("Import", {"Its text": "<document>"}, "Show what would change", WHY, "Do it"),
        "Saved.",
        exported,
    ),
    "POST /admin/ui/keys/<key_id>/rotate": Verb(
        "keys/<key>", ("New secret", "Make the new secret"), "The new token of pharmacy", key
    ),
    "POST /admin/ui/keys/<key_id>/expire": Verb(
        "keys/<key>",
        ("Change when it ends", {"At the beginning": f"{ahead(30):.10}"}, "Change it"),
        "Changed.",
        key,
    ),
    "POST /admin/ui/keys/<key_id>/revoke": Verb(
        "keys/<key>", ("Revoke", "Revoke it"), "It has ended for good", key
    ),
    "POST /admin/ui/users": Verb(
        "users",
        (
            "Make a user",
            {"Name to sign in with": "Kim", "viewer": "yes", "Password": ANOTHER},
            "Make it",
        ),
        "Made. He can sign in",
    ),
    "POST /admin/ui/users/<user_id>/role": Verb(
        "users/<user>",
        ("Change the role", {"operator": "yes"}, "Change it"),
        "It holds from his next request on",
        user,
    ),
    "POST /admin/ui/users/<user_id>/password": Verb(
        "users/<user>",
        ("New password", {"New password": ANOTHER}, "Change it"),
        "All of his sessions have ended",
        user,
    ),
    "POST /admin/ui/users/<user_id>/disable": Verb(
        "users/<user>", ("Disable", "Disable"), "Let in again", user
    ),
    "POST /admin/ui/users/<user_id>/enable": Verb(
        "users/<user>", ("Let in again",), "He can sign in again", disabled_user
    ),
    "POST /admin/ui/users/<user_id>/unlock": Verb(
        "users/<user>", ("Unlock",), "The next password counts at once", locked_user
    ),
    "POST /admin/ui/account/password": Verb(
        "account",
        ({"Present password": PASSWORD, "New password": ANOTHER}, "Change it"),
        "Wherever else you were signed in",
        role=VIEWER,
    ),
    "POST /admin/ui/audit/verify": Verb("audit", ("Verify the trail",), "As it was written"),
    "POST /admin/ui/retention/look": Verb(
        "retention", ("What would be removed?",), "A run would remove"
    ),
    "POST /admin/ui/retention/run": Verb(
        "retention", ("Run now", "Remove it"), "A worker works on it"
    ),
    "POST /admin/ui/terminal": Verb(
        "terminal", ({"faxbot": "plugins list"}, re.compile("^Run")), "faxbot plugins list: done"
    ),
}
"""Of carriers and of the service itself."""

CLICKED_IN = {
    "POST /admin/ui/sign-in": "test_a_wrong_password_is_told_where_it_was_typed_and_the_right_one_leads_on",
    "POST /admin/ui/sign-out": "test_what_was_typed_outlives_the_session",
    "POST /admin/ui/send": "test_a_fax_is_sent_by_its_form_and_its_page_follows_it_to_its_end",
    "POST /admin/ui/faxes/ask": "test_many_are_cancelled_at_once_and_how_many_is_said_before",
    "POST /admin/ui/faxes/do": "test_many_are_cancelled_at_once_and_how_many_is_said_before",
    "POST /admin/ui/faxes/<fax_id>/cancel": "test_a_scheduled_fax_is_cancelled_once_its_dialog_is_answered",
    "POST /admin/ui/faxes/<fax_id>/release": "test_a_held_fax_is_released_where_it_is_said_that_it_waits",
    "POST /admin/ui/faxes/<fax_id>/decide": "test_what_became_of_an_uncertain_fax_is_decided_with_a_reason",
    "POST /admin/ui/webhooks": "test_a_webhook_is_made_tried_and_active",
    "POST /admin/ui/webhooks/<webhook_id>/test": "test_a_webhook_is_made_tried_and_active",
    "POST /admin/ui/webhooks/<webhook_id>/delete": "test_a_webhook_is_made_tried_and_active",
    "POST /admin/ui/keys": "test_a_key_is_made_and_its_token_is_shown_this_once",
    "POST /admin/ui/settings/<name>": "test_a_setting_is_changed_and_says_where_its_value_comes_from",
    "POST /admin/ui/providers/<provider_id>/pause": "test_a_provider_is_paused_and_resumed",
    "POST /admin/ui/providers/<provider_id>/resume": "test_a_provider_is_paused_and_resumed",
}
"""By which test of test_console_deeds.py; it fails where it does not send them."""
