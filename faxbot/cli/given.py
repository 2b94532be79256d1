"""What a person types unseen, or a program pipes in: a secret never stands on a command line, where every user of the
machine can read it."""

from __future__ import annotations

import sys

import click

_MOST = 1024 * 1024
"""Characters of a value."""


def secret(title: str) -> str:
    """Typed twice at the terminal, and not shown; else what is piped in. Raises UsageError where that is nothing."""
    if sys.stdin.isatty():
        return str(click.prompt(title, hide_input=True, confirmation_prompt=True, err=True))
    text = piped()
    if not text:
        raise click.UsageError("nothing was given: type the secret, or pipe it in")
    return text


def piped() -> str:
    """All of standard input but the end of its last line. Raises UsageError for what is too long for a value."""
    text = sys.stdin.read(_MOST + 1)
    if len(text) > _MOST:
        raise click.UsageError("what is piped in is too long for a value")
    return text.removesuffix("\n").removesuffix("\r")


def typed_or_piped(title: str) -> str:
    """One line that is no secret, and does not belong on a command line all the same. Raises UsageError where it is
    nothing."""
    if sys.stdin.isatty():
        return str(click.prompt(title, err=True))
    if not (text := piped().strip()):
        raise click.UsageError(f"no {title.lower()} was given: type it, or pipe it in")
    return text
