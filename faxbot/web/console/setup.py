"""Set faxbot up: the first administrator, while there is none; then a provider, its settings, a test page and what
security demands. The questions, and what comes of the answers, are those of `faxbot setup`."""

from __future__ import annotations

import secrets
from typing import Any

import marshmallow as ma
from flask import Response, request
from marshmallow import fields, validate

from faxbot import catalogue, passwords, production, questions
from faxbot import setup as settings_up
from faxbot.errors import InvalidFields, NotFound
from faxbot.questions import UNTESTED, Standing
from faxbot.web import auth, idempotency
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame, schema_form

pages = frame.Pages("setup", __name__)
_NOTE = "set up in the console"


class _First(ma.Schema):
    """Who becomes the first administrator, and the key that proves it."""

    key = fields.String(required=True, validate=validate.Length(1, 512))
    name = fields.String(required=True, validate=validate.Length(1, 255))
    password = fields.String(required=True, validate=validate.Length(1, 1024))


@pages.page("/setup/first", access=auth.OPEN)
def ask_who_is_first() -> Response:
    """Make the first administrator, while there is no user."""
    if not settings_up.nobody_yet(runtime()):
        return frame.lead(frame.SIGN_IN)
    return frame.show("first.html", shortest=passwords.SHORTEST)


@pages.deed("/setup/first", access=auth.OPEN)
def make_first() -> Response:
    """Make him, and sign him in."""
    auth.must_be_ours()
    if not settings_up.nobody_yet(runtime()):
        raise NotFound("there is a user already: sign in, or have an administrator make you one")
    wish = frame.checked(_First(), request.form)
    login = settings_up.first_administrator(runtime(), auth.newcomer(), **wish)
    answer = frame.lead("/admin/ui/setup")
    auth.keep_session(answer, login.token)
    return answer


@pages.page("/setup", access="admin")
def show_steps() -> Response:
    """The steps, with the provider that is chosen, or the one that sends now."""
    standing = questions.begin(runtime(), actor())
    able = [each for each in catalogue.plugins(runtime(), actor())["items"] if _can_send(each)]
    active = runtime().config.provider_ids
    wanted = request.args.get("provider") or runtime().config.provider_id
    chosen = next((each for each in able if each["id"] == wanted), None)
    found: list[questions.Question] = []
    if chosen is not None:
        found = questions.everything(standing, chosen["id"])
    return frame.show(
        "setup.html",
        able=able,
        active=active,
        chosen=chosen,
        saved="saved" in request.args,
        settings=catalogue.settings(runtime(), chosen["id"]) if chosen else None,
        alone=next((each for each in found if each.key == "alone"), None),
        options=[each for each in found if each.key.startswith("options.")],
        advice=settings_up.advice(standing) if chosen and chosen["id"] in active else [],
        findings=[each.described() for each in production.of_config(runtime().config)],
        production=runtime().config.production,
        key=secrets.token_hex(16),
    )


def _can_send(plugin: dict[str, Any]) -> bool:
    return plugin["type"] == "transport" and "send_fax" in plugin["traits"]


@pages.deed("/setup/test", access="admin")
def test_connection() -> Response:
    """Ask the carrier whether it takes what is filled in; nothing is saved."""
    standing = questions.begin(runtime(), actor())
    found = settings_up.test(standing, actor(), _answers(standing))
    return frame.show("setup-tested.html", found=found)


@pages.deed("/setup/save", access="admin")
def save_provider() -> Response:
    """Save what is filled in, and have the provider send; its carrier is asked first."""
    standing = questions.begin(runtime(), actor())
    settings_up.save(standing, actor(), _answers(standing), note=_NOTE)
    return frame.lead(f"/admin/ui/setup?provider={request.form['provider']}&saved=yes")


def _answers(standing: Standing) -> dict[str, Any]:
    """The answers in the form, checked as those in a file are; raises InvalidFields."""
    form = request.form
    document: dict[str, Any] = {"provider": form.get("provider", ""), UNTESTED: UNTESTED in form}
    for question in questions.everything(standing, _known(standing, document["provider"])):
        if question.key.startswith("options.") and question.key in form:
            text = form[question.key].strip()
            if text != (question.value or ""):
                document[question.key] = text
        elif question.key == "alone":
            document["alone"] = "alone" in form
    plugin = catalogue.settings(runtime(), document["provider"])["settings"]
    for key, value in schema_form.wish(plugin, form).items():
        document[schema_form.FIELD + key] = "" if value is None else value
    return questions.read(standing, document)


def _known(standing: Standing, provider_id: str) -> str:
    (question, *_) = questions.questions(standing, {})
    if provider_id not in question.choices:
        raise InvalidFields(errors={"provider": ["Choose one of those that are shown."]})
    return provider_id


@pages.deed("/setup/fax", access="admin")
def send_test_fax() -> Response:
    """Send a test page to the number that was typed, through the provider that sends, and go to its page."""
    key = idempotency.parse(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    standing = questions.begin(runtime(), actor())
    number = request.form.get("test.to", "").strip()
    if not number:
        raise InvalidFields(errors={"test.to": ["A number is needed: with + and country code."]})
    answers = questions.read(standing, {"test.make": True, "test.to": number})
    fax_id = settings_up.send_test(standing, actor(), answers, key=key)
    return frame.lead(f"/admin/ui/faxes/{fax_id}")
