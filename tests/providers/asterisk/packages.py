"""Asterisk and its libraries, as tests/debian.py fetches them.

It runs with the C library and the loader of its own suite, so that it does not matter which Debian this is.
`python -m tests.providers.asterisk.packages` fetches; with `--lock` it asks the archive for the present versions and
writes lock.json anew.
"""

from __future__ import annotations

import re
import sys
from functools import cached_property
from pathlib import Path

from tests import debian
from tests.debian import Apt, Program, Store, cache_folder
from tests.ground import ENVIRONMENT

# Of the libraries of Asterisk's modules, those of the modules that tests load (no ODBC, LDAP, codecs ...).
_OF_MODULES = re.compile(r"lib(c6|spandsp|srtp2|ssl|speex|resample|gsm)")


class Tree(debian.Tree):
    """An unpacked Asterisk."""

    @cached_property
    def command(self) -> tuple[str | Path, ...]:
        """The binary with its own loader and libraries; arguments of Asterisk follow."""
        folders = {path.parent for path in self.root.rglob("*.so.*")}
        named = (
            str(folder)
            for folder in folders
            if re.fullmatch(r"lib|[a-z0-9_]+-linux-gnu", folder.name)
        )
        return (
            self._loader,
            "--library-path",
            ":".join(sorted(named)),
            self.root / "usr/sbin/asterisk",
        )

    @cached_property
    def modules(self) -> Path:
        return self._only("res_fax_spandsp.so").parent

    @property
    def data(self) -> Path:
        return self.root / "usr/share/asterisk"

    @cached_property
    def _loader(self) -> Path:
        found = (path.resolve() for path in sorted(self.root.rglob("ld-linux-*.so.*")))
        return next(path for path in found if path.is_relative_to(self.root))

    def _only(self, name: str) -> Path:
        return next(self.root.rglob(name))


def _needs(apt: Apt) -> set[str]:
    of_modules = [name for name in apt.libraries("asterisk-modules") if _OF_MODULES.match(name)]
    libraries = apt.closure([*apt.libraries("asterisk"), *of_modules])
    return {"asterisk", "asterisk-config", "asterisk-modules", *libraries}


ASTERISK = Program(
    "asterisk",
    Tree,
    # Asterisk 22 from testing, which moves on and then has the locked versions no longer; Asterisk 16 from a release
    # that does not move.
    suites=("forky", "bullseye"),
    needs=_needs,
    module="tests.providers.asterisk.packages",
)


def store() -> Store[Tree]:
    """Where it is fetched from and kept; FAXBOT_TEST_ASTERISK=bullseye takes that suite alone."""
    wanted = ENVIRONMENT.get("FAXBOT_TEST_ASTERISK")
    locked = [each for each in ASTERISK.read_lock() if wanted in (None, "", each.suite)]
    return Store(ASTERISK, cache_folder(), locked)


if __name__ == "__main__":
    debian.main(store(), sys.argv[1:])
