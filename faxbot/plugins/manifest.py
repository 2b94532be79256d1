"""What a plugin says of itself: manifest.json, read and checked before any code of the plugin runs.

A manifest names the plugin, the contract it works with, its traits (TRAITS is every one there is;
docs/traits.md is compared with it by a test) and its settings as a flat JSON Schema that marks
secrets and names environment variables.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry

from faxbot.errors import ConfigError, PluginError
from faxbot.plugins import patterns
from faxbot.plugins.base import BASES

SCOPES = ("sandboxed", "trusted", "full_access")
"""From the least trust to the most."""

CORE_SECRETS = frozenset(
    {
        "API_KEY",
        "CELERY_BROKER_URL",
        "CONFIG_MASTER_KEY",
        "CONFIG_MASTER_KEY_PREVIOUS",
        "DATABASE_URL",
        "FAXBOT_API_KEY",
        "FLOWER_BASIC_AUTH",
        "REDIS_URL",
    }
)
"""Variables that no plugin is given (a test compares them with the secret options of faxbot.config)."""

MASK = "********"
"""Stands where a secret is set, whenever settings are shown."""


@dataclass(frozen=True, slots=True)
class Trait:
    """What a word in `traits` means. `value` describes what follows its colon (None: nothing does);
    `pattern` checks it; `methods` are those of the base class that a plugin with this trait must
    write; `readers` are the modules that ask for it (none: declared, and read by nothing yet)."""

    meaning: str
    value: str | None = None
    pattern: str = ""
    methods: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


TRAITS: Mapping[str, Trait] = MappingProxyType(
    {
        "send_fax": Trait(
            "sends faxes",
            methods=("send",),
            readers=("migration", "questions", "recall", "routing"),
        ),
        "status_callback": Trait(
            "the carrier calls back with news",
            methods=("verify_callback", "read_callback"),
            readers=("callbacks", "health", "oversight", "setup"),
        ),
        "status_lookup": Trait(
            "the carrier can be asked by tag and by its own id",
            methods=("look_up", "fetch"),
            readers=("asking",),
        ),
        "absence_is_proof": Trait(
            "what the look-up does not find was never accepted, so a new attempt is safe; "
            "without this trait the fax stays `uncertain`",
            readers=("followup", "recall"),
        ),
        "cancel": Trait(
            "a fax can be stopped after the carrier took it",
            methods=("cancel",),
            readers=("followup",),
        ),
        "fetches_document": Trait(
            "may fetch the document from a link of ours, instead of taking it",
            readers=("sending",),
        ),
        "gives_document": Trait(
            "its copy of a fax, sent or received, can be fetched from the carrier",
            methods=("document",),
            readers=("fetching",),
        ),
        "keeps_documents": Trait(
            "documents of received faxes lie on this machine until `taken()` says that they may go; "
            "`claim()` may make one its fax's own",
            methods=("taken",),
            readers=("callbacks", "purging"),
        ),
        "deletes_copy": Trait(
            "deletes its copy of a document when asked",
            methods=("delete_copy",),
            readers=("copies", "purging"),
        ),
        "listens": Trait(
            "holds a connection on which news arrives",
            methods=("listen", "read_callback"),
            readers=("hearing", "setup"),
        ),
        "ladder": Trait(
            "can be told how carefully to call (`step` of a fax)",
            "how many steps there are",
            r"[2-9]",
            readers=("ladder",),
        ),
        "confirms_pages": Trait(
            "the pages that it reports were confirmed one by one by the far end: a fax may be continued behind them",
            readers=("jobs", "ladder"),
        ),
        "inbound_supported": Trait("receives faxes too", readers=("oversight",)),
        "webhook_hmac": Trait("callbacks are proven by a signature", readers=("doctor",)),
        "webhook_basic_auth": Trait(
            "callbacks are proven by Basic credentials in their address",
            readers=("callbacks", "doctor", "oversight"),
        ),
        "proof_in_headers": Trait(
            "the headers of a callback prove it: `verify_callback()` is asked before the body is there, and a "
            "stranger's is never read",
            methods=("verify_callback",),
            readers=("callbacks",),
        ),
        "callback_secret": Trait(
            "the setting that callbacks are proven with: production does not start without it",
            "key of a setting",
            r"[a-zA-Z][a-zA-Z0-9]{0,59}",
            readers=("oversight",),
        ),
        "requires_ami": Trait("needs an Asterisk manager connection"),
        "requires_tiff": Trait("takes fax pages as TIFF only"),
        "sample_payload": Trait(
            "its package holds recorded callbacks for tests, in `sample_payloads/`"
        ),
        "accepts": Trait(
            "a document type it can send; the first one listed is preferred",
            "media type",
            r"[a-z]+/[a-z0-9][a-z0-9.+-]*",
            readers=("routing",),
        ),
        "webhook_path": Trait(
            "where its callbacks arrive",
            "path on this server",
            r"(/[A-Za-z0-9_-]+)+",
            readers=("oversight",),
        ),
        "verify_header": Trait(
            "the header that carries the proof; a request with it belongs to this plugin",
            "header name",
            r"[A-Za-z0-9-]+",
            readers=("callbacks", "doctor", "oversight"),
        ),
        "repeat_header": Trait(
            "the header that says which message this is: a signature of what it says, without a time. Two callbacks "
            "with the same value are one, however their bodies are framed; without this trait, two of one body",
            "header name",
            r"[A-Za-z0-9-]+",
            readers=("callbacks",),
        ),
        "env_fallback": Trait(
            "where the first variable is unset, the second is read",
            "VARIABLE=OTHER",
            r"[A-Z][A-Z0-9_]*=[A-Z][A-Z0-9_]*",
            readers=("plugins.manifest",),
        ),
        "basic_auth_env": Trait(
            "<value>_USER and <value>_PASS hold the Basic credentials of its callbacks",
            "variable prefix",
            r"[A-Z][A-Z0-9_]*",
            readers=("oversight",),
        ),
        "oauth2": Trait(
            "people sign in at an OAuth 2 or OpenID provider, to which their browser is sent",
            methods=("begin", "finish"),
            readers=("signin",),
        ),
        "saml": Trait(
            "people sign in at a SAML identity provider, to which their browser is sent",
            methods=("begin", "finish"),
        ),
        "ldap": Trait(
            "people's names and passwords are checked by a directory", methods=("authenticate",)
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that passed every check; mappings are not to be changed."""

    id: str
    name: str
    version: str
    api: str
    type: str
    traits: tuple[str, ...]
    required_scope: str
    config_schema: Mapping[str, Any]
    allowed_hosts: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    hipaa: Mapping[str, bool] = field(default_factory=dict)
    docs: Mapping[str, str] = field(default_factory=dict)

    def has(self, trait: str) -> bool:
        """Whether it declares `trait`, with or without a value."""
        return any(declared.partition(":")[0] == trait for declared in self.traits)

    def values(self, trait: str) -> tuple[str, ...]:
        """The values of a trait that takes one, in the manifest's order, e.g. of `accepts`."""
        parts = (declared.partition(":") for declared in self.traits)
        return tuple(value for name, _, value in parts if name == trait and value)

    def works_with(self, version: str) -> bool:
        """Whether `version` of the contract ("1.0") lies in the range of `api`."""
        return all(_compare(version, condition) for condition in self.api.split(","))

    def addresses(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Every http(s) address it may call: its hosts over https, and the addresses among its
        settings."""
        hosts = (f"https://{host}" for host in self.allowed_hosts)
        given = (
            settings.get(key)
            for key, rule in self.properties.items()
            if rule.get("format") == "uri"
        )
        return (*hosts, *(address for address in given if address))

    @property
    def properties(self) -> Mapping[str, Mapping[str, Any]]:
        """The rules of its settings, by key."""
        properties: Mapping[str, Mapping[str, Any]] = self.config_schema["properties"]
        return properties

    @property
    def secrets(self) -> frozenset[str]:
        """The keys of settings that are sealed at rest and masked when shown."""
        return frozenset(key for key, rule in self.properties.items() if rule.get("secret"))

    @property
    def variables(self) -> Mapping[str, tuple[str, ...]]:
        """By setting: the environment variables it is read from, in order."""
        fallbacks = dict(pair.split("=") for pair in self.values("env_fallback"))
        named = ((key, rule["env"]) for key, rule in self.properties.items() if "env" in rule)
        return {
            key: (name, fallbacks[name]) if name in fallbacks else (name,) for key, name in named
        }


def read(path: Path) -> Manifest:
    """The manifest in a file; raises PluginError with one sentence on what is wrong."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise PluginError("there is no manifest.json beside its module") from None
    except OSError as error:
        raise PluginError(f"its manifest.json cannot be read: {error.strerror}") from None
    return _checked(text)


@lru_cache(maxsize=64)  # a check takes 1 ms (measured); what a process forks has those that it made
def _checked(text: bytes) -> Manifest:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise PluginError("its manifest.json is not JSON") from None
    return parse(content)


def parse(content: Any) -> Manifest:
    """The manifest in decoded JSON; raises PluginError with one sentence on what is wrong."""
    fault = best_match(_SCHEMA.iter_errors(content))
    if fault is not None:
        raise PluginError(f"its manifest is wrong at {_place(fault)}: {_cut(fault.message)}")
    if content["type"] not in BASES:
        raise PluginError(f"its type {content['type']!r} is unknown (known: {', '.join(BASES)})")
    for trait in content["traits"]:
        _check_trait(trait)
    manifest = Manifest(
        id=content["id"],
        name=content["name"],
        version=content["version"],
        api=content["api"],
        type=content["type"],
        traits=tuple(content["traits"]),
        required_scope=content["requiredScope"],
        config_schema=content["configSchema"],
        allowed_hosts=tuple(content.get("allowedHosts", ())),
        categories=tuple(content.get("categories", ())),
        hipaa=content.get("hipaa", {}),
        docs=content.get("docs", {}),
    )
    _check_settings(manifest)
    return manifest


def settings(
    manifest: Manifest, environ: Mapping[str, str], saved: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The plugin's settings: those `saved`, by key, else as `environ` has them, typed, else defaults;
    raises ConfigError naming variables, never values. A saved key that this manifest does not know
    (any more) is left out."""
    return validated(manifest, standing(manifest, environ, saved))


def standing(
    manifest: Manifest, environ: Mapping[str, str], saved: Mapping[str, Any]
) -> dict[str, Any]:
    """The same as settings(), complete or not, and not checked."""
    defaults = {
        key: rule["default"] for key, rule in manifest.properties.items() if "default" in rule
    }
    known = {key: value for key, value in saved.items() if key in manifest.properties}
    return {**defaults, **given(manifest, environ), **known}


def given(manifest: Manifest, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that `environ` has, by key and typed, not checked."""
    found: dict[str, Any] = {}
    for key, names in manifest.variables.items():
        # An empty variable is an unset one, as everywhere in faxbot.
        text = next((environ[name] for name in names if environ.get(name)), None)
        if text is not None:
            found[key] = typed(manifest.properties[key], text)
    return found


def validated(manifest: Manifest, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with defaults, checked against configSchema; raises ConfigError naming settings,
    never values. JSON has one kind of number: 5.0 is the integer 5."""
    rules = manifest.properties
    complete = {key: rule["default"] for key, rule in rules.items() if "default" in rule}
    complete.update(values)
    for key, value in complete.items():
        whole = isinstance(value, float) and value.is_integer()
        if whole and rules.get(key, {}).get("type") == "integer":
            complete[key] = int(value)
    closed = {**manifest.config_schema, "additionalProperties": False}
    faults = dict.fromkeys(
        sentence
        for error in _validator(closed).iter_errors(complete)
        for sentence in _sentences(manifest, error, complete)
    )
    faults.update(dict.fromkeys(_in_clear(manifest, complete)))
    faults.update(dict.fromkeys(_unspeakable(manifest, complete)))
    if faults:
        raise ConfigError("; ".join(faults))
    return complete


def faults_of(manifest: Manifest, key: str, value: Any) -> list[str]:
    """What is wrong with one setting by itself, in words that follow its name and never hold the value."""
    alone = {key: int(value) if isinstance(value, float) and value.is_integer() else value}
    schema = {"type": "object", "properties": {key: manifest.properties[key]}}
    found = [
        *(
            sentence
            for error in _validator(schema).iter_errors(alone)
            for sentence in _sentences(manifest, error, alone)
        ),
        *_in_clear(manifest, alone),
        *_unspeakable(manifest, alone),
    ]
    return [each.removeprefix(f"{_label(manifest, key)} ") for each in dict.fromkeys(found)]


def _in_clear(manifest: Manifest, values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each address to which secrets and faxes would travel readable over foreign networks."""
    for key, rule in manifest.properties.items():
        address = values.get(key)
        if (
            rule.get("format") == "uri"
            and isinstance(address, str)
            and _FORMATS.conforms(address, "uri")
        ):
            parts = urlsplit(address)
            if parts.scheme == "http" and not _is_near(parts.hostname or ""):
                yield f"{_label(manifest, key)} must begin with https:// outside this machine's own network"


def _unspeakable(manifest: Manifest, values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each value that Python has and neither JSON nor a wire can carry."""
    for key in manifest.properties:
        value = values.get(key)
        if isinstance(value, str) and _SURROGATE.search(value):
            yield f"{_label(manifest, key)} is no text"
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{_label(manifest, key)} is no number"


_SURROGATE = re.compile("[\ud800-\udfff]")


def _is_near(host: str) -> bool:
    """Whether it is this machine, or one of its own network, as far as its name or address says."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.lower().endswith(_NEAR)


_NEAR = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".invalid", ".test")
"""Names that the public network does not have (RFC 6761, 6762, 8375; ICANN on `.internal`; `.lan` by use)."""


def masked(manifest: Manifest, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` fit to be shown: a secret that is set reads MASK."""
    return {
        key: MASK if key in manifest.secrets and value else value for key, value in values.items()
    }


def unmasked(manifest: Manifest, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the secrets that read MASK: these are to be left alone."""
    return {
        key: value
        for key, value in values.items()
        if not (key in manifest.secrets and value == MASK)
    }


_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("regex", raises=re.error)
def _is_pattern(value: object) -> bool:
    return not isinstance(value, str) or re.compile(value) is not None


@_FORMATS.checks("uri", raises=ValueError)
def _is_address(value: object) -> bool:
    """An http(s) address with a host; credentials do not belong in it, they would be shown and
    logged."""
    if not isinstance(value, str):
        return True
    parts = urlsplit(value)
    named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    return named and parts.username is None and not re.search(r"[\s?#\x00-\x20]", value)


def _whole(_: object, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    """The keyword `pattern`, asked of the whole text: Python's $ alone would let a line end pass."""
    if isinstance(value, str) and not patterns.match(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = cast(
    type[Draft202012Validator],
    extend(Draft202012Validator, {"pattern": _whole}),  # type: ignore[no-untyped-call]
)


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    # An empty registry: a schema that points elsewhere is never fetched.
    return _Validator(schema, registry=Registry(), format_checker=_FORMATS)


_SCHEMA = _validator(
    json.loads(
        resources.files("faxbot.plugins.schemas").joinpath("manifest.schema.json").read_bytes()
    )
)


def _place(fault: ValidationError) -> str:
    return ".".join(str(step) for step in fault.absolute_path) or "its top level"


def _cut(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:157]}..."


def _check_trait(declared: str) -> None:
    name, colon, value = declared.partition(":")
    trait = TRAITS.get(name)
    if trait is None:
        raise PluginError(f"its trait {_cut(name)!r} is unknown (docs/traits.md lists all)")
    if trait.value is None and colon:
        raise PluginError(f"its trait {name!r} takes no value")
    if trait.value is not None and not re.fullmatch(trait.pattern, value):
        raise PluginError(f"its trait {name!r} needs a {trait.value} after the colon")


def _check_settings(manifest: Manifest) -> None:
    """What the schema of schemas cannot say: required settings exist, and defaults pass their own
    rules."""
    rules = manifest.properties
    unknown = [key for key in manifest.config_schema.get("required", ()) if key not in rules]
    if unknown:
        raise PluginError(
            f"its configSchema requires {_cut(unknown[0])!r}, which is no property of it"
        )
    for key, names in manifest.variables.items():
        if taken := CORE_SECRETS.intersection(names):
            raise PluginError(f"its setting {key!r} asks for {min(taken)}, which is faxbot's own")
    for key, rule in rules.items():
        if "pattern" in rule and not patterns.is_quick(rule["pattern"]):
            raise PluginError(
                f"the pattern of its setting {key!r} may take too long: {patterns.RULE}"
            )
        if "default" in rule and not _validator(rule).is_valid(rule["default"]):
            raise PluginError(f"the default of its setting {key!r} breaks the setting's own rules")
        if "default" in rule and rule.get("secret"):
            raise PluginError(
                f"its setting {key!r} is a secret and has a default, which everybody could read"
            )


_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def typed(rule: Mapping[str, Any], text: str) -> Any:
    """`text` as the type of a setting; what cannot be one stays text, and validation says so."""
    kind = rule["type"]
    try:
        if kind == "integer":
            return int(text)
        if kind == "number" and math.isfinite(float(text)):
            return float(text)
    except ValueError:
        return text
    return _WORDS.get(text.strip().lower(), text) if kind == "boolean" else text


def _sentences(
    manifest: Manifest, error: ValidationError, values: Mapping[str, Any]
) -> Iterator[str]:
    """One broken rule in words that name the variable (or the setting, where it has none) and never
    hold the value."""
    if error.validator == "required":
        missing = (key for key in manifest.config_schema["required"] if key not in values)
        yield from (f"{_label(manifest, key)} is not set" for key in missing)
    elif error.validator == "additionalProperties":
        yield "a setting is given that this plugin does not have"
    else:
        label = _label(manifest, str(error.absolute_path[0]))
        yield f"{label} {_demand(str(error.validator), error.validator_value)}"


def _label(manifest: Manifest, key: str) -> str:
    return manifest.variables.get(key, (key,))[0]


def _demand(validator: str, value: Any) -> str:
    demands = {
        "type": f"must be {'an' if value == 'integer' else 'a'} {value}",
        "format": "must be an http or https address without credentials, query or fragment",
        "minimum": f"must be at least {value}",
        "maximum": f"must be at most {value}",
        "minLength": f"must have at least {value} characters",
        "maxLength": f"must have at most {value} characters",
        "pattern": f"must match {value} and have at most {patterns.LONGEST} characters",
    }
    if validator == "enum":
        return f"must be one of: {', '.join(str(choice) for choice in value)}"
    return demands.get(validator, "is not valid")


def _compare(version: str, condition: str) -> bool:
    """One comparison of `api`, e.g. ">=1": missing parts count as 0, so 1 and 1.0.0 are the same
    version."""
    operator = condition.rstrip("0123456789.")
    left, right = _numbers(version), _numbers(condition.removeprefix(operator))
    outcomes = {
        ">=": left >= right,
        "<=": left <= right,
        "==": left == right,
        ">": left > right,
        "<": left < right,
    }
    return outcomes[operator]


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))
