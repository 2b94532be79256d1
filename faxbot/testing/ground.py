"""What contract tests stand on: the provider under test, a fax for it, and a watch over what it says in the log."""

from __future__ import annotations

import inspect
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pytest
from PIL import Image

from faxbot.documents import pdf
from faxbot.errors import FaxbotError
from faxbot.hidden import Hidden
from faxbot.plugins import manifest
from faxbot.plugins.base import (
    Arrival,
    Context,
    FaxbotPlugin,
    Health,
    Http,
    OutboundFax,
    TransportPlugin,
)
from faxbot.plugins.manifest import Manifest
from faxbot.providers.http import HttpClient
from faxbot.testing.recorded import Recorded, recorded_in

PAGES = 3
HEADER = "Practice of Dr. Quincy Contract"
LINK = "https://fax.example.com/fax/7/pdf?token=link-token-of-the-contract"
SHORTEST_SECRET = 8
Plugin = TypeVar("Plugin", bound=FaxbotPlugin)


class Connect(Protocol):
    """connect(url): the provider, initialised with `settings(url)` and these changes to them."""

    def __call__(
        self, url: str, *, at: datetime | None = None, **changes: Any
    ) -> TransportPlugin: ...


class _Ear(logging.Handler):
    """Hears all that is logged, with exceptions and extras."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(f"{self.format(record)} {record.__dict__!r}")


@contextmanager
def overhearing(capsys: pytest.CaptureFixture[str], check: Callable[[str], None]) -> Iterator[None]:
    """Hands `check` all that is logged and printed within."""
    ear, root = _Ear(), logging.getLogger()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(ear)
        root.setLevel(level)
    out, err = capsys.readouterr()
    check(" ".join([*ear.heard, out, err]))


@contextmanager
def running(
    make: Callable[[], Plugin],
) -> Iterator[Callable[[Mapping[str, Any], Context], Plugin]]:
    """begin(config, context): one more plugin that `make` makes, initialised; all are shut down at the end."""
    begun: list[tuple[Plugin, Http]] = []

    def begin(config: Mapping[str, Any], context: Context) -> Plugin:
        one = make()
        one.initialize(config, context)
        begun.append((one, context.http))
        return one

    yield begin
    for one, http in begun:
        one.shutdown()
        http.close()


class PluginGround:
    """What is under test, whatever its type."""

    plugin: ClassVar[type[FaxbotPlugin]]

    @pytest.fixture
    def folder(self) -> Path:
        """Where the plugin's module lies."""
        return Path(inspect.getfile(self.plugin)).parent

    @pytest.fixture
    def manifest(self, folder: Path) -> Manifest:
        return manifest.read(folder / "manifest.json")


class SetGround(PluginGround):
    """Of a plugin that is known by its settings alone: it begins with them, and what is secret among them is never
    logged or printed."""

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        """Settings of the plugin, by the names of its configSchema, with which it works. Secrets have at least eight
        characters, because they are looked for in logs."""
        raise NotImplementedError("write the fixture `settings`")

    @pytest.fixture
    def away(self) -> dict[str, Any] | None:
        """Settings with which nobody answers; None for one that asks nobody."""
        return None

    @pytest.fixture
    def begin(self, manifest: Manifest) -> Iterator[Callable[[Mapping[str, Any]], FaxbotPlugin]]:
        # The class is looked up when one is made: a test may have put another one there.
        with running(lambda: self.plugin()) as begin:
            yield lambda settings: begin(*prepared(manifest, settings))

    @pytest.fixture(autouse=True)
    def silence(
        self, capsys: pytest.CaptureFixture[str], manifest: Manifest, settings: dict[str, Any]
    ) -> Iterator[None]:
        """Fails the test in which a secret was logged or printed."""

        def check(text: str) -> None:
            no_secret(manifest, settings, text, "log or output")

        with overhearing(capsys, check):
            yield


class Ground(PluginGround):
    """What an author gives, and what the tests are given. `plugin` and `settings` must be written, and the fixture
    `carrier`; the rest may be."""

    plugin: ClassVar[type[TransportPlugin]]
    number: ClassVar[str] = "+15550100000"
    """A number to which the carrier takes a fax."""
    refused_number: ClassVar[str | None] = None
    """One that it refuses for good, where that goes by the number; else write the fixture `refusing_carrier`."""

    def settings(self, url: str) -> dict[str, Any]:
        """Settings of the plugin, by the names of its configSchema, with which it calls its carrier at
        `url` ("http://127.0.0.1:1234", without a path). Secrets have at least eight characters,
        because they are looked for in logs."""
        raise NotImplementedError

    @pytest.fixture
    def carrier(self) -> str:
        """The address of a carrier, or of a double, that takes a fax to `number` and then finds it by tag and id."""
        raise NotImplementedError("write the fixture `carrier`")

    @pytest.fixture
    def refusing_carrier(self, carrier: str) -> str:
        """The address of one that refuses the fax for good."""
        return carrier

    @pytest.fixture
    def tag(self) -> str:
        """The attempt's tag; core makes such. Write your own for a double that knows one tag only."""
        return f"fb{secrets.token_hex(16)}"

    @pytest.fixture
    def callback_url(self, manifest: Manifest, tag: str) -> str:
        """Where the carrier is told to call back."""
        return f"http://127.0.0.1:9/callbacks/{manifest.id}?attempt={tag}&token=callback-token-of-the-contract"

    @pytest.fixture
    def recorded(self, folder: Path) -> list[Recorded]:
        """Genuine callbacks; usually those in the plugin's `sample_payloads/`."""
        return recorded_in(folder / "sample_payloads")

    @pytest.fixture
    def received(
        self, connect: Connect, carrier: str, recorded: list[Recorded], manifest: Manifest
    ) -> list[Recorded]:
        """Those of them that are about received faxes. Write your own for a `carrier` that can have faxes come in: one
        with its document, one without, one that failed, and one of more than four megabytes."""
        if not manifest.has("inbound_supported"):
            return []
        return [
            each
            for each in recorded
            if any(
                isinstance(news, Arrival)
                for news in connect(carrier, at=each.at, **each.settings).read_callback(
                    each.request
                )
            )
        ]

    # What follows is the contract's own.

    @pytest.fixture
    def connect(self, manifest: Manifest) -> Iterator[Connect]:
        with running(lambda: self.plugin()) as begin:

            def make(url: str, *, at: datetime | None = None, **changes: Any) -> TransportPlugin:
                return begin(*self.prepared(manifest, url, at, changes))

            yield make

    @pytest.fixture
    def provider(self, connect: Connect, carrier: str) -> TransportPlugin:
        """The provider at its carrier."""
        return connect(carrier)

    @pytest.fixture
    def fax(self, manifest: Manifest, document: Path, tag: str, callback_url: str) -> OutboundFax:
        return OutboundFax(
            tag=tag,
            to=Hidden(self.number),
            document=document,
            media_type=media_type(manifest),
            pages=PAGES,
            resolution="fine",
            callback_url=callback_url,
            header=Hidden(HEADER),
            document_url=Hidden(LINK) if manifest.has("fetches_document") else Hidden(""),
        )

    @pytest.fixture
    def document(self, manifest: Manifest, tmp_path: Path) -> Path:
        """Three fax pages in the form that the manifest likes best."""
        path = tmp_path / "document"
        page = Image.new("1", (1728, 2200), 1)
        more = [page] * (PAGES - 1)
        page.save(path, "TIFF", compression="group4", save_all=True, append_images=more)
        if media_type(manifest) == "application/pdf":
            path = tmp_path / "document.pdf"
            pdf.wrap(str(tmp_path / "document"), str(path), resolution="fine", max_pages=PAGES)
        return path

    @pytest.fixture(autouse=True)
    def silence(self, capsys: pytest.CaptureFixture[str], manifest: Manifest) -> Iterator[None]:
        """Fails the test in which something private was logged or printed."""

        def check(text: str) -> None:
            self.assert_nothing_private(manifest, text, "log or output")

        with overhearing(capsys, check):
            yield

    def prepared(
        self, manifest_: Manifest, url: str, at: datetime | None, changes: dict[str, Any]
    ) -> tuple[dict[str, Any], Context]:
        """Configuration and context as core would make them."""
        config = manifest.validated(manifest_, {**self.settings(url), **changes})
        http = HttpClient(manifest_.addresses(config), connect=2.0, read=2.0, total=5.0)
        now: Callable[[], datetime] = lambda: at or datetime.now(UTC)  # noqa: E731 - a clock
        return config, Context(logging.getLogger(f"faxbot.plugins.{manifest_.id}"), now, http)

    def assert_nothing_private(self, manifest: Manifest, text: str, where: str) -> None:
        for what, value in self._private(manifest):
            assert value not in text, f"{what} stands in the {where}"

    def _private(self, manifest: Manifest) -> Iterator[tuple[str, str]]:
        for number in (self.number, self.refused_number or self.number):
            yield "the number", number.lstrip("+")
        yield "the header", HEADER
        yield "the link to the document", "link-token-of-the-contract"
        yield "the callback's address", "callback-token-of-the-contract"
        settings = self.settings("http://127.0.0.1:9")
        for key in manifest.secrets & settings.keys():
            assert len(str(settings[key])) >= SHORTEST_SECRET, (
                f"settings(): make {key!r} at least {SHORTEST_SECRET} characters long, to be found in logs"
            )
            yield f"the secret {key!r}", str(settings[key])


def media_type(manifest: Manifest) -> str:
    """The form it likes best; TIFF where it names none."""
    return (*manifest.values("accepts"), "image/tiff")[0]


# Of any plugin -------------------------------------------------------------------------------------


def prepared(manifest_: Manifest, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Context]:
    """Configuration and context as core would make them."""
    config = manifest.validated(manifest_, settings)
    http = HttpClient(manifest_.addresses(config), connect=2.0, read=2.0, total=5.0)
    logger = logging.getLogger(f"faxbot.plugins.{manifest_.id}")
    return config, Context(logger, lambda: datetime.now(UTC), http)


def health_of(plugin: FaxbotPlugin) -> Health:
    """What it says of itself, in the right words."""
    health = plugin.health()
    assert isinstance(health, Health), "health() gives no Health"
    assert isinstance(health.ok, bool), "Health.ok is no bool"
    assert health.detail.isprintable(), "Health.detail is more than a sentence"
    return health


def says_enough(error: FaxbotError) -> None:
    """Whether its text is of use to people."""
    assert " " in error.detail, "the error has no sentence that tells what is wrong"
    assert error.detail.isprintable(), "the error's text is more than a sentence"


def no_secret(manifest: Manifest, settings: Mapping[str, Any], text: str, where: str) -> None:
    """Whether what was said holds none of these secrets."""
    for key in manifest.secrets & settings.keys():
        assert str(settings[key]) not in text, f"the secret {key!r} stands in the {where}"
