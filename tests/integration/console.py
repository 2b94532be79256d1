"""What the tests of the console share: who may use which page, and how a page, a deed and a failure look."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from typing import Any

from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from faxbot.web.auth import OPEN, SESSION
from faxbot.web.console.frame import POLICY

CONSOLE = {
    "GET /admin/ui/static/<name>": OPEN,
    "GET /admin/ui/sign-in": OPEN,
    "POST /admin/ui/sign-in": OPEN,
    "POST /admin/ui/sign-out": SESSION,
    "GET /admin/ui/": "fax:read",
    "GET /admin/ui/fitness": "operate",
    "GET /admin/ui/faxes": "fax:read",
    "POST /admin/ui/faxes/search": "fax:read",
    "POST /admin/ui/faxes/ask": "fax:send",
    "POST /admin/ui/faxes/do": "fax:send",
    "GET /admin/ui/faxes/<fax_id>": "fax:read",
    "POST /admin/ui/faxes/<fax_id>/cancel": "fax:send",
    "POST /admin/ui/faxes/<fax_id>/release": "fax:send",
    "POST /admin/ui/faxes/<fax_id>/decide": "operate",
    "POST /admin/ui/faxes/<fax_id>/hold": "fax:send",
    "POST /admin/ui/faxes/<fax_id>/send-now": "fax:send",
    "POST /admin/ui/faxes/<fax_id>/resend": "fax:send",
    "GET /admin/ui/faxes/<fax_id>/evidence": "operate",
    "GET /admin/ui/faxes/<fax_id>/pages/<number>/preview": "fax:read",
    "GET /admin/ui/inbound": "inbound:list",
    "GET /admin/ui/inbound/<inbound_id>": "inbound:read",
    "POST /admin/ui/inbound/<inbound_id>/fetch": "inbound:read",
    "POST /admin/ui/inbound/<inbound_id>/give-up": "inbound:read",
    "POST /admin/ui/inbound/<inbound_id>/read": "inbound:read",
    "POST /admin/ui/inbound/<inbound_id>/unread": "inbound:read",
    "POST /admin/ui/inbound/<inbound_id>/link": "inbound:read",
    "POST /admin/ui/inbound/<inbound_id>/hold": "admin",
    "POST /admin/ui/inbound/<inbound_id>/lift": "admin",
    "GET /admin/ui/webhooks": "webhooks:manage",
    "POST /admin/ui/webhooks": "webhooks:manage",
    "GET /admin/ui/webhooks/<webhook_id>": "webhooks:manage",
    "POST /admin/ui/webhooks/<webhook_id>": "webhooks:manage",
    "POST /admin/ui/webhooks/<webhook_id>/test": "webhooks:manage",
    "POST /admin/ui/webhooks/<webhook_id>/rotate": "webhooks:manage",
    "POST /admin/ui/webhooks/<webhook_id>/delete": "webhooks:manage",
    "GET /admin/ui/webhooks/<webhook_id>/deliveries": "webhooks:manage",
    "POST /admin/ui/webhooks/<webhook_id>/ask": "webhooks:manage",
    "POST /admin/ui/webhooks/<webhook_id>/replay": "webhooks:manage",
    "GET /admin/ui/webhooks/deliveries/<delivery_id>": "webhooks:manage",
    "POST /admin/ui/webhooks/deliveries/<delivery_id>/replay": "webhooks:manage",
    "GET /admin/ui/notifications": "operate",
    "POST /admin/ui/notifications/<plugin_id>/test": "operate",
    "GET /admin/ui/keys": "keys:manage",
    "POST /admin/ui/keys": "keys:manage",
    "GET /admin/ui/keys/<key_id>": "keys:manage",
    "POST /admin/ui/keys/<key_id>/rotate": "keys:manage",
    "POST /admin/ui/keys/<key_id>/expire": "keys:manage",
    "POST /admin/ui/keys/<key_id>/revoke": "keys:manage",
    "GET /admin/ui/users": "admin",
    "POST /admin/ui/users": "admin",
    "GET /admin/ui/users/<user_id>": "admin",
    "POST /admin/ui/users/<user_id>/role": "admin",
    "POST /admin/ui/users/<user_id>/password": "admin",
    "POST /admin/ui/users/<user_id>/disable": "admin",
    "POST /admin/ui/users/<user_id>/enable": "admin",
    "POST /admin/ui/users/<user_id>/unlock": "admin",
    "GET /admin/ui/account": SESSION,
    "POST /admin/ui/account/password": SESSION,
    "GET /admin/ui/audit": "admin",
    "POST /admin/ui/audit/verify": "admin",
    "GET /admin/ui/audit/export/<form>": "admin",
    "GET /admin/ui/faxes/<fax_id>/decide": "operate",
    "GET /admin/ui/needs-you": "fax:read",
    "POST /admin/ui/needs-you/ask": "fax:send",
    "GET /admin/ui/setup/first": OPEN,
    "POST /admin/ui/setup/first": OPEN,
    "GET /admin/ui/setup": "admin",
    "POST /admin/ui/setup/test": "admin",
    "POST /admin/ui/setup/save": "admin",
    "POST /admin/ui/setup/fax": "admin",
    "GET /admin/ui/send": "fax:send",
    "POST /admin/ui/send": "fax:send",
    "GET /admin/ui/providers": "operate",
    "GET /admin/ui/providers/<provider_id>": "operate",
    "POST /admin/ui/providers/<provider_id>/test": "operate",
    "POST /admin/ui/providers/<provider_id>/pause": "operate",
    "POST /admin/ui/providers/<provider_id>/resume": "operate",
    "POST /admin/ui/providers/<provider_id>/reset": "operate",
    "GET /admin/ui/plugins": "admin",
    "GET /admin/ui/plugins/<plugin_id>": "admin",
    "POST /admin/ui/plugins/<plugin_id>/settings": "admin",
    "POST /admin/ui/plugins/<plugin_id>/enable": "admin",
    "POST /admin/ui/plugins/<plugin_id>/activate": "admin",
    "POST /admin/ui/plugins/<plugin_id>/deactivate": "admin",
    "GET /admin/ui/settings": "admin",
    "GET /admin/ui/settings/<name>/edit": "admin",
    "POST /admin/ui/settings/<name>": "admin",
    "POST /admin/ui/settings/<name>/unset": "admin",
    "GET /admin/ui/settings/versions": "admin",
    "POST /admin/ui/settings/versions": "admin",
    "GET /admin/ui/settings/versions/<version>": "admin",
    "POST /admin/ui/settings/versions/<version>": "admin",
    "GET /admin/ui/settings/export": "admin",
    "POST /admin/ui/settings/import/compare": "admin",
    "POST /admin/ui/settings/import": "admin",
    "GET /admin/ui/retention": "operate",
    "POST /admin/ui/retention/look": "admin",
    "POST /admin/ui/retention/run": "admin",
    "GET /admin/ui/diagnostics": "admin",
    "GET /admin/ui/diagnostics/findings": "admin",
    "GET /admin/ui/diagnostics/bundle": "admin",
    "POST /admin/ui/diagnostics/test-fax": "admin",
}
"""Who may use which page and deed. A new one is a decision: it is made here too."""
FILES = frozenset(
    {
        "GET /admin/ui/settings/export",
        "GET /admin/ui/diagnostics/bundle",
        "GET /admin/ui/faxes/<fax_id>/pages/<number>/preview",
    }
)
"""Those of them that are no pages: a browser keeps what they answer, or shows it as a picture."""
BY_SCRIPT = {"HX-Request": "true"}


def page(client: FlaskClient, path: str, status: int = 200) -> str:
    """A page's HTML; it is whole, under the pages' policy, and nothing in it runs or is styled in place."""
    answer = client.get(path)
    assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert_still(answer.text)
    return answer.text


class _Still(HTMLParser):
    """Fails at the first tag that runs or styles something in place."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag != "style"
        assert "hx-post" not in given or tag != "form" or given.get("method") == "post", (
            "where the script is late its fields would stand in an address"
        )
        assert tag != "script" or given.get("src", "").startswith("/admin/ui/static/")  # type: ignore[union-attr]
        for name, value in attrs:
            assert not name.startswith(("on", "hx-on")), (tag, name)
            assert name != "style", tag
            assert not (value or "").strip().lower().startswith("javascript:"), (tag, name)


def assert_still(text: str) -> None:
    """No script, handler or style stands in the page itself."""
    _Still().feed(text)


def shown_once(answer: TestResponse) -> str:
    """What a dialog shows this once: it is opened whatever the form would fill, and kept by nobody on the way."""
    assert answer.status_code == 200, answer.text[:800]
    assert answer.headers["HX-Retarget"] == "#shown"
    assert answer.headers["Cache-Control"] == "no-store"
    found = re.search(r'id="once-value"[^>]*>([^<]*)<', answer.text)
    assert found is not None
    return html.unescape(found[1])


def deed(
    client: FlaskClient, path: str, status: int = 204, /, **fields: str | list[str]
) -> TestResponse:
    """What a form of a page does when it is sent by script."""
    answer = client.post(path, data=fields, headers=BY_SCRIPT)
    assert answer.status_code == status, (path, answer.status_code, answer.text[:800])
    return answer


def said(answer: TestResponse) -> str:
    """What the page says when a deed is done."""
    told: dict[str, Any] = json.loads(answer.headers["HX-Trigger"])
    return str(told["done"]["sentence"])


def problem(answer: TestResponse, status: int, code: str) -> str:
    """It is a failure as a form shows it, of this kind; what it says."""
    assert answer.status_code == status, (answer.status_code, answer.text[:800])
    assert answer.content_type == "text/html; charset=utf-8"
    assert f'data-problem="{code}"' in answer.text
    assert "<html" not in answer.text
    return words(answer.text)


class _Fields(HTMLParser):
    """Collects what a browser would send of the forms of a page, untouched."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self._choosing: str | None = None
        self._options: list[tuple[bool, str]] = []
        self._text: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name")
        if tag == "input" and name and "disabled" not in given:
            ticks = given.get("type") in ("checkbox", "radio")
            if given.get("type") != "file" and (not ticks or "checked" in given):
                self.sent.append((name, given.get("value") or ""))
        elif tag == "select":
            self._choosing, self._options = name, []
        elif tag == "option":
            self._options.append(("selected" in given, given.get("value") or ""))
            self._text = None if "value" in given else ""
        elif tag == "textarea" and name:
            self.sent.append((name, ""))

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "option" and self._text is not None:
            self._options[-1], self._text = (self._options[-1][0], self._text), None
        if tag == "select" and self._choosing:
            chosen = [value for selected, value in self._options if selected]
            self.sent.append((self._choosing, (chosen or [self._options[0][1]])[0]))


def filled(text: str) -> MultiDict[str, str]:
    """What a browser sends of the fields in this HTML when nobody touches them."""
    fields = _Fields()
    fields.feed(text)
    return MultiDict(fields.sent)


def filtered_again(client: FlaskClient, text: str, **changes: str) -> str:
    """The list that a page's filters show when somebody presses the button beside them, after these changes."""
    form = next(each for each in text.split("<form") if "</select>" in each).partition("</form>")[0]
    found = re.search(r'action="([^"]*)"', form)
    assert found is not None
    sent = filled(form).to_dict(flat=False)
    for name, value in changes.items():
        sent[name] = [*sent.get(name, [""])[:-1], value]
    answer = client.get(found[1], query_string=sent)
    assert answer.status_code == 200, answer.text[:800]
    return answer.text


def words(text: str) -> str:
    """What a reader of this HTML reads."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
