"""A copy of the package with sentences of it replaced: builds that are broken, or die at a chosen place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import faxbot


@dataclass(frozen=True)
class Planted:
    """In `module`, `new` takes the place of `old`, which must be there exactly once."""

    module: str
    old: str
    new: str


def build(folder: Path, *planted: Planted) -> Path:
    """`folder` with such a faxbot in it, to be put on the path of Python. Raises AssertionError
    where a sentence is not there any more, SyntaxError where it does not fit."""
    shutil.copytree(
        Path(faxbot.__file__).parent,
        folder / "faxbot",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for each in planted:
        module = folder / "faxbot" / each.module
        text = module.read_text()
        assert text.count(each.old) == 1, f"nothing to plant in {each.module}: {each.old!r}"
        changed = text.replace(each.old, each.new)
        compile(changed, each.module, "exec")
        module.write_text(changed)
    return folder
