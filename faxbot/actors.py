"""Who does something here, and what he may do: a program with its key, a person with his session, a command at this
machine, the clock.

An Actor goes from the door to the domain functions; what he did is written down with his id (audit).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from faxbot.errors import Forbidden
from faxbot.events import DEFAULT_ACCOUNT

SCOPES: dict[str, str] = {
    "fax:send": "send and cancel faxes",
    "fax:read": "read faxes and their timelines",
    "inbound:list": "list received faxes",
    "inbound:read": "open received faxes",
    "webhooks:manage": "manage webhook subscriptions",
    "events:read": "read the event stream",
    "metrics": "read metrics",
    "operate": "settle uncertain faxes; see, pause, resume and test providers",
    "keys:manage": "manage API keys; implies admin",
    "admin": "everything an administrator does",
    "*": "everything",
}
_IMPLIED_BY: dict[str, frozenset[str]] = {
    "operate": frozenset({"admin", "keys:manage"}),
    "admin": frozenset({"keys:manage"}),
    "keys:manage": frozenset({"admin"}),
}
ADMIN, OPERATOR, VIEWER = "admin", "operator", "viewer"
ROLES: dict[str, frozenset[str]] = {
    ADMIN: frozenset({"*"}),
    OPERATOR: frozenset(
        {"fax:send", "fax:read", "inbound:list", "inbound:read", "events:read", "operate"}
    ),
    VIEWER: frozenset({"fax:read", "inbound:list", "events:read"}),
}
"""What people with a session may do. A viewer sees numbers masked (Actor.masked)."""
KEY, USER, COMMAND, CLOCK = "key", "user", "command", "clock"
LINK, STRANGER = "link", "stranger"
"""What kinds of actors there are; a link was given to a carrier, and nobody knows who a stranger is."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an account, his id within it, and his scopes; of a request also its id and where it came from."""

    account_id: str
    id: str
    """A key's or a user's id; `env` for the key of API_KEY, `anonymous`, `cli`, `clock`."""
    scopes: frozenset[str]
    kind: str = KEY
    request_id: str | None = None
    address: str | None = None
    masked: bool = False
    """Whether numbers, and what people wrote, are hidden from him."""

    def may(self, scope: str) -> bool:
        if "*" in self.scopes or scope in self.scopes:
            return True
        return not self.scopes.isdisjoint(_IMPLIED_BY.get(scope, ()))

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the actor has `scope`."""
        if not self.may(scope):
            whose = "Your role" if self.kind == USER else "This key"
            raise Forbidden(f"{whose} lacks the scope {scope}.")

    def require_whole(self, scope: str) -> None:
        """Raise Forbidden for somebody from whom numbers are hidden: what this shows holds them."""
        if self.masked:
            raise Forbidden(f"Your role has {scope} with numbers masked, and this shows them.")

    def require_house(self) -> None:
        """Raise Forbidden for who has an account of his own here: this is everybody's."""
        if self.account_id != DEFAULT_ACCOUNT:
            raise Forbidden("This is of the whole installation, not of your account.")

    def require_all(self, scopes: Iterable[str]) -> None:
        """Raise Forbidden unless the actor has each of them: nobody gives to others, or gets by way of them, what he
        may not do himself."""
        if lacking := [scope for scope in sorted(scopes) if not self.may(scope)]:
            raise Forbidden(f"This would give scopes that you lack: {', '.join(lacking)}.")


CLI = Actor(DEFAULT_ACCOUNT, "cli", frozenset({"*"}), COMMAND)
"""Who may run commands on this machine, at the database itself."""
