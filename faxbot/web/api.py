"""The API's frame: how a route is declared, how arguments come in, how answers and errors go out.

A view is declared by one operation() that says everything about it: addresses, who may use it, arguments, answers,
failures. Routing, checks and the OpenAPI document all come from that.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import flask_smorest
import marshmallow as ma
from flask import Response, g, send_file
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from faxbot.errors import (
    CsrfTokenWrong,
    DatabaseAway,
    FailedLogins,
    FaxbotError,
    Forbidden,
    InvalidFields,
    KeyInFlight,
    KeyMissing,
    Malformed,
    MediaTypeRefused,
    NotFound,
    RequestsPerMinute,
    StorageAway,
    TooMany,
    Unauthenticated,
)
from faxbot.web import auth, problems, schemas
from faxbot.web.problems import Problem

PNG = "image/png"
AWAY_RETRY_SECONDS = 5
KEY_RETRY_SECONDS = 1
CAUSES_LOGGED = 6

logger = logging.getLogger(__name__)
_TAG = re.compile(r"tag\[([^\]]*)\]")
Failure = type[FaxbotError] | Problem


# Arguments ----------------------------------------------------------------------------------------


class Arguments(FlaskParser):
    """Reads query strings and JSON bodies; what is wrong with them leaves as errors of our own tree."""

    def load_querystring(self, req: Any, schema: ma.Schema) -> dict[str, Any]:  # noqa: ARG002 - webargs asks so
        """Single values by name; `tag[name]=value` is collected under `tag`. Raises InvalidFields."""
        return _nested(req.args)

    def load_json(self, req: Any, schema: ma.Schema) -> Any:
        """The JSON of the body; raises Malformed, MediaTypeRefused."""
        if getattr(schema, "may_be_left_out", False) and not req.get_data():
            return {}
        if not req.is_json:
            raise MediaTypeRefused("This address takes application/json.")
        try:
            return json.loads(req.get_data())
        except (ValueError, RecursionError):  # not JSON, not UTF-8, 5,000 digits, 50,000 brackets
            raise Malformed("The body is not JSON.") from None

    def handle_error(
        self,
        error: Any,
        req: Any,  # noqa: ARG002 - webargs' signature
        schema: ma.Schema,
        **_: Any,
    ) -> NoReturn:
        (messages,) = error.messages.values()  # webargs puts them under their location
        raise InvalidFields(errors=schemas.field_errors(schema, messages)) from None


def _nested(pairs: MultiDict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs.items(multi=True):
        if name == "tag":
            raise InvalidFields(errors={"tag": ["A tag is written tag[name]=value."]})
        if name == "to":
            sentence = "A number does not belong into an address: use POST /fax/search."
            raise InvalidFields(errors={"to": [sentence]})
        match = _TAG.fullmatch(name)
        target, key = (values.setdefault("tag", {}), match[1]) if match else (values, name)
        if key in target:
            raise InvalidFields(errors={"query": ["A parameter is given more than once."]})
        target[key] = value
    return values


# Routes -------------------------------------------------------------------------------------------


class Blueprint(flask_smorest.Blueprint):
    """A group of routes, each declared by one operation()."""

    ARGUMENTS_PARSER = Arguments(unknown=ma.RAISE)

    def operation(
        self,
        method: str,
        *paths: str,
        access: str,
        answers: Mapping[int, Mapping[str, Any]],
        errors: Iterable[Failure] = (),
        query: ma.Schema | None = None,
        body: ma.Schema | None = None,
        in_background: bool = False,
        **doc: Any,
    ) -> Callable[[auth.View], auth.View]:
        """Declare the view below: its addresses, who may use it and how (see auth.needs), the schemas of its arguments,
        its answers by status (see answer()), how it fails beside what every such route can meet, and more for OpenAPI.
        """
        doc |= _parameters(doc.get("parameters"), query)
        failures = [*errors, *_always(method, access, query, body)]
        doc["responses"] = {**answers, **_failures(failures)}
        if access in _UNPROVEN:
            sentence = f"`{Unauthenticated.code}`: {_UNPROVEN[access]}"
            doc["responses"][401]["description"] = sentence
        if access not in auth.WITHOUT_KEY:
            schemes = ("Session",) if access == auth.SESSION else ("ApiKey", "Bearer", "Session")
            doc["security"] = [{scheme: [auth.scope_of(access)]} for scheme in schemes]
            if auth.scope_of(access) != access:
                doc["security"].append({})

        def declare(view: auth.View) -> auth.View:
            decorated = auth.needs(access, in_background=in_background)(view)
            for schema, location in ((query, "query"), (body, "json")):
                if schema is not None:
                    decorated = self.arguments(schema, location=location)(decorated)
            # flask-smorest's response() would dump each answer through a schema; views answer with bytes.
            for number, path in enumerate(paths):
                name = f"{view.__name__}_{number}" if number else view.__name__
                same = {"x-same-as": view.__name__} if number else {}
                documented = self.doc(operationId=name, **doc, **same)(decorated)
                self.route(path, methods=[method], endpoint=name)(documented)
            return decorated

        return declare


_UNPROVEN = {
    auth.SIGNATURE: "It is not proven that the carrier sent this.",
    auth.LINK: "The link is not one of ours, or its time is over.",
}


def path(name: str, sentence: str, example: str | None = None) -> dict[str, Any]:
    """A part of a route's address, for OpenAPI."""
    found: dict[str, Any] = {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": sentence,
    }
    return found if example is None else {**found, "example": example}


def file_answer(sentence: str, *media_types: str) -> dict[str, Any]:
    """A route that answers with a file of one of these types, for OpenAPI."""
    content = {"schema": {"type": "string", "format": "binary"}}
    return {"description": sentence, "content": dict.fromkeys(media_types, content)}


def text_answer(sentence: str, media_type: str) -> dict[str, Any]:
    """A route that answers with a text of this type, for OpenAPI."""
    return {"description": sentence, "content": {media_type: {"schema": {"type": "string"}}}}


def page_number(written: str) -> int:
    """The number of a page in an address, from 1; raises NotFound."""
    if not _PAGE.fullmatch(written):
        raise NotFound("pages are numbered from 1")
    return int(written)


_PAGE = re.compile(r"[1-9][0-9]{0,5}")


def opened(path: Path, media_type: str, *, name: str | None = None) -> Response:
    """The answer with a file that nobody keeps; `name`: it is to be saved under. Open, it outlives its folder until it
    is sent."""
    found = send_file(
        path.open("rb"),
        mimetype=media_type,
        as_attachment=name is not None,
        download_name=name,
    )
    found.headers["Cache-Control"] = "no-store"
    return found


def answer(
    schema: type[ma.Schema], sentence: str, *, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One way a route answers, for OpenAPI; `headers` maps a name to a sentence."""
    return {
        "description": sentence,
        "content": {"application/json": {"schema": schema}},
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in (headers or {}).items()
        },
    }


def _parameters(
    named: Sequence[Mapping[str, Any]] | None, query: ma.Schema | None
) -> dict[str, Any]:
    """What is named of an address together with what its query may have, for OpenAPI: flask-smorest lets the first take
    the place of the second."""
    return {"parameters": [*named, {"in": "query", "schema": query}]} if named and query else {}


def _always(method: str, access: str, query: object, body: object) -> list[Failure]:
    """What every route with such a method, access and arguments can meet."""
    found: list[Failure] = [problems.INTERNAL]
    if access != auth.OPEN:
        found += [DatabaseAway, Unauthenticated]
    if access not in auth.WITHOUT_KEY:
        found += [Forbidden, FailedLogins, RequestsPerMinute]
        found += [CsrfTokenWrong] if method != "GET" else []
    if query or body:
        found += [InvalidFields]
    if body:
        found += [Malformed, problems.REQUEST_TOO_LARGE, MediaTypeRefused]
    return found


def _failures(failures: Iterable[Failure]) -> dict[int, dict[str, Any]]:
    """The failures for OpenAPI, by status; one status may have several kinds."""
    kinds = {kind if isinstance(kind, Problem) else problems.RAISED[kind] for kind in failures}
    ordered = sorted(kinds, key=lambda problem: (problem.status, problem.code))
    return {
        status: {
            "description": " · ".join(f"`{kind.code}`: {kind.title}" for kind in same),
            **({"headers": _RETRY_AFTER} if status in (429, 503) else {}),
            "content": {problems.MEDIA_TYPE: {"schema": schemas.Problem}},
        }
        for status, group in groupby(ordered, key=lambda problem: problem.status)
        if (same := list(group))
    }


_RETRY_AFTER = {
    "Retry-After": {
        "description": "after so many seconds it may be sent again",
        "schema": {"type": "integer"},
    }
}


# Answers ------------------------------------------------------------------------------------------


def reply(body: bytes, status: int = 200) -> Response:
    """An answer whose body is JSON already."""
    return Response(body, status, mimetype="application/json")


def refused(error: HTTPException) -> AnyResponse:
    """The answer to what Flask refuses by itself: unknown address, wrong method, too long a body, and what nobody
    caught."""
    if error.code is None or error.code < 400:
        return error.get_response()
    problem = problems.of_status(error.code)
    detail = problems.UNREADABLE if problem.code == Malformed.code else None
    answer = _failed(problem, detail=detail)
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


def failed(error: FaxbotError) -> Response:
    """The answer to an error of ours."""
    problem = problems.of_error(error)
    if problem is problems.INTERNAL:
        log_failure(error)
        return _failed(problem)
    if isinstance(
        error, StorageAway
    ):  # what is wrong with it is the operator's to know, not the client's
        log_failure(error)
        answer = _failed(problem)
        answer.headers["Retry-After"] = str(AWAY_RETRY_SECONDS)
        return answer
    answer = _failed(problem, detail=error.detail, fields=getattr(error, "errors", None))
    if isinstance(error, Unauthenticated):
        answer.headers["WWW-Authenticate"] = auth.challenge()
    elif isinstance(error, KeyMissing):
        log_failure(error)
    elif isinstance(error, DatabaseAway):
        answer.headers["Retry-After"] = str(AWAY_RETRY_SECONDS)
    elif isinstance(error, KeyInFlight):
        answer.headers["Retry-After"] = str(KEY_RETRY_SECONDS)
    elif isinstance(error, TooMany):
        answer.headers["Retry-After"] = str(max(ceil(error.retry_after), 1))
    return answer


def unreadable(_error: Exception) -> Response:
    """The answer to a body that is framed wrongly (bad chunks), whoever read it: no fault of ours."""
    return _failed(problems.REFUSED[400], detail=problems.UNREADABLE)


def _failed(problem: Problem, **more: Any) -> Response:
    body = problems.body(problem, g.get("request_id", ""), **more)
    return Response(body, problem.status, mimetype=problems.MEDIA_TYPE)


def log_failure(error: BaseException) -> None:
    """Log what failed and where: kinds and places; no foreign message, which may hold what a client sent."""
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < CAUSES_LOGGED:
        ours = isinstance(cause, FaxbotError)  # they hold no PHI
        kinds.append(f"{type(cause).__name__}: {cause}" if ours else type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)
    logger.error(
        "request failed",
        extra={
            "request_id": g.get("request_id", ""),
            "exception": " from ".join(kinds),
            "trace": [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames
            ],
        },
    )
