"""What others made and the console serves is what they published, with its licence beside it."""

from __future__ import annotations

import hashlib
from importlib import resources

PUBLISHED = {
    "bootstrap-5.3.9.min.css": "9caac977a0af0c2229abd397eee3345899c4020da2a1a0b711c1cc543fe3719d",
    "htmx-4.0.1.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
}
"""By name the SHA-256 of the file in the package of the npm registry."""


def test_vendored_files_are_as_published_and_carry_their_licence() -> None:
    folder = resources.files("faxbot.web.static.vendor")
    names = {file.name for file in folder.iterdir() if file.name.endswith((".css", ".js"))}
    assert names == set(PUBLISHED)
    for name, expected in PUBLISHED.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == expected
        licence = name.replace(".min", "").rpartition(".")[0] + ".LICENSE.txt"
        assert "ermission" in folder.joinpath(licence).read_text()
