"""A plugin's manifest cannot keep faxbot busy, get past a rule with a line end, or ask for faxbot's own secrets."""

from __future__ import annotations

import re
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.config import OPTIONS
from faxbot.errors import ConfigError, PluginError
from faxbot.plugins.manifest import CORE_SECRETS, parse, settings
from faxbot.plugins.patterns import LONGEST, is_quick, match
from tests.unit.test_plugins_manifest import KEYS, changed

NOTE = "configSchema.properties.note"


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\+[1-9][0-9]{6,14}$",
        r"^[a-z0-9.-]+:[0-9]+$",
        r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        r"^[^/\]]*\.\w?$",
        r"^$",
    ],
)
def test_the_patterns_that_settings_need_are_taken(pattern: str) -> None:
    assert parse(changed(f"{NOTE}.pattern", pattern)).properties["note"]["pattern"] == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "^(a+)+$",
        "^(a|a)*$",
        "^a*a*a*a*b$",
        "^a?a?a?a?$",
        "^a{0,9}a{0,9}a{0,9}a{0,9}$",
        "^a|b$",
        r"^(a)\1$",
        "^a*?$",
        "[a-z]+",
        r"^a\$",
        "^",
    ],
)
def test_a_pattern_that_may_take_too_long_is_refused_before_it_is_tried(pattern: str) -> None:
    rule = {"type": "string", "pattern": pattern, "default": "a" * 200 + "!"}
    # In a process of its own, which can be killed: Python's engine cannot be interrupted from another thread.
    program = (
        "import sys\n"
        "from faxbot.errors import PluginError\n"
        "from faxbot.plugins.manifest import parse\n"
        "try: parse(eval(sys.argv[1]))\n"
        "except PluginError as error: print(error.detail)\n"
    )
    manifest = repr(changed(NOTE, rule))

    said = subprocess.run(
        [sys.executable, "-c", program, manifest],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert "the pattern of its setting 'note' may take too long" in said.stdout
    assert "and no groups" in said.stdout


@pytest.mark.parametrize("pattern", ["^[z-a]$", "^a{3,2}$", "^[\\d-a]$", r"^[\z]$"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    assert not is_quick(pattern)
    with pytest.raises(PluginError, match=r"note.pattern: .* is not a 'regex'"):
        parse(changed(f"{NOTE}.pattern", pattern))


_PIECES = st.sampled_from(["a", ".", "[ab]", r"\w", "[^c]"])
_COUNTS = st.sampled_from(["", "*", "+", "?", "{2}", "{0,200}", "{1,}"])


@hypothesis.settings(deadline=2000)  # milliseconds, 280 times the worst measured
@given(pieces=st.lists(st.tuples(_PIECES, _COUNTS), max_size=8), tail=st.sampled_from(["", "c"]))
def test_what_is_quick_is_done_soon_on_the_worst_text(
    pieces: list[tuple[str, str]], tail: str
) -> None:
    pattern = f"^{''.join(map(''.join, pieces))}{tail}$"
    if is_quick(pattern):
        assert match(pattern, "a" * LONGEST) == bool(re.fullmatch(pattern, "a" * LONGEST))


def test_a_text_too_long_to_be_compared_is_refused() -> None:
    manifest = parse(changed(NOTE, {"type": "string", "pattern": "^[a-z]*$", "env": "PHAXIO_NOTE"}))

    assert settings(manifest, {**KEYS, "PHAXIO_NOTE": "a" * LONGEST})["note"] == "a" * LONGEST
    for wrong in ("a" * (LONGEST + 1), "a\n"):
        with pytest.raises(ConfigError, match=r"PHAXIO_NOTE must match .* at most 256 characters"):
            settings(manifest, {**KEYS, "PHAXIO_NOTE": wrong})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allowedHosts", ["evil.com\n"]),
        ("version", "1.0.0\n"),
        ("api", ">=1\n"),
        ("id", "phaxio\n"),
        ("traits", ["send_fax\n"]),
        ("categories", ["outbound\n"]),
        (f"{NOTE}.env", "PHAXIO_NOTE\n"),
        ("configSchema.properties", {"note\n": {"type": "string"}}),
    ],
)
def test_a_line_end_gets_past_no_rule(field: str, value: object) -> None:
    content = changed(field, value)
    if field == "configSchema.properties":
        del content["configSchema"]["required"]
    with pytest.raises(PluginError, match=r"its manifest is wrong at "):
        parse(content)


def test_the_secrets_of_the_core_are_those_of_its_options() -> None:
    assert {option.name for option in OPTIONS if option.secret} == CORE_SECRETS


@pytest.mark.parametrize("name", sorted(CORE_SECRETS))
@pytest.mark.parametrize("secret", [True, False])
def test_a_secret_of_the_core_is_no_plugin_s_to_ask_for(name: str, secret: bool) -> None:
    with pytest.raises(PluginError, match=rf"its setting 'note' asks for {name}"):
        parse(changed(NOTE, {"type": "string", "secret": secret, "env": name}))
    # Nor behind a name of its own.
    with pytest.raises(PluginError, match=rf"its setting 'apiKey' asks for {name}"):
        parse(changed("traits", ["send_fax", f"env_fallback:PHAXIO_API_KEY={name}"]))
