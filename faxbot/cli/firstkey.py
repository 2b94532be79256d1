"""The first API key: a newcomer's way in, in a file (0600) that lies in the data folder until the key is revoked.

It is made when there has never been a key; a revoked one is not replaced. Production has none.
"""

from __future__ import annotations

from pathlib import Path

from faxbot import identity
from faxbot.config import Config
from faxbot.runtime import Runtime
from faxbot.supervisor import keyfile


def keep(runtime: Runtime) -> None:
    """Make the first key on the first start, and remove its file once the key is revoked or gone."""
    path = keyfile.path(runtime.config)
    with runtime.database.transaction() as session:
        keys = identity.list_keys(session)
        usable = {key.id for key in keys if key.revoked_at is None}
        if path.exists() and _id(path) not in usable:
            path.unlink()
        if not keys:
            _, token = identity.create_key(
                session, runtime.keyring, name="first key", scopes=["*"], now=runtime.now()
            )
            # Before the commit: after a crash in between there is a file without a key, which the next start mends.
            keyfile.write_privately(path, token + "\n")


def forget(config: Config, key_id: str) -> bool:
    """Remove the file if it holds the key `key_id`; whether it did."""
    path = keyfile.path(config)
    held = path.exists() and _id(path) == key_id
    if held:
        path.unlink()
    return held


def renew(config: Config, key_id: str, token: str) -> None:
    """Put the new token of the key `key_id` into the file, if the file holds that key."""
    path = keyfile.path(config)
    if path.exists() and _id(path) == key_id:
        keyfile.write_privately(path, token + "\n")


def _id(path: Path) -> str:
    """The id in fbk_live_<id>_<secret>."""
    return path.read_text().removeprefix("fbk_live_").partition("_")[0]
