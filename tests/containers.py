"""Reads Dockerfiles, .dockerignore and compose.yaml as their tools do, as far as ours use them: no
engine is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILES = ("web.Dockerfile", "worker.Dockerfile")


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile, its continuations joined: the word and the rest."""

    word: str
    rest: str

    def command(self) -> list[str]:
        """The exec form of a CMD, or of the CMD within a HEALTHCHECK."""
        words = json.loads(self.rest[self.rest.index("[") :])
        return cast(list[str], words)


def stages(name: str) -> list[list[Instruction]]:
    """The stages of a Dockerfile, each beginning with its FROM."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[list[Instruction]] = []
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, rest.strip()))
    return found


def only(stage: Iterable[Instruction], word: str) -> Instruction:
    """The one instruction of this kind in a stage."""
    (found,) = (instruction for instruction in stage if instruction.word == word)
    return found


def environment(stage: Iterable[Instruction]) -> dict[str, str]:
    """What the stage's ENV lines set."""
    lines = (instruction.rest for instruction in stage if instruction.word == "ENV")
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def sources(stage: Iterable[Instruction]) -> list[str]:
    """What the stage copies from the build context."""
    copies = (instruction.rest.split() for instruction in stage if instruction.word == "COPY")
    return [word for words in copies if not words[0].startswith("--") for word in words[:-1]]


def context() -> set[str]:
    """The files that .dockerignore lets through, as paths from the top."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    tops = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*", "the list says what is let in"
    never = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    files = (path for top in tops for path in [ROOT / top, *(ROOT / top).rglob("*")])
    return {
        str(path.relative_to(ROOT))
        for path in files
        if path.is_file() and not any(fnmatch(part, rule) for part in path.parts for rule in never)
    }


_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:[-?])([^}]*))?\})")


class Missing(Exception):
    """A variable that compose would refuse to go on without; carries the message compose prints."""


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """compose.yaml with `variables` put in, as `docker compose config` would show it; raises
    Missing."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        if isinstance(node, str):
            return _VARIABLE.sub(lambda match: _value(match, variables), node)
        return node

    return cast(dict[str, Any], walk(yaml.safe_load((ROOT / "compose.yaml").read_text())))


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, operator, word = match.groups()
    if name is None:
        return "$"
    if variables.get(name):
        return variables[name]
    if operator == ":-":
        return word or ""
    raise Missing(f"{name}: {word or 'has neither a default nor a message'}")
