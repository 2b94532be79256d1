"""A manifest is read with distrust: what is wrong is said in one sentence, and settings never repeat a value."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import faxbot
from faxbot.errors import ConfigError, PluginError
from faxbot.plugins.manifest import MASK, Manifest, masked, parse, read, settings, validated

ROOT = Path(__file__).parents[2]
OURS = sorted(Path(faxbot.__file__).parent.glob("*/*/manifest.json"))

PHAXIO: dict[str, Any] = {
    "manifest_version": "1",
    "id": "phaxio",
    "name": "Phaxio",
    "version": "1.0.0",
    "api": ">=1,<2",
    "type": "transport",
    "traits": [
        "send_fax",
        "status_callback",
        "accepts:application/pdf",
        "accepts:image/tiff",
        "webhook_path:/callbacks/phaxio",
        "env_fallback:PHAXIO_API_SECRET=SINCH_API_SECRET",
    ],
    "requiredScope": "trusted",
    "allowedHosts": ["api.phaxio.com"],
    "configSchema": {
        "type": "object",
        "required": ["apiKey", "apiSecret"],
        "properties": {
            "apiKey": {
                "type": "string",
                "title": "API key",
                "secret": True,
                "env": "PHAXIO_API_KEY",
            },
            "apiSecret": {
                "type": "string",
                "secret": True,
                "minLength": 4,
                "env": "PHAXIO_API_SECRET",
            },
            "baseUrl": {"type": "string", "format": "uri", "env": "PHAXIO_BASE_URL"},
            "retries": {
                "type": "integer",
                "minimum": 0,
                "maximum": 5,
                "default": 3,
                "env": "PHAXIO_RETRIES",
            },
            "ratio": {"type": "number", "env": "PHAXIO_RATIO"},
            "test": {"type": "boolean", "default": False, "env": "PHAXIO_TEST"},
            "version": {
                "type": "string",
                "enum": ["v2", "v2.1"],
                "default": "v2.1",
                "env": "PHAXIO_VERSION",
            },
            "note": {"type": "string", "pattern": "^[a-z]*$", "maxLength": 5},
        },
    },
    "categories": ["outbound", "inbound"],
    "hipaa": {"compliant": True, "requiresBaa": True},
    "docs": {"learnMore": "/providers/phaxio"},
}
KEYS = {"PHAXIO_API_KEY": "the-key", "PHAXIO_API_SECRET": "the-secret"}


def changed(path: str, value: Any) -> dict[str, Any]:
    """PHAXIO with the value at a dotted path replaced."""
    content = copy.deepcopy(PHAXIO)
    *above, last = path.split(".")
    place = content
    for step in above:
        place = place[step]
    place[last] = value
    return content


@pytest.fixture
def phaxio() -> Manifest:
    return parse(PHAXIO)


def test_the_shipped_manifests_are_sound() -> None:
    assert {"simulator", "local"} <= {read(path).id for path in OURS}


def test_a_manifest_becomes_a_value(phaxio: Manifest) -> None:
    assert phaxio.required_scope == "trusted"
    assert phaxio.allowed_hosts == ("api.phaxio.com",)
    assert phaxio.hipaa == {"compliant": True, "requiresBaa": True}
    assert phaxio.secrets == {"apiKey", "apiSecret"}


def test_traits_are_asked_for_by_name_and_by_value(phaxio: Manifest) -> None:
    assert phaxio.has("status_callback")
    assert phaxio.has("accepts")
    assert not phaxio.has("cancel")
    assert phaxio.values("accepts") == ("application/pdf", "image/tiff")
    assert phaxio.values("verify_header") == ()
    assert phaxio.values("send_fax") == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "its manifest is wrong at its top level"),
        ({}, "is a required property"),
        (changed("manifest_version", "2"), "wrong at manifest_version"),
        (changed("id", "../etc"), "wrong at id"),
        (changed("id", "Phaxio"), "wrong at id"),
        (changed("version", "1"), "wrong at version"),
        (changed("api", "1"), "wrong at api"),
        (changed("api", ">=one"), "wrong at api"),
        (changed("type", "telegraph"), "its type 'telegraph' is unknown"),
        (changed("traits", ["flies"]), "its trait 'flies' is unknown"),
        (changed("traits", ["accepts"]), "needs a media type after the colon"),
        (changed("traits", ["accepts:pdf"]), "needs a media type after the colon"),
        (changed("traits", ["webhook_path:callbacks"]), "needs a path on this server"),
        (changed("traits", ["env_fallback:ONE"]), "needs a VARIABLE=OTHER"),
        (changed("traits", ["send_fax:often"]), "its trait 'send_fax' takes no value"),
        (changed("traits", ["send_fax", "send_fax"]), "wrong at traits"),
        (changed("requiredScope", "root"), "wrong at requiredScope"),
        (changed("allowedHosts", ["https://api.phaxio.com"]), "wrong at allowedHosts.0"),
        (changed("allowedHosts", ["*"]), "wrong at allowedHosts.0"),
        (changed("configSchema.type", "array"), "wrong at configSchema.type"),
        (
            changed("configSchema.properties.apiKey.type", "object"),
            "wrong at configSchema.properties.apiKey.type",
        ),
        (
            changed("configSchema.properties.apiKey.$ref", "http://127.0.0.1/"),
            "wrong at configSchema.properties.apiKey",
        ),
        (
            changed("configSchema.properties.apiKey.env", "phaxio"),
            "wrong at configSchema.properties.apiKey.env",
        ),
        (
            changed("configSchema.properties.note.pattern", "("),
            "wrong at configSchema.properties.note.pattern",
        ),
        (
            changed("configSchema.properties.retries.default", 9),
            "the default of its setting 'retries' breaks",
        ),
        (changed("configSchema.properties.apiKey.default", "x"), "is a secret and has a default"),
        (changed("configSchema.required", ["nothing"]), "requires 'nothing', which is no property"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place_and_the_reason(
    content: Any, reason: str
) -> None:
    with pytest.raises(PluginError) as refused:
        parse(content)
    assert reason in refused.value.detail
    assert len(refused.value.detail) < 300


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(content=_JSON)
def test_any_json_at_all_is_refused_and_never_a_crash(content: Any) -> None:
    with pytest.raises(PluginError):
        parse(content)


@given(key=st.sampled_from(sorted(PHAXIO)), value=_JSON)
def test_any_value_in_any_field_is_taken_or_refused_and_never_a_crash(key: str, value: Any) -> None:
    try:
        parse(changed(key, value))
    except PluginError:
        return


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (None, "there is no"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(
    tmp_path: Path, text: bytes | None, reason: str
) -> None:
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(PluginError, match=reason):
        read(path)


@pytest.mark.parametrize(
    ("api", "version", "works"),
    [
        (">=1,<2", "1.0", True),
        (">=1,<2", "1.9", True),
        (">=1,<2", "2.0", False),
        (">=1.1", "1.0", False),
        ("==1", "1.0.0", True),
        (">1", "1.0", False),
        (">1", "1.0.1", True),
        ("<=1.10", "1.9", True),
        ("<1.10", "1.9", True),
        ("<1.9", "1.10", False),
    ],
)
def test_the_api_range_is_compared_by_numbers(api: str, version: str, works: bool) -> None:
    assert parse(changed("api", api)).works_with(version) is works


def test_settings_come_typed_from_the_environment_with_defaults(phaxio: Manifest) -> None:
    found = settings(
        phaxio, {**KEYS, "PHAXIO_RETRIES": "5", "PHAXIO_RATIO": "0.5", "PHAXIO_TEST": "Yes"}
    )
    assert found == {
        "apiKey": "the-key",
        "apiSecret": "the-secret",
        "retries": 5,
        "ratio": 0.5,
        "test": True,
        "version": "v2.1",
    }


def test_an_empty_variable_is_an_unset_one_and_a_fallback_is_read_then(phaxio: Manifest) -> None:
    found = settings(
        phaxio, {"PHAXIO_API_KEY": "k", "PHAXIO_API_SECRET": "", "SINCH_API_SECRET": "theirs"}
    )
    assert found["apiSecret"] == "theirs"


@pytest.mark.parametrize(
    ("environ", "sentences"),
    [
        ({}, ["PHAXIO_API_KEY is not set", "PHAXIO_API_SECRET is not set"]),
        (
            {**KEYS, "PHAXIO_API_SECRET": "xyz"},
            ["PHAXIO_API_SECRET must have at least 4 characters"],
        ),
        ({**KEYS, "PHAXIO_RETRIES": "many"}, ["PHAXIO_RETRIES must be an integer"]),
        ({**KEYS, "PHAXIO_RETRIES": "9"}, ["PHAXIO_RETRIES must be at most 5"]),
        ({**KEYS, "PHAXIO_RETRIES": "-1"}, ["PHAXIO_RETRIES must be at least 0"]),
        ({**KEYS, "PHAXIO_RATIO": "nan"}, ["PHAXIO_RATIO must be a number"]),
        ({**KEYS, "PHAXIO_TEST": "perhaps"}, ["PHAXIO_TEST must be a boolean"]),
        ({**KEYS, "PHAXIO_VERSION": "v9"}, ["PHAXIO_VERSION must be one of: v2, v2.1"]),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(
    phaxio: Manifest, environ: dict[str, str], sentences: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(phaxio, environ)
    assert refused.value.detail.split("; ") == sentences


def test_what_json_brings_is_taken_as_what_it_means_or_named(phaxio: Manifest) -> None:
    found = settings(phaxio, KEYS, {"retries": 5.0, "ratio": 1})
    assert (repr(found["retries"]), found["ratio"]) == ("5", 1)

    wrong = {
        "retries": 4.5,
        "ratio": float("nan"),
        "apiSecret": "the\ud800secret",
        "gone": "\ud800",
    }
    with pytest.raises(ConfigError) as refused:
        settings(phaxio, KEYS, wrong)
    assert refused.value.detail.split("; ") == [
        "PHAXIO_RETRIES must be an integer",
        "PHAXIO_API_SECRET is no text",
        "PHAXIO_RATIO is no number",
    ]


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("http://api.example.org", False),
        ("http://93.184.216.34/v1", False),
        ("http://[2606:2800:220:1::1]", False),
        ("http://carrier.local.example.org", False),
        ("https://api.example.org", True),
        ("http://localhost:8091", True),
        ("http://carrier:8091", True),
        ("http://fax.clinic.internal", True),
        ("http://10.1.2.3", True),
        ("http://192.168.1.9:80/v1", True),
        ("http://[::1]:8091", True),
    ],
)
def test_secrets_and_faxes_do_not_travel_in_clear_beyond_the_own_network(
    phaxio: Manifest, address: str, good: bool
) -> None:
    environ = {**KEYS, "PHAXIO_BASE_URL": address}
    if good:
        assert settings(phaxio, environ)["baseUrl"] == address
    else:
        with pytest.raises(ConfigError, match="PHAXIO_BASE_URL must begin with https://"):
            settings(phaxio, environ)


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://api.example", True),
        ("http://127.0.0.1:8091/v1", True),
        ("https://[::1]:80", True),
        ("ftp://api.example", False),
        ("api.example", False),
        ("https://", False),
        ("https://user:pw@api.example", False),
        ("https://api.example?x=1", False),
        ("https://api.example#x", False),
        ("https://api example", False),
        ("https://api.example:99999", False),
        ("https://api.example:0", False),
        ("https://[", False),
    ],
)
def test_an_address_is_http_with_a_host_and_nothing_secret(
    phaxio: Manifest, address: str, good: bool
) -> None:
    environ = {**KEYS, "PHAXIO_BASE_URL": address}
    if good:
        assert settings(phaxio, environ)["baseUrl"] == address
    else:
        with pytest.raises(ConfigError, match="PHAXIO_BASE_URL must be an http or https address"):
            settings(phaxio, environ)


@given(value=st.text(min_size=6).filter(lambda text: "\x00" not in text))
def test_no_complaint_repeats_a_value(value: str) -> None:
    value = f"<{value}>"
    environ = dict.fromkeys(
        (name for names in parse(PHAXIO).variables.values() for name in names), value
    )
    with pytest.raises(ConfigError) as refused:
        settings(parse(PHAXIO), environ)
    assert value not in refused.value.detail


def test_a_setting_that_the_plugin_does_not_have_is_refused(phaxio: Manifest) -> None:
    with pytest.raises(ConfigError, match="a setting is given that this plugin does not have"):
        validated(phaxio, {"apiKey": "k", "apiSecret": "sssss", "apikey": "typing error"})


def test_secrets_that_are_set_are_masked_and_nothing_else_is(phaxio: Manifest) -> None:
    shown = masked(phaxio, {"apiKey": "k", "apiSecret": "", "retries": 3})
    assert shown == {"apiKey": MASK, "apiSecret": "", "retries": 3}


def test_a_plugin_may_call_its_hosts_over_https_and_its_own_addresses(phaxio: Manifest) -> None:
    assert phaxio.addresses({"baseUrl": "http://127.0.0.1:9/v2", "note": "http://other"}) == (
        "https://api.phaxio.com",
        "http://127.0.0.1:9/v2",
    )
    assert phaxio.addresses({}) == ("https://api.phaxio.com",)
