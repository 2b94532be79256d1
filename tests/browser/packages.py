"""Debian's Chromium with its libraries and fonts, as tests/debian.py fetches them.

The machine gives the C library, and nothing else: all that Chromium loads besides is of its own suite.
`python -m tests.browser.packages` fetches; with `--lock` it asks the archive for the present versions and writes
lock.json anew.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import debian
from tests.debian import Apt, NoPackages, Program, Store, cache_folder

GLIBC = (2, 36)
"""Of bookworm. Chromium starts its own binary again for each of its processes, so no loader can be put before it."""
_FONTS = """<?xml version="1.0"?>
<fontconfig>
<dir>{root}/usr/share/fonts</dir>
<cachedir>{cache}</cachedir>
<alias><family>sans-serif</family><prefer><family>Liberation Sans</family></prefer></alias>
<alias><family>serif</family><prefer><family>Liberation Serif</family></prefer></alias>
<alias><family>monospace</family><prefer><family>Liberation Mono</family></prefer></alias>
<match target="pattern"><edit name="family" mode="append_last"><string>Liberation Sans</string></edit></match>
</fontconfig>
"""


class Tree(debian.Tree):
    """An unpacked Chromium."""

    @property
    def binary(self) -> Path:
        return self.root / "usr/lib/chromium/chromium"

    def environment(self, folder: Path) -> Mapping[str, str]:
        """All that it is started with, so that it finds its libraries and fonts; `folder` becomes its home."""
        fonts = folder / "fonts.conf"
        fonts.write_text(_FONTS.format(root=self.root, cache=folder / "fonts"))
        libraries = [
            *self.root.glob("lib/*-linux-gnu"),
            *self.root.glob("usr/lib/*-linux-gnu"),
            *self.root.glob("usr/lib/*-linux-gnu/pulseaudio"),
        ]
        return {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "FONTCONFIG_FILE": str(fonts),
            "XDG_DATA_DIRS": str(self.root / "usr/share"),
            "GIO_MODULE_DIR": str(self.root / "usr/lib/gio/modules"),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
        }


def _needs(apt: Apt) -> set[str]:
    # Without windows it needs no GTK, and the C library must be that of the loader.
    asked = {*apt.libraries("chromium"), *apt.libraries("chromium-common")} - {"libgtk-3-0"}
    libraries = set(apt.closure(sorted(asked))) - {"libc6"}
    return {"chromium", "chromium-common", "fonts-liberation", "libwayland-client0", *libraries}


CHROMIUM = Program(
    "chromium",
    Tree,
    suites=("bookworm",),  # which does not move any more
    needs=_needs,
    module="tests.browser.packages",
)


def store() -> Store[Tree]:
    """Where it is fetched from and kept."""
    return Store(CHROMIUM, cache_folder(), CHROMIUM.read_lock())


def fetch() -> Tree:
    """Store.fetch(), where this machine's C library is new enough for what it brings; else NoPackages."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < GLIBC:
        wanted = ".".join(map(str, GLIBC))
        raise NoPackages(f"it needs glibc {wanted}, and here is {name or 'another'} {version}")
    return store().fetch()


if __name__ == "__main__":
    debian.main(store(), sys.argv[1:])
