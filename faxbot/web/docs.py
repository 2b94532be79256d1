"""/openapi.json and /docs: the API's description for programs and, made from it, for people.

Both are made once per process, on first use. The page is plain HTML with one style sheet and no script, and needs no
outside network.
"""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import resources
from typing import Any

import flask
import flask_smorest
import marshmallow as ma
from flask import Flask, Response
from markupsafe import Markup, escape

from faxbot import __version__, actors, catalogue, events
from faxbot.config import Config
from faxbot.errors import PluginError
from faxbot.runtime import Runtime
from faxbot.web import auth, schemas
from faxbot.web.api import Blueprint
from faxbot.web.problems import MEDIA_TYPE, PROBLEMS

_ABOUT = (
    "Send faxes over HTTP and follow them until they are delivered. "
    "A fax that was answered with 202 is not lost, and is not sent twice by guessing."
)
_SAMPLE = "hello.txt"
_METHODS = ("get", "post", "put", "patch", "delete")
Json = dict[str, Any]


class Api(flask_smorest.Api):
    """flask-smorest with our one error body: it describes what the application serves, and serves nothing."""

    ERROR_SCHEMA = schemas.Problem
    DEFAULT_ERROR_RESPONSE_NAME = None  # every route names its failures

    def __init__(self, app: Flask, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.ma_plugin.converter.add_parameter_attribute_function(_tags_in_query)

    def _register_pagination_header(self) -> None:
        """None: pages are followed by cursor, and the document has no shape that nobody sends."""


def _tags_in_query(_converter: Any, field: ma.fields.Field[Any], **_: Any) -> dict[str, Any]:
    """OpenAPI's name for `tag[name]=value`."""
    return {"style": "deepObject", "explode": True} if isinstance(field, schemas.Tags) else {}


def description(config: Config, blueprints: Iterable[Blueprint]) -> Json:
    """The OpenAPI document. Measured: four fifths of what it takes to make the application, so it is made apart from
    it, when somebody asks."""
    about = {
        "title": "faxbot",
        "version": __version__,
        "openapi_version": "3.1.0",
        "info": {"description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": config.base_url}],
    }
    frame = Api(Flask(__name__, static_folder=None), spec_kwargs=about)
    for blueprint in blueprints:
        frame.register_blueprint(blueprint)
    for name, scheme in _security(config).items():
        frame.spec.components.security_scheme(name, scheme)
    made: Json = frame.spec.to_dict()
    return made


def _security(config: Config) -> dict[str, Json]:
    return {
        "ApiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "a key that `faxbot keys create` made",
        },
        "Bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "the same key as a bearer token",
        },
        "Session": {
            "type": "apiKey",
            "in": "cookie",
            "name": auth.cookie_name(config),
            "description": "what POST /admin/session sets; what changes something needs X-CSRF-Token too",
        },
    }


def publish(app: Flask, blueprints: Iterable[Blueprint], runtime: Runtime) -> None:
    """Serve /openapi.json, /docs and the page's style sheet; who comes to / with a browser looks for the console."""
    style = resources.files("faxbot.web.static").joinpath("docs.css").read_bytes()

    lock = threading.Lock()

    @cache
    def made() -> bytes:
        return json.dumps(description(runtime.config, blueprints), ensure_ascii=False).encode()

    def document() -> bytes:
        with lock:  # Python 3.11.2 crashes where two threads compile addresses at once
            return made()

    @cache
    def page() -> bytes:
        view = _view(json.loads(document()))
        return flask.render_template("docs.html", **view, more=_learn_more(runtime)).encode()

    _serve(app, "/openapi.json", document, "application/json")
    _serve(app, "/docs", page, "text/html; charset=utf-8")
    _serve(app, "/static/docs.css", lambda: style, "text/css; charset=utf-8")
    _lead(app, "/docs/", "/docs")
    _lead(app, "/", "/admin/ui/")
    app.add_template_filter(_inline, "inline")


def _serve(app: Flask, path: str, content: Callable[[], bytes], media_type: str) -> None:
    @auth.needs(auth.OPEN)
    def show() -> Response:
        return Response(content(), content_type=media_type, headers={"Cache-Control": "no-cache"})

    app.add_url_rule(path, endpoint=path, view_func=show)


def _lead(app: Flask, path: str, target: str) -> None:
    @auth.needs(auth.OPEN)
    def lead() -> Response:
        return Response(status=302, headers={"Location": target})

    app.add_url_rule(path, endpoint=path, view_func=lead)


def code(word: str) -> Markup:
    """A word of programs."""
    return Markup("<code>{}</code>").format(word)


def marked(text: str, code: Callable[[str], Markup] = code) -> Markup:
    """Escaped text, with `words` in backticks as code."""
    pieces = enumerate(re.split(r"`([^`]+)`", text))
    return Markup().join(code(piece) if odd % 2 else escape(piece) for odd, piece in pieces)


def _inline(text: str) -> Markup:
    """The same; the code of an error leads to its paragraph."""
    return marked(text, _code_or_error)


def _code_or_error(word: str) -> Markup:
    return (
        Markup('<a href="#{}">{}</a>').format(word, code(word)) if word in PROBLEMS else code(word)
    )


def _learn_more(runtime: Runtime) -> str | None:
    """Where the active provider's own page stands: its manifest's `docs.learnMore`, below DOCS_BASE_URL."""
    try:
        target = runtime.plugins.manifest(runtime.config.provider_id).docs.get("learnMore", "")
    except PluginError:
        return None
    return catalogue.learn_more(runtime, target)


# The page's contents ------------------------------------------------------------------------------


def _view(spec: Json) -> Json:
    """What the template shows: groups of operations, shapes of answers, errors."""
    schemas = spec["components"]["schemas"]
    operations = list(_operations(spec))
    return {
        "about": spec["info"]["description"],
        "version": spec["info"]["version"],
        "server": spec["servers"][0]["url"],
        "sample": _SAMPLE,
        "statuses": events.STATUS_MEANING,
        "scopes": {
            scope: meaning
            for scope, meaning in actors.SCOPES.items()
            if scope in {one["scope"] for one in operations}
        },
        "titles": {one["id"]: f"{one['method']} {one['path']}" for one in operations},
        "groups": [
            {
                "name": tag["name"],
                "description": tag["description"],
                "operations": [one for one in operations if one["group"] == tag["name"]],
            }
            for tag in spec["tags"]
        ],
        "shapes": [
            {
                "name": name,
                "description": schema.get("description", ""),
                "fields": _fields(schema),
            }
            for name, schema in schemas.items()
            if name not in _sent(spec)
        ],
        "problems": PROBLEMS.values(),
    }


def _operations(spec: Json) -> Iterator[Json]:
    for path, item in spec["paths"].items():
        for method in _METHODS:
            if method in item:
                yield _operation(path, method, item[method], spec)


def _operation(path: str, method: str, operation: Json, spec: Json) -> Json:
    media_type, body = _first(operation.get("requestBody", {}).get("content", {}))
    schema = _resolve(body.get("schema", {}), spec["components"]["schemas"])
    return {
        "id": operation["operationId"],
        "same_as": operation.get("x-same-as"),
        "group": operation["tags"][0],
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "scope": next(iter(operation.get("security", [{}])[0].values()), [None])[0],
        "parameters": [_parameter(parameter) for parameter in operation.get("parameters", [])],
        "media_type": media_type,
        "fields": _fields(schema),
        "answers": [_answer(status, one) for status, one in sorted(operation["responses"].items())],
        "curl": _curl(spec["servers"][0]["url"], path, method, operation, schema),
    }


def _parameter(parameter: Json) -> Json:
    return {
        "name": parameter["name"],
        "place": parameter["in"],
        "required": parameter.get("required", False),
        "type": _type(parameter["schema"]),
        "description": parameter.get("description", ""),
    }


def _answer(status: str, answer: Json) -> Json:
    media_type, content = _first(answer.get("content", {}))
    failed = media_type == MEDIA_TYPE
    return {
        "status": status,
        "description": answer["description"],
        "shape": "" if failed else _name(content.get("schema", {})),
        "failed": failed,
    }


def _sent(spec: Json) -> set[str]:
    """The shapes of requests; each is shown with its operation."""
    bodies = [
        operation.get("requestBody", {}).get("content", {})
        for item in spec["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    ]
    return {_name(one.get("schema", {})) for contents in bodies for one in contents.values()}


def _name(schema: Json) -> str:
    """The name of a shape that is referred to, empty for one that stands here."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _first(contents: Json) -> tuple[str, Json]:
    """The first media type of a body with what is said about it; empty when it has none."""
    return next(iter(contents.items()), ("", {}))


def _fields(schema: Json) -> list[Json]:
    return [
        {
            "name": name,
            "type": _type(field),
            "required": name in schema.get("required", []),
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _resolve(schema: Json, schemas: Json) -> Json:
    name = _name(schema)
    return schemas[name] if name else schema


def _type(field: Json) -> str:
    """A field's type and limits in a few words."""
    if "$ref" in field:
        return _name(field)
    if union := field.get("anyOf") or field.get("allOf"):
        return " or ".join(_type(one) for one in union)
    if "enum" in field:
        return " | ".join(f"`{value}`" for value in field["enum"] if value is not None)
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if field.get("format") == "binary":
        return "file"
    kinds = field.get("type", "any")
    words = kinds if isinstance(kinds, str) else " or ".join(kinds)
    return words.replace("string", "time") if "format" in field else words + _limits(field)


def _limits(field: Json) -> str:
    default = f", {json.dumps(field['default'])} when not given" if "default" in field else ""
    if "minimum" in field and "maximum" in field:
        return f", {field['minimum']} to {field['maximum']}{default}"
    if "maxLength" in field:
        return f", at most {field['maxLength']} characters{default}"
    return default


def _curl(server: str, path: str, method: str, operation: Json, schema: Json) -> str:
    """A command that works as it stands, once FAXBOT_API_KEY and, as the case may be, FAX_ID, KEY_ID, USER_ID or TOKEN
    are set."""
    address = server + path
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        value = str(parameter.get("example", f"${name.upper()}"))
        address = address.replace(f"{{{name}}}", value)
        if parameter["in"] == "query" and parameter.get("required"):
            address += f"{'&' if '?' in address else '?'}{name}=${name.upper()}"
    lines = ["curl"]
    if method != "get":
        lines[0] += f" -X {method.upper()}"
    lines += _curl_proof(method, operation)
    lines += _curl_body(operation, schema)
    lines[:2] = [" ".join(lines[:2])]
    return " \\\n  ".join([*lines, f'"{address}"' if "$" in address else address])


def _curl_proof(method: str, operation: Json) -> list[str]:
    """How the command shows who asks; a session is kept in a file by the command that begins it."""
    schemes = operation.get("security", [{}])[0]
    if "ApiKey" in schemes:
        return ['-H "X-API-Key: $FAXBOT_API_KEY"']
    if "Session" in schemes:
        return ["-b cookies.txt"] + ['-H "X-CSRF-Token: $CSRF_TOKEN"'] * (method != "get")
    begins = any("Set-Cookie" in one.get("headers", {}) for one in operation["responses"].values())
    return ["-c cookies.txt"] * begins


def _curl_body(operation: Json, schema: Json) -> list[str]:
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        key = '-H "Idempotency-Key: $(uuidgen)"'
        return [key, "-F to=+15550100000", f"-F file=@{_SAMPLE}"]
    if "application/json" in content:
        return _curl_json(
            {
                name: field.get("example")
                for name, field in schema["properties"].items()
                if name in schema.get("required", [])
            }
        )
    if "*/*" in content:
        proofs = [one for one in operation.get("parameters", ()) if one["in"] == "header"]
        headers = [f"-H {shlex.quote(one['name'] + ': ' + one['example'])}" for one in proofs]
        return [*headers, *_curl_json(content["*/*"]["example"])]
    return []


def _curl_json(value: Json) -> list[str]:
    return ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(value))}"]
