"""What an option is: how it is declared as a field of Config, and how text becomes its value. Text that cannot is a
ConfigError that names the variable, and never holds what it said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from faxbot import forms
from faxbot.errors import ConfigError

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Option:
    """One variable: its name in the environment, what it does, whether its value is a secret, and whether it may be
    saved."""

    name: str
    kind: str
    default: object
    help: str
    secret: bool
    editable: bool
    fixed: str
    """Why it is taken from the environment alone; "" where it is editable."""
    feature: str
    """What the flag is called where features are switched on and off; "" for an option that is none."""
    warning: str
    """What to think of before it is set so; "" where there is nothing."""
    warns_when: bool
    field: str
    """Its name among those of Config."""
    scope: str
    """What who saves it must have."""

    def warns(self, value: object) -> bool:
        """Whether the warning is about this value."""
        if self.feature:
            return bool(self.warning) and bool(value) is self.warns_when
        return bool(self.warning) and value != self.default


def option(
    name: str,
    default: Any,
    help: str,  # noqa: A002 - the word an option's explanation has everywhere
    *,
    secret: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    form: forms.Form | None = None,
    editable: bool = False,
    fixed: str = "",
    feature: str = "",
    warning: str = "",
    warns_when: bool = True,
    scope: str = "admin",
) -> Any:
    """A dataclass field that is read from the variable `name`. `editable`: what is saved in the database goes before
    it, and a change holds without a restart; `fixed` says of the others why not. `feature` names a flag; `warning`
    holds while a flag is `warns_when`, and of other options while they are not at their default."""
    return field(
        default=default,
        repr=not secret,
        metadata={
            "name": name,
            "help": help,
            "secret": secret,
            "at_least": at_least,
            "at_most": at_most,
            "choices": choices,
            "form": form,
            "editable": editable,
            "fixed": fixed,
            "feature": feature,
            "warning": warning,
            "warns_when": warns_when,
            "scope": scope,
        },
    )


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise ValueError("is neither true nor false (true, false, 1, 0, yes, no, on, off)")


def _whole(text: str) -> int:
    # int() takes digits of other scripts and 1_000, and refuses thousands of digits in words of its own.
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise ValueError("is not a whole number")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[-+.0-9a-zA-Z]+", text.strip()):
        raise ValueError("is not a number")
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("is not a finite number")
    return value


_READERS: dict[str, Callable[[str], Any]] = {
    "bool": _boolean,
    "int": _whole,
    "float": _number,
    "Path": Path,
    "str": str,
}


def of_text(name: str, kind: object, text: object, spec: Any) -> object:
    """A saved value; an empty one is the default. Text is what is saved: anything else was not written by us."""
    if not isinstance(text, str):
        raise ConfigError(f"{name} is not saved as text")
    return read(name, kind, text, spec.metadata) if text != "" else spec.default


def read(name: str, kind: object, text: str, rules: Mapping[str, Any]) -> object:
    """The value of an option as its variable says it, by the metadata of its field; raises ConfigError."""
    try:
        value = _READERS[str(kind)](text)
    except ValueError as error:
        raise ConfigError(f"{name} {error}") from None
    if rules["at_least"] is not None and value < rules["at_least"]:
        raise ConfigError(f"{name} must be at least {rules['at_least']}")
    if rules["at_most"] is not None and value > rules["at_most"]:
        raise ConfigError(f"{name} must be at most {rules['at_most']}")
    if rules["choices"] and value not in rules["choices"]:
        raise ConfigError(f"{name} must be one of: {', '.join(rules['choices'])}")
    if rules["form"] is not None:
        fits, words = rules["form"]
        if not fits(text):
            raise ConfigError(f"{name} {words}")
    return cast(object, value)


def declared(config: type[Any]) -> tuple[Option, ...]:
    """Every option that is a field of this class, in order."""
    return tuple(
        Option(
            name=spec.metadata["name"],
            kind=str(spec.type),
            default=None if spec.default is MISSING else spec.default,
            help=spec.metadata["help"],
            secret=spec.metadata["secret"],
            editable=spec.metadata["editable"],
            fixed=spec.metadata["fixed"],
            feature=spec.metadata["feature"],
            warning=spec.metadata["warning"],
            warns_when=spec.metadata["warns_when"],
            field=spec.name,
            scope=spec.metadata["scope"],
        )
        for spec in fields(config)
        if "name" in spec.metadata
    )
