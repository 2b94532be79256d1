"""What production mode (FAXBOT_ENV=production) must have, as far as the configuration alone says: a role that misses
something does not start, and names all of it at once. doctor.py asks for the rest.

Apart, because the clock (beat) demands what the environment must say, and loads no database for it.
"""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from faxbot.config import Config
from faxbot.errors import ConfigError

SHORTEST_KEY = 32
"""Characters of API_KEY from which on nobody guesses it."""
UNGUESSABLE = 20
"""A shorter one can be guessed like a password: it is not let in from a barred address, and not in production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one thing stands, in a sentence, without secrets or PHI."""

    name: str
    ok: bool | None
    """None: it could not be asked."""
    sentence: str
    setting: str = ""
    """The variable that mends it."""
    mend: str = ""
    """What to do, where it is not well."""
    needed_in_production: bool = False
    needed: bool = False
    """Without it no fax goes, in whatever mode."""

    def described(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def is_fault(self, *, production: bool) -> bool:
        """Whether something that is needed is missing."""
        return self.ok is False and (self.needed or (production and self.needed_in_production))


def demand(config: Config, findings: Iterable[Finding] | None = None) -> None:
    """In production: raise ConfigError with a line for each thing that is missing. `findings`: what was found,
    where that is more than without_database()."""
    if not config.production:
        return
    found = without_database(config) if findings is None else findings
    lines = [
        f"production needs {each.setting or each.name}: {each.sentence}; {each.mend}"
        for each in found
        if each.ok is False and each.needed_in_production
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def of_config(config: Config) -> list[Finding]:
    """What the configuration says, with what is saved, and the permissions of files that it names."""
    return [
        *of_environment(config),
        _public_url(config),
        _keys_required(config),
        _api_key(config),
        _proxies(config),
        _terminal(config),
    ]


def of_environment(config: Config) -> list[Finding]:
    """The part of it that cannot be saved in the database."""
    return [_master_key(config), _database(config), _broker(config), _first_key(config)]


def without_database(config: Config) -> list[Finding]:
    """What can be demanded of who cannot ask the database: what the environment must say; and where that is not enough
    to start, all that it leaves out."""
    found = of_environment(config)
    return of_config(config) if any(each.ok is False for each in found) else found


def _finding(
    name: str, setting: str, fault: str, mend: str, well: str, *, needed: bool = True
) -> Finding:
    """Well where there is no `fault`."""
    return Finding(
        name=name,
        ok=not fault,
        sentence=fault or well,
        setting=setting,
        mend=mend if fault else "",
        needed_in_production=needed,
    )


def _master_key(config: Config) -> Finding:
    fault = "" if config.master_key else "the key that seals numbers lies beside the data it seals"
    return _finding("master key", "CONFIG_MASTER_KEY", fault, key_from(config), "it is set")


def key_from(config: Config) -> str:
    """What to set CONFIG_MASTER_KEY to. Where a key file lies, what is sealed opens with that one alone."""
    file = config.data_dir / "master.key"
    if file.exists():
        return f"set it to what `base64 -w0 {shlex.quote(str(file))}` prints, and keep a copy elsewhere"
    return "set it to what `openssl rand -base64 32` prints, and keep a copy elsewhere"


def _public_url(config: Config) -> Finding:
    fault = ""
    if not config.public_url:
        fault = "carriers are told no address at which they reach this server"
    elif urlsplit(config.public_url).scheme != "https":
        fault = "what carriers send to this server, and fetch from it, travels in clear"
    mend = "set it to the https:// address of the proxy in front"
    return _finding("public address", "PUBLIC_API_URL", fault, mend, "carriers come over https")


def _keys_required(config: Config) -> Finding:
    required = config.require_api_key or config.api_key
    fault = "" if required else "requests without a key may send and read faxes"
    return _finding(
        "keys required", "REQUIRE_API_KEY", fault, "remove REQUIRE_API_KEY=false", "all need a key"
    )


def _first_key(config: Config) -> Finding:
    there = config.first_key_file.exists()
    fault = "a key with every scope lies readable in FAX_DATA_DIR/first-api-key" if there else ""
    mend = "make keys of your own (`faxbot keys create`), then revoke it (`faxbot keys revoke`), which removes the file"
    return _finding("first key", "", fault, mend, "there is no first-api-key")


def _api_key(config: Config) -> Finding:
    short = 0 < len(config.api_key) < SHORTEST_KEY
    fault = f"it has every scope and less than {SHORTEST_KEY} characters" if short else ""
    well = "it is long" if config.api_key else "there is no key in the environment"
    mend = "set it to what `openssl rand -hex 24` prints, or use `faxbot keys create` instead"
    needed = len(config.api_key) < UNGUESSABLE
    return _finding("key of the environment", "API_KEY", fault, mend, well, needed=needed)


def _proxies(config: Config) -> Finding:
    """We speak no TLS: where our address is https a proxy is in front."""
    fault, mend = "", "set it to the addresses of the proxies in front, and to no other"
    if any(network.prefixlen == 0 for network in config.trusted_networks):
        fault = "everybody's X-Forwarded-For is believed: nobody's address is known, and no guessing is stopped"
    elif config.public_url.startswith("https://") and not config.trusted_networks:
        fault = "behind a proxy all clients have its address: some wrong passwords bar everybody"
    well = "clients are told apart by their addresses"
    return _finding("clients", "FAXBOT_TRUSTED_PROXIES", fault, mend, well, needed=False)


def _terminal(config: Config) -> Finding:
    """Behind the proxy that production has it would answer nobody; and who runs a production machine has a shell."""
    fault = "administrators run commands on this machine over HTTP" if config.local_admin else ""
    mend = "remove ENABLE_LOCAL_ADMIN"
    return _finding("terminal", "ENABLE_LOCAL_ADMIN", fault, mend, "there is none")


def window(config: Config) -> Finding:
    """Of who runs Flower: nobody guesses its password, and none is made and left in a file."""
    password = config.flower_auth.partition(":")[2]
    fault = (
        f"its password has less than {UNGUESSABLE} characters"
        if password
        else "Flower has no password"
    )
    well = "Flower has a long password"
    mend = "set it to operator: and what `openssl rand -hex 24` prints"
    fault = "" if len(password) >= UNGUESSABLE else fault
    return _finding("Flower's password", "FLOWER_BASIC_AUTH", fault, mend, well)


# Who is let in by the database and the broker -------------------------------------------------------


def _database(config: Config) -> Finding:
    if path := sqlite_file(config):
        fault = _not_private(path)
        mend = f"chmod 600 {path.name} and its folder 700, or set DATABASE_URL to a PostgreSQL with a password"
        well = "it is a file of this user alone"
    else:
        fault = "" if _proves_itself(config) else "nothing in it proves to PostgreSQL who we are"
        mend = "write postgresql://user:password@host/name, name a certificate (sslcert) or a unix socket (host=/...)"
        well = "PostgreSQL is shown a proof of who we are"
    return _finding("database access", "DATABASE_URL", fault, mend, well)


_IN_QUERY = ("password", "sslcert", "passfile", "service")
_IN_ENVIRONMENT = ("PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSSLCERT")


def sqlite_file(config: Config) -> Path | None:
    """The file of the database, None where it is none."""
    scheme, _, rest = config.database.partition("://")
    path = rest.partition("?")[0].removeprefix("/").removeprefix("file:")
    return Path(path) if scheme == "sqlite" else None


def _proves_itself(config: Config) -> bool:
    """A password, a certificate, or a unix socket, where the server knows who asks (peer); also where libpq finds them
    by itself (PostgreSQL documentation, 34.1.2, 34.15, 34.16)."""
    before, at, behind = config.database.partition("://")[2].partition("@")
    user, place = (before, behind) if at else ("", behind or before)
    asked = parse_qs(place.partition("?")[2])
    host = asked.get("host", [""])[0] or unquote(re.split(r"[:/?]", place, maxsplit=1)[0])
    return (
        bool(user.partition(":")[2])
        or any(name in asked for name in _IN_QUERY)
        or any(config.environ.get(name) for name in _IN_ENVIRONMENT)
        or not host
        or host.startswith("/")
    )


def _broker(config: Config) -> Finding:
    """The embedded broker is allowed: nobody but this user can open its socket."""
    if config.embedded_broker:
        return _finding(
            "broker access",
            "FAX_DATA_DIR",
            _folder_fault(config.broker_socket.parent),
            "chmod 700 the folder, or set CELERY_BROKER_URL to a Redis with a password",
            "its socket is this user's alone",
        )
    parts = urlsplit(config.broker)
    fault = ""
    if parts.scheme == "redis+socket":
        path = Path(unquote(parts.path or parts.netloc))
        fault = "" if parts.password else _not_private(path)
    elif not parts.password:
        fault = "the broker is shown no password: whoever reaches it rings every bell"
    name = "CELERY_BROKER_URL" if config.broker_url else "REDIS_URL"
    mend = "write redis://:password@host:6379/0 (and requirepass at the server), or a unix socket that is yours alone"
    return _finding(
        "broker access", name, fault, mend, "it is shown a password, or is a private socket"
    )


def _not_private(path: Path) -> str:
    """What others may do with a file, or a socket; "" where nothing, or where it is not there yet."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return _folder_fault(path.parent)
    # Who may not look into its folder cannot open it either.
    if mode & 0o066 and _mode(path.parent) & 0o011:
        return f"other users of this machine may open {path.name}"
    return _folder_fault(path.parent)


def _folder_fault(folder: Path) -> str:
    if _mode(folder) & 0o022:
        return f"other users of this machine may write into the folder {folder.name}"
    return ""


def _mode(folder: Path) -> int:
    try:
        found = folder.stat().st_mode
    except OSError:
        return 0
    # In a folder with the sticky bit only the owner of a file can replace it (/tmp).
    return stat.S_IMODE(found) & ~0o022 if found & stat.S_ISVTX else stat.S_IMODE(found)
