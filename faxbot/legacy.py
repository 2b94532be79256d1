"""How the earlier Faxbot was told what this one is told: its variables, and its `faxbot.config.json`; and by what its
database is known.

Names, defaults and the shape of the file are those of its own source (api/app/config.py, plugins/config_store.py and
what else read the environment, September 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

NEVER = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One variable of the earlier Faxbot."""

    name: str
    default: str = ""
    new: str | None = None
    """Ours. None: the same name, where there is such a setting; NEVER: there is none that means this."""
    note: str = ""
    """What is different, where it is taken over."""
    gone: str = ""
    """Why it is not."""


def _rows(names: str, gone: str, **defaults: str) -> tuple[Row, ...]:
    """Several that went for the same reason."""
    return tuple(Row(name, defaults.get(name, ""), gone=gone) for name in names.split())


_VERIFIED = "callbacks that do not prove themselves are always refused"
_ADDRESS = "made from PUBLIC_API_URL and told to the carrier with each fax"
_RATES = "per key over all addresses and processes, not per address and process"
_SIGNALWIRE = "no provider plugin for SignalWire is installed"
_DOCUMO = "no provider plugin for Documo is installed"
_FREESWITCH = "no provider plugin for FreeSWITCH is installed"
_SAVED = "what administrators save is in the database, sealed"
_PLUGINS = "plugins are Python packages: `faxbot plugins list` shows what is installed"
_MCP = "this version brings no MCP server"
_TRUNK = "the trunk is set in Asterisk itself (docs/providers/asterisk.md)"

TABLE: tuple[Row, ...] = (
    Row(
        "FAX_DATA_DIR",
        "./faxdata",
        NEVER,
        gone="give this one a new, empty folder: a database of the same name lies in the earlier one's",
    ),
    Row("MAX_FILE_SIZE_MB", "10", note="counts all documents of a fax together"),
    Row("FAX_DISABLED", "false", note="faxes are held, and go when it is taken back"),
    Row("API_KEY", note="has every scope; keys of the earlier database are not taken over"),
    Row("REQUIRE_API_KEY", "false"),
    Row("FAX_BACKEND", "phaxio", "FAX_BACKENDS", note="`sip` is `asterisk` here"),
    Row("PUBLIC_API_URL", "http://localhost:8080"),
    *_rows(
        "ENFORCE_PUBLIC_HTTPS",
        "FAXBOT_ENV=production demands https by itself",
        ENFORCE_PUBLIC_HTTPS="true",
    ),
    Row("PHAXIO_API_KEY"),
    Row("PHAXIO_API_SECRET", note="signs no callbacks: that is PHAXIO_CALLBACK_TOKEN"),
    *_rows("PHAXIO_STATUS_CALLBACK_URL PHAXIO_CALLBACK_URL", _ADDRESS),
    *_rows("PHAXIO_VERIFY_SIGNATURE", _VERIFIED, PHAXIO_VERIFY_SIGNATURE="true"),
    Row("SINCH_PROJECT_ID"),
    Row("SINCH_API_KEY"),
    Row("SINCH_API_SECRET"),
    Row("SINCH_BASE_URL", "https://fax.api.sinch.com/v3"),
    *_rows(
        "SIGNALWIRE_SPACE_URL SIGNALWIRE_PROJECT_ID SIGNALWIRE_API_TOKEN SIGNALWIRE_FAX_FROM_E164 "
        "SIGNALWIRE_STATUS_CALLBACK_URL SIGNALWIRE_CALLBACK_URL SIGNALWIRE_WEBHOOK_SIGNING_KEY "
        "SIGNALWIRE_SMS_FROM_E164 SIGNALWIRE_STATUS_POLL_SECONDS",
        _SIGNALWIRE,
        SIGNALWIRE_STATUS_POLL_SECONDS="0",
    ),
    *_rows(
        "DOCUMO_API_KEY DOCUMO_BASE_URL DOCUMO_SANDBOX",
        _DOCUMO,
        DOCUMO_BASE_URL="https://api.documo.com",
        DOCUMO_SANDBOX="false",
    ),
    Row("ASTERISK_AMI_HOST", "asterisk"),
    Row("ASTERISK_AMI_PORT", "5038"),
    Row("ASTERISK_AMI_USERNAME", "api"),
    Row("ASTERISK_AMI_PASSWORD", "changeme"),
    *_rows(
        "FREESWITCH_ESL_HOST FREESWITCH_ESL_PORT FREESWITCH_ESL_PASSWORD FREESWITCH_GATEWAY_NAME "
        "FREESWITCH_CALLER_ID_NUMBER FREESWITCH_T38_ENABLE",
        _FREESWITCH,
        FREESWITCH_ESL_HOST="127.0.0.1",
        FREESWITCH_ESL_PORT="8021",
        FREESWITCH_ESL_PASSWORD="ClueCon",  # noqa: S106 - its published default
        FREESWITCH_GATEWAY_NAME="gw_signalwire",
        FREESWITCH_CALLER_ID_NUMBER="3035551234",
        FREESWITCH_T38_ENABLE="true",
    ),
    Row("FAX_HEADER", "Faxbot", note="printed whichever provider sends, not by Asterisk alone"),
    Row("FAX_LOCAL_STATION_ID", "+10000000000", "ASTERISK_STATION_ID"),
    Row(
        "DATABASE_URL",
        "sqlite:///./faxbot.db",
        NEVER,
        gone="the earlier database is not read: give this one an empty one, or none for SQLite under FAX_DATA_DIR",
    ),
    Row("PDF_TOKEN_TTL_MINUTES", "60"),
    Row(
        "ARTIFACT_TTL_DAYS",
        "0",
        note="counts from the end of the fax, whatever it was; the number goes by STORAGE_RETENTION_NUMBERS_DAYS",
    ),
    Row("CLEANUP_INTERVAL_MINUTES", "1440", note="counted from midnight UTC"),
    Row(
        "MAX_REQUESTS_PER_MINUTE",
        "0",
        note="per key over all addresses and processes, not per address and process",
        gone="this version has no limit per key",
    ),
    Row("INBOUND_LIST_RPM", "30", note=_RATES),
    Row("INBOUND_GET_RPM", "60", note=_RATES),
    Row(
        "AUDIT_LOG_ENABLED",
        "false",
        note="the audit trail is in the database, always on, and written on from there; set it where the worker runs",
    ),
    Row("AUDIT_LOG_FORMAT", "json"),
    Row("AUDIT_LOG_FILE"),
    Row("AUDIT_LOG_SYSLOG", "false"),
    Row("AUDIT_LOG_SYSLOG_ADDRESS", "/dev/log", note="udp://, tcp:// and tls:// as well"),
    Row(
        "INBOUND_ENABLED",
        "false",
        note="of every active provider that can, or of those in FAX_INBOUND_BACKENDS",
    ),
    Row("INBOUND_RETENTION_DAYS", "30", note="the numbers go with the document"),
    Row("INBOUND_TOKEN_TTL_MINUTES", "60"),
    Row(
        "ASTERISK_INBOUND_SECRET",
        note="files must lie in ASTERISK_RECEIVED_FOLDER; with faxbot's own dialplan none need be posted",
    ),
    *_rows(
        "PHAXIO_INBOUND_VERIFY_SIGNATURE SINCH_INBOUND_VERIFY_SIGNATURE",
        _VERIFIED,
        PHAXIO_INBOUND_VERIFY_SIGNATURE="true",
        SINCH_INBOUND_VERIFY_SIGNATURE="true",
    ),
    Row("SINCH_INBOUND_BASIC_USER", note="proves callbacks about sent faxes too"),
    Row("SINCH_INBOUND_BASIC_PASS", note="proves callbacks about sent faxes too"),
    *_rows("SINCH_INBOUND_HMAC_SECRET", "Sinch signs nothing: name and password prove its calls"),
    Row("STORAGE_BACKEND", "local", note="holds all documents, not received ones alone"),
    Row("S3_BUCKET"),
    Row("S3_PREFIX", "inbound/", note="all documents lie below it, not received ones alone"),
    Row("S3_REGION"),
    Row("S3_ENDPOINT_URL"),
    Row("S3_KMS_KEY_ID"),
    Row(
        "ENABLE_LOCAL_ADMIN",
        "false",
        note="opens the terminal alone: some `faxbot` commands for who sits at this machine, and no shell",
    ),
    *_rows(
        "ADMIN_ALLOW_RESTART",
        "nobody restarts it over HTTP; changes hold without a restart",
        ADMIN_ALLOW_RESTART="false",
    ),
    *_rows("ENABLE_PERSISTED_SETTINGS", _SAVED, ENABLE_PERSISTED_SETTINGS="false"),
    *_rows(
        "PERSISTED_ENV_PATH",
        f"{_SAVED}; give that file as a further --env",
        PERSISTED_ENV_PATH="/faxdata/faxbot.env",
    ),
    *_rows(
        "FEATURE_V3_PLUGINS FEATURE_PLUGIN_INSTALL",
        _PLUGINS,
        FEATURE_V3_PLUGINS="false",
        FEATURE_PLUGIN_INSTALL="false",
    ),
    *_rows(
        "FAXBOT_CONFIG_PATH",
        f"{_SAVED}; give that file as --json",
        FAXBOT_CONFIG_PATH="config/faxbot.config.json",
    ),
    *_rows("FAXBOT_PROVIDERS_DIR", _PLUGINS, FAXBOT_PROVIDERS_DIR="config/providers"),
    *_rows(
        "PLUGIN_REGISTRY_PATH",
        "FAXBOT_PLUGIN_REGISTRY is another thing: it names the only plugins that are admitted",
        PLUGIN_REGISTRY_PATH="config/plugin_registry.json",
    ),
    *_rows(
        "ENABLE_MCP_SSE ENABLE_MCP_HTTP MCP_SSE_PATH MCP_HTTP_PATH REQUIRE_MCP_OAUTH OAUTH_ISSUER OAUTH_AUDIENCE "
        "OAUTH_JWKS_URL",
        _MCP,
        ENABLE_MCP_SSE="false",
        ENABLE_MCP_HTTP="false",
        MCP_SSE_PATH="/mcp/sse",
        MCP_HTTP_PATH="/mcp/http",
        REQUIRE_MCP_OAUTH="false",
    ),
    *_rows(
        "ENABLE_S3_DIAGNOSTICS",
        "the bucket is tried whenever somebody asks whether this server is fit (/health/ready)",
        ENABLE_S3_DIAGNOSTICS="false",
    ),
    Row(
        "DOCS_BASE_URL",
        "https://dmontgomery40.github.io/Faxbot",
        note="must lead to a copy of these pages, not of the earlier ones",
    ),
    *_rows(
        "FAX_API_URL MCP_HTTP_API_KEY MCP_HTTP_PORT MCP_SSE_PORT MCP_WS_PORT MCP_WS_API_KEY MCP_HTTP_CORS_ORIGIN",
        _MCP,
        MCP_HTTP_PORT="3001",
        MCP_SSE_PORT="3002",
        MCP_WS_PORT="3004",
        MCP_HTTP_CORS_ORIGIN="*",
    ),
    *_rows("SIP_USERNAME SIP_PASSWORD SIP_SERVER SIP_FROM_USER SIP_FROM_DOMAIN", _TRUNK),
)
"""Every variable that the earlier Faxbot read (a test compares it with a list of them)."""

PUBLISHED = frozenset(
    {
        "057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86",  # changeme (ASTERISK_AMI_PASSWORD)
        "c6052bd7c79dd9c565cadc07ba5e13fbf7edf1bf402d5efffda492bf8b31c00e",  # ClueCon (FREESWITCH_ESL_PASSWORD)
        "ddea1922543dbf3a3a49606176124e50b77f74778d0e4fc4e0d88938a397bd5f",  # asterisk/etc/manager.conf
        "eb7926e7c1a890a223d85cade684e4dca851fec4c0df2fe1d45bb06890b509eb",  # .env.example, SIP_PASSWORD
    }
)
"""SHA-256 of secrets that lie readable in the earlier one's public repository."""

JSON_KEYS = {
    "phaxio": {
        "api_key": "PHAXIO_API_KEY",
        "api_secret": "PHAXIO_API_SECRET",
        "callback_url": "PHAXIO_CALLBACK_URL",
        "verify_signature": "PHAXIO_VERIFY_SIGNATURE",
    },
    "sinch": {
        "project_id": "SINCH_PROJECT_ID",
        "api_key": "SINCH_API_KEY",
        "api_secret": "SINCH_API_SECRET",
        "base_url": "SINCH_BASE_URL",
    },
    "signalwire": {
        "space_url": "SIGNALWIRE_SPACE_URL",
        "project_id": "SIGNALWIRE_PROJECT_ID",
    },
    "documo": {
        "api_key": "DOCUMO_API_KEY",
        "base_url": "DOCUMO_BASE_URL",
        "sandbox": "DOCUMO_SANDBOX",
    },
    "sip": {
        "ami_host": "ASTERISK_AMI_HOST",
        "ami_port": "ASTERISK_AMI_PORT",
        "ami_username": "ASTERISK_AMI_USERNAME",
        "ami_password": "ASTERISK_AMI_PASSWORD",
        "station_id": "FAX_LOCAL_STATION_ID",
    },
    "freeswitch": {
        "esl_host": "FREESWITCH_ESL_HOST",
        "esl_port": "FREESWITCH_ESL_PORT",
        "gateway_name": "FREESWITCH_GATEWAY_NAME",
    },
    "s3": {
        "bucket": "S3_BUCKET",
        "prefix": "S3_PREFIX",
        "region": "S3_REGION",
        "endpoint_url": "S3_ENDPOINT_URL",
        "kms_key_id": "S3_KMS_KEY_ID",
    },
}
"""What its console and its API wrote under `settings`, by plugin; each says the same as a variable."""
SHOWN_ONLY = frozenset({"configured", "ami_password_default"})
"""What GET /plugins/{id}/config said of itself, and its console wrote back."""
TABLES = frozenset(
    {"fax_jobs", "api_keys", "inbound_faxes", "inbound_events", "mailboxes", "inbound_rules"}
)
"""Of its database (api/app/db.py)."""
SLOTS = {"outbound": "FAX_BACKEND", "storage": "STORAGE_BACKEND"}
