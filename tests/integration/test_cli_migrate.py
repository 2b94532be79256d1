"""`faxbot config migrate-env`: what the earlier Faxbot was told is shown, written as one version with a real carrier's
consent, read back, and taken back; no secret and no number is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faxbot import wiring
from faxbot.runtime import Runtime
from tests.installation import FAXBOT, Installation
from tests.integration.command import Ended, one_line, run
from tests.integration.terminal import Terminal
from tests.phaxio_carrier import PhaxioProcess

NUMBER = "+15551234567"
TRUNK = "the trunk's password"


@pytest.fixture
def carrier(tmp_path: Path) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(tmp_path) as carrier:
        yield carrier


def earlier(installation: Installation, carrier: PhaxioProcess, **changes: str) -> Path:
    """Its .env, as its example has it, with comments, quotes and `export`."""
    environ = {**carrier.environ, **changes}
    file = installation.folder / "earlier.env"
    file.write_text(
        f"""# API Configuration
FAX_DATA_DIR=/faxdata
MAX_FILE_SIZE_MB=10   # megabytes
FAX_BACKEND=phaxio
export PHAXIO_API_KEY='{environ["PHAXIO_API_KEY"]}'
PHAXIO_API_SECRET="{environ["PHAXIO_API_SECRET"]}"
PHAXIO_BASE_URL={environ["PHAXIO_BASE_URL"]}
PHAXIO_CALLBACK_URL=http://localhost:8080/phaxio-callback
PHAXIO_VERIFY_SIGNATURE=true
FAX_LOCAL_STATION_ID={NUMBER}
SIP_PASSWORD="{TRUNK}"
API_KEY=your_secure_api_key_here
DATABASE_URL=sqlite:////faxdata/faxbot.db
PDF_TOKEN_TTL_MINUTES=45
FAX_HEADER="${{HOME}} Clinic"
S3_ENDPOINT_URL=        # Optional
TZ=UTC
"""
    )
    return file


def migrate(installation: Installation, *words: str | Path) -> Ended:
    return run(installation, "config", "migrate-env", *words)


@contextmanager
def looking(installation: Installation) -> Iterator[Runtime]:
    runtime = wiring.build(installation.config())
    try:
        yield runtime.fresh()
    finally:
        runtime.close()


def saved(installation: Installation) -> dict[str, dict[str, Any]]:
    with looking(installation) as runtime:
        return {scope: dict(values) for scope, values in runtime.settings.read().saved.items()}


def quiet(said: str, carrier: PhaxioProcess) -> bool:
    """Whether neither a secret nor a number is in it."""
    secrets = (*(carrier.environ[f"PHAXIO_API_{name}"] for name in ("KEY", "SECRET")), TRUNK)
    return not any(secret in said for secret in (*secrets, NUMBER, NUMBER[-7:]))


def test_it_is_shown_and_nothing_is_written_without_apply(
    embedded: Installation, carrier: PhaxioProcess
) -> None:
    ended = migrate(embedded, "--env", earlier(embedded, carrier))

    assert ended.code == 0
    assert "FAX_BACKEND=phaxio -> FAX_BACKENDS  (renamed" in ended.out
    assert "PHAXIO_API_KEY=********" in ended.out
    assert "+•••••••••67 -> ASTERISK_STATION_ID" in ended.out
    assert "made from PUBLIC_API_URL" in ended.out
    assert "REQUIRE_API_KEY: the earlier one took false, this one takes true" in ended.out
    assert "asterisk cannot be used so:" in ended.err
    assert "--apply writes it" in ended.err
    assert quiet(ended.out + ended.err, carrier)
    assert saved(embedded) == {}


def test_it_is_written_as_one_version_used_and_taken_back(
    embedded: Installation, carrier: PhaxioProcess
) -> None:
    ended = migrate(embedded, "--env", earlier(embedded, carrier), "--apply")

    assert ended.code == 0, ended.err
    assert "Written as version 1." in ended.out
    assert "Everything reads back as it was written." in ended.out
    assert "The provider that sends works." in ended.out
    assert "config rollback 0 takes it back" in ended.out
    assert quiet(ended.out + ended.err, carrier)
    found = saved(embedded)
    assert found["phaxio"] == {
        "apiKey": carrier.environ["PHAXIO_API_KEY"],
        "apiSecret": carrier.environ["PHAXIO_API_SECRET"],
        "baseUrl": carrier.environ["PHAXIO_BASE_URL"],
    }
    assert "asterisk" not in found, "it lacks what it needs, and is not who sends"
    assert found[""]["FAX_BACKENDS"] == "phaxio"
    assert found[""]["FAX_HEADER"] == "${HOME} Clinic"
    assert "warning: FAX_HEADER: ${...} in it is taken as it stands" in ended.err
    with looking(embedded) as runtime:
        assert runtime.config.provider_ids == ("phaxio",)
        assert runtime.config.pdf_token_ttl_minutes == 45
        assert runtime.config.max_file_size_mb == 10

    again = migrate(embedded, "--env", earlier(embedded, carrier), "--apply")
    assert (again.code, "It is all saved already." in again.out) == (0, True)
    assert "takes it back" not in again.out, "version 1 is what holds"

    assert run(embedded, "config", "rollback", "0", "--untested").code == 0
    assert saved(embedded) == {}


def test_the_provider_must_let_us_in_or_nothing_is_written(
    embedded: Installation, carrier: PhaxioProcess
) -> None:
    file = earlier(embedded, carrier, PHAXIO_API_SECRET="an old one")

    ended = migrate(embedded, "--env", file, "--apply")
    assert ended.code == 1
    assert "phaxio cannot be used so: nothing was changed" in ended.err
    assert "an old one" not in ended.out + ended.err
    assert saved(embedded) == {}

    ended = migrate(embedded, "--env", file, "--apply", "--untested")
    assert ended.code == 0, ended.err
    assert saved(embedded)["phaxio"]["apiSecret"] == "an old one"


def test_what_the_provider_needs_here_and_did_not_there_is_named_and_added_to_the_same_file(
    embedded: Installation,
) -> None:
    file = embedded.folder / "earlier.env"
    file.write_text("FAX_BACKEND=sip\nASTERISK_AMI_PASSWORD=changeme\n")

    ended = migrate(embedded, "--env", file, "--apply", "--untested")
    assert ended.code == 1
    assert "ASTERISK_FOLDER is not set" in ended.err
    assert "warning: ASTERISK_AMI_PASSWORD: this very secret lies in" in ended.err
    assert saved(embedded) == {}

    file.write_text(file.read_text() + "ASTERISK_FOLDER=/var/spool/faxbot\n")
    ended = migrate(embedded, "--env", file, "--apply", "--untested")
    assert ended.code == 0, ended.err
    assert "warning: ASTERISK_AMI_PASSWORD" in ended.err, "taken over, and never without a word"
    assert saved(embedded)["asterisk"] == {"password": "changeme", "folder": "/var/spool/faxbot"}


def test_the_file_that_counted_there_counts_here(
    embedded: Installation, carrier: PhaxioProcess
) -> None:
    """What its console had persisted went before the environment."""
    persisted = embedded.folder / "faxbot.env"
    persisted.write_text("PDF_TOKEN_TTL_MINUTES=30\n")

    ended = migrate(
        embedded, "--env", earlier(embedded, carrier), "--env", persisted, "--apply", "--as-json"
    )
    assert ended.code == 0, ended.err
    assert saved(embedded)[""]["PDF_TOKEN_TTL_MINUTES"] == "30"
    assert ended.json["applied"] == {
        "before": 0,
        "version": 1,
        "differing": [],
        "health": {"ok": True, "detail": ended.json["applied"]["health"]["detail"]},
    }
    assert "phaxio.apiSecret" in ended.json["to_save"]
    assert quiet(ended.out, carrier)


def test_its_config_file_is_read_too(embedded: Installation) -> None:
    file = embedded.folder / "faxbot.config.json"
    outbound = {
        "plugin": "phaxio",
        "enabled": True,
        "settings": {"api_key": "k", "api_secret": "s"},
    }
    file.write_text(json.dumps({"version": 1, "providers": {"outbound": outbound}}))

    ended = migrate(embedded, "--json", file, "--apply", "--untested")
    assert ended.code == 0, ended.err
    assert saved(embedded) == {
        "": {"FAX_BACKENDS": "phaxio"},
        "phaxio": {"apiKey": "k", "apiSecret": "s"},
    }

    file.write_text('{"password": "of-the-clinic"}')
    ended = migrate(embedded, "--json", file)
    assert ended.code == 1
    assert "faxbot.config.json" in one_line(ended.err)
    assert "of-the-clinic" not in ended.err


def test_without_a_file_the_environment_of_the_command_is_read(
    embedded: Installation, carrier: PhaxioProcess
) -> None:
    environ = {**carrier.environ, "FAX_BACKEND": "phaxio", "AUDIT_LOG_ENABLED": "true"}
    ended = run(embedded, "config", "migrate-env", "--apply", **environ)

    assert ended.code == 0, ended.err
    assert "FAX_BACKEND=phaxio" in ended.out
    assert "HOME" not in ended.out
    with looking(embedded) as runtime:
        assert runtime.config.provider_ids == ("phaxio",), "without the environment"


def test_a_line_that_is_not_understood_is_named_by_its_number_for_a_secret_may_stand_there(
    embedded: Installation,
) -> None:
    file = embedded.folder / "earlier.env"
    lines = (
        "\ufeffFAX_HEADER=Clinic",
        'PHAXIO_API_SECRET="of-the-clinic',
        "whose+second/line=",
        "and-third",
        "FAX BACKEND=of-the-clinic",
        "FAX_DISABLED=true",
    )
    file.write_text("\n".join(lines), encoding="utf-8")

    ended = migrate(embedded, "--env", file)
    assert ended.code == 0
    for number in (2, 3, 4, 5):
        assert f"line {number} of {file}  (it is not understood" in ended.out
    assert "FAX_HEADER=Clinic" in ended.out
    assert "FAX_DISABLED=true" in ended.out
    assert not any(word in ended.out + ended.err for word in ("clinic", "second", "third"))


def test_nothing_to_take_over_is_no_failure(embedded: Installation) -> None:
    file = embedded.folder / "earlier.env"
    file.write_bytes(b"TZ=UTC\nnonsense\n")
    ended = migrate(embedded, "--env", file, "--apply")
    assert (ended.code, saved(embedded)) == (0, {})

    file.write_bytes(b"FAX_HEADER=\xff\xfe\n")
    ended = migrate(embedded, "--env", file, "--apply")
    assert ended.code == 1
    assert "UTF-8" in one_line(ended.err)


@pytest.mark.parametrize("answer", ["y", ""])
def test_at_a_terminal_it_asks_before_it_writes(
    embedded: Installation, carrier: PhaxioProcess, answer: str
) -> None:
    command: list[str | Path] = [
        FAXBOT,
        "config",
        "migrate-env",
        "--env",
        str(earlier(embedded, carrier)),
    ]
    with Terminal(command, embedded.env, embedded.folder) as person:
        person.until("Not taken over:")
        person.answer("Write this? [y/N]", answer)
        assert person.ended() == 0

    assert ("phaxio" in saved(embedded)) == bool(answer)
    assert quiet(person.shown, carrier)
