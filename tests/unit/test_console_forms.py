"""Forms of the console, as their templates have them: none is sent again while it is under way, and none says what is
wrong where nobody has the time to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest

TEMPLATES = {
    template.name: template.read_text(encoding="utf-8")
    for template in resources.files("faxbot.web.templates.console").iterdir()
    if template.name.endswith(".html")
}


def tags(attribute: str) -> Iterator[tuple[str, str]]:
    """All tags that have it, with their template's name."""
    for name, text in TEMPLATES.items():
        for tag in re.findall(rf"<[a-z]+\s[^<>]*\b{attribute}=[^<>]*>", text):
            yield name, tag


def test_what_a_form_does_is_not_asked_for_again_while_it_is_under_way() -> None:
    found = list(tags("hx-post"))
    assert len(found) > 5
    for name, tag in found:
        assert 'hx-sync="drop"' in tag, (name, tag)
        if 'hx-trigger="load"' not in tag:  # by itself, without a button
            assert "hx-disable=" in tag, (name, tag)


def test_no_form_does_anything_past_the_script_that_sends_it_once() -> None:
    for name, tag in tags("method"):
        assert 'method="get"' in tag or "hx-post=" in tag, (name, tag)


def test_what_a_button_has_shown_is_not_asked_for_again_while_it_comes() -> None:
    found = [(name, tag) for name, tag in tags("hx-get") if tag.startswith("<button")]
    assert len(found) > 3
    for name, tag in found:
        assert 'hx-sync="drop"' in tag, (name, tag)


_PIECES = re.compile(r"</?(?:div|section)\b[^>]*>|words\.form\([^)]*\)|<form\b[^>]*>")


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_is_wrong_does_not_stand_in_a_part_that_is_had_anew(name: str) -> None:
    around: list[bool] = []
    for piece in _PIECES.findall(TEMPLATES[name]):
        if piece.startswith("</"):
            around.pop()
        elif piece.startswith(("<div", "<section")):
            around.append(" data-live" in piece)
        elif any(around):
            assert "target='#" in piece, piece
    assert not around
