"""A form of a plugin's settings, made from what its manifest says of them: its fields, and what was filled in.

The template is schema-form.html; it shows the items that catalogue.settings() gives. What is filled in is checked by
those who save it (activation.configure(), setup.test()), never here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from werkzeug.datastructures import MultiDict

FIELD = "settings."
"""Before a setting's key in the name of its field; the browser finds it also by the key alone."""
TAKE_BACK = "back."
"""Before a setting's key: a box for having what is saved taken back."""
SHOWN = "shown."
"""Before a setting's key: what its field showed when the form was made."""


def wish(settings: Sequence[Mapping[str, Any]], form: MultiDict[str, str]) -> dict[str, Any]:
    """What a filled in form asks for, by key, of settings as catalogue.settings() gives them: only what is to change,
    None where what is saved is taken back. A setting whose field did not come stays as it is, and so does a secret
    whose field is empty, and what nobody touched, though somebody else has saved another value meanwhile."""
    wanted: dict[str, Any] = {}
    for setting in settings:
        key, texts = setting["key"], form.getlist(FIELD + setting["key"])
        if TAKE_BACK + key in form:
            wanted[key] = None
        elif texts and setting["option"] is None:
            text = texts[-1]  # of a box the last: the first says that it is none
            wanted |= _changed(setting, text) if text != form.get(SHOWN + key) else {}
    return wanted


def _changed(setting: Mapping[str, Any], text: str) -> dict[str, Any]:
    key, now = setting["key"], setting["value"]
    if setting["secret"]:
        return {key: text} if text else {}
    text = text.strip()
    if not text:
        return {key: None} if setting["source"] == "db" else {}
    value = _typed(setting, text)
    if value is False and now is None and not setting["required"]:
        return {}  # a box that nobody has ticked
    same = value == now and isinstance(value, bool) == isinstance(now, bool)
    return {} if same else {key: value}


def _typed(setting: Mapping[str, Any], text: str) -> Any:
    """The text of a field as its setting's type; what is none stays text, and who checks it says so."""
    for choice in setting["choices"]:
        if text == str(choice):
            return choice
    if setting["type"] == "boolean" and text in ("true", "false"):
        return text == "true"
    try:
        if setting["type"] == "integer":
            return int(text)
        if setting["type"] == "number" and math.isfinite(float(text)):
            return float(text)
    except ValueError:
        return text
    return text
