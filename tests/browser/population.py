"""What a faxbot has that was at work for a while: faxes of all outcomes, received ones, a subscriber, a key."""

from __future__ import annotations

from typing import Any

from tests.browser.site import Site
from tests.ground import eventually
from tests.integration.hooks import HERE
from tests.integration.web import ahead
from tests.receiver import Receiver

SETTINGS = {
    **HERE,
    "FAXBOT_LOOK_UP_SECONDS": "600",  # what is uncertain stays so
    "FAXBOT_POLL_FIRST_SECONDS": "600",  # and what was sent without a callback, too
}
"""Of the installation."""
_FAXES = {
    "delivered": ["0430", "0000", "0001", "0002", "0022", "0066", "1234", "7012"],
    "failed": ["0404", "0407", "0048"],
    "retrying": ["0017", "0018"],
    "sent": ["0044"],
    "uncertain": ["0500"],
}
"""By what becomes of them, the endings of their numbers (docs/simulator.md)."""
_CASES = ("4711", "4712", "4720")


def populate(site: Site, receiver: Receiver) -> dict[str, str]:
    """Let it work, until nothing moves any more. Gives an id, or name, of each kind for the addresses of its pages."""
    webhook = _asked(
        site,
        "/webhooks",
        {"name": "records system", "url": f"{receiver.url}/faxbot", "types": ["FAX_DELIVERED"]},
    )
    _asked(site, f"/webhooks/{webhook['id']}/test")
    key = _asked(site, "/admin/api-keys", {"name": "billing", "scopes": ["fax:send", "fax:read"]})
    named = {"settings": {"FAX_HEADER": "Riverside Clinic"}, "note": "the new name of the clinic"}
    _asked(site, "/admin/config", named, method="PATCH")
    sent = {
        status: [
            site.send(ending, **{"tags[case]": _CASES[at % 3]}) for at, ending in enumerate(endings)
        ]
        for status, endings in _FAXES.items()
    }
    later = [site.send(ending, send_at=ahead(2)) for ending in ("0100", "2200", "2201", "2202")]
    _asked(site, f"/fax/{later[1]}/cancel")
    for fax_id in later[2:]:
        _asked(site, f"/fax/{fax_id}/hold")
    for caller in ("0000", "0100", "0409"):
        site.carrier.receive(caller, f"{site.origin}/callbacks/simulator")
    for status, fax_ids in sent.items():
        for fax_id in fax_ids:
            _becomes(site, fax_id, status)
    received = eventually(
        lambda: (
            _answer(site, "/inbound?limit=3")["items"][2:]
            and _answer(site, "/inbound?status=received")["items"]
        )
    )
    delivery = eventually(
        lambda: _answer(site, f"/webhooks/{webhook['id']}/deliveries?status=delivered")["items"]
    )
    return {
        "fax_id": sent["delivered"][0],
        "uncertain": sent["uncertain"][0],
        "inbound_id": received[0]["id"],
        "webhook_id": webhook["id"],
        "delivery_id": delivery[0]["id"],
        "key_id": key["id"],
        "provider_id": "simulator",
        "plugin_id": "local",
    }


def _becomes(site: Site, fax_id: str, status: str) -> None:
    eventually(lambda: site.fax(fax_id)["status"] == status, 30, every=0.1)


def _asked(site: Site, path: str, wish: Any = None, method: str = "POST") -> dict[str, Any]:
    answer = site.service.request(method, path, json=wish)
    assert answer.ok, (path, answer.text)
    body: dict[str, Any] = answer.json()
    return body


def _answer(site: Site, path: str) -> dict[str, Any]:
    return _asked(site, path, method="GET")
