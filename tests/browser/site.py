"""A running faxbot and its carrier, with people of each role who may sign in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa

from faxbot import wiring
from faxbot.models import User
from faxbot.runtime import Runtime
from faxbot.web.auth import cookie_name
from tests.acceptance import site
from tests.acceptance.site import SHORT
from tests.carrier import SimulatorProcess
from tests.installation import Installation, Service
from tests.integration.web import begun, new_user

PASSWORD = "seven quiet herons at noon"
"""Of everybody."""


@dataclass
class Site(site.Site):
    """What Site of tests/acceptance can, and who works there."""

    runtime: Runtime
    """Of another process: of this one."""
    _people: dict[str, User] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return self.service.url

    def person(self, role: str) -> User:
        """The one of this role, who signs in with his name and PASSWORD."""
        if role not in self._people:
            self._people[role] = new_user(
                self.runtime, role, name=f"Ms {role.title()}", password=PASSWORD
            )
        return self._people[role]

    def cookie(self, role: str) -> tuple[str, str]:
        """Name and value of what a browser shows once he has signed in; a new session each time."""
        return cookie_name(self.runtime.config), begun(self.runtime, self.person(role))

    @contextmanager
    def without_users(self) -> Iterator[None]:
        """As if no user was ever made; all else is as it is."""
        self._move_users("default", "moved away")
        try:
            yield
        finally:
            self._move_users("moved away", "default")

    def _move_users(self, account_id: str, to: str) -> None:
        with self.runtime.database.transaction() as session:
            session.execute(
                sa.update(User).where(User.account_id == account_id).values(account_id=to)
            )


@contextmanager
def opened(installation: Installation, **changes: str) -> Iterator[Site]:
    """`faxbot up` on this installation, until the end; `changes` to its settings."""
    with SimulatorProcess(installation.folder) as carrier:
        # A second between sweeps is short enough for pages, and a third of the work.
        settings = {**SHORT, "FAXBOT_SWEEP_SECONDS": "1", **carrier.environ, **changes}
        service = Service(installation, "up", **settings).start()
        try:
            with closing(wiring.build(installation.config(**settings))) as runtime:
                yield Site(service, carrier, runtime)
        finally:
            service.stop()
