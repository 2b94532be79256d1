"""The commands that work on the installation itself: keys, the first key, the schema, plugins."""

from __future__ import annotations

import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from faxbot import db, identity, schema, wiring
from tests.installation import FAXBOT, Installation
from tests.integration.command import CALLED, UNFORESEEN, first_key, one_line, run
from tests.servers import free_port


def test_a_key_is_shown_once_listed_and_revoked(store: Installation) -> None:
    words = (
        "--name",
        "billing",
        "--scope",
        "fax:send",
        "--scope",
        "fax:read",
        "--expires-at",
        "2099-12-31",
    )
    made = run(store, "keys", "create", *words, "--json").json

    assert re.fullmatch(r"fbk_live_[0-9a-f]{12}_\S{43}", made["key"])
    assert made["scopes"] == ["fax:read", "fax:send"]
    assert made["expires_at"] == "2099-12-31T00:00:00+00:00"
    listed = run(store, "keys", "list", "--json")
    assert made["key"].split("_", 3)[3] not in listed.out
    assert [(key["id"], key["state"]) for key in listed.json] == [(made["id"], "active")]

    assert run(store, "keys", "revoke", made["id"]).code == 0
    assert [key["state"] for key in run(store, "keys", "list", "--json").json] == ["revoked"]
    assert "revoked" in run(store, "keys", "list").out


def test_what_nobody_foresaw_is_one_line_without_what_was_read(embedded: Installation) -> None:
    run(embedded, "keys", "create", "--name", "billing", "--scope", "*")
    with closing(sqlite3.connect(embedded.data_dir / "faxbot.db")) as database, database:
        database.execute("UPDATE api_keys SET scopes = 'Quetzalcoatl'")
    ended = run(embedded, "keys", "list")

    assert ended.code == 1
    (told,) = ended.err.splitlines()
    assert told.startswith(f"faxbot: {UNFORESEEN}, JSONDecodeError at "), told
    assert " keys.py:" in told
    assert "Quetzal" not in told


def test_a_new_key_alone_is_what_goes_to_standard_output(embedded: Installation) -> None:
    ended = run(embedded, "keys", "create", "--name", "for a shell script", "--scope", "*")

    assert re.fullmatch(r"fbk_live_[0-9a-f]{12}_\S{43}\n", ended.out)
    assert "faxbot keys revoke" in ended.err


def damage(path: Path, table: str) -> None:
    """Write over the first page of a table."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = database.execute("PRAGMA page_size").fetchone()
        root = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = database.execute(root, (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_a_database_that_is_away_is_named_by_its_setting(embedded: Installation) -> None:
    nowhere = f"postgresql://faxbot:its-password@127.0.0.1:{free_port()}/faxbot"
    told = one_line(run(embedded, "keys", "list", DATABASE_URL=nowhere).err)
    assert (
        told == "faxbot: the database cannot be used: see DATABASE_URL, or without it FAX_DATA_DIR"
    )

    database = embedded.data_dir / "faxbot.db"
    damage(database, "api_keys")
    told = one_line(run(embedded, "keys", "list").err)
    assert "cannot be used (database disk image is malformed): see" in told

    database.unlink()
    database.mkdir()
    told = one_line(run(embedded, "keys", "list").err)
    assert "cannot be used (unable to open database file): see" in told


def test_commands_in_hints_can_be_pasted(embedded: Installation) -> None:
    create = ("keys", "create", "--name", "n", "--scope", "*")
    elsewhere = run(embedded, *create, PATH="/usr/bin:/bin")
    assert f": {CALLED} keys revoke" in elsewhere.err
    assert f"`{CALLED} keys list`" in run(embedded, "keys", "revoke", "0", PATH="/usr/bin").err

    on_the_path = run(embedded, *create, PATH=f"/usr/bin:{FAXBOT.parent}")
    assert ": faxbot keys revoke" in on_the_path.err


def test_the_time_of_last_use_says_that_it_is_about(embedded: Installation) -> None:
    key = run(embedded, "keys", "create", "--name", "n", "--scope", "*", "--json").json["key"]
    runtime = wiring.build(embedded.config())
    identity.authenticate(runtime, key)
    runtime.close()

    assert re.search(r"used about \d{4}-", run(embedded, "keys", "list").out)


def test_an_unknown_key_id_and_a_bad_name_are_one_line(embedded: Installation) -> None:
    ended = run(embedded, "keys", "revoke", "0123456789ab")
    assert ended.code == 1
    hint = f"`{CALLED} keys list` shows all"
    assert one_line(ended.err) == f"faxbot: there is no key of that id: {hint}"
    ended = run(embedded, "keys", "create", "--name", "", "--scope", "*")
    assert ended.code == 1
    assert "name: " in one_line(ended.err)


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "list"],
        ["keys", "revoke", "0123456789ab"],
        ["keys", "create", "--name", "n", "--scope", "*"],
        ["db", "check"],
        ["plugins", "list"],
        ["plugins", "validate"],
    ],
)
def test_a_command_in_the_wrong_folder_makes_nothing_there(
    embedded: Installation, words: list[str]
) -> None:
    elsewhere = embedded.folder / "elsewhere"
    ended = run(embedded, *words, FAX_DATA_DIR=str(elsewhere))

    assert not elsewhere.exists()
    if words[0] != "plugins":
        assert ended.code == 1
        assert f"there is no database in {elsewhere} (FAX_DATA_DIR)" in one_line(ended.err)


def test_a_database_without_schema_names_the_mend(embedded: Installation) -> None:
    empty = embedded.folder / "empty"
    empty.mkdir()
    (empty / "faxbot.db").touch()
    for words in (("keys", "list"), ("db", "check")):
        ended = run(embedded, *words, FAX_DATA_DIR=str(empty))
        assert ended.code == 1
        assert re.search(r"run `\S*faxbot db upgrade`", one_line(ended.err))


def test_a_database_that_is_away_is_one_line(embedded: Installation) -> None:
    ended = run(
        embedded,
        "db",
        "upgrade",
        DATABASE_URL=f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none",
    )
    assert ended.code == 1
    assert "secret" not in one_line(ended.err)
    assert "database" in ended.err


def test_the_schema_can_be_checked_and_upgraded(store: Installation) -> None:
    assert run(store, "db", "check").code == 0
    assert run(store, "db", "upgrade").code == 0
    config = store.config()
    schema.migrate(config, "base")
    assert run(store, "db", "check").code == 1
    assert run(store, "db", "upgrade").code == 0
    assert db.current(config) == db.head()


# The first key ----------------------------------------------------------------------------------


def test_the_first_start_makes_one_key_for_its_owner_alone(embedded: Installation) -> None:
    assert run(embedded, "prepare").code == 0
    path = first_key(embedded)
    token = path.read_text()
    assert run(embedded, "prepare").code == 0

    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key,) = run(embedded, "keys", "list", "--json").json
    assert key["scopes"] == ["*"]
    assert token.startswith(f"fbk_live_{key['id']}_")


def test_a_revoked_first_key_takes_its_file_along_and_does_not_come_back(
    embedded: Installation,
) -> None:
    run(embedded, "prepare")
    (key,) = run(embedded, "keys", "list", "--json").json

    assert "first-api-key is gone" in run(embedded, "keys", "revoke", key["id"]).out
    assert not first_key(embedded).exists()
    run(embedded, "prepare")
    assert not first_key(embedded).exists()


def test_the_file_of_a_key_revoked_elsewhere_is_removed_at_the_next_start(
    embedded: Installation,
) -> None:
    run(embedded, "prepare")
    (key,) = run(embedded, "keys", "list", "--json").json
    token = first_key(embedded).read_text()
    run(embedded, "keys", "revoke", key["id"])
    first_key(embedded).write_text(token)

    run(embedded, "prepare")

    assert not first_key(embedded).exists()


def test_a_file_left_by_a_start_that_was_cut_off_is_replaced(embedded: Installation) -> None:
    # Written, and then killed before the commit: there is no such key.
    first_key(embedded).write_text("fbk_live_0123456789ab_" + "x" * 43)

    run(embedded, "prepare")

    (key,) = run(embedded, "keys", "list", "--json").json
    assert key["id"] in first_key(embedded).read_text()


def test_no_first_key_where_there_are_others_and_none_in_production(embedded: Installation) -> None:
    run(embedded, "keys", "create", "--name", "mine", "--scope", "*")
    run(embedded, "prepare")
    assert not first_key(embedded).exists()

    new = {"FAX_DATA_DIR": str(embedded.folder / "production"), "FAXBOT_ENV": "production"}
    new["PUBLIC_API_URL"] = "https://fax.example.org"
    assert run(embedded, "prepare", CONFIG_MASTER_KEY="A" * 43 + "=", **new).code == 0
    assert not (embedded.folder / "production" / "first-api-key").exists()


# Plugins ----------------------------------------------------------------------------------------


def test_plugins_are_listed_shown_and_validated(embedded: Installation) -> None:
    listed = run(embedded, "plugins", "list", "--json").json
    active = {plugin["id"] for plugin in listed["plugins"] if plugin["active"]}
    assert active == {"simulator", "local"}
    assert listed["broken"] == []
    assert "simulator" in run(embedded, "plugins", "list").out
    assert run(embedded, "plugins", "validate").code == 0

    secret = "0123456789abcdef" * 2
    here = {"SIMULATOR_BASE_URL": "http://127.0.0.1:8091", "SIMULATOR_SECRET": secret}
    shown = run(embedded, "plugins", "show", "simulator", **here)
    assert shown.code == 0
    assert "SIMULATOR_SECRET" in shown.out
    assert "(simulator, provider, plugin contract" in shown.out
    as_json = run(embedded, "plugins", "show", "simulator", "--json", **here)
    assert as_json.json["fault"] is None
    assert secret not in shown.out + as_json.out


def test_what_faxbot_up_sets_itself_is_said_to_be_so(embedded: Installation) -> None:
    bare = run(embedded, "plugins", "show", "simulator").out
    assert "not needed under" in bare

    own = run(embedded, "plugins", "show", "simulator", SIMULATOR_BASE_URL="http://127.0.0.1:1").out
    assert "SIMULATOR_SECRET" in own
    assert "not needed under" not in own


def test_an_unsound_manifest_fails_validation_with_its_fault(embedded: Installation) -> None:
    path = embedded.folder / "manifest.json"
    path.write_text('{"id": "mine"}')
    ended = run(embedded, "plugins", "validate", path)

    assert ended.code == 1
    assert "manifest" in one_line(ended.err)


def test_an_unknown_plugin_is_one_line(embedded: Installation) -> None:
    ended = run(embedded, "plugins", "show", "carrier-pigeon")
    assert ended.code == 1
    assert "carrier-pigeon" in one_line(ended.err)
