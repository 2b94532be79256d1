"""The frame of every page: who may see it, what stands around it, how what a form sends comes in and how it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import flask
import marshmallow as ma
from flask import Response, request
from markupsafe import Markup
from marshmallow import fields
from werkzeug.datastructures import MultiDict

from faxbot import __version__, events, sessions, users
from faxbot.actors import SCOPES
from faxbot.config import BY_NAME
from faxbot.errors import InvalidFields, RequestError, Unauthenticated
from faxbot.web import auth, docs, problems, schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import files, mends

HOME = "/admin/ui/"
SIGN_IN = "/admin/ui/sign-in"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and do: nothing that is not this server's, and nothing that stands in the page itself."""

INSTANTS = {"since", "until", "ended_since", "expires_at"}
"""Fields of forms and addresses that are a time to the API, and for which a page asks a day."""
BY_LINK = {"tab", "status", "from_key", "to_key", "ended_since"}
"""Filters of lists that links set and no field of a form."""
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""All that <input type="date"> shows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the menu leads: a word, an address below HOME, the scope that it takes, under which heading, and what the
    page asks beside the scope."""

    word: str
    path: str
    scope: str
    heading: str = ""
    is_open: Callable[[], bool] = lambda: True

    def lets_in(self) -> bool:
        """Whether who looks at the page may go there now."""
        return may(self.scope) and self.is_open()


class Pages(flask.Blueprint):
    """A group of pages below HOME; each says who may see it, as each route does."""

    def __init__(self, name: str, import_name: str) -> None:
        super().__init__(f"console_{name}", import_name, url_prefix="/admin/ui")

    def page(self, path: str, *, access: str) -> Callable[[auth.View], auth.View]:
        """Declare the view below as a page."""
        return self._declare("GET", path, access)

    def deed(self, path: str, *, access: str) -> Callable[[auth.View], auth.View]:
        """Declare the view below as what a form of a page does."""
        return self._declare("POST", path, access)

    def _declare(self, method: str, path: str, access: str) -> Callable[[auth.View], auth.View]:
        def declare(view: auth.View) -> auth.View:
            self.add_url_rule(path, view.__name__, auth.needs(access)(view), methods=[method])
            return view

        return declare


# What comes in ------------------------------------------------------------------------------------------


def checked(schema: ma.Schema, values: MultiDict[str, str], *without: str) -> dict[str, Any]:
    """What a form or an address says, checked as the API checks the same; a field that was left empty was not given.
    Boxes to tick make a list; a hidden empty one beside them says that none is ticked. `without`: fields that are the
    page's own. Raises InvalidFields."""
    found: dict[str, Any] = {}
    for name, many in values.lists():
        if isinstance(schema.fields.get(name), fields.List):
            found[name] = [each for each in many if each.strip()]
            continue
        if len(many) > 1:
            raise InvalidFields(errors={name: ["It is given more than once."]})
        if many[0].strip() and name not in without:
            found[name] = many[0]
    return schemas.load(schema, found)


def days(values: MultiDict[str, str]) -> MultiDict[str, str]:
    """The same with a time in the place of each day that <input type="date"> gives: its first moment in UTC, or, of
    `until`, the first of the next day, so that the day itself is within. What is given twice stays so."""
    found = values.copy()
    for name in (each for each in INSTANTS if len(values.getlist(each)) == 1):
        try:
            day = date.fromisoformat(found[name].strip())
            later = timedelta(days=1 if name == "until" else 0)
            found[name] = datetime.combine(day + later, time(), UTC).isoformat()
        except (ValueError, OverflowError):
            continue  # a time, or nothing that the schema takes
    return found


def asked() -> MultiDict[str, str]:
    """What stands in this page's address. A form of filters sends a time that a link has set along, beside its field
    for a day (words.day): a day that somebody chose there counts instead."""
    found = request.args.copy()
    for name in INSTANTS & found.keys():
        given = [each for each in found.getlist(name) if each.strip()]
        chosen = [each for each in given if _DAY.fullmatch(each)]
        found.setlist(name, chosen if len(chosen) == 1 else given or [""])
    return found


def way_back() -> str:
    """Where somebody wanted to go before he signed in: a page of the console, and nothing else."""
    wanted = request.values.get("next", "")
    try:
        parts = urlsplit(wanted)
    except ValueError:  # what looks like an address of IPv6 and is none
        return HOME
    ours = not parts.scheme and not parts.netloc and parts.path.startswith(HOME)
    return wanted if ours and wanted.isprintable() and "\\" not in wanted else HOME


# What goes out ------------------------------------------------------------------------------------------


def show(template: str, status: int = 200, /, **view: Any) -> Response:
    """A page, or a part of one. It is not compressed: it holds the token that proves a form to be ours (BREACH)."""
    html = flask.render_template(f"console/{template}", **view)
    return Response(html, status, content_type="text/html; charset=utf-8")


def lead(path: str) -> Response:
    """Have the browser go to another page, also where a form was sent by script."""
    if "HX-Request" in request.headers:
        return Response(status=204, headers={"HX-Redirect": path})
    return Response(status=303, headers={"Location": path})


def done(*sentences: str | None) -> Response:
    """What a form asked for is done: the page says so, with what else there is to say, and shows how things stand
    now."""
    told = json.dumps({"done": {"sentence": " ".join(filter(None, sentences))}})
    return Response(status=204, headers={"HX-Trigger": told})


def reveal(title: str, sentence: str, value: str, **view: Any) -> Response:
    """What is shown this once, a token, a secret or a link, in a dialog; it stands in no address and is not kept."""
    answer = show("once.html", title=title, sentence=sentence, value=value, **view)
    return ask(answer)


def ask(dialog: Response) -> Response:
    """Open this dialog, whatever the form would fill with its answer."""
    dialog.headers["HX-Retarget"] = "#shown"
    return dialog


def download(body: bytes | Iterable[str], media_type: str, name: str) -> Response:
    """A file for the browser to keep under this name."""
    answer = Response(body, content_type=media_type)
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def filters(names: Iterable[str]) -> dict[str, str]:
    """Those of a list's filters that stand in its address, without wrong ones that no field shows: the form would send
    them once more."""
    given, wrong = asked(), _wrong()
    found = {name: given[name] for name in names if given.get(name)}
    return {name: value for name, value in found.items() if name not in wrong & _unseen(found)}


def _unseen(found: Mapping[str, str]) -> set[str]:
    """Which of these filters no field of the form shows."""
    times = {name for name in INSTANTS & found.keys() if not _DAY.fullmatch(found[name])}
    return BY_LINK | times


def times(found: Mapping[str, str]) -> dict[str, datetime]:
    """Those of a list's filters that are a time which no field shows: the page must say them."""
    known = days(MultiDict(found))
    shown = {}
    for name in sorted(INSTANTS & _unseen(found) & found.keys()):
        with suppress(ma.ValidationError):
            shown[name] = schemas.Instant().deserialize(known[name])
    return shown


def _wrong() -> frozenset[str]:
    """What mistaken() has said of the address."""
    found: frozenset[str] = flask.g.get("wrong_filters", frozenset())
    return found


def leaves(cursor: str | None, following: str | None) -> dict[str, str | None]:
    """Where a list that is shown from `cursor` on goes on, and where it begins; None where that is on the page."""
    return {
        "next": here(cursor=following) if following else None,
        "newest": here(cursor=None) if cursor else None,
    }


def here(**changes: Any) -> str:
    """The address of this page with other filters, without wrong ones; None takes one away."""
    pairs = {**asked().to_dict(), **dict.fromkeys(_wrong()), **changes}
    kept = {name: value for name, value in pairs.items() if value not in (None, "")}
    return request.path + ("?" + urlencode(kept, quote_via=quote) if kept else "")


def mistaken(error: RequestError) -> dict[str, Any]:
    """What a page shows in problem.html of an address that makes no sense, above the form in which that is mended; its
    links go without what is wrong."""
    flask.g.wrong_filters = frozenset(error.errors or ())
    known = problems.of_error(error)
    body = problems.body(known, flask.g.request_id, detail=error.detail, fields=error.errors)
    return _told(json.loads(body))


def _told(problem: dict[str, Any]) -> dict[str, Any]:
    code = problem["type"].rpartition("#")[2]
    known = problems.PROBLEMS.get(code)
    if known and problem["detail"] == known.mend:
        problem["detail"] = problem["title"]  # what mends it is said in words of pages
    return {"problem": problem, "code": code, "mend": mends.of(known)}


def finish(response: Response) -> Response:
    """What leaves below HOME: pages under their policy, and the one body of errors as people read it."""
    response.headers["Content-Security-Policy"] = POLICY
    # Without a referrer a browser names no origin either, and what a form sends does not look like ours any more.
    response.headers["Referrer-Policy"] = "same-origin"
    if response.mimetype != problems.MEDIA_TYPE:
        return response
    problem = json.loads(response.get_data())
    by_script = "HX-Request" in request.headers
    if problem["status"] == 401 and not by_script and request.method == "GET":
        back = quote(request.full_path.rstrip("?"))
        return Response(status=303, headers={"Location": f"{SIGN_IN}?next={back}"})
    shown = show("problem.html" if by_script else "error.html", problem["status"], **_told(problem))
    response.headers.pop("WWW-Authenticate", None)  # a browser would ask for a password by itself
    response.set_data(shown.get_data())
    response.content_type = shown.content_type
    return response


# What stands around -------------------------------------------------------------------------------------


def who() -> dict[str, Any] | None:
    """Who has signed in, as sessions.describe() says; None: nobody, where nobody needs to."""
    if "actor" not in flask.g or not (token := auth.session_token()):
        return None
    try:
        return sessions.describe(runtime(), token)
    except Unauthenticated:
        return None


def may(scope: str) -> bool:
    """Whether who looks at the page may do this."""
    return "actor" in flask.g and (scope not in SCOPES or actor().may(scope))


def called() -> dict[str, str]:
    """Names of users and keys by their ids, for who may know them."""
    if not may("admin"):
        return {}
    with runtime().database.reading() as session:
        return users.called(session, actor().account_id)


def furnish(app: flask.Flask, places: tuple[Place, ...]) -> None:
    """Give the templates what all of them use."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.template_filter("time")(_time)
    app.template_filter("marked")(docs.marked)
    app.jinja_env.globals.update(
        file=files.address,
        may=may,
        here=here,
        times=times,
        version=__version__,
        option_names=frozenset(BY_NAME),
        mended_at=lambda code: _way_to(places, mends.OF_ALARMS[code]),
        event_types=" ".join(events.Event),
    )

    @app.context_processor
    def around() -> dict[str, Any]:
        if not request.path.startswith(HOME):
            return {}
        return {
            "who": who(),
            "menu": _menu(places),
            "learn_more": _docs(),
            "flower": auth.process().config.flower_url if may("admin") else "",
        }


def _menu(places: tuple[Place, ...]) -> list[tuple[str, list[Place]]]:
    """The places that may be gone to, by heading."""
    open_to = [place for place in places if place.lets_in()]
    return [(heading, list(some)) for heading, some in groupby(open_to, lambda one: one.heading)]


def _way_to(places: tuple[Place, ...], path: str) -> tuple[str, str] | None:
    """What is at this address, a setting or a place of the menu, and the address; None for who may not go there."""
    there, _, setting = path.partition("#")
    place = next(each for each in places if each.path == there)
    return (setting or place.word, path) if place.lets_in() else None


OWN_DOCS = {
    "": ("top", "The calls of the API"),
    "configuration": ("group-config", "The calls for settings"),
    "howto/add-a-provider": ("group-plugins", "The calls for plugins"),
    "howto/change-the-carrier": ("group-providers", "The calls for providers"),
    "notifications": ("group-notifications", "The calls for notifications"),
    "receiving": ("group-inbound", "The calls for received faxes"),
    "reliability": ("statuses", "What the states mean"),
    "retention": ("group-retention", "The calls for retention"),
    "security": ("keys", "Keys and scopes"),
    "webhooks": ("group-webhooks", "The calls for webhooks"),
}
"""By page of the documentation: which part of this server's own /docs says most of the same, and what that is."""


def _docs() -> Callable[[str, str], Markup]:
    base = auth.process().config.docs_base_url.rstrip("/")

    def learn_more(page: str, words: str) -> Markup:
        """A link to a page of the documentation, where DOCS_BASE_URL says where that stands; else to what this server
        has of it itself, and it says so."""
        anchor, own_words = OWN_DOCS[page]
        address, shown = (f"{base}/{page}", words) if base else (f"/docs#{anchor}", own_words)
        return Markup('<a href="{}">{}</a>').format(address, shown)

    return learn_more


def _time(at: str | datetime | None) -> Markup:
    """A time as people read it: UTC in the page, their own zone once a script has seen it."""
    if at is None:
        return Markup('<span class="text-body-secondary">-</span>')
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S} UTC</time>').format(
        moment.isoformat(), moment
    )
